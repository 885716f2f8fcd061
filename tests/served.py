"""A running `rrtn serve`, and what clients do with it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.content)


class ServeProcess:
    """`rrtn serve`, ready. Its errors go into a file."""

    def __init__(self, model: Path, folder: Path, *options: object, **env: str) -> None:
        self.err = folder / "serve.err"
        command = [sys.executable, "-m", "rrtn", "serve", model, "--port", "0", "--json", *options]
        with self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*map(str, command)],
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                start_new_session=True,
                env={**os.environ, **env},
            )
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line.startswith('{"url"'):
            self.close()
            raise AssertionError(self.err.read_text())
        self.first = json.loads(line)
        self.port = int(self.first["url"].rpartition(":")[2])

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path, body, named)

    def scores(self, sound: bytes) -> dict[str, float]:
        answer = self.post("/score", sound)
        assert answer.status == 200, answer
        scores: dict[str, float] = answer.document["scores"]
        return scores

    def raw(self, data: bytes) -> socket.socket:
        """A connection on which these bytes were sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        connection.sendall(data)
        return connection

    def decoders(self) -> list[int]:
        return [int(pid) for pid in _children(self.process.pid)]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, list[Any]]:
        """-> the exit code, and the JSON documents, one a line, that stdout has behind the first."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> tuple[int, list[Any]]:
        assert self.process.stdout
        lines = self.process.stdout.read().splitlines()
        code = self.process.wait(120)
        self.process.stdout.close()
        return code, [json.loads(line) for line in lines]

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


def _children(pid: int) -> list[str]:
    stats = [(file.parent.name, _stat(file)) for file in Path("/proc").glob("[0-9]*/stat")]
    return [name for name, stat in stats if stat[1:2] == [str(pid)]]


def _stat(file: Path) -> list[str]:
    """The fields behind the name."""
    try:
        return file.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def at_once(clients: int, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What the calls give, made by so many threads."""
    results: list[Any] = [None] * len(calls)
    numbers, lock = iter(range(len(calls))), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            results[number] = calls[number]()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
