"""What a person sees on a terminal of some width, from what a program writes to it."""

import contextlib
import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

CONTROL = re.compile(r"\x1b\[([?0-9;]*)([a-zA-Z])")


def screen_of(output: str) -> list[str]:
    """The lines after cursor movements and erasures; a line may be longer than the terminal is wide."""
    lines, row, column = [""], 0, 0
    for piece in re.split(r"(\x1b\[[?0-9;]*[a-zA-Z]|[\r\n])", output):
        control = CONTROL.fullmatch(piece)
        if control and control[2] == "A":
            row -= int(control[1] or 1)
            assert row >= 0
        elif control and control[2] == "K":
            lines[row] = ""
        elif control:
            assert control[2] == "m" or control[1] == "?25", f"unknown control {piece!r}"
        elif piece == "\r":
            column = 0
        elif piece == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        else:
            lines[row] = lines[row].ljust(column)[:column] + piece + lines[row][column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines]


def on_terminal(command: str, folder: Path, *, columns: int, rows: int = 40) -> list[str]:
    """The lines that a shell's command leaves on a terminal, in a folder with bin/ and a cache of its own."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "RRTN_CACHE": str(folder / "cache"), "TERM": "xterm"}
    env |= {"COLUMNS": str(columns), "LINES": str(rows)}
    with subprocess.Popen(["bash", "-c", command], cwd=folder, env=env, stdout=theirs, stderr=theirs):
        os.close(theirs)
        shown = b"".join(read_all(ours)).decode()
    return screen_of(shown)


def read_all(descriptor: int) -> Iterator[bytes]:
    """What is written, until nobody writes any more, which Linux says by EIO."""
    with contextlib.suppress(OSError), open(descriptor, "rb", buffering=0) as file:
        while chunk := file.read(1 << 16):
            yield chunk
