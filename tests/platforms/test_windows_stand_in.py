"""The main job where rrtn has no more than Windows has: see windows_stand_in/sitecustomize.py.

A table must have the same bytes as on Linux as it is.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rrtn_processes import SMALL_RRTN, Ended, Server

STAND_IN = Path(__file__).parent / "windows_stand_in"
SETTINGS = "[projector]\nunits = 16\n[frontend]\nframes = 64\n[optim]\nepochs = 2\nbatch_size = 8\n"
TRAIN = ("train", "--data", "corpus", "--config", "small.toml", "--device", "cpu", "--out", "run")
EXPORT = ("export", "run", "--no-cpu-variant")
SCORE = ("score", "-m", "run/export", "--variant", "fp32", "--out")


class StandIn:
    """Runs commands, one after the other, in processes that make up a job."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._job = folder, folder / ".job"
        self._job.mkdir(parents=True)
        paths = [str(STAND_IN), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "RRTN_STAND_IN": str(self._job),
            "PYTHONIOENCODING": "cp1252",
            "PYTHONWARNDEFAULTENCODING": "1",
            "RRTN_CACHE": str(folder / "cache"),
        }

    def python(self, *arguments: object, code: int = 0, **env: str) -> Ended:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env={**self.env, **env},
            capture_output=True,
            check=False,
        )
        ended = Ended(done.returncode, done.stdout.decode("cp1252"), done.stderr.decode("cp1252"))
        assert ended.code == code, ended.err
        return ended

    def rrtn(self, *arguments: object, code: int = 0, **env: str) -> Ended:
        return self.python("-m", "rrtn", *arguments, code=code, **env)

    def small_rrtn(self, *arguments: object, code: int = 0, **env: str) -> Ended:
        return self.python(SMALL_RRTN, *arguments, code=code, **env)


@pytest.fixture(scope="module")
def on_linux(server: Server, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the main job was done as ever: `run/export`."""
    folder = prepared(tmp_path_factory.mktemp("linux"), corpus)
    for command in (TRAIN, EXPORT):
        ended = server.start(*command, cwd=folder).wait()
        assert ended.code == 0, ended.err
    return folder


@pytest.fixture(scope="module")
def stand_in(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return StandIn(prepared(tmp_path_factory.mktemp("windows"), corpus))


def prepared(folder: Path, corpus: Path) -> Path:
    (folder / "small.toml").write_text(SETTINGS)
    (folder / "corpus").symlink_to(corpus)
    return folder


def scored_on_linux(server: Server, on_linux: Path, *arguments: object, out: str) -> bytes:
    ended = server.start(*SCORE, out, *arguments, cwd=on_linux).wait()
    assert ended.code in (0, 3), ended.err
    return (on_linux / out).read_bytes()


def test_the_stand_in_takes_away_what_windows_lacks(stand_in: StandIn) -> None:
    said = stand_in.python(
        "-c",
        "from rrtn.runtime.system import host\n"
        "print(hasattr(host.os, 'memfd_create'), hasattr(host.os, 'pread'), hasattr(host.os, 'nice'))\n"
        "print(hasattr(host.signal, 'pthread_sigmask'), host.resource, host.DESCRIPTORS)\n"
        "print(host.memory_in_use('space'), host.user_number(), host._keeps_parents())",
    ).out
    assert said.split() == ["False", "False", "False", "False", *["None"] * 4, "False"]


def test_a_run_is_trained_killed_resumed_exported_and_scored_as_on_linux(
    stand_in: StandIn, server: Server, on_linux: Path, real_clips: list[Path]
) -> None:
    killed = stand_in.small_rrtn(*TRAIN, code=-signal.SIGKILL, RRTN_FAILPOINT="train.step:sigkill:2")
    assert "epoch   1/2" in killed.err
    stand_in.small_rrtn("train", "--resume", "--out", "run")
    stand_in.small_rrtn(*EXPORT)
    folder = real_clips[0].parent
    stand_in.rrtn(*SCORE, "t.csv", folder, code=-signal.SIGKILL, RRTN_FAILPOINT="shard.done:sigkill:1")
    assert not (stand_in.folder / "t.csv").exists()
    stand_in.rrtn(*SCORE, "t.csv", folder)
    table = (stand_in.folder / "t.csv").read_bytes()
    assert table == scored_on_linux(server, on_linux, folder, out="t.csv")
    stand_in.rrtn("pack", folder, "--out", "packs")
    stand_in.rrtn(*SCORE, "packed.csv", "packs")
    assert (stand_in.folder / "packed.csv").read_bytes() == table


@pytest.fixture
def holder(stand_in: StandIn) -> Iterator[Path]:
    """A table that another program has open."""
    table = stand_in.folder / "held.csv"
    table.write_text("file\n", encoding="ascii")
    program = f"held = open({str(table)!r}); print(flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=stand_in.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdout and held.stdin
        held.stdout.readline()
        yield table
        held.stdin.close()


def test_a_table_that_another_program_has_open_is_one_line_and_no_row_is_lost(
    stand_in: StandIn, tiny_model: Path, real_clips: list[Path], holder: Path
) -> None:
    arguments = ("score", real_clips[0].parent, "-m", tiny_model, "--out", holder, "--overwrite")
    refused = stand_in.rrtn(*arguments, code=4)
    assert refused.error == (
        f"rrtn: {holder} | another program has it open | expected a file that can be replaced | "
        "close it there, and run the command again"
    )
    assert holder.read_bytes() == b"file\n"
    assert [*(holder.parent / ".held.csv.rrtn").glob("*.part")]


def test_decoders_end_with_their_parent_where_its_number_stays(
    stand_in: StandIn, tiny_model: Path, real_clips: list[Path]
) -> None:
    """A decoder that hangs in a file does not read its pipe, and os.getppid tells it nothing."""
    rrtn = [sys.executable, "-m", "rrtn", "score", str(real_clips[0].parent)]
    command = [*rrtn, "-m", str(tiny_model), "--workers", "2", "--batch-size", "1"]  # a file for each
    env = {**stand_in.env, "RRTN_FAILPOINT": "read.*:sleep:all"}
    before = set(os.listdir(stand_in.env["RRTN_STAND_IN"]))
    nowhere = subprocess.DEVNULL
    parent = subprocess.Popen(command, env=env, stdout=nowhere, stderr=nowhere)

    def decoders() -> set[str]:
        return set(os.listdir(stand_in.env["RRTN_STAND_IN"])) - before - {str(parent.pid)}

    try:
        until(lambda: sum(has_open(pid, real_clips[0].parent) for pid in decoders()) == 2)
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not any(is_alive(pid) for pid in decoders()))


def has_open(pid: str, folder: Path) -> bool:
    with contextlib.suppress(OSError):  # it, or one of its files, is closed
        return any(link.readlink().is_relative_to(folder) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def is_alive(pid: str) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def until(is_so: Callable[[], bool]) -> None:
    latest = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < latest
        time.sleep(0.05)


@pytest.mark.slow
def test_770_bursts_are_scored_killed_resumed_and_packed_as_on_linux(
    stand_in: StandIn, server: Server, on_linux: Path, bursts: Path
) -> None:
    model = ("-m", on_linux / "run/export", "--variant", "fp32", "--out")
    score = ("score", bursts, *model, "many.csv")
    stand_in.rrtn(*score, code=-signal.SIGKILL, RRTN_FAILPOINT="shard.done:sigkill:1")
    stand_in.rrtn(*score)
    table = (stand_in.folder / "many.csv").read_bytes()
    assert table.count(b"\n") == 771
    assert table == scored_on_linux(server, on_linux, bursts, out="many.csv")
    stand_in.rrtn("pack", bursts, "--out", "many")
    stand_in.rrtn("score", "many", *model, "packed-many.csv")
    assert (stand_in.folder / "packed-many.csv").read_bytes() == table
