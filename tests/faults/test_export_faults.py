"""What `rrtn export` and the loading of its files do when things go wrong: rows E of
docs/reliability.md.

E3, E5 and E11 are where the code is: tests/integration/test_main_job.py,
tests/export/test_graph.py. E15 has no case: TensorRT-RTX has no timing cache.
"""

import contextlib
import ctypes
import errno
import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    helper,
    numpy_helper,
)
from rrtn.cli import main
from rrtn.export import recipes, source
from rrtn.export.bundle_replacement import put_in_place, staged
from rrtn.export.graph import file_from_onnx, onnx_from_network
from rrtn.export.samples_graph import waveform_from_log_mel
from rrtn.runtime import FrontendSpec, Scorer, load_bundle, progress
from rrtn.runtime.backends.choice import backend_from_variant
from rrtn.runtime.backends.engine_stamp import Machine, mismatch, this_machine
from rrtn.runtime.bundle import Bundle, Variant
from rrtn.runtime.bundle.onnx_file import check_onnx, onnx_metadata, sealed
from rrtn.runtime.errors import ModelError
from rrtn.runtime.system import failpoints
from rrtn.train.method import model as train_model
from torch import Tensor, nn

ONE_LINE = "rrtn: "


# --- A child: a copy of this process that may be killed ---


@dataclass(frozen=True)
class Ended:
    code: int  # below 0: the signal that ended it
    stderr: str


class Child:
    """Does one thing in a copy of this process, with everything imported and patched that is so here."""

    def __init__(self, action: Callable[[], object], folder: Path, *, failpoint: str = "") -> None:
        self.stderr = folder / "stderr.txt"
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Python 3.12 warns of threads; those of ONNX Runtime and torch are idle
            self.pid = os.fork()
        if self.pid == 0:
            self._live(action, failpoint)

    def _live(self, action: Callable[[], object], failpoint: str) -> NoReturn:
        code: object = 1
        try:
            os.environ["RRTN_FAILPOINT"] = failpoint
            failpoints._passed = 0
            torch.set_num_threads(1)
            progress._FIRST_LINE_SECONDS = 1e6  # no words of progress between the others
            sys.stdout = sys.stderr = self.stderr.open("w")
            action()
            code = 0
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 1)

    def wait(self) -> Ended:
        _, status = os.waitpid(self.pid, 0)
        return Ended(os.waitstatus_to_exitcode(status), self.stderr.read_text())

    @property
    def is_running(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def exporting(*arguments: object) -> Callable[[], None]:
    """Without the variant `cpu`, which is made where it happens to be faster."""
    return command("export", *arguments, "--no-cpu-variant")


def command(*arguments: object) -> Callable[[], None]:
    """`rrtn ...` as the installed command runs it."""

    def run() -> None:
        sys.argv = ["rrtn", *map(str, arguments)]
        main()

    return run


def assert_refused(ended: Ended, code: int, *parts: str) -> None:
    """One line on stderr with all the parts."""
    assert ended.code == code, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith(ONE_LINE)
    assert [part for part in parts if part not in line] == []


# --- A run of a tiny network, and two bundles of it ---


class TinyEncoder(nn.Module):
    """log_mel [B, 1, T, M] -> [B, 4]: in the place of ResNet18, for the exporter's sake."""

    embedding_size = 4

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(n_mels)
        self.conv = nn.Conv2d(1, 4, kernel_size=(25, n_mels), stride=25)

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.conv(self.bn0(log_mel.transpose(1, 3)).transpose(1, 3)).relu().mean(dim=(2, 3))


@dataclass(frozen=True)
class Workplace:
    folder: Path
    run: Path
    graph: bytes  # what the exporter gave
    old: Path  # a bundle with an engine
    new: Path  # one without, of the same run


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RRTN_CACHE", str(folder / "cache"))
        patch.setattr(train_model, "encoder_from_name", lambda name, *, n_mels: TinyEncoder(n_mels))
        run = folder / "run"
        flags = ("--epochs", 1, "--batch-size", 4, "--device", "cpu", "--out", run)
        trained = Child(command("train", "--data", noise_corpus(folder / "data"), *flags), folder).wait()
        assert trained.code == 0, trained.stderr
        graph = graph_of_a_tiny_network(run)
        patch_exporter(patch, graph, edition="old")
        done = Child(exporting(run, "--out", folder / "old"), folder).wait()
        assert done.code == 0, done.stderr
        add_engine(folder / "old")
        patch_exporter(patch, graph, edition="new")
        done = Child(exporting(run, "--out", folder / "new"), folder).wait()
        assert done.code == 0, done.stderr
        yield Workplace(folder, run, graph, folder / "old", folder / "new")


def noise_corpus(folder: Path) -> Path:
    """Twelve clips of noise with two ratings."""
    (folder / "wav").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["File_ID,Split,Subject_ID,Country_string,Age,Awe,Fear"]
    for i, split in enumerate(["Train"] * 8 + ["Val"] * 4):
        soundfile.write(folder / f"wav/{i:05d}.wav", rng.uniform(-0.5, 0.5, 4800), 16_000)
        lines.append(f"[{i:05d}],{split},{split}_{i // 2},USA,30,{rng.uniform():.3f},{rng.uniform():.3f}")
    (folder / "data_info.csv").write_text("\n".join(lines) + "\n")
    return folder


def graph_of_a_tiny_network(run: Path) -> bytes:
    """Exported once, for seconds; the children take what came."""
    info, config, network = source.best_of_run(run)
    return onnx_from_network(network, config.frontend, tuple(info.labels))


def patch_exporter(patch: pytest.MonkeyPatch, graph: bytes, *, edition: str) -> None:
    """The files of each edition differ, and their scores do not."""

    def onnx_of_edition(*_: object, **__: object) -> bytes:
        return file_from_onnx(onnx.load_from_string(graph), {**onnx_metadata(graph), "edition": edition})

    patch.setattr(recipes, "onnx_from_network", onnx_of_edition)


def add_engine(folder: Path) -> Path:
    """Bytes in an engine's place, listed as one."""
    bundle = load_bundle(folder)
    (folder / "model.engine").write_bytes(b"vtrt and so on")
    engine = replace(
        listed(folder / "model.engine"),
        name="trt",
        kind="engine",
        input="waveform",
        stamp={**STAMP, "targets": [80, 86]},
    )
    return write_manifest(replace(bundle, variants=(*bundle.variants, engine)))


def listed(path: Path) -> Variant:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Variant(
        name="fp32",
        file=path.name,
        kind="onnx",
        input="logmel",
        precision="fp32",
        sha256=digest,
        size=len(content),
    )


def write_manifest(bundle: Bundle) -> Path:
    (bundle.path / "bundle.json").write_text(json.dumps(bundle.manifest()))
    return bundle.path


def content_of(folder: Path) -> dict[str, bytes] | None:
    """What a reader gets: each variant's content by its name; None where there is no bundle.

    Raises where one is not whole.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return None
    bundle = load_bundle(folder)
    return {variant.name: bundle.read(variant) for variant in bundle.variants}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def files_of(bundle: Path) -> set[str]:
    return {"bundle.json", "model.yaml", *(variant.file for variant in load_bundle(bundle).variants)}


def placed(source: Path, out: Path) -> Callable[[], None]:
    """The end of an export: a bundle that is whole takes its place."""

    def run() -> None:
        with staged(out) as staging:
            shutil.copytree(source, staging, dirs_exist_ok=True)
            put_in_place(staging, out)

    return run


# --- E1, E2: killed, or out of space, at every write ---

STEPS = 80  # more than there are
# What is there before, and the distance of the steps: by 3, each of the four places of a write is met.
THERE = pytest.mark.parametrize(
    ("there", "by"),
    [
        pytest.param("nothing", 1, id="nothing"),
        pytest.param("an empty folder", 1, id="an empty folder"),
        pytest.param("a bundle", 3, id="a bundle"),
        pytest.param("a bundle", 1, id="a bundle, at each step", marks=pytest.mark.slow),
    ],
)


@THERE
def test_e1_killed_at_any_step_of_taking_the_place(
    workplace: Workplace, tmp_path: Path, there: str, by: int
) -> None:
    """A reader finds the old bundle or the new one, whole, and never the old one again once the new
    one was there.
    """
    old, new = content_of(workplace.old) if there == "a bundle" else None, content_of(workplace.new)
    out, seen = tmp_path / "work/bundle", []
    for step in range(1, STEPS, by):
        make_place(workplace, out, there)
        ended = Child(placed(workplace.new, out), tmp_path, failpoint=f"*:sigkill:{step}").wait()
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL, ended.stderr
        found = content_of(out)
        assert found in (old, new)
        seen.append("new" if found == new else "old")
        placed(workplace.new, out)()
        assert everything(out) == everything(workplace.new), f"the next export, after a kill at step {step}"
        assert [path.name for path in out.parent.iterdir()] == ["bundle"]
    assert seen == sorted(seen, reverse=True)
    least = 10 // by if there == "a bundle" else 1
    assert min(seen.count("old"), seen.count("new")) >= least


def make_place(workplace: Workplace, out: Path, there: str) -> None:
    shutil.rmtree(out.parent, ignore_errors=True)
    if there == "a bundle":
        shutil.copytree(workplace.old, out)
    elif there == "an empty folder":
        out.mkdir(parents=True)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((1, 6, 11, 12), id="some"),
        pytest.param(tuple(range(1, 13)), id="all", marks=pytest.mark.slow),
    ],
)
def test_e1_killed_at_any_write_of_a_whole_export(
    workplace: Workplace, tmp_path: Path, steps: tuple[int, ...]
) -> None:
    """Before it takes its place, nothing at the final path has changed; the next export also clears
    away what is left.
    """
    out = shutil.copytree(workplace.old, tmp_path / "work/bundle")
    before = everything(out)
    for step in steps:  # of begin, fsync, replace and done of two graphs and bundle.json
        ended = Child(
            exporting(workplace.run, "--out", out), tmp_path, failpoint=f"write.*:sigkill:{step}"
        ).wait()
        assert ended.code == -signal.SIGKILL, ended.stderr
        assert everything(out) == before
    left = [path for path in out.parent.iterdir() if path != out]
    assert len(left) == 1, "each export removes what the one before has left"
    done = Child(exporting(workplace.run, "--out", out), tmp_path).wait()
    assert done.code == 0, done.stderr
    assert content_of(out) == content_of(workplace.new)
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("step", [1, 6, 11])
def test_e2_a_full_disk_leaves_the_old_bundle_and_nothing_else(
    workplace: Workplace, tmp_path: Path, step: int
) -> None:
    out = shutil.copytree(workplace.old, tmp_path / "work/bundle")
    ended = Child(exporting(workplace.run, "--out", out), tmp_path, failpoint=f"write.*:enospc:{step}").wait()
    assert_refused(ended, 4, "No space left on device")
    assert everything(out) == everything(workplace.old)
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


@THERE
def test_e2_a_disk_that_is_full_while_taking_the_place(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str, by: int
) -> None:
    """At any step: a whole bundle, nothing that it does not list, and nothing beside it."""
    old, new = content_of(workplace.old) if there == "a bundle" else None, content_of(workplace.new)
    out = tmp_path / "work/bundle"
    for step in range(1, STEPS, by):
        make_place(workplace, out, there)
        monkeypatch.setenv("RRTN_FAILPOINT", f"write.*:enospc:{step}")
        monkeypatch.setattr(failpoints, "_passed", 0)
        try:
            placed(workplace.new, out)()
        except OSError as error:
            assert error.errno == errno.ENOSPC
        else:
            break
        assert content_of(out) in (old, new)
        assert set(everything(out)) == (files_of(out) if content_of(out) else set())
        assert [path.name for path in out.parent.iterdir()] in (["bundle"], [])
    assert step > (25 if there == "a bundle" else 2)
    assert everything(out) == everything(workplace.new)


def test_e2_a_file_that_may_not_grow_leaves_the_old_bundle(workplace: Workplace, tmp_path: Path) -> None:
    """A real limit of the system, which strikes in the middle of a write."""
    out = shutil.copytree(workplace.old, tmp_path / "work/bundle")

    def export() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        exporting(workplace.run, "--out", out)()

    assert_refused(Child(export, tmp_path).wait(), 4, "File too large")
    assert everything(out) == everything(workplace.old)
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_e2_without_hard_links_files_are_copied(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # what FAT and some network file systems say

    monkeypatch.setattr(os, "link", refuse)
    out = shutil.copytree(workplace.old, tmp_path / "work/bundle")
    placed(workplace.new, out)()
    assert everything(out) == everything(workplace.new)


# --- E4: scores that are not PyTorch's ---


def test_e4_a_graph_that_scores_otherwise_is_not_published_and_the_worst_clip_kept(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def perturbed(*_: object, **__: object) -> bytes:
        model = onnx.load_from_string(workplace.graph)
        weights = next(
            tensor for tensor in model.graph.initializer if list(tensor.dims) == [2]
        )  # the head's bias
        weights.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(weights) + np.float32(0.002), weights.name)
        )
        return file_from_onnx(model, onnx_metadata(workplace.graph))

    monkeypatch.setattr(recipes, "onnx_from_network", perturbed)
    out = shutil.copytree(workplace.old, tmp_path / "work/bundle")
    run = shutil.copytree(workplace.run, tmp_path / "run")
    ended = Child(exporting(run, "--out", out), tmp_path).wait()
    assert_refused(
        ended, 5, "model.onnx | scores differ from PyTorch's by", "the limit is 1.00e-04", "not published"
    )
    with np.load(run / "parity-worst.npz") as worst:
        assert worst["waveform"].shape == (39_840,)
        assert worst["expected"].shape == (2,)
    assert everything(out) == everything(workplace.old)
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_what_would_change_nothing_and_a_repository_of_others_are_refused_before_the_export(
    workplace: Workplace, tmp_path: Path
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    (others / "notes.txt").write_text("mine")
    for flags, code, words in (
        (("--batch-profile", "1,2,4"), 2, "are for engines, and none is made | add --trt"),
        (("--targets", "80"), 2, "are for engines, and none is made | add --trt"),
        (("--trt", "--batch-profile", "8,32,64", "--triton", tmp_path / "t"), 2, "1 as the smallest batch"),
        (("--tune", "--no-cpu-variant"), 2, "--measure-convolutions | given with --no-cpu-variant"),
        (("--triton", others), 5, "choose another --triton"),
    ):
        out = tmp_path / "new"
        ended = Child(command("export", workplace.run, *flags, "--out", out), tmp_path).wait()
        assert (ended.code, out.exists()) == (code, False)
        assert words in ended.stderr
        assert ("--tune is now called --measure-convolutions" in ended.stderr) == ("--tune" in flags)


# --- E6: tensors whose data are elsewhere ---


@pytest.mark.skipif(find_spec("MNN") is None, reason="MNN is not installed")
def test_export_mnn_writes_what_passes_the_gate_and_says_what_is_missing(
    workplace: Workplace, tmp_path: Path
) -> None:
    flags = ("--mnn", "--no-cpu-variant", "--no-waveform", "--json")
    made = Child(command("export", workplace.run, *flags, "--out", tmp_path / "a"), tmp_path).wait()
    assert made.code == 0, made.stderr
    assert json.loads((tmp_path / "a/bundle.json").read_text())["schema"] == 4
    mnn = load_bundle(tmp_path / "a").variant("mnn")
    assert mnn is not None
    assert mnn.passed_gate
    assert (mnn.kind, mnn.stamp and mnn.stamp["labels"]) == ("mnn", ["Awe", "Fear"])

    def without_mnn() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rrtn.export.publish.mnn_missing", lambda: "MNN is not installed")
            command("export", workplace.run, *flags, "--out", tmp_path / "b")()

    skipped = Child(without_mnn, tmp_path).wait()
    assert skipped.code == 0, skipped.stderr
    assert 'MNN is not installed here: pip install \\"mnn>=3.6\\"' in skipped.stderr
    assert load_bundle(tmp_path / "b").variant("mnn") is None


def external(location: str = "hard", **entries: object) -> TensorProto:
    """64 x 3 weights of the tiny model, in another file."""
    tensor = TensorProto(
        name="weights", data_type=TensorProto.FLOAT, dims=[64, 3], data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def with_weights(model: ModelProto, weights: TensorProto) -> bytes:
    model.graph.initializer[0].CopyFrom(weights)
    return bytes(model.SerializeToString())


def in_constant(model: ModelProto, attribute: AttributeProto) -> bytes:
    del model.graph.initializer[0]
    node = NodeProto(op_type="Constant", output=["weights"], attribute=[attribute])
    model.graph.node.insert(0, node)
    return bytes(model.SerializeToString())


def a_tensor(tensor: TensorProto) -> AttributeProto:
    return AttributeProto(name="value", type=AttributeProto.TENSOR, t=tensor)


def indices(tensor: TensorProto) -> SparseTensorProto:
    return SparseTensorProto(indices=tensor, dims=[64, 3])


def in_branch(model: ModelProto, constant: AttributeProto) -> bytes:
    """In the graph of an If in the graph of a Loop."""
    inner = GraphProto(
        name="branch", node=[NodeProto(op_type="Constant", output=["weights"], attribute=[constant])]
    )
    outer = GraphProto(
        name="body", node=[helper.make_node("If", ["yes"], ["weights"], then_branch=inner, else_branch=inner)]
    )
    model.graph.node.insert(0, helper.make_node("Loop", ["", ""], ["weights"], body=outer))
    return bytes(model.SerializeToString())


def in_function(model: ModelProto, attribute: AttributeProto, default: AttributeProto | None = None) -> bytes:
    node = NodeProto(op_type="Constant", output=["y"], attribute=[attribute])
    model.functions.add(
        name="Weights", domain="", node=[node], output=["y"], attribute_proto=[default] if default else []
    )
    return bytes(model.SerializeToString())


def in_training(model: ModelProto, tensor: TensorProto) -> bytes:
    model.training_info.add().algorithm.initializer.add().CopyFrom(tensor)
    return bytes(model.SerializeToString())


def in_sparse(model: ModelProto, tensor: TensorProto) -> bytes:
    model.graph.sparse_initializer.add(values=tensor, dims=[64, 3])
    return bytes(model.SerializeToString())


def with_flag(model: ModelProto, flag: bytes) -> bytes:
    """A tensor without data whose data_location, which is 70 01, is written otherwise."""
    model.graph.initializer[0].CopyFrom(
        TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[64, 3])
    )
    tensor = model.graph.initializer.pop(0).SerializeToString()
    graph = model.graph.SerializeToString() + field(5, tensor + flag)
    model.ClearField("graph")
    return bytes(model.SerializeToString()) + field(7, graph)


def field(number: int, content: bytes) -> bytes:
    """A protobuf field of length-delimited bytes."""
    digits, length = [number << 3 | 2], len(content)
    while length >= 0x80:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*digits, length]) + content


def without_flag(tensor: TensorProto) -> TensorProto:
    tensor.ClearField("data_location")
    return tensor


Edit = Callable[[ModelProto], bytes]
EXTERNAL: dict[str, Edit] = {
    "relative": lambda model: with_weights(model, external("../canary")),
    "absolute": lambda model: with_weights(model, external(str(Path.cwd().parent / "canary"))),
    "symbolic link": lambda model: with_weights(model, external("link")),
    "hard link": lambda model: with_weights(model, external("hard")),
    "sparse file": lambda model: with_weights(model, external("sparse", offset=2**33, length=768)),
    "memory": lambda model: with_weights(model, external("*/_ORT_MEM_ADDR_/*", offset=4096, length=768)),
    "sparse tensor": lambda model: in_sparse(model, external()),
    "attribute": lambda model: in_constant(model, a_tensor(external())),
    "attribute's tensors": lambda model: in_constant(model, AttributeProto(name="v", tensors=[external()])),
    "attribute's sparse tensor": lambda model: in_constant(
        model, AttributeProto(name="v", sparse_tensor=indices(external()))
    ),
    "attribute's sparse tensors": lambda model: in_constant(
        model, AttributeProto(name="v", sparse_tensors=[indices(external())])
    ),
    "attribute's graphs": lambda model: in_constant(
        model, AttributeProto(name="v", graphs=[GraphProto(initializer=[external()])])
    ),
    "branch": lambda model: in_branch(model, a_tensor(external())),
    "function": lambda model: in_function(model, a_tensor(external())),
    "function's default": lambda model: in_function(model, AttributeProto(), default=a_tensor(external())),
    "training": lambda model: in_training(model, external()),
    "no flag": lambda model: with_weights(model, without_flag(external())),
    "flag alone": lambda model: with_flag(model, b"\x70\x01"),
    "flag of 2^32 + 1": lambda model: with_flag(model, b"\x70\x81\x80\x80\x80\x10"),
    "flag twice": lambda model: with_flag(model, b"\x70\x01\x70\x00"),
}  # fmt: skip


@pytest.fixture
def trapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: Callable[[Path], Any]) -> Any:
    """The working directory is a folder with ways out of it, to a file that is watched."""
    canary = tmp_path / "canary"
    canary.write_bytes(bytes(64 * 3 * 4))
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to("../canary")
    (inside / "hard").hardlink_to(canary)
    with (inside / "sparse").open("wb") as file:
        file.truncate(2**34)
    monkeypatch.chdir(inside)
    return watch(canary)


def bundle_of(content: bytes, like: Path) -> Path:
    """In the working directory, with the hash that belongs to it: only what is in the file can be
    its fault.
    """
    Path("model.onnx").write_bytes(content)
    bare = load_bundle(like)
    bundle = Bundle(
        path=Path.cwd(),
        labels=bare.labels,
        spec=bare.spec,
        variants=(listed(Path("model.onnx")),),
        provenance={},
    )
    return write_manifest(bundle)


@pytest.mark.parametrize("where", EXTERNAL)
def test_e6_data_in_another_file_are_refused_and_none_is_opened(
    trapped: Any, tiny_model: Path, where: str
) -> None:
    """In a bundle that lists the file's hash, and as a bare file whose seal is right."""
    content = EXTERNAL[where](onnx.load(tiny_model))
    Path("bare.onnx").write_bytes(sealed(content))
    for model in (bundle_of(content, tiny_model), Path("bare.onnx")):
        with pytest.raises(ModelError, match=r"\.onnx \| tensor 'weights' has its data in another file \| "):
            Scorer(model, "cpu")
    assert not trapped.opened()


def test_e6_onnx_runtime_itself_would_read_the_hard_link(trapped: Any, tiny_model: Path) -> None:
    """The control: the attack is real, and the watch sees it."""
    content = EXTERNAL["hard link"](onnx.load(tiny_model))
    onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert trapped.opened()


def test_e6_a_field_number_that_overflows_hides_nothing(trapped: Any, tiny_model: Path) -> None:
    """Readers in C++ keep 32 bits of a field's tag; bit 32 set makes data_location another field
    only for who keeps all.
    """
    content = with_flag(onnx.load(tiny_model), b"\xf0\x80\x80\x80\x10\x01")
    with pytest.raises(
        ModelError, match=r"model\.onnx \| not ONNX, or cut off: no protobuf field has the number"
    ):
        Scorer(bundle_of(content, tiny_model), "cpu")
    assert not trapped.opened()


def test_e6_the_command_says_so_in_one_line(trapped: Any, tiny_model: Path, tmp_path: Path) -> None:
    bundle_of(EXTERNAL["relative"](onnx.load(tiny_model)), tiny_model)
    soundfile.write("a.wav", np.ones(1000) / 2, 16_000)
    for arguments in (("score", "a.wav", "-m", "."), ("inspect", ".", "--json")):
        ended = Child(command(*arguments), tmp_path).wait()
        if arguments[0] == "score":
            assert_refused(ended, 5, "model.onnx | tensor 'weights' has its data in another file")
        else:
            # where its stdout went, too
            assert "refused: tensor 'weights' has its data in another file" in ended.stderr
    assert not trapped.opened()


def test_e6_onnx_runtimes_own_format_is_not_read(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could say something else than the ONNX that was looked at: a file can be both."""
    sealed_model = tiny_model.read_bytes()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "tiny.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(tiny_model, options, providers=["CPUExecutionProvider"])
    monkeypatch.chdir(tmp_path)
    folder = bundle_of((tmp_path / "tiny.ort").read_bytes(), tiny_model)
    with pytest.raises(ModelError, match="expected a whole ONNX file"):
        Scorer(folder, "cpu")
    description = "rrtn.runtime.bundle.description"
    monkeypatch.setattr(f"{description}.check_onnx", lambda content, name: None)
    monkeypatch.setattr(f"{description}.onnx_metadata", lambda content, name: onnx_metadata(sealed_model))
    with pytest.raises(ModelError, match="protobuf parsing failed"):
        Scorer(folder, "cpu")


def test_e6_a_pipe_in_a_models_place_is_not_waited_for(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = bundle_of(tiny_model.read_bytes(), tiny_model)
    Path("model.onnx").unlink()
    os.mkfifo("model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx \| not a regular file"):
        Scorer(folder, "cpu")


def test_e6_an_engine_by_name_only_is_not_given_to_onnx_runtime(trapped: Any, tiny_model: Path) -> None:
    """What lies in an engine is not looked at; so nothing that calls itself one may come to ONNX Runtime."""
    bundle = load_bundle(bundle_of(EXTERNAL["hard link"](onnx.load(tiny_model)), tiny_model))
    write_manifest(renamed := replace(bundle, variants=(replace(bundle.variants[0], kind="engine"),)))
    with pytest.raises(ModelError, match="fp32 is an engine, not an ONNX file"):
        Scorer(bundle.path, "cpu")
    with pytest.raises(ModelError, match=r"model\.onnx \| kind engine \|"):
        backend_from_variant(renamed, renamed.variants[0], "cpu")
    assert not trapped.opened()


# --- E7: a bare file that was changed ---


def test_e7_any_flipped_bit_of_a_bare_file_is_refused(tiny_model: Path) -> None:
    """In the weights, where it may be small, in the labels, in the seal."""
    content = tiny_model.read_bytes()
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        tiny_model.write_bytes(changed)
        with pytest.raises(ModelError, match=r"tiny\.onnx \| "):
            load_bundle(tiny_model)


def test_e7_a_bare_file_cut_anywhere_is_refused(tiny_model: Path) -> None:
    """Also where a field ends and protobuf sees nothing amiss, such as before the seal."""
    content = tiny_model.read_bytes()
    size = len(content)
    for length in (*range(0, size - 700, 7), *range(size - 700, size)):  # most fields are at the end
        tiny_model.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"tiny\.onnx \| "):
            load_bundle(tiny_model)


@pytest.mark.parametrize(
    "content",
    [
        bytes(5000),
        b"",
        b"PK\x03\x04 and so on",
        b"\x89PNG\r\n\x1a\n" + bytes(99),
        b"RIFF$\0\0\0WAVEfmt ",
        b"{}",
        b"\xff" * 99,
    ],
)
def test_e7_a_file_of_another_type_is_refused(tiny_model: Path, content: bytes) -> None:
    tiny_model.write_bytes(content)
    with pytest.raises(ModelError, match=r"tiny\.onnx \| "):
        load_bundle(tiny_model)


def test_e7_a_file_that_another_tool_has_written_again_is_refused(tiny_model: Path) -> None:
    proto = onnx.load(tiny_model)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((64, 3), np.float32), "weights"))
    onnx.save(proto, tiny_model)
    with pytest.raises(
        ModelError, match=r"tiny\.onnx \| sha256 \w+ \| expected the sha256 in the file's seal"
    ):
        load_bundle(tiny_model)


def test_e7_every_file_of_a_real_export_is_sealed_and_scores_bare(
    workplace: Workplace, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 16_000), 16_000)
    scores = [
        row.scores
        for model in (workplace.new, workplace.new / "model.onnx", workplace.new / "model.waveform.onnx")
        for row in Scorer(model, "cpu").score_files([tmp_path / "a.wav"])
    ]
    assert scores[0] == scores[1]
    assert scores[2] == pytest.approx(scores[0], abs=1e-4)


# --- E8: operators that are not ONNX's ---


def with_node(model: ModelProto, op_type: str, domain: str) -> bytes:
    model.opset_import.add(domain=domain, version=1)
    model.graph.node.insert(0, helper.make_node(op_type, ["log_mel"], ["other"], domain=domain))
    return bytes(model.SerializeToString())


def with_opset(model: ModelProto, *versions: int, domain: str = "") -> bytes:
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for version in versions)
    return bytes(model.SerializeToString())


def custom_in_branch(model: ModelProto) -> bytes:
    branch = GraphProto(name="branch", node=[helper.make_node("Foo", [], ["y"], domain="evil")])
    model.graph.node.insert(0, helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch))
    return bytes(model.SerializeToString())


def custom_in_function(model: ModelProto) -> bytes:
    model.functions.add(name="F", domain="", node=[helper.make_node("Foo", [], ["y"], domain="evil")])
    return bytes(model.SerializeToString())


def function_of_opset_99(model: ModelProto) -> bytes:
    model.functions.add(name="F", domain="", opset_import=[helper.make_opsetid("", 99)])
    return bytes(model.SerializeToString())


STRANGE: dict[str, tuple[Edit, str]] = {
    "custom": (lambda model: with_node(model, "Foo", "evil"), "operator 'Foo' of the domain 'evil'"),
    "Microsoft's": (
        lambda model: with_node(model, "Gelu", "com.microsoft"),
        "operator 'Gelu' of the domain 'com.microsoft'",
    ),
    "a known one in another domain": (
        lambda model: with_node(model, "MatMulIntegerToFloat", "evil"),
        "operator 'MatMulIntegerToFloat' of the domain 'evil'",
    ),
    "machine learning": (
        lambda model: with_node(model, "Scaler", "ai.onnx.ml"),
        "operator 'Scaler' of the domain",
    ),
    "in a branch": (custom_in_branch, "operator 'Foo' of the domain 'evil'"),
    "in a function": (custom_in_function, "operator 'Foo' of the domain 'evil'"),
    "names of any kind": (
        lambda model: with_node(model, "a\n| b" + "c" * 999, "evil"),
        r"operator 'a\n| bccc",
    ),
    "too new": (lambda model: with_opset(model, 27), "opset 27, where this rrtn knows 1 to 26"),
    "far too new": (lambda model: with_opset(model, 20, 2**62), "opset 4611686018427387904,"),
    "by its other name": (lambda model: with_opset(model, 99, domain="ai.onnx"), "opset 99,"),
    "too new on second thoughts": (
        lambda model: model.SerializeToString() + field(8, b"\x10\x14\x10\x63"),
        "opset 99,",
    ),
    "too new in a function": (function_of_opset_99, "opset 99,"),
    "0": (lambda model: with_opset(model, 0), "opset 0,"),
    "below 0": (lambda model: with_opset(model, -1), "opset 18446744073709551615,"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_e8_what_is_not_standard_onnx_is_refused_and_named(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    edit, reason = STRANGE[what]
    content = edit(onnx.load(tiny_model))
    Path("bare.onnx").write_bytes(sealed(content))
    for model in (bundle_of(content, tiny_model), Path("bare.onnx")):
        with pytest.raises(ModelError) as caught:
            Scorer(model, "cpu")
        assert f".onnx | {reason}" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


def test_e8_the_command_says_so_in_one_line(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.ones(1000) / 2, 16_000)
    for what in ("custom", "too new"):
        edit, reason = STRANGE[what]
        bundle_of(edit(onnx.load(tiny_model)), tiny_model)
        assert_refused(Child(command("score", "a.wav", "-m", "."), tmp_path).wait(), 5, "model.onnx", reason)


def test_e8_an_operator_that_no_opset_has_is_named_by_onnx_runtime(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"model\.onnx on cpu \| .*Foo"):
        Scorer(bundle_of(with_node(onnx.load(tiny_model), "Foo", ""), tiny_model), "cpu")


def test_e8_a_domain_that_is_imported_and_not_used_does_no_harm(tiny_model: Path) -> None:
    model = onnx.load(tiny_model)
    model.opset_import.add(domain="com.microsoft", version=1)
    check_onnx(model.SerializeToString(), "tiny.onnx")


def test_e8_the_product_of_int8_is_the_one_operator_of_onnx_runtime_that_may_be_there(
    tiny_model: Path,
) -> None:
    check_onnx(with_node(onnx.load(tiny_model), "MatMulIntegerToFloat", "com.microsoft"), "tiny.onnx")


# --- E6, E8: files that nobody has thought of ---


def is_outside(model: ModelProto) -> bool:
    """What must be refused, found by the onnx package's own parser: any tensor or node, wherever it is."""
    waiting: list[Any] = [model]
    while waiting:
        message = waiting.pop()
        if isinstance(message, TensorProto) and (message.data_location or message.external_data):
            return True
        if isinstance(message, NodeProto) and message.domain not in ("", "ai.onnx"):
            known = (message.domain, message.op_type) == ("com.microsoft", "MatMulIntegerToFloat")
            if not known:
                return True
        for descriptor, value in message.ListFields():
            if descriptor.type == descriptor.TYPE_MESSAGE:
                waiting += list(value) if descriptor.is_repeated else [value]
    return False


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Bits flipped, bytes replaced by protobuf's favourites, pieces cut out, doubled or moved."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place, length = rng.integers(len(changed)), int(rng.integers(1, 40))
        piece = changed[place : place + length]
        match rng.integers(5):
            case 0:
                changed[place] ^= 1 << rng.integers(8)
            case 1:
                changed[place] = rng.choice([0x00, 0x01, 0x2A, 0x3A, 0x6A, 0x70, 0x7F, 0x80, 0xFF])
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = piece
            case 4:
                target = rng.integers(len(changed))
                changed[target : target + length] = piece
    return bytes(changed) or b"\0"


@pytest.mark.parametrize("files", [1000, pytest.param(6000, marks=pytest.mark.slow)])
def test_e6_e8_of_mutated_files_what_is_outside_is_refused_and_none_is_more_than_refused(
    workplace: Workplace, tiny_model: Path, files: int
) -> None:
    """Files of many kinds, each parsed or refused in about as many steps as it has bytes; the onnx
    package says of which kind it is.
    """
    rng = np.random.default_rng(0)
    good = [
        tiny_model.read_bytes(),
        workplace.graph,
        waveform_from_log_mel(workplace.graph, FrontendSpec()),
        in_branch(onnx.load(tiny_model), a_tensor(TensorProto())),
    ]
    bad = [
        edit(onnx.load(tiny_model)) for edit in (*EXTERNAL.values(), *(edit for edit, _ in STRANGE.values()))
    ]
    counts = {"refused": 0, "outside": 0, "accepted": 0}
    for number in range(files):
        content = mutated(rng.choice(good if number % 2 else bad), rng)
        with counted_calls() as calls:
            accepted = is_accepted(content)
        assert next(calls) < 5 * len(content) + 500
        counts["accepted" if accepted else "refused"] += 1
        try:
            outside = is_outside(onnx.load_from_string(content))
        except Exception:  # protobuf's parser refuses it, as every runtime will
            continue
        counts["outside"] += outside
        assert not (outside and accepted), content
    assert min(counts.values()) > files / 20, counts


@contextlib.contextmanager
def counted_calls() -> Iterator[Iterator[int]]:
    """-> a counter, at the number of functions that were called and left in the block."""
    calls = itertools.count()
    sys.setprofile(lambda frame, event, argument: next(calls))
    try:
        yield calls
    finally:
        sys.setprofile(None)


def is_accepted(content: bytes) -> bool:
    try:
        check_onnx(content, "mutated.onnx")
        onnx_metadata(content)
    except ModelError as error:
        assert "\n" not in str(error)
        return False
    return True


# --- E9, E10: engines of elsewhere ---

STAMP: dict[str, Any] = {
    "flavour": "tensorrt",
    "version": "10.13.0.35",
    "targets": [90],
    "gpu": "NVIDIA H100",
    "driver": "580.65.06",
    "onnx_sha256": "0" * 64,
    "batch_profile": [1, 32, 256],
}
HERE = Machine(
    versions={"tensorrt": "10.13.0.35", "tensorrt_rtx": "1.7.1.116"},
    capability=90,
    driver="580.65.06",
    gpu="NVIDIA H100",
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"targets": [80, 90]},
        {"flavour": "tensorrt_rtx", "version": "1.7.1.116"},
        {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "gpu": "NVIDIA L4"},
        {"driver": None},
        {"driver": "575.100.99"},
        {"gpu": None},
    ],
)
def test_e9_an_engine_that_fits_has_no_mismatch(changes: dict[str, Any]) -> None:
    assert mismatch({**STAMP, **changes}, HERE) == ""


def test_e9_a_newer_driver_here_is_none() -> None:
    assert mismatch(STAMP, replace(HERE, driver="580.100")) == ""
    assert mismatch(STAMP, replace(HERE, driver=None)) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "10.13.0.34"}, "built by tensorrt 10.13.0.34, here is 10.13.0.35"),
        ({"version": "11.1.0"}, "built by tensorrt 11.1.0, here is 10.13.0.35"),
        ({"flavour": "tensorrt_rtx"}, "built by tensorrt_rtx 10.13.0.35, here is 1.7.1.116"),
        ({"flavour": "tvm"}, "built by tvm 10.13.0.35, which is not installed here"),
        ({"targets": [80, 86]}, "built for SM80, SM86, here is SM90"),
        ({"targets": [9]}, "built for SM9, here is SM90"),
        ({"driver": "580.65.07"}, "built with driver 580.65.07, here is the older 580.65.06"),
        ({"gpu": "NVIDIA H200"}, "built on NVIDIA H200, here is NVIDIA H100"),
        ({"gpu": "NVIDIA H100 MIG 1g.10gb"}, "built on NVIDIA H100 MIG 1g.10gb, here is NVIDIA H100"),
        ({"driver": "1000.1"}, "built with driver 1000.1, here is the older 580.65.06"),
    ],
)
def test_e9_an_engine_of_elsewhere_is_told_why(changes: dict[str, Any], reason: str) -> None:
    assert mismatch({**STAMP, **changes}, HERE) == reason


@pytest.mark.parametrize(
    "stamp", [None, {}, [], "tensorrt", {**STAMP, "targets": []}, {**STAMP, "targets": "90"}]
)
def test_e9_without_a_stamp_nothing_fits(stamp: Any) -> None:
    assert mismatch(stamp, HERE) == "no stamp that says what built it, and for which GPUs"


@pytest.mark.parametrize("name", ["flavour", "version", "targets"])
@pytest.mark.parametrize("value", [None, 5, [], [[]], {}])
def test_e9_a_stamp_of_another_form_fits_nothing(name: str, value: Any) -> None:
    assert mismatch({**STAMP, name: value}, HERE) == "no stamp that says what built it, and for which GPUs"


def test_e9_a_machine_without_a_gpu_or_without_tensorrt() -> None:
    assert mismatch(STAMP, replace(HERE, capability=None)) == "built for SM90, here is no GPU"
    assert (
        mismatch(STAMP, replace(HERE, versions={}))
        == "built by tensorrt 10.13.0.35, which is not installed here"
    )


@pytest.mark.parametrize(
    ("first_line", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
            "535.104.05",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs@x)",
            "580.65.06",
        ),
        ("something else", None),
    ],
)
def test_e9_the_driver_is_read_from_the_kernel(
    first_line: str, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version").write_text(f"{first_line}\nGCC version:  gcc version 12.2.0\n")
    monkeypatch.setattr("rrtn.runtime.backends.engine_stamp._DRIVER", tmp_path / "version")
    assert this_machine().driver == version


def test_e9_inspect_says_why_an_engine_does_not_fit_and_what_to_run(
    workplace: Workplace, tmp_path: Path
) -> None:
    """On a machine with neither that TensorRT nor that GPU: the reason is one of the two."""
    ended = Child(command("inspect", workplace.old, "--json"), tmp_path).wait()
    assert ended.code == 0, ended.stderr
    here = json.loads(ended.stderr)["here"]
    assert here == {
        "fp32": "runs",
        "waveform": "runs",
        "trt": f"{mismatch({**STAMP, 'targets': [80, 86]}, this_machine())}; build it where it "
        "shall run: rrtn export RUN --trt",
    }
    assert here["trt"].startswith("built ")


def test_e10_a_changed_engine_is_refused_by_its_hash(workplace: Workplace, tmp_path: Path) -> None:
    out = shutil.copytree(workplace.old, tmp_path / "bundle")
    bundle = load_bundle(out)
    engine = bundle.variant("trt")
    assert engine is not None
    assert bundle.read(engine) == b"vtrt and so on"
    (out / "model.engine").write_bytes(b"vtrt and so oN")
    changed = hashlib.sha256(b"vtrt and so oN").hexdigest()[:12]
    with pytest.raises(
        ModelError, match=rf"\.engine \| sha256 {changed}, 14 bytes \| .* lists: sha256 {engine.sha256[:12]}"
    ):
        bundle.read(engine)
    ended = Child(command("inspect", out, "--json"), tmp_path).wait()
    assert json.loads(ended.stderr)["here"]["trt"] == f"refused: sha256 {changed}, 14 bytes"
    taken = bundle.variant(json.loads(ended.stderr)["auto"]["variant"])
    assert taken is not None
    assert json.loads(ended.stderr)["auto"]["refused"] == ""
    (out / taken.file).write_bytes(b"")
    ended = Child(command("inspect", out), tmp_path).wait()
    assert "which is refused: sha256 e3b0c44298fc, 0 bytes" in " ".join(ended.stderr.split())


# --- E12: a builder that builds nothing ---


def test_e12_a_builder_that_gives_nothing_gives_no_engine(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT's builder returns None instead of raising, for want of memory among others."""
    flavour = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    monkeypatch.setattr(flavour.Builder, "build_serialized_network", lambda builder, network, config: None)
    out = shutil.copytree(workplace.old, tmp_path / "work/bundle")
    ended = Child(exporting(workplace.run, "--out", out, "--trt"), tmp_path).wait()
    assert ended.code == 5
    assert "tensorrt_rtx | it built no engine and gave no reason" in ended.stderr
    assert set(everything(out)) == {"bundle.json", "model.onnx", "model.waveform.onnx", "model.yaml"}
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
    ended = Child(exporting(workplace.run, "--out", out, "--require", "trt"), tmp_path).wait()
    assert_refused(ended, 5, "tensorrt_rtx | it built no engine and gave no reason", "nothing was published")


# --- E13: what may be replaced ---


def a_file(out: Path) -> None:
    out.write_text("precious")


def a_link(out: Path) -> None:
    (out.parent / "elsewhere").mkdir()
    out.symlink_to("elsewhere")


def a_dangling_link(out: Path) -> None:
    out.symlink_to("nowhere")


def a_folder_of_others(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("precious")


@pytest.mark.parametrize("there", [a_file, a_link, a_dangling_link, a_folder_of_others])
def test_e13_what_is_no_bundle_is_not_replaced(
    workplace: Workplace, tmp_path: Path, there: Callable[[Path], None]
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    there(work / "out")
    before = (everything(work), sorted(work.rglob("*")))
    ended = Child(exporting(workplace.run, "--out", work / "out"), tmp_path).wait()
    assert_refused(ended, 5, f"{work / 'out'} | ", "choose another --out")
    assert (everything(work), sorted(work.rglob("*"))) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, which says that root may write")
def test_e13_a_place_that_only_seems_to_take_files_is_refused(workplace: Workplace, tmp_path: Path) -> None:
    """A lock there is waited for without end."""
    ended = Child(exporting(workplace.run, "--out", "/proc/bundle"), tmp_path).wait()
    assert_refused(ended, 4, "/proc | ", "choose another --out")


@pytest.mark.parametrize("option", ["--triton", "--web"])
def test_e13_one_place_for_two_things_is_refused_before_the_work(
    workplace: Workplace, tmp_path: Path, option: str
) -> None:
    arguments = ("export", workplace.run, "--out", tmp_path / "both", option, tmp_path / "both")
    assert_refused(Child(command(*arguments), tmp_path).wait(), 2, f"{option} {tmp_path / 'both'} | ")
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize(
    "places", [("--web", "one", "--triton", "one/two"), ("--triton", "one", "--out", "one/two/bundle")]
)
def test_e13_one_place_in_another_is_refused_before_the_work(
    workplace: Workplace, tmp_path: Path, places: tuple[str, ...]
) -> None:
    outer, folder, inner, below = places
    arguments = (outer, tmp_path / folder, inner, tmp_path / below)
    refused = f"{tmp_path / below} | is in {outer} {tmp_path / folder}"
    assert_refused(Child(command("export", workplace.run, *arguments), tmp_path).wait(), 2, refused)
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("option", ["--out", "--web", "--triton"])
def test_e13_a_place_that_takes_no_files_is_refused_before_the_work(
    workplace: Workplace, tmp_path: Path, option: str
) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)

    def export() -> None:
        version_3, no_capabilities = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert (
            ctypes.CDLL(None).capset(version_3, no_capabilities) == 0
        )  # with them, root may write everywhere
        exporting(workplace.run, option, tmp_path / "locked/new/bundle")()

    refused = f"{tmp_path / 'locked'} | not writable", f"choose another {option}"
    assert_refused(Child(export, tmp_path).wait(), 4, *refused)
    assert not any((tmp_path / "locked").iterdir())


def test_e13_links_in_a_bundle_are_replaced_and_never_followed_and_other_files_stay(
    workplace: Workplace, tmp_path: Path
) -> None:
    out = shutil.copytree(workplace.old, tmp_path / "work/bundle")
    for name in ("bundle.json", "model.onnx", "model.engine"):
        (out / name).rename(tmp_path / name)
        (out / name).symlink_to(tmp_path / name)
    for name in ("notes.txt", ".notes.tmp", "..spare"):
        (out / name).write_text("precious")
    before = {name: (tmp_path / name).read_bytes() for name in ("bundle.json", "model.onnx", "model.engine")}
    done = Child(exporting(workplace.run, "--out", out), tmp_path).wait()
    assert done.code == 0, done.stderr
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert content_of(out) == content_of(workplace.new)
    assert set(everything(out)) == {
        "bundle.json",
        "model.onnx",
        "model.waveform.onnx",
        "model.yaml",
        "notes.txt",
        ".notes.tmp",
        "..spare",
    }
    assert not any(path.is_symlink() for path in out.iterdir())


def test_e13_a_bundle_that_is_broken_is_replaced(workplace: Workplace, tmp_path: Path) -> None:
    out = shutil.copytree(workplace.old, tmp_path / "work/bundle")
    (out / "bundle.json").write_text("{")
    placed(workplace.new, out)()
    assert content_of(out) == content_of(workplace.new)


# --- E14: two exports to one place ---


@pytest.mark.parametrize("there", ["nothing", "a bundle"])
def test_e14_of_two_exports_at_once_one_wins_whole(workplace: Workplace, tmp_path: Path, there: str) -> None:
    """Two races or more, until each has won."""
    contents = [content_of(workplace.old), content_of(workplace.new)]
    out, winners = tmp_path / "work/bundle", []
    for number in range(30):
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        if there == "a bundle":
            shutil.copytree(workplace.old, out)
        sources = (workplace.old, workplace.new) if number % 2 else (workplace.new, workplace.old)
        children = [Child(placed(source, out), tmp_path) for source in sources]
        assert [child.wait().code for child in children] == [0, 0]
        winners.append(contents.index(content_of(out)))
        assert set(everything(out)) == files_of(out)
        assert [path.name for path in out.parent.iterdir()] == ["bundle"]
        if set(winners) == {0, 1}:
            return
    raise AssertionError(f"bundle {winners[0]} wins always")


@pytest.mark.parametrize("place", ["write.place", "write.replace"])
def test_e14_an_export_waits_for_the_one_that_is_taking_the_place(
    workplace: Workplace, tmp_path: Path, place: str
) -> None:
    """And takes its turn as soon as that one is gone, even killed in the middle."""
    out = shutil.copytree(workplace.old, tmp_path / "work/bundle")
    (tmp_path / "first").mkdir()
    arrived = tmp_path / "arrived"

    def halted() -> None:
        failpoints.time = SimpleNamespace(sleep=lambda seconds: (arrived.touch(), time.sleep(seconds)))
        placed(workplace.new, out)()

    first = Child(halted, tmp_path / "first", failpoint=f"{place}:sleep")
    while not arrived.exists():  # until the tests' own limit of time
        time.sleep(0.01)
    second = Child(placed(workplace.new, out), tmp_path)
    time.sleep(0.3)
    assert second.is_running
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert second.wait().code == 0
    assert everything(out) == everything(workplace.new)
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_e14_an_export_leaves_another_ones_folder_alone(workplace: Workplace, tmp_path: Path) -> None:
    out = tmp_path / "work/bundle"
    with staged(out) as other:
        (other / "model.onnx").write_bytes(b"half")
        assert Child(placed(workplace.new, out), tmp_path).wait().code == 0
        assert (other / "model.onnx").read_bytes() == b"half"
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
