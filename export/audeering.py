"""model.yaml, with which audEERING's `audonnx.load(bundle_folder)` opens a bundle.

The file names the graph, the labels, and a class of rrtn.runtime that prepares signals. It holds
data only, no code. rrtn must be installed beside audonnx where the model is used (the base install,
without torch). audonnx checks no hashes.
"""

from pathlib import Path
from typing import Final

from .. import __version__
from ..runtime.bundle import Bundle, Variant
from ..runtime.errors import ModelError
from ..runtime.model_input import ModelInput
from ..runtime.system.files import read_regular, write_bytes

MODEL_YAML: Final = "model.yaml"
# audobject's name of a class
_TRANSFORM: Final = f"${ModelInput.__module__}.{ModelInput.__name__}=={__version__}"


def audonnx_yaml_from_bundle(bundle: Bundle) -> Path:
    """Writes model.yaml into the bundle's folder, in place of an earlier one; -> its path.

    The model then takes signals [samples] or [channels, samples] of any length, level and rate, and
    gives [1, K] scores, those of `Scorer.score_waveform`; with embeddings a dict of `scores` and
    `embedding` [1, D]. Raises ModelError where the folder has a
    model.yaml that rrtn did not write.
    """
    target = bundle.path / MODEL_YAML
    if target.exists() and ModelInput.__module__.encode() not in read_regular(target):
        raise ModelError(str(target), "not written by rrtn", fix="move it away and run the command again")
    write_bytes(target, _yaml(bundle, _variant_for_signals(bundle)).encode())
    return target


def _variant_for_signals(bundle: Bundle) -> Variant:
    """The waveform graph, which needs no NumPy frontend.

    It sees samples only. Where short clips are padded in decibels, fp32 is taken instead.
    """
    names = ("fp32",) if bundle.spec.pad == "zero_db" else ("waveform", "fp32")
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
        f"    {_TRANSFORM}:",
        f"      input: {_scalar(variant.input)}",
        "      frontend:",
        *(f"        {name}: {_scalar(value)}" for name, value in bundle.spec.to_dict().items()),
    ]
    return "\n".join(lines) + "\n"


def _scalar(value: str | int | float) -> str:
    """A YAML 1.1 scalar, in ASCII.

    PyYAML takes 1e-10 for a string, and audonnx reads the file in the locale's encoding.
    """
    if isinstance(value, str):
        escaped = (c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
        return f'"{"".join(escaped)}"'
    number = repr(value)
    return number.replace("e", ".0e") if isinstance(value, float) and "." not in number else number
