"""rrtn table2."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..runtime.progress import Progress
from ..runtime.text import counted
from ..train.config import METHODS
from ..train.method.choices import ENCODER_NAMES
from .options import (
    AudioDir,
    BatchSize,
    Channel,
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
    check_device,
    labels_from_options,
    load_torch,
    names_with_commas,
    place_settings,
)
from .printing import Column, Table, print_json, print_table, say

if TYPE_CHECKING:
    from ..train.evidence.predictions import Predictions
    from ..train.evidence.table2 import Table2
    from ..train.evidence.table2_runs import TableRuns


def table2(
    data: DataDir = None,
    csv: CsvFile = None,
    audio: AudioDir = None,
    file_column: FileColumn = None,
    split_column: SplitColumn = None,
    speaker_column: SpeakerColumn = None,
    targets: Targets = None,
    scale: Scale = None,
    seeds: Annotated[int, typer.Option(help="Runs of each row, with seeds 0, 1, ...")] = 3,
    encoders: Annotated[
        Optional[str], typer.Option(help=f"Of {','.join(ENCODER_NAMES)}; default: all.", show_default=False)
    ] = None,
    methods: Annotated[
        Optional[str],
        typer.Option(help=f"Of {','.join(METHODS)}; default: all.", show_default=False),
    ] = None,
    epochs: Epochs = None,
    fraction: Fraction = None,
    batch_size: BatchSize = None,
    device: Device = None,
    precision: Precision = None,
    channel: Channel = None,
    out: Annotated[Path, typer.Option(help="The runs' folder; what is there goes on.")] = Path("runs/table2"),
    dry_run: Annotated[
        bool, typer.Option(help="Say what would be trained, and for how long if it was measured.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train the nine rows of the paper's Table 2 on your data.

    Each row is trained with several seeds. The table shows the gains and their significance, beside the
    paper's. The same command goes on where it was stopped.

    Example: rrtn table2 --data hume-vb --seeds 5 --encoders cnn14
    """
    settings = {
        "device": device,
        "precision": precision,
        "data": {
            **place_settings(data, csv, audio, file_column, split_column, speaker_column),
            **labels_from_options(targets, scale),
            "channel": channel,
            "fraction": fraction,
        },
        "optim": {"epochs": epochs, "batch_size": batch_size},
    }
    runs = _runs_from_options(settings, encoders, methods, out=out, seeds=seeds)
    for note in runs.notes:
        say(f"note: {note}")
    if dry_run:
        print_json(runs.describe()) if as_json else _print_runs(runs.describe())
        return
    table = _trained(runs)
    print_json(table.to_dict()) if as_json else _print_table2(table)


def _runs_from_options(
    settings: dict[str, Any], encoders: str | None, methods: str | None, *, out: Path, seeds: int
) -> "TableRuns":
    from ..train.request import new_config

    config = new_config(settings)
    load_torch("train.evidence.table2")
    from ..train.evidence.table2_runs import rows_of, table_runs

    check_device(config, "rrtn table2")
    rows = rows_of(names_with_commas(encoders) or (), names_with_commas(methods) or ())
    with Progress("read data"):
        return table_runs(config, out=out, seeds=seeds, rows=rows)


def _trained(runs: "TableRuns") -> "Table2":
    """Trains what is missing. The table on the disk is written anew after each run."""
    from ..train.evidence.table2 import table_of_runs
    from ..train.evidence.table2_runs import train_rows

    read: dict[Path, Predictions] = {}
    train_rows(runs, say=say, at_run=lambda: table_of_runs(runs, read=read).write())
    with Progress("compare the runs"):
        table = table_of_runs(runs, read=read)
    table.write()
    return table


def _print_runs(description: dict[str, Any]) -> None:
    table = Table("row", Column("seed", right=True), "state", "folder")
    for run in description["runs"]:
        table.add_row(run["row"], str(run["seed"]), run["state"], run["folder"])
    seconds = description["seconds_to_go"]
    left = "the time is not known before an epoch was trained"
    if seconds is not None:
        left = f"{seconds / 60:,.1f} minutes, as measured here"
    epochs = f"{description['epochs_to_go']:,} of {counted(description['epochs'], 'epoch')} to go"
    print_table(table, caption=f"{epochs}: {left}")


def _print_table2(table: "Table2") -> None:
    from ..train.evidence.table2 import HEADER

    drops = dict(zip(HEADER, (0, 0, 1, 0, 5, 4, 2, 3, 0, 6, 7), strict=True))
    shown = Table(*(Column(name, drop=drop) for name, drop in drops.items()))
    for i, row in enumerate(table.rows):
        if i and row.row.method == "vanilla":
            shown.add_section()
        shown.add_row(*row.cells())
    print_table(shown, title=table.title, caption=table.caption)
    say(f"table in {table.runs.out / 'table2.md'} and .json")
