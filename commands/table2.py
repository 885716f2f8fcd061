"""rrtn table2."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..runtime.errors import ConfigError
from .choices import ENCODERS, METHODS
from .options import BatchSize, DataDir, Device, Epochs, Json, Precision
from .printing import new_table, plain, print_json, print_table, say

if TYPE_CHECKING:
    from ..train.evidence.table2 import Table2


def table2(
    data: DataDir = None,
    seeds: Annotated[int, typer.Option(help="Runs of each row, with seeds 0, 1, ...")] = 3,
    encoders: Annotated[
        Optional[str], typer.Option(help=f"Of {','.join(ENCODERS)}; default: all.", show_default=False)
    ] = None,
    methods: Annotated[
        Optional[str], typer.Option(help=f"Of {','.join(METHODS)}; default: all.", show_default=False)
    ] = None,
    epochs: Epochs = None,
    fraction: Annotated[
        Optional[float],
        typer.Option(
            help="Of the training clips, by whole speakers whom each seed draws.", show_default=False
        ),
    ] = None,
    batch_size: BatchSize = None,
    device: Device = None,
    precision: Precision = None,
    out: Annotated[Path, typer.Option(help="The runs' folder; what is there goes on.")] = Path("runs/table2"),
    dry_run: Annotated[
        bool, typer.Option(help="Say what would be trained, and for how long if it was measured.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The paper's Table 2 on your data: nine rows, some seeds each, with gains and their significance
    beside the paper's.

    The same command goes on where it was stopped. Example: rrtn table2 --data hume-vb --seeds 5
    --encoders cnn14
    """
    from ..train.config import config_from_dict
    from ..train.config_file import merged
    from ..train.distributed import world_from_environment
    from ..train.evidence.table2 import table_of_runs
    from ..train.evidence.table2_runs import rows_of, table_runs, train_rows
    from ..train.loop import device_from_config

    if (world := world_from_environment()).size > 1:
        raise ConfigError(
            f"torchrun | {world.size} processes | rrtn table2 trains with one | start it without torchrun"
        )
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
    rows = rows_of(
        *(tuple(part.strip() for part in text.split(",")) if text else () for text in (encoders, methods))
    )
    runs = table_runs(settings, out=out, seeds=seeds, rows=rows)
    for note in runs.notes:
        say(f"[bold yellow]note[/]: {plain(note)}")
    if dry_run:
        print_json(runs.describe()) if as_json else _print_runs(runs.describe())
        return
    train_rows(runs, say=lambda text: say(plain(text)), at_run=lambda: table_of_runs(runs).write())
    table = table_of_runs(runs)
    table.write()
    print_json(table.to_dict()) if as_json else _print_table2(table)


def _print_runs(description: dict[str, Any]) -> None:
    table = new_table("row", "seed", "state", "folder")
    for run in description["runs"]:
        table.add_row(run["row"], str(run["seed"]), run["state"], plain(run["folder"]))
    seconds = description["seconds_to_go"]
    left = (
        "time not known before an epoch was trained"
        if seconds is None
        else f"{seconds / 60:,.1f} minutes, as measured here"
    )
    print_table(
        table, caption=f"{description['epochs_to_go']:,} of {description['epochs']:,} epochs to go: {left}"
    )


def _print_table2(table: "Table2") -> None:
    from ..train.evidence.table2 import HEADER

    shown = new_table(*HEADER)
    for i, row in enumerate(table.rows):
        if i and row.row.method == "vanilla":
            shown.add_section()
        shown.add_row(*map(plain, row.cells()))
    print_table(shown, title=table.title, caption=table.caption)
    say(f"table in [bold]{plain(table.runs.out / 'table2.md')}[/] and .json")
