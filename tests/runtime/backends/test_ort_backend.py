"""Real sessions with buffers that are reused: ONNX Runtime's own scores, and its errors as ours."""

import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rrtn.runtime import load_bundle
from rrtn.runtime.backends import device_memory
from rrtn.runtime.backends.choice import choose_backend
from rrtn.runtime.backends.cuda_libraries import cuda_missing
from rrtn.runtime.backends.device_memory import Device
from rrtn.runtime.backends.ort_backend import ort_backend_from_bundle, ort_backend_on_device
from rrtn.runtime.bundle import metadata_of
from rrtn.runtime.bundle.onnx_file import sealed
from rrtn.runtime.errors import ModelError, OutOfMemoryError, UnavailableError
from rrtn.runtime.spec import FrontendSpec


def log_mels(spec: FrontendSpec, count: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(count)
    return rng.normal(-40, 20, (count, 1, spec.frames, spec.n_mels)).astype(np.float32)


def model_of(
    path: Path, nodes: list[onnx.NodeProto], shapes: dict[str, list[Any]], constants: dict[str, Any]
) -> Path:
    """A bare waveform model of ours; `shapes` of its outputs."""
    spec = FrontendSpec()
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", spec.clip_samples])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata_of(("Peak",), spec, "waveform", "fp32"))
    path.write_bytes(sealed(model.SerializeToString()))
    return path


@pytest.fixture
def peaks(tmp_path: Path) -> Path:
    """scores = the largest sample [B, 1]; embedding = the first five [B, 5]."""
    nodes = [
        helper.make_node("ReduceMax", ["waveform", "axis"], ["scores"], keepdims=1),
        helper.make_node("Slice", ["waveform", "zero", "five", "axis"], ["embedding"]),
    ]
    shapes = {"scores": ["batch", 1], "embedding": ["batch", 5]}
    return model_of(tmp_path / "peaks.onnx", nodes, shapes, {"axis": [1], "zero": [0], "five": [5]})


def test_buffers_that_are_used_again_give_onnx_runtimes_own_scores(
    tiny_model: Path, spec: FrontendSpec
) -> None:
    """Batch sizes change to and fro, and what was returned stays what it was."""
    session = onnxruntime.InferenceSession(tiny_model, providers=["CPUExecutionProvider"])
    backend = choose_backend(load_bundle(tiny_model), "cpu").backend
    batches = [log_mels(spec, count) for count in (3, 3, 1, 7, 3)]
    batches[1] = batches[1] + np.float32(10)
    found = [backend.run(batch) for batch in batches]
    for batch, outputs in zip(batches, found, strict=True):
        np.testing.assert_array_equal(outputs.scores, session.run(["scores"], {"log_mel": batch})[0])
        assert outputs.embedding is None


def test_the_embedding_is_given_where_the_graph_has_it(peaks: Path, spec: FrontendSpec) -> None:
    clips = np.random.default_rng(0).uniform(-1, 1, (4, spec.clip_samples)).astype(np.float32)
    scores, embedding = choose_backend(load_bundle(peaks), "cpu").backend.run(clips)
    np.testing.assert_array_equal(scores, clips.max(axis=1, keepdims=True))
    np.testing.assert_array_equal(embedding, clips[:, :5])


def test_a_batch_need_not_be_contiguous(peaks: Path, spec: FrontendSpec) -> None:
    clips = np.random.default_rng(0).uniform(-1, 1, (8, spec.clip_samples)).astype(np.float32)
    backend = choose_backend(load_bundle(peaks), "cpu").backend
    np.testing.assert_array_equal(backend.scores(clips[::2])[:, 0], clips[::2].max(axis=1))


class Slow:
    """A session that gives other threads time to spoil its buffers."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run_with_iobinding(self, binding: Any) -> None:
        time.sleep(0.01)
        self.session.run_with_iobinding(binding)
        time.sleep(0.01)


def test_threads_take_turns(tiny_model: Path, spec: FrontendSpec) -> None:
    backend = choose_backend(load_bundle(tiny_model), "cpu").backend
    batches = [log_mels(spec, 2) + np.float32(i) for i in range(8)]
    alone = [backend.scores(batch) for batch in batches]
    slow = replace(backend, session=Slow(backend.session))  # type: ignore[type-var]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(slow.scores, batches), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("on_device", [False, True])
def test_samples_of_16_bits_score_as_the_same_in_float32(
    on_device: bool, peaks: Path, spec: FrontendSpec, prompt_device: Device
) -> None:
    """Through the queue and the widening that CUDA uses, too, on the CPU."""
    bundle = load_bundle(peaks)
    variant = bundle.variants[0]
    if on_device:
        backend = ort_backend_on_device(bundle, variant, bundle.read(variant), prompt_device)
    else:
        backend = ort_backend_from_bundle(bundle, variant, device="cpu")
    for count in (3, 2, 3):
        samples = (
            np.random.default_rng(count).integers(-32768, 32768, (count, spec.clip_samples)).astype(np.int16)
        )
        outputs = backend.run(samples)
        np.testing.assert_array_equal(outputs.scores, samples.max(axis=1, keepdims=True) / 32768)
        np.testing.assert_array_equal(outputs.embedding, samples[:, :5] / 32768)


def test_buffers_of_another_size_take_the_place_of_the_old_ones(
    peaks: Path, spec: FrontendSpec, prompt_device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing holds the old ones once new ones are asked for: on a GPU both might not fit."""
    made: list[weakref.ref[Any]] = []
    real = device_memory.buffer_of

    def noted(*arguments: Any) -> Any:
        assert [one() for one in made] == [None] * len(made)
        made.append(weakref.ref(value := real(*arguments)))
        return value

    monkeypatch.setattr(device_memory, "buffer_of", noted)
    bundle = load_bundle(peaks)
    backend = ort_backend_on_device(
        bundle, bundle.variants[0], bundle.read(bundle.variants[0]), prompt_device
    )
    for count in (3, 6, 5):  # no powers of two, whose buffers are kept
        clips = np.random.default_rng(count).uniform(-1, 1, (count, spec.clip_samples)).astype(np.float32)
        np.testing.assert_array_equal(backend.scores(clips), clips.max(axis=1, keepdims=True))
    assert len(made) == 3


def test_a_shape_that_the_graph_does_not_take_is_one_line(peaks: Path, spec: FrontendSpec) -> None:
    backend = choose_backend(load_bundle(peaks), "cpu").backend
    good = np.ones((2, spec.clip_samples), np.float32)
    with pytest.raises(
        ModelError, match=r"^peaks.onnx on cpu, batch \(2, 7\) \| .*invalid dimensions.* \| .* \| .*$"
    ) as caught:
        backend.run(good[:, :7])
    assert not isinstance(caught.value, OutOfMemoryError | UnavailableError)
    assert backend.scores(good).tolist() == [[1], [1]]  # and it goes on


def test_an_output_of_unknown_size_is_refused(tmp_path: Path, spec: FrontendSpec) -> None:
    nodes = [
        helper.make_node("NonZero", ["waveform"], ["where"]),
        helper.make_node("Cast", ["where"], ["scores"], to=1),
    ]
    path = model_of(tmp_path / "m.onnx", nodes, {"scores": ["batch", "k"]}, {})
    with pytest.raises(ModelError, match=r"scores \[2, 'k'\]"):
        choose_backend(load_bundle(path), "cpu").backend.run(np.ones((1, spec.clip_samples), np.float32))


def test_a_batch_that_memory_does_not_hold_is_told_from_other_errors(
    tmp_path: Path, spec: FrontendSpec, capfd: pytest.CaptureFixture[str]
) -> None:
    """A real allocation that fails: the first sample says how many terabytes the model asks for."""
    nodes = [
        helper.make_node("Slice", ["waveform", "zero", "one", "axis"], ["first"]),
        helper.make_node("ReduceMax", ["first"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["count"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["count", "one"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["first", "nothing"], ["scores"]),
    ]
    path = model_of(
        tmp_path / "m.onnx", nodes, {"scores": ["batch", 1]}, {"axis": [1], "zero": [0], "one": [1]}
    )
    backend = choose_backend(load_bundle(path), "cpu").backend
    with pytest.raises(
        OutOfMemoryError,
        match=r"Failed to allocate memory for requested buffer of size \d{14} .*--batch-size",
    ):
        backend.run(np.full((1, spec.clip_samples), 1e13, np.float32))
    assert backend.scores(np.full((1, spec.clip_samples), 8, np.float32)).tolist() == [[8]]
    assert capfd.readouterr() == ("", "")  # it is raised, and not printed as well


@pytest.mark.gpu
@pytest.mark.skipif(bool(cuda_missing()), reason=f"CUDA: {cuda_missing()}")
def test_cuda_scores_as_the_cpu_does(tiny_model: Path, peaks: Path, spec: FrontendSpec) -> None:
    cpu, cuda = (choose_backend(load_bundle(tiny_model), device).backend for device in ("cpu", "cuda"))
    for count in (4, 1, 4):
        batch = log_mels(spec, count)
        np.testing.assert_allclose(
            cuda.scores(batch), cpu.scores(batch), atol=1e-5, rtol=0
        )  # the order of float32 sums
    samples = np.random.default_rng(0).integers(-32768, 32768, (3, spec.clip_samples)).astype(np.int16)
    outputs = choose_backend(load_bundle(peaks), "cuda").backend.run(samples)
    np.testing.assert_array_equal(outputs.scores, samples.max(axis=1, keepdims=True) / 32768)
    np.testing.assert_array_equal(outputs.embedding, samples[:, :5] / 32768)
