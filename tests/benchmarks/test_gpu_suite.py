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
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.reader import read_audio
from rrtn.train.data.corpus import synthesise
from rrtn.train.data.data_set import read_data

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "benchmarks/gpu_suite.py"
SECTIONS = ("correct", "step", "paper-run", "table2", "infer", "folder")
BARE = f"""
import importlib.machinery, pathlib, runpy, sys
finder, ROOT = importlib.machinery.PathFinder, pathlib.Path({str(ROOT)!r})
found = finder.find_spec
def find_spec(name, path=None, target=None):
    if name in ("soundfile", "soxr", "tensorrt", "tensorrt_rtx"):
        return None
    if name != "rrtn":
        return found(name, path, target)
    specs = (found(name, [folder]) for folder in sys.path)
    return next((spec for spec in specs if spec and pathlib.Path(spec.origin).resolve().parent == ROOT), None)
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
    written: dict[str, Any] = json.loads((tmp_path / "step.json").read_text())
    assert {**written, "seconds": 0} == {**documents[0], "seconds": 0}
    assert written["complete"] and not written["failed"]
    variants = ("bf16", "bf16 default", "bf16 reduce-overhead", "fp32")
    assert set(written["results"]) == {f"resnet18 {name}" for name in (*variants, "before the network")}
    assert all(0 < written["results"][f"resnet18 {name}"]["share_of_matmul_peak"] < 1.5 for name in variants)
    assert documents[1]["skipped"] == "soundfile and soxr not installed: nothing here could decode"
    assert documents[1]["results"] == {}


def test_cuda_without_a_gpu_is_refused(tmp_path: Path) -> None:
    result = suite(tmp_path, "--section", "step", "--device", "cuda")

    assert result.returncode == 2
    assert "torch sees no CUDA GPU" in result.stderr


def test_the_corpus_as_arrays_is_the_corpus_as_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = synthesise(tmp_path / "data", clips=9, speakers=3, workers=1)
    split = (data := read_data(folder)).splits["Train"]

    items = module("gpu_corpus", monkeypatch).items_of_corpus(9, speakers=3, spec=FrontendSpec())

    assert data.targets == module("gpu_corpus", monkeypatch).corpus.TARGETS
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


@pytest.mark.parametrize("broken", ["check_frontend", "check_losses", "check_epoch"])
def test_a_check_of_correct_that_raises_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    gpu_section, gpu_correct = (module(name, monkeypatch) for name in ("gpu_section", "gpu_correct"))
    parts = ("check_frontend", "check_clips", "check_losses", "check_gradients", "check_epoch")
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
        written = json.loads((tmp_path / f"{name}.json").read_text())
        assert written["skipped"] if name == "folder" else written["complete"] and written["results"], name
        assert written["failed"] == [], name
