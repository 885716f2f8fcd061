"""A connection to Ray, or a Ray of this process's own: quiet, and with its hands off signals and exit codes.

Needs ray, the extra `ray`, which is imported only here.
"""

import contextlib
import importlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any, Final

from ..cpus import usable_cpus
from ..errors import ConfigError, MissingExtraError, RrtnError

_LOCAL: Final = "local"
_CONNECT: Final = 5.0  # s
_STORE: Final = 128 << 20  # bytes of the object store beside the model


@contextlib.contextmanager
def connected_ray(address: str | None, size: int, *, gpus: bool) -> Iterator[Any]:
    """Ray, quiet and for as long as the block; nothing of it on stdout, no figures sent home."""
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
        wanted = "a running cluster's HOST:PORT, or auto on one of its nodes"
        raise ConfigError(
            f"--ray-address {address}", last_line(error), wanted=wanted, fix="ray status"
        ) from error
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    """While Ray starts it has a handler of SIGTERM of its own, whose SystemExit may be lost on its way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
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
    """Of a handler of SIGTERM: Ray's own handler gives the bare number, and its waiting gives 1 for
    any code.
    """
    try:
        yield
    except SystemExit as ended:
        if ended.code in (1, signal.SIGTERM):
            raise SystemExit(128 + signal.SIGTERM) from ended
        raise


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit()) or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--ray-address {address}",
            str(error),
            wanted="a running cluster's HOST:PORT",
            fix="ray status",
        ) from error


def imported_ray() -> Any:
    """Ray; MissingExtraError without it."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError(
            "ray", "not installed, and --engine ray needs it", fix='pip install "rrtn[ray]"'
        ) from error


def last_line(error: Exception) -> str:
    """Of what an error of Ray says, which may be a page."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else repr(error)
