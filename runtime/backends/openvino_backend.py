"""ONNX variants, run by OpenVINO on the processor.

B batch, N samples, T frames, M mels, K labels, D embedding.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..bundle import Bundle, Variant
from ..errors import UnavailableError
from ..system.cpus import usable_cpus
from .backend_errors import ort_errors
from .lanes import Lanes
from .model_batch import ClipBatch, HostModel, Outputs, Spent, check_fit

_NAME: Final = "openvino"  # of the backend


@dataclass(frozen=True)
class OpenvinoBackend(HostModel):
    """A compiled ONNX variant. Each batch that runs has a request of its own."""

    variant: Variant
    outputs: tuple[str, ...]  # their names, in their order
    embedding_size: int | None  # D; None if the graph gives no embeddings
    requests: Lanes[Any]
    device: str = _NAME

    def run(self, batch: ClipBatch, spent: Spent | None = None) -> Outputs:
        """log_mel [B, 1, T, M] or waveform [B, N] -> scores [B, K], embedding [B, D] or None.

        Adds the time of each step to `spent`. Raises OutOfMemoryError if the batch is too large,
        and ModelError for anything else that OpenVINO refuses.
        """
        subject = f"{self.variant.file} on {self.device}, batch {batch.shape}"
        with ort_errors(subject), self.requests.one() as request:
            begin = time.perf_counter()
            request.infer({0: np.ascontiguousarray(batch, np.float32)}, share_inputs=True)
            ran = time.perf_counter()
            found = {name: np.array(request.get_output_tensor(i).data) for i, name in enumerate(self.outputs)}
            if spent:
                spent.add(begin, begin, ran, time.perf_counter())
            return Outputs(found["scores"], found.get("embedding"))


def openvino_backend_from_bundle(
    bundle: Bundle, variant: Variant, *, threads: int | None = None
) -> OpenvinoBackend:
    """Compiles an ONNX variant from the same bytes that were hashed; `threads` are those of a batch.

    Raises ModelError if OpenVINO refuses the model, and UnavailableError if it cannot be loaded.
    """
    model = bundle.read(variant)
    openvino = _imported()
    lanes = max(1, usable_cpus() // (threads or usable_cpus()))
    config = {
        # By default it computes in bfloat16 where the processor can. An int8 file stays in int8.
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": lanes,
        "INFERENCE_NUM_THREADS": lanes * (threads or usable_cpus()),
        "ENABLE_CPU_PINNING": False,  # the decoders want the cores, too
    }
    with ort_errors(f"{variant.file} on {_NAME}"):
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(model=model), "CPU", config)
    inputs, outputs = _shapes(compiled.inputs), _shapes(compiled.outputs)
    check_fit(bundle, variant, inputs, outputs)
    return OpenvinoBackend(
        variant,
        tuple(outputs),
        outputs["embedding"][-1] if "embedding" in outputs else None,
        Lanes(compiled.create_infer_request, lanes),
    )


def _imported() -> Any:
    try:
        import openvino
    except (ImportError, OSError) as error:
        raise UnavailableError(
            f"--backend {_NAME}", str(error), wanted="an OpenVINO that can be loaded", fix="run: rrtn doctor"
        ) from error
    return openvino


def _shapes(tensors: Sequence[Any]) -> dict[str, list[int]]:
    """Name -> shape, a free size as -1. What is not in float32 has none."""
    return {tensor.any_name: _sizes(tensor) if _is_float(tensor) else [] for tensor in tensors}


def _is_float(tensor: Any) -> bool:
    return bool(tensor.element_type.get_type_name() == "f32")


def _sizes(tensor: Any) -> list[int]:
    return [size.get_length() if size.is_static else -1 for size in tensor.partial_shape]
