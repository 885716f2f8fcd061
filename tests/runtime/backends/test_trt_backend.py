"""Engines: what is refused before they are loaded, and how one is run.

The run itself is against stand-ins. One has TensorRT's calls and computes with NumPy from the addresses
that it is given; the other is a device that works off its streams only where someone waits (conftest.py).
So shapes, addresses, padding, parts and the order of calls are shown to be right, not that a GPU is.
"""

import ctypes
import gc
import hashlib
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec
from rrtn.runtime.backends import trt_backend
from rrtn.runtime.backends.device_memory import Device, check_runs
from rrtn.runtime.backends.engine_stamp import Machine
from rrtn.runtime.backends.trt_backend import (
    Flavour,
    TrtBackend,
    flavour_of,
    trt_backend_from_bundle,
    trt_backend_from_engine,
)
from rrtn.runtime.bundle import Bundle, Variant
from rrtn.runtime.errors import ModelError, OutOfMemoryError, UnavailableError

N, K, D = 12, 3, 5
WEIGHTS = np.random.default_rng(0).normal(size=(N, K)).astype(np.float32)
RTX = Machine(versions={"tensorrt_rtx": "1.7.1.116"}, capability=86, driver="580.65.06")
STAMP = {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "targets": [80, 86], "driver": None}


class Stand:
    """A TensorRT engine and its context: scores = waveform @ WEIGHTS, embedding = the first D samples."""

    profile = (2, 4, 8)
    names = ("waveform", "scores", "embedding")
    num_io_tensors = 3
    num_optimization_profiles = 1

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.batches: list[int] = []  # of the runs
        self.refuses = ""  # a call that fails, with words
        self.device: Any = None
        self.log = deque[str](maxlen=3)
        module = SimpleNamespace(
            TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
            DataType=SimpleNamespace(FLOAT="float"),
            ExecutionContextAllocationStrategy=SimpleNamespace(ON_PROFILE_CHANGE="small"),
            __name__="stand",
        )
        self.flavour = Flavour(module, None, self.log)

    # The engine.
    def get_tensor_name(self, i: int) -> str:
        return self.names[i]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "waveform" else "out"

    def get_tensor_dtype(self, name: str) -> str:
        return "float"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("waveform", 0)
        return [(batch, N) for batch in self.profile]

    def create_execution_context(self, strategy: str = "") -> "Stand":
        if not strategy:
            return self
        assert strategy == "small"
        self.single = Stand()
        self.single.device, self.single.profile = self.device, (1, 1, 1)
        return self.single

    # The context.
    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert (profile, stream) == (1, self.device.compute)
        return not self.refuses or self.fail(self.refuses)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes = {name: shape, "scores": (shape[0], K), "embedding": (shape[0], D)}
        taken = self.profile[0] <= shape[0] <= self.profile[2] and shape[1:] == (N,)
        return taken or self.fail("set_input_shape: exceeds min ~ max")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes.get(name, (-1, D))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == self.device.compute
        if self.refuses:
            return self.fail(self.refuses)
        memory = {name: self.memory(name) for name in self.addresses}
        self.batches.append(len(memory["waveform"]))

        def compute() -> None:
            memory["scores"][:] = memory["waveform"] @ WEIGHTS
            if "embedding" in memory:
                memory["embedding"][:] = memory["waveform"][:, :D]

        self.device.calls.queue("launch", stream, compute)
        return True

    def memory(self, name: str) -> NDArray[np.float32]:
        shape = self.shapes[name]
        buffer = (ctypes.c_float * int(np.prod(shape))).from_address(self.addresses[name])
        return np.frombuffer(buffer, np.float32).reshape(shape)

    def fail(self, words: str) -> bool:
        self.log.append(words)
        return False


def variant_of(**changes: Any) -> Variant:
    fields: dict[str, Any] = {
        "name": "trt",
        "file": "model.engine",
        "kind": "engine",
        "input": "waveform",
        "precision": "fp32",
        "sha256": hashlib.sha256(b"engine").hexdigest(),
        "size": 6,
        "stamp": STAMP,
    }
    return Variant(**{**fields, **changes})


def backend_of(stand: Stand, device: Device) -> TrtBackend:
    engine: Any = stand
    stand.device = device
    return trt_backend_from_engine(engine, variant_of(), stand.flavour, device=device)


def waveforms(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).uniform(-1, 1, (count, N)).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "runs"), [(4, [4]), (8, [8]), (2, [2]), (1, [2]), (9, [8, 2]), (16, [8, 8]), (19, [8, 8, 3])]
)
def test_batches_of_every_size_are_split_and_padded_to_what_the_engine_takes(
    count: int, runs: list[int], host_device: Device
) -> None:
    stand = Stand()
    batch = waveforms(count)
    scores, embedding = backend_of(stand, host_device).run(batch)
    assert stand.batches == runs
    np.testing.assert_allclose(scores, batch @ WEIGHTS, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(embedding, batch[:, :D])


def test_buffers_that_are_used_again_do_not_change_what_was_returned(host_device: Device) -> None:
    backend = backend_of(Stand(), host_device)
    batches = [waveforms(count) + np.float32(i) for i, count in enumerate((4, 4, 3, 4))]
    found = [backend.run(batch) for batch in batches]
    for batch, outputs in zip(batches, found, strict=True):
        np.testing.assert_allclose(outputs.scores, batch @ WEIGHTS, atol=1e-5, rtol=0)
        np.testing.assert_array_equal(outputs.embedding, batch[:, :D])


def test_samples_of_16_bits_are_widened(prompt_device: Device) -> None:
    backend = backend_of(Stand(), prompt_device)
    for count in (3, 1, 11):
        samples = np.random.default_rng(0).integers(-32768, 32768, (count, N)).astype(np.int16)
        np.testing.assert_array_equal(backend.run(samples).embedding, samples[:, :D] / 32768)


def test_clips_that_lie_on_the_device_are_run_from_there(prompt_device: Device) -> None:
    """In parts of the engine's largest batch, and padded to its smallest."""
    backend = backend_of(Stand(), prompt_device)
    samples = np.random.default_rng(0).integers(-32768, 32768, (9, N)).astype(np.int16)
    for clips in (samples, (samples / 32768).astype(np.float32)):
        batch = backend.new_batch((9, N), clips.dtype)
        for first, last in ((0, 2), (2, 3), (3, 9)):
            batch.put(first, clips[first:last])
        np.testing.assert_array_equal(backend.run(batch.clips).embedding, samples[:, :D] / 32768)
        batch.clear(4)
        assert not backend.run(batch.clips).embedding[4:].any()  # type: ignore[index]


# The order of calls. Stream 77 is that of the models, 78 that of clips.

ONE_BATCH = [
    f"copy {4 * 4 * N} on 77",
    "launch on 77",
    f"copy {4 * 4 * K} on 77",
    f"copy {4 * 4 * D} on 77",
    "record on 77",
    "wait for 77",
]


def until(condition: Any) -> None:
    latest = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < latest, "it never comes"
        time.sleep(0.001)


def test_a_batch_is_waited_for_once(host_device: Device, host_calls: Any) -> None:
    backend = backend_of(Stand(), host_device)
    backend.run(waveforms(4))
    host_calls.log.clear()
    backend.run(waveforms(4))
    assert host_calls.log == ONE_BATCH
    assert not host_calls.streams[77]


def test_a_second_batch_is_queued_while_the_first_is_waited_for(host_device: Device, host_calls: Any) -> None:
    """It uses the same buffers on the device, but not the same ones on the host."""
    stand = Stand()
    backend = backend_of(stand, host_device)
    backend.run(waveforms(4))
    host_calls.log.clear()
    batches = [waveforms(4) + np.float32(i) for i in range(2)]
    host_calls.before_wait = lambda: until(lambda: host_calls.log.count("record on 77") == 2)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(backend.run, batches))
    assert host_calls.log == [*ONE_BATCH[:-1], *ONE_BATCH[:-1], "wait for 77", "wait for 77"]
    for batch, outputs in zip(batches, found, strict=True):
        np.testing.assert_allclose(outputs.scores, batch @ WEIGHTS, atol=1e-5, rtol=0)
        np.testing.assert_array_equal(outputs.embedding, batch[:, :D])


def test_a_batch_that_is_refused_leaves_the_one_in_flight_its_scores(
    host_device: Device, host_calls: Any
) -> None:
    stand = Stand()
    backend = backend_of(stand, host_device)
    batch, refused = waveforms(4), threading.Event()
    host_calls.before_wait = lambda: refused.wait(60)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(backend.run, batch)
        until(lambda: stand.batches)
        stand.refuses = "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"
        with pytest.raises(OutOfMemoryError):
            backend.run(waveforms(4) + np.float32(9))
        stand.refuses = ""
        refused.set()
        np.testing.assert_allclose(first.result().scores, batch @ WEIGHTS, atol=1e-6, rtol=0)
    np.testing.assert_allclose(backend.run(batch).scores, batch @ WEIGHTS, atol=1e-6, rtol=0)
    assert not host_calls.streams[77]


def test_another_size_waits_for_those_in_flight(host_device: Device, host_calls: Any) -> None:
    """Its buffers take the place of theirs."""
    stand = Stand()
    backend = backend_of(stand, host_device)
    small, large, queued = waveforms(2), waveforms(8), threading.Event()
    host_calls.before_wait = lambda: queued.wait(60)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(backend.run, small)
        until(lambda: stand.batches == [2])
        second = threads.submit(backend.run, large)
        until(lambda: stand.batches == [2, 8])
        queued.set()
        np.testing.assert_allclose(first.result().scores, small @ WEIGHTS, atol=1e-6, rtol=0)
        np.testing.assert_allclose(second.result().scores, large @ WEIGHTS, atol=1e-6, rtol=0)
    assert host_calls.log.index("wait for all of 77") < host_calls.log.index(f"copy {8 * 4 * N} on 77")


def test_batches_of_a_power_of_two_find_their_memory_again(host_device: Device) -> None:
    """As those of a server, whose sizes change with almost every batch."""
    stand = Stand()
    stand.profile = (1, 4, 8)
    backend, places = backend_of(stand, host_device), set()
    for count in (1, 8, 2, 4, 8, 1, 3, 4, 2, 8, 5, 1, 7):
        batch = waveforms(count)
        np.testing.assert_allclose(backend.run(batch).scores, batch @ WEIGHTS, atol=1e-6, rtol=0)
        places.add((count, *stand.addresses.values()))
    powers = [place for place in places if place[0] in (1, 2, 4, 8)]
    assert len(powers) == 4
    assert len({address for _, *addresses in powers for address in addresses}) == 4 * 3
    assert sorted(shape[0] for shape in backend.queue._kept) == [1, 2, 4, 7, 8]


def test_a_batch_that_fails_gives_all_memory_and_marks_back(host_device: Device, host_calls: Any) -> None:
    stand = Stand()
    backend = backend_of(stand, host_device)
    backend.run(waveforms(4))
    stand.refuses = "Cuda Runtime (out of memory)"
    with pytest.raises(OutOfMemoryError):
        backend.run(waveforms(8))
    gc.collect()
    assert (len(backend.queue._kept), len(host_calls.freed)) == (0, 1)


def test_single_clips_have_a_context_of_their_own(host_device: Device) -> None:
    stand = Stand()
    stand.profile, stand.num_optimization_profiles = (1, 4, 8), 2
    backend = backend_of(stand, host_device)
    for count in (1, 4, 1, 9):
        batch = waveforms(count)
        np.testing.assert_allclose(backend.run(batch).scores, batch @ WEIGHTS, atol=1e-6, rtol=0)
    assert (stand.batches, stand.single.batches) == ([4, 8], [1, 1, 1])


def test_a_second_profile_that_is_refused(host_device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand()
    stand.num_optimization_profiles = 2
    monkeypatch.setattr(Stand, "set_optimization_profile_async", lambda self, *_: self.fail("no memory"))
    with pytest.raises(UnavailableError, match="its second profile"):
        backend_of(stand, host_device)


def test_an_engine_without_an_embedding_gives_none(host_device: Device) -> None:
    stand = Stand()
    stand.num_io_tensors = 2
    assert backend_of(stand, host_device).run(waveforms(9)).embedding is None


def test_a_run_that_tensorrt_refuses_is_told_with_its_words(host_device: Device) -> None:
    stand = Stand()
    backend = backend_of(stand, host_device)
    stand.log.append("of something long ago")
    stand.refuses = "[executionContext.cpp::x] Error Code 1:\n something"
    with pytest.raises(
        ModelError, match=r"^model.engine \| \[executionContext.cpp::x\] Error Code 1: something \| "
    ) as caught:
        backend.run(waveforms(4))
    assert not isinstance(caught.value, OutOfMemoryError)
    stand.refuses = "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"
    with pytest.raises(OutOfMemoryError, match="--batch-size"):
        backend.run(waveforms(4))
    stand.refuses = ""
    assert backend.run(waveforms(2)).scores.shape == (2, K)  # and it goes on with a smaller one
    with pytest.raises(ModelError, match="set_input_shape"):
        backend.run(np.zeros((4, N + 1), np.float32))
    assert backend.run(waveforms(2)).scores.shape == (2, K)


def test_an_engine_that_does_not_run_one_clip_is_no_backend(prompt_device: Device) -> None:
    stand, spec = Stand(), SimpleNamespace(clip_samples=N)
    backend: Any = backend_of(stand, prompt_device)
    check_runs(backend, spec)  # type: ignore[arg-type]
    assert stand.batches == [2]  # padded
    stand.refuses = "no kernel image is available"
    with pytest.raises(UnavailableError, match="no kernel image is available"):
        check_runs(backend, spec)  # type: ignore[arg-type]
    stand.refuses = "Cuda Runtime (out of memory)"
    with pytest.raises(OutOfMemoryError):
        check_runs(backend, spec)  # type: ignore[arg-type]


def test_tensors_that_are_not_float32_are_refused(
    host_device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stand, "get_tensor_dtype", lambda self, name: "half" if name == "scores" else "float")
    with pytest.raises(ModelError, match="scores not in float32"):
        backend_of(Stand(), host_device)


def test_without_a_context_there_is_no_backend(host_device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Stand, "create_execution_context", lambda self: self.fail("no memory for activations") or None
    )
    with pytest.raises(UnavailableError, match="no memory for activations"):
        backend_of(Stand(), host_device)


def test_tensorrt_rtx_compiles_all_kernels_before_the_first_batch() -> None:
    """Its defaults are LAZY and no CUDA graph: the first batches would run other kernels than the
    later ones.
    """
    config = SimpleNamespace()
    stand = Stand()
    stand.flavour.module.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    stand.flavour.module.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    made = SimpleNamespace(
        create_runtime_config=lambda: config, create_execution_context=lambda given: (given, stand)
    )
    assert trt_backend._context(stand.flavour, made, "model.engine") == (config, stand)
    assert vars(config) == {
        "dynamic_shapes_kernel_specialization_strategy": "eager",
        "cuda_graph_strategy": "whole",
    }


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    (tmp_path / "model.engine").write_bytes(b"engine")
    return Bundle(
        path=tmp_path, labels=("a", "b", "c"), spec=FrontendSpec(), variants=(variant_of(),), provenance={}
    )


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Flavour:
        raise AssertionError("TensorRT must not be loaded for this")

    monkeypatch.setattr(trt_backend, "flavour_of", refuse)


@pytest.mark.usefixtures("no_tensorrt")
@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (replace(RTX, capability=90), "built for SM80, SM86, here is SM90"),
        (replace(RTX, capability=None), "here is no GPU"),
        (replace(RTX, versions={}), "not installed here"),
        (replace(RTX, versions={"tensorrt_rtx": "1.7.2"}), "here is 1.7.2"),
    ],
)
def test_e9_an_engine_of_elsewhere_never_meets_tensorrt(
    machine: Machine, reason: str, bundle: Bundle
) -> None:
    (bundle.path / "model.engine").unlink()  # nor is its file read
    with pytest.raises(
        UnavailableError, match=rf"model.engine \| .*{reason} \| .* \| export its run again with --trt"
    ):
        trt_backend_from_bundle(bundle, bundle.variants[0], machine=machine)


def test_e10_a_changed_engine_never_reaches_the_loader(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand()
    monkeypatch.setattr(trt_backend, "flavour_of", lambda name: stand.flavour)  # it has no Runtime
    (bundle.path / "model.engine").write_bytes(b"enginE")
    with pytest.raises(ModelError, match="sha256"):
        trt_backend_from_bundle(bundle, bundle.variants[0], machine=RTX)


@pytest.mark.usefixtures("no_tensorrt")
def test_onnx_is_no_engine(bundle: Bundle) -> None:
    with pytest.raises(
        ModelError, match=r"\| kind onnx \| expected an engine \| export its run again with --trt"
    ):
        trt_backend_from_bundle(bundle, variant_of(kind="onnx"), machine=RTX)


def test_what_the_real_tensorrt_rtx_refuses_is_told_in_its_words(bundle: Bundle) -> None:
    """The stamp fits, the hash fits, the content is no engine."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    machine = replace(RTX, versions={"tensorrt_rtx": rtx.__version__})
    with pytest.raises(
        UnavailableError, match=r"^model.engine \| .*Error Code.* \| expected an engine that loads here"
    ) as caught:
        trt_backend_from_bundle(
            bundle, variant_of(stamp=STAMP | {"version": rtx.__version__}), machine=machine
        )
    assert "\n" not in str(caught.value)


def test_a_flavour_is_loaded_once_with_its_one_logger() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    assert flavour_of("tensorrt_rtx") is flavour_of("tensorrt_rtx")


def test_type_stubs_alone_are_no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    flavour_of.cache_clear()
    monkeypatch.setattr(trt_backend.importlib, "import_module", lambda name: SimpleNamespace())
    with pytest.raises(UnavailableError, match=r"^tensorrt \| .*ILogger"):
        flavour_of("tensorrt")
