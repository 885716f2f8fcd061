"""`rrtn` in processes: trainers forked, so that one costs no import of torch, all else new."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

SMALL_RRTN = Path(__file__).parent / "faults/small_rrtn.py"
# For `before`: the encoders as they are, in place of the small one.
REAL_ENCODERS = """
from rrtn.train.method import encoders, model
model.encoder_from_name = encoders.encoder_from_name
"""


# `rrtn` as a shell finds it: what most tests call is forked from a process that has imported it.
COMMAND = """#!/bin/sh
client="$(dirname "$0")/client.py"
case "$1" in
    train|table2|evaluate|report|export|parity) exec {python} -IS "$client" {training} "$@";;
    score|pack|inspect|tracks) exec {python} -IS "$client" {runtime} "$@";;
    *) exec {python} -c "import sys; sys.argv[0] = 'rrtn'; from rrtn.__main__ import main; main()" "$@";;
esac
"""
CLIENT = """
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect("\\0" + sys.argv[1])
    order = json.dumps({"argv": sys.argv[2:], "cwd": os.getcwd(), "env": dict(os.environ)}).encode()
    socket.send_fds(server, [len(order).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(order)
    sys.exit(int(server.recv(4) or 1))
"""
# Where no --epochs are given, as in most commands of the pages.
FEW_EPOCHS = "from rrtn.train import plan; plan._PAPER_EPOCHS = 3"


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
        return Ended(self.code(), self._out.read_text(), self._err.read_text())

    def code(self) -> int:
        return int(self._server.ask({"wait": self.pid}))

    def said(self) -> tuple[bytes, bytes]:
        return self._out.read_bytes(), self._err.read_bytes()


class Forked:
    """What tests need of a Popen, for a child of a server."""

    def __init__(self, server: "Server", pid: int) -> None:
        self._server, self.pid, self._code = server, pid, None

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._server.ask({"poll": self.pid})
        return self._code

    def wait(self, seconds: float = 500.0) -> int:
        latest = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > latest:
                raise TimeoutError(f"process {self.pid} goes on")
            time.sleep(0.01)
        return code


class Running:
    """`rrtn` in a session of its own, its output in files: forked, or from a new interpreter."""

    def __init__(
        self,
        server: "Server",
        arguments: tuple[object, ...],
        cwd: Path,
        *,
        before: str = "",
        fresh: bool = False,
        **env: object,
    ) -> None:
        self.out, self.err = (cwd / f".{time.monotonic_ns()}.{name}" for name in ("out", "err"))
        self.out.touch()
        self.err.touch()
        argv, whole = (
            [*map(str, arguments)],
            {**os.environ, **{name: str(value) for name, value in env.items()}},
        )
        if fresh:
            self.process: Any = self._new(argv, cwd, whole)
        else:
            self.process = Forked(
                server, server.fork(argv, cwd, whole, before, self.out, self.err, session=True)
            )

    def _new(self, argv: list[str], cwd: Path, env: dict[str, str]) -> "subprocess.Popen[bytes]":
        with self.out.open("wb") as out, self.err.open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "rrtn", *argv],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=env,
                start_new_session=True,
            )

    def kill(self, number: signal.Signals = signal.SIGKILL, *, group: bool = True) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.process.pid, number)

    def wait(self, seconds: float = 500.0) -> Ended:
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
    """small_rrtn.py --serve, or --serve-runtime."""

    def __init__(self, folder: Path, mode: str = "--serve") -> None:
        self._folder, self._count, self._name = folder, 0, ""
        self.cache = folder / "cache"
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads do not survive a fork
        env = {**os.environ, **single, "PYTHONHASHSEED": "0", "RRTN_CACHE": str(self.cache)}
        command = [sys.executable, str(SMALL_RRTN), mode]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def start(self, *argv: object, cwd: Path, before: str = "", **env: object) -> Child:
        """`rrtn argv` with `env` in its environment; `before` is Python that it runs first."""
        self._count += 1
        out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        out.touch()  # a child that is killed at once has said nothing
        err.touch()
        texts = {name: str(value) for name, value in env.items()}
        return Child(self, self.fork([*map(str, argv)], cwd, texts, before, out, err), out, err)

    def listen(self, before: str = "") -> str:
        """-> the name at which clients reach it; `before` is Python that their commands run first."""
        if not self._name:
            self._name = f"rrtn-{self.process.pid}"
            self.ask({"listen": {"name": self._name, "before": before}})
        return self._name

    def put_command(self, folder: Path, runtime: "Server") -> None:
        """Writes `folder/rrtn`, with the small encoder and three epochs where nobody says how many."""
        names = {"training": self.listen(FEW_EPOCHS), "runtime": runtime.listen()}
        folder.mkdir(exist_ok=True)
        (folder / "client.py").write_text(CLIENT)
        (folder / "rrtn").write_text(COMMAND.format(python=shlex.quote(sys.executable), **names))
        (folder / "rrtn").chmod(0o755)

    def run(
        self, *argv: object, cwd: Path, before: str = "", **env: object
    ) -> "subprocess.CompletedProcess[bytes]":
        """`rrtn argv` to its end, with its names and output as bytes."""
        texts = [os.fsdecode(each) if isinstance(each, bytes) else str(each) for each in argv]
        child = self.start(*texts, cwd=cwd, before=before, **env)
        return subprocess.CompletedProcess(texts, child.code(), *child.said())

    def run_as_ranks(self, script: Path, argument: Path, *, count: int = 2) -> list[Ended]:
        """`python script argument` in forked processes with the environment that torchrun gives them."""
        before = f"""
import runpy, sys, warnings
warnings.simplefilter("error")
sys.argv = {[str(script), str(argument)]}
runpy.run_path(sys.argv[0], run_name="__main__")
raise SystemExit
"""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1], "WORLD_SIZE": count}
        ranks = [
            self.start(cwd=argument, before=before, RANK=rank, LOCAL_RANK=rank, **common)
            for rank in range(count)
        ]
        return [rank.wait() for rank in ranks]

    def fork(
        self,
        argv: list[str],
        cwd: Path,
        env: dict[str, str],
        before: str,
        out: Path,
        err: Path,
        *,
        session: bool = False,
    ) -> int:
        """-> the child's process id."""
        files = {"cwd": str(cwd), "out": str(out), "err": str(err)}
        order = {"argv": argv, "env": env, "before": before, "session": session, **files}
        return int(self.ask({"start": order}))

    def ask(self, order: dict[str, Any]) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()
