"""The real onnxruntime-gpu on a CUDA that computes nothing: what is loaded, placed, said and chosen.

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

import onnxruntime
import pytest

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
Choose = Callable[..., dict[str, Any]]

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


def test_every_graph_runs_wholly_on_cuda(choose: Choose, kept_bundle: Path) -> None:
    """ONNX Runtime refuses a graph of which one node is left to the CPU."""
    for variant in ("fp32", "waveform", "fp16", "waveform-fp16"):
        found = choose(kept_bundle, "cuda", variant)
        assert found == {"device": "cuda", "variant": variant, "passed_over": {}}


def test_auto_takes_cuda_where_it_can_be_made(choose: Choose, kept_bundle: Path) -> None:
    found = choose(kept_bundle, "auto")
    assert (found["device"], found["variant"]) == ("cuda", "waveform")


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
    ],
)
def test_the_driver_is_asked_before_anything_is_loaded(
    choose: Choose, kept_bundle: Path, how: str, reason: str
) -> None:
    found = choose(kept_bundle, "auto", STUB_FAIL=how)
    assert (found["device"], found["passed_over"]["cuda"]) == ("cpu", reason)
    assert choose(kept_bundle, "cuda", STUB_FAIL=how)["came"] == reason
