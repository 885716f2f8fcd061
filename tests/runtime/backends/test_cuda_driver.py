"""What the driver says, by a stand-in for libcuda with the driver's own signatures."""

import ctypes
from typing import Any

import pytest
from rrtn.runtime.backends import cuda_driver

NO_DEVICE, OUT_OF_MEMORY = 100, 2  # CUDA_ERROR_NO_DEVICE, CUDA_ERROR_OUT_OF_MEMORY
ATTRIBUTES = {75: 9, 76: 0}  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
TEXTS = {NO_DEVICE: b"no CUDA-capable device is detected", OUT_OF_MEMORY: b"out of memory"}


class Libcuda:
    """Two GPUs, whose handles are not their numbers."""

    def __init__(self, **codes: int) -> None:
        self._codes = codes

    def __getattr__(self, name: str) -> Any:
        """A call that has no work here."""
        return lambda *arguments: self._codes.get(name, 0)

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 12080
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = 7 + ordinal
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:
        name.value = b"GPU %d" % device.value
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = ATTRIBUTES[attribute] if device.value == 7 else 0
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = TEXTS[code]
        return 0


def use(monkeypatch: pytest.MonkeyPatch, driver: Libcuda) -> None:
    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", {"libcuda.so.1": driver}.__getitem__)


def test_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Libcuda())
    assert cuda_driver.gpu_names() == ["GPU 7", "GPU 8"]
    assert cuda_driver.compute_capability() == 90
    assert cuda_driver.driver_cuda() == "12.8"
    assert cuda_driver.driver_obstacle("12.4") == ""
    assert "knows CUDA up to 12.8" in cuda_driver.driver_obstacle("13.0")


def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Libcuda(cuInit=NO_DEVICE))
    assert cuda_driver.gpu_names() == []
    assert cuda_driver.compute_capability() is None


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert cuda_driver.gpu_names() is None
    assert cuda_driver.driver_cuda() is None
    assert cuda_driver.compute_capability() is None
