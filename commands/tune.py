"""rrtn tune."""

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..runtime.errors import ConfigError
from .options import BundleArgument, Json, bundle_place, names_with_commas
from .printing import Column, Table, numbers, print_json, print_table, say

if TYPE_CHECKING:
    from ..runtime.backends.tuning_file import Tuning


def tune(
    model: BundleArgument = None,
    allow: Annotated[
        Optional[str],
        typer.Option(help="Precisions below fp32 that auto may take: fp16,bf16,int8.", show_default=False),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of each measurement; at least 2 batches.")] = 0.5,
    length: Annotated[
        Optional[float],
        typer.Option(help="Mean seconds of your recordings; default: half a clip.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what is the fastest on this machine, for --backend auto.

    Every variant, backend, batch size and number of concurrent batches that gives the scores of fp32 here.
    The result is kept in your cache, for this bundle on this machine; it takes minutes.

    Example: rrtn tune runs/first/export --allow bf16,int8
    """
    from ..runtime.bundle import load_bundle
    from ..runtime.tune import tuned

    for option, value in (("--seconds", seconds), ("--length", length)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(option, f"{value}", wanted="a finite number above 0")
    bundle = load_bundle(bundle_place(model))
    tuning = tuned(bundle, allow=names_with_commas(allow) or (), seconds=seconds, length=length)
    print_json(tuning.to_dict()) if as_json else _print(tuning)


def _print(tuning: "Tuning") -> None:
    table = Table(
        "for",
        "variant",
        Column("on", drop=1),
        "batch",
        *numbers("threads", drop=3),
        *numbers("ms", "clips/s"),
        *numbers("spread", drop=2),
        Column("", words=True),
    )
    taken = (tuning.folders.to_dict(), tuning.clips.to_dict())
    ways = sorted(tuning.measured, key=lambda way: (way["use"] == "clips", -way["clips_per_second"]))
    for way in ways:
        table.add_row(*_cells(way), "taken" if {name: way[name] for name in taken[0]} in taken else "")
    print_table(table)
    for name, reason in tuning.not_taken.items():
        say(f"not measured: {name}: {reason}")
    say(f"--backend auto now takes {tuning.summary}")


def _cells(way: dict[str, Any]) -> tuple[str, ...]:
    return (
        way["use"],
        way["variant"],
        way["backend"],
        f"{way['lanes']} x {way['batch_size']}",
        str(way["threads"]),
        f"{way['milliseconds']:.1f}",
        f"{way['clips_per_second']:.1f}",
        f"{way['spread']:.0%}" if way["rounds"] > 1 else "-",
    )
