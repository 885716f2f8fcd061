"""rrtn export and rrtn parity."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..export.wanted import EngineOptions, Wanted, with_commas
from ..runtime.errors import ConfigError, ModelError
from ..runtime.system.files import resolved
from ..runtime.system.host import quoted
from .inspect import bundle_json, print_bundle
from .options import (
    Json,
    RunArgument,
    bundle_named,
    bundle_place,
    check_is_single,
    load_torch,
    numbers_with_commas,
    single_run,
)
from .printing import Column, Table, end_with_error, numbers, print_json, print_table, say

if TYPE_CHECKING:
    from ..export.bundle_parity import ParityResult
    from ..export.publish import Published
    from ..export.web.page import Page
    from ..runtime.bundle import Bundle


def export(
    run: RunArgument = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also with the encoder in float16, for GPUs.")] = False,
    int8: Annotated[
        Optional[bool],
        typer.Option(
            help="Also in 8 bits, calibrated on training clips. Default: with --web.", show_default=False
        ),
    ] = None,
    waveform: Annotated[bool, typer.Option(help="Also with the log-Mel inside the graph.")] = True,
    samples: Annotated[
        bool,
        typer.Option(
            "--samples", help="Also for programs without rrtn: 16 kHz samples in, all else inside the graph."
        ),
    ] = False,
    cpu_variant: Annotated[
        bool,
        typer.Option(help="Also a variant for CPUs (less arithmetic, no silence), where it is faster here."),
    ] = True,
    measure_convolutions: Annotated[
        bool,
        typer.Option(
            "--measure-convolutions",
            help="Measure every way of each convolution for the CPU variant: a minute, or several.",
        ),
    ] = False,
    tune: Annotated[bool, typer.Option("--tune", hidden=True)] = False,
    mnn: Annotated[
        bool, typer.Option("--mnn", help="Also in MNN's format, for rrtn tune (needs the package mnn).")
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
    web: Annotated[
        Optional[Path],
        typer.Option(
            metavar="DIR|FILE.html",
            help="Also a page that scores in the browser: a folder for any web server, or one file.",
            show_default=False,
        ),
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
    ] = with_commas(EngineOptions.batch_profile),
    targets: Annotated[
        str,
        typer.Option(
            help="TensorRT-RTX engines: compute capabilities of the GPUs; the default adds this machine's."
        ),
    ] = with_commas(EngineOptions.targets),
    out: Annotated[
        Optional[Path], typer.Option(help="The bundle's folder; default: RUN/export.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Write ONNX and TensorRT files that give the scores of PyTorch.

    The projector is dropped. A variant whose scores differ too much from PyTorch's is left out, and the exit
    code is 5.

    Example: rrtn export --fp16 --int8 --trt
    """
    if tune:
        say("--tune is now called --measure-convolutions; rrtn tune measures what is the fastest here")
    wanted = Wanted(
        fp16=fp16,
        int8=web is not None if int8 is None else int8,
        cpu_variant=cpu_variant,
        measure_convolutions=measure_convolutions or tune,
        mnn=mnn,
        waveform=waveform,
        samples=samples or web is not None,
        trt=trt,
        embeddings=embeddings,
        require=tuple(require or ()),
        engine=_engine_options(batch_profile, targets),
    )
    _export(single_run(run), out, wanted, triton, web, as_json)


def parity(
    bundle: Annotated[
        Optional[Path],
        typer.Argument(metavar="BUNDLE|RUN", help="Default: the newest run's export/.", show_default=False),
    ] = None,
    run: Annotated[
        Optional[Path],
        typer.Option(
            help="The run that it was exported from; default: as the bundle says.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare every variant on this machine with PyTorch again.

    Every variant runs on every backend of this machine. If one differs too much or is refused, or none runs
    here, the exit code is 5.
    """
    from ..runtime.bundle import load_bundle

    if run:
        check_is_single(run)
    loaded = load_bundle(bundle_place(bundle))
    load_torch("export.publish")
    from ..export.bundle_parity import parity_of_bundle

    results = parity_of_bundle(loaded, run=run)
    error = _parity_error(loaded, results)
    document = [result.to_dict() for result in results]
    if as_json and error:
        end_with_error(error, {"results": document})
    print_json(document) if as_json else _print_parity(results)
    if error:
        raise error


def _parity_error(bundle: "Bundle", results: "list[ParityResult]") -> ModelError | None:
    if failed := [f"{result.variant.name}: {result.problem}" for result in results if result.failed]:
        return ModelError("parity", "; ".join(failed), fix=bundle.export_again())
    if not any(result.parity for result in results):
        reasons = "; ".join(f"{result.variant.name}: {result.problem}" for result in results)
        return ModelError(str(bundle.path), f"nothing was compared: {reasons}", fix="rrtn doctor")
    return None


def _export(
    run: Path, out: Path | None, wanted: Wanted, triton: Path | None, web: Path | None, as_json: bool
) -> None:
    from ..export.web.page import check_page_place, page_from_bundle
    from ..train.run_folder import RunFolder

    if triton and wanted.engine.batch_profile[0] > 1:
        asked = with_commas(wanted.engine.batch_profile)
        expected = "1 as the smallest batch: with --triton single clips are served, too"
        raise ConfigError("--batch-profile", asked, wanted=expected, fix="or leave out --triton")
    _check_apart({"the bundle": out or RunFolder(run).export, "--triton": triton, "--web": web})
    if web:
        check_page_place(web)
    load_torch("export.publish")
    from ..export.publish import publish
    from ..export.triton import check_repository_place

    if triton:
        check_repository_place(triton)
    published = publish(run, out=out, wanted=wanted)
    models = _triton_models(published, triton) if triton else []
    not_made = published.skipped | published.failed
    page = page_from_bundle(published.bundle, web, not_made) if web else None
    _end_export(published, page, triton, models, as_json)


def _check_apart(places: dict[str, Path | None]) -> None:
    """Raises ConfigError for a place of two things, or one in another: each is written as a whole."""
    given = [(name, resolved(place)) for name, place in places.items() if place]
    for (other, folder), (name, place) in itertools.permutations(given, 2):
        if place == folder:
            raise ConfigError(f"{name} {place}", f"the place of {other}", wanted="a place of its own")
        if other != "the bundle" and folder in place.parents:  # a bundle's folder may hold other files
            raise ConfigError(f"{name} {place}", f"is in {other} {folder}", wanted="a place of its own")


def _engine_options(batch_profile: str, targets: str) -> EngineOptions:
    smallest, tuned, largest = numbers_with_commas("--batch-profile", batch_profile, 3)
    return EngineOptions(
        batch_profile=(smallest, tuned, largest), targets=numbers_with_commas("--targets", targets)
    )


def _triton_models(published: "Published", folder: Path) -> list[str]:
    """Writes the repository; -> the names of its models."""
    from ..export.triton import not_servable, triton_repository_from_bundle

    models = triton_repository_from_bundle(published.bundle, folder)
    reasons = not_servable(published.bundle)
    published.skipped.update({f"{name} for Triton": reason for name, reason in reasons.items()})
    return [model.name for model in models]


def _end_export(
    published: "Published", page: "Page | None", triton: Path | None, models: list[str], as_json: bool
) -> None:
    error = _gate_error(published)
    if as_json:
        document = _document(published, page, triton, models)
        end_with_error(error, document) if error else print_json(document)
        return
    _print_export(published, page, triton)
    if error:
        raise error


def _document(
    published: "Published", page: "Page | None", triton: Path | None, models: list[str]
) -> dict[str, Any]:
    """What --json prints."""
    document = {**bundle_json(published.bundle), "skipped": published.skipped, "failed": published.failed}
    document |= {"notes": list(published.notes)} if published.notes else {}
    document |= {"web": page.to_dict()} if page else {}
    document |= {"triton": {"path": str(triton), "models": models}} if triton else {}
    return document


def _gate_error(published: "Published") -> ModelError | None:
    if not published.failed:
        return None
    reasons = "; ".join(f"{name}: {reason}" for name, reason in published.failed.items())
    fix = "use one of the variants that were published"
    return ModelError("parity gate", reasons, fix=fix)


def _print_export(published: "Published", page: "Page | None", triton: Path | None) -> None:
    print_bundle(published.bundle)
    for name, reason in published.skipped.items():
        say(f"skipped: {name}: {reason}")
    for note in published.notes:
        say(f"note: {note}")
    if page:
        look = "open it in a browser" if page.is_file else f"python -m http.server -d {page.path}"
        say(f"page in {page.path} ({page.variant.name}, {page.size / 1e6:.1f} MB): {look}")
    if triton:
        say(f"repository in {triton}: tritonserver --model-repository {quoted(triton)}")
    bundle = published.bundle.path
    say(f"bundle in {bundle}. Next: rrtn score AUDIO{bundle_named(bundle)} --out scores.csv")


def _print_parity(results: "list[ParityResult]") -> None:
    from ..runtime.backends.variant_rows import difference_text

    table = Table(
        "variant",
        "on",
        Column("clips", right=True, drop=4),
        *numbers("max difference"),
        *numbers("p99.9", drop=3),
        *numbers("limit"),
        *numbers("CCC", "PyTorch's", drop=1),
        Column("change, 95%", drop=5),
        Column("", words=True),
    )
    for result in results:
        if result.parity is None:
            table.add_row(result.variant.name, result.device, *[""] * 7, result.problem)
            continue
        parity = result.parity
        interval = " to ".join(f"{end:+z.4f}" for end in parity.ccc_interval or ())
        table.add_row(
            result.variant.name,
            result.device,
            str(parity.clips),
            difference_text(parity.to_dict()),
            f"{parity.p999_abs:.1e}",
            f"{parity.limit:.1e}" if parity.limit else "CCC",
            f"{parity.ccc:z.4f}",
            f"{parity.ccc_reference:z.4f}",
            interval,
            parity.failure or "passes",
        )
    print_table(table)
