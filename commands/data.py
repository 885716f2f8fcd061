"""rrtn data synth, rrtn data import and rrtn data check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..runtime.errors import ConfigError
from ..runtime.system.host import quoted
from ..runtime.text import counted
from .data_report import print_data_report
from .options import (
    EXIT_SOME_ERRORS,
    AudioDir,
    Channel,
    ClassTarget,
    CsvFile,
    FileColumn,
    Json,
    Scale,
    SpeakerColumn,
    SplitColumn,
    Targets,
    Task,
    labels_from_options,
    names_with_commas,
    place_settings,
)
from .printing import print_json, say

if TYPE_CHECKING:
    from ..train.config import DataConfig
    from ..train.data.importing import Imported

data = typer.Typer(
    help="Make, import or check a data set.",
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
    task: Annotated[
        Optional[str],
        typer.Option(
            help="In the columns and the layout of a challenge: avb-two, ...",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        Optional[int], typer.Option(min=1, help="Processes; default: one a core.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Make synthetic vocal bursts with ten rated emotions.

    The folder has the Hume-VB layout, or with --task that of a challenge, with its labels.
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
            task=task or "",
            progress=lambda done, _: bar.update(done),
        )
    if as_json:
        print_json({"dir": str(out), "clips": clips, "speakers": speakers, "seed": seed})
    else:
        say(f"{counted(clips, 'clip')} of {counted(speakers, 'speaker')} in {out}. Next: {_next(out)}")


@data.command("import")
def data_import(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A table, or a folder: audformat, A-VB, ExVo, Hume-VB.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    audio: AudioDir = None,
    file_column: FileColumn = None,
    split_column: SplitColumn = None,
    speaker_column: SpeakerColumn = None,
    rater_column: Annotated[
        Optional[str],
        typer.Option(
            help="Each row is this person's rating of a clip: the mean, or the class of most, is its label.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    targets: Targets = None,
    scale: Scale = None,
    class_target: ClassTarget = None,
    task: Task = None,
    table: Annotated[
        Optional[str],
        typer.Option(
            help="Tables of an audformat database, with commas; default: all.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        Optional[str],
        typer.Option(
            help="Shares of Train, Val and Test, by speakers; default: the source's, or 0.7,0.15,0.15.",
            metavar="A,B,C",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the split.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a folder to train on from a table, a challenge's data or an audformat database.

    OUT has data_info.csv and data.toml, which says where the audio is: no audio is copied. A table without a
    split gets one, by whole speakers; one of Train and Test alone gets a Val out of Train.

    Example: rrtn data import ratings.csv mine --audio recordings --scale 1:9
    """
    from ..runtime.progress import Progress
    from ..train.data.importing import ImportRequest, import_data, shares_of_text
    from ..train.data.places import DataPlaces

    request = ImportRequest(
        source=source,
        out=out,
        settings=labels_from_options(targets, scale, class_target, task),
        places=DataPlaces(
            audio=audio,
            file_column=file_column or "",
            split_column=split_column or "",
            speaker_column=speaker_column or "",
        ),
        rater_column=rater_column or "",
        tables=tuple(names_with_commas(table) or ()),
        shares=shares_of_text(split) if split else None,
        seed=seed,
    )
    with Progress("import"):
        imported = import_data(request)
    _print_imported(imported, as_json)


def _print_imported(imported: "Imported", as_json: bool) -> None:
    data, out = imported.data, imported.out
    clips = {name: len(split.clips) for name, split in data.splits.items()}
    notes = [*imported.notes, *data.warnings]
    for note in notes:
        say(f"note: {note}")
    if as_json:
        print_json({"dir": str(out), "clips": clips, "targets": list(data.columns.names), "notes": notes})
        return
    counts = ", ".join(f"{name} {count:,}" for name, count in clips.items())
    say(f"{counts}; targets: {', '.join(data.columns.names)}")
    say(f"{out} refers to its audio. Next: {_next(out)}")


def _next(out: Path) -> str:
    return f"rrtn data check {quoted(out)}; rrtn train --data {quoted(out)}"


@data.command("check")
def data_check(
    folder: Annotated[
        Optional[Path],
        typer.Argument(
            metavar="DIR", help="Folder with data_info.csv and wav/; or --csv.", show_default=False
        ),
    ] = None,
    csv: CsvFile = None,
    audio: AudioDir = None,
    file_column: FileColumn = None,
    split_column: SplitColumn = None,
    speaker_column: SpeakerColumn = None,
    targets: Targets = None,
    scale: Scale = None,
    class_target: ClassTarget = None,
    task: Task = None,
    channel: Channel = None,
    as_json: Json = False,
) -> None:
    """Read and decode a data set, and show what is wrong with it.

    Prints the paper's Table 1, the labels, and the distribution of the ratings, and ends with a verdict. Exit
    code 2: the CSV is refused; 3: some files cannot be used.
    """
    from ..runtime.spec import FrontendSpec
    from ..train.data.data_check import check_data

    places = place_settings(folder, csv, audio, file_column, split_column, speaker_column)
    labels = labels_from_options(targets, scale, class_target, task)
    where, settings = _data_from_options({**places, **labels, "channel": channel})
    report = check_data(where, FrontendSpec(), settings)
    print_json(report.to_dict()) if as_json else print_data_report(report)
    for error in report.errors:
        say(f"error: {error}")
    for warning in report.warnings:
        say(f"warning: {warning}")
    say(f"verdict: {report.verdict}")
    if report.errors:
        raise typer.Exit(EXIT_SOME_ERRORS)


def _data_from_options(options: dict[str, Any]) -> "tuple[Path, DataConfig]":
    """The folder, and the settings of [data]: options win over the folder's data.toml."""
    from ..train.request import new_config

    if not options["dir"]:
        raise ConfigError("DIR", "not given", wanted="a folder, or --csv FILE")
    settings = new_config({"data": options}).data
    return Path(settings.dir), settings
