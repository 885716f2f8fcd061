"""A file that matters is there whole, or as it was before."""

import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rrtn.runtime.system.files import (
    atomic_path,
    remove_abandoned,
    remove_left,
    replace_folder,
    sha256_of,
    temporary_name,
    write_bytes,
    write_json,
    write_refused,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_target_appears_at_the_end_and_only_then(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half")
        assert temporary.parent == tmp_path  # a rename is atomic within one file system only
        assert not (tmp_path / "a.bin").exists()
        temporary.write_bytes(b"whole")
    assert (tmp_path / "a.bin").read_bytes() == b"whole"
    assert names_in(tmp_path) == ["a.bin"]


def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.bin"]


def test_a_folder_that_takes_no_file_is_told_by_the_name_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refuse)  # a test may be root, whom no mode stops
    with pytest.raises(PermissionError) as caught:
        write_bytes(tmp_path / "a.bin", b"content")
    assert caught.value.filename == str(tmp_path / "a.bin")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_where_writing_is_not_allowed_room_is_no_remedy(number: int) -> None:
    error = write_refused(Path("d/a.csv"), OSError(number, os.strerror(number)))
    assert str(error) == (
        f"d/a.csv | {os.strerror(number)} | expected a folder that can be written to | "
        "choose another folder, or allow writing there, and run the command again"
    )


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_mode_is_that_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "a.bin", b"")
        assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o666 & ~mask
    finally:
        os.umask(before)


def test_the_umask_of_the_process_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "umask")  # for a moment it would hold for the files of other threads, too
    write_bytes(tmp_path / "a.bin", b"content")
    assert (tmp_path / "a.bin").read_bytes() == b"content"


@pytest.mark.parametrize("name", ["x" * 255, "\N{GRINNING FACE}" * 63])
def test_the_longest_names_work(tmp_path: Path, name: str) -> None:
    write_bytes(tmp_path / name, b"content")
    assert (tmp_path / name).read_bytes() == b"content"


@pytest.mark.parametrize("stem", ["a", "scores-2026-11-30-cnn14-rrtn-ruwl-recordings-of-", "[a-z]*"])
def test_what_a_killed_writer_left_goes_and_nobody_elses(tmp_path: Path, stem: str) -> None:
    ours, theirs = (tmp_path / f"{stem}{day}.csv" for day in ("monday", "tuesday"))
    left, other = temporary_name(ours), temporary_name(theirs)
    mine = [
        tmp_path / f".{ours.name}.tmp",
        tmp_path / f".{ours.name}.notes.tmp",
        tmp_path / ".x.12345678.tmp",
    ]
    for path in (left, other, *mine):
        path.write_text("x")
    temporary_name(ours).mkdir()
    temporary_name(ours).symlink_to(other)
    kept = {path.name for path in tmp_path.iterdir()} - {left.name}
    remove_left(ours)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_what_killed_writers_left_goes_a_day_later(tmp_path: Path) -> None:
    """Of files and of folders; what is younger may be a living writer's, on whatever machine."""
    targets = [tmp_path / "a.bin", tmp_path / "folder"]
    for target in targets:
        old, young = temporary_name(target), temporary_name(target)
        old.mkdir()
        (old / "inside").touch()
        os.utime(old, (0, time.time() - 25 * 3600))
        young.touch()
    others = [tmp_path / ".b.bin.12345678.tmp", tmp_path / ".a.bin.notes-ab.tmp"]
    for path in others:
        path.touch()
        os.utime(path, (0, 0))
    temporary_name(tmp_path / "a.bin").symlink_to(others[0])
    before = names_in(tmp_path)
    remove_abandoned(tmp_path / "b", tmp_path / "folder.x", tmp_path / "a.bin" / "none")
    assert names_in(tmp_path) == before
    remove_abandoned(*targets)
    left = set(before) - set(names_in(tmp_path))
    assert len(left) == 2
    assert not left & {path.name for path in others}


def test_everything_is_on_the_disk_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        events.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_bytes(tmp_path / "a.bin", b"content")
    assert events == ["file", "rename", "folder"]


def test_json_is_written_whole_and_nan_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"labels": ["Awe"], "score": 0.1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"labels": ["Awe"], "score": 0.1}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"score": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text())["score"] == 0.1


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1_000
    (tmp_path / "a.bin").write_bytes(content)
    assert sha256_of(tmp_path / "a.bin") == hashlib.sha256(content).hexdigest()


def only_files(real: Callable[[int], None], code: int) -> Callable[[int], None]:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    return fsync


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM])
def test_n16_a_file_system_that_cannot_fsync_a_folder_takes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "fsync", only_files(os.fsync, code))
    write_bytes(tmp_path / "a.bin", b"content")
    (tmp_path / "new").mkdir()
    (tmp_path / "new/b").touch()
    replace_folder(tmp_path / "folder", tmp_path / "new")
    assert (tmp_path / "a.bin").read_bytes() == b"content"
    assert names_in(tmp_path) == ["a.bin", "folder"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_n16_a_disk_that_fails_is_still_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "fsync", only_files(os.fsync, code))
    with pytest.raises(OSError, match=os.strerror(code)):
        write_bytes(tmp_path / "a.bin", b"content")


def test_n16_a_file_system_without_modes_takes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As FAT and vboxsf."""

    def chmod(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "chmod", chmod)
    write_bytes(tmp_path / "a.bin", b"content")
    assert (tmp_path / "a.bin").read_bytes() == b"content"
