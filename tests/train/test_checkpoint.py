"""Checkpoints: what goes in comes out, and one is whole wherever a save is killed."""

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from rrtn.runtime.errors import ModelError
from rrtn.runtime.files import sha256_of
from rrtn.train.checkpoint import POINTER, CheckpointInfo, load_checkpoint, read_info, save_checkpoint
from torch import Tensor

INFO = CheckpointInfo(
    epoch=1,
    step=10,
    ccc=0.25,
    per_target={"Awe": 0.5, "Fear": 0.0},
    labels=["Awe", "Fear"],
    config={"seed": 3, "optim": {"lr": 0.001}},
    versions={"rrtn": "0.1"},
)


def tensors(epoch: int) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(epoch)
    weights = {
        "head.weight": torch.randn(3, 4, generator=generator),
        "bn.num_batches_tracked": torch.tensor(epoch),
        "conv": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
    }
    return {"weights": weights, "optimizer": {"0.step": torch.tensor(7.0 * epoch), "0.exp_avg": torch.randn(3, 4)}}


def save(folder: Path, epoch: int) -> dict[str, dict[str, Tensor]]:
    content = tensors(epoch)
    save_checkpoint(folder, replace(INFO, epoch=epoch), content)
    return content


def edit_pointer(folder: Path, **changes: object) -> None:
    document = json.loads((folder / POINTER).read_text())
    (folder / POINTER).write_text(json.dumps({**document, **changes}))


class TestRoundTrip:
    def test_tensors_come_back_bit_for_bit(self, tmp_path: Path) -> None:
        saved = save(tmp_path, 1)
        info, loaded = load_checkpoint(tmp_path, "weights", "optimizer")
        assert info == INFO
        for kind, content in saved.items():
            assert loaded[kind].keys() == content.keys()
            assert [name for name in content if not torch.equal(loaded[kind][name], content[name])] == []
            assert [name for name in content if loaded[kind][name].dtype != content[name].dtype] == []

    def test_only_what_is_asked_for_is_loaded(self, tmp_path: Path) -> None:
        save(tmp_path, 1)
        (tmp_path / "optimizer-0001.safetensors").unlink()
        assert list(load_checkpoint(tmp_path, "weights")[1]) == ["weights"]

    def test_the_info_can_be_read_without_the_tensors(self, tmp_path: Path) -> None:
        save(tmp_path, 1)
        (tmp_path / "weights-0001.safetensors").unlink()
        assert asdict(read_info(tmp_path)) == asdict(INFO)

    def test_the_pointer_lists_size_and_hash_of_each_file(self, tmp_path: Path) -> None:
        save(tmp_path, 1)
        for entry in json.loads((tmp_path / POINTER).read_text())["files"].values():
            path = tmp_path / entry["file"]
            assert (entry["size"], entry["sha256"]) == (path.stat().st_size, sha256_of(path))

    def test_the_checkpoint_before_is_removed(self, tmp_path: Path) -> None:
        for epoch in (1, 2):
            save(tmp_path, epoch)
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {POINTER, "weights-0002.safetensors", "optimizer-0002.safetensors"}

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
        save_checkpoint(tmp_path, INFO, {"weights": tensors(1)["weights"]})
        with pytest.raises(ModelError, match=r"lists no optimizer \| lists weights \| use checkpoints/last"):
            load_checkpoint(tmp_path, "optimizer")

    @pytest.mark.parametrize("content", [b"", b'{"schema": 1, "epo', b"\xff\xfe", b"[1, 2]", b"null", b"{}"])
    def test_a_pointer_that_is_not_ours(self, tmp_path: Path, content: bytes) -> None:
        save(tmp_path, 1)
        (tmp_path / POINTER).write_bytes(content)
        with pytest.raises(ModelError, match=r"checkpoint\.json \| "):
            read_info(tmp_path)

    def test_a_pointer_of_another_schema(self, tmp_path: Path) -> None:
        save(tmp_path, 1)
        edit_pointer(tmp_path, schema=2)
        with pytest.raises(ModelError, match=r"schema 2 \| this rrtn reads schema 1 \| update rrtn"):
            load_checkpoint(tmp_path, "weights")

    @pytest.mark.parametrize("lost", ["epoch", "labels", "files"])
    def test_a_pointer_with_a_field_less(self, tmp_path: Path, lost: str) -> None:
        save(tmp_path, 1)
        document = json.loads((tmp_path / POINTER).read_text())
        del document[lost]
        (tmp_path / POINTER).write_text(json.dumps(document))
        with pytest.raises(ModelError, match=rf"no {lost} \| the file was changed"):
            load_checkpoint(tmp_path, "weights")

    def test_weights_that_are_not_finite_numbers_in_the_figures(self, tmp_path: Path) -> None:
        """NaN is no JSON: the pointer is not written, and the one before stays."""
        save(tmp_path, 1)
        with pytest.raises(ValueError, match="not JSON compliant"):
            save_checkpoint(tmp_path, replace(INFO, epoch=2, ccc=float("nan")), tensors(2))
        assert load_checkpoint(tmp_path, "weights", "optimizer")[0].epoch == 1


# Saves epoch 2 over epoch 1 in one forked child for each place where a kill can fall; argv: a folder with epoch 1.
KILLER = """
import os, shutil, sys
from pathlib import Path

import torch

sys.path.insert(0, sys.argv[2])
from test_checkpoint import save

torch.set_num_threads(1)
base = Path(sys.argv[1])

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

place, status = 0, 9
while status == 9:
    place += 1
    folder = base.with_name(f"killed-{place}")
    shutil.copytree(base, folder)
    if not (child := os.fork()):
        killed_at(place)
        save(folder, 2)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert status == 0, status
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folder after a kill before each fsync, rename and removal of a save, in their order."""
    base = tmp_path_factory.mktemp("kills") / "base"
    save(base, 1)
    command = [sys.executable, "-c", KILLER, str(base), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    folders = sorted(base.parent.glob("killed-*"), key=lambda path: int(path.name.split("-")[1]))
    return folders[:-1]  # the last one ran to its end


def test_every_place_was_hit(killed: list[Path]) -> None:
    """Three files, each with two fsyncs, a rename and the removal of its temporary name; two old files removed."""
    assert len(killed) == 3 * 4 + 2


def test_a_killed_save_leaves_the_checkpoint_before_or_the_new_one_whole(killed: list[Path]) -> None:
    epochs = []
    for folder in killed:
        info, loaded = load_checkpoint(folder, "weights", "optimizer")
        assert torch.equal(loaded["weights"]["head.weight"], tensors(info.epoch)["weights"]["head.weight"])
        assert loaded["optimizer"]["0.step"] == 7 * info.epoch
        epochs.append(info.epoch)
    assert epochs == [1] * 10 + [2] * 4  # the pointer is the third file: it is there after its rename


def test_the_next_save_clears_away_what_the_kill_left(killed: list[Path], tmp_path: Path) -> None:
    assert any(path.suffix == ".tmp" for folder in killed for path in folder.iterdir())
    for folder in killed:
        again = shutil.copytree(folder, tmp_path / folder.name)
        save(again, 2)
        assert load_checkpoint(again, "weights", "optimizer")[0].epoch == 2
        names = {path.name for path in again.iterdir()}
        assert names == {POINTER, "weights-0002.safetensors", "optimizer-0002.safetensors"}
