"""rrtn inspect: shows a bundle as a table or as JSON."""

from typing import TYPE_CHECKING, Any

from ..runtime.errors import RrtnError
from ..runtime.text import printable
from .options import BundleArgument, Json, newest_bundle
from .printing import new_table, plain, print_json, print_table

if TYPE_CHECKING:
    from ..runtime.bundle import Bundle, Variant


def inspect(
    model: BundleArgument = None,
    as_json: Json = False,
) -> None:
    """Show what is in a bundle, and what of it can run here.

    Labels, frontend, variants, hashes and parity.
    """
    from ..runtime.bundle import load_bundle

    bundle = load_bundle(model or newest_bundle())
    print_json(bundle_json(bundle)) if as_json else print_bundle(bundle)


def bundle_json(bundle: "Bundle") -> dict[str, Any]:
    """The manifest, and what of it can run here."""
    here = {variant.name: _state(bundle, variant) for variant in bundle.variants}
    return {"bundle": str(bundle.path), **bundle.manifest(), "here": here, "auto": _auto(bundle)}


def print_bundle(bundle: "Bundle") -> None:
    """Prints a line for each variant, and what `--backend auto` would take."""
    table = new_table("variant", "file", "input", "MB", "sha256", "against PyTorch", "here")
    for variant in bundle.variants:
        parity = _parity_text(variant)
        size = f"{variant.size / 1e6:.1f}"
        state = _state(bundle, variant).partition(";")[0]  # what to do about it is in --json
        names = map(plain, (variant.name, variant.file, variant.input))
        table.add_row(*names, size, variant.sha256[:12], parity, plain(state))
    source = ", ".join(
        f"{key} {bundle.provenance[key]}"
        for key in ("encoder", "method", "epoch")
        if key in bundle.provenance
    )
    spec = bundle.spec
    audio = f"{spec.sampling_rate / 1000:g} kHz audio at {spec.peak_dbfs:g} dBFS"
    frontend = f"{spec.frames} frames x {spec.n_mels} mels of {audio}"
    auto = _auto(bundle)
    why = "".join(f"; not {what}: {reason}" for what, reason in auto["passed_over"].items())
    chosen = f"--backend auto: {auto['backend'] or 'nothing here'} {auto['variant'] or ''}".strip()
    caption = f"{frontend}; labels: {', '.join(map(printable, bundle.labels))}\n{chosen}{why}"
    print_table(table, title=f"{bundle.path}: {source or 'bare ONNX'}", caption=caption)


def _parity_text(variant: "Variant") -> str:
    if (parity := variant.parity) is None:
        return "not run here"
    forms = {"max_abs": "max {:.1e}", "ccc_change": "CCC {:+.4f}", "clips": "n {}"}
    return ", ".join(
        form.format(parity[name]) for name, form in forms.items() if parity.get(name) is not None
    )


def _state(bundle: "Bundle", variant: "Variant") -> str:
    """Says whether the file is whole and something here runs it. If not, says why."""
    from ..runtime.backends.cuda_libraries import cuda_missing
    from ..runtime.backends.engine_stamp import mismatch, this_machine

    try:
        bundle.read(variant)
    except RrtnError as error:
        return f"refused: {error.came}"
    if variant.kind == "onnx":
        if variant.plan:
            return f"runs, {variant.plan['speedup']} times as fast as fp32 on {variant.plan['cpu']}"
        return "runs"
    if reason := mismatch(variant.stamp, this_machine()):
        return f"{reason}; build it where it shall run: rrtn export --trt"
    if reason := cuda_missing():
        return f"{reason}, and engines use the CUDA memory of ONNX Runtime"
    return "fits this machine; tried at scoring"


def _auto(bundle: "Bundle") -> dict[str, Any]:
    """What `--backend auto` tries first here, and why nothing faster. No model is loaded to find out."""
    from ..runtime.backends.choice import candidates_of_bundle

    candidates, passed_over = candidates_of_bundle(bundle)
    device, variant = (candidates[0].device, candidates[0].variant.name) if candidates else (None, None)
    return {"backend": device, "variant": variant, "passed_over": passed_over}
