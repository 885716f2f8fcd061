"""Builds stub libraries of CUDA, under which the real onnxruntime-gpu loads and places models without a GPU.

Every symbol that ONNX Runtime's CUDA provider takes gets a function: those in the C files beside this one
do something, all others return 0. Needs gcc, nm, strings, and the CUDA headers of the nvidia wheels.
"""

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import onnxruntime

HERE = Path(__file__).parent
PROVIDER = Path(onnxruntime.__file__).parent / "capi/libonnxruntime_providers_cuda.so"
HEADERS = Path(onnxruntime.__file__).parents[1] / "nvidia/cu13/include"
TOOLS = ("gcc", "nm", "strings")
SOURCES = {"libcudart.so.13": "cudart.c", "libcuda.so.1": "driver.c"}
DRIVER = (
    "cuTensorMapEncodeTiled",
    "cuDeviceGet",
    "cuCtxSetCurrent",
    "cuStreamSynchronize",
    "cuModuleLoadData",
)
DEFINED = re.compile(r"\b((?:__)?cu[A-Za-z_0-9]+)\s*\([^;{]*\)\s*\{")


def build(folder: Path) -> list[Path]:
    """-> the libraries, for LD_PRELOAD."""
    return [_library(folder, name, symbols) for name, symbols in sorted(_symbols().items())]


def _symbols() -> dict[str, set[str]]:
    """What the provider links, by library; of cuDNN, which it opens by itself, all names that it has."""
    symbols: dict[str, set[str]] = defaultdict(set)
    linked = subprocess.check_output(["nm", "-D", "--undefined-only", PROVIDER], text=True)
    for name, library in re.findall(r"(\w+)@(lib(?:cu|nv)[\w.]+)$", linked, flags=re.M):
        symbols[library].add(name)
    texts = subprocess.check_output(["strings", "-n", "6", PROVIDER], text=True)
    symbols["libcudnn.so.9"] = set(re.findall(r"^cudnn[A-Z]\w+$", texts, flags=re.M))
    symbols["libcuda.so.1"] = set(DRIVER)
    symbols["libcurand.so.10"] = {"curandCreateGenerator"}  # linked without a symbol
    return symbols


def _library(folder: Path, name: str, symbols: set[str]) -> Path:
    source = (HERE / SOURCES.get(name, "libraries.c")).read_text()
    empty = sorted(symbols - set(DEFINED.findall(source)))
    code = [source, *(f'long z_{one}() __asm__("{one}"); long z_{one}() {{ return 0; }}\n' for one in empty)]
    (folder / f"{name}.c").write_text("".join(code))
    command = ["gcc", "-shared", "-fPIC", "-w", f"-I{HERE}", f"-I{HEADERS}", f"-Wl,-soname,{name}"]
    if name not in ("libcuda.so.1", "libcudnn.so.9"):  # the provider asks for their symbols by version
        (folder / f"{name}.map").write_text(f"{name} {{ global: *; }};")
        command.append(f"-Wl,--version-script={folder / name}.map")
    subprocess.run([*command, "-o", folder / name, folder / f"{name}.c"], check=True)
    return folder / name
