"""The real onnxruntime-gpu on a CUDA that computes nothing: what is loaded, placed, said, chosen and queued.

It shows no score: kernels of the stub do nothing.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from rrtn.runtime import FrontendSpec
from rrtn.runtime.bundle import metadata_of
from rrtn.runtime.bundle.onnx_file import sealed

STUB = Path(__file__).parents[2] / "cuda_stub/build.py"
KEPT = Path(__file__).parents[2] / "fixtures/before.tar.xz"
CHOOSE = """
import json, sys
from rrtn.runtime import Scorer
from rrtn.runtime.errors import RrtnError
try:
    scorer = Scorer(sys.argv[1], sys.argv[2], variant=sys.argv[3] if len(sys.argv) > 3 else None)
    found = {"device": scorer.backend.device, "variant": scorer.backend.variant.name}
    print(json.dumps(found | {"passed_over": scorer.passed_over}))
except RrtnError as error:
    print(json.dumps({"error": type(error).__name__, "came": error.came}))
"""
# Loads every variant. None is run: the stub of cuDNN plans no convolution.
PLACE = """
import sys
from rrtn.runtime import load_bundle
from rrtn.runtime.backends.cuda_libraries import load_cuda
from rrtn.runtime.backends.device_memory import cuda_device
from rrtn.runtime.backends.ort_backend import ort_backend_on_device
load_cuda()
bundle = load_bundle(sys.argv[1])
for name in sys.argv[2:]:
    variant = bundle.variant(name)
    ort_backend_on_device(bundle, variant, bundle.read(variant), cuda_device())
"""
# Ten files, in chunks and batches of four: two are full, one is padded.
SCORE = """
import os, sys
from rrtn.runtime import Scorer
def tell(words):
    with open(os.environ["STUB_TRACE"], "a") as trace:
        print(words, file=trace)
with Scorer(sys.argv[1], "cuda", batch_size=4, workers=1) as scorer:
    tell("loaded")
    list(scorer.score_files(sys.argv[2:]))  # what a model needs once is loaded with it
    tell("again")
    assert [row.error for row in scorer.score_files(sys.argv[2:])] == [""] * 10
"""
HALVE = """
import sys
from rrtn.runtime import Scorer
with Scorer(sys.argv[1], "cuda", batch_size=64, workers=1) as scorer:
    assert [row.error for row in scorer.score_files(sys.argv[3:])] == [""] * 10
    assert scorer.model.batch_that_fits == int(sys.argv[2]), scorer.model.batch_that_fits
"""
TWO_THREADS = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from rrtn.runtime import Scorer
scorer = Scorer(sys.argv[1], "cuda", batch_size=4)
with open(os.environ["STUB_TRACE"], "a") as trace:
    print("loaded", file=trace)
os.environ["STUB_HOLD"] = "3"  # the clip that was run while it was loaded, and these two
batches = [np.zeros((4, scorer.bundle.spec.clip_samples), np.int16)] * 2
with ThreadPoolExecutor(2) as threads:
    assert [len(outputs.scores) for outputs in threads.map(scorer.model.outputs, batches)] == [4, 4]
"""
Choose = Callable[..., dict[str, Any]]
Trace = Callable[..., list[str]]

pytestmark = pytest.mark.cuda_stub


def _stub() -> Any:
    spec = importlib.util.spec_from_file_location("cuda_stub_build", STUB)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> str:
    """For LD_PRELOAD."""
    stub = _stub()
    if missing := [tool for tool in stub.TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"no {', '.join(missing)}")
    if not (stub.PROVIDER.exists() and stub.HEADERS.is_dir()):
        pytest.skip("no CUDA provider of onnxruntime-gpu, or no CUDA headers of the nvidia wheels")
    if not onnxruntime.cuda_version.startswith("13."):
        pytest.skip(f"the stub is of CUDA 13, and this onnxruntime needs {onnxruntime.cuda_version}")
    return " ".join(map(str, stub.build(tmp_path_factory.mktemp("cuda"))))


@pytest.fixture(scope="module")
def kept_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    with tarfile.open(KEPT) as kept:
        kept.extractall(folder, filter="data")
    return folder / "before/whole/export"


@pytest.fixture
def choose(libraries: str) -> Choose:
    """-> what a Scorer on a machine with such a GPU takes, or why it takes nothing; stdout is ours alone."""

    def run(bundle: Path, backend: str, variant: str = "", **stub: str) -> dict[str, Any]:
        command = [sys.executable, "-c", CHOOSE, str(bundle), backend, *([variant] if variant else [])]
        environment = {**os.environ, "LD_PRELOAD": libraries, **stub}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1, done.stdout
        return dict(json.loads(done.stdout))

    return run


@pytest.fixture
def trace(libraries: str, tmp_path: Path) -> Trace:
    """-> the calls of CUDA that a program makes with such a GPU, one a line."""

    def run(program: str, *arguments: object, **stub: str) -> list[str]:
        file = tmp_path / "trace"
        command = [sys.executable, "-c", program, *map(str, arguments)]
        environment = {**os.environ, "LD_PRELOAD": libraries, "STUB_TRACE": str(file), **stub}
        subprocess.run(command, env=environment, timeout=120, check=True)
        return file.read_text().splitlines()

    return run


@pytest.fixture
def starts(tmp_path: Path, spec: FrontendSpec) -> Path:
    """scores = half of the first three samples: no convolution, which the stub of cuDNN does not plan."""
    nodes = [
        helper.make_node("Slice", ["waveform", "zero", "three", "axis"], ["first"]),
        helper.make_node("Mul", ["first", "half"], ["scores"]),
    ]
    constants = {
        "zero": np.array([0]),
        "three": np.array([3]),
        "axis": np.array([1]),
        "half": np.float32(0.5),
    }
    graph = helper.make_graph(
        nodes,
        "starts",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", spec.clip_samples])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(proto, metadata_of(("a", "b", "c"), spec, "waveform", "fp32"))
    (tmp_path / "starts.onnx").write_bytes(sealed(proto.SerializeToString()))
    return tmp_path / "starts.onnx"


def of_stream(calls: list[str], stream: str) -> list[str]:
    """The calls that concern a stream, and the waits for its marks, without the stream's name."""
    marks = {words.split()[1] for words in calls if words.startswith("mark ") and words.endswith(stream)}
    waits = [f"wait mark {mark}" for mark in marks]
    return [words.removesuffix(f" stream {stream}") for words in calls if stream in words or words in waits]


def test_clips_are_copied_on_one_stream_while_the_model_runs_on_another(
    trace: Trace, starts: Path, spec: FrontendSpec, real_clips: list[Path]
) -> None:
    """No call waits for all of the device, and none for the model but the one that needs its scores."""
    lines = trace(SCORE, starts, *real_clips[:10])
    calls = lines[lines.index("again") + 1 :]
    clip = 2 * spec.clip_samples
    model = next(words.split()[-1] for words in calls if words.startswith("launch"))
    clips = next(words.split()[-1] for words in calls if words.startswith("copy"))
    assert model != clips
    assert [words for words in calls if model not in words and clips not in words] == [
        words for words in calls if words.startswith(("wait mark", "unpin"))
    ]
    *copies, clear, _ = works = of_stream(calls, clips)
    assert works[1::2] == ["wait"] * (len(works) // 2)
    assert sum(int(words.split()[1]) for words in copies[::2]) == 10 * clip
    assert clear == f"clear {2 * clip}"
    steps = [words.split()[0] for words in of_stream(calls, model)]
    batch = ["launch", "copy-async", "mark", "wait"]
    without_repeats = [step for i, step in enumerate(steps) if step != "launch" or steps[i - 1] != "launch"]
    in_order = [step for step in without_repeats if step != "wait"]
    assert in_order == batch[:3] * 3
    assert without_repeats.count("wait") == 3


def test_memory_of_a_decoder_is_pinned_before_its_first_clip_and_given_back_at_its_end(
    trace: Trace, starts: Path, real_clips: list[Path]
) -> None:
    lines = trace(SCORE, starts, *real_clips[:10])
    calls = lines[lines.index("loaded") + 1 :]
    assert [words.split()[0] for words in calls if "pin" in words] == ["pin", "unpin"]
    first = next(i for i, words in enumerate(calls) if words.startswith("copy-async"))
    assert calls.index(next(words for words in calls if words.startswith("pin"))) < first
    assert calls[-1] == "unpin"


def test_two_batches_are_in_flight(trace: Trace, starts: Path) -> None:
    """The stub ends the first wait once the work of both is queued."""
    lines = trace(TWO_THREADS, starts)
    calls = [words.split()[:2] for words in lines[lines.index("loaded") + 1 :]]
    marks = [i for i, words in enumerate(calls) if words[0] == "mark"]
    waits = [i for i, words in enumerate(calls) if words == ["wait", "mark"]]
    launches = [i for i, words in enumerate(calls) if words[0] == "launch"]
    assert (len(marks), len(waits)) == (2, 2)
    assert max(launches) < marks[1] < waits[0]


@pytest.mark.parametrize(("largest", "fits", "on_device"), [(6_000_000, 32, True), (3_000_000, 16, False)])
def test_a_gpu_with_little_memory_gets_smaller_batches(
    trace: Trace, starts: Path, real_clips: list[Path], largest: int, fits: int, on_device: bool
) -> None:
    """A batch of 64 takes 10 MB in float32, 5 MB in int16. Clips without room there wait on the host."""
    calls = trace(HALVE, starts, fits, *real_clips[:10], STUB_LARGEST=str(largest))
    assert any(words.startswith("launch") for words in calls)
    assert any(words.startswith("clear") for words in calls) == on_device


def test_every_graph_is_placed_wholly_on_cuda(trace: Trace, kept_bundle: Path) -> None:
    """ONNX Runtime refuses a graph of which one node is left to the CPU."""
    trace(PLACE, kept_bundle, "fp32", "waveform", "fp16", "waveform-fp16")


def test_auto_takes_cuda_where_a_clip_runs(choose: Choose, starts: Path) -> None:
    assert choose(starts, "auto") == {"device": "cuda", "variant": "waveform", "passed_over": {}}


NO_KERNEL = "CUDA error stubError:no kernel image is available for execution on the device"


def test_a_gpu_that_loads_a_model_and_runs_none_is_passed_over(choose: Choose, starts: Path) -> None:
    found = choose(starts, "auto", STUB_FAIL="kernel")
    assert (found["device"], found["passed_over"]) == (
        "cpu",
        {"waveform on cuda": f"{NO_KERNEL} (run: rrtn doctor)"},
    )
    found = choose(starts, "cuda", STUB_FAIL="kernel")
    assert (found["error"], found["came"]) == ("UnavailableError", NO_KERNEL)


def test_a_cudnn_that_plans_no_convolution_is_passed_over(choose: Choose, kept_bundle: Path) -> None:
    """As where its parts are of two versions."""
    found = choose(kept_bundle, "auto")
    assert found["device"] == "cpu"
    for variant in ("waveform-fp16", "waveform", "fp16", "fp32"):
        reason = found["passed_over"][f"{variant} on cuda"]
        assert reason == "Failed to initialize CUDNN Frontend: vector::_M_default_append (run: rrtn doctor)"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("driver", "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"),
        ("oom", "Failed to allocate memory for requested buffer of size "),
    ],
)
def test_a_provider_that_cannot_be_made_is_passed_over_with_its_reason(
    choose: Choose, kept_bundle: Path, how: str, reason: str
) -> None:
    """The driver is there, and ONNX Runtime fails as it makes its provider or loads the weights."""
    found = choose(kept_bundle, "auto", STUB_FAIL=how)
    assert found["device"] == "cpu"
    assert all(reason in found["passed_over"][f"{variant} on cuda"] for variant in ("waveform", "fp32"))
    found = choose(kept_bundle, "cuda", STUB_FAIL=how)
    assert found["error"] == "UnavailableError"
    assert found["came"].startswith(reason)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("old", "the NVIDIA driver knows CUDA up to 12.4, and onnxruntime needs 13.0"),
        ("hidden", "the NVIDIA driver gives no GPU: CUDA error 100: no CUDA-capable device is detected"),
        ("broken", "the NVIDIA driver gives no GPU: CUDA error 999: unknown error"),
        ("volta", "NVIDIA H100 STUB has compute capability 7.0, and CUDA 13.0 needs 7.5"),
    ],
)
def test_the_driver_is_asked_before_anything_is_loaded(
    choose: Choose, kept_bundle: Path, how: str, reason: str
) -> None:
    found = choose(kept_bundle, "auto", STUB_FAIL=how)
    assert (found["device"], found["passed_over"]["cuda"]) == ("cpu", reason)
    assert choose(kept_bundle, "cuda", STUB_FAIL=how)["came"] == reason
