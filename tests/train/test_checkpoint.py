"""Checkpoints: what goes in comes out, and one is whole wherever a save is killed."""

import errno
import json
import os
import pickle
import shutil
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rrtn.runtime.errors import ConfigError, ModelError, StoppedError
from rrtn.runtime.system.files import sha256_of
from rrtn.train import checkpoint
from rrtn.train.checkpoint import (
    POINTER,
    PREVIOUS,
    CheckpointInfo,
    Saver,
    load_checkpoint,
    read_info,
    save_checkpoint,
)
from torch import Tensor

STEPS = 10  # an epoch


def record(epoch: int) -> dict[str, object]:
    per_target = {"Awe": 0.5 / epoch, "Fear": 0.0}
    return {"epoch": epoch, "step": STEPS * epoch, "val_ccc": 0.25 / epoch, "val_ccc_per_target": per_target}


def info_at(epoch: int) -> CheckpointInfo:
    return CheckpointInfo(
        epoch=epoch,
        step=STEPS * epoch,
        history=[record(i + 1) for i in range(epoch)],
        labels=["Awe", "Fear"],
        config={"seed": 3, "optim": {"lr": 0.001}},
        data_sha256="0123abcd",
        versions={"rrtn": "0.1"},
    )


def tensors(epoch: int) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(epoch)
    weights = {
        "head.weight": torch.randn(3, 4, generator=generator),
        "bn.num_batches_tracked": torch.tensor(epoch),
        "conv": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
    }
    return {
        "weights": weights,
        "optimizer": {"0.step": torch.tensor(7.0 * epoch), "0.exp_avg": torch.randn(3, 4)},
    }


def save(folder: Path, epoch: int, *, keep_previous: bool = False) -> dict[str, dict[str, Tensor]]:
    content = tensors(epoch)
    save_checkpoint(folder, info_at(epoch), content, keep_previous=keep_previous)
    return content


def files_of(*epochs: int) -> set[str]:
    """The tensors of these epochs."""
    return {
        f"{kind}-{STEPS * epoch:08d}-{epoch:04d}.safetensors"
        for epoch in epochs
        for kind in ("weights", "optimizer")
    }


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_whole(folder: Path, pointer: str, epoch: int) -> None:
    info, loaded = load_checkpoint(folder, "weights", "optimizer", pointer=pointer)
    assert info == info_at(epoch)
    assert torch.equal(loaded["weights"]["head.weight"], tensors(epoch)["weights"]["head.weight"])
    assert loaded["optimizer"]["0.step"] == 7 * epoch


def edit_pointer(folder: Path, **changes: object) -> None:
    document = json.loads((folder / POINTER).read_text())
    (folder / POINTER).write_text(json.dumps({**document, **changes}))


class TestRoundTrip:
    def test_tensors_come_back_bit_for_bit(self, tmp_path: Path) -> None:
        saved = save(tmp_path, 1)
        info, loaded = load_checkpoint(tmp_path, "weights", "optimizer")
        assert info == info_at(1)
        for kind, content in saved.items():
            assert loaded[kind].keys() == content.keys()
            assert [name for name in content if not torch.equal(loaded[kind][name], content[name])] == []
            assert [name for name in content if loaded[kind][name].dtype != content[name].dtype] == []

    def test_only_what_is_asked_for_is_loaded(self, tmp_path: Path) -> None:
        save(tmp_path, 1)
        next(tmp_path.glob("optimizer-*")).unlink()
        assert list(load_checkpoint(tmp_path, "weights")[1]) == ["weights"]

    def test_the_info_can_be_read_without_the_tensors(self, tmp_path: Path) -> None:
        save(tmp_path, 1)
        next(tmp_path.glob("weights-*")).unlink()
        assert asdict(read_info(tmp_path)) == asdict(info_at(1))

    def test_the_pointer_lists_size_and_hash_of_each_file(self, tmp_path: Path) -> None:
        save(tmp_path, 1)
        files = json.loads((tmp_path / POINTER).read_text())["files"]
        assert len(files) == 2
        for entry in files.values():
            path = tmp_path / entry["file"]
            assert (entry["size"], entry["sha256"]) == (path.stat().st_size, sha256_of(path))

    def test_the_figures_are_those_of_the_last_epoch_done(self, tmp_path: Path) -> None:
        save(tmp_path, 2)
        assert (read_info(tmp_path).ccc, read_info(tmp_path).per_target) == (
            0.125,
            {"Awe": 0.25, "Fear": 0.0},
        )

    def test_the_checkpoint_before_is_removed(self, tmp_path: Path) -> None:
        for epoch in (1, 2):
            save(tmp_path, epoch)
        assert names_in(tmp_path) == {POINTER, *files_of(2)}

    def test_one_before_is_kept_where_that_is_asked_for(self, tmp_path: Path) -> None:
        save(tmp_path, 1, keep_previous=True)
        assert names_in(tmp_path) == {POINTER, *files_of(1)}
        for epoch in (2, 3):
            save(tmp_path, epoch, keep_previous=True)
            assert names_in(tmp_path) == {POINTER, PREVIOUS, *files_of(epoch - 1, epoch)}
            assert_whole(tmp_path, POINTER, epoch)
            assert_whole(tmp_path, PREVIOUS, epoch - 1)

    def test_one_step_saved_before_and_after_its_validation_is_two_checkpoints(self, tmp_path: Path) -> None:
        """A signal or the clock saves an epoch's last step, then the epoch's end does: the running
        sums are others.
        """
        save_checkpoint(
            tmp_path, replace(info_at(2), epoch=1, history=[record(1)]), tensors(1), keep_previous=True
        )
        save(tmp_path, 2, keep_previous=True)
        assert_whole(tmp_path, POINTER, 2)
        before, loaded = load_checkpoint(tmp_path, "weights", "optimizer", pointer=PREVIOUS)
        assert (before.epoch, before.step, loaded["optimizer"]["0.step"]) == (1, 2 * STEPS, 7)

    def test_no_file_is_a_pickle(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def forbidden(*args: object, **options: object) -> None:
            raise AssertionError("a pickle was made or read")

        for name in ("dump", "dumps", "load", "loads", "Unpickler", "Pickler"):
            monkeypatch.setattr(pickle, name, forbidden)
        save(tmp_path, 1)
        load_checkpoint(tmp_path, "weights", "optimizer")
        for path in tmp_path.glob("*.safetensors"):
            size = int.from_bytes(path.read_bytes()[:8], "little")
            assert json.loads(path.read_bytes()[8 : 8 + size])  # the format: length, JSON, raw numbers


class TestRefusals:
    def test_a_folder_without_a_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"checkpoint\.json \| No such file"):
            read_info(tmp_path)

    def test_tensors_that_it_does_not_have(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, info_at(1), {"weights": tensors(1)["weights"]})
        with pytest.raises(ModelError, match=r"lists no optimizer, only weights \| use checkpoints/last"):
            load_checkpoint(tmp_path, "optimizer")

    @pytest.mark.parametrize("content", [b"", b'{"schema": 2, "epo', b"\xff\xfe", b"[1, 2]", b"null", b"{}"])
    def test_a_pointer_that_is_not_ours(self, tmp_path: Path, content: bytes) -> None:
        save(tmp_path, 1)
        (tmp_path / POINTER).write_bytes(content)
        with pytest.raises(ModelError, match=r"checkpoint\.json \| "):
            read_info(tmp_path)

    @pytest.mark.parametrize(
        ("old", "new"),
        [("0.25", "0.75"), ('"seed": 3', '"seed": 4'), ("0123abcd", "1123abcd"), ("0.1", "0.2")],
    )
    def test_a_pointer_whose_content_was_changed(self, tmp_path: Path, old: str, new: str) -> None:
        save(tmp_path, 1)
        pointer = tmp_path / POINTER
        before = pointer.read_text()
        assert before.count(old) >= 1
        pointer.write_text(before.replace(old, new, 1))
        with pytest.raises(ModelError, match=r"checkpoint\.json \| .* it was changed \| expected "):
            read_info(tmp_path)
        document = json.loads(pointer.read_text())
        del document["digest"]  # as it was written before
        pointer.write_text(json.dumps(document))
        read_info(tmp_path)

    def test_a_pointer_of_another_schema(self, tmp_path: Path) -> None:
        save(tmp_path, 1)
        edit_pointer(tmp_path, schema=1)
        with pytest.raises(
            ModelError,
            match=r"schema 1 \| expected schema 2 or 3, which this rrtn reads \| use the rrtn that wrote it",
        ):
            load_checkpoint(tmp_path, "weights")

    @pytest.mark.parametrize("lost", ["epoch", "history", "data_sha256", "labels", "files"])
    def test_a_pointer_with_a_field_less(self, tmp_path: Path, lost: str) -> None:
        save(tmp_path, 1)
        document = json.loads((tmp_path / POINTER).read_text())
        del document[lost]
        (tmp_path / POINTER).write_text(json.dumps(document))
        with pytest.raises(ModelError, match=rf"missing required field `{lost}`"):
            load_checkpoint(tmp_path, "weights")

    def test_weights_that_are_not_finite_numbers_in_the_figures(self, tmp_path: Path) -> None:
        """NaN is no JSON: the pointer is not written, and the one before stays."""
        save(tmp_path, 1)
        with pytest.raises(ValueError, match="not JSON compliant"):
            save_checkpoint(tmp_path, replace(info_at(2), history=[{"val_ccc": float("nan")}]), tensors(2))
        assert_whole(tmp_path, POINTER, 1)

    @pytest.mark.parametrize(
        ("name", "named"),
        [
            (
                "weights-",
                r"weights-.*\.safetensors \| No space left on device \| expected room for 536 bytes",
            ),
            (
                "optimizer-",
                r"optimizer-.*\.safetensors \| No space left on device \| expected room for 52 bytes",
            ),
            (PREVIOUS, r"No space left on device: .*/previous\.json"),
            (POINTER, r"No space left on device: .*/checkpoint\.json"),
        ],
    )
    def test_a_full_disk_is_named_and_leaves_what_there_was(
        self, name: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save(tmp_path, 1)
        replace_file = Path.replace

        def full(self: Path, target: Path) -> Path:
            if target.name.startswith(name):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return replace_file(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", full)
            with pytest.raises((StoppedError, OSError), match=named):
                save(tmp_path, 2, keep_previous=True)
        assert_whole(tmp_path, POINTER, 1)
        assert not list(tmp_path.glob(".*.tmp"))
        save(tmp_path, 2)
        assert names_in(tmp_path) == {POINTER, *files_of(2)}


class TestSaver:
    def test_jobs_run_one_at_a_time_and_in_order_behind_the_caller(self) -> None:
        log: list[str] = []

        def job(number: int) -> None:
            log.append(f"begin {number}")
            time.sleep(0.02)
            log.append(f"end {number} of {threading.current_thread() is not threading.main_thread()}")

        with Saver() as saver:
            for number in range(3):
                saver.submit(lambda number=number: job(number))
        assert log == [line for i in range(3) for line in (f"begin {i}", f"end {i} of True")]

    def test_the_caller_goes_on_while_one_saves_and_waits_before_the_next(self) -> None:
        gate = threading.Event()
        with Saver() as saver:
            saver.submit(lambda: gate.wait(10) or None)
            assert not gate.is_set()  # it has come back although the job has not ended
            threading.Timer(0.05, gate.set).start()
            saver.submit(lambda: None)
            assert gate.is_set()

    @pytest.mark.parametrize("then", ["submit", "wait", "exit"])
    def test_a_failure_surfaces_at_the_next_call_once(self, then: str) -> None:
        def fail() -> None:
            raise StoppedError("full")

        done: list[int] = []
        with pytest.raises(StoppedError, match="full"), Saver() as saver:
            saver.submit(fail)
            if then == "submit":
                saver.submit(lambda: done.append(1))
            if then == "wait":
                saver.wait()
        assert not done  # nothing is saved behind a failure that nobody has seen
        saver.wait()

    def test_what_stops_the_training_is_not_hidden_by_a_failed_save(self) -> None:
        def fail() -> None:
            raise StoppedError("full")

        with pytest.raises(KeyboardInterrupt), Saver() as saver:
            saver.submit(fail)
            raise KeyboardInterrupt

    def test_an_interrupted_training_waits_for_the_save_that_is_on_its_way(self) -> None:
        saved: list[int] = []
        with pytest.raises(KeyboardInterrupt), Saver() as saver:
            saver.submit(lambda: (time.sleep(0.05), saved.append(1))[1])
            raise KeyboardInterrupt
        assert saved == [1]


# Saves epoch 3 behind the epochs that a folder has, in one forked child for each place where a kill
# can fall; argv: this folder, then the folders with epochs.
KILLER = """
import os, shutil, sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, sys.argv[1])
from test_checkpoint import save

torch.set_num_threads(1)

def killed_at(place):
    calls = 0
    def dying(function):
        def call(*args, **options):
            nonlocal calls
            calls += 1
            if calls == place:
                os._exit(9)
            return function(*args, **options)
        return call
    os.fsync, Path.replace, Path.unlink = dying(os.fsync), dying(Path.replace), dying(Path.unlink)

for base in map(Path, sys.argv[2:]):
    place, status = 0, 9
    while status == 9:
        place += 1
        folder = base.with_name(f"killed-{place}")
        shutil.copytree(base, folder)
        if not (child := os.fork()):
            killed_at(place)
            save(folder, 3, keep_previous=(base / "previous.json").exists())
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status
"""


@pytest.fixture(scope="module")
def kills(server: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[Path]]:
    """The folder after a kill before each fsync, rename and removal of a save, in their order; by
    whether it keeps one.
    """
    bases = [tmp_path_factory.mktemp(name) / "base" for name in ("kills", "kills-keeping")]
    save(bases[0], 2)
    for epoch in (1, 2):
        save(bases[1], epoch, keep_previous=True)
    arguments = ["-c", str(Path(__file__).parent), *map(str, bases)]
    killer = f"import sys; sys.argv = {arguments}\n{KILLER}\nraise SystemExit"
    ended = server.start(cwd=bases[0].parent, before=killer).wait()
    assert ended.code == 0, ended.err
    folders = [
        sorted(base.parent.glob("killed-*"), key=lambda path: int(path.name.split("-")[1])) for base in bases
    ]
    return {False: folders[0][:-1], True: folders[1][:-1]}  # the last one ran to its end


@pytest.fixture
def killed(kills: dict[bool, list[Path]]) -> list[Path]:
    """Kills of a save that keeps none before it."""
    return kills[False]


@pytest.fixture
def killed_keeping(kills: dict[bool, list[Path]]) -> list[Path]:
    """Kills of a save that keeps the one before it, where two lie there."""
    return kills[True]


def test_every_place_was_hit(killed: list[Path], killed_keeping: list[Path]) -> None:
    """Three or four files, each with two fsyncs, a rename and the removal of its temporary name;
    two old files removed.
    """
    assert len(killed) == 3 * 4 + 2
    assert len(killed_keeping) == 4 * 4 + 2


def test_a_killed_save_leaves_the_checkpoint_before_or_the_new_one_whole(killed: list[Path]) -> None:
    epochs = [read_info(folder).epoch for folder in killed]
    for folder, epoch in zip(killed, epochs, strict=True):
        assert_whole(folder, POINTER, epoch)
    assert epochs == [2] * 10 + [3] * 4  # the pointer is the third file: it is there after its rename


def test_a_killed_save_leaves_two_whole_checkpoints_where_it_keeps_one(killed_keeping: list[Path]) -> None:
    """While previous.json is already the current one and the pointer not yet the new one, both name
    the same.
    """
    found = []
    for folder in killed_keeping:
        previous = json.loads((folder / PREVIOUS).read_text())["epoch"]
        found.append((previous, read_info(folder).epoch))
        assert_whole(folder, PREVIOUS, previous)
        assert_whole(folder, POINTER, found[-1][1])
    assert found == [(1, 2)] * 10 + [(2, 2)] * 4 + [(2, 3)] * 4


@pytest.mark.parametrize("keeping", [False, True])
def test_the_next_save_clears_away_what_the_kill_left(
    keeping: bool, killed: list[Path], killed_keeping: list[Path], tmp_path: Path
) -> None:
    folders = killed_keeping if keeping else killed
    assert any(path.suffix == ".tmp" for folder in folders for path in folder.iterdir())
    for folder in folders:
        again = shutil.copytree(folder, tmp_path / folder.name)
        before = read_info(again).epoch
        save(again, 3, keep_previous=keeping)
        assert_whole(again, POINTER, 3)
        kept = {PREVIOUS, *files_of(before)} if keeping else set()
        assert names_in(again) == {POINTER, *files_of(3), *kept}


@pytest.mark.parametrize("reader", ["sha256_of", "load_file"])
def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    """rrtn evaluate, export and report read `best` beside a training, which removes the files before."""
    save(tmp_path, 1)
    real = getattr(checkpoint, reader)

    def read(path: Path) -> Any:
        if path.name.startswith("weights-00000010"):
            save(tmp_path, 2)
        return real(path)

    monkeypatch.setattr(checkpoint, reader, read)
    info, found = load_checkpoint(tmp_path, "weights")
    assert info.epoch == 2
    assert torch.equal(found["weights"]["conv"], tensors(2)["weights"]["conv"])


# N10: links, and files of others


def test_n10_a_link_in_a_checkpoints_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/weights-00000001-0001.safetensors").write_text("precious")
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/last").symlink_to(tmp_path / "precious")
    (tmp_path / "linked").symlink_to(tmp_path / "run")
    for folder in (tmp_path / "run/checkpoints/last", tmp_path / "linked/best"):
        with pytest.raises(ConfigError, match=r"a link \| expected a folder of the run's own"):
            save(folder, 1)
    assert [path.read_text() for path in (tmp_path / "precious").iterdir()] == ["precious"]


def test_n10_only_files_of_checkpoints_are_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    (tmp_path / "sub").mkdir()
    (tmp_path / ".weights.abcd1234.tmp").touch()
    (tmp_path / ".tmpP9E3Kb").touch()  # safetensors was killed
    save(tmp_path, 1)
    save(tmp_path, 2)
    names = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".safetensors")
    assert names == ["checkpoint.json", "sub", "thesis.txt"]
    assert len(list(tmp_path.glob("weights-*"))) == 1


def test_who_may_read_the_weights_is_for_the_umask_to_say(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "other").touch()
    modes = {path.stat().st_mode for path in tmp_path.iterdir() if path.is_file()}
    assert modes == {(tmp_path / "other").stat().st_mode}
