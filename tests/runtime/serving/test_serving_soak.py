"""A thousand requests with the scores of rrtn score, and ten thousand that mean no good.

Figures of a run stand in docs/serving.md.
"""

import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rrtn.runtime import Scorer
from served import ServeProcess, at_once

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parents[2] / "fixtures/bursts"
CLIPS = sorted(path for path in FIXTURES.iterdir() if path.suffix != ".md")
INFER = "/v2/models/rrtn/infer"
CLIENTS = 16
HOSTILE = 10_000
GOOD_EVERY = 10  # so many hostile requests to one good one
GROWTH = 64  # MiB that the server may take beyond what it had after the first tenth of the requests
PAUSE = 0.2  # s that a slow client waits between two pieces


@pytest.fixture
def served(main_job: Path, tmp_path: Path) -> Iterator[ServeProcess]:
    server = ServeProcess(main_job / "runs/first/export", tmp_path, "--max-mb", 2, "--timeout", 5)
    yield server
    server.close()
    assert "Traceback" not in server.err.read_text()


@pytest.fixture
def wanted(main_job: Path) -> list[dict[str, float]]:
    with Scorer(main_job / "runs/first/export") as scorer:
        return [dict(row.scores or {}) for row in scorer.score_files(CLIPS)]


def test_a_thousand_requests(served: ServeProcess, wanted: list[dict[str, float]]) -> None:
    chosen = [number % len(CLIPS) for number in range(1000)]
    calls = [partial(served.scores, CLIPS[number].read_bytes()) for number in chosen]
    worst = 0.0
    for number, scores in zip(chosen, at_once(CLIENTS, calls), strict=True):
        assert list(scores) == list(wanted[number])
        worst = max([worst, *(abs(scores[label] - wanted[number][label]) for label in scores)])
    print(f"1,000 requests by {CLIENTS} clients: scores differ by {worst:.1e} at most")
    assert worst <= 1e-6


def memory_mib(server: ServeProcess) -> float:
    """Memory of the server and its decoders; what they share is counted once for each."""
    status = [Path(f"/proc/{pid}/status").read_text() for pid in (server.process.pid, *server.decoders())]
    return sum(int(text.partition("VmRSS:")[2].split()[0]) for text in status) / 1024


def test_ten_thousand_hostile_requests(served: ServeProcess, wanted: list[dict[str, float]]) -> None:
    statuses: dict[str, int] = {}

    def hostile(number: int) -> None:
        said = attack(served, random.Random(number))
        status = said.split(b" ", 2)[1].decode() if said.startswith(b"HTTP/1.1 ") else "closed"
        statuses[status] = statuses.get(status, 0) + 1

    def good(number: int) -> None:
        clip = number % len(CLIPS)
        while (answer := served.post("/score", CLIPS[clip].read_bytes())).status == 429:
            time.sleep(float(answer.headers["retry-after"]))
        assert answer.status == 200, answer
        assert answer.document["scores"] == pytest.approx(wanted[clip], abs=1e-6)
        right.append(number)

    right: list[int] = []
    before, part = 0.0, HOSTILE // 10
    for begin in range(0, HOSTILE, part):
        calls: list[Callable[[], Any]] = []
        for number in range(begin, begin + part):
            calls.append(partial(hostile, number))
            calls += [partial(good, number)] * (number % GOOD_EVERY == 0)
        at_once(CLIENTS, calls)
        before = before or memory_mib(served)
        print(f"{begin + part:,} hostile requests: {memory_mib(served):.0f} MiB, {statuses}")
    assert len(right) == HOSTILE // GOOD_EVERY
    assert sum(statuses.values()) == HOSTILE
    assert not [status for status in statuses if status.startswith("5")]
    assert memory_mib(served) < before + GROWTH


def attack(server: ServeProcess, chance: random.Random) -> bytes:
    """One request that means no good; -> what was answered."""
    kind = chance.choice([audio, tensor, form, lie, garbage, slow, gone, large])
    with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        return kind(connection, chance)
    return b""


def answered(connection: socket.socket) -> bytes:
    with suppress(OSError):
        return b"".join(iter(partial(connection.recv, 1 << 16), b""))
    return b""


def sent(connection: socket.socket, path: str, body: bytes, *headers: str, length: Any = None) -> None:
    head = [f"POST {path} HTTP/1.1", "host: x", "connection: close", *headers]
    head.append(f"content-length: {len(body) if length is None else length}")
    connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)


def damaged(chance: random.Random) -> bytes:
    """A real recording that is cut, has other bytes, or begins as another format."""
    content = bytearray(chance.choice(CLIPS).read_bytes())
    for _ in range(chance.randrange(200)):
        content[chance.randrange(min(len(content), chance.choice([64, 1 << 20])))] = chance.randrange(256)
    start = chance.choice([b"", b"", b"OggS", b"fLaC", b"RIFF", b"\xff\xfb\x90", b"\x1aE\xdf\xa3", b"caff"])
    return start + bytes(content[: chance.randrange(len(content))])


def audio(connection: socket.socket, chance: random.Random) -> bytes:
    kind = chance.choice(["audio/wav", "text/html", "\u00e9", "application/json", "", "a" * 3000])
    connection.sendall(b"")
    sent(connection, "/score", damaged(chance), f"content-type: {kind}")
    return answered(connection)


def tensor(connection: socket.socket, chance: random.Random) -> bytes:
    """A message of KServe whose shape, type, sizes or numbers lie."""
    data: Any = chance.choice(
        [[0.1] * 9, [], [[0.1], [0.2, 0.3]], ["a"], [1e300], [None], {}, "x", [10**400]]
    )
    shape = chance.choice([[9], [3, 3], [-1], [0], [2**60, 2**60], [10**6], [], "x", [1, 1, 9], [1.5]])
    kind = chance.choice(["FP32", "FP32", "BYTES", "INT8", 7])
    parameters = chance.choice([{}, {"binary_data_size": chance.choice([36, -1, 2**70, "x", 0])}])
    given = {
        "name": chance.choice(["waveform", "x"]),
        "datatype": kind,
        "shape": shape,
        "parameters": parameters,
    }
    if chance.random() < 0.6:
        given["data"] = data
    rate = {"sampling_rate": chance.choice([16000, 0, -1, 2**70, 1e9, "x", None, 4000, 384000])}
    body = json.dumps({"inputs": [given] * chance.choice([1, 1, 2]), "parameters": rate}).encode()
    tail = chance.randbytes(chance.choice([0, 36, 35, 1000]))
    length = chance.choice([len(body), len(body) + 1, 0, -1, 10**30, "x", len(body) + len(tail)])
    headers = [f"Inference-Header-Content-Length: {length}"] * (chance.random() < 0.7)
    sent(connection, INFER, body + tail, *headers)
    return answered(connection)


def form(connection: socket.socket, chance: random.Random) -> bytes:
    boundary = chance.choice(["x", "x" * 300, "", '"', "\u00ff"])
    name = chance.choice(
        ['name="file"; filename="../../etc/passwd"', 'name="file"', "", "filename*=x", "a" * 9000]
    )
    part = f"--x\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode("latin-1") + damaged(chance)[:5000]
    body = part * chance.choice([1, 2, 30]) + chance.choice([b"\r\n--x--\r\n", b"", b"\r\n--y--"])
    sent(connection, "/score", body, f"content-type: multipart/form-data; boundary={boundary}")
    return answered(connection)


def lie(connection: socket.socket, chance: random.Random) -> bytes:
    """A content-length that is too long, too short, or none."""
    length = chance.choice([0, 1, 10**6, 10**15, 10**30, -5, "1, 2", "0x10", "\u00b2", "+5", ""])
    sent(connection, "/score", damaged(chance)[:3000], length=length)
    connection.shutdown(socket.SHUT_WR)
    return answered(connection)


def garbage(connection: socket.socket, chance: random.Random) -> bytes:
    """No HTTP, or hardly."""
    lines = [b"GET /%s HTTP/1.1" % chance.choice([b"docs", b"%00", b"../../etc/passwd", b"a" * 70_000])]
    lines += [
        b"x" * chance.randrange(1, 50) + b": " + chance.randbytes(20).hex().encode()
    ] * chance.randrange(2000)
    heads = b"\r\n".join([*lines, b"connection: close", b"", b""])
    connection.sendall(chance.choice([heads, chance.randbytes(chance.randrange(1, 5000)), b"\r\n" * 5000]))
    connection.shutdown(socket.SHUT_WR)
    return answered(connection)


def slow(connection: socket.socket, chance: random.Random) -> bytes:
    """A body or a head in pieces, which mostly does not come to its end."""
    content = damaged(chance)[:2000]
    sent(connection, "/score", b"", length=len(content))
    for piece in range(chance.randrange(4)):
        time.sleep(PAUSE)
        connection.sendall(content[piece * 500 : (piece + 1) * 500])
    return answered(connection) if chance.random() < 0.02 else b""  # 5 s, until the server gives up


def gone(connection: socket.socket, chance: random.Random) -> bytes:
    """A client that does not wait for its answer."""
    content = chance.choice([damaged(chance), chance.choice(CLIPS).read_bytes()])
    sent(
        connection,
        chance.choice(["/score", INFER]),
        content[: chance.randrange(len(content) + 1)],
        length=len(content),
    )
    if chance.random() < 0.5:  # with a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    return b""


def large(connection: socket.socket, chance: random.Random) -> bytes:
    """A body above the limit, announced or in chunks; or a small one that is compressed."""
    if chance.random() < 0.3:
        sent(connection, "/score", b"x" * 100, "content-encoding: gzip")
    elif chance.random() < 0.5:
        sent(connection, "/score", bytes(2_100_000))
    else:
        connection.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(40):
            connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
    return answered(connection)
