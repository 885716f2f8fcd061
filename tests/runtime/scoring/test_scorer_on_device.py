"""The way that a GPU takes, on a device whose memory is the host's: the rows are those of the CPU."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from onnx import TensorProto, helper, numpy_helper
from rrtn.runtime import FrontendSpec, Scorer, load_bundle
from rrtn.runtime.backends.choice import Choice
from rrtn.runtime.backends.device_memory import Device
from rrtn.runtime.backends.ort_backend import ort_backend_on_device
from rrtn.runtime.backends.registry import backend_kind
from rrtn.runtime.bundle import metadata_of
from rrtn.runtime.bundle.onnx_file import sealed
from rrtn.runtime.scoring import scorer as scorer_module

WINDOWS = {"window": 0.3, "hop": 0.1}
MakeScorer = Callable[..., Scorer]


@pytest.fixture
def model(tmp_path: Path, spec: FrontendSpec) -> Path:
    """scores = the mean of the samples, of their squares, and the largest one."""
    nodes = [
        helper.make_node("Mul", ["waveform", "waveform"], ["squares"]),
        helper.make_node("ReduceMean", ["waveform", "axis"], ["mean"], keepdims=1),
        helper.make_node("ReduceMean", ["squares", "axis"], ["power"], keepdims=1),
        helper.make_node("ReduceMax", ["waveform", "axis"], ["peak"], keepdims=1),
        helper.make_node("Concat", ["mean", "power", "peak"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "three",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", spec.clip_samples])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array([1]), "axis")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(proto, metadata_of(("Mean", "Power", "Peak"), spec, "waveform", "fp32"))
    onnx.checker.check_model(proto, full_check=True)
    path = tmp_path / "three.onnx"
    path.write_bytes(sealed(proto.SerializeToString()))
    return path


@pytest.fixture
def make_scorer(model: Path, prompt_device: Device, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeScorer]:
    """-> a scorer whose backend is that of CUDA on the stand-in."""
    bundle = load_bundle(model)
    backend = ort_backend_on_device(bundle, bundle.variants[0], model.read_bytes(), prompt_device)
    made = []

    def choose(*_: Any, before_load: Callable[..., object], **__: Any) -> Choice:
        before_load(backend.variant, backend_kind("cuda").batch_size)
        return Choice(backend, {})

    def make(**options: Any) -> Scorer:
        with monkeypatch.context() as patch:
            patch.setattr(scorer_module, "choose_backend", choose)
            made.append(Scorer(bundle, "cuda", **options))
        assert made[-1].lanes == 2
        return made[-1]

    yield make
    for scorer in made:
        scorer.close()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """20 files of 0.1 to 2 s; one is gone."""
    rng = np.random.default_rng(0)
    found = [tmp_path / f"{i:02}.wav" for i in range(20)]
    for i, path in enumerate(found):
        soundfile.write(path, rng.uniform(-0.5, 0.5, 1_600 * (i + 1)), 16_000)
    found[7].unlink()
    return found


@pytest.mark.parametrize(
    ("batch_size", "options"),
    [
        (1, {}),
        (4, WINDOWS),
        (64, {}),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1, WINDOWS), (4, {}), (64, WINDOWS))),
    ],
)
def test_rows_are_those_of_the_cpu(
    make_scorer: MakeScorer, model: Path, paths: list[Path], batch_size: int, options: dict[str, Any]
) -> None:
    with Scorer(model, "cpu", workers=2, **options) as scorer:
        expected = list(scorer.score_files(paths))
    scorer = make_scorer(batch_size=batch_size, workers=2, **options)
    assert list(scorer.score_files(paths)) == expected
    assert list(scorer.score_files(paths)) == expected


def test_a_batch_that_does_not_fit_is_halved_on_the_device(
    make_scorer: MakeScorer, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(make_scorer(batch_size=7).score_files(paths))
    monkeypatch.setenv("RRTN_FAILPOINT", "model.[4-9]:memory:all")
    scorer = make_scorer(batch_size=7)
    assert list(scorer.score_files(paths)) == expected
    assert scorer.model.batch_that_fits == 3


def test_batches_of_a_server_have_few_sizes(make_scorer: MakeScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device prepares each size anew; the scores are those of each clip."""
    scorer = make_scorer(batch_size=12)
    ran: list[int] = []
    run = scorer.model._run
    monkeypatch.setattr(scorer.model, "_run", lambda batch, size: ran.append(size) or run(batch, size))
    clips = np.random.default_rng(0).uniform(-1, 1, (13, scorer.bundle.spec.clip_samples)).astype(np.float32)
    whole = scorer.model.outputs(clips[:12]).scores
    for count in range(1, 13):
        found = scorer.model.outputs(clips[:count], fixed=False).scores
        np.testing.assert_allclose(found, whole[:count], atol=1e-6)
    assert ran == [12, 1, 2, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12]


def test_memory_of_decoders_is_pinned_as_long_as_they_live(
    make_scorer: MakeScorer, prompt_device: Device, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that dies, too, gives back its place before its memory."""
    pinned: dict[int, int] = prompt_device.calls.pinned  # type: ignore[attr-defined]
    monkeypatch.setenv("RRTN_FAILPOINT", f"read.{os.path.basename(paths[4])}:sigsegv:all")
    scorer = make_scorer(batch_size=4, workers=2)
    rows = list(scorer.score_files(paths))
    assert [row.error for row in rows if row.error] == ["crashed", "missing"]
    assert list(pinned.values()) == [scorer.decoding.slots * 2 * scorer.bundle.spec.clip_samples] * 2
    scorer.close()
    assert not pinned


def test_what_is_left_in_the_middle_leaves_no_work(
    make_scorer: MakeScorer, prompt_device: Device, paths: list[Path]
) -> None:
    """Every batch that was given to the device has been waited for before its memory goes."""
    log: list[str] = prompt_device.calls.log  # type: ignore[attr-defined]
    rows = make_scorer(batch_size=2, workers=2).score_files(paths)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    compute = prompt_device.compute
    assert log.count(f"record on {compute}") == log.count(f"wait for {compute}") > 0


def test_a_server_makes_marks_and_memory_once_for_each_of_its_batch_sizes(
    make_scorer: MakeScorer, prompt_device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size changes with almost every batch, day after day."""
    calls: Any = prompt_device.calls
    scorer = make_scorer(batch_size=4)
    clips = np.zeros((4, scorer.bundle.spec.clip_samples), np.float32)
    made: list[int] = []
    real = calls.event
    monkeypatch.setattr(calls, "event", lambda: made.append(found := real()) or found)
    for count in (1, 2, 4, 1, 2, 4, 1):
        scorer.model.outputs(clips[:count], fixed=False)
    gc.collect()
    assert (len(made), calls.freed) == (3, [])
