"""`rrtn` in processes: trainers forked, so that one costs no import of torch, all else new."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SMALL_RRTN = Path(__file__).parent / "faults/small_rrtn.py"
# For `before`: the encoders as they are, in place of the small one.
REAL_ENCODERS = """
from rrtn.train.method import encoders, model
model.encoder_from_name = encoders.encoder_from_name
"""


class Ended(NamedTuple):
    """How a process ended; `code` is -9 where SIGKILL has ended it."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document

    @property
    def error(self) -> str:
        """The one line that it ends with."""
        lines = self.err.splitlines()
        assert lines, self.code
        assert lines[-1].startswith("rrtn: "), self.err
        assert "Traceback" not in self.err
        return lines[-1]


class Child:
    """A forked `rrtn`."""

    def __init__(self, server: "Server", pid: int, out: Path, err: Path) -> None:
        self._server, self.pid, self._out, self._err = server, pid, out, err

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        return Ended(self._server.ask({"wait": self.pid}), self._out.read_text(), self._err.read_text())


class Running:
    """`rrtn`, started in a session of its own, its output in files."""

    def __init__(
        self,
        arguments: tuple[object, ...],
        cwd: Path,
        *,
        before: Callable[[], None] | None = None,
        **env: object,
    ) -> None:
        self.out, self.err = (cwd / f".{time.monotonic_ns()}.{name}" for name in ("out", "err"))
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rrtn", *map(str, arguments)],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **{name: str(value) for name, value in env.items()}},
                start_new_session=True,
                preexec_fn=before,  # noqa: PLW1509  # no thread is here
            )

    def kill(self, number: signal.Signals = signal.SIGKILL, *, group: bool = True) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.process.pid, number)

    def wait(self, seconds: float = 60.0) -> Ended:
        try:
            code = self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.kill()
        ended = Ended(code, self.out.read_text(), self.err.read_text())
        self.out.unlink()
        self.err.unlink()
        return ended

    def decoders(self) -> list[int]:
        """Processes of its session but itself; those that have ended and that nobody has waited for
        do not count.
        """
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                pid, state, session = re.match(
                    r"(\d+) \(.*\) (\S) \d+ \d+ (\d+)", status.read_text()
                ).groups()  # type: ignore[union-attr]
                if int(session) == self.process.pid != int(pid) and state != "Z":
                    found.append(int(pid))
        return found


class Server:
    """small_rrtn.py --serve."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self.cache = folder / "cache"
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "RRTN_CACHE": str(self.cache)}
        command = [sys.executable, str(SMALL_RRTN), "--serve"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def start(self, *argv: object, cwd: Path, before: str = "", **env: object) -> Child:
        """`rrtn argv` with `env` in its environment; `before` is Python that it runs first."""
        self._count += 1
        out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        out.touch()  # a child that is killed at once has said nothing
        err.touch()
        order = {
            "argv": [*map(str, argv)],
            "cwd": str(cwd),
            "env": {name: str(value) for name, value in env.items()},
            "before": before,
            "out": str(out),
            "err": str(err),
        }
        return Child(self, self.ask({"start": order}), out, err)

    def ask(self, order: dict[str, Any]) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()
