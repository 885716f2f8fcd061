"""From what people have to a folder that trains: a table with File_ID, Split, Subject_ID, and its settings.

Audio is referred to and never copied. Sources: a table of one's own, the layouts of the A-VB and ExVo
challenges as they are unpacked, and databases in audformat.
"""

import contextlib
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import tomli_w

from ...runtime.errors import ConfigError, DataError, StoppedError
from ...runtime.system.files import left_of, read_regular, remove_left, resolved, takes_no_file, write_bytes
from ...runtime.system.host import quoted
from ...runtime.system.locks import in_turn
from ...runtime.text import counted, csv_bytes
from ..config import config_from_dict
from ..method.columns import scales_of_targets
from ..method.tasks import TASK_NAMES
from .audformat_tables import is_audformat, table_of_audformat
from .audio_folder import AudioFolder
from .column_names import SPLITS, is_metadata, speaker_of, split_of
from .data_set import DataSet
from .places import SETTINGS, TABLE, DataPlaces, places_of_folder, with_settings_of_data
from .raters import check_ratings, clips_of_ratings, with_raters
from .ratings import alike_speakers
from .reading import check_labels, data_of_settings, label_settings
from .roles import SPEAKER, USUAL, Roles, roles_of_table
from .source_table import SourceTable
from .table_text import (
    TableRecord,
    TextTable,
    is_none,
    named_columns,
    read_text_table,
    refused_lines,
    repeated_names,
    with_decimal_points,
)
from .targets import choice_as_spelt, names_as_spelt, number

_LOCK: Final = ".import.lock"  # in the new folder: held while its files are written
SHARES: Final = (0.7, 0.15, 0.15)  # of the clips, in Train, Val and Test
_WITHOUT_TEST: Final = (0.7 / 0.85, 0.15 / 0.85, 0.0)  # the same, of the clips that are not in Test
_AVB_TABLES: Final = ("high_info.csv", "two_info.csv", "culture_info.csv", "type_info.csv")
_AVB_AUDIO: Final = ("audio/wav", "wav", "audio")
_COLUMN_FLAGS: Final = ("--file-column", "--split-column", "--speaker-column", "--rater-column")


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What to import, and how."""

    source: Path
    out: Path
    settings: Mapping[str, Any]  # of [data], as data.toml keeps them
    places: DataPlaces
    rater_column: str = ""  # of a table with a row for each rating; "" for one with a row for each clip
    tables: tuple[str, ...] = ()  # of an audformat database; empty for all
    shares: tuple[float, float, float] | None = None  # None: the table's own split, or SHARES
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What was written."""

    out: Path
    data: DataSet
    notes: tuple[str, ...]


def import_data(request: ImportRequest) -> Imported:
    """Writes data_info.csv and data.toml into the new folder `out`, and checks them as training does.

    Where that is refused, the folder is removed again, and errors name the source. The table is written last:
    a folder that a killed process left with the same data.toml alone is gone on with. Two that import into
    one folder take turns. Raises DataError, ConfigError, MissingExtraError; StoppedError where no file can be
    written.
    """
    out = request.out
    _check_new(out)
    request = _with_own_settings(request)
    source = table = _table_of_source(request)
    settings = _settings(source, request)
    config = config_from_dict({"data": {"dir": str(resolved(out)), **settings}}, source=SETTINGS).data
    toml = tomli_w.dumps(settings).encode()
    targets, labels = label_settings(config)
    if request.rater_column:
        targets, labels = names_as_spelt(targets, source.columns), choice_as_spelt(labels, source.columns)
        table = clips_of_ratings(source, targets=targets, labels=labels)
    text, notes = _with_split(table, request)
    with _new_folder(out, toml):
        write_bytes(out / SETTINGS, toml)
        check_labels(config)
        data = data_of_settings(out, config, text)
        if request.rater_column:
            check_ratings(source, data, labels)
        write_bytes(out / TABLE, csv_bytes([text.columns, *(record.cells for record in text.records)]))
    return Imported(out=out, data=data, notes=(*table.notes, *notes, *_without_label(data)))


@contextlib.contextmanager
def _new_folder(out: Path, toml: bytes) -> Iterator[None]:
    """The folder while it is this process's turn to write there; where that fails, it is as before."""
    was_there = out.exists()
    out.mkdir(parents=True, exist_ok=True)
    if reason := takes_no_file(out):
        wanted, fix = "a folder that takes files", "make it writable, or choose another OUT"
        raise StoppedError(str(out), reason, wanted=wanted, fix=fix)
    try:
        with in_turn(out / _LOCK):
            _check_new(out, toml)
            files = (out / SETTINGS, out / TABLE)
            for path in files:
                remove_left(path)
            try:
                yield
            except BaseException:
                for path in files:
                    path.unlink(missing_ok=True)
                raise
    except BaseException:
        if not was_there:
            with contextlib.suppress(OSError):  # another process writes there by now
                out.rmdir()
        raise


def _check_new(out: Path, toml: bytes | None = None) -> None:
    """Raises DataError for what is no empty folder.

    It may hold what a killed process left: data.toml alone, with `toml` if given, and unfinished files.
    """
    if not out.exists():
        return
    settings = out / SETTINGS
    left = {_LOCK, *(path.name for name in (SETTINGS, TABLE) for path in left_of(out / name))}
    others = {path.name for path in out.iterdir()} - left if out.is_dir() else {out.name}
    is_left = others == {SETTINGS} and settings.is_file()
    if others and (not is_left or toml not in (None, read_regular(settings))):
        raise DataError(str(out), "not an empty folder", wanted="a new folder", fix="choose another one")


def _with_own_settings(request: ImportRequest) -> ImportRequest:
    """With what the data.toml of one's own table says, where no flag says otherwise. Raises ConfigError."""
    source = request.source
    folder = source if source.is_dir() else source.parent
    if source.is_dir() and (is_audformat(source) or _is_avb(source)):
        return request
    if source.is_file() and not _is_table_of(folder, source):
        return request
    asked = {name: value for name, value in request.settings.items() if value is not None}
    settings = with_settings_of_data({"data": {"dir": str(folder), **asked}})["data"]
    names = [item.name for item in fields(DataPlaces)]
    flags = {name: value for name in names if (value := getattr(request.places, name))}
    return replace(
        request,
        settings={name: value for name, value in settings.items() if name not in ("dir", *names)},
        places=replace(places_of_folder(folder), **flags),
    )


def _is_table_of(folder: Path, table: Path) -> bool:
    """Whether the folder's data.toml is about it, and not about another table or of another program."""
    with contextlib.suppress(ConfigError, DataError):
        return resolved(places_of_folder(folder).table(folder)) == resolved(table)
    return False


def _is_avb(source: Path) -> bool:
    return any((source / "labels" / name).is_file() for name in _AVB_TABLES)


def _settings(table: SourceTable, request: ImportRequest) -> dict[str, Any]:
    """What data.toml keeps: the source's own scales are those of the targets that are asked for."""
    asked = {name: value for name, value in request.settings.items() if value}
    settings = {"audio": str(table.audio), **table.settings, **asked}
    if "targets" in asked and "scale" in table.settings and "scale" not in asked:
        settings["scale"] = scales_of_targets(table.settings["scale"], asked["targets"])
    return {name: value for name, value in settings.items() if value}


def _table_of_source(request: ImportRequest) -> SourceTable:
    source, places = request.source, request.places
    if source.is_file():
        _check_effects(request, "a table", ("--table",))
        return _own_table(source, places.audio or _audio_beside(source), places, request.rater_column)
    if not source.is_dir():
        came, wanted = "not a regular file", "a table, or a folder of a data set"
        raise DataError(
            str(source), came if source.exists() else "not there", wanted=wanted, fix="check the path"
        )
    if is_audformat(source):
        without = ("--audio", *(flag for flag in _COLUMN_FLAGS if flag != SPEAKER.option))
        _check_effects(request, "a database in audformat", without)
        return table_of_audformat(source, request.tables, speaker_column=places.speaker_column)
    if _is_avb(source):
        _check_effects(request, "the tables of A-VB", ("--table", *_COLUMN_FLAGS))
        return _avb_table(source, request)
    _check_effects(request, "a table", ("--table",))
    try:
        path = places.table(source)
    except DataError as error:
        error.fix = f"name the table itself: rrtn data import TABLE OUT --audio {quoted(source)}"
        raise
    return _own_table(path, places.audio or _audio_beside(path), places, request.rater_column)


def _check_effects(request: ImportRequest, source: str, without: Sequence[str]) -> None:
    """Refuses a flag that cannot take effect: nobody would notice the mistake."""
    places = request.places
    columns = (*places.columns, request.rater_column)
    given = {
        "--audio": places.audio,
        "--table": request.tables,
        **dict(zip(_COLUMN_FLAGS, columns, strict=True)),
    }
    if flags := [flag for flag in without if given[flag]]:
        raise ConfigError(", ".join(flags), f"has no effect with {source}", fix="leave it out")


def _audio_beside(table: Path) -> Path:
    wav = table.parent / "wav"
    return wav if wav.is_dir() else table.parent


def _own_table(path: Path, audio: Path, places: DataPlaces, rater_column: str = "") -> SourceTable:
    """A table in any dialect, with its columns of file, split and speaker under the names of Hume-VB."""
    text = read_text_table(path)
    if repeated := repeated_names(text):
        raise DataError(f"{path}, line 1", f"column {repeated[0]!r} twice", wanted="each name once")
    if rater_column:
        text = with_raters(text, rater_column)
    files = AudioFolder(audio)
    roles, _ = roles_of_table(text, places.columns, files)  # warns of what is written
    if not roles.file:
        header = ", ".join(text.columns)
        raise DataError(
            f"{path}, line 1", f"no column File_ID; the header has {header}", fix="--file-column NAME"
        )
    if twice := [column for column in dict.fromkeys(roles) if column and roles.count(column) > 1]:
        came, fix = (
            f"column {twice[0]!r} for two of {', '.join(USUAL)}",
            "copy the column in the table",
        )
        raise DataError(str(path), came, wanted="a column for each", fix=fix)
    text = with_decimal_points(named_columns(text), but=roles)
    columns, notes = _under_usual_names(text, roles)
    rows = [dict(zip(columns, record.cells, strict=True)) for record in text.records]
    for row in rows:
        row["File_ID"] = _below(row["File_ID"], audio)
        if "Subject_ID" in row:
            row["Subject_ID"] = speaker_of(row["Subject_ID"])
    if rater_column:
        _write_each_file_in_one_way(rows, files)
    lines = [record.line for record in text.records]
    return SourceTable(columns=columns, rows=rows, path=path, lines=lines, audio=resolved(audio), notes=notes)


def _under_usual_names(text: TextTable, roles: Roles) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns, with the names of Hume-VB for those of the roles, and notes.

    A column that has such a name, and is passed over, gets another one.
    """
    renamed = {column: name for column, name in zip(roles, USUAL, strict=True) if column}
    for name in set(renamed.values()) & set(text.columns) - set(renamed):
        numbers = (f"{name}_{number}" for number in itertools.count(2))
        renamed[name] = next(other for other in numbers if other not in text.columns)
    columns = tuple(renamed.get(name, name) for name in text.columns)
    passed_over = {old: new for old, new in renamed.items() if old in USUAL and new not in USUAL}
    return columns, tuple(
        f"{old} is called {new}: another column takes its place" for old, new in passed_over.items()
    )


def _write_each_file_in_one_way(rows: list[dict[str, str]], audio: AudioFolder) -> None:
    """The first way: 00001.wav, 00001 and C:\\study\\00001.WAV may be one clip's."""
    found = {file_id: audio.candidates(file_id) for file_id in dict.fromkeys(row["File_ID"] for row in rows)}
    first: dict[Path, str] = {}
    for row in rows:
        if len(files := found[row["File_ID"]]) == 1:
            row["File_ID"] = first.setdefault(files[0], row["File_ID"])


def _below(file_id: str, audio: Path) -> str:
    """A path of this machine in the audio's folder becomes one that begins there."""
    path, root = Path(file_id), resolved(audio)
    return str(path.relative_to(root)) if path.is_relative_to(root) else file_id


def _avb_table(source: Path, request: ImportRequest) -> SourceTable:
    """The tables of labels/ side by side: each has File_ID and Split, and the columns of one task."""
    if not request.settings.get("task"):
        tasks = ", ".join(TASK_NAMES[1:])
        raise ConfigError("--task", "not given", wanted=f"the task to train for: {tasks}")
    audio = request.places.audio or next(
        (source / name for name in _AVB_AUDIO if (source / name).is_dir()), source
    )
    columns: dict[str, None] = {}
    rows: dict[str, dict[str, str]] = {}
    lines: dict[str, int] = {}
    for name in _AVB_TABLES:
        if not (path := source / "labels" / name).is_file():
            continue
        part = _own_table(path, audio, DataPlaces())
        columns |= dict.fromkeys(part.columns)
        for line, row in zip(part.lines, part.rows, strict=True):
            lines.setdefault(row["File_ID"], line)
            known = rows.setdefault(row["File_ID"], {})
            if differing := [column for column in row if _contradict(column, known, row)]:
                column = differing[0]
                came = f"{row['File_ID']}: {column} is {row[column]!r} here and {known[column]!r} elsewhere"
                wanted = "one value of each file in all tables of labels/"
                raise refused_lines(path, [line], came, wanted=wanted)
            known |= {column: cell for column, cell in row.items() if is_none(known.get(column, ""))}
    full = [{column: row.get(column, "") for column in columns} for row in rows.values()]
    return SourceTable(
        columns=tuple(columns),
        rows=full,
        path=source / "labels",
        lines=[*lines.values()],
        audio=resolved(audio),
    )


def _contradict(column: str, known: Mapping[str, str], row: Mapping[str, str]) -> bool:
    """Whether two cells of a file cannot both be right. A country may be written in two ways."""
    one, other = known.get(column, ""), row[column]
    if one == other or is_none(one) or is_none(other) or (is_metadata(column) and column not in USUAL):
        return False
    return number(one) is None or number(one) != number(other)


def _with_split(table: SourceTable, request: ImportRequest) -> tuple[TextTable, list[str]]:
    """The table with a Split: its own, with a Val out of Train if it lacks one, or one by whole speakers."""
    rows = table.rows
    speakers = [speaker_of(row.get("Subject_ID", "")) for row in rows]
    notes, how, shares = alike_speakers(speakers), "split by whole speakers", request.shares or SHARES
    splits = ["Train"] * len(rows)  # of which clips are dealt to the others
    if lacks_val := "Split" in table.columns and request.shares is None:
        splits = [split_of(row["Split"]) for row in rows]
        if "Train" not in splits or not {*splits} <= {"Train", "Test"}:
            return _text_table(table, splits), notes
        how, shares = "no clip in Val: one was taken out of Train, by whole speakers", _WITHOUT_TEST
    dealt = [i for i, split in enumerate(splits) if split == "Train"]
    if nameless := sum(not speakers[i] for i in dealt):
        notes.append(
            f"{counted(nameless, 'row')} without a speaker: each is split as a speaker of its own, and one "
            "person may be in Train and Val (--speaker-column NAME)"
        )
    people = [speakers[i] or f"\0{rows[i]['File_ID']}" for i in dealt]
    if lacks_val and len({*people}) < 2:
        came, fix = "no clip in Val, and Train is of 1 speaker", "deal all clips anew: --split 0.7,0.15,0.15"
        raise DataError(str(table.path), came, wanted="a Val, or a Train of several speakers", fix=fix)
    for i, split in zip(dealt, splits_of_speakers(people, shares, seed=request.seed), strict=True):
        splits[i] = split
    clips = ", ".join(f"{name} {splits.count(name)}" for name in SPLITS)
    notes.append(f"{how}, seed {request.seed}: {clips}")
    return _text_table(table, splits), notes


def _without_label(data: DataSet) -> list[str]:
    """A note on clips that nobody rated, as --split deals those of a hidden Test, too; none without one."""
    counts = {name: int(np.isnan(data.splits[name].ratings).all(axis=1).sum()) for name in ("Train", "Val")}
    named = [
        f"{n} of {counted(len(data.splits[name].clips), 'clip')} in {name}" for name, n in counts.items() if n
    ]
    return [f"without any label: {', '.join(named)}"] if named else []


def _text_table(table: SourceTable, splits: Sequence[str]) -> TextTable:
    """As it would be read from the file that is written."""
    columns = (*USUAL, *(name for name in table.columns if name not in USUAL))
    rows = (row | {"Split": split} for row, split in zip(table.rows, splits, strict=True))
    cells = (tuple(row.get(name, "").strip() for name in columns) for row in rows)
    return TextTable(table.path, columns, tuple(map(TableRecord, table.lines, cells)), ",")


def shares_of_text(text: str) -> tuple[float, float, float]:
    """0.7,0.15,0.15 as --split takes it; two numbers are of Train and Val. Raises ConfigError."""
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if not 2 <= len(shares) <= 3:
        raise ConfigError("--split", text, wanted="shares of Train, Val and Test, such as 0.7,0.15,0.15")
    return shares[0], shares[1], shares[2] if len(shares) > 2 else 0.0


def splits_of_speakers(people: Sequence[str], shares: tuple[float, float, float], *, seed: int) -> list[str]:
    """[n] speakers of clips -> their splits: whole speakers, each dealt to the split that lacks most.

    `seed` draws their order; equal names, shares and seeds give equal splits, whatever the order of the
    clips. Each split with a share has a speaker. Raises ConfigError for shares that make no split,
    DataError for too few speakers.
    """
    adds_up = abs(sum(shares) - 1) <= 1e-6  # False also where one is NaN
    if not adds_up or min(shares) < 0 or min(shares[:2]) == 0:
        came = ",".join(f"{share:g}" for share in shares)
        raise ConfigError(
            "--split", came, wanted="shares of Train, Val and Test that add up to 1, such as 0.7,0.15,0.15"
        )
    counts = Counter(people)
    wanted = {name: share * len(people) for name, share in zip(SPLITS, shares, strict=True) if share}
    if len(counts) < len(wanted):
        raise DataError(
            "--split", counted(len(counts), "speaker"), wanted=f"at least {len(wanted)}, one a split"
        )
    order = sorted(counts, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    split = {}
    for i, speaker in enumerate(order):
        first = [*wanted][i] if i < len(wanted) else None
        split[speaker] = first or max(wanted, key=lambda name: wanted[name])
        wanted[split[speaker]] -= counts[speaker]
    return [split[speaker] for speaker in people]
