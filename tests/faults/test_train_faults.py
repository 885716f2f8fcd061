"""What `rrtn train` does when things go wrong: the rows T of docs/reliability.md, but T1, which is in
test_train_soak.py.

Trainers are processes of their own (conftest.py) with a small CNN, three epochs of three steps, and
real signals.
"""

import contextlib
import json
import os
import pickle
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from pointers import rewrite_pointer
from rrtn.runtime.errors import DataError, ModelError
from rrtn.runtime.system.files import sha256_of
from rrtn.train.checkpoint import POINTER, PREVIOUS, load_checkpoint, read_info
from rrtn.train.config import config_from_dict
from rrtn.train.data.data_set import read_data
from rrtn.train.data.device_clips import TrainingBatch, Waveforms
from rrtn.train.distributed import World
from rrtn.train.method import model
from rrtn.train.method.encoders import PannsCnn
from rrtn.train.method.losses import bt_loss, ccc_loss, cross_correlation
from rrtn.train.method.model import TwinsNetwork
from rrtn.train.step import Stepper

MakeData = Callable[..., Path]
Outcome = Callable[[Path], dict[str, object]]
Rrtn = Callable[..., Any]  # conftest.py: arguments -> how it ended; `start` -> the running child
Lines = list[str]
SMALL_RRTN = Path(__file__).with_name("small_rrtn.py")
NEWEST, BEFORE = 5, 3  # steps of the two checkpoints of `begun`
LIMIT = 25_000  # bytes, between the sizes of its weights and of its optimiser's state


def at(place: str, nth: int, action: str) -> str:
    """Python for `before`: `action` is run when training passes `place` for the nth time."""
    return f"""
import itertools, rrtn.train.loop as loop
count = itertools.count(1)
def failpoint(name):
    if name == {place!r} and next(count) == {nth}:
        exec({action!r}, {{}})
loop.failpoint = failpoint
"""


def assert_refused(ended: Any, code: int, *parts: str) -> None:
    """Nothing on stdout; on stderr one line with all the parts, and before it at most which run it
    is, and notes.
    """
    assert (ended.code, ended.out) == (code, ""), ended.err
    *before, line = ended.err.splitlines()
    assert [
        other for other in before if not other.startswith(("run ", "targets: ", "note: ", "epoch "))
    ] == []
    assert line.startswith("rrtn: ")
    assert [part for part in parts if part not in line] == []


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}


def temporary_files(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.suffix == ".tmp")


@pytest.fixture(scope="module")
def runs(server: Any, corpus: Path, settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs: `whole`, and `begun`, which SIGTERM has stopped behind the second
    step of its second epoch.
    """
    folder = tmp_path_factory.mktemp("runs")
    flags = ("train", "--data", corpus, "--config", settings, "--device", "cpu", "--out")
    ended = server.start(*flags, "whole", cwd=folder).wait()
    assert ended.code == 0, ended.err
    ended = server.start(*flags, "begun", cwd=folder, RRTN_FAILPOINT=f"train.step:sigterm:{NEWEST}").wait()
    assert ended.code == 143, ended.err
    return folder


@pytest.fixture
def whole(runs: Path) -> Path:
    """A finished run, not to be changed."""
    return runs / "whole"


@pytest.fixture
def begun(runs: Path, tmp_path: Path) -> Path:
    """A copy of the run that was stopped."""
    return Path(shutil.copytree(runs / "begun", tmp_path / "run"))


@pytest.fixture
def fresh(corpus: Path, settings: Path) -> tuple[object, ...]:
    """Arguments of a new run in the folder `run`."""
    return ("train", "--data", corpus, "--config", settings, "--device", "cpu", "--out", "run")


def resumed(rrtn: Rrtn, run: Path, *flags: object, **options: object) -> Any:
    return rrtn("train", "--resume", "--out", run, *flags, **options)


def checkpoint_files(run: Path, pointer: str = POINTER) -> dict[str, Path]:
    """{"weights": ..., "optimizer": ...} as the pointer of `last` lists them."""
    last = run / "checkpoints/last"
    return {
        kind: last / entry["file"]
        for kind, entry in json.loads((last / pointer).read_text())["files"].items()
    }


# --- T2: killed in a save ---


def survive_kills(
    rrtn: Rrtn,
    outcome: Outcome,
    base: Path,
    *,
    first: int,
    files: int,
    start: tuple[object, ...],
    expected: dict[str, object],
) -> None:
    """Kills `start` in a copy of `base` at some places of its last writes, which are of `files` files.

    After each kill the last checkpoint is whole, and the run goes on to what it would have been.
    A write has four places. Killed is at the first of all, at every seventh from there, so that each of
    the four is met in some file, and before the last rename; test_train_soak.py kills at all.
    """
    for offset in sorted({*range(0, 4 * files, 7), 4 * files - 2, 4 * files}):
        cwd = base.with_name(f"killed-{offset}")
        shutil.copytree(base, cwd)
        ended = rrtn(*start, cwd=cwd, RRTN_FAILPOINT=f"[cw]*:sigkill:{first + offset}")
        if offset == 4 * files:
            assert (ended.code, outcome(cwd / "run")) == (0, expected)
            return
        assert ended.code == -signal.SIGKILL, ended.err
        if (cwd / "run/checkpoints/last" / POINTER).exists():
            load_checkpoint(cwd / "run/checkpoints/last", "weights", "optimizer")
        ended = resumed(rrtn, cwd / "run")
        assert ended.code == 0, ended.err
        assert "note" not in ended.err  # nobody had to take the checkpoint before
        assert outcome(cwd / "run") == expected
        assert temporary_files(cwd) == []
        shutil.rmtree(cwd)


@pytest.fixture(scope="module")
def one_epoch(server: Any, corpus: Path, settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`whole`, a run of one epoch, and `stopped/run`, the same stopped before its validation: its
    only checkpoint.
    """
    folder = tmp_path_factory.mktemp("one-epoch")
    (folder / "stopped").mkdir()
    flags = ("train", "--data", corpus, "--config", settings, "--device", "cpu", "--epochs", 1, "--out")
    ended = server.start(*flags, "whole", cwd=folder).wait()
    assert ended.code == 0, ended.err
    ended = server.start(*flags, "stopped/run", cwd=folder, RRTN_FAILPOINT="train.validate:sigterm").wait()
    assert ended.code == 143, ended.err
    return folder


def test_t2_killed_in_the_first_save(
    rrtn: Rrtn, outcome: Outcome, fresh: tuple[object, ...], one_epoch: Path, tmp_path: Path
) -> None:
    """From the first write of `last` on: three files with four places each."""
    (tmp_path / "base").mkdir()
    start = (*fresh, "--epochs", 1)
    expected = outcome(one_epoch / "whole")
    survive_kills(rrtn, outcome, tmp_path / "base", first=17, files=3, start=start, expected=expected)


def test_t2_killed_in_a_save_over_another_of_the_same_step(
    rrtn: Rrtn, outcome: Outcome, one_epoch: Path, tmp_path: Path
) -> None:
    """Behind config.toml and history.jsonl: two files of `best`, four of `last` (tensors,
    previous.json, checkpoint.json).
    """
    base = Path(shutil.copytree(one_epoch / "stopped", tmp_path / "base"))
    start = ("train", "--resume", "--out", "run")
    expected = outcome(one_epoch / "whole")
    survive_kills(rrtn, outcome, base, first=9, files=2 + 4, start=start, expected=expected)


def test_t2_killed_while_old_checkpoints_are_removed(
    rrtn: Rrtn, outcome: Outcome, fresh: tuple[object, ...], whole: Path, tmp_path: Path
) -> None:
    """The last checkpoint of `last` removes the last but two, two files; a better `best` the one before.

    Stopped by SIGTERM, which awaits the save behind the second epoch and its removals; SIGKILL may not.
    """
    assert rrtn(*fresh, RRTN_FAILPOINT="train.step:sigterm:8").code == 128 + signal.SIGTERM
    stopped, kills = (tmp_path / "run").rename(tmp_path / "stopped"), 0
    shutil.copytree(stopped, tmp_path / "run")
    while (
        ended := resumed(rrtn, tmp_path / "run", RRTN_FAILPOINT=f"checkpoint.prune:sigkill:{kills + 1}")
    ).code:
        kills += 1
        assert ended.code == -signal.SIGKILL, ended.err
        assert resumed(rrtn, tmp_path / "run").code == 0
        assert outcome(tmp_path / "run") == outcome(whole)
        shutil.rmtree(tmp_path / "run")
        shutil.copytree(stopped, tmp_path / "run")
    assert kills in (2, 3)


def test_t2_a_best_epoch_that_is_trained_again_and_is_worse_stays_the_best_one(
    rrtn: Rrtn, begun: Path, whole: Path
) -> None:
    """Killed between the saves of `best` and of `last`; on a GPU the epoch's second time has other bits.

    `begun` has done one epoch; what `whole` holds as its best is of a later one.
    """
    shutil.rmtree(begun / "checkpoints/best")
    shutil.copytree(whole / "checkpoints/best", begun / "checkpoints/best")
    best, files = read_info(begun / "checkpoints/best"), sorted(contents(begun / "checkpoints/best").values())
    worse = "import rrtn.train.loop as loop; loop.predict = lambda *a, p=loop.predict, **b: 1 - p(*a, **b)"
    ended = resumed(rrtn, begun, "--json", before=worse)
    assert ended.code == 0, ended.err
    assert f"note: epoch {best.epoch} was trained before, too, and then had a higher Val mean" in ended.err
    assert json.loads(ended.out)["best"]["epoch"] == best.epoch > 1
    assert json.loads(ended.out)["best"]["ccc"] == best.ccc == pytest.approx(best.score)
    assert sorted(contents(begun / "checkpoints/best").values()) == files


# --- T3, T4: asked to stop ---


@pytest.mark.parametrize(
    ("failpoint", "step"),
    [
        ("train.step:sigterm:1", 1),
        ("train.step:sigterm:5", 5),
        pytest.param("train.validate:sigterm:1", 3, marks=pytest.mark.slow),
        ("train.validate:sigterm:3", 9),
    ],
)
def test_t3_sigterm_saves_and_the_run_goes_on_bit_for_bit(
    rrtn: Rrtn,
    outcome: Outcome,
    fresh: tuple[object, ...],
    whole: Path,
    tmp_path: Path,
    failpoint: str,
    step: int,
) -> None:
    ended = rrtn(*fresh, RRTN_FAILPOINT=failpoint)
    told = f"stopped by a signal at step {step}, and saved | rrtn train --resume --out run"
    assert_refused(ended, 143, told)
    assert read_info(tmp_path / "run/checkpoints/last").step == step
    assert resumed(rrtn, tmp_path / "run").code == 0
    assert outcome(tmp_path / "run") == outcome(whole)


IN_VALIDATION = """
import itertools, os, signal, rrtn.train.loop as loop, rrtn.train.predict as predict
predict._BATCH = {"cpu": 2}
batches = itertools.count(1)
def advance(self, clips):
    if next(batches) > 1:
        raise SystemError("validation went on")
    if os.environ.get("RANK", "1") == "1":
        os.kill(os.getpid(), signal.SIGTERM)
loop.Display.advance_validation = advance
"""


def test_t3_sigterm_in_validation_does_not_wait_for_its_end(
    rrtn: Rrtn, outcome: Outcome, begun: Path, whole: Path
) -> None:
    """Eight Val clips, two at a time."""
    ended = resumed(rrtn, begun, before=at("train.validate", 1, IN_VALIDATION))
    assert_refused(ended, 143, "stopped by a signal at step 6, and saved | ")
    assert resumed(rrtn, begun).code == 0
    assert outcome(begun) == outcome(whole)


@pytest.mark.parametrize(
    "place", [20, 26, *(pytest.param(place, marks=pytest.mark.slow) for place in (17, 23))]
)
def test_t3_sigterm_in_a_save(
    rrtn: Rrtn, outcome: Outcome, fresh: tuple[object, ...], whole: Path, tmp_path: Path, place: int
) -> None:
    """The save is finished, and another one made where training stops: in the next step or validation."""
    ended = rrtn(*fresh, RRTN_FAILPOINT=f"write.*:sigterm:{place}")
    assert_refused(ended, 143, "stopped by a signal at step ")
    assert resumed(rrtn, tmp_path / "run").code == 0
    assert outcome(tmp_path / "run") == outcome(whole)


def test_t3_sigterm_in_the_last_save_changes_nothing(
    rrtn: Rrtn, outcome: Outcome, fresh: tuple[object, ...], one_epoch: Path, tmp_path: Path
) -> None:
    """Nothing is left to stop: the run is finished, and says so."""
    ended = rrtn(*fresh, "--epochs", 1, RRTN_FAILPOINT="write.done:sigterm:7")
    assert ended.code == 0, ended.err
    assert outcome(tmp_path / "run") == outcome(one_epoch / "whole")


def test_t3_sigterm_while_audio_is_decoded(
    rrtn: Rrtn, outcome: Outcome, fresh: tuple[object, ...], whole: Path, tmp_path: Path
) -> None:
    """There is no run yet, so the same command starts it; what is decoded is kept."""
    cache = tmp_path / "cache"
    ended = rrtn(*fresh, RRTN_CACHE=cache, RRTN_FAILPOINT="write.fsync:sigterm:3")  # 1, 2: Train; 3: Val
    assert (ended.code, temporary_files(cache)) == (143, [])
    assert not (tmp_path / "run").exists()
    assert len(list((cache / "clips").glob("*.json"))) == 1
    assert rrtn(*fresh, RRTN_CACHE=cache).code == 0
    assert outcome(tmp_path / "run") == outcome(whole)


def test_t4_ctrl_c_once_saves(
    rrtn: Rrtn, outcome: Outcome, fresh: tuple[object, ...], whole: Path, tmp_path: Path
) -> None:
    ended = rrtn(*fresh, RRTN_FAILPOINT="train.step:sigint:4")
    assert_refused(ended, 130, "stopped by a signal at step 4, and saved | ")
    assert resumed(rrtn, tmp_path / "run").code == 0
    assert outcome(tmp_path / "run") == outcome(whole)


CAUGHT = """
import pathlib
from rrtn.train.interruption import Interruption
catch = Interruption._caught
def caught(self, number, frame):
    catch(self, number, frame)
    pathlib.Path({path!r}).touch()
Interruption._caught = caught
"""


def test_t4_ctrl_c_twice_stops_at_once(
    rrtn: Rrtn, start: Rrtn, outcome: Outcome, fresh: tuple[object, ...], whole: Path, tmp_path: Path
) -> None:
    """In a step that would last an hour."""
    marker, caught = tmp_path / "asleep", tmp_path / "caught"
    asleep = f"import pathlib, time; pathlib.Path({str(marker)!r}).touch(); time.sleep(3600)"
    child = start(*fresh, before=at("train.step", 5, asleep) + CAUGHT.format(path=str(caught)))
    wait_for(marker.exists)
    child.kill(signal.SIGINT)
    wait_for(caught.exists)
    assert is_running(child)
    child.kill(signal.SIGINT)
    assert_refused(child.wait(), 130, "interrupted | run ", "is kept", "train --resume --out ")
    assert read_info(tmp_path / "run/checkpoints/last").step == 3
    assert resumed(rrtn, tmp_path / "run").code == 0
    assert outcome(tmp_path / "run") == outcome(whole)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_running(child: Any) -> bool:
    return "\nState:\tZ" not in Path(f"/proc/{child.pid}/status").read_text()


# --- T5, T6: the disk is full ---


TENSORS = r"-.*\.safetensors \| No space left on device \| expected room for [1-9][\d,]+ bytes"
FULL = r" \| No space left on device"


@pytest.mark.parametrize(
    ("place", "file", "named"),
    [
        ("begin", 1, r"run/config\.toml" + FULL),
        ("fsync", 2, r"run/history\.jsonl" + FULL),
        ("begin", 3, r"run/checkpoints/last/weights" + TENSORS),
        ("fsync", 4, r"run/checkpoints/last/optimizer" + TENSORS),
        ("replace", 5, r"run/checkpoints/last/previous\.json" + FULL),
        ("begin", 6, r"run/checkpoints/last/checkpoint\.json" + FULL),
        ("fsync", 6, r"run/checkpoints/last/checkpoint\.json" + FULL),
        ("replace", 6, r"run/checkpoints/last/checkpoint\.json" + FULL),
        ("done", 6, r"run/checkpoints/last/checkpoint\.json" + FULL),
    ],
)
def test_t5_a_full_disk_stops_the_run_with_the_files_name(
    rrtn: Rrtn, begun: Path, whole: Path, place: str, file: int, named: str
) -> None:
    """A resumed run writes two files, then two for `best` where the second epoch is the best, then
    four for `last`.
    """
    first, second = (record["val_ccc"] for record in read_info(whole / "checkpoints/last").history[:2])
    file += 2 * (file > 2 and second > first)
    ended = resumed(rrtn, begun, RRTN_FAILPOINT=f"write.{place}:enospc:{file}")
    assert_refused(ended, 4)
    assert re.search(named, ended.err), ended.err
    assert temporary_files(begun) == []
    load_checkpoint(begun / "checkpoints/last", "weights", "optimizer")
    load_checkpoint(begun / "checkpoints/last", "weights", "optimizer", pointer=PREVIOUS)


def test_t5_of_a_run_s_folder_a_training_removes_what_a_killed_one_left_and_nothing_else(
    rrtn: Rrtn, begun: Path
) -> None:
    notes, export = begun / ".notes.tmp", begun / ".export.abcdefgh.tmp"
    notes.write_text("precious")
    export.mkdir()  # an export may go on beside it
    assert resumed(rrtn, begun, RRTN_FAILPOINT="write.fsync:sigkill:2").code == -signal.SIGKILL
    assert len(temporary_files(begun)) == 3
    assert resumed(rrtn, begun).code == 0
    assert temporary_files(begun) == [export, notes]


def test_t5_a_run_goes_on_where_the_full_disk_has_stopped_it(
    rrtn: Rrtn, outcome: Outcome, begun: Path, whole: Path
) -> None:
    assert resumed(rrtn, begun, RRTN_FAILPOINT="write.fsync:enospc:4").code == 4
    assert resumed(rrtn, begun).code == 0
    assert outcome(begun) == outcome(whole)


def test_t5_a_file_larger_than_the_limit(rrtn: Rrtn, outcome: Outcome, begun: Path, whole: Path) -> None:
    """The weights are below the limit, AdamW's two moments are not: a real error in the midst of a write."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))"
    files = checkpoint_files(begun)
    assert files["weights"].stat().st_size < LIMIT < files["optimizer"].stat().st_size
    before = contents(begun / "checkpoints/last")
    ended = resumed(rrtn, begun, before=limit)
    assert_refused(ended, 4, "/checkpoints/last/optimizer-", "File too large", "expected room for ", "bytes")
    after = contents(begun / "checkpoints/last")
    assert before.items() <= after.items()
    assert [path.name.partition("-")[0] for path in after.keys() - before.keys()] == ["weights"]
    assert resumed(rrtn, begun).code == 0
    assert outcome(begun) == outcome(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "rrtn-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_t5_a_disk_that_is_really_full(
    rrtn: Rrtn, outcome: Outcome, begun: Path, small_disk: Path, whole: Path
) -> None:
    run = Path(shutil.copytree(begun, small_disk / "run"))
    filler = small_disk / "filler"
    left = shutil.disk_usage(small_disk).free
    filler.write_bytes(b"x" * (left - 40_000))  # room for the weights, not for AdamW's moments
    before = contents(run / "checkpoints/last")
    ended = resumed(rrtn, run)
    assert_refused(
        ended, 4, "/checkpoints/last/optimizer-", "No space left on device", "expected room for ", "bytes"
    )
    assert temporary_files(run) == []
    assert before.items() <= contents(run / "checkpoints/last").items()
    filler.unlink()
    assert resumed(rrtn, run).code == 0
    assert outcome(run) == outcome(whole)


def test_t6_a_full_disk_in_the_history_stops_the_run_and_loses_nothing(
    rrtn: Rrtn, outcome: Outcome, begun: Path, whole: Path
) -> None:
    path = begun / "history.jsonl"
    full = at(
        "train.validate",
        1,
        f"import pathlib; p = pathlib.Path({str(path)!r}); p.unlink(); p.symlink_to('/dev/full')",
    )
    ended = resumed(rrtn, begun, before=full)
    assert_refused(ended, 4, f"{path} | No space left on device | expected room for ", "bytes")
    assert resumed(rrtn, begun).code == 0
    assert not path.is_symlink()
    assert outcome(begun) == outcome(whole)


@pytest.mark.parametrize("tail", [b'{"epoch": 2, "st', b"", None])
def test_t6_a_torn_longer_or_lost_history_is_that_of_the_checkpoint_again(
    rrtn: Rrtn, outcome: Outcome, begun: Path, whole: Path, tail: bytes | None
) -> None:
    path = begun / "history.jsonl"
    if tail is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + (tail or whole.joinpath("history.jsonl").read_bytes()))
    assert resumed(rrtn, begun).code == 0
    assert outcome(begun) == outcome(whole)


# --- T7, T8, T9: checkpoints that are not what was written ---


def truncated(left: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * left)]


def flipped(place: float) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[int(len(content) * place)] ^= 1
        return bytes(changed)

    return flip


CHANGES = {
    "t7 empty": truncated(0),
    "t7 cut in half": truncated(0.5),
    "t7 cut at the end": truncated(0.999),
    "t8 first bit": flipped(0),
    "t8 bit in the header": flipped(0.01),
    "t8 bit in the midst": flipped(0.5),
    "t8 last bits": flipped(0.9999),
}


@pytest.mark.parametrize("kind", ["weights", "optimizer"])
@pytest.mark.parametrize("change", CHANGES)
def test_t7_t8_a_changed_file_is_refused_with_its_hash(begun: Path, change: str, kind: str) -> None:
    folder, path = begun / "checkpoints/last", checkpoint_files(begun)[kind]
    listed = sha256_of(path)
    path.write_bytes(CHANGES[change](path.read_bytes()))
    with pytest.raises(ModelError) as caught:
        load_checkpoint(folder, "weights", "optimizer")
    message = str(caught.value)
    assert message.startswith(
        f"{path} | sha256 {sha256_of(path)[:12]} | expected {listed[:12]}, as checkpoint.json lists it | "
    )
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("t7 cut in half", "optimizer"),
        ("t8 bit in the midst", "weights"),
        pytest.param("t7 cut in half", "weights", marks=pytest.mark.slow),
        pytest.param("t8 bit in the midst", "optimizer", marks=pytest.mark.slow),
    ],
)
def test_t7_t8_the_run_goes_on_from_the_checkpoint_before_with_a_warning(
    rrtn: Rrtn, outcome: Outcome, begun: Path, whole: Path, change: str, kind: str
) -> None:
    path = checkpoint_files(begun)[kind]
    path.write_bytes(CHANGES[change](path.read_bytes()))
    broken = sha256_of(path)[:12]
    ended = resumed(rrtn, begun)
    assert ended.code == 0, ended.err
    (note,) = [line for line in ended.err.splitlines() if "note: " in line]
    assert f"{path} | sha256 {broken} | expected " in note
    assert note.endswith(f"; going on from the checkpoint before, at step {BEFORE}")
    assert outcome(begun) == outcome(whole)


@pytest.mark.parametrize(
    "content",
    [
        b'{"schema": 2, "epo',
        b"[1, 2]",
        pytest.param(b"", marks=pytest.mark.slow),
        pytest.param(b"\xff", marks=pytest.mark.slow),
    ],
)
def test_t7_a_broken_list_counts_as_a_broken_checkpoint(
    rrtn: Rrtn, outcome: Outcome, begun: Path, whole: Path, content: bytes
) -> None:
    path = begun / "checkpoints/last" / POINTER
    path.write_bytes(content)
    assert_refused(resumed(rrtn, begun, "--strict-resume"), 5, f"{path} | ")
    ended = resumed(rrtn, begun)
    assert ended.code == 0, ended.err
    assert f"note: {path} | " in ended.err
    assert outcome(begun) == outcome(whole)


@pytest.mark.parametrize(
    ("lost", "came"),
    [("optimizer", "not there | expected "), (POINTER, "No such file or directory | expected ")],
)
def test_t7_a_lost_file_counts_as_a_broken_checkpoint(
    rrtn: Rrtn, outcome: Outcome, begun: Path, whole: Path, lost: str, came: str
) -> None:
    path = checkpoint_files(begun).get(lost, begun / "checkpoints/last" / lost)
    path.unlink()
    assert_refused(resumed(rrtn, begun, "--strict-resume"), 5, f"{path} | {came}")
    ended = resumed(rrtn, begun)
    assert ended.code == 0, ended.err
    assert f"note: {path} | {came}" in ended.err
    assert outcome(begun) == outcome(whole)


def test_t7_a_run_that_lost_its_checkpoints_does_not_begin_anew(rrtn: Rrtn, begun: Path) -> None:
    (begun / "history.jsonl").write_text("{}\n" * 3)
    shutil.rmtree(begun / "checkpoints/last")
    assert_refused(resumed(rrtn, begun), 5, "no checkpoint, and the run has trained for 3 epochs", "restore")
    assert len((begun / "history.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("is_lost", [True, False])
def test_t7_t8_a_run_whose_best_checkpoint_is_broken_does_not_train_on(
    rrtn: Rrtn, begun: Path, is_lost: bool
) -> None:
    """Nothing brings it back, and evaluate and export would refuse the run at its end."""
    (path,) = (begun / "checkpoints/best").glob("*.safetensors")
    path.unlink() if is_lost else path.write_bytes(flipped(0.5)(path.read_bytes()))
    assert_refused(resumed(rrtn, begun), 5, f"{path} | ")


def test_t7_t8_strict_resume_stops_at_the_changed_file_and_keeps_it(rrtn: Rrtn, begun: Path) -> None:
    path = checkpoint_files(begun)["weights"]
    path.write_bytes(path.read_bytes()[:-1])
    before = contents(begun)
    ended = resumed(rrtn, begun, "--strict-resume")
    assert_refused(ended, 5, str(path), sha256_of(path)[:12], "use another checkpoint")
    assert contents(begun) == before


def test_t7_t8_two_broken_checkpoints_stop_the_run_and_are_kept(rrtn: Rrtn, begun: Path) -> None:
    for pointer in (POINTER, PREVIOUS):
        path = checkpoint_files(begun, pointer)["weights"]
        path.write_bytes(flipped(0.5)(path.read_bytes()))
    before = contents(begun)
    assert_refused(resumed(rrtn, begun), 5, str(path), f"as {PREVIOUS} lists it")
    assert contents(begun) == before


def test_t8_a_broken_only_checkpoint_stops_the_run(rrtn: Rrtn, one_epoch: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(one_epoch / "stopped/run", tmp_path / "run"))
    path = checkpoint_files(run)["optimizer"]
    path.write_bytes(flipped(0.5)(path.read_bytes()))
    assert_refused(resumed(rrtn, run), 5, str(path), sha256_of(path)[:12])


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("maker", ["pickle", "torch"])
def test_t9_a_pickle_is_refused_unopened_even_where_its_hash_is_listed(
    rrtn: Rrtn, begun: Path, tmp_path: Path, maker: str
) -> None:
    folder, path = begun / "checkpoints/last", checkpoint_files(begun)["weights"]
    attack = Malicious(tmp_path / "marker")
    path.write_bytes(pickle.dumps(attack)) if maker == "pickle" else torch.save(attack, path)
    listed = json.loads((folder / POINTER).read_text())["files"]["weights"]["sha256"]
    rewrite_pointer(folder / POINTER, lambda text: text.replace(listed, sha256_of(path)))
    with pytest.raises(ModelError, match="expected safetensors"):
        load_checkpoint(folder, "weights")
    assert_refused(resumed(rrtn, begun, "--strict-resume"), 5, "expected safetensors")
    assert not attack.marker.exists()


# --- T10 to T13: resuming what must not, or need not, go on ---


@pytest.mark.parametrize(
    ("flags", "change"),
    [
        (("--lr", "0.5"), "optim.lr: 0.001 -> 0.5"),
        (
            ("--batch-size", "2"),
            "optim.batch_size: 4 -> 2",
        ),  # T11; there are no workers whose number could change
        (("--encoder", "cnn10"), "model.encoder: 'resnet18' -> 'cnn10'"),
        (("--method", "vanilla"), "projector.units = 16 | has no effect with method vanilla"),
        (("--method", "rrtn"), "model.method: 'rrtn-ruwl' -> 'rrtn'"),
        (("--seed", "1"), "seed: 0 -> 1"),
        (("--precision", "bf16"), "precision: 'fp32' -> 'bf16'"),
        (("--targets", "Fear"), "data.targets: ['Awe', "),
        (("--lr", "0.5", "--seed", "7", "--epochs", "9"), "seed: 0 -> 7; optim.lr: 0.001 -> 0.5 |"),
    ],
)
def test_t10_t11_resuming_with_another_setting_is_refused_with_the_differences(
    rrtn: Rrtn, begun: Path, flags: tuple[str, ...], change: str
) -> None:
    before = contents(begun)
    ended = resumed(rrtn, begun, *flags)
    assert_refused(ended, 2, change)
    assert "--resume | other settings than the run's: " in ended.err or "has no effect" in ended.err
    assert contents(begun) == before


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("weight_decay = 0.01", "weight_decay = 0.02", "optim.weight_decay: 0.01 -> 0.02"),
        ("seed = 0", "seed = 1", "seed: 0 -> 1"),
        ('method = "rrtn-ruwl"', 'method = "rrtn"', "model.method: 'rrtn-ruwl' -> 'rrtn'"),
    ],
)
def test_t10_a_config_toml_that_was_edited_is_refused_with_the_differences(
    rrtn: Rrtn, begun: Path, old: str, new: str, change: str
) -> None:
    path = begun / "config.toml"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    before = contents(begun)
    of = begun / "checkpoints/last" / POINTER
    came = f"--resume | other settings than those of its checkpoint, {of}: {change}"
    assert_refused(resumed(rrtn, begun), 2, came)
    assert contents(begun) == before


def test_t10_of_a_finished_run_too(rrtn: Rrtn, whole: Path, tmp_path: Path) -> None:
    finished = Path(shutil.copytree(whole, tmp_path / "run"))
    path = finished / "config.toml"
    path.write_text(path.read_text().replace("seed = 0", "seed = 1"))
    ended = resumed(rrtn, finished)
    pointer = finished / "checkpoints/last" / POINTER
    came = f"--resume | other settings than those of its checkpoint, {pointer}: seed: 0 -> 1"
    assert_refused(ended, 2, came)


def test_t10_a_new_run_does_not_overwrite_one_that_is_there(
    rrtn: Rrtn, begun: Path, fresh: tuple[object, ...]
) -> None:
    before = contents(begun)
    assert_refused(rrtn(*fresh), 2, "--out run | holds a run already | continue with --resume")
    assert contents(begun) == before


def other_rating(data: Path) -> None:
    """One Val rating, by a thousandth: no column of targets and no sample changes."""
    path = data / "data_info.csv"
    header, *lines = path.read_text().splitlines()
    column = header.split(",").index("Fear")
    number = next(i for i, line in enumerate(lines) if ",Val," in line)
    cells = lines[number].split(",")
    cells[column] = str(abs(float(cells[column]) - 0.001))
    lines[number] = ",".join(cells)
    path.write_text("\n".join([header, *lines]) + "\n")


def other_sample(data: Path) -> None:
    path = first_clip(data)
    samples, rate = soundfile.read(path, dtype="int16")
    samples[len(samples) // 2] ^= 64
    soundfile.write(path, samples, rate)


def one_clip_less(data: Path) -> None:
    path = data / "data_info.csv"
    lines = path.read_text().splitlines()
    lines.remove(next(line for line in lines if ",Train," in line))
    path.write_text("\n".join(lines) + "\n")


def first_clip(data: Path) -> Path:
    """The first clip of the Train split."""
    return read_data(data).splits["Train"].clips[0].path


@pytest.mark.parametrize(
    ("name", "change"),
    [*(("begun", change) for change in (other_rating, other_sample, one_clip_less)), ("whole", other_rating)],
)
def test_t10_resuming_with_other_data_is_refused_by_its_hash(
    rrtn: Rrtn, corpus: Path, runs: Path, tmp_path: Path, name: str, change: Callable[[Path], None]
) -> None:
    """A finished run, too: nothing would be trained, and its result would be taken for the data's."""
    run = Path(shutil.copytree(runs / name, tmp_path / "run"))
    data = Path(shutil.copytree(corpus, tmp_path / "changed"))
    change(data)
    before = contents(run)
    ended = resumed(rrtn, run, "--data", data)
    assert ended.code == 2, ended.err
    was = read_info(run / "checkpoints/last").data_sha256[:12]
    line = ended.err.splitlines()[-1]
    assert re.fullmatch(
        rf"rrtn: --resume \| clips or ratings were changed: "
        rf"the data is [0-9a-f]{{12}}, the run's was {was} \| .*",
        line,
    )
    assert contents(run) == before


def test_t10_data_that_was_moved_and_more_epochs_are_accepted_and_recorded(
    rrtn: Rrtn, outcome: Outcome, fresh: tuple[object, ...], corpus: Path, begun: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(corpus, tmp_path / "moved"))
    ended = resumed(rrtn, begun, "--data", moved, "--epochs", 4)
    assert ended.code == 0, ended.err
    assert f"note: changed on resume: data.dir: '{corpus}' -> '{moved}'" in ended.err
    assert "note: changed on resume: optim.epochs: 3 -> 4" in ended.err
    config = tomllib.loads((begun / "config.toml").read_text())
    assert (config["data"]["dir"], config["optim"]["epochs"]) == (str(moved), 4)
    assert read_info(begun / "checkpoints/last").config["optim"]["epochs"] == 4
    assert rrtn(*fresh[:-1], "longer", "--epochs", 4).code == 0
    assert outcome(begun) == outcome(tmp_path / "longer")


def test_t10_a_finished_run_learns_where_its_data_lie_now(
    rrtn: Rrtn, corpus: Path, whole: Path, tmp_path: Path
) -> None:
    """As where it was trained on another machine: only then can it be exported here."""
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    at_first = run / "config.toml"
    at_first.write_text(at_first.read_text().replace(str(corpus), "/gone/corpus"))
    ended = rrtn("evaluate", run)
    assert ended.code == 2
    fix = f"rrtn train --resume --out {run} --data"
    assert f"/gone/corpus | is not there | expected the data that {run} was trained on | " in ended.err
    assert f"{fix} DIR" in ended.err
    before = contents(run)
    assert rrtn(*fix.split()[1:], corpus).code == 0
    assert tomllib.loads((run / "config.toml").read_text())["data"]["dir"] == str(corpus)
    assert contents(run).keys() == before.keys()
    ended = rrtn("evaluate", run, "--no-ridge", "--json")
    assert (ended.code, json.loads(ended.out)["epoch"] > 0) == (0, True)


def test_t12_another_library_version_is_warned_of(rrtn: Rrtn, begun: Path) -> None:
    path = begun / "checkpoints/last" / POINTER
    now = json.loads(path.read_text())["versions"]["torch"]
    rewrite_pointer(path, lambda text: text.replace(f'"torch": "{now}"', '"torch": "1.0"'))
    ended = resumed(rrtn, begun)
    assert ended.code == 0, ended.err
    assert f"note: torch 1.0 -> {now}: the run goes on, but not bit for bit as it would have\n" in ended.err


def test_t12_equal_versions_are_not_warned_of(rrtn: Rrtn, begun: Path) -> None:
    assert "note" not in resumed(rrtn, begun).err


@pytest.mark.parametrize(
    ("device", "note"), [("NVIDIA H200", "note: device NVIDIA H200 -> cpu: "), (None, "")]
)
def test_t12_another_device_is_warned_of_where_the_checkpoint_names_one(
    rrtn: Rrtn, begun: Path, device: str | None, note: str
) -> None:
    path = begun / "checkpoints/last" / POINTER
    before, _, after = path.read_text().rpartition('"device": "cpu"')  # the first is a setting
    named = f'"device": "{device}"' if device else '"unknown": ""'
    rewrite_pointer(path, lambda _: before + named + after)
    ended = resumed(rrtn, begun)
    assert ended.code == 0, ended.err
    assert note in ended.err if note else "note" not in ended.err


@pytest.mark.parametrize("flags", [(), ("--epochs", "2"), ("--strict-resume",)])
def test_t13_resuming_a_finished_run_touches_nothing(
    rrtn: Rrtn, whole: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.rglob("*")}
    ended = resumed(rrtn, run, "--json", *flags)
    assert ended.code == 0, ended.err
    assert (json.loads(ended.out)["epochs"], json.loads(ended.out)["run"]) == (3, str(run))
    assert ("optim.epochs: 3 -> 2, without effect: 3 are done" in ended.err) == ("2" in flags)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.rglob("*")} == before


def test_resuming_without_a_run_is_refused(rrtn: Rrtn, tmp_path: Path) -> None:
    assert_refused(resumed(rrtn, tmp_path / "none"), 2, "--resume | no run in ", "config.toml")
    assert_refused(rrtn("train", "--resume"), 2, "--resume | no run in runs/")
    run = tmp_path / "table" / "ours" / "seed-42"
    run.mkdir(parents=True)
    (run / "config.toml").touch()
    several = resumed(rrtn, tmp_path / "table")
    assert_refused(several, 2, f"{tmp_path / 'table'} holds 1 run | expected one run | ", f"--out {run}")


# --- T14: two trainers ---


def test_t14_a_second_trainer_is_refused_and_a_killed_ones_lock_is_free(
    rrtn: Rrtn, start: Rrtn, outcome: Outcome, begun: Path, whole: Path
) -> None:
    first = start("train", "--resume", "--out", begun, RRTN_FAILPOINT="train.step:sleep:2")
    wait_for(lambda: f"process {first.pid} on " in (begun / "run.lock").read_text())
    second = resumed(rrtn, begun)
    assert_refused(second, 2, f"{begun} | process {first.pid} on {socket.gethostname()} trains there")
    first.kill()
    assert first.wait().code == -signal.SIGKILL
    assert resumed(rrtn, begun).code == 0
    assert outcome(begun) == outcome(whole)


def test_t14_two_new_runs_in_one_folder(
    start: Rrtn, fresh: tuple[object, ...], outcome: Outcome, whole: Path, tmp_path: Path
) -> None:
    children = [start(*fresh), start(*fresh)]
    ended = sorted((child.wait() for child in children), key=lambda end: end.code)
    assert [end.code for end in ended] == [0, 2], ended
    assert "trains there" in ended[1].err or "holds a run already" in ended[1].err
    assert outcome(tmp_path / "run") == outcome(whole)


# --- T15: a loss that is not finite ---

NAN_LOSS = "ccc_loss = lambda x, y: x.sum() * float('nan')"
INFINITE_LOSS = "ccc_loss = lambda x, y: x.sum() * float('inf')"
# 0 with slope inf * 0
NAN_GRADIENT = "real = twins.ccc_loss; twins.ccc_loss = lambda x, y: real(x, y) + (0 * x.sum()).sqrt()"
NAN_WEIGHT = (
    "import gc; [m.weight.data.fill_(float('nan')) for m in gc.get_objects() if type(m).__name__ == 'Head']"
)


@pytest.mark.parametrize("poison", [f"twins.{NAN_LOSS}", f"twins.{INFINITE_LOSS}", NAN_GRADIENT, NAN_WEIGHT])
def test_t15_the_run_stops_at_that_step_with_its_clips_and_a_whole_checkpoint(
    rrtn: Rrtn, begun: Path, corpus: Path, poison: str
) -> None:
    """Step 7 is the first of the third epoch."""
    ended = resumed(
        rrtn, begun, before=at("train.step", 2, f"import rrtn.train.method.twins_loss as twins; {poison}")
    )
    assert_refused(
        ended,
        4,
        "epoch 3, step 7 | loss or gradient is not finite, and no weight was changed; clips of the batch: ",
    )
    named = re.search(r"batch: (.*?) \| ", ended.err)
    assert named
    assert len(named[1].split(", ")) == 4
    assert {*named[1].split(", ")} <= {clip.file_id for clip in read_data(corpus).splits["Train"].clips}
    info, tensors = load_checkpoint(begun / "checkpoints/last", "weights", "optimizer")
    assert info.step == 6
    assert all(torch.isfinite(tensor).all() for kind in tensors.values() for tensor in kind.values())


@pytest.fixture
def stepper() -> Stepper:
    config = config_from_dict(
        {
            "device": "cpu",
            "data": {"targets": ["Awe", "Fear"]},
            "projector": {"units": 16},
            "frontend": {"frames": 64},
        },
        source="test",
    )
    torch.manual_seed(0)
    # another encoder would take ten times as long, and learn no otherwise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            model,
            "encoder_from_name",
            lambda name, *, n_mels: PannsCnn(n_mels, channels=(4, 8), pooled_blocks=2),
        )
        network = TwinsNetwork("resnet18", n_mels=64, n_targets=2, projector_units=16)
    return Stepper(config, network, torch.zeros(64), steps=10, steps_per_epoch=5, world=World())


def batch(*, poisoned: bool = False) -> TrainingBatch:
    samples = torch.rand(4, 63 * 160, generator=torch.Generator().manual_seed(0)) - 0.5
    if poisoned:
        samples[2, 5000] = float("nan")
    ratings = torch.tensor([[0.1, 0.9], [0.5, 0.5], [0.9, 0.2], [0.3, 0.4]])
    return TrainingBatch(
        Waveforms(samples, torch.full((4,), samples.shape[1])),
        ratings,
        torch.full((4, 8), 0.5, dtype=torch.float64),
    )


def learned(stepper: Stepper) -> list[torch.Tensor]:
    """Weights, RUWL's c, AdamW's moments and step counts."""
    moments = [
        value for state in stepper.optimizer.state_dict()["state"].values() for value in state.values()
    ]
    return [tensor.detach().clone() for tensor in [*stepper.loss.parameters(), *moments]]


@pytest.mark.parametrize("poison", ["batch", "loss", "gradient"])
def test_t15_neither_that_step_nor_any_later_one_changes_a_weight(
    stepper: Stepper, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    """On a GPU the host looks at the device only now and then, so steps may follow before it sees
    the bad one.
    """
    stepper.step(batch(), 0)
    assert stepper.bad_step() is None
    before = learned(stepper)
    losses = {
        "loss": lambda x, y: x.sum() * torch.inf,
        "gradient": lambda x, y: ccc_loss(x, y) + (0 * x.sum()).sqrt(),
    }
    with monkeypatch.context() as patch:
        if poison in losses:
            patch.setattr("rrtn.train.method.twins_loss.ccc_loss", losses[poison])
        stepper.step(batch(poisoned=poison == "batch"), 1)
    assert all(map(torch.equal, learned(stepper), before))
    stepper.step(batch(), 2)
    assert all(map(torch.equal, learned(stepper), before))
    assert stepper.bad_step() == 1


def test_t15_finite_steps_do_change_the_weights(stepper: Stepper) -> None:
    before = learned(stepper)
    stepper.step(batch(), 0)
    assert not any(torch.equal(a, b) for a, b in zip(learned(stepper), before, strict=False) if a.dim() == 4)


def test_t15_a_validation_that_is_not_finite_becomes_no_checkpoint(rrtn: Rrtn, begun: Path) -> None:
    """Least of all the best one."""
    best = contents(begun / "checkpoints/best")
    module = "import rrtn.train.method.metrics as m, numpy as np"
    nan = f"{module}; m.ccc_challenge = lambda x, y: np.full(10, np.nan)"
    assert_refused(resumed(rrtn, begun, before=nan), 4, "epoch 2 | Val CCC not finite")
    assert contents(begun / "checkpoints/best") == best
    assert read_info(begun / "checkpoints/last").step == NEWEST


# --- T21, T22: the data changes under way ---


def test_t21_a_file_rewritten_during_training_has_no_effect_until_the_run_is_resumed(
    rrtn: Rrtn, outcome: Outcome, corpus: Path, begun: Path, whole: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(corpus, tmp_path / "data"))
    clip = first_clip(data)
    rewrite = f"import soundfile, numpy; soundfile.write({str(clip)!r}, numpy.full(16000, 0.1), 16000)"
    ended = resumed(rrtn, begun, "--data", data, before=at("train.step", 1, rewrite))
    assert ended.code == 0, ended.err
    assert outcome(begun) == outcome(whole)
    assert soundfile.info(clip).frames == 16000
    ended = resumed(rrtn, begun, "--data", data, "--epochs", 4)
    assert (ended.code, ended.err.splitlines()[-1].split(" | ")[0]) == (2, "rrtn: --resume")
    assert "clips or ratings were changed" in ended.err


def test_t22_a_data_folder_that_vanishes_is_missed_at_the_next_start_only(
    rrtn: Rrtn, outcome: Outcome, corpus: Path, begun: Path, whole: Path, tmp_path: Path
) -> None:
    """Training reads the cache alone."""
    data = Path(shutil.copytree(corpus, tmp_path / "data"))
    away = f"import os; os.rename({str(data)!r}, {str(tmp_path / 'away')!r})"
    ended = resumed(rrtn, begun, "--data", data, before=at("train.step", 1, away))
    assert ended.code == 0, ended.err
    assert outcome(begun) == outcome(whole)
    assert not data.exists()
    assert_refused(
        resumed(rrtn, begun, "--epochs", 4), 2, f"{data} | not a folder | expected one with data_info.csv"
    )


# --- T23 to T26: what the machine does ---

NO_CHILDREN = """
import sys
def watch(event, arguments):
    starts = "os.fork", "os.posix_spawn", "os.spawn", "os.exec", "os.system", "subprocess."
    if event.startswith((*starts, "_posixsubprocess.")):
        raise SystemError(f"a child process: {event}")
    if event == "open" and str(arguments[0]).startswith("/dev/shm") or event == "_posixshmem.shm_open":
        raise SystemError(f"shared memory: {event} {arguments}")
sys.addaudithook(watch)
"""


def test_t23_t24_training_starts_no_process_and_takes_no_shared_memory(
    rrtn: Rrtn, outcome: Outcome, fresh: tuple[object, ...], whole: Path, tmp_path: Path
) -> None:
    """There are no DataLoader workers that could be killed or want /dev/shm: clips are read from a
    mapped file.
    """
    ended = rrtn(*fresh, before=NO_CHILDREN, RRTN_CACHE=tmp_path / "cache")
    assert ended.code == 0, ended.err
    assert outcome(tmp_path / "run") == outcome(whole)
    assert (
        rrtn("--version", before=f"{NO_CHILDREN}import subprocess; subprocess.run(['true'])").code != 0
    )  # the hook works


NO_SHARED_MEMORY = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
# this process's own mounts, private
if libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 0x44000, None):
    raise SystemExit(99)
if libc.mount(b"rrtn-test", b"/dev/shm", b"tmpfs", 1, b"size=4k"):  # read-only
    raise SystemExit(99)
import pathlib
try:
    pathlib.Path("/dev/shm/x").touch()
except OSError:
    pass
else:
    raise SystemExit(98)
"""


def test_t24_dev_shm_is_not_needed(
    rrtn: Rrtn, outcome: Outcome, fresh: tuple[object, ...], whole: Path, tmp_path: Path
) -> None:
    ended = rrtn(*fresh, before=NO_SHARED_MEMORY, RRTN_CACHE=tmp_path / "cache")
    if ended.code == 99:
        pytest.skip("only root may mount a file system")
    assert ended.code == 0, ended.err
    assert outcome(tmp_path / "run") == outcome(whole)


BACKWARDS = """
import itertools, time
clock = itertools.count(2_000_000_000, -3600)
time.time, time.time_ns = lambda: float(next(clock)), lambda: next(clock) * 10**9
"""


def test_t25_a_clock_that_goes_backwards_changes_nothing(
    rrtn: Rrtn, outcome: Outcome, begun: Path, whole: Path
) -> None:
    """Durations are of the monotonic clock; which checkpoint is the last one says its list, not its time."""
    for i, path in enumerate(sorted((begun / "checkpoints").rglob("*-*.safetensors"), reverse=True)):
        os.utime(path, (1e9 + i, 1e9 + i))  # newer steps are older files
    ended = resumed(rrtn, begun, before=BACKWARDS)
    assert ended.code == 0, ended.err
    assert outcome(begun) == outcome(whole)


@pytest.mark.parametrize(
    ("error", "came"),
    [
        (
            "torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB\\nmore')",
            "CUDA out of memory. Tried",
        ),
        (
            "torch.AcceleratorError('CUDA error: out of memory\\nCompile with')",
            "CUDA error: out of memory",
        ),  # pinned
        (
            "RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`')",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling",
        ),
        ("RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED')", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_t26_a_full_gpu_stops_the_run_with_what_helps(
    rrtn: Rrtn, outcome: Outcome, begun: Path, whole: Path, error: str, came: str
) -> None:
    """No smaller batches behind the user's back: CCC and Barlow Twins are over the batch."""
    ended = resumed(rrtn, begun, before=at("train.step", 2, f"import torch; raise {error}"))
    assert_refused(ended, 4, f"{begun} | batch 4: {came}", "--batch-size", "bf16")
    assert resumed(rrtn, begun).code == 0
    assert outcome(begun) == outcome(whole)


@pytest.mark.parametrize(
    ("error", "came"),
    [
        (
            "torch.AcceleratorError('CUDA error: no kernel image is available for execution\\nSearch for')",
            "CUDA error: no kernel image is available for execution",
        ),
        (
            "RuntimeError('cuDNN error: CUDNN_STATUS_INTERNAL_ERROR')",
            "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        ),
        (
            "RuntimeError('CUDA driver error: unspecified launch failure')",
            "CUDA driver error: unspecified launch failure",
        ),
    ],
)
def test_t26_a_gpu_that_fails_stops_the_run_in_one_line(
    rrtn: Rrtn, begun: Path, error: str, came: str
) -> None:
    ended = resumed(rrtn, begun, before=at("train.step", 2, f"import torch; raise {error}"))
    assert_refused(ended, 4, f"{begun} | {came} | ", "nvidia-smi", "--resume")
    load_checkpoint(begun / "checkpoints/last", "weights", "optimizer")


def test_t26_an_error_of_no_gpu_is_not_hidden(rrtn: Rrtn, begun: Path) -> None:
    ended = resumed(rrtn, begun, before=at("train.step", 2, "raise RuntimeError('a fault of rrtn')"))
    assert ended.code == 1
    assert "Traceback" in ended.err


# --- T27, T28: several processes ---


def free_port() -> int:
    """Below those that the system gives to whoever asks for any, so that nobody has it before rank 0."""
    while True:
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", random.SystemRandom().randrange(15_000, 32_000)))
            return int(listener.getsockname()[1])


def ranks(start: Rrtn, *commands: tuple[object, ...], **options: Any) -> list[Any]:
    """One process for each command, as torchrun would start them."""
    common: dict[str, Any] = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "WORLD_SIZE": len(commands),
        **options,
    }
    return [start(*command, RANK=i, LOCAL_RANK=i, **common) for i, command in enumerate(commands)]


@pytest.fixture(scope="module")
def together(server: Any, corpus: Path, settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two processes, not to be changed."""
    folder = tmp_path_factory.mktemp("together")
    flags = ("train", "--data", corpus, "--config", settings, "--device", "cpu", "--out", "run")
    assert [child.wait().code for child in ranks(server.start, flags, flags, cwd=folder)] == [0, 0]
    return folder / "run"


@pytest.mark.parametrize(
    ("failpoint", "step"), [("train.step:sigterm:5", 5), ("train.validate:sigterm:2", 6)]
)
def test_t3_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(
    start: Rrtn,
    outcome: Outcome,
    fresh: tuple[object, ...],
    together: Path,
    tmp_path: Path,
    failpoint: str,
    step: int,
) -> None:
    stopped = [child.wait() for child in ranks(start, fresh, fresh, RRTN_FAILPOINT_RANK1=failpoint)]
    assert [ended.code for ended in stopped] == [143, 143], stopped
    assert read_info(tmp_path / "run/checkpoints/last").step == step
    again = ("train", "--resume", "--out", "run")
    assert [child.wait().code for child in ranks(start, again, again)] == [0, 0]
    assert outcome(tmp_path / "run") == outcome(together)


def test_t3_a_signal_in_validation_stops_both_of_two_processes_before_its_end(
    start: Rrtn, begun: Path
) -> None:
    """torchrun kills what has not ended after 30 seconds. Four Val clips each, two at a time."""
    again = ("train", "--resume", "--out", begun)
    stopped = ranks(start, again, again, before=at("train.validate", 1, IN_VALIDATION))
    assert [child.wait().code for child in stopped] == [143, 143]
    assert read_info(begun / "checkpoints/last").step == 6


def test_t27_a_killed_process_ends_the_other_soon_and_leaves_a_whole_checkpoint(
    start: Rrtn, fresh: tuple[object, ...], tmp_path: Path
) -> None:
    """Without torchrun, which would end it, too, and long before half an hour, when the process
    group itself gives up.
    """
    first, second = ranks(start, fresh, fresh, RRTN_FAILPOINT_RANK1="train.step:sigkill:8")
    assert second.wait().code == -signal.SIGKILL
    assert_refused(first.wait(), 4, "torchrun | rank 0 has lost another process")
    assert load_checkpoint(tmp_path / "run/checkpoints/last", "weights", "optimizer")[0].step == 6


@pytest.mark.slow
def test_t27_torchrun_ends_when_one_process_is_killed(
    fresh: tuple[object, ...], server: Any, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
    ]
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RRTN_CACHE": str(server.cache),
        "RRTN_FAILPOINT_RANK1": "train.step:sigkill:8",
    }
    done = subprocess.run(
        [*command, str(SMALL_RRTN), *map(str, fresh)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode != 0
    assert re.search(r"exitcode *: -9", done.stderr), done.stderr
    assert load_checkpoint(tmp_path / "run/checkpoints/last", "weights", "optimizer")[0].step == 6


def test_t27_a_process_whose_data_is_refused_does_not_leave_the_other_waiting(
    start: Rrtn, make_data: MakeData, csv_lines: Lines, fresh: tuple[object, ...]
) -> None:
    folder = make_data(cell(5, AWE, "1.5")(csv_lines))
    first, second = (child.wait() for child in ranks(start, *[(*fresh[:2], folder, *fresh[3:])] * 2))
    assert_refused(first, 2, "line 5 (1 in all)")
    assert_refused(second, 4, "torchrun | rank 1 has lost another process")


@pytest.mark.parametrize("change", [other_rating, other_sample])
def test_t28_processes_that_see_other_data_are_refused(
    start: Rrtn, corpus: Path, fresh: tuple[object, ...], tmp_path: Path, change: Callable[[Path], None]
) -> None:
    data = Path(shutil.copytree(corpus, tmp_path / "other"))
    change(data)
    other = (*fresh[:2], data, *fresh[3:])
    ended = [child.wait() for child in ranks(start, fresh, other)]
    assert [end.code for end in ended] == [2, 2], ended
    assert "torchrun | the decoded data set differs: rank 0 " in ended[0].err
    assert not (tmp_path / "run/config.toml").exists()


def test_t7_t28_processes_go_on_from_the_checkpoint_that_the_first_has_taken(
    start: Rrtn, begun: Path, tmp_path: Path
) -> None:
    """The newest is broken: both take the one before, and say so once."""
    broken = checkpoint_files(begun)["weights"]
    broken.write_bytes(truncated(0.5)(broken.read_bytes()))
    again = ("train", "--resume", "--out", begun)
    first, second = (child.wait() for child in ranks(start, again, again))
    assert (first.code, second.code) == (0, 0), (first, second)
    assert f"going on from the checkpoint before, at step {BEFORE}" in first.err
    assert second.err == ""


def sees_a_broken_one(run: Path) -> None:
    path = checkpoint_files(run)["optimizer"]
    path.write_bytes(flipped(0.5)(path.read_bytes()))


def sees_the_one_before(run: Path) -> None:
    shutil.copy(run / "checkpoints/last" / PREVIOUS, run / "checkpoints/last" / POINTER)


def sees_none(run: Path) -> None:
    for name in (POINTER, PREVIOUS):
        (run / "checkpoints/last" / name).unlink()
    (run / "history.jsonl").write_text("")


@pytest.mark.parametrize(
    ("stale", "codes", "told"),
    [
        (sees_a_broken_one, [4, 5], ", as checkpoint.json lists it"),
        (
            sees_the_one_before,
            [2, 2],
            f"torchrun | the checkpoint differs: rank 0 step {NEWEST} after 1 epoch, weights ",
        ),
        (sees_none, [4, 5], "checkpoint.json | No such file"),
    ],
)
def test_t28_a_process_that_sees_another_checkpoint_is_refused(
    start: Rrtn,
    begun: Path,
    tmp_path: Path,
    stale: Callable[[Path], None],
    codes: list[int],
    told: str,
) -> None:
    """What the second sees of the folder is old, or broken: it does not go on from another state."""
    other = Path(shutil.copytree(begun, tmp_path / "other"))
    stale(other)
    before = contents(begun), contents(other)
    commands = (("train", "--resume", "--out", run) for run in (begun, other))
    ended = [child.wait() for child in ranks(start, *commands)]
    assert [end.code for end in ended] == codes, ended
    assert told in ended[1].err
    assert (contents(begun), contents(other)) == before


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ("--lr", 0.003),
            "torchrun | optim.lr differs: rank 0 0.001, rank 1 0.003 | expected the same on all",
        ),
        (("--precision", "bf16", "--seed", 1), "torchrun | seed differs: rank 0 0, rank 1 1 | expected"),
        (("--init", "other.pth"), "torchrun | model.init differs: rank 0 '', rank 1 '"),
    ],
)
def test_t28_processes_of_other_settings_are_refused(
    start: Rrtn, fresh: tuple[object, ...], tmp_path: Path, flags: tuple[object, ...], told: str
) -> None:
    (tmp_path / "other.pth").touch()
    ended = [child.wait() for child in ranks(start, fresh, (*fresh, *flags))]
    assert [end.code for end in ended] == [2, 2], ended
    assert all(told in end.err for end in ended)
    assert not (tmp_path / "run").exists()


def test_t28_processes_may_read_the_same_clips_at_other_places(
    start: Rrtn, corpus: Path, fresh: tuple[object, ...], tmp_path: Path
) -> None:
    """As from a disk of each machine."""
    data = shutil.copytree(corpus, tmp_path / "copied")
    commands = fresh, (*fresh[:2], data, *fresh[3:])
    ended = [child.wait() for child in ranks(start, *(each + ("--epochs", 1) for each in commands))]
    assert [end.code for end in ended] == [0, 0], ended


SOME_HAVE_BF16 = """
import os
from rrtn.train import plan
plan._default_precision = lambda config: ("bf16", "fp16")[int(os.environ["RANK"])]
"""


def test_t28_auto_is_a_precision_that_all_processes_have(
    start: Rrtn, fresh: tuple[object, ...], tmp_path: Path
) -> None:
    flags = (*fresh, "--dry-run", "--json")
    first, second = (child.wait() for child in ranks(start, flags, flags, before=SOME_HAVE_BF16))
    assert (first.code, second.code) == (0, 0), (first, second)
    assert json.loads(first.out)["config"]["precision"] == "fp16"


# --- T29, T30: the environment ---


@pytest.mark.skipif("OLDER_CPU" in os.environ, reason="a bare environment shows the whole processor")
def test_t29_t30_a_bare_environment_gives_the_same_bytes(
    outcome: Outcome, fresh: tuple[object, ...], whole: Path, tmp_path: Path
) -> None:
    """No home, no locale, another hash seed; a process of its own, not forked."""
    (tmp_path / "tmp").mkdir()
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": "/dev/null/home",  # no folder can be made there, by root neither
        "TMPDIR": str(tmp_path / "tmp"),
        "LANG": "C",
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "4242",
    }
    command = [sys.executable, str(SMALL_RRTN), *map(str, fresh)]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path / "run") == outcome(whole)
    assert list((tmp_path / "tmp" / f"rrtn-cache-{os.getuid()}/clips").glob("*.npy"))


def test_t29_a_working_folder_that_is_removed_is_not_missed(
    rrtn: Rrtn, outcome: Outcome, begun: Path, whole: Path, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    removed = at("train.step", 1, f"import os; os.rmdir({str(tmp_path / 'gone')!r})")
    ended = resumed(rrtn, begun, cwd=tmp_path / "gone", before=removed)
    assert ended.code == 0, ended.err
    assert not (tmp_path / "gone").exists()
    assert outcome(begun) == outcome(whole)


# --- T19: the label CSV ---


def cell(line: int, column: int, value: str) -> Callable[[Lines], Lines]:
    """Another value in one cell; lines count from 1, the header's, columns from 0."""

    def edit(lines: Lines) -> Lines:
        cells = lines[line - 1].split(",")
        cells[column] = value
        return [*lines[: line - 1], ",".join(cells), *lines[line:]]

    return edit


def rows(*added: str) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines, *added]


def both(*edits: Callable[[Lines], Lines]) -> Callable[[Lines], Lines]:
    def edit(lines: Lines) -> Lines:
        for one in edits:
            lines = one(lines)
        return lines

    return edit


def as_bytes(lines: Lines, *, end: str = "\n", encoding: str = "utf-8") -> bytes:
    return "".join(line + end for line in lines).encode(encoding)


FILE_ID, SPLIT, SUBJECT, COUNTRY, AWE, FEAR = 0, 1, 2, 3, 5, 6
ABSENT = [f"[{i:05d}],Train,x,USA,30,0.5,0.5" for i in range(90, 95)]
SPLIT_TYPOS = both(*(cell(line, SPLIT, "trian") for line in (2, 3, 5, 8)))
QUOTED_NEWLINE = both(cell(2, COUNTRY, '"United\nStates"'), cell(4, FEAR, "1.5"))

REFUSED: dict[str, tuple[Callable[[Lines], Lines | bytes], tuple[str, ...]]] = {
    "file missing": (rows(ABSENT[0]), ("line 16 (1 in all)", "00090.wav is not in")),
    "files missing": (rows(*ABSENT), ("lines 16, 17, 18 and 2 more (5 in all)", "00090.wav is not in")),
    "duplicate conflicting": (
        rows("[00002],Train,x,USA,30,0.1,0.2"),
        ("line 16 (1 in all)", "File_ID stands above"),
    ),
    "duplicate written otherwise": (
        rows("00002.wav,Val,x,USA,30,0.1,0.2"),
        ("line 16 (1 in all)", "00002.wav is the file of"),
    ),
    "duplicate in two splits": (
        lambda x: [*x, x[3].replace("Train", "Val")],
        ("line 16 (1 in all)", "File_ID stands above"),
    ),
    "infinity": (cell(5, AWE, "inf"), ("line 5 (1 in all)", "Awe is not a number")),
    "infinity in float32 only": (cell(5, AWE, "1e39"), ("line 5 (1 in all)", "Awe is out of range")),
    "blank in all of Val but one": (
        both(*(cell(line, FEAR, blank) for line, blank in ((10, ""), (11, " "), (12, "NaN")))),
        ("lines 10, 11, 12 (3 in all)", "Fear is blank: 1 of 4 clips of Val"),
    ),
    "above 1": (
        both(cell(3, AWE, "1.01"), cell(9, AWE, "7")),
        ("lines 3, 9 (2 in all)", "Awe is out of range", "0 to 1"),
    ),
    "below 0": (cell(12, FEAR, "-0.01"), ("line 12 (1 in all)", "Fear is out of range")),
    "out of range in Test": (cell(14, FEAR, "2"), ("line 14 (1 in all)", "Fear is out of range")),
    "text": (cell(7, FEAR, "high"), ("line 7 (1 in all)", "Fear is not a number", "--targets")),
    "no File_ID": (cell(1, FILE_ID, "Take"), ("line 1 ", "no column File_ID", "has Take, Split")),
    "no Split": (cell(1, SPLIT, "Part"), ("line 1 ", "no column Split", "has File_ID, Part")),
    "column twice": (cell(1, FEAR, "Awe"), ("line 1 ", "column 'Awe' twice")),
    "below a quoted newline": (QUOTED_NEWLINE, ("line 5 (1 in all)", "Fear is out of range")),
    "below a blank line": (
        lambda x: cell(4, FEAR, "9")([x[0], "", *x[1:]]),
        ("line 4 (1 in all)", "Fear is out of range"),
    ),
    "open quote": (cell(15, COUNTRY, '"USA'), ("line 15 ", "unexpected end of data")),
    "empty": (lambda _: b"", ("empty file", "File_ID, Split")),
    "header only": (lambda x: x[:1], ("no rows below the header",)),
    "Latin-1": (
        lambda x: as_bytes(cell(6, COUNTRY, "Réunion")(x), encoding="latin-1"),
        ("line 6 ", "not UTF-8"),
    ),
    "UTF-16, cut": (lambda x: as_bytes(x, encoding="utf-16")[:-1], ("line 15 ", "not UTF-16")),
    "ragged, short": (
        lambda x: [*x[:4], x[4].rsplit(",", 1)[0], *x[5:]],
        ("line 5 (1 in all)", "number of cells", "7 cells"),
    ),
    "ragged, long": (cell(5, COUNTRY, "Korea, South"), ("line 5 (1 in all)", "number of cells", "7 cells")),
    "split unknown": (
        SPLIT_TYPOS,
        ("lines 2, 3, 5 and 1 more (4 in all)", "Split is 'trian'", "Train, Val (dev, valid, ...) or Test"),
    ),
    "path traversal": (
        cell(4, FILE_ID, "[../../etc/passwd]"),
        ("line 4 (1 in all)", "'[../../etc/passwd]'", "below wav/"),
    ),
    "parent alone": (cell(4, FILE_ID, ".."), ("line 4 (1 in all)", "File_ID is '..'")),
    "absolute path": (cell(4, FILE_ID, "/etc/passwd"), ("line 4 (1 in all)", "File_ID is '/etc/passwd'")),
    "File_ID blank": (
        both(cell(4, FILE_ID, ""), cell(6, FILE_ID, "[]")),
        ("lines 4, 6 (2 in all)", "File_ID is ''"),
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_t19_a_faulty_csv_is_refused_in_one_line(fault: str, make_data: MakeData, csv_lines: Lines) -> None:
    edit, parts = REFUSED[fault]
    folder = make_data(edit(csv_lines))
    with pytest.raises(DataError) as caught:
        read_data(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(folder / "data_info.csv"))
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    "accepted",
    [
        lambda x: as_bytes(x, encoding="utf-8-sig"),
        lambda x: as_bytes(x, end="\r\n"),
        lambda x: as_bytes(x, end="\r\n", encoding="utf-8-sig"),
        lambda x: as_bytes(x).rstrip(b"\n"),
        lambda x: as_bytes([*x, "", ""]),
        lambda x: as_bytes([line.replace(",", " , ") for line in x]),
        lambda x: as_bytes([",".join(f'"{value}"' for value in line.split(",")) for line in x]),
    ],
    ids=["BOM", "CRLF", "BOM and CRLF", "no end of line", "blank lines", "spaces", "quotes"],
)
def test_t19_harmless_spellings_are_read_as_the_plain_file(
    accepted: Callable[[Lines], bytes], make_data: MakeData, csv_lines: Lines
) -> None:
    plain = read_data(make_data())
    spelt = read_data(make_data(accepted(csv_lines)))
    assert spelt.warnings == ()
    assert spelt.targets == plain.targets
    for name, split in plain.splits.items():
        assert spelt.splits[name].clips == split.clips
        np.testing.assert_array_equal(spelt.splits[name].ratings, split.ratings)


def test_t19_a_quoted_newline_is_part_of_its_cell(make_data: MakeData, csv_lines: Lines) -> None:
    data = read_data(make_data(cell(2, COUNTRY, '"United\nStates"')(csv_lines)))
    assert data.splits["Train"].clips[0].country == "United\nStates"
    assert [clip.line for clip in data.splits["Train"].clips] == [
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        10,
    ]  # a row's last line


def test_t19_a_row_that_stands_twice_is_taken_once_with_a_warning(
    make_data: MakeData, csv_lines: Lines
) -> None:
    data = read_data(make_data([*csv_lines, csv_lines[2], csv_lines[2], csv_lines[9]]))
    assert [len(split.clips) for split in data.splits.values()] == [8, 4, 2]
    assert data.warnings == ("data_info.csv: 3 repeated rows, taken once (first: line 16)",)


def test_t19_files_without_a_row_are_ignored_with_a_warning(make_data: MakeData, csv_lines: Lines) -> None:
    data = read_data(make_data(csv_lines[:-2]))
    assert data.warnings == ("wav/: 2 files without a row in the CSV, ignored (first: 00012.wav)",)


def test_t19_train_refuses_the_csv_before_anything_is_made(
    rrtn: Rrtn, make_data: MakeData, csv_lines: Lines, tmp_path: Path
) -> None:
    folder = make_data(cell(5, AWE, "1.5")(csv_lines))
    for options in (["--dry-run"], ["--epochs", "1"]):
        ended = rrtn("train", "--data", folder, *options, RRTN_CACHE=tmp_path / "cache")
        assert_refused(ended, 2, str(folder), "line 5 (1 in all)", "out of range")
        assert {path.name for path in tmp_path.iterdir()} == {"data"}


# --- T20: a speaker in two splits ---


def test_t20_a_speaker_in_train_and_val_is_warned_of_loudly(
    rrtn: Rrtn, make_data: MakeData, csv_lines: Lines
) -> None:
    folder = make_data(
        both(
            cell(2, SUBJECT, "Anna"),
            cell(11, SUBJECT, "Anna"),
            cell(3, SUBJECT, "Bo"),
            cell(14, SUBJECT, "Bo"),
        )(csv_lines)
    )
    warning = (
        "SPEAKER LEAK: 2 speakers in more than one split (first: Anna): validation figures will be too good"
    )
    assert read_data(folder).warnings == (warning,)
    ended = rrtn("train", "--data", folder, "--dry-run", "--json")
    assert ended.code == 0
    assert ended.err.count(warning) == 1
    assert warning in json.loads(ended.out)["notes"]


# --- T16, T17, T18: audio and labels that arithmetic does not like ---


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_t16_audio_that_is_not_finite_is_refused_and_named(
    rrtn: Rrtn, make_data: MakeData, tmp_path: Path, poison: float
) -> None:
    folder = make_data()
    samples = np.full(4800, 0.1, np.float32)
    samples[4000] = poison
    soundfile.write(folder / "wav/00003.wav", samples, 16_000, subtype="FLOAT")
    ended = rrtn(
        "train", "--data", folder, "--batch-size", 4, "--epochs", 1, "--out", "run", "--device", "cpu"
    )
    lines = ended.err.splitlines()
    assert (ended.code, ended.out) == (2, "")
    assert lines[-1].startswith("rrtn: 1 of 8 files cannot be decoded | 00003.wav: non_finite: ")
    assert not (tmp_path / "run/checkpoints").exists()
    assert not (tmp_path / "run/history.jsonl").exists()


@pytest.mark.parametrize("label", [0.0, 0.3, 1.0])
def test_t17_constant_labels_give_a_finite_loss_and_gradient(label: float) -> None:
    ratings = torch.full((8, 2), label)
    scores = torch.rand(8, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = ccc_loss(scores, ratings)
    loss.backward()
    assert loss.item() == pytest.approx(1, abs=1e-5)  # float32: the covariance is 0 within rounding
    assert torch.isfinite(scores.grad).all()


def test_t17_a_target_without_variation_is_noted_and_the_rest_is_trained(
    rrtn: Rrtn, make_data: MakeData, csv_lines: Lines, settings: Path, tmp_path: Path
) -> None:
    """Awe is 0.4 in Train and in Val: its CCC is 0, not NaN."""
    folder = make_data(both(*(cell(line, AWE, "0.4") for line in range(2, 14)))(csv_lines))
    ended = rrtn(
        "train",
        "--data",
        folder,
        "--config",
        settings,
        "--epochs",
        1,
        "--out",
        "run",
        "--device",
        "cpu",
        "--json",
    )
    assert ended.code == 0, ended.err
    assert "note: no variation in Train, so nothing to learn: Awe\n" in ended.err
    assert json.loads(ended.out)["best"]["per_target"]["Awe"] == pytest.approx(0, abs=1e-6)
    weights = load_checkpoint(tmp_path / "run/checkpoints/last", "weights")[1]["weights"]
    assert [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()] == []


@pytest.mark.parametrize("label", [0.0, 0.3, 1.0])
def test_t17_constant_labels_and_equal_scores_give_no_gradient(label: float) -> None:
    scores = torch.full((8, 2), label, requires_grad=True)
    loss = ccc_loss(scores, torch.full((8, 2), label))
    loss.backward()
    assert loss.item() == pytest.approx(1, abs=1e-5)
    assert scores.grad.abs().max() < 1e-6


def test_t18_fewer_clips_than_a_batch_are_refused(rrtn: Rrtn, make_data: MakeData, tmp_path: Path) -> None:
    ended = rrtn("train", "--data", make_data(), "--batch-size", 9)
    assert_refused(ended, 2, "--batch-size | 9 | expected at most 8, the number of training clips")
    assert not (tmp_path / "runs").exists()


def test_t18_a_batch_of_one_is_refused(rrtn: Rrtn, make_data: MakeData) -> None:
    assert_refused(
        rrtn("train", "--data", make_data(), "--batch-size", 1), 2, "--batch-size", "expected at least 2: "
    )


def test_t18_the_incomplete_last_batch_is_dropped(rrtn: Rrtn, make_data: MakeData) -> None:
    """Eight clips in batches of 7: the one that is left would be a batch of 1."""
    ended = rrtn("train", "--data", make_data(), "--batch-size", 7, "--epochs", 5, "--dry-run", "--json")
    assert (ended.code, len(ended.err.splitlines())) == (0, 1)  # the targets
    description = json.loads(ended.out)
    assert (description["steps_per_epoch"], description["steps"]) == (1, 5)


def test_t18_a_batch_of_two_has_finite_losses() -> None:
    """The smallest batch: every embedding is +-1 standard deviation, and a dimension that does not
    vary is 0.
    """
    z_a = torch.tensor([[1.0, 2.0, 5.0], [3.0, -1.0, 5.0]], requires_grad=True)
    z_b = torch.tensor([[0.0, 4.0, 2.0], [1.0, 8.0, 3.0]])
    correlation = cross_correlation(z_a, z_b)
    expected = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(
        correlation, expected, atol=1e-4, rtol=0
    )  # BatchNorm's eps of 1e-5 beside variances of 0.25
    bt_loss(correlation, off_diagonal=0.001).backward()
    assert torch.isfinite(z_a.grad).all()
