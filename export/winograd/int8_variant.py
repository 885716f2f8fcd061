"""The variant `cpu-int8`: int8 convolutions of what sounds, and from where it pays the fewer products.

The early layers are those of the variant `int8`. The deep ones are in slots, as in the variant `cpu`: the
transforms are float, and the transformed samples and kernels are rounded to int8 (as in LoWino: Li et al.,
"LoWino: Towards Efficient Low-Precision Winograd Convolutions on Modern CPUs", ICPP 2021), with a fixed scale
for each product of a tile, so that a clip's scores do not depend on the others of its batch.
The silence behind a recording is not computed.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx

from ...runtime.arrays import Float32, Float64
from ...runtime.backends.ort_session import session_from_bytes
from ..int8 import correct_head, quantised_before
from .conv_cost import modelled_int8_ms
from .cpu_variant import BATCH, CpuVariant, measured_variant
from .rewriting import WinogradPlan, plan_of, with_plan, with_transformed_samples
from .slot_layout import SAMPLE_STEPS

_CLIPS: Final = 8  # at once, as their transformed samples are kept
_SAMPLES: Final = 4096  # of each of these and each product
_SHARES: Final = np.linspace(0.3, 1, 29)  # of the largest sample, that a scale may reach


def cpu_int8_variant_of(
    fp32: bytes, int8: bytes, calibration: Float32, silence: float, *, slower_too: bool = False
) -> CpuVariant:
    """Makes the variant from the file of the variant fp32; `int8` is what it has to beat.

    `calibration` are the log-mels [n, 1, T, M] that made `int8`; `silence` is what they hold behind a
    recording, in dB. Raises NotFasterError where the result is not faster here with clips of which half is
    silence, unless `slower_too`.
    """
    model = onnx.load_model_from_string(fp32)
    plan = plan_of(model, BATCH, modelled_int8_ms)
    if plan:
        made = int8_with_plan(model, plan, calibration, silence)
    else:
        made = with_plan(onnx.load_model_from_string(int8), plan, silence=silence)
    return measured_variant("cpu-int8", made, plan, ("int8", int8), slower_too=slower_too)


def int8_with_plan(
    fp32: onnx.ModelProto, plan: WinogradPlan, calibration: Float32, silence: float | None = None
) -> onnx.ModelProto:
    """A new model: planned convolutions by int8 products, those before them directly in int8.

    With `silence` as in `with_plan`.
    """
    scales = product_scales(fp32, plan, calibration)
    made = with_plan(quantised_before(fp32, plan, calibration), plan, scales, silence=silence)
    correct_head(made, fp32, calibration)
    return made


def product_scales(fp32: onnx.ModelProto, plan: WinogradPlan, calibration: Float32) -> Mapping[str, Float64]:
    """The name of each convolution's weights -> the scales [r] of its transformed samples.

    Each has the least squared error on the samples of calibration that are looked at, the largest of each
    few clips among them.
    """
    model, outputs = with_transformed_samples(fp32, plan)
    session = session_from_bytes(model, "cpu-int8", "cpu")
    rng = np.random.default_rng(0)
    kept: dict[str, list[Float32]] = {name: [] for name in outputs}
    for begin in range(0, len(calibration), _CLIPS):
        clips = {session.get_inputs()[0].name: calibration[begin : begin + _CLIPS]}
        for name, samples in zip(outputs, session.run(list(outputs.values()), clips), strict=True):
            kept[name].append(_some_of(samples.reshape(len(samples), -1), rng))
    return {
        name: np.array([_least_error(samples) for samples in np.concatenate(parts, 1)])
        for name, parts in kept.items()
    }


def _some_of(samples: Float32, rng: np.random.Generator) -> Float32:
    """[r, n] -> [r, _SAMPLES + 1]: random ones, and the one with the largest magnitude of each row."""
    magnitudes = np.abs(samples)
    chosen = rng.integers(0, samples.shape[1], _SAMPLES)
    return np.concatenate([magnitudes[:, chosen], magnitudes.max(1, keepdims=True)], axis=1)


def _least_error(magnitudes: Float32) -> float:
    """The scale with which rounding and clipping cost least, in squares."""
    largest = max(float(magnitudes.max()), float(np.finfo(np.float32).eps))
    scales = _SHARES * largest / SAMPLE_STEPS
    errors = [_error(magnitudes, float(scale)) for scale in scales]
    return float(scales[int(np.argmin(errors))])


def _error(magnitudes: Float32, scale: float) -> float:
    steps = np.minimum(np.round(magnitudes / scale), SAMPLE_STEPS)
    return float(np.square(steps * scale - magnitudes).mean(dtype=np.float64))
