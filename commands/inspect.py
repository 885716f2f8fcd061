"""rrtn inspect: shows a bundle as a table or as JSON."""

from typing import TYPE_CHECKING, Any

from ..runtime.text import printable
from .options import BundleArgument, Json, bundle_place
from .printing import Column, Table, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..runtime.bundle import Bundle


def inspect(
    model: BundleArgument = None,
    as_json: Json = False,
) -> None:
    """Show what is in a bundle, and what of it can run here.

    Labels, frontend, variants, hashes and parity.
    """
    from ..runtime.bundle import load_bundle

    bundle = load_bundle(bundle_place(model))
    print_json(bundle_json(bundle)) if as_json else print_bundle(bundle)


def bundle_json(bundle: "Bundle") -> dict[str, Any]:
    """The manifest, and what of it can run here."""
    from ..runtime.backends.variant_rows import refusals_of_bundle, state_of_variant

    refused = refusals_of_bundle(bundle)
    here = {variant.name: state_of_variant(variant, refused[variant.name]) for variant in bundle.variants}
    return {"bundle": str(bundle.path), **bundle.manifest(), "here": here, "auto": _auto(bundle, refused)}


def print_bundle(bundle: "Bundle") -> None:
    """Prints a line for each variant, and what `--backend auto` would take."""
    from ..runtime.backends.variant_rows import HEADER, cells_of_variant, refusals_of_bundle

    refused = refusals_of_bundle(bundle)
    how = {
        "file": Column("file", drop=1),
        "input": Column("input", drop=3),
        "MB": Column("MB", right=True),
        "sha256": Column("sha256", drop=2),
        "here": Column("here", words=True),
    }
    table = Table(*(how.get(name, Column(name)) for name in HEADER))
    for variant in bundle.variants:
        table.add_row(*cells_of_variant(variant, refused[variant.name]))
    source = ", ".join(
        f"{key} {bundle.provenance[key]}"
        for key in ("encoder", "method", "channel", "epoch")
        if key in bundle.provenance
    )
    spec = bundle.spec
    audio = f"{spec.sampling_rate / 1000:g} kHz audio at {spec.peak_dbfs:g} dBFS"
    frontend = f"{spec.frames} frames x {spec.n_mels} mels of {audio}"
    auto = _auto(bundle, refused)
    why = "".join(f"; not {what}: {reason}" for what, reason in auto["passed_over"].items())
    chosen = f"{auto['variant']} on {auto['backend']}" if auto["backend"] else "nothing here"
    why += f"; {auto['tune']}" if auto["tune"] else ""
    chosen += f", which is refused: {auto['refused']}" if auto["refused"] else ""
    caption = f"{frontend}; labels: {', '.join(_labels(bundle))}\n--backend auto: {chosen}{why}"
    print_table(table, title=f"{bundle.path}: {source or 'bare ONNX'}", caption=caption)


def _labels(bundle: "Bundle") -> list[str]:
    """Each label on one line; a rated one with its scale, where some are not 0 to 1."""
    scales = bundle.meaning.scales if bundle.meaning else {}
    named = {name: f"{name} ({low:g} to {high:g})" for name, (low, high) in scales.items()}
    return [printable(named.get(label, label)) for label in bundle.labels]


def _auto(bundle: "Bundle", refused: "Mapping[str, str]") -> dict[str, Any]:
    """What `--backend auto` tries first here, and why nothing faster. No model is loaded to find out."""
    from ..runtime.backends.choice import candidates_of_bundle, obstacle_of_way
    from ..runtime.backends.tuning_file import tuning_of

    tuning, remark = tuning_of(bundle)
    if tuning:
        way = tuning.folders
        if not (reason := obstacle_of_way(bundle, way)):
            said = f"the tuning of {tuning.made[:10]}: {tuning.summary}"
            return _taken(way.backend, way.variant, refused, tune=said)
        remark = f"not the fastest of the tuning, {way.variant} on {way.backend}: {reason}"
    candidates, passed_over = candidates_of_bundle(bundle)
    if not candidates:
        return {"backend": None, "variant": None, "passed_over": passed_over, "refused": "", "tune": remark}
    first = candidates[0]
    return _taken(first.device, first.variant.name, refused, tune=remark, passed_over=passed_over)


def _taken(
    backend: str,
    name: str,
    refused: "Mapping[str, str]",
    *,
    tune: str,
    passed_over: dict[str, str] | None = None,
) -> dict[str, Any]:
    """`refused` is what scoring will say of the variant's file; "" where it is whole."""
    return {
        "backend": backend,
        "variant": name,
        "passed_over": passed_over or {},
        "refused": refused[name],
        "tune": tune,
    }
