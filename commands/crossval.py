"""rrtn crossval."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..runtime.progress import Progress
from ..runtime.system.host import quoted
from ..runtime.text import counted
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
    Json,
    Precision,
    Scale,
    SpeakerColumn,
    Targets,
    Task,
    check_device,
    labels_from_options,
    load_torch,
    place_settings,
)
from .printing import Column, Table, numbers, print_json, print_table, say

if TYPE_CHECKING:
    from ..train.evidence.fold_runs import FoldRuns


def crossval(
    data: DataDir = None,
    csv: CsvFile = None,
    audio: AudioDir = None,
    file_column: FileColumn = None,
    speaker_column: SpeakerColumn = None,
    folds: Annotated[
        str, typer.Option(help="How many, or loso: each speaker is left out once.", metavar="N|loso")
    ] = "5",
    targets: Targets = None,
    scale: Scale = None,
    class_target: ClassTarget = None,
    task: Task = None,
    encoder: Annotated[
        Optional[str], typer.Option(help="Default resnet18.", metavar="NAME", show_default=False)
    ] = None,
    method: Annotated[
        Optional[str], typer.Option(help="Default rrtn-ruwl.", metavar="NAME", show_default=False)
    ] = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Annotated[
        Optional[int], typer.Option(help="Of weights, order, crops and masks; default 0.", show_default=False)
    ] = None,
    device: Device = None,
    precision: Precision = None,
    channel: Channel = None,
    config: Annotated[
        Optional[Path], typer.Option(help="A config.toml; flags win over it.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="The folds' folder; what is there goes on.")] = Path(
        "runs/crossval"
    ),
    dry_run: Annotated[bool, typer.Option(help="Say what would be trained.")] = False,
    as_json: Json = False,
) -> None:
    """Train once for each fold of speakers, and evaluate on all clips.

    The clips of Train and Val are dealt to folds by whole speakers; a table needs no split. Each fold
    is predicted by the run that did not learn from it, after its last epoch. The same command goes on where
    it was stopped. rrtn evaluate and rrtn report take the folder.

    Example: rrtn crossval --data emodb --folds loso --epochs 10
    """
    settings = {
        "seed": seed,
        "device": device,
        "precision": precision,
        "data": {
            **place_settings(data, csv, audio, file_column=file_column, speaker_column=speaker_column),
            **labels_from_options(targets, scale, class_target, task),
            "channel": channel,
        },
        "model": {"encoder": encoder, "method": method},
        "optim": {"epochs": epochs, "batch_size": batch_size},
    }
    runs = _runs_from_options(settings, config, folds, out=out)
    for note in runs.notes:
        say(f"note: {note}")
    if dry_run:
        print_json(runs.describe()) if as_json else _print_folds(runs.describe())
        return
    _train(runs, as_json)


def _runs_from_options(
    settings: dict[str, Any], config_file: Path | None, folds: str, *, out: Path
) -> "FoldRuns":
    from ..train.request import config_from_settings

    config = config_from_settings(settings, config_file, fold=f"1/{folds}")
    load_torch("train.evidence.fold_runs")
    from ..train.evidence.fold_runs import fold_runs

    check_device(config, "rrtn crossval")
    with Progress("read data"):
        return fold_runs(config, folds=folds, out=out)


def _train(runs: "FoldRuns", as_json: bool) -> None:
    from ..train.evidence.evaluate import evaluate
    from ..train.evidence.fold_runs import train_folds
    from .evaluate import print_evaluation

    train_folds(runs, say=say)
    evaluation = evaluate(runs.out)
    print_json(evaluation.to_dict()) if as_json else print_evaluation(evaluation)
    if not as_json:
        folder = quoted(runs.out)
        say(f"Next: rrtn report {folder}, rrtn evaluate {folder} --by COLUMN")


def _print_folds(description: dict[str, Any]) -> None:
    table = Table(*numbers("fold", "clips", "speakers"), "state", Column("folder"))
    for fold in description["folds"]:
        table.add_row(*(str(fold[name]) for name in ("fold", "clips", "speakers", "state", "folder")))
    epochs = counted(description["config"]["optim"]["epochs"], "epoch")
    print_table(table, caption=f"{epochs} each; validated on after the last")
