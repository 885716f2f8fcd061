"""A connection to Ray, or a Ray that this process starts for itself.

Ray is kept quiet, and away from the signals and exit codes of this process. Needs ray, the extra `ray`, which
is imported only here.
"""

import contextlib
import importlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ..errors import ConfigError, MissingExtraError, RrtnError
from ..system.cpus import usable_cpus
from ..system.host import pipe_without_waiting

_LOCAL: Final = "local"
_CONNECT: Final = 5.0  # s
# HTTP/2's, and an empty frame of settings.
_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_FRAME_HEAD, _FRAME_TYPE, _SETTINGS = 9, 3, b"\4"  # bytes of a frame's head, the place of its type, that type
_STORE: Final = 128 << 20  # bytes of the object store beside the model


@contextlib.contextmanager
def connected_ray(address: str | None, size: int, *, gpus: bool) -> Iterator[Any]:
    """Ray, for as long as the block. Ray prints nothing on stdout and sends no usage figures.

    `size` is that of the model (bytes), `gpus` says whether Ray may give out GPUs. Raises ConfigError if no
    cluster answers at `address`, MissingExtraError without ray.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = imported_ray()
    address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
    own: dict[str, Any] = {
        "num_cpus": usable_cpus(),
        "include_dashboard": False,
        "object_store_memory": _STORE + 2 * size,
    }
    if not gpus:
        own["num_gpus"] = 0
    _check_reachable(address)
    try:
        with _kept_exit_code():
            with _kept_signals():
                ray.init(
                    address, log_to_driver=False, logging_level="ERROR", **(own if address == _LOCAL else {})
                )
            yield ray
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, RrtnError) or ray.is_initialized():
            raise
        raise _unreachable(address, last_line(error)) from error
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    """Keeps our handler of SIGTERM while Ray starts. The SystemExit of Ray's handler may get lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    reader, writer = pipe_without_waiting()
    signals_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.set_wakeup_fd(signals_before)
        os.close(writer)
        with open(reader, "rb") as came:
            terminated = signal.SIGTERM in came.read()
    if terminated:
        raise SystemExit(128 + signal.SIGTERM)


@contextlib.contextmanager
def _kept_exit_code() -> Iterator[None]:
    """Keeps the exit code of SIGTERM. Ray's handler exits with 15, and Ray's waiting with 1 for any code."""
    try:
        yield
    except SystemExit as ended:
        if ended.code in (1, signal.SIGTERM):
            raise SystemExit(128 + signal.SIGTERM) from ended
        raise


def _check_reachable(address: str) -> None:
    """Tries the address first: Ray itself would try for minutes, and end the process.

    A cluster speaks gRPC, so HTTP/2. Whoever greets it is greeted at once.
    """
    host, colon, port = (
        (_own_cluster() if address == "auto" else address).removeprefix("ray://").rpartition(":")
    )
    if not (colon and port.isdigit()) or "/" in host:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("", "0", "false"):
                _greet(connection)
    except TimeoutError as error:
        raise _unreachable(address, f"does not answer within {_CONNECT:g} s") from error
    except (OSError, OverflowError) as error:
        raise _unreachable(address, str(error)) from error


def _greet(connection: socket.socket) -> None:
    """Raises OSError where no HTTP/2 server answers."""
    connection.sendall(_GREETING)
    latest, answer = time.monotonic() + _CONNECT, b""
    while len(answer) < _FRAME_HEAD:
        connection.settimeout(max(0.001, latest - time.monotonic()))
        part = connection.recv(_FRAME_HEAD - len(answer))
        if not part:
            break
        answer += part
    if answer[_FRAME_TYPE : _FRAME_TYPE + 1] != _SETTINGS:
        raise OSError("another program answers there")


def _own_cluster() -> str:
    """The address that `ray start` has left on this node; "" if there is none."""
    folder = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray")
    try:
        return (folder / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _unreachable(address: str, came: str) -> ConfigError:
    return ConfigError(
        f"--ray-address {address}",
        came,
        wanted="a running cluster's HOST:PORT, or auto on one of its nodes",
        fix="ray status",
    )


def imported_ray() -> Any:
    """Ray. Raises MissingExtraError without it."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError.of("ray", "ray", "--engine ray") from error


def last_line(error: Exception) -> str:
    """The last line of what an error of Ray says, which may be a page."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else repr(error)
