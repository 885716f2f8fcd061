"""What no connection may do."""

import gc
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from rrtn.runtime.errors import ConfigError
from rrtn.runtime.serving import http_server
from rrtn.runtime.serving.http_server import (
    HttpServer,
    _Seldom,
    is_loopback,
    listen,
    listening_socket,
    url_of,
)

NEVER = 1e6  # s


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers once the whole body is there."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the method, the path and the body, once all of it is there."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    content = b"%s %s %s" % (scope["method"].encode(), scope["path"].encode(), body)
    length = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": content})


async def refusal(scope: Any, receive: Any, send: Any) -> None:
    """Answers without a look at the body."""
    await send({"type": "http.response.start", "status": 415, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


@pytest.fixture
def port() -> Iterator[int]:
    with serving(application) as found:
        yield found


@pytest.fixture
def echo_port() -> Iterator[int]:
    with serving(echo) as found:
        yield found


@contextmanager
def serving(app: Any) -> Iterator[int]:
    server = HttpServer(app, seconds=1)
    with closing(listening_socket("127.0.0.1", 0)) as bound:
        bound.listen()
        thread = threading.Thread(target=server.run, args=(bound,))
        thread.start()
        yield bound.getsockname()[1]
        server.stop()
        thread.join()


def said(port: int, data: bytes) -> bytes:
    """What comes back until the server closes the connection, which the client leaves open."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with suppress(ConnectionError):
            connection.sendall(data)
            while part := connection.recv(4096):
                answer += part
    return answer


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nx: " + b"a" * 400_000,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 100_000,
        b"GET /" + b"a" * 400_000,
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 400_000,
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 100_000,
    ],
)
def test_an_endless_head_is_not_collected(port: int, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_HEAD_SECONDS", NEVER)
    assert said(port, data).endswith(b"Headers too large.")


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nhost:", b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET /"])
def test_a_head_must_come_in_its_time(port: int, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_HEAD_SECONDS", 1.0)
    answer = said(port, data)
    assert answer.count(b"HTTP/1.1 204") == data.count(b"\r\n\r\n")
    assert answer.count(b"HTTP/1.1") == data.count(b"\r\n\r\n")


def test_a_message_is_passed_once_a_minute_whatever_it_is() -> None:
    seldom = _Seldom()

    def passes(message: object, created: float) -> bool:
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, message, (), None)
        record.created = created
        return seldom.filter(record)

    assert passes("no descriptors", 1000.0)
    assert not passes("no descriptors", 1059.0)
    assert passes(OSError("no descriptors, as an error"), 1059.0)
    assert passes("no descriptors", 1061.0)


def test_a_large_body_is_no_head(port: int) -> None:
    body = b"POST / HTTP/1.1\r\ncontent-length: 3000000\r\nconnection: close\r\n\r\n" + bytes(3_000_000)
    assert said(port, body).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize(
    ("host", "port", "fix"),
    [("127.0.0.1", None, "--port"), ("nowhere.invalid", 0, "--host"), ("192.0.2.1", 0, "--host")],
)
def test_a_place_that_is_not_to_be_had_is_told_by_its_option(host: str, port: int | None, fix: str) -> None:
    with closing(listening_socket("127.0.0.1", 0)) as taken:
        taken.listen()
        with pytest.raises(ConfigError, match=f"choose another {fix}"):
            listening_socket(host, taken.getsockname()[1] if port is None else port)
    gc.collect()  # a socket that was left open would be a ResourceWarning, which is an error here


def test_a_port_that_was_taken_meanwhile_is_told_by_its_option() -> None:
    """Two that start at a time both bind: one of them may listen."""
    with closing(listening_socket("127.0.0.1", 0)) as first:
        with closing(listening_socket("127.0.0.1", first.getsockname()[1])) as second:
            first.listen()
            with pytest.raises(ConfigError, match=f"--port {first.getsockname()[1]} .*choose another --port"):
                listen(second)


def test_which_addresses_only_this_machine_reaches() -> None:
    for host, loopback in {"127.0.0.1": True, "localhost": True, "0.0.0.0": False}.items():
        with closing(listening_socket(host, 0)) as bound:
            assert is_loopback(bound) == loopback, host
            assert url_of(bound).startswith("http://")


BODY = b"GET /other HTTP/1.1\r\n\r\n"  # which no request is


@pytest.mark.parametrize(
    "head",
    [
        b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQ\r\n",
        b"connection: upgrade\r\nupgrade: websocket\r\n",
        b"connection: close, upgrade\r\nupgrade: TLS/1.0\r\n",
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_who_wants_another_protocol_is_answered_in_this_one(
    echo_port: int, head: bytes, is_chunked: bool
) -> None:
    """The body belongs to its request, and is not the next one."""
    length = b"transfer-encoding: chunked\r\n" if is_chunked else b"content-length: %d\r\n" % len(BODY)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY) if is_chunked else BODY
    ending = b"GET /last HTTP/1.1\r\nconnection: close\r\n\r\n"
    answer = said(echo_port, b"POST /first HTTP/1.1\r\n" + head + length + b"\r\n" + body + ending)
    expected = [b"POST /first " + BODY] + ([] if b"close" in head else [b"GET /last "])
    assert [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]] == expected


def test_a_tunnel_is_refused(echo_port: int) -> None:
    assert said(echo_port, b"CONNECT a:1 HTTP/1.1\r\n\r\nabc").startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_client_that_has_sent_all_is_answered(echo_port: int, version: bytes) -> None:
    request = b"POST / HTTP/%s\r\ncontent-length: 5\r\n\r\nsound" % version
    requests = request if version == b"1.0" else 2 * request
    with socket.create_connection(("127.0.0.1", echo_port), timeout=60) as connection:
        connection.sendall(requests)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.count(b"POST / sound") == requests.count(b"POST")


@pytest.mark.parametrize("head", [b"1.0\r\n", b"1.1\r\nconnection: close\r\n", b"1.1\r\n"])
def test_a_client_reads_a_refusal_that_came_before_its_body_had_ended(head: bytes) -> None:
    """nginx asks in HTTP/1.0, and closes."""
    size = 5_000_000
    request = b"POST / HTTP/%scontent-length: %d\r\n\r\n" % (head, size)
    with serving(refusal) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        for _ in range(10):
            connection.sendall(bytes(size // 10))
            time.sleep(0.01)
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 415")
        if b"connection: close" in answer:
            assert b"".join(iter(lambda: connection.recv(4096), b"")) in (b"no", b"")


def test_who_has_sent_all_and_is_done_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_PARTING_SECONDS", "_PARTING_PAUSE"):
        monkeypatch.setattr(http_server, name, NEVER)
    with serving(echo) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: 5\r\n\r\nsound")
        assert b"".join(iter(lambda: connection.recv(4096), b"")).endswith(b"POST / sound")
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"more")
                time.sleep(0.01)


def test_a_refused_client_that_never_ends_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_PARTING_SECONDS", 0.3)
    with serving(refusal) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"POST / HTTP/1.0\r\ncontent-length: 1000000000\r\n\r\n")
        with pytest.raises(ConnectionError):
            while True:
                connection.sendall(bytes(1000))
                time.sleep(0.01)


@pytest.mark.parametrize("rest", [b"hello", b""])
def test_an_early_answer_does_not_keep_a_server_that_ends(
    rest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client keeps its connection, whether the body has come by now or not."""
    for name in ("_PARTING_SECONDS", "_PARTING_PAUSE", "_HEAD_SECONDS"):
        monkeypatch.setattr(http_server, name, NEVER)
    server = HttpServer(refusal, seconds=NEVER)
    with closing(listening_socket("127.0.0.1", 0)) as bound:
        bound.listen()
        thread = threading.Thread(target=server.run, args=(bound,), daemon=True)
        thread.start()
        with socket.create_connection(bound.getsockname(), timeout=60) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 415")
            connection.sendall(rest)
            server.stop()
            thread.join(60)
            assert not thread.is_alive()


def test_what_follows_a_request_and_is_none_costs_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with serving(echo) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nsound\0garbage\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert not caplog.records


def test_a_client_that_leaves_in_the_middle_is_given_up(echo_port: int) -> None:
    with socket.create_connection(("127.0.0.1", echo_port), timeout=60) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nso")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(4096) == b""


@pytest.mark.parametrize("trickle", [b"\r\n", b"G", b"GET / HTTP/1.1\r\nx: "])
def test_bytes_after_an_answer_do_not_hold_the_connection(
    echo_port: int, trickle: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_HEAD_SECONDS", 1.0)
    with socket.create_connection(("127.0.0.1", echo_port), timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        with suppress(ConnectionError):  # it may be closed by then
            connection.sendall(trickle)
            assert b"200 OK" not in b"".join(iter(lambda: connection.recv(4096), b""))


def test_equal_lines_of_the_log_come_seldom() -> None:
    seldom, lines = http_server._Seldom(), ["socket.accept() out of system resource", "another"]
    records = [logging.makeLogRecord({"msg": line, "created": 0.0}) for line in lines]
    assert [seldom.filter(record) for record in [*records, *records]] == [True, True, False, False]
    assert seldom.filter(logging.makeLogRecord({"msg": lines[0], "created": 61.0}))
