"""The columns of a table that say which clip a row is of: its file, its split and its speaker.

They are known by the names that the field uses, of which a table may have several for one role. n rows.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from ...runtime.errors import DataError
from ...runtime.system.host import quoted
from ...runtime.text import first_of
from .audio_folder import AudioFolder
from .column_names import FILE_NAMES, SPEAKER_NAMES, SPLIT_NAMES, SPLITS, all_named, speaker_of, split_of
from .table_text import TextTable


class Roles(NamedTuple):
    """The columns that say which clip a row is of; "" where there is none."""

    file: str
    split: str
    speaker: str


USUAL: Final = Roles("File_ID", "Split", "Subject_ID")  # the columns of the Hume-VB layout


@dataclass(frozen=True, kw_only=True)
class Role:
    """What one column of a table says of each row."""

    usual: str  # its column among USUAL
    names: tuple[str, ...]  # of such columns; of several the earlier one is taken
    what: str  # that it names
    option: str
    meaning: Callable[[str], Hashable]  # of a cell; false where it has none
    is_label: bool = False  # cells tell rows apart, and mean nothing else


SPEAKER = Role(
    usual=USUAL.speaker,
    names=SPEAKER_NAMES,
    what="the speakers",
    option="--speaker-column",
    meaning=speaker_of,
    is_label=True,
)


def roles_of_audio(audio: AudioFolder) -> tuple[Role, Role, Role]:
    """The roles, in the order of Roles, of a table whose files lie in this folder."""
    file = Role(
        usual=USUAL.file,
        names=FILE_NAMES,
        what="the files",
        option="--file-column",
        meaning=audio.known_name,
    )
    split = Role(
        usual=USUAL.split, names=SPLIT_NAMES, what="the splits", option="--split-column", meaning=_known_split
    )
    return file, split, SPEAKER


def roles_of_table(table: TextTable, asked: Roles, audio: AudioFolder) -> tuple[Roles, list[str]]:
    """The columns that are asked for, else those of the usual names; and a warning for each passed over.

    Raises DataError where one that is asked for is not there.
    """
    found, warnings = [], []
    for role, column in zip(roles_of_audio(audio), asked, strict=True):
        if column:
            check_there(role.option, column, table.columns, table.path)
            found.append(column)
            continue
        usual, text = column_of_role(role, table.columns, partial(_cells, table))
        found.append(usual)
        warnings += [f"{table.path.name}: {text}"] if text else []
    return Roles(*found), warnings


def check_there(option: str, column: str, columns: Collection[str], place: Path) -> None:
    """Raises DataError where the column that an option names is none of those of a table."""
    if column not in columns:
        raise DataError(option, column, wanted=f"a column of {place}: {', '.join(columns)}")


def column_of_role(
    role: Role, columns: Sequence[str], cells_of: Callable[[str], Sequence[str]]
) -> tuple[str, str]:
    """The column that has one of the role's names in any spelling, and a warning; "" where there is none.

    Of several, those count whose cells [n], as `cells_of` has them, mean something. The one with the exact
    name of the Hume-VB layout is taken, else the one whose name comes first. The warning names those that
    say something else.
    """
    named = all_named(columns, role.names)
    if len(named) < 2:
        return "".join(named), ""
    cells = {column: cells_of(column) for column in named}
    named = [column for column in named if _says_something(role, cells[column])] or named[:1]
    chosen = role.usual if role.usual in named else named[0]
    unlike = [name for name in named if name != chosen and _differ(role, cells[chosen], cells[name])]
    if not unlike:
        return chosen, ""
    verb = "differs from it and is" if len(unlike) == 1 else "differ from it and are"
    other = f"{role.option} {quoted(unlike[0])} takes {'it' if len(unlike) == 1 else 'the first of them'}"
    return chosen, f"{chosen} names {role.what}; {first_of(unlike)} {verb} passed over: {other}"


def _says_something(role: Role, cells: Sequence[str]) -> bool:
    """Labels do where they tell rows apart."""
    meanings = filter(None, map(role.meaning, cells))
    first = next(meanings, None)
    return first is not None and (not role.is_label or any(other != first for other in meanings))


def _differ(role: Role, one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two columns differ where both mean something: labels where one is none of the other's names."""
    there: dict[Hashable, Hashable] = {}
    back: dict[Hashable, Hashable] = {}
    for a, b in dict.fromkeys(zip(one, other, strict=True)):
        left, right = role.meaning(a), role.meaning(b)
        if not (left and right):
            continue
        if not role.is_label:
            if left != right:
                return True
        elif there.setdefault(left, right) != right or back.setdefault(right, left) != left:
            return True
    return False


def _cells(table: TextTable, column: str) -> list[str]:
    """[n]; rows may be shorter than the header."""
    k = table.columns.index(column)
    return [record.cells[k] if k < len(record.cells) else "" for record in table.records]


def _known_split(cell: str) -> str:
    split = split_of(cell)
    return split if split in SPLITS else ""
