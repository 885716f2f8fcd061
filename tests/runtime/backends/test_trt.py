"""What the doctor says about engines, machine by machine."""

import sys
from pathlib import Path

import pytest
from rrtn.runtime.backends import trt_backend
from rrtn.runtime.backends.engine_stamp import Machine
from rrtn.runtime.backends.trt import TRT, diagnosis_of_machine
from rrtn.runtime.errors import install_command


@pytest.mark.parametrize(
    ("versions", "capability", "without_cuda", "state", "detail"),
    [
        ({}, 90, "", "missing", "no TensorRT"),
        ({"tensorrt_rtx": "1.7.1"}, None, "no NVIDIA driver", "missing", "tensorrt_rtx 1.7.1, but no GPU"),
        ({"tensorrt_rtx": "1.7.1"}, 90, "", "missing", "tensorrt_rtx 1.7.1 has no engines for SM90"),
        (
            {"tensorrt": "11.4", "tensorrt_rtx": "1.7.1"},
            90,
            "",
            "note",
            "tensorrt 11.4, tensorrt_rtx 1.7.1, for SM90",
        ),
        ({"tensorrt_rtx": "1.7.1"}, 86, "", "note", "tensorrt_rtx 1.7.1, for SM86"),
        ({"tensorrt": "11.4"}, 90, "libcudnn.so.9 cannot be loaded", "missing", "not the CUDA memory"),
    ],
)
def test_what_engines_need(
    versions: dict[str, str], capability: int | None, without_cuda: str, state: str, detail: str
) -> None:
    machine = Machine(versions=versions, capability=capability, driver=None)
    found = diagnosis_of_machine(machine, without_cuda, {})
    assert found.state == state
    assert detail in found.detail
    assert bool(found.fix) == (state == "missing")


@pytest.mark.parametrize(
    ("versions", "state", "detail"),
    [
        ({"tensorrt": "11.4"}, "missing", "tensorrt 11.4 cannot be loaded: no libnvinfer.so.11"),
        (
            {"tensorrt": "11.4", "tensorrt_rtx": "1.7.1"},
            "note",
            "tensorrt 11.4 cannot be loaded: no libnvinfer.so.11; "
            "tensorrt_rtx 1.7.1, for SM86; tried at scoring",
        ),
    ],
)
def test_a_flavour_that_cannot_be_loaded_is_named(versions: dict[str, str], state: str, detail: str) -> None:
    machine = Machine(versions=versions, capability=86, driver=None)
    found = diagnosis_of_machine(machine, "", {"tensorrt": "no libnvinfer.so.11"})
    assert found == (state, detail, install_command("trt"))


def test_the_doctor_imports_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of TensorRT whose library is gone."""
    (tmp_path / "tensorrt-11.4.dist-info").mkdir()
    (tmp_path / "tensorrt-11.4.dist-info/METADATA").write_text("Name: tensorrt\nVersion: 11.4\n")
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt/__init__.py").write_text("import ctypes; ctypes.CDLL('libnvinfer.so.11')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr(trt_backend, "flavour_of", trt_backend.flavour_of.__wrapped__)  # not what is cached
    assert "tensorrt 11.4 cannot be loaded: libnvinfer.so.11: cannot open" in TRT.diagnose().detail
