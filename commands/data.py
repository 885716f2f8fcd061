"""rrtn data synth and rrtn data check."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..runtime.errors import counted
from .data_report import print_data_report
from .options import EXIT_SOME_ERRORS, Channel, Json, Targets, names_with_commas
from .printing import print_json, say

data = typer.Typer(
    help="Make a data set, or check one.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@data.command("synth")
def data_synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    clips: Annotated[int, typer.Option(min=1, help="How many.")] = 1000,
    speakers: Annotated[int, typer.Option(min=1, help="How many; each is in one split only.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal files.")] = 0,
    workers: Annotated[
        Optional[int], typer.Option(min=1, help="Processes; default: one a core.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Make synthetic vocal bursts with ten rated emotions.

    The folder has the Hume-VB layout.
    """
    from ..runtime.progress import Progress
    from ..train.data.corpus import synthesise

    with Progress("synthesise", clips, "clips") as bar:
        synthesise(
            out,
            clips=clips,
            speakers=speakers,
            seed=seed,
            workers=workers,
            progress=lambda done, _: bar.update(done),
        )
    if as_json:
        print_json({"dir": str(out), "clips": clips, "speakers": speakers, "seed": seed})
    else:
        say(
            f"{counted(clips, 'clip')} of {counted(speakers, 'speaker')} in {out}. "
            f"Next: rrtn data check {out}; rrtn train --data {out}"
        )


@data.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with data_info.csv and wav/.")],
    targets: Targets = None,
    channel: Channel = None,
    as_json: Json = False,
) -> None:
    """Read and decode a data set, and show what is wrong with it.

    Prints the paper's Table 1 and the distribution of the ratings. Exit code 2: the CSV is refused; 3: some
    files cannot be decoded.
    """
    from ..runtime.spec import FrontendSpec
    from ..train.data.data_check import check_data

    wanted = names_with_commas(targets) or ()
    report = check_data(folder, FrontendSpec(), wanted, channel=channel)
    print_json(report.to_dict()) if as_json else print_data_report(report)
    for error in report.errors:
        say(f"error: {error}")
    for warning in report.warnings:
        say(f"warning: {warning}")
    if report.errors:
        raise typer.Exit(EXIT_SOME_ERRORS)
