"""Runtimes for CPUs that one could take in place of ours, as their makers say: OpenVINO, MNN and ncnn.

In float32, and OpenVINO in bfloat16 where the processor multiplies it, and the int8 file that ours runs.
`make .peers` brings them, and what is missing is left out.

B batch, T frames, M mels, K labels.
"""

import contextlib
import importlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rrtn.runtime.arrays import Float32
from rrtn.runtime.system.cpus import usable_cpus
from rrtn.runtime.system.descriptors import quiet_stdout

sys.path.append(str(Path(__file__).parents[1] / ".peers"))  # behind all that rrtn itself uses
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # else its import reports itself
Runs = Callable[[Float32], Float32]  # log_mel [B, 1, T, M] -> scores [B, K]


def _imported(name: str) -> Any:
    """The module; None where it is not there."""
    with quiet_stdout(), contextlib.suppress(ImportError):
        return importlib.import_module(name)
    return None


openvino, MNN, ncnn = map(_imported, ("openvino", "MNN", "ncnn"))
_NOT_IN_NCNN = {"ReduceMax"}  # seen with ncnn 1.0.20261020; pnnx takes half a minute to find out
_PNNX = importlib.util.find_spec("pnnx")  # its program lies in the package


def missing() -> list[str]:
    """The runtimes that are not there."""
    found = {"openvino": openvino, "MNN": MNN, "ncnn": ncnn, "pnnx, for ncnn": _PNNX}
    return [name for name, module in found.items() if not module]


def openvino_run(model: Path, *, batch: int, threads: int, precision: str = "f32") -> Runs:
    """One batch after the other. `precision` is that of float operators: an int8 file stays in int8."""
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
    }
    compiled = openvino.Core().compile_model(openvino_model(model, batch), "CPU", config)
    request = compiled.create_infer_request()
    return lambda clips: np.array(request.infer({0: clips})[compiled.output(0)])


def openvino_model(model: Path, batch: int) -> Any:
    """With the batch size known, as it asks for."""
    loaded = openvino.Core().read_model(model)
    clip = [part.get_length() for part in list(loaded.input(0).partial_shape)[1:]]
    loaded.reshape({loaded.input(0): [batch, *clip]})
    return loaded


class OpenvinoThroughput:
    """Several batches at once, as many as it thinks best."""

    def __init__(self, model: Path, batch: int, precision: str = "f32") -> None:
        config = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": usable_cpus(),
            "INFERENCE_PRECISION_HINT": precision,
        }
        self._queue = openvino.AsyncInferQueue(
            openvino.Core().compile_model(openvino_model(model, batch), "CPU", config)
        )
        self._found: dict[int, Float32] = {}
        self._queue.set_callback(self._done)

    def _done(self, request: Any, number: int) -> None:
        self._found[number] = np.array(request.get_output_tensor(0).data)

    def scores(self, batches: Any) -> Float32:
        """Batches [B, 1, T, M] -> [n, K]."""
        self._found.clear()
        for number, batch in enumerate(batches):
            self._queue.start_async({0: batch}, number)
        self._queue.wait_all()
        return np.concatenate([self._found[number] for number in sorted(self._found)])


def mnn_run(model: Path, *, batch: int, threads: int) -> Runs:
    """One batch after the other."""
    with quiet_stdout():
        interpreter = MNN.Interpreter(str(_mnn_file(model)))
        session = interpreter.createSession({"numThread": threads})
    entry = interpreter.getSessionInput(session)
    shape = (batch, *entry.getShape()[1:])
    interpreter.resizeTensor(entry, shape)
    interpreter.resizeSession(session)

    def run(clips: Float32) -> Float32:
        entry.copyFrom(_mnn_tensor(np.ascontiguousarray(clips)))
        if interpreter.runSession(session):
            raise SystemExit("MNN refused a batch")
        output = interpreter.getSessionOutput(session, "scores")
        host = _mnn_tensor(np.empty(output.getShape(), np.float32))
        output.copyToHostTensor(host)
        return np.array(host.getNumpyData(), np.float32)

    return run


def _mnn_tensor(array: Float32) -> Any:
    return MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)


@cache
def _mnn_file(model: Path) -> Path:
    """The one of the same bundle, or a new one."""
    from rrtn.export.mnn_file import mnn_from_onnx

    path = model.with_suffix(".mnn")
    if not path.exists():
        content, _ = mnn_from_onnx(model.read_bytes())
        path.write_bytes(content)
    return path


def ncnn_run(model: Path, *, threads: int) -> Runs | None:
    """One clip after the other: ncnn has no batches. None for a model that it has not all operators for."""
    if unknown := _NOT_IN_NCNN & {node.op_type for node in onnx.load(model).graph.node}:
        print(f"{model}: ncnn has no {', '.join(sorted(unknown))}, and is left out", file=sys.stderr)
        return None
    param, weights = _ncnn_files(model)
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_bf16_storage = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_fp16_packed = False
    if net.load_param(str(param)) or net.load_model(str(weights)):
        print(f"{model}: ncnn does not load it, and is left out", file=sys.stderr)
        return None

    def score(clip: Float32) -> Float32:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(np.ascontiguousarray(clip)))
        _, found = extractor.extract("out0")
        return np.array(found, np.float32).reshape(-1)

    return lambda clips: np.stack([score(clip) for clip in clips])


@cache
def _ncnn_files(model: Path) -> tuple[Path, Path]:
    folder = model.parent / f"{model.stem} ncnn"
    shutil.rmtree(folder, ignore_errors=True)  # of a run before
    folder.mkdir()
    shutil.copy(model, folder / "m.onnx")
    assert _PNNX and _PNNX.origin
    command = [str(Path(_PNNX.origin).with_name("pnnx")), "m.onnx", "inputshape=[1,1,250,64]f32", "fp16=0"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "m.ncnn.param", folder / "m.ncnn.bin"
