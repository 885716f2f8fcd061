"""N6: nothing that learned from wrong samples becomes a checkpoint. N27: several first uses at once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rrtn_processes import Child, Ended

Rrtn = Callable[..., Ended]


SLOW_CHECK = """
from rrtn.train.data.clip_cache import SampleCheck
SampleCheck.has_failed = SampleCheck.has_passed = False
"""
FEW_CLIPS = """
import time
from rrtn.train.data import builtin

def counted(*arguments, made=builtin.synthesise, **options):
    with open("made", "a") as file:
        file.write("once\\n")
    time.sleep(0.5)
    return made(*arguments, **options)

builtin.CLIPS, builtin.SPEAKERS, builtin.synthesise = 24, 8, counted
"""


@pytest.fixture
def command(corpus: Path, settings: Path) -> tuple[object, ...]:
    return ("train", "--device", "cpu", "--data", corpus, "--config", settings, "--epochs", 2, "--out", "run")


def with_flipped_bit(cache: Path, of: int) -> Path:
    """One bit of the samples of a shard, the largest or the smallest, is another one."""
    shard = sorted((cache / "clips").glob("*.npy"), key=lambda path: path.stat().st_size)[of]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 64
    shard.write_bytes(content)
    return shard


@pytest.mark.parametrize("of", [-1, 0], ids=["Train", "Val"])
def test_n6_a_flipped_bit_stops_training_before_a_checkpoint_and_resume_makes_it_anew(
    rrtn: Rrtn, outcome: Callable[[Path], object], command: tuple[object, ...], tmp_path: Path, of: int
) -> None:
    cache = tmp_path / "cache"
    assert rrtn(*command, RRTN_CACHE=cache).code == 0
    shutil.move(tmp_path / "run", tmp_path / "whole")
    shard = with_flipped_bit(cache, of)
    ended = rrtn(*command, RRTN_CACHE=cache)
    assert ended.code == 4
    assert str(shard) in ended.error
    assert "holds other samples than were decoded" in ended.error
    assert "rrtn train --resume --out run" in ended.error
    assert not list((tmp_path / "run").glob("checkpoints/*/*"))
    assert rrtn("train", "--resume", "--out", "run", RRTN_CACHE=cache).code == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_n6_an_epoch_waits_for_a_check_that_is_not_done(
    rrtn: Rrtn, command: tuple[object, ...], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert rrtn(*command, "--epochs", 1, RRTN_CACHE=cache).code == 0
    shutil.rmtree(tmp_path / "run")
    with_flipped_bit(cache, -1)
    ended = rrtn(*command, RRTN_CACHE=cache, before=SLOW_CHECK)
    assert ended.code == 4
    assert not list((tmp_path / "run").glob("checkpoints/*/*"))


def test_n6_resume_checks_too_and_the_checkpoint_before_is_whole(
    rrtn: Rrtn, outcome: Callable[[Path], object], command: tuple[object, ...], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert rrtn(*command, RRTN_CACHE=cache).code == 0
    shutil.move(tmp_path / "run", tmp_path / "whole")
    assert rrtn(*command, "--epochs", 1, RRTN_CACHE=cache).code == 0
    before = outcome(tmp_path / "run")
    with_flipped_bit(cache, -1)
    again = ("train", "--resume", "--out", "run", "--epochs", 2)
    assert rrtn(*again, RRTN_CACHE=cache).code == 4
    assert outcome(tmp_path / "run") == before
    assert rrtn(*again, RRTN_CACHE=cache).code == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_n6_a_signal_does_not_save_what_learned_from_wrong_samples(
    rrtn: Rrtn, command: tuple[object, ...], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    assert rrtn(*command, "--epochs", 1, RRTN_CACHE=cache).code == 0
    shutil.rmtree(tmp_path / "run")
    with_flipped_bit(cache, -1)
    ended = rrtn(*command, RRTN_CACHE=cache, RRTN_FAILPOINT="train.step:sigterm:2")
    assert ended.code == 4
    assert "holds other samples" in ended.error
    assert not list((tmp_path / "run").glob("checkpoints/*/*"))


def test_n27_several_first_uses_of_an_empty_cache(
    start: Callable[..., Child],
    outcome: Callable[[Path], object],
    command: tuple[object, ...],
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    runs = [start(*command[:-1], f"run{i}", RRTN_CACHE=cache) for i in range(3)]
    ended = [run.wait() for run in runs]
    assert [one.code for one in ended] == [0, 0, 0], [one.err for one in ended]
    assert outcome(tmp_path / "run0") == outcome(tmp_path / "run1") == outcome(tmp_path / "run2")
    assert {path.suffix for path in (cache / "clips").iterdir()} == {".npy", ".json"}
    assert len(list((cache / "clips").iterdir())) == 4


def test_n27_several_first_uses_of_the_built_in_corpus(start: Callable[..., Child], tmp_path: Path) -> None:
    dry = ("train", "--dry-run", "--device", "cpu")
    runs = [start(*dry, before=FEW_CLIPS, RRTN_CACHE=tmp_path / "cache") for _ in range(3)]
    ended = [run.wait() for run in runs]
    assert [one.code for one in ended] == [0, 0, 0], [one.err for one in ended]
    assert (tmp_path / "made").read_text() == "once\n"
    (folder,) = (tmp_path / "cache").iterdir()
    assert len(list((folder / "wav").iterdir())) == 24
