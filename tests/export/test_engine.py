"""Real engines, built ahead of time by TensorRT-RTX on a machine without a GPU. Running them needs a GPU."""

import hashlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rrtn.export import bundle_parity, engine, publish
from rrtn.export.engine import (
    check_layers,
    check_precision,
    engine_from_onnx,
    installed_flavour,
    layer_types,
    progress_monitor,
)
from rrtn.export.parity import Probe
from rrtn.export.timing_cache import attach_timing_cache, store_timing_cache, timing_cache_file
from rrtn.export.wanted import EngineOptions, Wanted
from rrtn.runtime.backends import trt_backend
from rrtn.runtime.backends.choice import backend_from_variant, obstacle
from rrtn.runtime.backends.cuda_libraries import cuda_missing
from rrtn.runtime.backends.engine_stamp import this_machine
from rrtn.runtime.bundle import Bundle, Variant, metadata_of
from rrtn.runtime.bundle.description import LabelMeaning
from rrtn.runtime.bundle.onnx_file import sealed
from rrtn.runtime.errors import ConfigError, ModelError, UnavailableError
from rrtn.runtime.spec import FrontendSpec

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def test_a_broken_tensorrt_does_not_hide_tensorrt_rtx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its library is gone. On a machine with a GPU it would come first."""
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt/__init__.py").write_text("import ctypes; ctypes.CDLL('libnvinfer.so.11')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(trt_backend, "flavour_of", trt_backend.flavour_of.__wrapped__)  # not what is cached
    assert installed_flavour() == "tensorrt_rtx"
    monkeypatch.setattr(engine, "_is_installed", lambda name: name == "tensorrt")
    assert installed_flavour() == "tensorrt"  # its error says why no engine is built


def test_an_engine_is_built_and_stamped(tiny_model: Path) -> None:
    import tensorrt_rtx

    model = tiny_model.read_bytes()
    plan, stamp = engine_from_onnx(model, "tensorrt_rtx")
    assert plan.startswith(b"vtrt")
    assert stamp.to_dict() == {
        "flavour": "tensorrt_rtx",
        "version": tensorrt_rtx.__version__,
        "targets": EngineOptions().targets,
        "gpu": stamp.gpu,
        "driver": stamp.driver,
        "onnx_sha256": hashlib.sha256(model).hexdigest(),
        "batch_profile": EngineOptions().batch_profile,
        "convolutions": {},
        "labels": ["Awe", "Fear", "Joy"],
        "frontend": FrontendSpec().to_dict(),
    }


def test_the_stamp_of_scores_with_a_meaning_has_it(tiny_model: Path) -> None:
    meaning = LabelMeaning(
        scales={"Awe": (1, 5), "Joy": (-1, 1)}, classes={"Fear": ("no", "yes")}, submitted=()
    )
    model = onnx.load(tiny_model)
    del model.metadata_props[:]
    metadata = metadata_of(("Awe", "Fear", "Joy"), FrontendSpec(), "logmel", "fp32", meaning=meaning)
    helper.set_model_props(model, metadata)
    _, stamp = engine_from_onnx(sealed(model.SerializeToString()), "tensorrt_rtx")
    assert stamp.to_dict()["meaning"] == meaning.to_dict()


def _graph(node: onnx.NodeProto) -> bytes:
    """[batch, 4] through one node."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "scores")
    ]
    graph = helper.make_graph([node], "one node", values[:1], values[1:])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()


@pytest.mark.parametrize(
    "make",
    [lambda: b"not a model", lambda: _graph(helper.make_node("Det", ["x"], ["scores"]))],
    ids=["bytes", "operator"],
)
def test_what_cannot_be_parsed_is_refused_with_the_parsers_words(make: Callable[[], bytes]) -> None:
    with pytest.raises(ModelError, match=r"tensorrt_rtx \| .+"):
        engine_from_onnx(make(), "tensorrt_rtx")


def _convolution(kind: int = TensorProto.FLOAT) -> bytes:
    """[batch, 4, 8, 8] in float32 -> one convolution of the given type -> float32."""
    weights = (
        np.random.default_rng(0)
        .normal(0, 0.1, (4, 4, 3, 3))
        .astype(np.float16 if kind == TensorProto.FLOAT16 else "f4")
    )
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=kind),
        helper.make_node("Conv", ["a", "w"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["b"], ["scores"], to=TensorProto.FLOAT),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4, 8, 8]) for name in ("x", "scores")
    ]
    graph = helper.make_graph(nodes, "conv", values[:1], values[1:], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()


def test_an_engine_says_in_which_precision_it_computes() -> None:
    options = EngineOptions(batch_profile=(1, 2, 4), targets=(86,))
    for kind, precision in ((TensorProto.FLOAT, "fp32"), (TensorProto.FLOAT16, "fp16")):
        _, stamp = engine_from_onnx(_convolution(kind), "tensorrt_rtx", precision=precision, options=options)
        assert stamp.convolutions == {precision: 1}
        assert (stamp.targets, stamp.batch_profile) == ((86,), (1, 2, 4))


@pytest.mark.parametrize(
    ("batches", "profiles"),
    [((1, 2, 4), [(1, 2, 4), (1, 1, 1)]), ((2, 4, 8), [(2, 4, 8)]), ((1, 1, 1), [(1, 1, 1)])],
)
def test_single_clips_have_a_profile_of_their_own(
    batches: tuple[int, int, int], profiles: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT-RTX takes it; the first profile stays the one for batches."""
    made = []
    real = engine._profile
    monkeypatch.setattr(engine, "_profile", lambda *arguments: made.append(arguments[2]) or real(*arguments))
    options = EngineOptions(batch_profile=batches, targets=(86,))
    _, stamp = engine_from_onnx(_convolution(), "tensorrt_rtx", options=options)
    assert (made, stamp.batch_profile) == (profiles, batches)


@pytest.mark.parametrize(
    ("kind", "stated"),
    [(TensorProto.FLOAT, "fp16"), (TensorProto.FLOAT16, "fp32"), (TensorProto.FLOAT, "int8")],
)
def test_an_engine_whose_layers_are_not_in_the_stated_precision_is_refused(kind: int, stated: str) -> None:
    with pytest.raises(ModelError, match=rf"{stated} engine \| convolutions: 1 in fp"):
        engine_from_onnx(_convolution(kind), "tensorrt_rtx", precision=stated)


def test_only_the_first_convolution_of_int8_may_stay_in_float32() -> None:
    check_precision(Counter(fp16=20), "fp16")
    with pytest.raises(ModelError, match="not published"):
        check_precision(Counter(fp16=20, fp32=1), "fp16")
    check_precision(Counter(int8=7, fp32=1), "int8")
    with pytest.raises(ModelError, match="not published"):
        check_precision(Counter(int8=18, fp32=2), "int8")
    with pytest.raises(ModelError, match="not published"):
        check_precision(Counter(int8=7, fp16=1), "int8")
    with pytest.raises(ModelError, match="not published"):
        check_precision(Counter(fp16=1, fp32=20), "fp32")


@pytest.mark.parametrize(
    ("here", "targets", "expected"),
    [
        (121, EngineOptions.targets, (*EngineOptions.targets, 121)),
        (89, EngineOptions.targets, EngineOptions.targets),
        (90, EngineOptions.targets, EngineOptions.targets),  # not a GPU of TensorRT-RTX
        (75, EngineOptions.targets, EngineOptions.targets),
        (None, EngineOptions.targets, EngineOptions.targets),
        (121, (86,), (86,)),
    ],
)
def test_the_default_targets_include_this_machines_gpu(
    here: int | None, targets: tuple[int, ...], expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "compute_capability", lambda: here)
    options = EngineOptions(batch_profile=(1, 1, 1), targets=targets)
    _, stamp = engine_from_onnx(_convolution(), "tensorrt_rtx", options=options)
    assert stamp.targets == expected


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="--batch-profile"):
        EngineOptions(batch_profile=(8, 4, 16))
    with pytest.raises(ConfigError, match=r"--targets \| 71 \| expected some of \d+, "):
        engine_from_onnx(
            _convolution(TensorProto.FLOAT), "tensorrt_rtx", options=EngineOptions(targets=(71,))
        )


def test_targets_that_no_engine_can_have_are_refused_before_the_run_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "installed_flavour", lambda: "tensorrt_rtx")
    with pytest.raises(ConfigError, match=r"--targets \| 71, 72 \| expected some of \d+, "):
        publish.publish(tmp_path, wanted=Wanted(trt=True, engine=EngineOptions(targets=(80, 71, 72))))


# --- The progress of a build, which must not swallow Ctrl-C ---


def test_a_build_says_how_far_it_is() -> None:
    told: list[tuple[float, str]] = []
    plan, _ = engine_from_onnx(
        _convolution(), "tensorrt_rtx", progress=lambda share, phase: told.append((share, phase))
    )
    shares = [share for share, _ in told]
    assert plan.startswith(b"vtrt")
    assert len(told) > 20
    assert len(set(shares)) > 10
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.2
    assert 0.8 < shares[-1] <= 1  # TensorRT does not report the last step
    assert len({phase for _, phase in told}) > 5


def test_the_share_of_nested_phases() -> None:
    """Two halves; the first of them in four steps, the second of these in two."""
    told: list[float] = []
    monitor = progress_monitor(
        SimpleNamespace(IProgressMonitor=Plain), lambda share, phase: told.append(share)
    )
    monitor.phase_start("outer", None, 2)
    monitor.phase_start("inner", "outer", 4)
    assert monitor.step_complete("inner", 0)
    monitor.phase_start("innermost", "inner", 2)
    assert monitor.step_complete("innermost", 0)
    monitor.phase_finish("innermost")
    assert monitor.step_complete("inner", 1)
    monitor.phase_finish("inner")
    assert monitor.step_complete("outer", 0)
    assert told == [1 / 8, 3 / 16, 1 / 4, 1 / 2]


class Plain:
    """In place of a flavour's IProgressMonitor."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_build_and_is_not_lost(number: int) -> None:
    def terminate(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    told: list[float] = []

    def interrupt(share: float, phase: str) -> None:
        told.append(share)
        if len(told) == 5:
            os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
            engine_from_onnx(_convolution(), "tensorrt_rtx", progress=interrupt)
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.type is (KeyboardInterrupt if number == signal.SIGINT else SystemExit)
    assert len(told) <= 6  # it did not build to the end
    assert engine_from_onnx(_convolution(), "tensorrt_rtx")[0].startswith(b"vtrt")


def test_what_goes_wrong_in_the_report_comes_out() -> None:
    def fail(share: float, phase: str) -> None:
        raise BrokenPipeError("the terminal is gone")

    with pytest.raises(BrokenPipeError):
        engine_from_onnx(_convolution(), "tensorrt_rtx", progress=fail)


def test_errors_of_a_second_build_are_its_own() -> None:
    """TensorRT keeps the first logger of a process, so that all builds share one."""
    with pytest.raises(ModelError, match="tensorrt_rtx") as first:
        engine_from_onnx(_graph(helper.make_node("Det", ["x"], ["scores"])), "tensorrt_rtx")
    with pytest.raises(ModelError, match=r"tensorrt_rtx \| .+") as second:
        engine_from_onnx(b"not a model", "tensorrt_rtx")
    assert "Det" in str(first.value)
    assert "Det" not in str(second.value)


# --- E15: TensorRT's timing cache. TensorRT-RTX has none, so that a stand-in takes TensorRT's place ---


class Config:
    """A builder's config that knows timings of its own making only, and of its own GPU."""

    def __init__(self, gpu: bytes = b"H100") -> None:
        self.gpu, self.cache = gpu, SimpleNamespace(content=b"")

    def create_timing_cache(self, content: bytes) -> Any:
        return SimpleNamespace(content=content) if content.startswith(b"timings of ") or not content else None

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        taken = ignore_mismatch or not cache.content or self.gpu in cache.content
        self.cache = cache if taken else self.cache
        return taken

    def get_timing_cache(self) -> Any:
        content = self.cache.content or b"timings of " + self.gpu
        return SimpleNamespace(serialize=lambda: memoryview(content))


@pytest.fixture
def timings(cache: Path) -> Path:
    """A file with timings of an H100."""
    file = timing_cache_file(cache, "10.13.0.35", 90)
    assert attach_timing_cache(Config(), file) == ""  # nothing there is nothing wrong
    assert store_timing_cache(Config(), file) == ""
    return file


def test_timings_are_found_again(timings: Path) -> None:
    config = Config()
    assert attach_timing_cache(config, timings) == ""
    assert config.cache.content == b"timings of H100"


def test_e15_any_flipped_bit_and_any_cut_of_the_timing_cache_is_ignored_and_mended(timings: Path) -> None:
    whole = timings.read_bytes()
    flipped = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    for broken in [*flipped, *(whole[:i] for i in range(len(whole)))]:
        timings.write_bytes(broken)
        config = Config()
        assert attach_timing_cache(config, timings) == f"{timings} was changed or cut; measuring anew"
        assert config.cache.content == b""
        assert store_timing_cache(config, timings) == ""
        assert timings.read_bytes() == whole


@pytest.mark.parametrize("content", [b"timings of L4", b"no timings at all"])
def test_e15_a_timing_cache_of_elsewhere_is_ignored_and_replaced(content: bytes, timings: Path) -> None:
    timings.write_bytes(hashlib.sha256(content).digest() + content)
    config = Config()
    assert "no timings that this TensorRT takes" in attach_timing_cache(config, timings)
    assert config.cache.content == b""
    assert store_timing_cache(config, timings) == ""
    assert timings.read_bytes().endswith(b"timings of H100")


def test_e15_a_timing_cache_that_cannot_be_read_or_written_costs_time_only(timings: Path) -> None:
    timings.unlink()
    timings.mkdir()
    assert "Is a directory; measuring anew" in attach_timing_cache(Config(), timings)
    assert "the next build will measure again" in store_timing_cache(Config(), timings)
    timings.rmdir()
    timings.parent.rmdir()
    timings.parent.write_text("a file where the folder should be")
    assert "the next build will measure again" in store_timing_cache(Config(), timings)


def test_e15_a_real_build_goes_on_with_a_broken_timing_cache(
    timings: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TensorRT-RTX under TensorRT's name: its builder, our file, and timings as the stand-in has them."""
    rtx = engine.flavour_of("tensorrt_rtx")
    stand, note = Config(), f"rrtn: note: {timings} was changed or cut; measuring anew\n"
    monkeypatch.setattr(rtx.module, "__name__", "tensorrt")
    monkeypatch.setattr(rtx.module, "__version__", "10.13.0.35")
    monkeypatch.setattr(engine, "_capability", lambda: 90)
    monkeypatch.setattr(engine, "attach_timing_cache", lambda config, file: attach_timing_cache(stand, file))
    monkeypatch.setattr(engine, "store_timing_cache", lambda config, file: store_timing_cache(stand, file))
    whole = timings.read_bytes()
    timings.write_bytes(whole[:-1])
    for said in (note, ""):
        assert engine_from_onnx(_convolution(), "tensorrt_rtx")[0].startswith(b"vtrt")
        assert capsys.readouterr().err == said
        assert timings.read_bytes() == whole


# --- What an engine says of itself ---


NOT_TOLD = "N/A due to dynamic shapes"


def layer(format: str, **fields: Any) -> dict[str, Any]:
    return {"Name": "l", "LayerType": "x", "Outputs": [{"Format/Datatype": format}], **fields}


def inspection(*layers: object) -> str:
    """As EngineInspector writes it; a text is a layer's format."""
    listed = [layer(one) if isinstance(one, str) else one for one in layers]
    return json.dumps({"Layers": listed, "Bindings": ["waveform", "scores"]})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Half", "fp16"),
        ("Row major linear FP16 format", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Half(64,1:8,16)", "fp16"),
        ("Float", "fp32"),
        ("Row major linear FP32", "fp32"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("BFloat16", "bf16"),
        (NOT_TOLD, "unknown"),
    ],
)
def test_types_as_tensorrt_writes_them(text: str, name: str) -> None:
    assert layer_types(inspection(text, text)) == {name: 2}


def test_weights_tell_a_type_where_shapes_are_dynamic() -> None:
    convolution = layer(NOT_TOLD, LayerType="CaskConvolution", Weights={"Type": "Half", "Count": 9408})
    assert layer_types(inspection(convolution, NOT_TOLD, "Float")) == {"fp16": 1, "unknown": 1, "fp32": 1}


def test_an_engine_that_was_built_in_another_precision_is_refused() -> None:
    """Such as a float32 one where float16 was asked for, which TensorRT 11 makes of the flags of
    TensorRT 10.
    """
    check_layers(layer_types(inspection("Float", "Half")), "fp16")
    check_layers(layer_types(inspection("Float", "Float")), "fp32")
    check_layers(layer_types(inspection("Float", "Int8")), "int8")
    for formats, stated in (
        (["Float"], "fp16"),
        (["Float", "Half", NOT_TOLD], "fp32"),
        (["Float"], "int8"),
        (["Half", "Int8"], "fp16"),
    ):
        with pytest.raises(ModelError, match=rf"{stated} engine \| its layers: 1 in .* \| expected {stated}"):
            check_layers(layer_types(inspection(*formats)), stated)


@pytest.mark.parametrize("stated", ["fp32", "fp16", "int8"])
def test_what_an_engine_does_not_tell_is_no_reason_to_refuse_it(stated: str) -> None:
    """Formats are not told where shapes are dynamic, and a fused region tells those at its borders alone."""
    fused = layer("Float", Name="{ForeignNode[conv1...head]}", LayerType="Myelin")
    for listed in ([NOT_TOLD, NOT_TOLD], ["Float", NOT_TOLD], ["a name only"], [], [fused]):
        names_only = json.dumps({"Layers": ["conv1 + relu", "head"]})
        for text in (inspection(*listed), names_only):
            check_layers(layer_types(text), stated)


class Inspected:
    """An engine for batches of 1 to 256, its context and its inspector: types are told for a known batch."""

    num_io_tensors = 2
    execution_context: Any = None

    def __init__(self, trt: Any, has_context: bool = True) -> None:
        self.trt, self.has_context, self.shape = trt, has_context, (-1, 40)

    def get_tensor_name(self, i: int) -> str:
        return ("scores", "waveform")[i]

    def get_tensor_mode(self, name: str) -> Any:
        return self.trt.TensorIOMode.INPUT if name == "waveform" else self.trt.TensorIOMode.OUTPUT

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("waveform", 0)
        return [(batch, 40) for batch in (1, 32, 256)]

    def create_engine_inspector(self) -> "Inspected":
        return self

    def create_execution_context(self, strategy: Any) -> "Inspected | None":
        assert strategy == self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        return self if self.has_context else None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "waveform"
        self.shape = shape
        return True

    def get_engine_information(self, form: Any) -> str:
        assert form == self.trt.LayerInformationFormat.JSON
        known = self.execution_context is not None and self.shape == (32, 40)
        return inspection("Half" if known else NOT_TOLD)


def test_an_engine_is_asked_for_its_types_at_the_batch_that_it_is_tuned_for() -> None:
    import tensorrt_rtx

    assert layer_types(engine._inspection(Inspected(tensorrt_rtx), tensorrt_rtx)) == {"fp16": 1}
    without_context = Inspected(tensorrt_rtx, has_context=False)
    assert layer_types(engine._inspection(without_context, tensorrt_rtx)) == {"unknown": 1}


# --- The gate, where an engine fits this machine ---


def first_samples(clips: Any) -> Any:
    return 1 / (1 + np.exp(-4 * np.asarray(clips)[:, :3]))


@pytest.fixture
def probe() -> Probe:
    rng = np.random.default_rng(0)
    clips = rng.uniform(-1, 1, (36, 40)).astype(np.float32)
    ratings = np.clip(first_samples(clips)[:32] + rng.normal(0, 0.05, (32, 3)), 0, 1)
    speakers = tuple(f"s{i % 4}" for i in range(32))
    return Probe(clips=clips, reference=first_samples(clips), ratings=ratings, speakers=speakers)


@pytest.fixture
def with_engine(tmp_path: Path) -> Bundle:
    variant = Variant(
        name="trt",
        file="model.engine",
        kind="engine",
        input="waveform",
        precision="fp32",
        sha256="",
        size=0,
        stamp={},
    )
    return Bundle(
        path=tmp_path, labels=("a", "b", "c"), spec=FrontendSpec(), variants=(variant,), provenance={}
    )


def loads(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, scores: Callable[[Any], Any]) -> None:
    """As if the engine fitted, and computed `scores`."""
    backend = SimpleNamespace(variant=bundle.variants[0], scores=scores)
    monkeypatch.setattr(publish, "obstacle", lambda *facts: "")
    for module in (publish, bundle_parity):
        monkeypatch.setattr(module, "backend_from_variant", lambda bundle, variant, device: backend)


def test_an_engine_that_fits_passes_the_gate_with_its_figures(
    with_engine: Bundle, probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads(monkeypatch, with_engine, lambda batch: first_samples(batch) + 1e-5)
    judged = publish.Gate(probe, tmp_path / "worst.npz").judged(with_engine, with_engine.variants[0])
    assert judged.parity is not None
    assert judged.parity["max_abs"] == pytest.approx(1e-5, rel=0.1)
    result = bundle_parity._result(with_engine, with_engine.variants[0], "trt", probe)
    assert (result.device, result.problem) == ("trt", "")


def test_an_engine_that_fits_and_scores_otherwise_is_refused(
    with_engine: Bundle, probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads(monkeypatch, with_engine, lambda batch: first_samples(batch) + 1e-3 * (len(batch) == 7))
    with pytest.raises(ModelError, match=r"model.engine \| scores differ from PyTorch's by 1.0"):
        publish.Gate(probe, tmp_path / "worst.npz").judged(with_engine, with_engine.variants[0])
    assert bundle_parity._result(with_engine, with_engine.variants[0], "trt", probe).failed


def test_an_engine_of_elsewhere_is_published_unjudged(
    with_engine: Bundle, probe: Probe, tmp_path: Path
) -> None:
    engine = with_engine.variants[0]
    assert publish.Gate(probe, tmp_path / "worst.npz").judged(with_engine, engine) == engine
    result = bundle_parity._result(with_engine, with_engine.variants[0], "trt", probe)
    assert not result.failed
    assert "no stamp that says what built it" in result.problem


def test_an_engine_that_fits_and_does_not_run_is_published_unjudged_with_its_reason(
    with_engine: Bundle,
    probe: Probe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*arguments: object) -> None:
        raise UnavailableError("model.engine", "no kernel image is available")

    loads(monkeypatch, with_engine, lambda batch: batch)
    monkeypatch.setattr(publish, "backend_from_variant", refuse)
    engine = with_engine.variants[0]
    assert publish.Gate(probe, tmp_path / "worst.npz").judged(with_engine, engine) == engine
    said = "rrtn: note: trt is not compared with PyTorch: no kernel image is available\n"
    assert capsys.readouterr().err == said


# --- On a GPU ---


@pytest.mark.gpu
@pytest.mark.skipif(bool(cuda_missing()), reason=f"CUDA: {cuda_missing()}")
@pytest.mark.parametrize(
    ("kind", "precision", "limit"), [(TensorProto.FLOAT, "fp32", 1e-5), (TensorProto.FLOAT16, "fp16", 5e-3)]
)
def test_an_engine_scores_as_onnx_runtime_does_on_the_cpu(
    kind: int, precision: str, limit: float, tmp_path: Path
) -> None:
    """In parts, padded, and as it is; from float32 and from int16."""
    flavour, machine, spec = installed_flavour(), this_machine(), FrontendSpec()
    model = _waveform_convolution(kind, spec.clip_samples)
    options = EngineOptions(batch_profile=(2, 4, 8))
    if flavour is None or machine.capability is None:
        pytest.skip("no TensorRT, or no GPU")
    plan, stamp = engine_from_onnx(model, flavour, precision=precision, options=options)
    files = {"onnx": model, "engine": plan}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    onnx_variant, engine_variant = (
        Variant(
            name=name,
            file=name,
            kind=name,  # type: ignore[arg-type]
            input="waveform",
            precision=precision,
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
            stamp=stamp.to_dict() if name == "engine" else None,
        )
        for name, content in files.items()
    )
    bundle = Bundle(
        path=tmp_path, labels=("a",), spec=spec, variants=(onnx_variant, engine_variant), provenance={}
    )
    if reason := obstacle(engine_variant, "trt"):
        pytest.skip(reason)
    cpu, trt = (
        backend_from_variant(bundle, variant, device)
        for variant, device in ((onnx_variant, "cpu"), (engine_variant, "trt"))
    )  # type: ignore[arg-type]
    for count in (4, 1, 11, 4):
        samples = (
            np.random.default_rng(count).integers(-32768, 32768, (count, spec.clip_samples)).astype(np.int16)
        )
        for batch in (samples, samples.astype(np.float32) / 32768):
            np.testing.assert_allclose(trt.scores(batch), cpu.scores(batch), atol=limit, rtol=0)


def _waveform_convolution(kind: int, samples: int) -> bytes:
    """waveform [batch, samples] -> its first 256 as [4, 8, 8] -> one convolution -> mean -> scores
    [batch, 4].
    """
    weights = (
        np.random.default_rng(0)
        .normal(0, 0.1, (4, 4, 3, 3))
        .astype(np.float16 if kind == TensorProto.FLOAT16 else "f4")
    )
    nodes = [
        helper.make_node("Slice", ["waveform", "zero", "many", "one"], ["part"]),
        helper.make_node("Reshape", ["part", "shape"], ["x"]),
        helper.make_node("Cast", ["x"], ["a"], to=kind),
        helper.make_node("Conv", ["a", "w"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["c", "axes"], ["scores"], keepdims=0),
    ]
    constants = {"zero": [0], "many": [256], "one": [1], "shape": [-1, 4, 8, 8], "axes": [2, 3]}
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", samples])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 4])],
        [
            numpy_helper.from_array(weights, "w"),
            *(numpy_helper.from_array(np.array(v), k) for k, v in constants.items()),
        ],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()


def test_the_graph_of_the_gpu_test_is_one_that_can_be_built() -> None:
    for kind, precision in ((TensorProto.FLOAT, "fp32"), (TensorProto.FLOAT16, "fp16")):
        model = _waveform_convolution(kind, FrontendSpec().clip_samples)
        options = EngineOptions(batch_profile=(2, 4, 8))
        _, stamp = engine_from_onnx(model, "tensorrt_rtx", precision=precision, options=options)
        assert stamp.convolutions == {precision: 1}
