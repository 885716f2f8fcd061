"""rrtn export and rrtn parity."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..runtime.errors import ConfigError, ModelError
from .inspect import bundle_json, print_bundle
from .options import Json, RunArgument, existing_run, newest_bundle
from .printing import new_table, plain, print_json, print_table, say

if TYPE_CHECKING:
    from ..export.publish import ParityResult, Published


def export(
    run: RunArgument = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also with the encoder in float16, for GPUs.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also in 8 bits, calibrated on training clips.")
    ] = False,
    waveform: Annotated[bool, typer.Option(help="Also with the log-Mel inside the graph.")] = True,
    cpu_variant: Annotated[
        bool,
        typer.Option(help="Also for CPUs, with fewer multiplications, where that is 1.1 times as fast here."),
    ] = True,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="Measure every way of each convolution for the CPU variant: a minute, or several."
        ),
    ] = False,
    trt: Annotated[
        bool,
        typer.Option(
            "--trt", help="Also TensorRT engines of each precision (TensorRT-RTX needs no GPU for that)."
        ),
    ] = False,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Graphs also give the encoder's embedding.")
    ] = False,
    triton: Annotated[
        Optional[Path],
        typer.Option(metavar="DIR", help="Also a model repository for Triton, in DIR.", show_default=False),
    ] = None,
    require: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="VARIANT",
            help="Make this variant, and fail without it: trt-fp16, ...",
            show_default=False,
        ),
    ] = None,
    batch_profile: Annotated[
        str, typer.Option(help="Engines: smallest, tuned-for and largest batch.")
    ] = "1,32,256",
    targets: Annotated[
        str, typer.Option(help="TensorRT-RTX engines: compute capabilities of the GPUs.")
    ] = "80,86,89,120",
    out: Annotated[
        Optional[Path], typer.Option(help="The bundle's folder; default: RUN/export.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Drop the projector and write ONNX and TensorRT, each behind a parity gate against PyTorch.

    A variant that does not pass is left out, and the exit code is 5. Example: rrtn export --fp16 --int8 --trt
    """
    from ..export.engine import EngineOptions
    from ..export.publish import publish
    from ..export.recipes import Wanted
    from ..export.triton import not_servable, triton_repository_from_bundle

    options = EngineOptions(
        # three, it says
        batch_profile=_numbers("--batch-profile", batch_profile, 3),  # type: ignore[arg-type]
        targets=_numbers("--targets", targets),
    )
    wanted = Wanted(
        fp16=fp16,
        int8=int8,
        cpu_variant=cpu_variant,
        tune=tune,
        waveform=waveform,
        trt=trt,
        embeddings=embeddings,
        require=tuple(require or ()),
        engine=options,
    )
    published = publish(existing_run(run), out=out, wanted=wanted)
    if triton:
        triton_repository_from_bundle(published.bundle, triton)
        published.skipped.update(
            {f"{name} for Triton": reason for name, reason in not_servable(published.bundle).items()}
        )
    if as_json:
        print_json(
            {**bundle_json(published.bundle), "skipped": published.skipped, "failed": published.failed}
        )
    else:
        _print_export(published)
    if published.failed:
        raise ModelError(
            f"parity gate | not published: {', '.join(published.failed)} | {'; '.join(published.failed.values())}"
        )


def parity(
    bundle: Annotated[
        Optional[Path],
        typer.Argument(metavar="[BUNDLE]", help="Default: the newest run's export/.", show_default=False),
    ] = None,
    run: Annotated[
        Optional[Path],
        typer.Option(
            help="The run that it was exported from; default: as the bundle says.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Repeat the parity gate: every variant, on every backend of this machine, against PyTorch."""
    from ..export.publish import parity_of_bundle
    from ..runtime.bundle import load_bundle

    results = parity_of_bundle(load_bundle(bundle or newest_bundle()), run=run)
    if as_json:
        print_json([result.to_dict() for result in results])
    else:
        _print_parity(results)
    if failed := [f"{result.variant.name}: {result.problem}" for result in results if result.failed]:
        raise ModelError(f"parity | {'; '.join(failed)} | export again")


def _print_export(published: "Published") -> None:
    print_bundle(published.bundle)
    for name, reason in published.skipped.items():
        say(f"[bold yellow]skipped[/] {name}: {plain(reason)}")
    say(f"bundle in [bold]{plain(published.bundle.path)}[/]. Next: rrtn score AUDIO --out scores.csv")


def _print_parity(results: "list[ParityResult]") -> None:
    table = new_table(
        "variant", "on", "clips", "max difference", "p99.9", "limit", "CCC", "PyTorch's", "change, 95%", ""
    )
    for result in results:
        if result.parity is None:
            table.add_row(result.variant.name, result.device, *[""] * 7, plain(result.problem))
            continue
        parity = result.parity
        interval = "{:+.4f} to {:+.4f}".format(*parity.ccc_interval) if parity.ccc_interval else ""
        table.add_row(
            result.variant.name,
            result.device,
            str(parity.clips),
            f"{parity.max_abs:.1e}",
            f"{parity.p999_abs:.1e}",
            f"{parity.limit:.0e}" if parity.limit else "CCC",
            f"{parity.ccc:.4f}",
            f"{parity.ccc_reference:.4f}",
            interval,
            plain(parity.failure or "passes"),
        )
    print_table(table)


def _numbers(flag: str, text: str, count: int | None = None) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or (count and len(numbers) != count):
        raise ConfigError(f"{flag} | {text!r} | expected {count or 'some'} whole numbers with commas")
    return numbers
