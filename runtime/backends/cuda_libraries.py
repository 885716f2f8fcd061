"""Whether ONNX Runtime can use CUDA here: its provider, the driver, the libraries."""

import contextlib
import ctypes
import importlib.util
from pathlib import Path
from typing import Final

import onnxruntime

from ..errors import UnavailableError
from ..system.packages import installed_version
from .cuda_driver import driver_obstacle

CUDA_PROVIDER: Final = "CUDAExecutionProvider"
INSTALL_AGAIN: Final = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
_INSTALL_LIBRARIES: Final = 'pip install "onnxruntime-gpu[cuda,cudnn]"'


def cuda_missing() -> str:
    """Why ONNX Runtime cannot use CUDA here, or "" if it should be able to. Loads the driver alone."""
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        if installed_version("onnxruntime-gpu"):  # both packages write the same folder
            return f"another onnxruntime has overwritten onnxruntime-gpu: {INSTALL_AGAIN}"
        return "this onnxruntime has no CUDA provider, onnxruntime-gpu has one"
    return driver_obstacle(onnxruntime.cuda_version)


def missing_library() -> str:
    """Which library ONNX Runtime's CUDA provider lacks, or "" if it lacks none.

    It loads the libraries, which takes about a second. ONNX Runtime itself would only log a missing
    one and continue on the CPU.
    """
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(None):  # it prints, and our stdout may be a table or JSON
            onnxruntime.preload_dlls()  # from the nvidia-* wheels beside it, or from the system
            for folder in _library_folders():
                onnxruntime.preload_dlls(directory=str(folder))
    folder = Path(onnxruntime.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
        # The provider loads without cuDNN, too, but then lacks convolutions or has slow ones
        # (onnxruntime#29252).
        ctypes.CDLL("libcudnn.so.9")
    except OSError as error:
        return f"{str(error).partition(':')[0]} cannot be loaded"
    return ""


def _library_folders() -> list[Path]:
    """The folders of libraries in the nvidia-* wheels, wherever these are on the path.

    ONNX Runtime looks beside itself only, and `pip --target` may have put it elsewhere.
    """
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    return [folder for place in places or () for folder in sorted(Path(place).glob("*/lib"))]


def load_cuda() -> None:
    """Loads CUDA and cuDNN for ONNX Runtime. Raises UnavailableError with the reason."""
    if reason := cuda_missing():
        raise UnavailableError("--backend cuda", reason, wanted="a CUDA GPU", fix="use --backend cpu")
    if reason := missing_library():
        raise UnavailableError(
            "--backend cuda", reason, wanted="the libraries of CUDA and cuDNN", fix=_INSTALL_LIBRARIES
        )
