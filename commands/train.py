"""rrtn train."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..runtime.errors import ConfigError
from .choices import ENCODERS, METHODS
from .options import BatchSize, DataDir, Device, Epochs, Json, Precision
from .printing import new_table, plain, print_json, print_table, say

if TYPE_CHECKING:
    from ..train.plan import TrainingPlan


def train(
    data: DataDir = None,
    targets: Annotated[
        Optional[str],
        typer.Option(help="Target columns, with commas; default: every numeric column.", show_default=False),
    ] = None,
    encoder: Annotated[
        Optional[str],
        typer.Option(help=f"One of {', '.join(ENCODERS)}; default resnet18.", show_default=False),
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
        Optional[bool],
        typer.Option("--compile/--no-compile", help="torch.compile; default off.", show_default=False),
    ] = None,
    init: Annotated[
        Optional[Path],
        typer.Option(help="A PANNs Cnn14_16k.pth or Cnn10 that the encoder starts from.", show_default=False),
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
        bool, typer.Option(help="Read and check everything, print what would happen, train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train the network on rated clips.

    Without --data it trains on a small built-in synthetic corpus. Every setting of --config is in a
    run's config.toml. Example: rrtn train --data hume-vb --encoder cnn14 --method rrtn-ruwl. On 4
    GPUs: torchrun --nproc-per-node 4 -m rrtn train --data hume-vb
    """
    from ..train.config import config_from_dict
    from ..train.config_file import changes_on_resume, config_from_toml, merged, read_toml
    from ..train.distributed import first_on_machine_first, from_first, joined, world_from_environment
    from ..train.loop import device_from_config
    from ..train.loop import train as run_training
    from ..train.plan import describe, plan_from_config
    from ..train.run_folder import RUNS, RunFolder, newest_run

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
    if resume and (run is None or not RunFolder(run).is_begun()):
        raise ConfigError(
            f"--resume | no run in {run or 'runs/'} | expected a folder with config.toml | use --out RUN"
        )
    if resume and config:
        raise ConfigError("--config | not with --resume: the run's own config.toml is taken")
    source = RunFolder(run).config if resume and run else config
    settings = config_from_dict(
        merged(read_toml(source) if source else {}, overrides), source=str(source or "flags")
    )
    changed = changes_on_resume(config_from_toml(RunFolder(run).config), settings) if resume and run else []
    world = world_from_environment()
    tell = say if world.is_first else _say_nothing
    with joined(world, device_from_config(settings, world)):
        with first_on_machine_first(world):
            plan = plan_from_config(settings, ranks=world.size)
        for note in (*(f"changed on resume: {change}" for change in changed), *plan.notes):
            tell(f"[bold yellow]note[/]: {plain(note)}")
        model = plan.config.model
        if dry_run:
            if world.is_first:
                print_json(describe(plan)) if as_json else _print_plan(plan, describe(plan))
            return
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{model.encoder}-{model.method}"
        run = run or RUNS / from_first(world, name)
        epochs = plan.config.optim.epochs
        tell(
            f"run [bold]{plain(run)}[/]: {model.encoder}, {model.method}, {epochs} epochs, {plan.steps} steps"
        )
        result = run_training(plan, run, resume=resume, strict_resume=strict_resume, world=world)
    if not world.is_first:
        return
    best = {"epoch": result.best.epoch, "ccc": result.best.ccc, "per_target": result.best.per_target}
    if as_json:
        print_json({"run": str(run), "best": best, "epochs": result.epochs, "config": plan.config.to_dict()})
    else:
        say(
            f"best: epoch {result.best.epoch}, mean Val CCC {result.best.ccc:.3f}. Next: rrtn evaluate, rrtn export --trt"
        )


def _say_nothing(text: str) -> None:
    """For the processes beside the first one."""


def _print_plan(plan: "TrainingPlan", description: dict[str, Any]) -> None:
    table = new_table("", "")
    optim, parameters = plan.config.optim, description["parameters"]
    table.add_row("data", plain(f"{description['data']['dir']}: {description['data']['clips']}"))
    table.add_row("targets", plain(", ".join(plan.data.targets)))
    table.add_row("model", f"{plan.config.model.encoder}, {plan.config.model.method}")
    table.add_row("parameters", ", ".join(f"{part} {count:,}" for part, count in parameters.items()))
    table.add_row(
        "steps", f"{plan.steps:,} = {optim.epochs} epochs x {plan.steps_per_epoch}, batch {optim.batch_size}"
    )
    table.add_row(
        "training state", f"{description['bytes_of_training_state'] / 2**20:,.0f} MiB beside the activations"
    )
    print_table(table)
