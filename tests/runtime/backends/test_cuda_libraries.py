"""What is said when ONNX Runtime cannot use CUDA."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from rrtn.runtime.backends import cuda_libraries
from rrtn.runtime.backends.cuda_libraries import load_cuda, missing_library
from rrtn.runtime.backends.device_memory import buffer_of
from rrtn.runtime.errors import UnavailableError


def test_the_libraries_that_cuda_lacks_are_named(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or none is lacking, and CUDA memory is there. Nothing is printed: stdout may be a table."""
    preload = onnxruntime.preload_dlls
    monkeypatch.setattr(
        onnxruntime, "preload_dlls", lambda **places: (print("Failed to load x"), preload(**places))
    )
    if reason := missing_library():
        assert reason.startswith("lib")
        assert reason.endswith("cannot be loaded")
    else:
        assert buffer_of([2, 3], np.float32, "cuda").device_name() == "cuda"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("provider", "library", "came", "fix"),
    [
        ("no NVIDIA driver", "", "no NVIDIA driver", "use --backend cpu"),
        ("", "libcudnn.so.9 cannot be loaded", "libcudnn.so.9 cannot be loaded", "pip install"),
    ],
)
def test_each_reason_has_its_own_fix(
    provider: str, library: str, came: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_libraries, "cuda_missing", lambda: provider)
    monkeypatch.setattr(cuda_libraries, "missing_library", lambda: library)
    with pytest.raises(UnavailableError) as caught:
        load_cuda()
    assert caught.value.came == came
    assert fix in caught.value.fix


def test_what_is_not_missing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_libraries, "cuda_missing", lambda: "")
    monkeypatch.setattr(cuda_libraries, "missing_library", lambda: "")
    load_cuda()


def test_without_the_provider_the_driver_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(cuda_libraries, "installed_version", lambda name: None)
    assert "no CUDA provider" in cuda_libraries.cuda_missing()


def test_an_onnxruntime_over_onnxruntime_gpu_is_named_with_what_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(cuda_libraries, "installed_version", {"onnxruntime-gpu": "1.31.1"}.get)
    assert cuda_libraries.cuda_missing() == (
        "another onnxruntime has overwritten onnxruntime-gpu: "
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    )


def test_libraries_are_found_wherever_the_nvidia_wheels_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip --target` may have put ONNX Runtime elsewhere, beside which it looks."""
    asked: list[str] = []
    (tmp_path / "nvidia/cu13/lib").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda directory="": asked.append(directory))
    missing_library()
    assert asked[0] == ""
    assert str(tmp_path / "nvidia/cu13/lib") in asked
