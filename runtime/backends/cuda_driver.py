"""What the NVIDIA driver says about the GPUs. Its library needs no CUDA toolkit."""

import ctypes
from typing import Any, Final

_LIBRARY: Final = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_LEAST: Final = {13: 75}  # CUDA's major version -> the least compute capability that it supports, times ten


def gpu_names() -> list[str] | None:
    """The names of the GPUs that the driver can use; None without a driver."""
    if (cuda := _driver()) is None:
        return None
    count, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(100)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return []
    names = []
    for ordinal in range(count.value):
        cuda.cuDeviceGet(ctypes.byref(device), ordinal)
        cuda.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode())
    return names


def driver_cuda() -> str | None:
    """The newest CUDA that the driver knows, such as "13.0"; None without a driver."""
    driver, version = _driver(), ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return f"{version.value // 1_000}.{version.value % 1_000 // 10}"


def driver_obstacle(cuda: str) -> str:
    """Why the driver and its first GPU cannot run what was built with CUDA `cuda`, such as "13.0"; or "".

    The driver's library is asked, and not /proc, which WSL2 and sandboxes lack.
    """
    if (driver := _driver()) is None:
        return "no NVIDIA driver"
    count, needed, newest = ctypes.c_int(), _major(cuda), driver_cuda()
    if newest and _major(newest) < needed:
        return f"the NVIDIA driver knows CUDA up to {newest}, and onnxruntime needs {cuda}"
    if code := driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"the NVIDIA driver gives no GPU: CUDA error {code}: {_error_text(driver, code)}"
    if not count.value:
        return "the NVIDIA driver has no GPU, or CUDA_VISIBLE_DEVICES hides it"
    least, here = _LEAST.get(needed, 0), compute_capability()
    if here is not None and here < least:
        name = (gpu_names() or ["the GPU"])[0]
        return f"{name} has compute capability {here / 10}, and CUDA {cuda} needs {least / 10}"
    return ""


def compute_capability() -> int | None:
    """The compute capability of the first GPU, times ten; None without a GPU."""
    if (cuda := _driver()) is None:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    return None if failed else 10 * major.value + minor.value


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _error_text(driver: Any, code: int) -> str:
    text = ctypes.c_char_p()
    driver.cuGetErrorString(code, ctypes.byref(text))
    return (text.value or b"unknown error").decode()


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
