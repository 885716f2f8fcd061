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


@pytest.mark.slow
def test_every_section(tmp_path: Path) -> None:
    result = suite(tmp_path, bare=True)

    assert result.returncode == 0, result.stdout + result.stderr
    for name in SECTIONS:
        written = json.loads((tmp_path / f"{name}.json").read_text())
        assert written["skipped"] if name == "folder" else written["complete"] and written["results"], name
        assert written["failed"] == [], name
