"""A backend is one record: whoever adds one finds it everywhere, and help texts load no runtime."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rrtn.runtime import Scorer, load_bundle
from rrtn.runtime.backends.base import Backend, Diagnosis
from rrtn.runtime.backends.choice import backend_from_variant, candidates_of_variants, choose_backend
from rrtn.runtime.backends.cpu import CPU
from rrtn.runtime.backends.ort_backend import ort_backend_from_bundle
from rrtn.runtime.backends.registry import BACKENDS, backend_names, for_each_backend
from rrtn.runtime.bench import measured
from rrtn.runtime.bundle import Bundle, Variant
from rrtn.runtime.doctor import examine
from rrtn.runtime.errors import ConfigError, UnavailableError
from rrtn.runtime.spec import FrontendSpec


def load_fake(bundle: Bundle, variant: Variant, threads: int | None) -> Backend:
    """A real session of ONNX Runtime under another name."""
    return replace(ort_backend_from_bundle(bundle, variant, device="cpu", threads=threads), device="fake")


FAKE = replace(
    CPU,
    name="fake",
    preferred=("fp32",),
    batch_size=5,
    bench_batches=(2, 3),
    wanted="a fake",
    export_flags=None,
    fix="make one",
    load=load_fake,
    diagnose=lambda: Diagnosis("note", "not a real one"),
)


@pytest.fixture
def fake() -> Iterator[None]:
    BACKENDS.insert(0, FAKE)
    yield
    BACKENDS.remove(FAKE)


@pytest.mark.usefixtures("fake")
def test_a_new_backend_is_chosen_by_its_name_and_scores(tiny_model: Path, spec: FrontendSpec) -> None:
    scorer, cpu = Scorer(tiny_model, "fake"), Scorer(tiny_model, "cpu")
    assert (scorer.backend.device, scorer.batch_size) == ("fake", 5)
    clip = np.random.default_rng(0).uniform(-1, 1, spec.clip_samples)
    rate = spec.sampling_rate
    assert scorer.score_waveform(clip, rate) == cpu.score_waveform(clip, rate)


@pytest.mark.usefixtures("fake")
def test_auto_takes_it_since_it_is_the_first(tiny_model: Path) -> None:
    assert choose_backend(load_bundle(tiny_model)).backend.device == "fake"


@pytest.mark.parametrize(("parallel", "lanes"), [(True, 4), (False, 2)])
def test_its_record_says_how_many_batches_run_at_once(parallel: bool, lanes: int, tiny_model: Path) -> None:
    record = replace(FAKE, parallel=parallel)
    BACKENDS.insert(0, record)
    try:
        assert Scorer(tiny_model, lanes=4).lanes == lanes
    finally:
        BACKENDS.remove(record)


def test_where_it_cannot_run_auto_goes_on_and_its_record_says_what_to_do(tiny_model: Path) -> None:
    record = replace(FAKE, obstacle=lambda variant: f"no fake for {variant.name} here")
    BACKENDS.insert(0, record)
    try:
        choice = choose_backend(load_bundle(tiny_model))
        assert choice.backend.device == "cpu"
        assert choice.passed_over["fake"] == "no fake for fp32 here"
        with pytest.raises(UnavailableError) as caught:
            choose_backend(load_bundle(tiny_model), "fake")
        assert str(caught.value) == (
            "--backend fake | no fake for fp32 here | expected a fake | make one, or see: rrtn doctor"
        )
    finally:
        BACKENDS.remove(record)


@pytest.mark.usefixtures("fake")
def test_bench_measures_its_batch_sizes_and_then_what_scoring_does(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rrtn.runtime.bench.usable_cpus", lambda: 2)
    bundle = load_bundle(tiny_model)
    (candidate,) = (one for one in candidates_of_variants(bundle)[0] if one.device == "fake")
    found = [
        (result.device, result.batch, result.at_once) for result in measured(bundle, candidate, seconds=0.01)
    ]
    assert found == [("fake", 2, 1), ("fake", 3, 1), ("fake", 5, 2)]


@pytest.mark.usefixtures("fake")
def test_the_doctor_reports_it() -> None:
    (finding,) = (finding for finding in examine() if finding.subject == "score --backend fake")
    assert (finding.state, finding.detail) == ("note", "not a real one")


@pytest.mark.usefixtures("fake")
def test_errors_and_texts_name_it(tiny_model: Path) -> None:
    assert backend_names() == "auto, fake, trt, cuda, cpu, openvino, openvino-bf16 or mnn"
    sizes = for_each_backend(lambda kind: str(kind.batch_size))
    assert sizes == "5 for fake, 256 for trt and cuda, 16 for cpu, openvino and openvino-bf16, 8 for mnn"
    bundle = load_bundle(tiny_model)
    with pytest.raises(
        ConfigError,
        match=r"--backend \| 'gpu' \| expected auto, fake, trt, cuda, cpu, openvino, openvino-bf16 or mnn",
    ):
        choose_backend(bundle, "gpu")
    with pytest.raises(ConfigError, match="--backend"):
        backend_from_variant(bundle, bundle.variants[0], "gpu")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.replace("\u2502", " ").split())


def test_the_help_names_it() -> None:
    """Before the commands are imported: their texts are made then."""
    help_of = """
import os, sys
from dataclasses import replace
from rrtn.runtime.backends.cpu import CPU
from rrtn.runtime.backends.registry import BACKENDS
BACKENDS.insert(0, replace(CPU, name="fake", batch_size=5, bench_batches=(2, 3)))
os.environ["COLUMNS"] = "200"
from rrtn.cli import main
sys.argv = ["rrtn", "{}", "--help"]
main()
"""
    text = run(help_of.format("score"))
    assert "auto, fake, trt, cuda, cpu, openvino, openvino-bf16 or mnn." in text
    assert "5 for fake, 256 for trt and cuda, 16 for cpu, openvino and openvino-bf16, 8 for mnn." in text
    assert (
        "2,3 for fake, 1,32,256 for trt and cuda, 1,4,16 for cpu, openvino and openvino-bf16, 1,4,8 for mnn."
        in run(help_of.format("bench"))
    )


def test_the_records_load_no_runtime() -> None:
    """`rrtn score --help` reads them, and is to be quick."""
    loaded = run("import sys, rrtn.commands.score; print(*sys.modules)").split()
    assert "rrtn.runtime.backends.registry" in loaded
    assert not {"numpy", "onnxruntime", "tensorrt", "openvino", "MNN"} & set(loaded)
