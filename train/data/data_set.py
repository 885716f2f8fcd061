"""A folder in the Hume-VB layout, data_info.csv and wav/, read and checked before training.

Columns are found by name, never by position, and in any spelling: `Subject_ID`, `subject_id` and
`SubjectID` are one name. n clips, K rated targets, J class targets, L columns of the scores.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from ...runtime.arrays import Float32, Float64, Int64
from ...runtime.bundle import label_problem
from ...runtime.errors import DataError
from ...runtime.text import counted
from ..method.columns import Columns
from .audio_folder import AudioFolder, is_below, is_file
from .column_names import (
    COUNTRY_NAMES,
    SPLITS,
    is_metadata,
    named,
    speaker_of,
    split_of,
)
from .places import DataPlaces, place_fix, places_of_folder
from .roles import Roles, roles_of_table
from .table_text import (
    NOT_THOUSANDS,
    TextTable,
    may_be_thousands,
    named_columns,
    read_text_table,
    refused_lines,
    repeated_names,
    with_decimal_points,
)
from .targets import (
    LabelChoice,
    Labels,
    choice_as_spelt,
    label_cells,
    labels_of_cells,
    names_as_spelt,
    number,
)

_LONGEST: Final = 80  # characters of a name in a message
_FEWEST = {"Train": 2, "Val": 2, "Test": 0}


class Clip(NamedTuple):
    """One row of the CSV."""

    file_id: str  # as the CSV writes it, brackets included
    path: Path
    split: str
    speaker: str  # "" where the CSV has no column of speakers
    country: str
    line: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The clips of one split with their labels. NaN: none."""

    clips: tuple[Clip, ...]
    ratings: Float32  # [n, K + J]: ratings mapped to 0 to 1, then numbers of classes
    rated: Float64  # [n, L] in the units of the scales; a class as 0 and 1
    part_of: "tuple[Split, Int64] | None" = None  # what it was taken from, and its rows [n] there


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A checked data set."""

    path: Path
    columns: Columns
    splits: dict[str, Split]
    of_table: tuple[str, ...]  # warnings about the table, the folder and the scales
    hidden: str = ""  # that one among `of_table` which says that ratings of Test may be taken as hidden
    channel: int | None = None  # of the files, counted from 1; None: the mean of all
    without_channel: str = ""  # what to do where files lack it, if that is not to take another
    numeric_metadata: tuple[str, ...] = ()  # columns of numbers that their names keep from being targets
    cells: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # file_id -> column -> text

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the rated targets, [K]."""
        return self.columns.targets

    @property
    def warnings(self) -> tuple[str, ...]:
        """All of them. Blanks and speakers are counted in the splits as they are, be it a part of Train."""
        return (*self.of_table, *_blanks(self), *_leaks(self))


def named_speakers(speakers: Iterable[str]) -> int:
    """How many speakers are named: clips without a speaker are of nobody known."""
    return len(set(speakers) - {""})


def read_data(
    folder: Path,
    targets: Sequence[str] = (),
    *,
    channel: int | None = None,
    labels: LabelChoice = LabelChoice(),  # noqa: B008  # frozen
    places: DataPlaces | None = None,
    text: TextTable | None = None,
    pooled: bool = False,
    evaluated: str = "",
) -> DataSet:
    """Reads and checks the whole CSV.

    `targets` names the rated columns. By default, every numeric column that is not metadata is one.
    `labels` has the rest that is said about labels. `channel` of the files, counted from 1, is kept for who
    decodes them. `places` says what is not as in the Hume-VB layout; by default the folder's data.toml
    does. `text` is the table where it is read already. `pooled` has Val's rows, and those of a table without
    a split, in Train: for folds. `evaluated` is the split that alone is of interest: the others may be empty,
    and a table without a split is all in it.
    Raises DataError: one line with the file, the line numbers, how many lines there are, and what was
    expected.
    """
    places = places or places_of_folder(folder)
    audio = AudioFolder(places.audio_root(folder))
    text = text or read_text_table(places.table(folder))
    if not audio.root.is_dir():
        wanted, fix = "the folder of the recordings", place_fix(audio="FOLDER")
        raise DataError(str(audio.root), "no such folder", wanted=wanted, fix=fix)
    table = _csv_table(text, audio, places, pooled=pooled, unsplit="Train" if pooled else evaluated)
    labels = choice_as_spelt(labels, table.columns)
    names = _targets_of(table, names_as_spelt(targets, table.columns), labels)
    _check_places(table, audio)
    rows = _without_repeats(table)
    clips = [_clip(row) for row in rows]
    found = _labels(table, rows, names, labels)
    if problem := label_problem(found.columns.labels):
        raise DataError(str(table.path), problem, wanted="a name for each target", fix="--targets NAME,...")
    _check_files(table, clips, audio)
    return DataSet(
        path=folder,
        columns=found.columns,
        splits={
            name: _split(table, name, clips, found, 0 if pooled or evaluated else _FEWEST[name])
            for name in SPLITS
        },
        channel=channel,
        of_table=(
            *table.warnings,
            *_in_no_such_folder(table, audio),
            *found.warnings,
            *_unlisted(audio, clips),
        ),
        hidden=found.hidden,
        numeric_metadata=tuple(
            name
            for name in table.columns
            if name not in (table.roles.file, *found.columns.names)
            and table.is_metadata(name)
            and table.is_numeric(name)
        ),
        cells={row.file_id: row.cells for row in rows},
    )


class _CsvRow(NamedTuple):
    line: int
    cells: dict[str, str]
    file_id: str
    split: str
    speaker: str  # "" where no column says it
    country: str
    path: Path  # of its audio; where there is none, the path in the Hume-VB layout
    others: tuple[Path, ...] = ()  # files that the cell may mean as well


@dataclass(frozen=True)
class _CsvTable:
    path: Path
    columns: tuple[str, ...]
    rows: list[_CsvRow]
    warnings: list[str]
    roles: Roles

    def is_metadata(self, column: str) -> bool:
        """Whether a column is no target unless somebody names it."""
        return column in self.roles or is_metadata(column)

    def is_numeric(self, column: str) -> bool:
        """Whether a row has a number there."""
        return any(number(row.cells[column]) is not None for row in self.rows)

    def refused(self, lines: Sequence[int], came: str, *, wanted: str, fix: str = "") -> DataError:
        """One error for one kind of mistake, however many rows have it."""
        return refused_lines(self.path, lines, came, wanted=wanted, fix=fix)


def _csv_table(
    text: TextTable, audio: AudioFolder, places: DataPlaces, *, pooled: bool, unsplit: str
) -> _CsvTable:
    """A table in any dialect, with the roles of its columns and the audio of its rows.

    `unsplit` is the split of all rows where the table has none; "" refuses such a table.
    """
    roles, warnings = _roles(text, audio, places, needs_split=not unsplit)
    text = with_decimal_points(named_columns(text), but=roles)
    table = _CsvTable(
        text.path, text.columns, [*_rows(text, roles, audio, pooled=pooled, unsplit=unsplit)], warnings, roles
    )
    table.warnings.extend([] if pooled else _merged_splits(table))
    return table


def _rows(
    text: TextTable, roles: Roles, audio: AudioFolder, *, pooled: bool, unsplit: str
) -> Iterator[_CsvRow]:
    countries = [column for name in COUNTRY_NAMES if (column := named(text.columns, [name]))]
    for line, record in text.records:
        cells = dict(zip(text.columns, record, strict=True))
        country = next(filter(None, (cells[name] for name in countries)), "")
        file_id, split = cells[roles.file], split_of(cells[roles.split]) if roles.split else unsplit
        if pooled and split == "Val":
            split = "Train"
        path, *others = audio.candidates(file_id) or [audio.plain_path(file_id)]
        speaker = speaker_of(cells[roles.speaker]) if roles.speaker else ""
        yield _CsvRow(line, cells, file_id, split, speaker, country, path, tuple(others))


def _roles(
    text: TextTable, audio: AudioFolder, places: DataPlaces, *, needs_split: bool
) -> tuple[Roles, list[str]]:
    """With warnings. Raises DataError where a column is missing, or there twice."""
    columns = text.columns
    roles, warnings = roles_of_table(text, places.columns, audio)
    missing = [] if roles.file else ["File_ID"]
    missing += ["Split"] if needs_split and not roles.split else []
    if missing:
        raise DataError(
            f"{text.path}, line 1",
            f"no column {' and no column '.join(missing)}; the header has {', '.join(columns)}",
            fix=place_fix(**{f"{name.removesuffix('_ID').lower()}_column": "NAME" for name in missing})
            + (", or rrtn data import, which splits by speakers" if missing == ["Split"] else ""),
        )
    if repeated := repeated_names(text):
        came = f"column {', '.join(map(repr, repeated))} twice"
        raise DataError(f"{text.path}, line 1", came, wanted="each name once")
    return roles, warnings


def _merged_splits(table: _CsvTable) -> list[str]:
    """A warning where a table has several words for one split, such as dev and val."""
    spelt: dict[str, set[str]] = {}
    for row in table.rows:
        if table.roles.split:
            spelt.setdefault(row.split, set()).add(row.cells[table.roles.split].casefold())
    return [
        f"{table.roles.split}: {' and '.join(sorted(found))} are all taken as {split}"
        for split, found in spelt.items()
        if len(found) > 1
    ]


def _targets_of(table: _CsvTable, wanted: Sequence[str], labels: LabelChoice) -> tuple[str, ...]:
    """The rated columns. Raises DataError for names of no column, and where there is nothing to learn."""
    classes = labels.class_targets
    if labels.learned:
        lost = [name for name in (*wanted, *classes) if name not in table.columns]
        if len(lost) == len(wanted) + len(classes):
            came, expected = f"no column {', '.join(lost)}", "one at least of what the run learned"
            raise DataError(str(table.path), came, wanted=expected, fix="rename the columns of these labels")
        return tuple(wanted)  # what is not there is blank
    with_commas = [name for name in table.columns if "," in name]
    for flag, setting, names in (
        ("--targets", "targets", wanted),
        ("--class-target", "class_targets", classes),
    ):
        if unknown := [name for name in names if name not in table.columns]:
            columns = f"columns of {table.path}: {', '.join(table.columns)}"
            fix = (
                f"for a name with a comma: {setting} = {with_commas[:1]} in data.toml" if with_commas else ""
            )
            raise DataError(flag, ", ".join(unknown), wanted=columns, fix=fix)
    if both := [name for name in classes if name in wanted]:
        raise DataError("--class-target", ", ".join(both), wanted="columns that --targets does not name")
    if wanted or labels.only_named:
        return tuple(wanted)
    candidates = [name for name in table.columns if name not in classes and not table.is_metadata(name)]
    names = tuple(filter(table.is_numeric, candidates))
    if ignored := [name for name in candidates if name not in names]:
        listed = "; ".join([", ".join(ignored), *_thousands(table, ignored)])
        table.warnings.append(f"{table.path.name}: columns without numbers are ignored: {listed}")
    if not names and not classes:
        raise DataError(
            str(table.path),
            f"no column of numbers among {', '.join(candidates)}" if candidates else "no column of labels",
            wanted="ratings, or classes",
            fix="; ".join(
                [
                    *_thousands(table, candidates),
                    *_metadata_of_numbers(table),
                    "for classes: --class-target NAME",
                ]
            ),
        )
    return names


def _metadata_of_numbers(table: _CsvTable) -> list[str]:
    """Columns of numbers that are no targets for their names alone, and what to write; empty for none."""
    found = [name for name in table.columns if is_metadata(name) and name not in table.roles]
    numeric = ", ".join(filter(table.is_numeric, found))
    return [f"{numeric} have numbers and the names of metadata: --targets NAME"] if numeric else []


def _thousands(table: _CsvTable, columns: Sequence[str]) -> list[str]:
    """Which of the columns are no numbers for their commas, and what to write; empty where none is."""
    found = [name for name in columns if any(may_be_thousands(row.cells[name]) for row in table.rows)]
    return [f"in {', '.join(found)}, {NOT_THOUSANDS}"] if found else []


def _check_places(table: _CsvTable, audio: AudioFolder) -> None:
    """Every row must be in a split, and its file below the audio's folder and known among others."""
    if lost := [row for row in table.rows if row.split not in SPLITS]:
        came = f"{table.roles.split} is {_short(repr(lost[0].split))}"
        fix = "rename them, or make a new split: rrtn data import TABLE OUT --split 0.7,0.15,0.15"
        raise table.refused(
            [row.line for row in lost], came, wanted="Train, Val (dev, valid, ...) or Test", fix=fix
        )
    if outside := [
        row for row in table.rows if not is_below(row.file_id) and not audio.candidates(row.file_id)
    ]:
        raise table.refused(
            [row.line for row in outside],
            f"{table.roles.file} is {_short(repr(outside[0].file_id))}",
            wanted=f"the name of a file below {audio.root.name}/, such as [00001]",
            fix=f"the folder that all files lie below: {place_fix(audio='FOLDER')}",
        )
    if unclear := [row for row in table.rows if row.others]:
        both = (unclear[0].path, unclear[0].others[0])
        names = " or ".join(_short(str(path.relative_to(audio.root))) for path in both)
        raise table.refused(
            [row.line for row in unclear],
            f"{table.roles.file} {_short(unclear[0].file_id)} may be {names}",
            wanted="one file for each row",
            fix="write its folder and suffix",
        )


def _without_repeats(table: _CsvTable) -> list[_CsvRow]:
    """Takes a repeated row once. Refuses the same file with other values."""
    first: dict[Path, _CsvRow] = {}
    respelt: list[_CsvRow] = []
    same: list[int] = []
    conflicting: list[int] = []
    for row in table.rows:
        known = first.setdefault(row.path, row)
        if known is row:
            continue
        if known.file_id != row.file_id:
            respelt.append(row)
            continue
        (same if known.cells == row.cells else conflicting).append(row.line)
    fix = (
        "remove all but one, or merge them; where each is one person's rating: rrtn data import "
        "--rater-column NAME, which needs a column of these people"
    )
    if respelt:
        came = f"{_short(respelt[0].file_id)} is the file of {_short(first[respelt[0].path].file_id)} above"
        wanted = "one row, and one way to write it, for each clip"
        raise table.refused([row.line for row in respelt], came, wanted=wanted, fix=fix)
    if conflicting:
        raise table.refused(
            conflicting,
            f"the same {table.roles.file} stands above with other values",
            wanted="one row for each clip",
            fix=fix,
        )
    if same:
        table.warnings.append(
            f"{table.path.name}: {counted(len(same), 'repeated row')}, taken once (first: line {same[0]})"
        )
    return list(first.values())


def _clip(row: _CsvRow) -> Clip:
    return Clip(row.file_id, row.path, row.split, row.speaker, row.country, row.line)


def _labels(table: _CsvTable, rows: list[_CsvRow], targets: tuple[str, ...], choice: LabelChoice) -> Labels:
    """What is learned from each row. Raises what `labels_of_cells` raises."""
    names = (*targets, *choice.class_targets)
    blank = dict.fromkeys(names, "") if choice.learned else {}  # a table need not have all that a run learned
    cells = label_cells(
        table.path,
        [row.line for row in rows],
        [blank | row.cells for row in rows],
        names,
        [row.split for row in rows],
    )
    return labels_of_cells(cells, targets, choice)


def _check_files(table: _CsvTable, clips: list[Clip], audio: AudioFolder) -> None:
    if missing := [clip for clip in clips if not is_file(clip.path)]:
        lines = [clip.line for clip in missing]
        fix = "add the files, or remove these rows"
        if name := audio.of_number(missing[0].file_id):
            fix = f"write the names as the files have them: {name} is there"
        raise table.refused(
            lines,
            f"{_short(missing[0].path.name)} is not in {_short(str(missing[0].path.parent))}",
            wanted="an audio file for each row",
            fix=fix,
        )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def _split(table: _CsvTable, name: str, clips: list[Clip], labels: Labels, fewest: int) -> Split:
    chosen = [i for i, clip in enumerate(clips) if clip.split == name]
    if len(chosen) < fewest:
        came = f"{counted(len(chosen), 'row')} with {table.roles.split} {name}"
        fix = "make a new split: rrtn data import TABLE OUT --split 0.7,0.15,0.15"
        if name == "Val" and not chosen:
            fix = "rrtn data import TABLE OUT takes a Val out of Train, by speakers; rrtn crossval needs none"
        raise DataError(str(table.path), came, wanted=f"at least {fewest}", fix=fix)
    return Split(
        clips=tuple(clips[i] for i in chosen), ratings=labels.ratings[chosen], rated=labels.rated[chosen]
    )


def _blanks(data: DataSet) -> list[str]:
    """One line with the blanks of each target in Train and Val; none where there are none."""
    texts = []
    for name in [name for name in ("Train", "Val") if name in data.splits]:
        blank = np.isnan(data.splits[name].ratings)
        counts = zip(data.columns.names, blank.sum(0).tolist(), strict=True)
        if named := ", ".join(f"{target} {count}" for target, count in counts if count):
            texts.append(f"of {counted(len(blank), 'clip')} in {name}: {named}")
    return [f"blank, and left out of losses and metrics, {'; '.join(texts)}"] if texts else []


def _leaks(data: DataSet) -> list[str]:
    """A warning for speakers in more than one split: they make every validation figure too good."""
    splits_of: dict[str, set[str]] = {}
    for name, split in data.splits.items():
        for speaker in {clip.speaker for clip in split.clips} - {""}:
            splits_of.setdefault(speaker, set()).add(name)
    leaked = sorted(speaker for speaker, splits in splits_of.items() if len(splits) > 1)
    if not leaked:
        return []
    return [
        f"SPEAKER LEAK: {counted(len(leaked), 'speaker')} in more than one split (first: {leaked[0]}): "
        "validation figures will be too good"
    ]


def _unlisted(audio: AudioFolder, clips: list[Clip]) -> list[str]:
    listed = {clip.path for clip in clips}
    extra = sorted(path for path in audio.files() if path not in listed)
    if not extra:
        return []
    files, first = counted(len(extra), "file"), extra[0].relative_to(audio.root)
    return [f"{audio.root.name}/: {files} without a row in the CSV, ignored (first: {first})"]


def _in_no_such_folder(table: _CsvTable, audio: AudioFolder) -> list[str]:
    """A warning for rows whose file lies in none of the folders that they name, where other rows' files do.

    Folders of another machine in front of all rows are no obstacle.
    """
    rows = (row for row in table.rows if is_below(row.file_id))
    placed = [(row, *audio.named_folders(row.file_id, row.path)) for row in rows]
    fronts = {front for _, front, found in placed if found}
    lost = [row for row, front, found in placed if front and not found and front not in fronts]
    if not fronts or not lost:
        return []
    found, first = counted(len(lost), "row"), lost[0]
    taken = f"{audio.root.name}/{first.path.relative_to(audio.root)}"
    return [
        f"{table.path.name}: in {found} the named folder is not there, though those of other rows are "
        f"(first: line {first.line}, {_short(first.file_id)} is taken as {_short(taken)})"
    ]
