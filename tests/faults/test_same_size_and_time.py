"""N6: a file with the size and time of before may hold another sound. Nothing old is then taken for new."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Watch
from rrtn.runtime import Scorer
from rrtn.runtime.audio import input_spool
from rrtn.runtime.audio.input_spool import InputSpool
from rrtn.runtime.audio.inputs import inputs_from_arguments
from rrtn.runtime.audio.pack_writer import write_packs
from rrtn.runtime.audio.sources import Input
from rrtn.runtime.progress import Progress
from rrtn.runtime.scoring.folder import ScoringSummary, score_to_table
from rrtn.runtime.scoring.local_engine import LocalEngine
from rrtn.runtime.scoring.part_file import hashes_from_part
from rrtn.runtime.scoring.table_job import part_name
from rrtn.runtime.system.host import inode_of

FILES = 4


def write_sound(path: Path, seed: int) -> None:
    """Always the same size."""
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, 8000), 16_000, format="WAV")


def rewritten(path: Path, seed: int) -> None:
    """Another sound in the same file, with its size and time."""
    before = path.stat()
    write_sound(path, seed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def replaced(path: Path, seed: int) -> None:
    """Another file under the name, as rsync and editors do it."""
    new = path.with_name("new")
    shutil.copy2(path, new)
    rewritten(new, seed)
    new.replace(path)


def made_a_link(path: Path, seed: int) -> None:
    """A link to another sound in place of the file."""
    other = path.parent.parent / "elsewhere"
    shutil.copy2(path, other)
    rewritten(other, seed)
    path.unlink()
    path.symlink_to(other)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for i in range(FILES):
        write_sound(tmp_path / f"in/{i}.wav", seed=i)
    (tmp_path / "in/text.wav").write_bytes(b"no sound".ljust((tmp_path / "in/0.wav").stat().st_size))
    return tmp_path / "in"


@pytest.fixture
def score(
    scorer: Scorer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Brings the table up to date; -> how many files were scored: all of them, or none."""
    monkeypatch.setattr(input_spool, "MEAN_FILES", 2**40)  # no name ends a shard, as one of 512 would

    def run(found: Iterable[Input] | None = None) -> int:
        with InputSpool(found or inputs_from_arguments([folder])) as spool:
            summary: ScoringSummary = score_to_table(LocalEngine(scorer), spool, tmp_path / "t.csv")
            return summary.scored_now

    return run


def table(tmp_path: Path) -> list[str]:
    return (tmp_path / "t.csv").read_text().splitlines()


@pytest.mark.parametrize("change", [rewritten, replaced, made_a_link])
def test_n6_another_sound_of_the_same_size_and_time_is_scored(
    change: Callable[[Path, int], None], score: Callable[..., int], folder: Path, tmp_path: Path
) -> None:
    assert score() == FILES + 1
    before = table(tmp_path)
    change(folder / "2.wav", 99)
    assert score() == FILES + 1
    after = table(tmp_path)
    assert [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new] == [3]
    assert score() == 0


def test_n6_a_file_that_cannot_be_read_now_is_compared_the_next_time(
    score: Callable[..., int], folder: Path, tmp_path: Path
) -> None:
    score()
    rewritten(folder / "2.wav", 99)
    listed = list(inputs_from_arguments([folder]))
    folder.rename(tmp_path / "away")  # which leaves the times of its files
    assert score(listed) == 0
    (tmp_path / "away").rename(folder)
    assert score() == FILES + 1


def test_n6_a_bad_file_that_became_a_sound_is_scored(
    score: Callable[..., int], folder: Path, tmp_path: Path
) -> None:
    score()
    assert "unsupported_format" in table(tmp_path)[-1]
    rewritten(folder / "text.wav", seed=7)
    score()
    assert table(tmp_path)[-1].endswith(",,")


def test_n6_an_unchanged_folder_is_not_read(
    score: Callable[..., int], folder: Path, watch: Callable[[Path], Watch]
) -> None:
    score()
    watches = [watch(path) for path in folder.iterdir()]
    assert score() == 0
    assert [one.opened() for one in watches] == [0] * (FILES + 1)


def touched(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o600)


def copied(folder: Path) -> None:
    folder.rename(folder.with_name("old"))
    shutil.copytree(folder.with_name("old"), folder)


@pytest.mark.parametrize("change", [touched, copied])
def test_n6_the_same_sounds_with_another_ctime_or_inode_are_read_once_and_not_scored(
    change: Callable[[Path], None],
    score: Callable[..., int],
    folder: Path,
    tmp_path: Path,
    watch: Callable[[Path], Watch],
) -> None:
    score()
    before = table(tmp_path)
    change(folder)
    watches = [watch(path) for path in folder.iterdir()]
    assert score() == 0
    assert [one.opened() for one in watches] == [1] * (FILES + 1)
    assert score() == 0
    assert [one.opened() for one in watches] == [1] * (FILES + 1)
    assert table(tmp_path) == before


def without_inodes(folder: Path) -> Iterable[Input]:
    """As file systems give them that know no inodes and no time of change."""
    return (found._replace(inode=0, ctime_ns=0) for found in inputs_from_arguments([folder]))


def test_n6_where_there_are_no_inodes_the_content_decides(score: Callable[..., int], folder: Path) -> None:
    assert score(without_inodes(folder)) == FILES + 1
    assert score(without_inodes(folder)) == 0
    rewritten(folder / "1.wav", seed=98)
    assert score(without_inodes(folder)) == FILES + 1


def test_n6_a_part_of_before_stays_valid(score: Callable[..., int], folder: Path, tmp_path: Path) -> None:
    """It has no hashes, so size and time must do, as they did."""
    score()
    job = tmp_path / ".t.csv.rrtn"
    (part,) = job.glob("*.part")
    with np.load(part) as columns:
        kept = {name: columns[name] for name in columns if name != "content"}
    with (tmp_path / "old").open("wb") as file:
        np.savez(file, **kept)
    content = (tmp_path / "old").read_bytes()
    assert hashes_from_part(content) is None
    for path in (part, *job.glob("*.seen")):
        path.unlink()
    (job / part_name(part.name.partition("-")[0], content)).write_bytes(content)
    touched(folder)
    assert score() == 0


def test_n6_where_what_was_seen_is_lost_the_content_decides(
    score: Callable[..., int], folder: Path, tmp_path: Path
) -> None:
    score()
    (seen,) = (tmp_path / ".t.csv.rrtn").glob("*.seen")
    for left in (b"", b"1234567", b"\0" * 16 * (FILES + 1)):
        seen.write_bytes(left)
        assert score() == 0
    seen.unlink()
    assert score() == 0
    seen.unlink()
    rewritten(folder / "3.wav", seed=97)
    assert score() == FILES + 1


def test_n6_another_pack_of_the_same_sizes_and_times_is_scored(
    score: Callable[..., int], folder: Path, tmp_path: Path, watch: Callable[[Path], Watch]
) -> None:
    def packed(name: str) -> Path:
        with (
            InputSpool(inputs_from_arguments([folder])) as spool,
            Progress("pack", spool.files, "files") as bar,
        ):
            write_packs(spool, tmp_path / name, bar)
        (pack,) = (tmp_path / name).glob("*.parquet")
        return pack

    shutil.copy2(packed("one"), tmp_path / "p.parquet")
    assert score(inputs_from_arguments([tmp_path / "p.parquet"])) == FILES + 1
    shutil.copy2(tmp_path / "p.parquet", tmp_path / "copy")
    (tmp_path / "copy").replace(tmp_path / "p.parquet")
    assert score(inputs_from_arguments([tmp_path / "p.parquet"])) == 0
    opened = watch(tmp_path / "p.parquet")
    assert score(inputs_from_arguments([tmp_path / "p.parquet"])) == 0
    assert opened.opened() == 1  # to list what is in it
    rewritten(folder / "2.wav", seed=96)
    shutil.copy2(packed("two"), tmp_path / "p.parquet")
    assert score(inputs_from_arguments([tmp_path / "p.parquet"])) == FILES + 1


def test_an_inode_of_128_bits_fits_where_inodes_are_kept(tmp_path: Path) -> None:
    """ReFS has such inodes, and Python 3.12 shows them."""
    status = os.stat_result((0, (1 << 100) + 5, *[0] * 8))
    assert inode_of(status) == 5
    with InputSpool([Input(b"/a.wav", 1, 2, 3, inode_of(status))]) as spool:
        assert [one.inode for one in spool.inputs(spool.shards[0])] == [5]
