"""What no connection may do."""

import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from rrtn.runtime.errors import ConfigError
from rrtn.runtime.serving import http_server
from rrtn.runtime.serving.http_server import HttpServer, is_loopback, listening_socket, url_of

NEVER = 1e6  # s


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers once the whole body is there."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def port() -> Iterator[int]:
    server = HttpServer(application, seconds=1)
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
    answer = said(port, data)
    assert not answer or answer.endswith(b"Headers too large.")  # nothing, if it was closed on the way


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nhost:", b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET /"])
def test_a_head_must_come_in_its_time(port: int, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_HEAD_SECONDS", 0.3)
    answer = said(port, data)
    assert answer.count(b"HTTP/1.1 204") == data.count(b"\r\n\r\n")
    assert answer.count(b"HTTP/1.1") == data.count(b"\r\n\r\n")


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


def test_which_addresses_only_this_machine_reaches() -> None:
    for host, loopback in {"127.0.0.1": True, "localhost": True, "0.0.0.0": False}.items():
        with closing(listening_socket(host, 0)) as bound:
            assert is_loopback(bound) == loopback, host
            assert url_of(bound).startswith("http://")
