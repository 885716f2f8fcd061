"""Locks between real processes: who is refused is told by whom, and a lock never outlives its process."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rrtn.runtime.errors import ConfigError
from rrtn.runtime.system.locks import in_turn, is_held, locked

HOLDS = """
import sys
from pathlib import Path
from rrtn.runtime.system.locks import locked
with locked(Path(sys.argv[1]), does="trains"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def process(program: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A Python program that has printed its first line. It is killed at the end."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout
            assert child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "run.lock"


def refused(lock: Path) -> str:
    with pytest.raises(ConfigError) as caught, locked(lock, does="trains"):
        raise AssertionError("two hold it")
    return str(caught.value)


def test_a_second_process_is_told_who_holds_the_lock(lock: Path) -> None:
    with process(HOLDS, lock) as first:
        holder = f"process {first.pid} on {socket.gethostname()}"
        came = f"{holder} trains there | expected one process at a time"
        assert refused(lock) == f"{lock.parent} | {came} | wait for it, or choose another --out"


def test_a_lock_is_free_again_at_the_end_and_its_file_stays(lock: Path) -> None:
    for _ in range(2):
        with locked(lock, does="trains"):
            assert is_held(lock)
        assert not is_held(lock)
    assert lock.is_file()


def test_the_holder_is_written_behind_the_byte_that_windows_locks(lock: Path) -> None:
    lock.write_text("process 123456789 on a.host.with.a.long.name" * 20)
    with locked(lock, does="trains"):
        assert lock.read_text() == f" process {os.getpid()} on {socket.gethostname()}"


def test_a_holder_that_cannot_be_read_is_another_process(lock: Path) -> None:
    with process(HOLDS, lock):
        lock.write_text("")
        assert "| another process trains there |" in refused(lock)


FORKS = """
import os, subprocess, sys
from pathlib import Path
from rrtn.runtime.system.locks import locked
with locked(Path(sys.argv[1]), does="trains"):
    sleeper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"])
    if os.fork() == 0:
        print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_free_though_its_children_live(lock: Path) -> None:
    """A child of fork has a copy of every descriptor; a started program has those that stay open at exec."""
    with process(FORKS, lock) as first:
        assert is_held(lock)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert not is_held(lock)
        assert first.stdin
        first.stdin.close()  # the children end


TAKES = [
    pytest.param(lambda lock: locked(lock, does="trains"), id="locked"),
    pytest.param(in_turn, id="in_turn"),
]


@pytest.mark.parametrize("take", TAKES)
@pytest.mark.parametrize("target", ["a file", "nothing"])
def test_a_symbolic_link_is_refused_and_its_target_untouched(
    lock: Path, tmp_path: Path, take: Callable[[Path], "contextmanager[None]"], target: str
) -> None:
    elsewhere = tmp_path / "precious"
    if target == "a file":
        elsewhere.write_text("precious")
    lock.symlink_to(elsewhere)
    with (
        pytest.raises(
            ConfigError, match=r"run.lock \| a link \| expected a file of its own \| remove the link"
        ),
        take(lock),
    ):
        raise AssertionError("it was followed")
    assert lock.is_symlink()
    assert elsewhere.exists() == (target == "a file")
    assert target == "nothing" or elsewhere.read_text() == "precious"


@pytest.mark.parametrize("take", TAKES)
@pytest.mark.parametrize(
    "place", ["a hard link", "a hard link to an empty file", "a file of someone's", "a pipe"]
)
def test_n10_what_is_no_lock_of_ours_is_refused_and_untouched(
    lock: Path, tmp_path: Path, take: Callable[[Path], "contextmanager[None]"], place: str
) -> None:
    if place == "a pipe":
        os.mkfifo(lock)
    else:
        (tmp_path / "precious").write_text("" if "empty" in place else "precious")
        lock.hardlink_to(tmp_path / "precious")
        if place == "a file of someone's":
            (tmp_path / "precious").unlink()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"run.lock \| .* \| remove"), take(lock):
            raise AssertionError("it was taken")
    assert lock.exists()
    assert place == "a pipe" or lock.read_text() == ("" if "empty" in place else "precious")


@pytest.mark.parametrize("take", TAKES)
def test_n10_a_lock_that_was_refused_is_not_held(
    lock: Path, take: Callable[[Path], "contextmanager[None]"]
) -> None:
    lock.write_text("precious")
    with pytest.raises(ConfigError), take(lock):
        raise AssertionError("it was taken")
    lock.write_text("")
    with take(lock):
        pass


def flock_that_fails(code: int) -> Callable[[int, int], None]:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    return flock


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_on_a_file_system_without_locks_the_work_goes_on(
    lock: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock_that_fails(code))
    done = []
    with locked(lock, does="trains"), in_turn(lock.with_name("turn")):
        done.append("work")
        assert is_held(lock), "nobody can know"
    assert done == ["work"]
    assert not lock.with_name("turn").exists()


def test_another_error_of_the_storage_is_not_taken_for_a_free_lock(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock_that_fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), locked(lock, does="trains"):
        raise AssertionError("it was taken")


def test_a_lock_in_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError), locked(tmp_path / "file/run.lock", does="trains"):
        raise AssertionError("it was taken")


COUNTS = """
import sys
from pathlib import Path
from rrtn.runtime.system.locks import in_turn
print("held", flush=True)
sys.stdin.readline()
for _ in range(40):
    with in_turn(Path(sys.argv[1])):
        count = int(Path(sys.argv[2]).read_text())
        Path(sys.argv[2]).write_text(str(count + 1))
"""


def test_processes_take_turns_though_each_removes_the_file(lock: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    with (
        process(COUNTS, lock, count) as first,
        process(COUNTS, lock, count) as second,
        process(COUNTS, lock, count) as third,
    ):
        children = (first, second, third)
        for child in children:
            assert child.stdin
            child.stdin.write("go\n")
            child.stdin.flush()
        assert [child.wait() for child in children] == [0, 0, 0]
    assert count.read_text() == "120"
    assert not lock.exists()
