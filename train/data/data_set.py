"""A folder in the Hume-VB layout, data_info.csv and wav/, read and checked before training.

Columns are found by name, never by position, and in any spelling: `Subject_ID`, `subject_id` and
`SubjectID` are one name. n clips, K rated targets, J class targets, L columns of the scores.
"""

import csv
import errno
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from ...runtime.arrays import Float32, Float64
from ...runtime.audio.signatures import AUDIO_SUFFIXES
from ...runtime.bundle import label_problem
from ...runtime.errors import DataError, counted
from ...runtime.files import read_regular
from ..method.columns import Columns
from .targets import LabelCells, LabelChoice, Labels, labels_of_cells, number

SPLITS: Final = ("Train", "Val", "Test")
# Words of a column's name, in small letters. A name that has no other words is metadata.
_SPEAKERS: Final = "subject speaker spk participant actor singer performer person patient user worker"
_NUMBERED: Final = ("", "id", "name", "code", "number", "no", "nr")  # what may follow: Subject_ID
_RECORDING: Final = """
    id uid uuid key index idx row unnamed number no nr code file fileid filename filepath path folder name url
    wav audio clip recording utterance utt segment sentence session take repetition trial corpus dataset
    database source version split fold folds partition subset set device microphone mic channel channels
    sample samples rate sr sampling samplerate frame frames bit bits depth
"""
_TIME: Final = """
    date day month year time times timestamp start end begin stop onset offset duration durations dur length
    len seconds secs sec ms
"""
_PEOPLE: Final = """
    age ages group years birth sex gender info country countrystring string nationality ethnicity race native
    language lang accent dialect rater raters annotator annotators listener listeners ratings n num
"""
METADATA: Final = frozenset(
    [f"{who}{what}" for who in _SPEAKERS.split() for what in _NUMBERED]
    + f"{_RECORDING} {_TIME} {_PEOPLE}".split()
)
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[^\W\d_][^\W\d_A-Z]*")
_LONGEST: Final = 80  # characters of a name in a message
_SHOWN = 3  # line numbers in one message
_FEWEST = {"Train": 2, "Val": 2, "Test": 0}


class Clip(NamedTuple):
    """One row of the CSV."""

    file_id: str  # as the CSV writes it, brackets included
    path: Path
    split: str
    speaker: str  # "" where the CSV has no column of speakers
    country: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Split:
    """The clips of one split with their labels. NaN: none."""

    clips: tuple[Clip, ...]
    ratings: Float32  # [n, K + J]: ratings mapped to 0 to 1, then numbers of classes
    rated: Float64  # [n, L] in the units of the scales; a class as 0 and 1


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A checked data set."""

    path: Path
    columns: Columns
    splits: dict[str, Split]
    warnings: tuple[str, ...]
    channel: int | None = None  # of the files, counted from 1; None: the mean of all
    numeric_metadata: tuple[str, ...] = ()  # columns of numbers that their names keep from being targets

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the rated targets, [K]."""
        return self.columns.targets


def read_data(
    folder: Path,
    targets: Sequence[str] = (),
    *,
    channel: int | None = None,
    labels: LabelChoice = LabelChoice(),  # noqa: B008  # frozen
) -> DataSet:
    """Reads and checks the whole CSV.

    `targets` names the rated columns. By default, every numeric column that is not metadata is one.
    `labels` has the rest that is said about labels. `channel` of the files, counted from 1, is kept for who
    decodes them. Raises DataError: one line with the file, the line numbers, how many lines there are,
    and what was expected.
    """
    table = _read_csv(_find_csv(folder))
    names = _targets_of(table, targets, labels)
    _check_places(table)
    rows = _without_repeats(table)
    clips = [_clip(folder, row) for row in rows]
    found = _labels(table, rows, names, labels)
    if problem := label_problem(found.columns.labels):
        raise DataError(str(table.path), problem, wanted="a name for each target", fix="--targets NAME,...")
    _check_files(table, clips)
    return DataSet(
        path=folder,
        columns=found.columns,
        splits={name: _split(table, name, clips, found) for name in SPLITS},
        channel=channel,
        warnings=(*table.warnings, *found.warnings, *_leaks(clips), *_unlisted(folder, clips)),
        numeric_metadata=tuple(
            name
            for name in table.columns
            if name not in found.columns.names and _is_metadata(name) and table.is_numeric(name)
        ),
    )


class _CsvRow(NamedTuple):
    line: int
    cells: dict[str, str]
    file_id: str
    split: str
    speaker: str  # "" where no column says it
    country: str


@dataclass(frozen=True)
class _CsvTable:
    path: Path
    columns: tuple[str, ...]
    rows: list[_CsvRow]
    warnings: list[str]

    def is_numeric(self, column: str) -> bool:
        """Whether a row has a number there."""
        return any(number(row.cells[column]) is not None for row in self.rows)

    def refused(self, lines: Sequence[int], came: str, *, wanted: str, fix: str = "") -> DataError:
        """One error for one kind of mistake, however many rows have it."""
        shown = ", ".join(map(str, sorted(lines)[:_SHOWN]))
        more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        plural = "s" if len(lines) > 1 else ""
        where = f"{self.path}, line{plural} {shown}{more} ({len(lines)} in all)"
        return DataError(where, came, wanted=wanted, fix=fix)


def _find_csv(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(str(folder), "not a folder", wanted="one with data_info.csv and wav/")
    path = folder / "data_info.csv"
    if path.is_file():
        return path
    if path.exists():
        raise DataError(str(path), "not a regular file", wanted="a table with File_ID, Split and targets")
    others = sorted(other for other in folder.glob("*.csv") if other.is_file())
    if len(others) != 1:
        raise DataError(
            str(folder),
            f"{len(others)} CSV files, none named data_info.csv",
            wanted="data_info.csv and wav/",
            fix="name the table data_info.csv",
        )
    return others[0]


def _read_csv(path: Path) -> _CsvTable:
    """Accepts a BOM and CRLF; refuses other separators, other encodings and ragged rows."""
    try:
        text = read_regular(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}", "not UTF-8", wanted="text in UTF-8", fix="save the table as CSV UTF-8"
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = tuple(name.strip() for name in next(reader, ()))
        records = [(reader.line_num, record) for record in reader if record]
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}", str(error), wanted="comma-separated values"
        ) from error
    _check_header(path, columns)
    table = _CsvTable(path, columns, [], [])
    if ragged := [line for line, record in records if len(record) != len(columns)]:
        raise table.refused(
            ragged,
            "another number of cells than the header has",
            wanted=f"{len(columns)} cells",
            fix="put a text that holds a comma in double quotes",
        )
    if not records:
        raise DataError(str(path), "no rows below the header", wanted="one row for each clip")
    table.rows.extend(_rows(columns, records))
    return table


def _rows(columns: tuple[str, ...], records: list[tuple[int, list[str]]]) -> Iterator[_CsvRow]:
    file_id, split = _named(columns, ["fileid"]), _named(columns, ["split"])
    speaker = _named(columns, [f"{who}{what}" for who in _SPEAKERS.split() for what in ("id", *_NUMBERED)])
    countries = [_named(columns, [name]) for name in ("countrystring", "country")]
    for line, record in records:
        cells = dict(zip(columns, map(str.strip, record), strict=True))
        country = next(filter(None, (cells.get(name, "") for name in countries)), "")
        yield _CsvRow(line, cells, cells[file_id], cells[split], cells.get(speaker, ""), country)


def _named(columns: Sequence[str], names: Sequence[str]) -> str:
    """The column that has one of the names in any spelling; earlier names win. "" where none has."""
    found = (column for name in names for column in columns if "".join(_words(column)) == name)
    return next(found, "")


def _is_metadata(column: str) -> bool:
    words = _words(column)
    return bool(words) and ("".join(words) in METADATA or METADATA.issuperset(words))


def _words(column: str) -> list[str]:
    """Subject_ID, subjectID and "Subject id" -> subject, id."""
    return [word.casefold() for word in _WORD.findall(column)]


def _check_header(path: Path, columns: tuple[str, ...]) -> None:
    if not columns:
        raise DataError(str(path), "empty file", wanted="a header with File_ID, Split and target columns")
    if missing := [name for name in ("File_ID", "Split") if not _named(columns, ["".join(_words(name))])]:
        with_semicolons = any(";" in name for name in columns)
        raise DataError(
            f"{path}, line 1",
            f"no column {' and no column '.join(missing)}; the header has {', '.join(columns)}",
            fix="save the table with commas: the separator seems to be ';'" if with_semicolons else "",
        )
    if repeated := [name for name, count in Counter(columns).items() if count > 1]:
        raise DataError(
            f"{path}, line 1", f"column {', '.join(map(repr, repeated))} twice", wanted="each name once"
        )


def _targets_of(table: _CsvTable, wanted: Sequence[str], labels: LabelChoice) -> tuple[str, ...]:
    """The rated columns. Raises DataError for names of no column, and where there is nothing to learn."""
    classes = labels.class_targets
    for flag, names in (("--targets", wanted), ("--class-target", classes)):
        if unknown := [name for name in names if name not in table.columns]:
            columns = f"columns of {table.path}: {', '.join(table.columns)}"
            raise DataError(flag, ", ".join(unknown), wanted=columns)
    if both := [name for name in classes if name in wanted]:
        raise DataError("--class-target", ", ".join(both), wanted="columns that --targets does not name")
    if wanted or labels.only_named:
        return tuple(wanted)
    # an index column has no name
    candidates = [name for name in table.columns if name and name not in classes and not _is_metadata(name)]
    names = tuple(filter(table.is_numeric, candidates))
    if ignored := [name for name in candidates if name not in names]:
        table.warnings.append(f"{table.path.name}: columns without numbers are ignored: {', '.join(ignored)}")
    if not names and not classes:
        raise DataError(
            str(table.path),
            f"no numeric target column; the header has {', '.join(table.columns)}",
            wanted="at least one column of numbers from 0 to 1",
        )
    return names


def _check_places(table: _CsvTable) -> None:
    """Every row must be in a split, and its file below wav/."""
    if lost := [row for row in table.rows if row.split not in SPLITS]:
        lines = [row.line for row in lost]
        raise table.refused(lines, f"Split is {_short(repr(lost[0].split))}", wanted="Train, Val or Test")
    if outside := [row for row in table.rows if not _is_below(row.file_id)]:
        lines = [row.line for row in outside]
        file_id = outside[0].file_id
        raise table.refused(
            lines,
            f"File_ID is {_short(repr(file_id))}",
            wanted="the name of a file below wav/, such as [00001]",
        )


def _is_below(file_id: str) -> bool:
    path = PurePosixPath(file_id.strip("[]"))
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts


def _without_repeats(table: _CsvTable) -> list[_CsvRow]:
    """Takes a repeated row once. Refuses the same File_ID with other values."""
    first: dict[PurePosixPath, _CsvRow] = {}
    same: list[int] = []
    conflicting: list[int] = []
    for row in table.rows:
        known = first.setdefault(_wav_name(row), row)
        if known is not row:
            (same if known.cells == row.cells else conflicting).append(row.line)
    if conflicting:
        raise table.refused(
            conflicting,
            "the same File_ID stands above with other values",
            wanted="one row for each clip",
            fix="remove one of the two rows",
        )
    if same:
        table.warnings.append(
            f"{table.path.name}: {counted(len(same), 'repeated row')}, taken once (first: line {same[0]})"
        )
    return list(first.values())


def _clip(folder: Path, row: _CsvRow) -> Clip:
    path = folder / "wav" / _wav_name(row)
    return Clip(row.file_id, path, row.split, row.speaker, row.country, row.line)


def _wav_name(row: _CsvRow) -> PurePosixPath:
    """[00001], 00001 and 00001.wav are one file; spk.001 is spk.001.wav."""
    name = PurePosixPath(row.file_id.strip("[]"))
    known = name.suffix.lower().encode() in AUDIO_SUFFIXES
    return name if known or not name.name else name.with_name(f"{name.name}.wav")


def _labels(table: _CsvTable, rows: list[_CsvRow], targets: tuple[str, ...], choice: LabelChoice) -> Labels:
    """What is learned from each row. Raises what `labels_of_cells` raises."""

    def refused(bad: Sequence[int], came: str, *, wanted: str, fix: str) -> DataError:
        return table.refused([rows[i].line for i in bad], came, wanted=wanted, fix=fix)

    names = (*targets, *choice.class_targets)
    cells = LabelCells(
        splits=[row.split for row in rows],
        cells={name: [row.cells[name] for row in rows] for name in names},
        refused=refused,
    )
    return labels_of_cells(cells, targets, choice)


def _check_files(table: _CsvTable, clips: list[Clip]) -> None:
    if missing := [clip for clip in clips if not _is_file(clip.path)]:
        lines = [clip.line for clip in missing]
        raise table.refused(
            lines,
            f"{_short(missing[0].path.name)} is not in {_short(str(missing[0].path.parent))}",
            wanted="an audio file for each row",
            fix="add the files, or remove these rows",
        )


def _is_file(path: Path) -> bool:
    """False also for a name that no file can have: of 300 characters, or with a NUL."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise
        return False


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def _split(table: _CsvTable, name: str, clips: list[Clip], labels: Labels) -> Split:
    chosen = [i for i, clip in enumerate(clips) if clip.split == name]
    if len(chosen) < _FEWEST[name]:
        raise DataError(
            str(table.path),
            f"{counted(len(chosen), 'row')} with Split {name}",
            wanted=f"at least {_FEWEST[name]}",
        )
    return Split(
        clips=tuple(clips[i] for i in chosen), ratings=labels.ratings[chosen], rated=labels.rated[chosen]
    )


def _leaks(clips: list[Clip]) -> list[str]:
    """A warning for speakers in more than one split: they make every validation figure too good."""
    splits_of: dict[str, set[str]] = {}
    for clip in clips:
        if clip.speaker:
            splits_of.setdefault(clip.speaker, set()).add(clip.split)
    leaked = sorted(speaker for speaker, splits in splits_of.items() if len(splits) > 1)
    if not leaked:
        return []
    return [
        f"SPEAKER LEAK: {counted(len(leaked), 'speaker')} in more than one split (first: {leaked[0]}): "
        "validation figures will be too good"
    ]


def _unlisted(folder: Path, clips: list[Clip]) -> list[str]:
    listed = {clip.path for clip in clips}
    extra = [path for path in sorted((folder / "wav").glob("*.wav")) if path not in listed]
    return (
        [f"wav/: {counted(len(extra), 'file')} without a row in the CSV, ignored (first: {extra[0].name})"]
        if extra
        else []
    )
