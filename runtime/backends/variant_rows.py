"""The variants of a bundle for people: what each is, and whether it runs here."""

from collections.abc import Mapping
from typing import Any, Final

from ..bundle import Bundle, Variant
from ..errors import RrtnError
from ..text import printable
from .choice import obstacle
from .cuda_libraries import cuda_missing
from .engine_stamp import mismatch, this_machine
from .mnn_kind import MNN_KIND

HEADER: Final = ("variant", "file", "input", "MB", "sha256", "against PyTorch", "here")


def refusals_of_bundle(bundle: Bundle) -> dict[str, str]:
    """Why the file of each variant is refused, by its name; "" where it is whole. Reads them all."""
    return {variant.name: _refusal(bundle, variant) for variant in bundle.variants}


def cells_of_variant(variant: Variant, refused: str) -> tuple[str, ...]:
    """The columns of HEADER; `refused` as `refusals_of_bundle` gives it."""
    state = state_of_variant(variant, refused).partition(";")[0]  # what to do about it is in --json
    size, digest = f"{variant.size / 1e6:.1f}", variant.sha256[:12]
    return (variant.name, variant.file, variant.input, size, digest, _parity(variant), state)


def state_of_variant(variant: Variant, refused: str) -> str:
    """Says whether the file is whole and something here runs it. If not, says why."""
    if refused:
        return f"refused: {refused}"
    if variant.plan and {"speedup", "cpu"} <= variant.plan.keys():  # a file alone has none of them
        over = variant.precision  # cpu is compared with fp32, cpu-int8 with int8
        half = variant.plan.get("speedup_half_silent")
        more = f" ({half} where half of a clip is silence)" if half else ""
        return f"runs, {variant.plan['speedup']} times as fast as {over}{more} on {variant.plan['cpu']}"
    if variant.kind != "engine":
        return "runs" if variant.kind == "onnx" else obstacle(variant, MNN_KIND.name) or "runs"
    if reason := mismatch(variant.stamp, this_machine()):
        return f"{reason}; build it where it shall run: rrtn export RUN --trt"
    if reason := cuda_missing():
        return f"{reason}, and engines use the CUDA memory of ONNX Runtime"
    return "fits this machine; tried at scoring"


def _refusal(bundle: Bundle, variant: Variant) -> str:
    try:
        bundle.read(variant)
    except RrtnError as error:
        return error.came
    return ""


def _parity(variant: Variant) -> str:
    if (parity := variant.parity) is None:
        return "not run here"
    forms = {"ccc_change": "CCC {:+z.4f}", "clips": "n {}"}
    shown = (form.format(parity[name]) for name, form in forms.items() if parity.get(name) is not None)
    largest = difference_text(parity)
    return ", ".join([f"max {largest}", *shown] if largest else shown)


def difference_text(parity: Mapping[str, Any]) -> str:
    """How far the scores are from PyTorch's, and of which label where these have several units."""
    if parity.get("max_abs") is None:
        return ""
    of = f" of {printable(parity['of'])}" if parity.get("of") else ""
    return f"{parity['max_abs']:.1e}{of}"
