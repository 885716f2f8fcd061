"""rrtn data: synth and check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from .options import Json
from .printing import new_table, plain, print_json, print_table, say

if TYPE_CHECKING:
    from ..train.table1 import DataReport

data_app = typer.Typer(no_args_is_help=True, help="Make a data set, or check one.")


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
    from ..runtime.progress import Progress
    from ..train.corpus import synthesise

    with Progress("synthesise", clips, "clips") as bar:
        synthesise(out, clips=clips, speakers=speakers, seed=seed, workers=workers, progress=lambda done, _: bar.update(done))
    if as_json:
        print_json({"dir": str(out), "clips": clips, "speakers": speakers, "seed": seed})
    else:
        folder = plain(out)
        say(f"{clips} clips of {speakers} speakers in {folder}. Next: rrtn data check {folder}; rrtn train --data {folder}")


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with data_info.csv and wav/.")], as_json: Json = False
) -> None:
    """Read the CSV, decode every file, and print the paper's Table 1 for it."""
    from ..runtime.spec import FrontendSpec
    from ..train.table1 import check_data

    report = check_data(folder, FrontendSpec())
    print_json(report.to_dict()) if as_json else _print_data_report(report)


def _print_data_report(report: "DataReport") -> None:
    names = [split.split for split in report.splits]
    table = new_table("", *names)
    for label, values in {
        "clips": [f"{split.clips:,}" for split in report.splits],
        "minutes": [f"{split.minutes:.1f}" for split in report.splits],
        "speakers": [str(split.speakers) for split in report.splits],
        "countries": [", ".join(f"{name or '?'} {n}" for name, n in split.countries.items()) for split in report.splits],
        "silent clips": [str(split.silent) for split in report.splits],
        "longer than the model's clip": [str(split.longer_than_clip) for split in report.splits],
    }.items():
        table.add_row(label, *map(plain, values))
    targets = f"targets: {', '.join(report.data.targets)}; a target at exactly 1.0 in {report.one_at_full:.0%} of rated clips"
    print_table(table, title=str(report.data.path), caption=targets)
    for warning in report.data.warnings:
        say(f"[bold yellow]note[/]: {plain(warning)}")
