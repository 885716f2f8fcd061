"""ONNX variants, run by OpenVINO on the processor.

B batch, N samples, T frames, M mels, K labels, D embedding.
"""

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from ..bundle import Bundle, Variant
from ..errors import UnavailableError
from ..system.cpus import usable_cpus
from .backend_errors import ort_errors
from .lanes import Lanes
from .model_batch import ClipBatch, HostModel, Outputs, Spent, check_fit, takes_sound_only, widened

_SIZES: Final = 4  # of batches, for which the model is compiled
_ANY: Final = -1


class _Programs:
    """The model, compiled for each size of batch that comes: a tenth to a third faster than one for any size.

    A server has many sizes: those after the first four share one program, for any size.
    """

    def __init__(self, core: Any, model: Any, config: dict[str, Any], lanes: int) -> None:
        """At most `lanes` batches of one size run at once."""
        self._core, self._model, self._config, self._most = core, model, config, lanes
        self._compiled: dict[int, Lanes[Any]] = {}
        self._lock = threading.Lock()

    def requests(self, size: int) -> Lanes[Any]:
        """What runs batches of so many clips, each with a request of its own."""
        with self._lock:
            key = size if size in self._compiled or len(self._compiled) < _SIZES else _ANY
            if key not in self._compiled:
                compiled = self._core.compile_model(self._model_for(key), "CPU", self._config)
                self._compiled[key] = Lanes(compiled.create_infer_request, self._most)
            return self._compiled[key]

    def _model_for(self, size: int) -> Any:
        if size == _ANY:
            return self._model
        model = self._model.clone()
        entry = model.input(0)
        model.reshape({entry: [size, *list(entry.partial_shape)[1:]]})
        return model


@dataclass(frozen=True)
class OpenvinoBackend(HostModel):
    """A loaded ONNX variant."""

    variant: Variant
    device: str
    outputs: tuple[str, ...]  # their names, in their order
    embedding_size: int | None  # D; None if the graph gives no embeddings
    programs: _Programs

    def run(self, batch: ClipBatch, spent: Spent | None = None) -> Outputs:
        """log_mel [B, 1, T, M] or waveform [B, N] -> scores [B, K], embedding [B, D] or None.

        Adds the time of each step to `spent`. Raises OutOfMemoryError if the batch is too large,
        and ModelError for anything else that OpenVINO refuses.
        """
        subject = f"{self.variant.file} on {self.device}, batch {batch.shape}"
        with ort_errors(subject), self.programs.requests(len(batch)).one() as request:
            begin = time.perf_counter()
            request.infer({0: np.ascontiguousarray(widened(batch))}, share_inputs=True)
            ran = time.perf_counter()
            found = {name: np.array(request.get_output_tensor(i).data) for i, name in enumerate(self.outputs)}
            if spent:
                spent.add(begin, begin, ran, time.perf_counter())
            return Outputs(found["scores"], found.get("embedding"))


def openvino_backend_from_bundle(
    bundle: Bundle,
    variant: Variant,
    device: str,
    *,
    threads: int | None,
    precision: Literal["f32", "bf16"],
) -> OpenvinoBackend:
    """Loads an ONNX variant from the same bytes that were hashed; `threads` are those of a batch.

    `device` is the backend's name. `precision` is that of operators that are float32 in the file: one in int8
    stays in int8. Raises ModelError if OpenVINO refuses the model, and UnavailableError if it cannot be
    loaded.
    """
    model = bundle.read(variant)
    openvino = _imported(device)
    lanes = max(1, usable_cpus() // (threads or usable_cpus()))
    config = {
        "INFERENCE_PRECISION_HINT": precision,  # by default it takes bfloat16 where the processor has it
        "NUM_STREAMS": lanes,
        "INFERENCE_NUM_THREADS": lanes * (threads or usable_cpus()),
        "ENABLE_CPU_PINNING": False,  # the decoders want the cores, too
    }
    with ort_errors(f"{variant.file} on {device}"):
        core = openvino.Core()
        read = core.read_model(model=model)
    inputs, outputs = _shapes(read.inputs), _shapes(read.outputs)
    check_fit(bundle, variant, inputs, outputs)
    if takes_sound_only(*inputs.values()):  # it would make a program for each number of frames
        read.reshape({0: [_ANY, 1, bundle.spec.frames, bundle.spec.n_mels]})
    embedding_size = outputs["embedding"][-1] if "embedding" in outputs else None
    programs = _Programs(core, read, config, lanes)
    return OpenvinoBackend(variant, device, tuple(outputs), embedding_size, programs)


def _imported(device: str) -> Any:
    """The module. Its import would tell Google Analytics of it, by a process that it forks."""
    modules: dict[str, Any] = sys.modules
    telemetry = modules.setdefault("openvino_telemetry", None)  # OpenVINO goes on without it
    try:
        import openvino
    except (ImportError, OSError) as error:
        raise UnavailableError(
            f"--backend {device}", str(error), wanted="an OpenVINO that can be loaded", fix="run: rrtn doctor"
        ) from error
    finally:
        if telemetry is None:
            modules.pop("openvino_telemetry", None)  # another thread may have done so
    return openvino


def _shapes(tensors: Sequence[Any]) -> dict[str, list[int]]:
    """Name -> shape, a free size as -1. What is not in float32 has none."""
    return {tensor.any_name: _sizes(tensor) if _is_float(tensor) else [] for tensor in tensors}


def _is_float(tensor: Any) -> bool:
    return bool(tensor.element_type.get_type_name() == "f32")


def _sizes(tensor: Any) -> list[int]:
    return [size.get_length() if size.is_static else -1 for size in tensor.partial_shape]
