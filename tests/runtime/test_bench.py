"""`rrtn bench`: figures that follow from what was run, and none where there were too few runs."""

import itertools
import json
import resource
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rrtn.runtime import bench as measuring
from rrtn.runtime import load_bundle
from rrtn.runtime.backends.choice import candidates_of_variants
from rrtn.runtime.backends.model_batch import Spent
from rrtn.runtime.bench import (
    LEAST_RUNS,
    Ceiling,
    Effort,
    Measurement,
    ceiling,
    measured,
    preparation,
)
from rrtn.runtime.bench_report import CHART_MARK, bench_document, svg_chart
from rrtn.runtime.bundle import Bundle, metadata_of
from rrtn.runtime.bundle.onnx_file import sealed
from rrtn.runtime.errors import ModelError
from rrtn.runtime.frontend import decibels_behind
from rrtn.runtime.spec import FrontendSpec


@pytest.fixture
def bundle(tiny_model: Path) -> Bundle:
    return replace(load_bundle(tiny_model), provenance={"flops_per_clip": 10**6})


def measurements(
    bundle: Bundle, *batches: int, seconds: float = 0.05, limits: Ceiling | None = None
) -> list[Measurement]:
    candidates, reasons = candidates_of_variants(bundle)
    assert reasons == {}
    return [
        result
        for candidate in candidates
        for result in measured(bundle, candidate, batches=batches, seconds=seconds, limits=limits)
    ]


def test_figures_agree_with_each_other(bundle: Bundle) -> None:
    for result in measurements(bundle, 1, 7):
        assert result.n >= LEAST_RUNS
        assert 0 < result.p50 <= result.p90 <= result.highest
        parts = result.to_device + result.model + result.from_device
        mean = 1e3 * result.batch / result.clips_per_second
        assert 0.01 * mean < parts <= mean  # the rest is what else this machine does
        assert result.gflop_per_second == pytest.approx(result.clips_per_second * 1e6 / 1e9)


def test_by_default_the_last_one_is_what_scoring_does(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "usable_cpus", lambda: 3)
    *alone, scoring = measurements(bundle)
    assert [(result.batch, result.at_once) for result in alone] == [(1, 1), (4, 1), (16, 1)]
    assert (scoring.batch, scoring.at_once) == (16, 3)


def test_a_variant_that_takes_recordings_is_measured_one_by_one(tmp_path: Path, spec: FrontendSpec) -> None:
    """And loads only if its shapes are free where they must be."""
    names, floats = {"scores": [1, 3]}, onnx.TensorProto.FLOAT
    for size in ("N", 39_840):
        graph = onnx.helper.make_graph(
            [
                onnx.helper.make_node("ReduceMean", ["samples"], ["mean"]),
                onnx.helper.make_node("Expand", ["mean", "shape"], ["scores"]),
            ],
            "samples",
            [onnx.helper.make_tensor_value_info("samples", floats, [1, size])],
            [onnx.helper.make_tensor_value_info(name, floats, shape) for name, shape in names.items()],
            [onnx.numpy_helper.from_array(np.array([1, 3]), "shape")],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
        onnx.helper.set_model_props(model, metadata_of(("Awe", "Fear", "Joy"), spec, "samples", "fp32"))
        (tmp_path / "model.onnx").write_bytes(sealed(model.SerializeToString()))
        bundle = load_bundle(tmp_path / "model.onnx")
        if size == "N":
            results = measurements(bundle)
            assert [(result.batch, result.device) for result in results] == [(1, "cpu"), (1, "cpu")]
        else:
            with pytest.raises(ModelError, match=r"expected one input of \[1, any number of samples\]"):
                measurements(bundle)


def test_p99_is_of_enough_runs_or_not_given(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    (result,) = measurements(bundle, 1)
    assert (result.p99 is None) == (result.n < 500)
    monkeypatch.setattr(measuring, "_RUNS_FOR_P99", 5)
    (result,) = measurements(bundle, 1)
    assert result.p99 is not None
    assert result.p90 <= result.p99 <= result.highest


def test_the_roofline_is_the_lower_of_its_two_roofs(bundle: Bundle) -> None:
    """1 MFLOP at 10 TFLOP/s takes a ten millionth of a second; the file's bytes at 10 GB/s take theirs."""
    (arithmetic,) = measurements(bundle, 1, limits=Ceiling(sgemm=1e13, copy=1e18))
    assert arithmetic.share_of_roofline == pytest.approx(arithmetic.clips_per_second / 1e7)
    (memory,) = measurements(bundle, 2, limits=Ceiling(sgemm=1e18, copy=1e10))
    size = bundle.variants[0].size
    assert memory.share_of_roofline == pytest.approx(memory.clips_per_second * size / 2 / 1e10)


def test_n19_a_share_above_the_roofline_is_none(bundle: Bundle) -> None:
    """The ceiling was measured while other programs ran."""
    (result,) = measurements(bundle, 1, limits=Ceiling(sgemm=1e6, copy=1e18))
    assert result.clips_per_second > 1
    assert result.share_of_roofline is None


def test_fast_convolutions_have_no_share_since_flops_count_the_direct_ones(bundle: Bundle) -> None:
    limits = Ceiling(sgemm=1e13, copy=1e18)
    fast = replace(bundle, variants=tuple(replace(one, plan={"conv1": "F(2x2)"}) for one in bundle.variants))
    (direct,), (result,) = (measurements(each, 1, limits=limits) for each in (bundle, fast))
    assert direct.share_of_roofline and direct.gflop_per_second
    assert (result.share_of_roofline, bool(result.gflop_per_second)) == (None, True)


def test_without_a_count_of_flops_nothing_is_claimed(tiny_model: Path) -> None:
    (result,) = measurements(load_bundle(tiny_model), 1, limits=Ceiling(sgemm=1e9, copy=1e9))
    assert (result.gflop_per_second, result.share_of_roofline) == (None, None)


class Uneven:
    """Each thread's first run tells how long all of its runs take; a run spends 1 s in the model."""

    def __init__(self, variant: Any) -> None:
        self.variant, self.device = variant, "cpu"
        self.own, self.threads = threading.local(), itertools.count()

    def run(self, batch: Any, spent: Spent | None = None) -> None:
        if not hasattr(self.own, "number"):
            self.own.number = next(self.threads)
        time.sleep(0.001 + 0.02 * self.own.number)
        if spent:
            spent.add(0.0, 0.0, 1.0, 1.0)


def test_where_the_time_went_is_counted_in_all_threads(bundle: Bundle, spec: FrontendSpec) -> None:
    """They come to unequal numbers of runs."""
    backend: Any = Uneven(bundle.variants[0])
    spent = Spent()
    times = measuring.timed_runs(backend, spec, 1, 2, Effort(seconds=0.1), spent)
    assert spent == Spent(model=len(times))


def test_who_asks_for_no_steps_lets_a_gpu_overlap(bundle: Bundle, spec: FrontendSpec) -> None:
    asked: list[bool] = []

    class Asked(Uneven):
        def run(self, batch: Any, spent: Spent | None = None) -> None:
            asked.append(spent is not None)
            super().run(batch, spent)

    backend: Any = Asked(bundle.variants[0])
    measuring.timed_runs(backend, spec, 1, 1, Effort(seconds=0.05))
    assert asked and not any(asked)


def test_recordings_may_be_shorter_than_a_clip(bundle: Bundle, spec: FrontendSpec) -> None:
    """They differ, as those of a batch do that was chosen out of four: they run as long as the longest."""
    frames: list[int] = []

    class Seen(Uneven):
        def run(self, batch: Any, spent: Spent | None = None) -> None:
            sounds = (batch != np.float32(decibels_behind(spec))).any(axis=(1, 3))
            frames.extend((spec.frames - sounds[:, ::-1].argmax(1)).tolist())

    backend: Any = Seen(bundle.variants[0])
    for sounding, ends in ((1.0, (90, 115)), (5.0, (250, 250)), (None, (250, 250))):
        frames.clear()
        measuring.timed_runs(backend, spec, 8, 1, Effort(seconds=0.02, least_runs=2, sounding=sounding))
        assert (min(frames), max(frames)) == ends
    assert len(set(frames)) == 1


def test_warnings_of_spread_and_transfers() -> None:
    parts = {"to_device": 1.0, "model": 2.0, "from_device": 0.1}
    assert measuring._warnings(parts, 0.05) == []
    assert measuring._warnings(parts, 0.25) == ["times vary by 25%"]
    assert measuring._warnings({**parts, "from_device": 2.1}, 0.0) == ["transfers take longer than the model"]


def test_the_ceilings_are_those_of_a_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_SIDE", 512)
    monkeypatch.setattr(measuring, "_COPY_BYTES", 16 << 20)
    limits = ceiling()
    assert 1e7 < limits.sgemm < 1e15
    assert 1e6 < limits.copy < 1e13


def test_a_full_disk_says_which_file_it_lacks_room_for(spec: FrontendSpec) -> None:
    """libsndfile would say "System error", and no place."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*clip\.wav'"):
            preparation(spec, runs=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_the_chart_is_a_picture_of_the_figures(bundle: Bundle, spec: FrontendSpec) -> None:
    results = measurements(bundle, 1, 4)
    document = bench_document(
        bundle, results, Ceiling(sgemm=1e9, copy=1e9), preparation(spec, runs=2), {"trt": "no <GPU>"}
    )
    assert json.loads(json.dumps(document))["measurements"] == [asdict(result) for result in results]
    assert CHART_MARK.decode() in svg_chart(document)[:400]
    picture = ElementTree.fromstring(svg_chart(document))
    bars = [float(bar.attrib["width"]) for bar in picture if bar.tag.endswith("rect")]
    rates = [result.clips_per_second for result in results]
    assert bars == pytest.approx([420 * rate / max(rates) for rate in rates], abs=0.06)


def test_the_command(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rrtn", "bench", tiny_model, "--batches", "1,2", "--seconds", "0.02"]
    done = subprocess.run(
        [*command, "--chart", tmp_path / "a.svg", "--json"], capture_output=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [row["batch"] for row in json.loads(done.stdout)["measurements"]] == [1, 2]
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    refused = subprocess.run([*command, "--batches", "0"], capture_output=True, cwd=tmp_path, check=False)
    assert (refused.returncode, b"--batches" in refused.stderr) == (2, True)
