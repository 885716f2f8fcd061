"""The command line: parse, call one function of a layer, print, set the exit code.

Heavy imports are inside the commands, so that --help is instant and scoring never loads torch.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer

from . import __version__
from .runtime.errors import ConfigError, MissingExtraError, ModelError, RrtnError, StoppedError

if TYPE_CHECKING:
    from rich.table import Table

    from .export.publish import ParityResult, Published
    from .runtime.bad_files import BadFiles
    from .runtime.bundle import Bundle, Variant
    from .runtime.folder import Totals
    from .runtime.ray_engine import RayEngine
    from .runtime.rows import Row
    from .runtime.scorer import Scorer
    from .runtime.shards import InputSpool
    from .train.evaluate import Evaluation
    from .train.plan import Plan
    from .train.significance import Comparison
    from .train.table1 import DataReport
    from .train.table2 import Table2

EXIT_SOME_ERRORS = 3  # done, but some files are errors
_INTERRUPTED = "interrupted | what is finished is kept | run the command again (rrtn train: with --resume)"
_NOBODY_READS = 141  # `| head -1`: as if SIGPIPE had ended it
_LONG = 2.0  # s; shorter scoring has no bottleneck worth a line
_PLAIN_WIDTH = 160  # columns, where there is no terminal to ask

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From a folder of rated vocal bursts to a model that runs anywhere: rrtn train, rrtn export --trt, rrtn score.",
    epilog="Try it without any data: rrtn demo. What this machine can do: rrtn doctor.",
)
data_app = typer.Typer(no_args_is_help=True, help="Make a data set, or check one.")
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; all else on stderr.")]
DataDir = Annotated[
    Optional[Path], typer.Option("--data", help="Folder with data_info.csv and wav/ (Hume-VB layout).", show_default=False)
]
RunArgument = Annotated[
    Optional[Path], typer.Argument(metavar="[RUN]", help="A run's folder; default: the newest under runs/.", show_default=False)
]


def main() -> NoReturn:
    """Entry point of the `rrtn` command."""
    signal.signal(signal.SIGTERM, _terminate)
    stdout = sys.stdout
    try:
        app(standalone_mode=True)
    except RrtnError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail(_INTERRUPTED, 130)
    except SystemExit as done:
        if done.code == 130:  # typer has caught Ctrl-C
            _fail(_INTERRUPTED, 130)
        if sys.stdout is not stdout:  # typer has caught a closed pipe, and put what is silent there
            _leave(_NOBODY_READS)
        _leave(done.code if isinstance(done.code, int) else int(done.code is not None))
    except ImportError as error:
        missing = _missing_extra(error)
        _fail(str(missing), missing.exit_code)
    except OSError as error:
        stopped = StoppedError(f"{error.filename or 'storage'} | {error.strerror or error} | mend it, then run again")
        _fail(str(stopped), stopped.exit_code)
    _leave(0)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Options before the command."""
    if version:
        print(f"rrtn {__version__}")
        raise typer.Exit


@app.command()
def train(
    data: DataDir = None,
    targets: Annotated[
        Optional[str], typer.Option(help="Target columns, with commas; default: every numeric column.", show_default=False)
    ] = None,
    encoder: Annotated[Optional[str], typer.Option(help="resnet18 (default), cnn10 or cnn14.", show_default=False)] = None,
    method: Annotated[
        Optional[str],
        typer.Option(help="vanilla (CCC), rrtn (+ Barlow Twins), rrtn-ruwl (+ learned weights; default).", show_default=False),
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(help="Default 60; 5 on the built-in corpus.", show_default=False)] = None,
    batch_size: Annotated[
        Optional[int], typer.Option(help="Default 128; less for under 1,280 clips.", show_default=False)
    ] = None,
    lr: Annotated[Optional[float], typer.Option(help="AdamW's learning rate; default 0.001.", show_default=False)] = None,
    seed: Annotated[
        Optional[int], typer.Option(help="Of weights, order, crops and masks; default 0.", show_default=False)
    ] = None,
    device: Annotated[Optional[str], typer.Option(help="auto (default), cpu or cuda.", show_default=False)] = None,
    precision: Annotated[
        Optional[str],
        typer.Option(help="fp32, tf32 or bf16; default: bf16 on GPUs that have it.", show_default=False),
    ] = None,
    compile_: Annotated[
        Optional[bool], typer.Option("--compile/--no-compile", help="torch.compile; default off.", show_default=False)
    ] = None,
    init: Annotated[
        Optional[Path], typer.Option(help="A PANNs Cnn14_16k.pth or Cnn10 that the encoder starts from.", show_default=False)
    ] = None,
    tensorboard: Annotated[
        Optional[bool], typer.Option("--tensorboard", help="Event files in the run's folder, too.", show_default=False)
    ] = None,
    config: Annotated[
        Optional[Path], typer.Option(help="A config.toml, such as a run's; flags win over it.", show_default=False)
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="The run's folder; default: runs/<time>-<encoder>-<method>.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with --out, or with the newest run.")] = False,
    strict_resume: Annotated[bool, typer.Option(help="Stop where the newest checkpoint is broken.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Read and check everything, print what would happen, train nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Train the network on rated clips.

    Without --data it trains on a small built-in synthetic corpus. Every setting of --config is in a run's config.toml.
    Example: rrtn train --data hume-vb --encoder cnn14 --method rrtn-ruwl.
    On 4 GPUs: torchrun --nproc-per-node 4 -m rrtn train --data hume-vb
    """
    from .runtime.bundle import newest_run
    from .train.config import changes_on_resume, config_from_dict, config_from_toml, merged, read_toml
    from .train.distributed import first_on_machine_first, from_first, joined, world_from_environment
    from .train.loop import device_from_config
    from .train.loop import train as run_training
    from .train.plan import describe, plan_from_config

    overrides = {
        "seed": seed,
        "device": device,
        "precision": precision,
        "compile": {None: None, True: "default", False: "off"}[compile_],
        "tensorboard": tensorboard,
        "data.dir": str(data.resolve()) if data else None,
        "data.targets": [name.strip() for name in targets.split(",")] if targets else None,
        "model.encoder": encoder,
        "model.method": method,
        "model.init": str(init.resolve()) if init else None,
        "optim.epochs": epochs,
        "optim.batch_size": batch_size,
        "optim.lr": lr,
    }
    run = (out or newest_run()) if resume else out
    if resume and (run is None or not (run / "config.toml").exists()):
        raise ConfigError(f"--resume | no run in {run or 'runs/'} | expected a folder with config.toml | use --out RUN")
    if resume and config:
        raise ConfigError("--config | not with --resume: the run's own config.toml is taken")
    source = run / "config.toml" if resume and run else config
    settings = config_from_dict(merged(read_toml(source) if source else {}, overrides), source=str(source or "flags"))
    changed = changes_on_resume(config_from_toml(run / "config.toml"), settings) if resume and run else []
    world = world_from_environment()
    say = _say if world.is_first else _say_nothing
    with joined(world, device_from_config(settings, world)):
        with first_on_machine_first(world):
            plan = plan_from_config(settings, ranks=world.size)
        for note in (*(f"changed on resume: {change}" for change in changed), *plan.notes):
            say(f"[bold yellow]note[/]: {_plain(note)}")
        model = plan.config.model
        if dry_run:
            if world.is_first:
                _print_json(describe(plan)) if as_json else _print_plan(plan, describe(plan))
            return
        name = f"runs/{time.strftime('%Y%m%d-%H%M%S')}-{model.encoder}-{model.method}"
        run = run or Path(from_first(world, name))
        epochs = plan.config.optim.epochs
        say(f"run [bold]{_plain(run)}[/]: {model.encoder}, {model.method}, {epochs} epochs, {plan.steps} steps")
        result = run_training(plan, run, resume=resume, strict_resume=strict_resume, world=world)
    if not world.is_first:
        return
    best = {"epoch": result.best.epoch, "ccc": result.best.ccc, "per_target": result.best.per_target}
    if as_json:
        _print_json({"run": str(run), "best": best, "epochs": result.epochs, "config": plan.config.to_dict()})
    else:
        _say(f"best: epoch {result.best.epoch}, mean Val CCC {result.best.ccc:.3f}. Next: rrtn evaluate, rrtn export --trt")


@app.command()
def evaluate(
    run: RunArgument = None,
    data: DataDir = None,
    ridge: Annotated[bool, typer.Option(help="Show a ridge regression on mel statistics beside it.")] = True,
    compare: Annotated[
        Optional[list[Path]], typer.Option(help="Another run on the same data; may be given again.", show_default=False)
    ] = None,
    submission: Annotated[
        Optional[Path], typer.Option(help="Scores of the Test split as a CSV in the challenge's form.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """CCC of each target on the validation split with intervals over speakers, beside a ridge regression's.

    Example: rrtn evaluate runs/rrtn --compare runs/vanilla
    """
    from .train.evaluate import evaluate as evaluate_run

    evaluation = evaluate_run(_run(run), data=data, ridge=ridge, others=compare or (), submission=submission)
    _print_json(evaluation.to_dict()) if as_json else _print_evaluation(evaluation)


@app.command()
def table2(
    data: DataDir = None,
    seeds: Annotated[int, typer.Option(help="Runs of each row, with seeds 0, 1, ...")] = 3,
    encoders: Annotated[Optional[str], typer.Option(help="Of resnet18,cnn10,cnn14; default: all.", show_default=False)] = None,
    methods: Annotated[Optional[str], typer.Option(help="Of vanilla,rrtn,rrtn-ruwl; default: all.", show_default=False)] = None,
    epochs: Annotated[Optional[int], typer.Option(help="Default 60; 5 on the built-in corpus.", show_default=False)] = None,
    fraction: Annotated[
        Optional[float],
        typer.Option(help="Of the training clips, by whole speakers whom each seed draws.", show_default=False),
    ] = None,
    batch_size: Annotated[
        Optional[int], typer.Option(help="Default 128; less for under 1,280 clips.", show_default=False)
    ] = None,
    device: Annotated[Optional[str], typer.Option(help="auto (default), cpu or cuda.", show_default=False)] = None,
    precision: Annotated[
        Optional[str], typer.Option(help="fp32, tf32 or bf16; default: bf16 on GPUs that have it.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="The runs' folder; what is there goes on.")] = Path("runs/table2"),
    dry_run: Annotated[bool, typer.Option(help="Say what would be trained, and for how long if it was measured.")] = False,
    as_json: Json = False,
) -> None:
    """The paper's Table 2 on your data: nine rows, some seeds each, with gains and their significance beside the paper's.

    The same command goes on where it was stopped. Example: rrtn table2 --data hume-vb --seeds 5 --encoders cnn14
    """
    from .train.config import config_from_dict, merged
    from .train.distributed import world_from_environment
    from .train.loop import device_from_config
    from .train.rows import rows_of, table_runs, train_rows
    from .train.table2 import table_of_runs

    world = world_from_environment()
    if world.size > 1:
        raise ConfigError(f"torchrun | {world.size} processes | rrtn table2 trains with one | start it alone")
    overrides = {
        "device": device,
        "precision": precision,
        "data.dir": str(data.resolve()) if data else None,
        "data.fraction": fraction,
        "optim.epochs": epochs,
        "optim.batch_size": batch_size,
    }
    settings = config_from_dict(merged({}, overrides), source="flags")
    device_from_config(settings, world)
    rows = rows_of(*(tuple(part.strip() for part in text.split(",")) if text else () for text in (encoders, methods)))
    runs = table_runs(settings, out=out, seeds=seeds, rows=rows)
    for note in runs.notes:
        _say(f"[bold yellow]note[/]: {_plain(note)}")
    if dry_run:
        _print_json(runs.describe()) if as_json else _print_table_runs(runs.describe())
        return
    train_rows(runs, say=_say, at_run=lambda: table_of_runs(runs).write())
    table = table_of_runs(runs)
    table.write()
    _print_json(table.to_dict()) if as_json else _print_table2(table)


@app.command()
def report(
    runs: Annotated[
        Optional[list[Path]],
        typer.Argument(metavar="[RUN...]", help="Default: the newest; others are compared with the first.", show_default=False),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Default: report.html in the run.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """One HTML page: training curves, evaluation with intervals, export, clips to look at and listen to. No network.

    Example: rrtn report runs/rrtn runs/vanilla
    """
    from .train.report import report as write_report

    page = write_report([_run(run) for run in runs] if runs else [_run(None)], out=out)
    _print_json({"report": str(page)}) if as_json else _say(f"report in [bold]{_plain(page)}[/]")


@app.command()
def export(
    run: RunArgument = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also with the encoder in float16, for GPUs.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also in 8 bits, calibrated on training clips.")] = False,
    waveform: Annotated[bool, typer.Option(help="Also with the log-Mel inside the graph.")] = True,
    trt: Annotated[
        bool, typer.Option("--trt", help="Also TensorRT engines of each precision (TensorRT-RTX needs no GPU for that).")
    ] = False,
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Graphs also give the encoder's embedding.")] = False,
    triton: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Also a model repository for Triton, in DIR.", show_default=False)
    ] = None,
    require: Annotated[
        Optional[list[str]],
        typer.Option(metavar="VARIANT", help="Make this variant, and fail without it: trt-fp16, ...", show_default=False),
    ] = None,
    batch_profile: Annotated[str, typer.Option(help="Engines: smallest, tuned-for and largest batch.")] = "1,32,256",
    targets: Annotated[str, typer.Option(help="TensorRT-RTX engines: compute capabilities of the GPUs.")] = "80,86,89,120",
    out: Annotated[Optional[Path], typer.Option(help="The bundle's folder; default: RUN/export.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Drop the projector and write ONNX and TensorRT, each behind a parity gate against PyTorch.

    A variant that does not pass is left out, and the exit code is 5. Example: rrtn export --fp16 --int8 --trt
    """
    from .export.engine import EngineOptions
    from .export.publish import publish
    from .export.recipes import Wanted
    from .export.triton import not_servable, triton_repository_from_bundle

    options = EngineOptions(
        batch_profile=_numbers("--batch-profile", batch_profile, 3),  # type: ignore[arg-type]  # three, it says
        targets=_numbers("--targets", targets),
    )
    wanted = Wanted(
        fp16=fp16, int8=int8, waveform=waveform, trt=trt, embeddings=embeddings, require=tuple(require or ()), engine=options
    )
    published = publish(_run(run), out=out, wanted=wanted)
    if triton:
        triton_repository_from_bundle(published.bundle, triton)
        published.skipped.update({f"{name} for Triton": reason for name, reason in not_servable(published.bundle).items()})
    if as_json:
        _print_json({**_bundle_json(published.bundle), "skipped": published.skipped, "failed": published.failed})
    else:
        _print_export(published)
    if published.failed:
        raise ModelError(f"parity gate | not published: {', '.join(published.failed)} | {'; '.join(published.failed.values())}")


@app.command()
def parity(
    bundle: Annotated[
        Optional[Path], typer.Argument(metavar="[BUNDLE]", help="Default: the newest run's export/.", show_default=False)
    ] = None,
    run: Annotated[
        Optional[Path], typer.Option(help="The run that it was exported from; default: as the bundle says.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Repeat the parity gate: every variant, on every backend of this machine, against PyTorch."""
    from .export.publish import parity_of_bundle
    from .runtime.bundle import load_bundle

    results = parity_of_bundle(load_bundle(bundle or _newest_bundle()), run=run)
    if as_json:
        _print_json([result.to_dict() for result in results])
    else:
        _print_parity(results)
    if failed := [f"{result.variant.name}: {result.problem}" for result in results if result.failed]:
        raise ModelError(f"parity | {'; '.join(failed)} | export again")


@app.command()
def score(
    audio: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="AUDIO...", help='Audio files, folders of them (recursive), patterns like "**/*.wav".'),
    ] = None,
    model: Annotated[
        Optional[Path],
        typer.Option(
            "--model", "-m", help="A bundle or an .onnx of ours; default: the newest run's export/.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="The table: .csv, .jsonl or .parquet; default: printed.", show_default=False)
    ] = None,
    listed: Annotated[
        Optional[str],
        typer.Option("--list", help="A file with one path a line, or NUL between; -: stdin.", show_default=False),
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, cpu, cuda or trt.")] = "auto",
    variant: Annotated[Optional[str], typer.Option(help="Of the bundle: fp32, int8, fp16, ...", show_default=False)] = None,
    window: Annotated[
        Optional[float], typer.Option(help="Score all of a recording, in windows of so many seconds.", show_default=False)
    ] = None,
    hop: Annotated[Optional[float], typer.Option(help="Between windows (s); default: --window.", show_default=False)] = None,
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Also the encoder's representation (see export).")] = False,
    submission: Annotated[Optional[Path], typer.Option(help="Also a CSV in the challenge's form.", show_default=False)] = None,
    top: Annotated[int, typer.Option(help="Printed: the highest labels of each row.")] = 3,
    batch_size: Annotated[Optional[int], typer.Option(help="Default 4 on CPU, 256 on a GPU.", show_default=False)] = None,
    workers: Annotated[Optional[int], typer.Option(help="Decoding processes; default: one a core.", show_default=False)] = None,
    max_seconds: Annotated[float, typer.Option(help="Longer files are errors.")] = 3600.0,
    timeout: Annotated[float, typer.Option(help="Files that take longer to decode are errors (s).")] = 60.0,
    allow_truncated: Annotated[bool, typer.Option("--allow-truncated", help="Score what is there of cut-off files.")] = False,
    max_bad_fraction: Annotated[
        Optional[float], typer.Option(help="Stop where more of the files are errors.", show_default=False)
    ] = None,
    max_bad_run: Annotated[Optional[int], typer.Option(help="Stop after so many errors in a row.", show_default=False)] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first error.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Score everything again.")] = False,
    engine: Annotated[str, typer.Option(help="local, or ray: its tasks on this machine or a cluster.")] = "local",
    ray_address: Annotated[
        Optional[str],
        typer.Option(help="A running cluster's HOST:PORT or auto; default: $RAY_ADDRESS, or only here.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score audio files. A bad file is a row with an error code, never a stop; the same command goes on where it was.

    Example: rrtn score recordings/ --out scores.csv
    """
    from .runtime.bad_files import BadFiles
    from .runtime.bundle import load_bundle
    from .runtime.inputs import inputs_from_arguments, inputs_from_list, no_audio
    from .runtime.scorer import Scorer
    from .runtime.shards import InputSpool
    from .runtime.tables import check_table

    _check_engine(engine, ray_address, out)
    bad_files = BadFiles(max_bad_fraction, max_bad_run, fail_fast)
    if out:
        check_table(out, embeddings=embeddings)
    bundle = load_bundle(model or _newest_bundle())
    make_scorer = partial(
        Scorer,
        variant=variant,
        batch_size=batch_size,
        window=window,
        hop=hop,
        max_seconds=max_seconds,
        timeout=timeout,
        allow_truncated=allow_truncated,
        embeddings=embeddings,
    )
    # A wrong name of a backend is refused there, with a message that names the flag.
    scorer = make_scorer(bundle, backend, workers=workers) if engine == "local" else None  # type: ignore[arg-type]
    found = [*([inputs_from_arguments(audio)] if audio else []), *([inputs_from_list(listed)] if listed else [])]
    with InputSpool(itertools.chain(*found)) as spool:
        if not spool.files:
            raise no_audio([*(audio or []), *([f"--list {listed}"] if listed else [])])
        rows: list[Row] = []
        if scorer is None:
            from .runtime.ray_engine import ray_engine

            with ray_engine(
                bundle, make_scorer, address=ray_address, backend=backend, variant=variant, workers=workers
            ) as actors:
                summary = _score_with_ray(actors, spool, Path(out or ""), submission, bad_files, bundle, overwrite=overwrite)
        elif out:
            _say_choice(scorer, spool)
            summary = _score_to_table(scorer, spool, out, submission, bad_files, overwrite=overwrite)
        else:
            _say_choice(scorer, spool)
            summary, rows = _score_to_screen(scorer, spool, submission, bad_files, top=top, as_json=as_json)
    if as_json:
        _print_json(summary if out else {**summary, "rows": [_row_json(row) for row in rows]})
    _say_summary(summary)
    if summary["errors"]:
        raise typer.Exit(EXIT_SOME_ERRORS)


@app.command()
def pack(
    audio: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="AUDIO...", help='Audio files, folders of them (recursive), patterns like "**/*.wav".'),
    ] = None,
    out: Annotated[Path, typer.Option(help="A folder for the packs.")] = Path("packs"),
    listed: Annotated[
        Optional[str],
        typer.Option("--list", help="A file with one path a line, or NUL between; -: stdin.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put many small files into few Parquet files, byte for byte, which score as the files do; goes on where it was.

    Example: rrtn pack recordings/ --out packs; rrtn score packs --out scores.csv
    """
    from .runtime.inputs import inputs_from_arguments, inputs_from_list, no_audio
    from .runtime.packs import write_packs
    from .runtime.progress import Progress
    from .runtime.shards import InputSpool

    found = [*([inputs_from_arguments(audio)] if audio else []), *([inputs_from_list(listed)] if listed else [])]
    with InputSpool(itertools.chain(*found)) as spool:
        if not spool.files:
            raise no_audio([*(audio or []), *([f"--list {listed}"] if listed else [])])
        with Progress("pack", spool.files, "files") as bar:
            packed = write_packs(spool, out, bar)
    errors = dict(sorted(packed.errors.items()))
    if as_json:
        counts = {"files": packed.files, "packs": packed.packs, "written_now": packed.written, "errors": errors}
        _print_json({**counts, "out": str(out)})
    wrong = "".join(f"; {code} {count}" for code, count in errors.items())
    _say(f"{packed.files} files in {packed.packs} packs, {packed.written} written now{wrong}. Next: rrtn score {_plain(out)}")
    if errors:
        raise typer.Exit(EXIT_SOME_ERRORS)


@app.command()
def inspect(
    model: Annotated[
        Optional[Path], typer.Argument(metavar="[BUNDLE|ONNX]", help="Default: the newest run's export/.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Labels, frontend, variants, hashes, parity, and what of it can run here."""
    from .runtime.bundle import load_bundle

    bundle = load_bundle(model or _newest_bundle())
    _print_json(_bundle_json(bundle)) if as_json else _print_bundle(bundle)


@app.command()
def bench(
    model: Annotated[
        Optional[Path], typer.Argument(metavar="[BUNDLE|ONNX]", help="Default: the newest run's export/.", show_default=False)
    ] = None,
    variants: Annotated[
        Optional[str], typer.Option(help="With commas; default: all that run here.", show_default=False)
    ] = None,
    batches: Annotated[
        Optional[str],
        typer.Option(help="With commas; default 1,4,16 on a CPU, 1,32,256 on a GPU.", show_default=False),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of each measurement; at least 10 runs.")] = 3.0,
    chart: Annotated[Optional[Path], typer.Option(help="Clips a second as a picture, .svg.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Latency and throughput of every variant that runs here, beside its accuracy and the machine's limits.

    Example: rrtn bench --variants fp32,int8 --chart speed.svg
    """
    from .runtime.backends import candidates_of_variants
    from .runtime.bench import bench_document, ceiling, measured, preparation, svg_chart
    from .runtime.bundle import load_bundle
    from .runtime.files import write_bytes
    from .runtime.progress import Progress

    sizes = _batch_sizes(batches)
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"--seconds | {seconds} | expected a number above 0")
    bundle = load_bundle(model or _newest_bundle())
    candidates, reasons = candidates_of_variants(bundle, variants.split(",") if variants else ())
    if not candidates:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ModelError(f"{bundle.path} | {why} | a variant that runs here | rrtn doctor")
    limits = ceiling()
    results = []
    with Progress("bench", len(candidates), "variants") as bar:
        for candidate in candidates:
            results += list(measured(bundle, candidate, batches=sizes, seconds=seconds, limits=limits))
            bar.advance(note=candidate.variant.name)
    document = bench_document(bundle, results, limits, preparation(bundle.spec), reasons)
    if chart:
        write_bytes(chart, svg_chart(document).encode())
    _print_json(document) if as_json else _print_bench(document)


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine can do, what is missing, and the fix."""
    from .runtime.doctor import examine

    findings = examine()
    if as_json:
        _print_json([vars(finding) for finding in findings])
        return
    table = _table("", "", "found", "fix")
    marks = {"ok": "[green]ok[/]", "missing": "[yellow]--[/]", "note": "[cyan]i[/]"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.subject, _plain(finding.detail), _plain(finding.fix))
    _print(table)


@app.command()
def demo(
    audio: Annotated[Optional[list[str]], typer.Argument(help="Files to score at the end.", show_default=False)] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="The demo's run; default: a new one below runs/.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Everything once on the built-in corpus: train, evaluate, export with an engine, report, score. Minutes on two cores."""
    from .train.builtin import builtin_corpus

    run = out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-demo"
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        _heading(f"rrtn train --out {run}")
        train(out=run)
        _heading(f"rrtn evaluate {run}")
        evaluate(run)
        _heading(f"rrtn export {run} --trt")
        export(run, trt=True)
        _heading(f"rrtn report {run}")
        report([run])
    files = audio or [str(path) for path in sorted((builtin_corpus() / "wav").iterdir())[-8:]]
    _heading(f"rrtn score {' '.join(files)} --model {run / 'export'}")
    score(files, model=run / "export", as_json=as_json)
    _say(f"All of it on one page: [bold]{_plain(run / 'report.html')}[/]")


@data_app.command("synth")
def data_synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    clips: Annotated[int, typer.Option(help="How many.")] = 1000,
    speakers: Annotated[int, typer.Option(help="How many; each is in one split only.")] = 60,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal files.")] = 0,
    workers: Annotated[Optional[int], typer.Option(help="Processes; default: one a core.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Synthetic vocal bursts with ten rated emotions, in the Hume-VB layout."""
    from .runtime.progress import Progress
    from .train.corpus import synthesise

    with Progress("synthesise", clips, "clips") as bar:
        synthesise(out, clips=clips, speakers=speakers, seed=seed, workers=workers, progress=lambda done, _: bar.update(done))
    if as_json:
        _print_json({"dir": str(out), "clips": clips, "speakers": speakers, "seed": seed})
    else:
        folder = _plain(out)
        _say(f"{clips} clips of {speakers} speakers in {folder}. Next: rrtn data check {folder}; rrtn train --data {folder}")


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with data_info.csv and wav/.")], as_json: Json = False
) -> None:
    """Read the CSV, decode every file, and print the paper's Table 1 for it."""
    from .runtime.spec import FrontendSpec
    from .train.table1 import check_data

    report = check_data(folder, FrontendSpec())
    _print_json(report.to_dict()) if as_json else _print_data_report(report)


def _batch_sizes(text: str | None) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in text.split(",")) if text else ()
    except ValueError:
        sizes = (0,)
    if any(size < 1 for size in sizes):
        raise ConfigError(f"--batches | {text} | expected numbers above 0 with commas | --batches 1,16")
    return sizes


def _print_bench(document: dict[str, Any]) -> None:
    table = _table("variant", "on", "batch", "n", "p50 ms", "p90", "p99", "max", "in", "model", "out", "clips/s", "GFLOP/s", "")
    for row in document["measurements"]:
        times = ("-" if row[name] is None else f"{row[name]:.2f}" for name in ("p50", "p90", "p99", "highest"))
        parts = (f"{row[name]:.2f}" for name in ("to_device", "model", "from_device"))
        batch = f"{row['batch']}" if row["at_once"] == 1 else f"{row['at_once']} x {row['batch']}"
        work = "-" if row["gflop_per_second"] is None else f"{row['gflop_per_second']:.0f}"
        share = "" if row["share_of_roofline"] is None else f"{row['share_of_roofline']:.0%} of the roofline"
        remarks = "; ".join(filter(None, [share, *row["warnings"]]))
        rate = f"{row['clips_per_second']:.1f}"
        table.add_row(row["variant"], row["device"], batch, f"{row['n']}", *times, *parts, rate, work, remarks)
    _print(table)
    for line in document["lines"]:
        print(_plain(line))


def _say_choice(scorer: "Scorer", spool: "InputSpool") -> None:
    twice = f" ({spool.twice} given twice)" if spool.twice else ""
    chosen = f"{_plain(scorer.backend.variant.file)} on {scorer.backend.device}"
    passed_over = "".join(f"; not {what}: {why}" for what, why in scorer.passed_over.items() if "in the bundle" not in why)
    _say(f"{spool.files} files{twice}, {_plain(scorer.bundle.path)}: {chosen}{_plain(passed_over)}")


def _score_to_table(
    scorer: "Scorer", spool: "InputSpool", out: Path, submission: Path | None, bad_files: "BadFiles", *, overwrite: bool
) -> dict[str, Any]:
    from .runtime.folder import busy_shares, missing_shards, score_shards, settings_of_scorer, table_from_job
    from .runtime.progress import Progress
    from .runtime.shards import opened_job

    begin = time.monotonic()
    with opened_job(out, settings_of_scorer(scorer), scorer.labels, overwrite=overwrite) as job:
        shards = missing_shards(job, spool)
        todo = spool.files_of(shards)
        if todo < spool.files:
            _say(f"{spool.files - todo} files were scored before and are kept (--overwrite scores them again)")
        with Progress("score", todo, "files") as bar:
            score_shards(scorer, job, spool, shards, bad_files, bar)
        seconds = time.monotonic() - begin
        totals = table_from_job(job, spool, out, scorer.labels, embedding_size=scorer.embedding_size, submission=submission)
    wall = time.monotonic() - begin
    busy = busy_shares(scorer, wall, wall - seconds) if todo else {}
    return _summary(totals, wall, todo, out, busy, _chosen(scorer))


def _score_with_ray(
    engine: "RayEngine",
    spool: "InputSpool",
    out: Path,
    submission: Path | None,
    bad_files: "BadFiles",
    bundle: "Bundle",
    *,
    overwrite: bool,
) -> dict[str, Any]:
    from .runtime.folder import missing_shards, table_from_job
    from .runtime.progress import Progress
    from .runtime.ray_engine import score_shards_with_ray
    from .runtime.shards import opened_job

    begin, loaded = time.monotonic(), engine.loaded
    _say(f"{spool.files} files, {_plain(bundle.path)}: {_plain(loaded.file)} on {loaded.device}, {engine.actors} Ray actors")
    with opened_job(out, loaded.settings, bundle.labels, overwrite=overwrite) as job:
        shards = missing_shards(job, spool)
        todo = spool.files_of(shards)
        if todo < spool.files:
            _say(f"{spool.files - todo} files were scored before and are kept (--overwrite scores them again)")
        with Progress("score", todo, "files") as bar:
            score_shards_with_ray(engine, job, spool, shards, bad_files, bar)
        totals = table_from_job(job, spool, out, bundle.labels, embedding_size=loaded.embedding_size, submission=submission)
    return _summary(totals, time.monotonic() - begin, todo, out, {}, (loaded.device, loaded.variant, loaded.batch_size))


def _check_engine(engine: str, ray_address: str | None, out: Path | None) -> None:
    if engine not in ("local", "ray"):
        raise ConfigError(f"--engine | {engine!r} | expected local or ray")
    if engine == "ray" and out is None:
        raise ConfigError("--engine ray | no --out | a table, beside which what is done is kept | add --out scores.csv")
    if engine == "local" and ray_address:
        raise ConfigError(f"--ray-address {ray_address} | --engine local | expected with ray only | add --engine ray")


def _score_to_screen(
    scorer: "Scorer", spool: "InputSpool", submission: Path | None, bad_files: "BadFiles", *, top: int, as_json: bool
) -> tuple[dict[str, Any], list["Row"]]:
    """CSV as it comes where another program reads, a readable table on a terminal."""
    from .runtime.folder import Totals, busy_shares
    from .runtime.progress import Progress
    from .runtime.submission import write_submission
    from .runtime.tables import csv_lines

    totals, begin = Totals(), time.monotonic()
    with Progress("score", spool.files, "files") as bar:

        def counted() -> "Iterator[Row]":
            for rows in scorer.rows_of_files(path for shard in spool.shards for path in spool.paths(shard)):
                bad_files.count(rows)
                totals.count(rows)
                bar.advance()
                yield from rows

        rows = write_submission(submission, counted(), scorer.labels) if submission else counted()
        if as_json or sys.stdout.isatty():
            kept = list(rows)
        else:
            kept = []
            for line in csv_lines(rows, scorer.labels):
                print(line, end="")
    bad_files.finish()
    if not as_json and kept:
        _print_rows(kept, scorer.labels, top)
    wall = time.monotonic() - begin
    return _summary(totals, wall, totals.files, None, busy_shares(scorer, wall, 0.0), _chosen(scorer)), kept


def _chosen(scorer: "Scorer") -> tuple[str, str, int]:
    """Device, variant, batch size."""
    return scorer.backend.device, scorer.backend.variant.name, scorer.batch_that_fits


def _summary(
    totals: "Totals", seconds: float, scored_now: int, out: Path | None, busy: dict[str, float], chosen: tuple[str, str, int]
) -> dict[str, Any]:
    device, variant, batch_size = chosen
    return {
        "files": totals.files,
        "scored": totals.scored,
        "errors": dict(sorted(totals.errors.items())),
        "seconds": round(seconds, 3),
        "audio_seconds": round(totals.audio_seconds, 3),
        "backend": device,
        "variant": variant,
        "out": str(out) if out else None,
        "scored_now": scored_now,
        "batch_size": batch_size,
        "busy": {part: round(share, 3) for part, share in busy.items()},
    }


def _run(run: Path | None) -> Path:
    from .runtime.bundle import newest_run

    found = run or newest_run()
    if found is None or not found.is_dir():
        raise ConfigError(f"RUN | {found or 'no run under runs/'} | expected a folder that rrtn train made | run: rrtn train")
    return found


def _newest_bundle() -> Path:
    from .runtime.bundle import newest_run

    run = newest_run(having="export/bundle.json")
    if run is None:
        raise ConfigError("--model | not given, and no bundle under runs/*/export | run: rrtn export, or give -m BUNDLE")
    return run / "export"


def _bundle_json(bundle: "Bundle") -> dict[str, Any]:
    here = {variant.name: _state(bundle, variant) for variant in bundle.variants}
    return {"bundle": str(bundle.path), **bundle.manifest(), "here": here, "auto": _auto(bundle)}


def _row_json(row: "Row") -> dict[str, Any]:
    from .runtime.tables import cell_from_path

    return {"file": cell_from_path(row.file), "start": row.start, "end": row.end, "scores": row.scores, "error": row.error}


def _print_plan(plan: "Plan", description: dict[str, Any]) -> None:
    table = _table("", "")
    optim, parameters = plan.config.optim, description["parameters"]
    table.add_row("data", _plain(f"{description['data']['dir']}: {description['data']['clips']}"))
    table.add_row("targets", _plain(", ".join(plan.data.targets)))
    table.add_row("model", f"{plan.config.model.encoder}, {plan.config.model.method}")
    table.add_row("parameters", ", ".join(f"{part} {count:,}" for part, count in parameters.items()))
    table.add_row("steps", f"{plan.steps:,} = {optim.epochs} epochs x {plan.steps_per_epoch}, batch {optim.batch_size}")
    table.add_row("training state", f"{description['bytes_of_training_state'] / 2**20:,.0f} MiB beside the activations")
    _print(table)


def _print_table_runs(description: dict[str, Any]) -> None:
    table = _table("row", "seed", "state", "folder")
    for run in description["runs"]:
        table.add_row(run["row"], str(run["seed"]), run["state"], _plain(run["folder"]))
    seconds = description["seconds_to_go"]
    left = (
        "not known before an epoch was trained" if seconds is None else f"about {seconds / 60:,.1f} minutes, as measured here"
    )
    _print(table, caption=f"{description['epochs_to_go']:,} epochs of {description['epochs']:,} to go: {left}")


def _print_table2(table: "Table2") -> None:
    from .train.table2 import HEADER

    shown = _table(*HEADER)
    for row in table.rows:
        shown.add_row(*map(_plain, row.cells()))
        if row.row.method == "rrtn-ruwl":
            shown.add_section()
    _print(shown, title=table.title, caption=table.caption)
    _say(f"table in [bold]{_plain(table.runs.out / 'table2.md')}[/] and .json")


def _print_evaluation(evaluation: "Evaluation") -> None:
    columns = {"CCC, biased": evaluation.biased, "Pearson": evaluation.pearson, "MAE": evaluation.mae}
    if evaluation.ridge is not None:
        columns["ridge CCC"] = evaluation.ridge
    low, high = evaluation.interval
    table = _table("target", "CCC", "95%", *columns)
    for k, target in enumerate(evaluation.targets):
        row = (f"{evaluation.challenge[k]:.3f}", f"{low[k]:.3f} to {high[k]:.3f}", *(f"{v[k]:.3f}" for v in columns.values()))
        table.add_row(_plain(target), *row)
    table.add_section()
    means = (f"{evaluation.challenge.mean():.3f}", f"{low[-1]:.3f} to {high[-1]:.3f}")
    table.add_row("[bold]mean[/]", *(f"[bold]{cell}[/]" for cell in (*means, *(f"{v.mean():.3f}" for v in columns.values()))))
    _print(
        table,
        title=f"{evaluation.run}, epoch {evaluation.epoch}: Val, {evaluation.clips} clips, {evaluation.speakers} speakers",
        caption="CCC: the challenge's (variances over n-1, covariance over n), 95% by resampling speakers; "
        "ridge: on each mel bin's mean and deviation",
    )
    for other, comparison in evaluation.compared.items():
        _print_comparison(evaluation, other, comparison)


def _print_comparison(evaluation: "Evaluation", other: str, comparison: "Comparison") -> None:
    table = _table("target", "difference", "95%", "p", "p, Holm", "")
    for k, target in enumerate([*evaluation.targets, "mean"]):
        interval = f"{comparison.low[k]:+.3f} to {comparison.high[k]:+.3f}"
        p = (f"{comparison.p[k]:.4f}", f"{comparison.p_holm[k]:.4f}")
        table.add_row(_plain(target), f"{comparison.difference[k]:+.3f}", interval, *p, comparison.verdict(k))
    _print(
        table,
        title=f"{evaluation.run} minus {other}: {comparison.speakers} speakers",
        caption="p: two-tailed, by swapping the two runs speaker by speaker; Holm: over the targets",
    )


def _print_export(published: "Published") -> None:
    _print_bundle(published.bundle)
    for name, reason in published.skipped.items():
        _say(f"[bold yellow]skipped[/] {name}: {_plain(reason)}")
    _say(f"bundle in [bold]{_plain(published.bundle.path)}[/]. Next: rrtn score AUDIO --out scores.csv")


def _print_parity(results: "list[ParityResult]") -> None:
    table = _table("variant", "on", "clips", "max difference", "p99.9", "limit", "CCC", "PyTorch's", "change, 95%", "")
    for result in results:
        if result.parity is None:
            table.add_row(result.variant.name, result.device, *[""] * 7, _plain(result.problem))
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
            _plain(parity.failure or "passes"),
        )
    _print(table)


def _numbers(flag: str, text: str, count: int | None = None) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or (count and len(numbers) != count):
        raise ConfigError(f"{flag} | {text!r} | expected {count or 'some'} whole numbers with commas")
    return numbers


def _print_bundle(bundle: "Bundle") -> None:
    table = _table("variant", "file", "input", "MB", "sha256", "against PyTorch", "here")
    for variant in bundle.variants:
        parity = _parity_text(variant)
        size = f"{variant.size / 1e6:.1f}"
        table.add_row(variant.name, variant.file, variant.input, size, variant.sha256[:12], parity, _state(bundle, variant))
    source = ", ".join(f"{key} {bundle.provenance[key]}" for key in ("encoder", "method", "epoch") if key in bundle.provenance)
    spec = bundle.spec
    frontend = (
        f"{spec.frames} frames x {spec.n_mels} mels of {spec.sampling_rate / 1000:g} kHz audio at {spec.peak_dbfs:g} dBFS"
    )
    auto = _auto(bundle)
    why = "".join(f"; not {what}: {reason}" for what, reason in auto["passed_over"].items())
    chosen = f"--backend auto: {auto['backend'] or 'nothing here'} {auto['variant'] or ''}".strip()
    caption = f"{frontend}; labels: {', '.join(bundle.labels)}\n{chosen}{why}"
    _print(table, title=f"{bundle.path}: {source or 'bare ONNX'}", caption=caption)


def _parity_text(variant: "Variant") -> str:
    if variant.parity is None:
        return "not run here"
    return f"max {variant.parity['max_abs']:.1e}, CCC {variant.parity['ccc_change']:+.4f}, n {variant.parity['clips']}"


def _state(bundle: "Bundle", variant: "Variant") -> str:
    """Whether the file is whole and something here runs it, and if not, why."""
    from .runtime.engine_stamp import mismatch, this_machine
    from .runtime.ort_backend import cuda_missing

    try:
        bundle.read(variant)
    except RrtnError as error:
        return f"refused: {str(error).split(' | ')[1]}"
    if variant.kind == "onnx":
        return "runs"
    if reason := mismatch(variant.stamp, this_machine()):
        return f"{reason}; build it where it shall run: rrtn export --trt"
    if reason := cuda_missing():
        return f"{reason}, and engines use the CUDA memory of ONNX Runtime"
    return "fits this machine; tried at scoring"


def _auto(bundle: "Bundle") -> dict[str, Any]:
    """What --backend auto begins with here, by all that is known without loading it, and why with nothing faster."""
    from .runtime.backends import candidates_of_bundle

    candidates, passed_over = candidates_of_bundle(bundle)
    device, variant = (candidates[0].device, candidates[0].variant.name) if candidates else (None, None)
    return {"backend": device, "variant": variant, "passed_over": passed_over}


def _print_data_report(report: "DataReport") -> None:
    names = [split.split for split in report.splits]
    table = _table("", *names)
    for label, values in {
        "clips": [f"{split.clips:,}" for split in report.splits],
        "minutes": [f"{split.minutes:.1f}" for split in report.splits],
        "speakers": [str(split.speakers) for split in report.splits],
        "countries": [", ".join(f"{name or '?'} {n}" for name, n in split.countries.items()) for split in report.splits],
        "silent clips": [str(split.silent) for split in report.splits],
        "longer than the model's clip": [str(split.longer_than_clip) for split in report.splits],
    }.items():
        table.add_row(label, *map(_plain, values))
    targets = f"targets: {', '.join(report.data.targets)}; a target at exactly 1.0 in {report.one_at_full:.0%} of rated clips"
    _print(table, title=str(report.data.path), caption=targets)
    for warning in report.data.warnings:
        _say(f"[bold yellow]note[/]: {_plain(warning)}")


def _print_rows(rows: list["Row"], labels: tuple[str, ...], top: int) -> None:
    from .runtime.tables import top_rows

    table = _table("file", "s", "highest scores", "")
    for row in top_rows(rows, labels, top):
        place = "" if row.start is None or row.end is None else f"{row.start:.2f}-{row.end:.2f}"
        scores = "  ".join(f"{name} {value:.2f}" for name, value in row.scores)
        table.add_row(_plain(row.file), place, _plain(scores), row.error)
    _print(table)


def _say_summary(summary: dict[str, Any]) -> None:
    errors = ", ".join(f"{code} {count}" for code, count in summary["errors"].items())
    seconds = max(summary["seconds"], 1e-9)
    was_all_scored_now = summary["scored_now"] == summary["files"]
    real_time = f", {summary['audio_seconds'] / seconds:.0f} x real time" if was_all_scored_now else ""
    _say(
        f"{summary['scored']} of {summary['files']} files scored in {summary['seconds']:.1f} s "
        f"({summary['scored_now'] / seconds:.0f} files/s{real_time})"
        + (f"; errors: {errors}" if errors else "")
        + (f" -> {_plain(summary['out'])}" if summary["out"] else "")
    )
    if summary["busy"] and summary["seconds"] > _LONG:
        shares = ", ".join(f"{part} {share:.0%}" for part, share in summary["busy"].items())
        _say(f"busy: {shares}; the bottleneck is {max(summary['busy'], key=summary['busy'].__getitem__)}")


def _table(*columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD)


def _print(table: "Table", *, title: str = "", caption: str = "") -> None:
    """A table with a line above and one below, which may be wider than it."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)
    if title:
        console.print(f"[bold]{_plain(title)}[/]")
    console.print(table)
    if caption:
        console.print(f"[dim]{_plain(caption)}[/]")


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def _say(text: str) -> None:
    """For the person, on stderr."""
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text)


def _say_nothing(text: str) -> None:
    """For the processes beside the first one."""


def _plain(text: object) -> str:
    """For rich: brackets in a file's name are no markup."""
    from rich.markup import escape

    return escape(str(text))


def _heading(command: str) -> None:
    _say(f"\n[bold cyan]$ {_plain(command)}[/]")


def _fail(message: str, code: int) -> NoReturn:
    print("rrtn: " + " ".join(message.split()), file=sys.stderr, flush=True)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """Under torchrun without Python's own end: the process group's threads may hang in it, or abort."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _NOBODY_READS
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's own end would try again
    if "RANK" in os.environ:
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _missing_extra(error: ImportError) -> MissingExtraError:
    """A package of an extra; anything else is a bug and keeps its traceback."""
    extras = dict.fromkeys(("torch", "torchaudio", "safetensors", "onnx", "onnxscript", "tomli_w"), "train")
    if error.name not in extras:
        raise error
    return MissingExtraError(
        f'{error.name} | not installed | needed for this command | pip install "rrtn[{extras[error.name]}]"'
    )


def _terminate(signum: int, frame: object) -> NoReturn:
    sys.exit(128 + signum)
