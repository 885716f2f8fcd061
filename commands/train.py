"""rrtn train."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from ..runtime.system.host import quoted
from ..runtime.text import counted
from ..train.config import COMPILE_MODES, METHODS
from ..train.method.choices import ENCODER_NAMES
from ..train.method.tasks import METRIC_NAMES
from .options import (
    AudioDir,
    BatchSize,
    Channel,
    ClassTarget,
    CsvFile,
    DataDir,
    Device,
    Epochs,
    FileColumn,
    Fraction,
    Json,
    Precision,
    Scale,
    SpeakerColumn,
    SplitColumn,
    Targets,
    Task,
    absolute,
    labels_from_options,
    load_torch,
    place_settings,
    run_named,
)
from .printing import Column, Table, print_json, print_table, say
from .program import trains_in

if TYPE_CHECKING:
    from ..train.config import DataConfig
    from ..train.plan import TrainingPlan
    from ..train.request import RequestedTraining


# Settings of [data] that rrtn data check takes, and its options.
_FLAGS_OF_DATA = {
    "csv": "--csv",
    "audio": "--audio",
    "file_column": "--file-column",
    "split_column": "--split-column",
    "speaker_column": "--speaker-column",
    "targets": "--targets",
    "scale": "--scale",
    "class_targets": "--class-target",
    "task": "--task",
    "channel": "--channel",
}


class Command(TyperCommand):
    """`--compile` alone and `--no-compile` are what they were before the option took a mode."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives such an option its mode, and goes on as typer does."""
        return super().parse_args(ctx, list(_with_mode(args)))


def _with_mode(arguments: list[str]) -> Iterator[str]:
    for argument, after in itertools.pairwise([*arguments, "--"]):
        if argument == "--no-compile":
            yield "--compile=off"
        elif argument == "--compile" and after.startswith("-"):
            yield "--compile=default"
        else:
            yield argument


def train(
    data: DataDir = None,
    csv: CsvFile = None,
    audio: AudioDir = None,
    file_column: FileColumn = None,
    split_column: SplitColumn = None,
    speaker_column: SpeakerColumn = None,
    targets: Targets = None,
    scale: Scale = None,
    class_target: ClassTarget = None,
    task: Task = None,
    encoder: Annotated[
        Optional[str],
        typer.Option(help=f"One of {', '.join(ENCODER_NAMES)}; default resnet18.", show_default=False),
    ] = None,
    method: Annotated[
        Optional[str],
        typer.Option(
            help=f"One of {', '.join(METHODS)}; default rrtn-ruwl. vanilla has the CCC loss alone, "
            "the others add Barlow Twins.",
            show_default=False,
        ),
    ] = None,
    epochs: Epochs = None,
    fraction: Fraction = None,
    batch_size: BatchSize = None,
    lr: Annotated[
        Optional[float], typer.Option(help="AdamW's learning rate; default 0.001.", show_default=False)
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option(help="Of weights, order, crops and masks; default 0.", show_default=False)
    ] = None,
    device: Device = None,
    precision: Precision = None,
    compile_: Annotated[
        Optional[str],
        typer.Option(
            "--compile",
            metavar="MODE",
            help=f"torch.compile: {', '.join(COMPILE_MODES)}. auto, if none is named: on for one GPU.",
            show_default=False,
        ),
    ] = None,
    init: Annotated[
        Optional[Path],
        typer.Option(help="A PANNs Cnn14_16k.pth or Cnn10 that the encoder starts from.", show_default=False),
    ] = None,
    channel: Channel = None,
    trim: Annotated[
        Optional[bool],
        typer.Option("--trim", help="Remove the silence at both ends of each recording.", show_default=False),
    ] = None,
    tensorboard: Annotated[
        Optional[bool],
        typer.Option("--tensorboard", help="Event files in the run's folder, too.", show_default=False),
    ] = None,
    config: Annotated[
        Optional[Path],
        typer.Option(help="A config.toml, such as a run's; flags win over it.", show_default=False),
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(help="The run's folder; default: runs/<time>-<encoder>-<method>.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with --out, or with the newest run.")] = False,
    strict_resume: Annotated[bool, typer.Option(help="Stop where the newest checkpoint is broken.")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Check settings and data, print what would happen; decode and train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train the network on rated clips.

    Without --data the network is trained on a small synthetic corpus. Every setting of --config is in the
    config.toml of a run.

    Example: rrtn train --data hume-vb --encoder cnn14 --method rrtn-ruwl

    On 4 GPUs: torchrun --nproc-per-node 4 -m rrtn train --data hume-vb
    """
    from ..train.request import TrainingRequest, training_from_request

    labels = labels_from_options(targets, scale, class_target, task)
    places = place_settings(data, csv, audio, file_column, split_column, speaker_column)
    settings = {
        "seed": seed,
        "device": device,
        "precision": precision,
        "compile": compile_,
        "tensorboard": tensorboard,
        "data": {**places, "channel": channel, "fraction": fraction, **labels},
        "model": {"encoder": encoder, "method": method, "init": absolute(init)},
        "optim": {"epochs": epochs, "batch_size": batch_size, "lr": lr},
        "frontend": {"trim": trim},
    }
    request = TrainingRequest(
        run=out, config_file=config, settings=settings, resume=resume, strict_resume=strict_resume
    )
    requested = training_from_request(request)
    load_torch("train.start")
    _plan(requested, as_json) if dry_run else _train(requested, as_json)


def _plan(requested: "RequestedTraining", as_json: bool) -> None:
    from ..train.plan import describe
    from ..train.start import plan_training

    if plan := plan_training(requested, say=say):  # else this is not the first process
        print_json(describe(plan)) if as_json else _print_plan(plan, describe(plan))
        if not as_json and requested.config.data.dir:
            say(f"no audio was decoded: {_check_command(requested.config.data)} does")


def _check_command(data: "DataConfig") -> str:
    """`rrtn data check` of the same data, without what their data.toml says."""
    from ..train.data.places import settings_of_folder

    own = settings_of_folder(Path(data.dir))
    is_place = data.csv != own.get("csv", "") and Path(data.csv).parent == Path(data.dir)
    arguments = [] if is_place else [data.dir]
    for name, flag in _FLAGS_OF_DATA.items():
        value = getattr(data, name)
        value = [*value] if isinstance(value, tuple) else value
        if value != (own.get(name) or type(value)()):
            arguments += [flag, ",".join(value) if isinstance(value, list) else str(value)]
    return " ".join(["rrtn data check", *map(quoted, arguments)])


def _train(requested: "RequestedTraining", as_json: bool) -> None:
    from ..runtime.backends.cuda_driver import gpu_names
    from ..train.start import start_training

    finished = start_training(requested, say=say, on_run=trains_in)
    if finished is None:  # not the first process
        return
    if as_json:
        print_json(finished.to_dict())
        return
    best = finished.result.best
    run = run_named(finished.result.run)
    engines = " --trt" if gpu_names() else ""
    following = f"Next: rrtn evaluate{run}, rrtn export{run}{engines}"
    say(f"best: epoch {best.epoch}, {METRIC_NAMES[best.metric]} on Val {best.score:z.3f}. {following}")


def _print_plan(plan: "TrainingPlan", description: dict[str, Any]) -> None:
    table = Table("setting", Column("value", words=True))
    optim, parameters = plan.config.optim, description["parameters"]
    clips = ", ".join(f"{split} {count:,}" for split, count in description["data"]["clips"].items())
    table.add_row("data", description["data"]["dir"])
    table.add_row("clips", clips)
    if plan.data.targets:
        table.add_row("targets", ", ".join(plan.data.targets))
    if classes := plan.data.columns.classes:
        table.add_row("classes", ", ".join(f"{one.name} ({len(one.classes)})" for one in classes))
    table.add_row("model", f"{plan.config.model.encoder}, {plan.config.model.method}")
    table.add_row("parameters", ", ".join(f"{part} {count:,}" for part, count in parameters.items()))
    epochs = f"{counted(optim.epochs, 'epoch')} x {plan.steps_per_epoch}"
    table.add_row("steps", f"{plan.steps:,} = {epochs}, batch {optim.batch_size}")
    table.add_row(
        "training state", f"{description['bytes_of_training_state'] / 2**20:,.0f} MiB beside the activations"
    )
    print_table(table)
