"""Listens on a port, and hands requests to the application."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..errors import ConfigError
from ..system.host import HANG_UP, claim_port
from .metrics import App

_HEAD_BYTES: Final = 64 << 10  # that may come without a whole head or a byte of a body
_HEAD_SECONDS: Final = 10.0  # in which a head must have come
_PARTING_SECONDS: Final = 30.0  # in which a client that was refused may send the rest, and read the answer
_PARTING_PAUSE: Final = 5.0  # s without a byte of it
_UPGRADE: Final = (b"upgrade", b"http2-settings")  # headers, and what `Connection` says of them
_SELDOM: Final = 60.0  # s between two equal lines of the log
_SAME: Final = 40  # letters of a line that make it equal to another one
_BACKLOG: Final = 128  # connections that wait; asyncio accepts, or fails, as many times in one go
_LAST_SECONDS: Final = 5  # that answers may take beyond the time for bodies, when the server stops


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket, before a model is loaded. Port 0 is any free one. Raises ConfigError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as opened:
            bound = opened.enter_context(socket.socket(family, kind, protocol))
            claim_port(bound)
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


def listen(bound: socket.socket) -> None:
    """Raises ConfigError where another program has begun to listen there since."""
    try:
        bound.listen(_BACKLOG)
    except OSError as error:
        subject = f"--port {bound.getsockname()[1]}"
        raise ConfigError(subject, error.strerror or str(error), fix="choose another --port") from error


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
        logging.getLogger("asyncio").addFilter(_Seldom())
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
            backlog=_BACKLOG,
            timeout_graceful_shutdown=int(seconds) + _LAST_SECONDS,
        )
        self._server = _Server(config)

    def run(self, bound: socket.socket) -> None:
        """Answers until a signal comes, ends the requests that it has, and passes the signal on.

        A second one drops them, unless it is the end of the terminal once more.
        """
        self._server.run([bound])

    def stop(self) -> None:
        """Ends `run`. Any thread may call it."""
        self._server.should_exit = True


class _Seldom(logging.Filter):
    """Passes a message once in a while: without free descriptors asyncio fails at each client that waits."""

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[str, float] = {}  # message -> when

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it was not passed within the last minute."""
        kind = str(record.msg)[:_SAME]
        is_due = record.created - self._passed.get(kind, -_SELDOM) >= _SELDOM
        if is_due:
            self._passed[kind] = record.created
        return is_due


class _Server(uvicorn.Server):
    """A server that ends with its terminal, too, and stops in haste at a second Ctrl-C or SIGTERM.

    uvicorn does so only at a second Ctrl-C, and reports each request that it drops as a bug.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            is_main = threading.current_thread() is threading.main_thread()
            if not is_main or HANG_UP is None or signal.getsignal(HANG_UP) is signal.SIG_IGN:  # nohup
                yield
                return
            before = signal.signal(HANG_UP, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(HANG_UP, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == HANG_UP:  # a terminal may say twice that it ends
            return
        if self.should_exit:
            self.force_exit = True
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            for connection in list(self.server_state.connections):  # since Python 3.12.1 they are waited for
                connection.loop.call_soon_threadsafe(connection.transport.abort)
        super().handle_exit(sig, frame)


class _GuardedProtocol(HttpToolsProtocol):
    """What uvicorn leaves open: a head that is too large or too slow, and clients that want another protocol.

    Between an answer and the next whole head a connection has `_HEAD_SECONDS`, whatever trickles in: any
    byte ends uvicorn's own limit for idle connections.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._parting = _PartingTransport(transport, self._parts)
        super().connection_made(cast(asyncio.Transport, self._parting))
        self._unused = 0  # bytes since the last sign of progress
        self._is_whole = True  # nothing of a request is on its way
        self._is_refused = False
        self._parted_until = math.inf
        self._has_ended = False  # the client sends no more
        self._deadline = self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def _parts(self) -> bool:
        """Whether the client may still be sending what nobody reads. It gets its time to end."""
        is_answered = self.cycle is not None and not self.cycle.keep_alive and not self._is_whole
        if not (self._is_refused or is_answered):
            return False
        self._parted_until = self.loop.time() + _PARTING_SECONDS
        self._wait_for_the_rest()
        return True

    def _wait_for_the_rest(self) -> None:
        self._deadline.cancel()
        left = self._parted_until - self.loop.time()
        self._deadline = self.loop.call_later(min(left, _PARTING_PAUSE), self.transport.close)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has sent all that it will send may still read; it is closed behind the answer."""
        if self._parting.has_parted:
            return False
        self._has_ended = self.cycle is not None and not (
            self.cycle.response_complete or self.cycle.more_body
        )
        return self._has_ended

    def data_received(self, data: bytes) -> None:
        if self._parting.has_parted:
            self._wait_for_the_rest()
            return
        self._unused += len(data)
        self._feed(data)
        if self._unused > _HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Headers too large.")

    def send_400_response(self, msg: str) -> None:
        self._is_refused = True
        super().send_400_response(msg)

    def _feed(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.parser.get_method() == b"CONNECT":
                self.send_400_response("No tunnels.")
            else:
                self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _stay(self, rest: bytes) -> None:
        """Reads the request without its wish for another protocol, such as h2c (RFC 9110, section 7.8).

        The parser has left out its body, which would be taken for the next request.
        """
        lines = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            parts = value.split(b",") if name == b"connection" else [value]
            kept = [part for part in parts if part.strip().lower() not in _UPGRADE]
            if name not in _UPGRADE:
                lines.append(b"%s: %s" % (name, b",".join(kept)))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def on_message_complete(self) -> None:
        self._is_whole = True
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self._parting.has_parted:  # else there are others behind it
            self._deadline.cancel()
            self._deadline = self._set_deadline()
            if self._has_ended:
                self.transport.close()

    def on_message_begin(self) -> None:
        self._is_whole = False
        self._deadline.cancel()
        self._deadline = self._set_deadline()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._deadline.cancel()
        self._unused = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unused = 0
        super().on_body(body)

    def _set_deadline(self) -> asyncio.TimerHandle:
        return self.loop.call_later(_HEAD_SECONDS, self.transport.close)


class _PartingTransport:
    """A transport that is closed in two steps where the client still sends (RFC 9112, section 9.6).

    Bytes that nobody has read when a socket is closed are answered with a reset, at which the client throws
    away what it was told: that its body is too large, say.
    """

    def __init__(self, transport: asyncio.Transport, parts: Callable[[], bool]) -> None:
        """`parts` says at a first close whether it is to be that of our side alone."""
        self._transport, self._parts, self.has_parted = transport, parts, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """A second one is for good."""
        if self._transport.is_closing() or self.has_parted or not self._parts():
            self._transport.close()
            return
        self.has_parted = True
        try:
            self._transport.write_eof()
            self._transport.resume_reading()
        except OSError:  # the client has reset the connection
            self._transport.close()

    def write(self, data: bytes) -> None:
        """Sends it, unless our side is closed."""
        if not self.has_parted:
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether no more can be sent."""
        return self.has_parted or self._transport.is_closing()
