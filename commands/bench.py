"""rrtn bench."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..runtime.backends.base import BackendKind
from ..runtime.backends.registry import for_each_backend
from ..runtime.errors import ConfigError, ModelError
from ..runtime.text import printable
from .options import BundleArgument, Json, bundle_place, names_with_commas, numbers_with_commas
from .printing import Column, Table, numbers, print_json, print_table, stdout_width, wrapped

if TYPE_CHECKING:
    from ..runtime.bundle import Bundle


def _bench_batches(kind: BackendKind) -> str:
    return ",".join(str(batch) for batch in kind.bench_batches)


def bench(
    model: BundleArgument = None,
    variants: Annotated[
        Optional[str], typer.Option(help="With commas; default: all that run here.", show_default=False)
    ] = None,
    batches: Annotated[
        Optional[str],
        typer.Option(help=f"With commas; default: {for_each_backend(_bench_batches)}.", show_default=False),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of each measurement; at least 10 runs.")] = 3.0,
    chart: Annotated[
        Optional[Path], typer.Option(help="Clips a second as a picture, .svg.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure latency and throughput of every variant that runs here.

    The table has the accuracy of each variant, and the limits of the machine, beside.

    Example: rrtn bench --variants fp32,int8 --chart speed.svg
    """
    from ..runtime.bench_report import CHART_MARK, svg_chart
    from ..runtime.bundle import load_bundle
    from ..runtime.system.files import write_output
    from ..runtime.tables.outputs import check_new

    if chart:
        if chart.suffix.lower() != ".svg":
            raise ConfigError(f"--chart {chart}", f"ends in {chart.suffix or 'nothing'}", wanted=".svg")
        check_new(chart, f"--chart {chart}", mark=CHART_MARK)
    sizes = numbers_with_commas("--batches", batches) if batches else ()
    if not 0 < seconds < float("inf"):
        raise ConfigError("--seconds", f"{seconds}", wanted="a finite number above 0")
    bundle = load_bundle(bundle_place(model))
    document = _measured(bundle, names_with_commas(variants), sizes, seconds)
    if chart:
        write_output(chart, svg_chart(document).encode())
    print_json(document) if as_json else _print_bench(document)


def _measured(
    bundle: "Bundle", variants: list[str] | None, sizes: tuple[int, ...], seconds: float
) -> dict[str, Any]:
    from ..runtime.backends.choice import candidates_of_variants
    from ..runtime.bench import ceiling, measured, preparation
    from ..runtime.bench_report import bench_document
    from ..runtime.progress import Progress

    candidates, reasons = candidates_of_variants(bundle, variants or ())
    if not candidates:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ModelError(str(bundle.path), why, wanted="a variant that runs here", fix="rrtn doctor")
    with Progress("measure the machine"):
        limits, before = ceiling(), preparation(bundle.spec)
    results = []
    with Progress("bench", len(candidates), "variants") as bar:
        for done, candidate in enumerate(candidates):
            bar.update(done, f"{candidate.variant.name} on {candidate.device}")
            try:
                results += list(measured(bundle, candidate, batches=sizes, seconds=seconds, limits=limits))
            except ModelError as error:  # the others are whole
                if variants or (done == len(candidates) - 1 and not results):
                    raise
                reasons[candidate.name] = error.came
    return bench_document(bundle, results, limits, before, reasons)


def _print_bench(document: dict[str, Any]) -> None:
    table = Table(
        "variant",
        Column("on", drop=1),
        "batch",
        *numbers("n", drop=5),
        *numbers("p50 ms"),
        *numbers("p90", "p99", "max", drop=6),
        *numbers("in", "model", "out", drop=9),
        *numbers("clips/s"),
        *numbers("GFLOP/s", drop=3),
        Column("", words=True, drop=2),
    )
    for row in document["measurements"]:
        times = (
            "-" if row[name] is None else f"{row[name]:.2f}" for name in ("p50", "p90", "p99", "highest")
        )
        parts = (f"{row[name]:.2f}" for name in ("to_device", "model", "from_device"))
        batch = f"{row['batch']}" if row["at_once"] == 1 else f"{row['at_once']} x {row['batch']}"
        work = "-" if row["gflop_per_second"] is None else f"{row['gflop_per_second']:.0f}"
        share = "" if row["share_of_roofline"] is None else f"{row['share_of_roofline']:.0%} of the roofline"
        remarks = "; ".join(filter(None, [share, *row["warnings"]]))
        rate = f"{row['clips_per_second']:.1f}"
        table.add_row(
            row["variant"], row["device"], batch, f"{row['n']}", *times, *parts, rate, work, remarks
        )
    print_table(table)
    width = stdout_width()
    for line in document["lines"]:
        print(*wrapped(printable(line), width), sep="\n")
