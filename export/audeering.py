"""model.yaml, with which audEERING's `audonnx.load(bundle_folder)` opens a bundle.

The file names the graph, the labels, and what prepares a signal: `signal_for_model`, whose source stands in
the file, as audonnx keeps functions. audonnx executes it, so that rrtn need not be installed there. audonnx
checks no hashes.
"""

import inspect
import math
from pathlib import Path
from typing import Any, Final

from .. import __version__
from ..runtime.audio.mixdown import OFFSET_SHARE, SHORTEST_WITH_OFFSET, SILENCE_PEAK
from ..runtime.bundle import Bundle, Variant
from ..runtime.errors import ModelError
from ..runtime.model_input import ModelInput
from ..runtime.system.files import read_regular, write_output

MODEL_YAML: Final = "model.yaml"
# audobject's name of a class
_TRANSFORM: Final = f"${ModelInput.__module__}.{ModelInput.__name__}=={__version__}"
_FUNCTION: Final = "$audonnx.core.function.Function"


def signal_for_model(
    signal: "Any",
    sampling_rate: "int | None" = None,
    *,
    input: "Any",
    frontend: "dict[str, Any]",
    silence_peak: "float",
    offset_share: "float",
    shortest_with_offset: "int",
) -> "Any":
    """signal [N] or [C, N] -> what the graph takes: samples [N], or a waveform of one clip, levelled.

    With rrtn, of any rate; without, of the model's rate only. Raises ValueError for another one.
    """
    try:
        from rrtn.runtime.model_input import ModelInput
    except ImportError:
        import numpy as np
    else:
        return ModelInput(input, frontend)(signal, sampling_rate)
    rate, frames = frontend["sampling_rate"], frontend["frames"]
    if sampling_rate != rate:
        raise ValueError(f"{sampling_rate} Hz: the model takes {rate} Hz; resample, or install rrtn")
    channels = np.atleast_2d(np.asarray(signal, np.float32))
    if not channels.size or not np.isfinite(channels).all():
        raise ValueError("signal: no samples, or NaN or infinity among them")
    mono = channels.mean(axis=0)
    if input == "samples":
        return mono
    mean = mono.mean(dtype=np.float64)
    allowed = max(offset_share * max(mono.max() - mean, mean - mono.min()), silence_peak)
    if len(mono) >= shortest_with_offset and abs(mean) > allowed:
        mono = mono - np.float32(mean)
    peak, clip = np.abs(mono).max(), np.zeros((frames - 1) * frontend["hop"], np.float32)
    if peak >= silence_peak:
        first = mono[: len(clip)]
        full = np.float32(32768 * 10 ** (frontend["peak_dbfs"] / 20))
        clip[: len(first)] = np.round(first * (full / peak)) / 32768
    return clip


def check_model_yaml(folder: Path) -> None:
    """Raises ModelError where a folder has a model.yaml that rrtn did not write."""
    target = folder / MODEL_YAML
    if target.exists() and ModelInput.__module__.encode() not in read_regular(target):
        raise ModelError(str(target), "not written by rrtn", fix="move it away and run the command again")


def audonnx_yaml_from_bundle(bundle: Bundle) -> Path:
    """Writes model.yaml into the bundle's folder, in place of an earlier one; -> its path.

    The model then takes signals [samples] or [channels, samples] of any length and level, and gives
    [1, K] scores, those of `Scorer.score_waveform`; with embeddings a dict of `scores` and `embedding`
    [1, D]. With rrtn beside audonnx the signals may have any rate, else the model's.
    """
    target = bundle.path / MODEL_YAML
    write_output(target, _yaml(bundle, _variant_for_signals(bundle)).encode())
    return target


def _variant_for_signals(bundle: Bundle) -> Variant:
    """The graph with the most inside: what it lacks, the function or rrtn must do."""
    spec = bundle.spec
    names = ("samples", "fp32") if spec.pad == "zero_db" else ("samples", "waveform", "fp32")
    for name in names:
        if variant := bundle.variant(name):
            return variant
    raise ModelError(
        str(bundle.path),
        f"no variant {' or '.join(names)}",
        wanted="an ONNX file that audonnx can run",
        fix="export again",
    )


def _yaml(bundle: Bundle, variant: Variant) -> str:
    lines = [
        "$audonnx.core.model.Model:",  # audonnx looks for it in the first line
        f"  path: {_scalar(variant.file)}",
        "  labels:",
        "    scores:",  # with --embeddings the graph has another output, which has no labels
        *(f"    - {_scalar(label)}" for label in bundle.labels),
        "  transform:",
        *(_class_of_rrtn(bundle, variant) if _needs_rrtn(bundle, variant) else _function(bundle, variant)),
    ]
    return "\n".join(lines) + "\n"


def _needs_rrtn(bundle: Bundle, variant: Variant) -> bool:
    """A graph that takes log-Mels, or a clip whose silence is not cut off."""
    return variant.input == "logmel" or (variant.input == "waveform" and bundle.spec.trim)


def _class_of_rrtn(bundle: Bundle, variant: Variant) -> list[str]:
    return [
        f"    {_TRANSFORM}:",
        f"      input: {_scalar(variant.input)}",
        "      frontend:",
        *(f"        {name}: {_scalar(value)}" for name, value in bundle.spec.to_dict().items()),
    ]


def _function(bundle: Bundle, variant: Variant) -> list[str]:
    shortest = math.ceil(SHORTEST_WITH_OFFSET * bundle.spec.sampling_rate)
    return [
        f"    {_FUNCTION}:",
        "      func: |",
        *(f"        {line}" for line in inspect.getsource(signal_for_model).splitlines()),
        "      func_args:",
        f"        input: {_scalar(variant.input)}",
        f"        silence_peak: {_scalar(SILENCE_PEAK)}",
        f"        offset_share: {_scalar(OFFSET_SHARE)}",
        f"        shortest_with_offset: {shortest}",
        "        frontend:",
        *(f"          {name}: {_scalar(value)}" for name, value in bundle.spec.to_dict().items()),
    ]


def _scalar(value: str | int | float) -> str:
    """A YAML 1.1 scalar, in ASCII.

    PyYAML takes 1e-10 for a string, and audonnx reads the file in the locale's encoding.
    """
    if isinstance(value, str):
        escaped = (c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
        return f'"{"".join(escaped)}"'
    number = repr(value)
    return number.replace("e", ".0e") if isinstance(value, float) and "." not in number else number
