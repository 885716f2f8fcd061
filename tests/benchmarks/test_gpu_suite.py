"""The GPU suite on the CPU, from a bare checkout: nothing that its machines lack is there, and no
rrtn is installed.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from faults.small_cnn import SmallCnn
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.backends.choice import choose_backend
from rrtn.runtime.challenge import EMOTIONS
from rrtn.train import plan
from rrtn.train.data.corpus import synthesise
from rrtn.train.data.data_set import read_data
from rrtn.train.method import model

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "benchmarks/gpu_suite.py"
SECTIONS = ("probe", "correct", "step", "paper-run", "table2", "ranks", "infer", "folder")
BARE = f"""
import importlib.machinery, pathlib, runpy, sys
finder, ROOT = importlib.machinery.PathFinder, pathlib.Path({str(ROOT)!r})
found = finder.find_spec
def find_spec(name, path=None, target=None):
    if name in ("soundfile", "soxr", "cffi", "tensorrt", "tensorrt_rtx"):
        return None
    if name not in ("rrtn", "msgspec", "tomli_w"):
        return found(name, path, target)
    home = ROOT if name == "rrtn" else ROOT / "benchmarks/stand_ins"
    specs = (found(name, [folder]) for folder in sys.path)
    return next((spec for spec in specs if spec and pathlib.Path(spec.origin).resolve().parent == home), None)
finder.find_spec = find_spec
sys.path[0] = {str(SUITE.parent)!r}
runpy.run_path({str(SUITE)!r}, run_name="__main__")
"""


def suite(out: Path, *arguments: str, bare: bool = False) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if bare:
        environment.pop("PYTHONPATH", None)
    command = [
        sys.executable,
        *(["-c", BARE] if bare else [str(SUITE)]),
        "--smoke",
        "--out",
        str(out),
        *arguments,
    ]
    return subprocess.run(
        command, cwd=out, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One of benchmarks/, which is no package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(name)


@pytest.mark.slow
def test_a_section_runs_from_a_bare_checkout_and_its_last_line_is_what_it_writes(tmp_path: Path) -> None:
    result = suite(tmp_path, "--section", "step", "folder", bare=True)

    assert result.returncode == 0, result.stderr
    documents = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    (file,) = tmp_path.glob("????-??-??-cpu-step.json")
    written: dict[str, Any] = json.loads(file.read_text())
    assert {**written, "seconds": 0} == {**documents[0], "seconds": 0}
    assert written["complete"] and not written["failed"]
    variants = ("bf16", "bf16 default", "bf16 reduce-overhead", "fp32")
    assert set(written["results"]) == {f"resnet18 {name}" for name in (*variants, "before the network")}
    assert all(0 < written["results"][f"resnet18 {name}"]["share_of_matmul_peak"] < 1.5 for name in variants)
    assert documents[1]["skipped"] == "soundfile and soxr not installed: nothing here could decode"
    assert documents[1]["results"] == {}


def test_the_files_that_are_measured_score_as_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "encoder_from_name", lambda name, *, n_mels: SmallCnn(n_mels))
    gpu_inference = module("gpu_inference", monkeypatch)
    small = gpu_inference.Model("resnet18", 4)
    bundle = gpu_inference.bundle_of_model(small, tmp_path)
    for variant in bundle.variants:
        backend = choose_backend(bundle, "cpu", variant=variant.name).backend
        scores = backend.scores(small.inputs(variant.input))
        differences = np.abs(scores - small.reference)
        if variant.precision == "int8":
            assert differences.mean() < 0.02, variant.name
        else:
            assert differences.max() < small.limits[variant.precision], variant.name


def test_it_loads_from_a_bare_checkout_and_refuses_cuda_without_a_gpu(tmp_path: Path) -> None:
    result = suite(tmp_path, "--section", "step", "--device", "cuda", bare=True)

    assert result.returncode == 2, result.stderr
    assert "torch sees no CUDA GPU" in result.stderr


def test_the_corpus_as_arrays_is_the_corpus_as_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = synthesise(tmp_path / "data", clips=9, speakers=3, workers=1)
    split = (data := read_data(folder)).splits["Train"]

    items = module("gpu_corpus", monkeypatch).items_of_corpus(9, speakers=3, spec=FrontendSpec())

    assert data.targets == EMOTIONS
    for clip, ratings in zip(split.clips, split.ratings, strict=True):
        samples, expected, _ = items[int(clip.file_id.strip("[]")) - 1]
        np.testing.assert_array_equal(samples, read_audio(clip.path, FrontendSpec()).samples)
        np.testing.assert_array_equal(expected, ratings)


def test_a_check_that_is_nan_or_above_its_limit_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_section = module("gpu_section", monkeypatch)
    place = gpu_section.Place(gpu_section.torch.device("cpu"), True, 0.0)
    record = gpu_section.Record("s", place, tmp_path / "s.json")

    for name, value in {"right": 1.0, "above": 1.1, "nan": float("nan")}.items():
        record.check(name, value, 1.0)

    assert record.failed == ["above", "nan"]


def test_what_a_part_raises_ends_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_section = module("gpu_section", monkeypatch)
    place = gpu_section.Place(gpu_section.torch.device("cpu"), True, 0.0)
    record = gpu_section.Record("s", place, tmp_path / "s.json", ended=True)
    with record.part("first"):
        raise RuntimeError("CUDA error: an illegal memory access")
    with record.part("second"):
        record.add("second", ms=1.0)
    with pytest.raises(gpu_section.Skipped), record.part("third"):
        raise gpu_section.Skipped("no soundfile")
    written = json.loads((tmp_path / "s.json").read_text())
    assert (written["failed"], list(written["results"])) == (["first"], ["second"])
    assert "illegal memory access" in written["notes"][0]
    assert written["complete"]
    record.leave_out("fourth")
    assert not record.complete


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GeForce RTX 3090 Ti", "rtx-3090"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
    ],
)
def test_a_result_is_named_by_its_gpu(name: str, slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module("gpu_section", monkeypatch).slug_of_gpu(name) == slug


def record_of(section: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    gpu_section = module("gpu_section", monkeypatch)
    place = gpu_section.Place(gpu_section.torch.device("cpu"), True, float("inf"))
    return place, gpu_section.Record(section, place, folder / "s.json")


def test_a_run_on_the_corpus_in_memory_is_one_of_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in for what reads files: here it shows at once where a data set has changed its form."""
    for place in (model, plan):
        monkeypatch.setattr(place, "encoder_from_name", lambda name, *, n_mels: SmallCnn(n_mels))
    gpu_corpus, gpu_correct = (module(name, monkeypatch) for name in ("gpu_corpus", "gpu_correct"))
    items = gpu_corpus.corpus_of_bursts(4, 4, FrontendSpec(), speakers=(2, 2))
    config = gpu_correct.config_of("resnet18", batch_size=4, device="cpu")
    result = gpu_corpus.trained(config, items, tmp_path / "run")
    assert result.epochs == 1
    assert set(result.best.per_target) == set(EMOTIONS)


def raises(*_: object, **__: object) -> None:
    raise RuntimeError("CUDA error: an illegal instruction was encountered")


INJECTED = {  # module and section -> functions that raise, and how many parts fail by them
    ("gpu_probe", "probe"): (
        {"machine_facts", "convolution", "profile", "captured", "dropout_replayed"},
        7,
    ),
    ("gpu_ranks", "ranks"): ({"run_ranks"}, 2),
    ("gpu_training", "step"): ({"time_step", "parts_of_step"}, 5),
}


@pytest.mark.parametrize(
    ("where", "functions", "count"),
    [(k, *v) for k, v in INJECTED.items()],
    ids=[section for _, section in INJECTED],
)
def test_every_part_of_a_section_may_raise(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[str, str],
    functions: set[str],
    count: int,
) -> None:
    place, record = record_of(where[1], tmp_path, monkeypatch)
    for name in functions:
        monkeypatch.setattr(module(where[0], monkeypatch), name, raises)
    getattr(module(where[0], monkeypatch), f"section_{where[1]}")(place, record)
    assert len(record.failed) == count
    assert all("illegal instruction" in note for note in record.notes)


def test_a_flavour_that_raises_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parity and in timing, each."""
    gpu_inference = module("gpu_inference", monkeypatch)
    place, record = record_of("infer", tmp_path, monkeypatch)
    timed: list[str] = []

    def has_parity(record: Any, model: Any, name: str, *_: object) -> bool:
        return name != "a" or raises()  # type: ignore[return-value]

    def time_flavour(place: Any, record: Any, model: Any, name: str, *_: object) -> None:
        timed.append(name)
        if name == "b":
            raises()

    monkeypatch.setattr(gpu_inference, "Model", lambda *_: None)
    monkeypatch.setattr(
        gpu_inference, "torch_flavours", lambda *_: dict.fromkeys("ab", (None, "logmel", "fp32"))
    )
    monkeypatch.setattr(
        gpu_inference, "runtime_flavours", lambda *_: dict.fromkeys("cd", (None, "logmel", "fp32"))
    )
    monkeypatch.setattr(gpu_inference, "has_parity", has_parity)
    monkeypatch.setattr(gpu_inference, "time_flavour", time_flavour)
    gpu_inference.infer_with(place, record, "resnet18", tmp_path)
    assert timed == ["b", "c", "d"]
    assert record.failed == ["resnet18 a: parity", "resnet18 b: timing"]


@pytest.mark.parametrize("broken", ["check_frontend", "check_losses", "check_epoch"])
def test_a_check_of_correct_that_raises_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    gpu_section, gpu_correct = (module(name, monkeypatch) for name in ("gpu_section", "gpu_correct"))
    parts = (
        *("check_frontend", "check_clips", "check_losses"),
        *("check_gradients", "check_copies", "check_epoch"),
    )
    ran: list[str] = []

    def part(name: str) -> Any:
        def check(*_: object) -> None:
            ran.append(name)
            if name == broken:
                raise RuntimeError("CUDA error: no kernel image is available")

        return check

    for name in parts:
        monkeypatch.setattr(gpu_correct, name, part(name))
    place = gpu_section.Place(gpu_section.torch.device("cpu"), True, 0.0)
    record = gpu_section.Record("correct", place, tmp_path / "s.json")
    gpu_correct.section_correct(place, record)
    assert ran == list(parts)
    assert record.failed == [broken.removeprefix("check_")]


def test_more_graphs_than_dynamo_keeps_are_an_error_and_never_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else ResNet18 at its third batch size would be timed eager under the name `compiled`."""
    gpu_inference = module("gpu_inference", monkeypatch)
    torch = gpu_inference.torch
    twice = torch.compile(lambda x: x * 2, backend="eager", dynamic=False)
    with gpu_inference.recompiling_is_bounded():
        torch.compiler.reset()
        with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
            for size in range(1, 20):
                twice(torch.zeros(size + 1))
    torch.compiler.reset()


@pytest.mark.slow
def test_every_section(tmp_path: Path) -> None:
    result = suite(tmp_path, bare=True)

    assert result.returncode == 0, result.stdout + result.stderr
    for name in SECTIONS:
        (file,) = tmp_path.glob(f"????-??-??-cpu-{name}.json")
        written = json.loads(file.read_text())
        assert written["skipped"] if name == "folder" else written["complete"] and written["results"], name
        assert written["failed"] == [], name
