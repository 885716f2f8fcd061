"""Which runtimes load a bundle's ONNX files, and how far their scores are from those of ONNX Runtime.

    python benchmarks/load_everywhere.py BUNDLE [--runtimes openvino,tract,mnn,ncnn]

A cell is the largest difference of a score, or why there is none. ncnn takes files of its own format, which
pnnx makes for one shape. A runtime that is not installed is said: pip install openvino mnn tract ncnn pnnx.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rrtn.runtime import load_bundle
from rrtn.runtime.bundle import Bundle, Variant
from rrtn.runtime.frontend import clip_input

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # else its import reports itself
Array = NDArray[np.float32]
Run = Callable[[Array], Array]  # batch of one -> scores [1, K]
Load = Callable[[Path, str, tuple[int, ...]], Run]  # file, name of its input, shape of the first batch

LENGTHS = (39_840, 1, 5_000, 100_000)  # samples of a recording; other inputs are of one size
PACKAGES = {"openvino": ["openvino"], "tract": ["tract"], "mnn": ["MNN"], "ncnn": ["ncnn", "pnnx"]}


def openvino(path: Path, name: str, shape: tuple[int, ...]) -> Run:
    import openvino

    core = openvino.Core()
    read = core.read_model(str(path))
    if name == "log_mel":  # with free frames `cpu-int8` has wrong scores, see docs/hosts.md
        read.reshape({name: [-1, *shape[1:]]})
    # Without the hint it computes in bfloat16 where the processor can.
    model = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: np.asarray(model({name: batch})["scores"])


def tract(path: Path, name: str, shape: tuple[int, ...]) -> Run:
    import tract

    model = tract.onnx().load(str(path)).into_model().into_runnable()
    return lambda batch: np.asarray(model.run([batch])[0].to_numpy())


def mnn(path: Path, name: str, shape: tuple[int, ...]) -> Run:
    from MNN import expr, nn

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.mnn"
        # Not `MNN.tools.mnnconvert`, which reports each conversion to MNN's makers.
        program = "import sys, _tools; _tools.mnnconvert(sys.argv)"
        convert = [sys.executable, "-c", program, "-f", "ONNX", "--bizCode", "rrtn"]
        ran = [*convert, "--modelFile", str(path), "--MNNModel", str(made)]
        subprocess.run(ran, capture_output=True, check=False)
        if not made.exists():
            raise RuntimeError("its converter makes no file")
        module = nn.load_module_from_file(str(made), [name], ["scores"])

    def run(batch: Array) -> Array:
        value = expr.const(batch.ravel().tolist(), list(batch.shape), expr.NCHW, expr.float)
        if not (outputs := module.forward([value])):
            raise RuntimeError("no output")
        return np.array(expr.convert(outputs[0], expr.NCHW).read())

    return run


def ncnn(path: Path, name: str, shape: tuple[int, ...]) -> Run:
    import ncnn
    import pnnx

    program = Path(pnnx.__file__).parent / "pnnx"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.onnx"
        copy.write_bytes(path.read_bytes())
        inputs = f"inputshape=[{','.join(map(str, shape))}]f32"
        subprocess.run([program, copy, inputs, "fp16=0"], cwd=folder, capture_output=True, check=False)
        net = ncnn.Net()
        net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = False
        param, weights = Path(folder) / "model.ncnn.param", Path(folder) / "model.ncnn.bin"
        if net.load_param(str(param)) or net.load_model(str(weights)):
            raise RuntimeError("pnnx leaves an operator that ncnn does not have")

    def run(batch: Array) -> Array:
        if batch.shape != shape:
            raise RuntimeError(f"made for {shape} alone")
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(np.ascontiguousarray(batch[0])))
        return np.array(extractor.extract("out0")[1])[None]

    return run


RUNTIMES: dict[str, Load] = {"openvino": openvino, "tract": tract, "mnn": mnn, "ncnn": ncnn}


def batches(bundle: Bundle, variant: Variant) -> list[Array]:
    """Batches of one: noise that grows, at the level of real clips."""
    rng = np.random.default_rng(0)
    lengths = LENGTHS if variant.input == "samples" else (bundle.spec.clip_samples,)
    noises = [(rng.uniform(-1, 1, n) * np.linspace(0.1, bundle.spec.peak, n)) for n in lengths]
    return [clip_input(noise.astype(np.float32), bundle.spec, variant.input)[None] for noise in noises]


def cell(bundle: Bundle, variant: Variant, runtime: str) -> dict[str, Any]:
    """The largest difference to ONNX Runtime, or the reason why there is none."""
    path = bundle.path / variant.file
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name, many = session.get_inputs()[0].name, batches(bundle, variant)
    try:
        run = RUNTIMES[runtime](path, name, many[0].shape)
        differences = [np.abs(run(x) - session.run(["scores"], {name: x})[0]).max() for x in many]
    except Exception as error:  # each runtime has errors of its own
        return {"reason": (str(error).strip().splitlines() or [type(error).__name__])[0]}
    return {"difference": float(max(differences))}


def cell_in_a_process(folder: Path, variant: str, runtime: str) -> dict[str, Any]:
    """A runtime that cannot run a file may end the process that tries."""
    command = [sys.executable, __file__, str(folder), "--runtimes", runtime, "--variant", variant]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"reason": f"it ends the process ({done.returncode})"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def missing(runtime: str) -> list[str]:
    return [name for name in PACKAGES[runtime] if not importlib.util.find_spec(name)]


def cells(bundle: Bundle, runtimes: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(runtime, variant, cell), as they are found."""
    names = [variant.name for variant in bundle.variants if variant.kind == "onnx"]
    for runtime in runtimes:
        lacks = " ".join(missing(runtime)).lower()
        for name in names:
            not_here = {"reason": f"pip install {lacks}"}
            yield runtime, name, not_here if lacks else cell_in_a_process(bundle.path, name, runtime)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runtimes", default=",".join(RUNTIMES))
    parser.add_argument("--variant", help="this one only, in this process")
    arguments = parser.parse_args()
    bundle, runtimes = load_bundle(arguments.bundle), arguments.runtimes.split(",")
    if arguments.variant:
        variant = bundle.variant(arguments.variant)
        assert variant, arguments.variant
        print(json.dumps(cell(bundle, variant, runtimes[0])))
        return
    installed = [one for runtime in runtimes for one in PACKAGES[runtime] if importlib.util.find_spec(one)]
    versions = {name: importlib.metadata.version(name) for name in ["onnxruntime-gpu", *installed]}
    found = []
    for runtime, name, one in cells(bundle, runtimes):
        found.append({"runtime": runtime, "variant": name, **one})
        print(f"{runtime:9} {name:17} {one.get('reason') or format(one['difference'], '.1e')}", flush=True)
    print(json.dumps({"versions": versions, "results": found}))  # the last line, as of every benchmark


if __name__ == "__main__":
    main()
