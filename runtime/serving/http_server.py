"""Listens on a port, and hands requests to the application."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..errors import ConfigError
from .metrics import App

_HEAD_BYTES: Final = 64 << 10  # that may come without a whole head or a byte of a body
_HEAD_SECONDS: Final = 10.0  # in which a head must have come
_HANG_UP: Final = getattr(signal, "SIGHUP", None)  # Windows has no such signal
_LAST_SECONDS: Final = 5  # that answers may take beyond the time for bodies, when the server stops


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket, before a model is loaded. Port 0 is any free one. Raises ConfigError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as opened:
            bound = opened.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            opened.pop_all()
            return bound
    except (OSError, OverflowError, UnicodeError) as error:
        came = getattr(error, "strerror", None) or str(error)
        is_host = isinstance(error, socket.gaierror | UnicodeError) or (
            isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL
        )
        fix = f"choose another {'--host' if is_host else '--port'}"
        raise ConfigError(f"--host {host} --port {port}", came, fix=fix) from error


def url_of(bound: socket.socket) -> str:
    """Where clients on this machine find the server."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine can connect."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


class HttpServer:
    """uvicorn, until a signal comes."""

    def __init__(self, app: App, *, seconds: float) -> None:
        """`seconds` is the time that a body may take; so long are requests waited for at the end."""
        for name in ("uvicorn.error", "python_multipart"):  # bugs alone: what clients do wrong is counted
            logging.getLogger(name).setLevel(logging.ERROR)
        config = uvicorn.Config(
            app,
            http=_GuardedProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=int(seconds) + _LAST_SECONDS,
        )
        self._server = _Server(config)

    def run(self, bound: socket.socket) -> None:
        """Answers until a signal comes, ends the requests that it has, and passes the signal on.

        A second signal drops them.
        """
        self._server.run([bound])

    def stop(self) -> None:
        """Ends `run`. Any thread may call it."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Of second signals uvicorn takes only Ctrl-C for haste; and each request that it drops, for a bug.

    It knows nothing of the end of the terminal.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            is_main = threading.current_thread() is threading.main_thread()
            if not is_main or _HANG_UP is None or signal.getsignal(_HANG_UP) is signal.SIG_IGN:  # nohup
                yield
                return
            before = signal.signal(_HANG_UP, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(_HANG_UP, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            for connection in list(self.server_state.connections):  # since Python 3.12.1 they are waited for
                connection.loop.call_soon_threadsafe(connection.transport.abort)
        super().handle_exit(sig, frame)


class _GuardedProtocol(HttpToolsProtocol):
    """Ends a connection whose head is too large or too slow: uvicorn would collect it for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._unused = 0  # bytes since the last sign of progress
        self._deadline = self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unused += len(data)
        super().data_received(data)
        if self._unused > _HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Headers too large.")

    def on_message_begin(self) -> None:
        self._deadline.cancel()
        self._deadline = self._set_deadline()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._deadline.cancel()
        self._unused = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unused = 0
        super().on_body(body)

    def _set_deadline(self) -> asyncio.TimerHandle:
        return self.loop.call_later(_HEAD_SECONDS, self.transport.close)
