"""Label tracks and a page from a table of scores, each recording by itself."""

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from ..arrays import Float32
from ..audio.file_names import FilePath
from ..audio.reader import levels_of_file
from ..errors import AudioError, ConfigError
from ..progress import Progress
from ..spec import FrontendSpec
from ..system.descriptors import quiet_codecs
from ..system.files import read_regular, remove_abandoned, write_bytes
from ..tables.label_tracks import TRACK_FORMATS, Track
from ..tables.outputs import check_new, check_outputs
from ..tables.rows import Row
from ..tables.timeline_page import Timeline, timeline_page
from ..tables.writer import read_table
from ..text import counted
from .table_job import CHANNEL, F_MAX, SCALES, settings_of_table, working_directories

PAGE: Final = "html"
KINDS: Final = (*TRACK_FORMATS, PAGE)
_LONGEST_NAME: Final = 255  # bytes, on every usual file system
_IN_NAME: Final = re.compile(r"[/\\:]+")


_Recording = tuple[FilePath, list[Row]]
_Say = Callable[[str], object]


def write_tracks(
    table: Path,
    folder: Path,
    kinds: Sequence[str],
    *,
    overwrite: bool = False,
    say: _Say = lambda line: None,
) -> list[Path]:
    """Writes the label tracks of every recording in a table, and the page of all; -> the files.

    `kinds` are some of KINDS. Where a length is needed, and for the page, each recording is decoded once.
    `say` takes lines for the person.
    A file that is there already stays where it is equal to what would be written.
    Raises ConfigError for a table that rrtn did not score, and where another file is there, unless
    `overwrite`; nothing is written then.
    """
    _check_kinds(kinds)
    recordings = _recordings(table)
    names = _names([file for file, _ in recordings])
    options = {path: f"--out {folder} ({path.name})" for path in _targets(folder, table, names, kinds)}
    folder.mkdir(parents=True, exist_ok=True)
    for path, option in options.items():
        check_outputs({path: option})
    made: dict[Path, bytes] = {}
    named = list(zip(names, recordings, strict=True))
    with closing(_texts(table, folder, named, kinds, say)) as texts:
        for path, text in texts:
            content = text.encode()
            if not (path.is_file() and read_regular(path) == content):
                check_new(path, options[path], overwrite=overwrite)
                made[path] = content
    remove_abandoned(*options)
    for path, content in made.items():
        write_bytes(path, content)
    return [*options]


def _check_kinds(kinds: Sequence[str]) -> None:
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError("--as", ", ".join(unknown), wanted=f"some of {', '.join(KINDS)}")
    if not kinds:
        raise ConfigError("--as", "is empty", wanted=f"some of {', '.join(KINDS)}")


def _texts(
    table: Path, folder: Path, named: Sequence[tuple[str, _Recording]], kinds: Sequence[str], say: _Say
) -> Generator[tuple[Path, str], None, None]:
    """The files to write, with their texts: the tracks of each recording, then the page of all."""
    settings, forms = settings_of_table(table), [TRACK_FORMATS[kind] for kind in kinds if kind != PAGE]
    decoded = PAGE in kinds or any(form.needs_length for form in forms)
    place = _place(table, say) if decoded else ""
    timelines: list[Timeline] = []
    with Progress("tracks", len(named), "recordings") as bar, quiet_codecs():
        for name, (file, rows) in named:
            path = os.path.join(os.fsencode(place), os.fsencode(file))
            heard = _heard(path, settings.get(CHANNEL)) if decoded else (0.0, None)
            timelines.append(_timeline(file, rows, settings, *heard))
            yield from ((folder / f"{name}{form.suffix}", form.text(timelines[-1].track)) for form in forms)
            bar.advance()
    if unread := sum(decoded and timeline.levels is None for timeline in timelines):
        say(
            f"note: {unread} of {counted(len(timelines), 'recording')} could not be read: "
            "a track then ends with its last row, and the page has no level"
        )
    if PAGE in kinds:
        yield folder / f"{table.stem}.html", timeline_page(timelines, title=table.name)


def _recordings(table: Path) -> list[_Recording]:
    """Each file that could be read, with the rows that have a place in it and scores."""
    settings = settings_of_table(table)
    if not settings:
        raise ConfigError(
            str(table),
            f"the folder .{table.name}.rrtn beside it is not there, or there is no such table",
            wanted="a table of rrtn score, and what made it",
            fix="score again with --segment or --window",
        )
    rows = read_table(table, tuple(settings["labels"]), settings.get("embedding"), subject=str(table))
    by_file = itertools.groupby(rows, lambda row: os.fsencode(row.file))
    found = [(file, list(of_file)) for file, of_file in by_file]
    return [
        (file, [row for row in of_file if row.start is not None and row.scores is not None])
        for file, of_file in found
        if of_file[0].start is not None or not of_file[0].error
    ]


def _names(files: Sequence[FilePath]) -> list[str]:
    """What the tracks of each file are called: its name without suffix, or its whole path where that is not
    enough to tell two files apart. What is too long for the name of a track is cut, and a hash of the path
    ends it.
    """
    stems = [Path(os.fsdecode(file)).stem for file in files]
    count = Counter(stem.casefold() for stem in stems)
    return [
        _fitting(
            stem if count[stem.casefold()] == 1 else _IN_NAME.sub("_", os.fsdecode(file)).strip("_"), file
        )
        for stem, file in zip(stems, files, strict=True)
    ]


def _fitting(name: str, file: FilePath) -> str:
    most = _LONGEST_NAME - max(len(form.suffix) for form in TRACK_FORMATS.values())
    content = os.fsencode(name)
    if len(content) <= most:
        return name
    mark = f"-{hashlib.sha256(os.fsencode(file)).hexdigest()[:16]}"
    return content[: most - len(mark)].decode(errors="ignore") + mark


def _targets(folder: Path, table: Path, names: Sequence[str], kinds: Sequence[str]) -> list[Path]:
    tracks = [TRACK_FORMATS[kind].suffix for kind in kinds if kind != PAGE]
    pages = [folder / f"{table.stem}.html"] if PAGE in kinds else []
    targets = [folder / f"{name}{suffix}" for name in names for suffix in tracks] + pages
    if twice := [path.name for path, count in Counter(targets).items() if count > 1]:
        raise ConfigError(
            str(table), f"{twice[0]} would be of two recordings", fix="score them into two tables"
        )
    return targets


def _place(table: Path, say: Callable[[str], object]) -> str:
    """What relative names in the table are relative to; "" is the working directory, where nobody knows."""
    known = working_directories(table)
    if len(known) != 1:
        return ""
    if not os.path.isdir(known[0]):
        say(f"note: {known[0]}, which names in the table are relative to, is not there: this folder is taken")
        return ""
    return known[0]


def _timeline(
    file: FilePath,
    rows: list[Row],
    settings: dict[str, Any],
    seconds: float,
    levels: Float32 | None,
) -> Timeline:
    track = Track(
        name=os.fsdecode(file),
        seconds=max([seconds, *(row.end or 0.0 for row in rows)]),
        labels=tuple(settings["labels"]),
        rows=rows,
        scales=settings.get(SCALES, {}),
        highest_hertz=settings.get(F_MAX, FrontendSpec.f_max),
        channel=settings.get(CHANNEL) or 1,
    )
    return Timeline(track, levels)


def _heard(file: FilePath, channel: int | None) -> tuple[float, Float32 | None]:
    """Length and levels; (0, None) of a recording that cannot be read now."""
    try:
        return levels_of_file(file, channel)
    except AudioError:
        return 0.0, None
