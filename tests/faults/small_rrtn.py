"""rrtn with a 3-layer CNN in place of the encoders, so that a run takes a second and can be killed a
hundred times.

    python small_rrtn.py train ...          what `python -m rrtn train ...` does
    python small_rrtn.py --serve            the same in a forked child for each order on stdin
    python small_rrtn.py --serve-runtime    likewise, without torch: for commands of the runtime

An order is one line of JSON: {"start": {"argv", "cwd", "env", "before", "out", "err", "session"}} is
answered by the child's process id, {"wait": id} by its exit code, {"poll": id} likewise, or by null
while it runs. `before` is Python that the child runs first, to set up its fault; with `session` it
has a session of its own. {"listen": {"name", "before"}} starts a process that does the same for
every client of that abstract socket: it gets {"argv", "cwd", "env"} with the client's three standard
streams, and answers the exit code.
"""

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import signal
import socket
import sys
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
# What takes long to import: an export's two seconds, and most of what a small run or scoring a file takes.
_COMMAND = ("typer._adapters",)  # pydantic, for every command
_EXPORT = (
    *_COMMAND,
    *("rrtn.export.publish", "networkx", "onnxscript"),
    *("rrtn.commands.train", "rrtn.commands.export", "rrtn.train.start", "numpy.ma", "numpy.ctypeslib"),
)
_RUNTIME = (
    *_COMMAND,
    *("rrtn.cli", "rrtn.commands.score", "rrtn.runtime.scoring.scorer", "rrtn.runtime.tables.writer"),
    *("rrtn.runtime.scoring.table_job", "rrtn.runtime.scoring.folder", "rrtn.runtime.scoring.local_engine"),
    *("rrtn.runtime.backends.ort_backend", "rrtn.runtime.audio.inputs", "rich.progress", "onnxruntime"),
)


def keep_freed_memory() -> None:
    """glibc keeps what is freed: to map it anew for each tensor takes a tenth of a small training's time.

    For this process and its forks, not for the programs that it starts.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def read_operators_once() -> None:
    """The ONNX exporter reads the source of its operators once in a process, not anew for each graph.

    It takes a third of the time that a small network's graph takes. Nothing adds to them here.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))


def run(argv: list[str]) -> None:
    """As `python -m rrtn`. RRTN_FAILPOINT_RANK1 is for one of several processes with the same environment."""
    if os.environ.get("RANK") == "1" and (chosen := os.environ.get("RRTN_FAILPOINT_RANK1")):
        os.environ["RRTN_FAILPOINT"] = chosen
    sys.argv = ["rrtn", *argv]
    from rrtn.__main__ import main

    main()


def serve(imported: tuple[str, ...]) -> None:
    for name in imported:
        importlib.import_module(name)
    from rrtn.runtime import progress

    progress._FIRST_LINE_SECONDS = 1e6  # no words of progress between the others, however slow the disk is
    gc.freeze()  # a child that collects garbage would copy every page
    gc.enable()
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            answer = _start(**order["start"])
        elif "listen" in order:
            answer = _listen(**order["listen"])
        elif "poll" in order:
            ended, status = os.waitpid(order["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        print(json.dumps(answer), flush=True)


def _start(
    argv: list[str], cwd: str, env: dict[str, str], before: str, out: str, err: str, session: bool
) -> int:
    if child := _fork():
        return child
    if session:
        os.setsid()
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
    return _live(argv, cwd, env, before, [os.open(path, flags, 0o644) for path in (os.devnull, out, err)])


def _listen(name: str, before: str) -> int:
    """-> the process that attends to the clients."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{name}")
    listener.listen()
    if attendant := _fork():
        listener.close()
        return attendant
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        client, _ = listener.accept()
        if not _fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _attend(client, before)
        client.close()


def _attend(client: socket.socket, before: str) -> NoReturn:
    size, streams, _, _ = socket.recv_fds(client, 4, 3)
    with client.makefile("rb") as orders:
        order = json.loads(orders.read(int.from_bytes(size, "big")))
    if not (child := _fork()):
        os.environ.clear()
        _live(order["argv"], order["cwd"], order["env"], before, streams)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    client.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def _fork() -> int:
    """No child outlives the process that has forked it."""
    child = os.fork()
    if not child:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return child


def _live(argv: list[str], cwd: str, env: dict[str, str], before: str, streams: list[int]) -> NoReturn:
    """Runs the command, with three descriptors as its standard streams."""
    status: Any = 1
    try:
        os.chdir(cwd)
        os.environ.update(env)
        for stream, descriptor in enumerate(streams):
            os.dup2(descriptor, stream)
        exec(before, {})
        run(argv)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def main() -> None:
    gc.disable()  # what is imported stays
    if sys.argv[1:] == ["--serve-runtime"]:
        serve(_RUNTIME)
        return
    from small_cnn import make_small

    make_small()
    if sys.argv[1:] != ["--serve"]:
        gc.enable()
        run(sys.argv[1:])
        return
    from rrtn.export.graph import OPSET
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read_operators_once()
    ONNXRegistry.from_torchlib(opset_version=OPSET)  # all children have them
    serve(_EXPORT)


if __name__ == "__main__":
    main()
