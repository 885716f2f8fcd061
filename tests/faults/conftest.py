"""`rrtn` in processes, in the folder of each test, and what its runs come to."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rrtn.train.checkpoint import POINTER
from rrtn_processes import Child, Ended, Running, Server

# Of the 15 Train clips of `corpus`: three steps an epoch.
SETTINGS = """
[projector]
units = 16
[frontend]
frames = 64
[optim]
epochs = 3
batch_size = 4
"""


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Callable[..., Child]:
    """Starts `rrtn` in the test's own folder."""
    return lambda *argv, **options: server.start(*argv, **{"cwd": tmp_path, **options})


@pytest.fixture
def rrtn(start: Callable[..., Child]) -> Callable[..., Ended]:
    """The same, to its end."""
    return lambda *argv, **options: start(*argv, **options).wait()


@pytest.fixture
def start_process(runtime_server: Server, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts `rrtn` in the test's own folder, in a session of its own."""
    started = []

    def start(*arguments: object, cwd: Path = tmp_path, **options: Any) -> Running:
        started.append(Running(runtime_server, arguments, cwd, **options))
        return started[-1]

    yield start
    for running in started:
        running.kill()
        running.process.wait()


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For --config."""
    path = tmp_path_factory.mktemp("settings") / "small.toml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture(scope="session")
def outcome() -> Callable[[Path], dict[str, object]]:
    """-> what a run has come to: both checkpoints with all their bytes, and the history."""

    def read(run: Path) -> dict[str, object]:
        found: dict[str, object] = {"history": (run / "history.jsonl").read_bytes()}
        for folder in (run / "checkpoints/best", run / "checkpoints/last"):
            document = json.loads((folder / POINTER).read_bytes())
            # A resumed run may have another device, more epochs, moved data.
            del document["config"], document["digest"]
            found[folder.name] = document
            found |= {
                f"{folder.name}/{kind}": (folder / e["file"]).read_bytes()
                for kind, e in document["files"].items()
            }
        return found

    return read
