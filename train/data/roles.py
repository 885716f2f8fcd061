"""The columns of a table that say which clip a row is of: its file, its split and its speaker.

They are known by the names that the field uses, of which a table may have several for one role. n rows.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ...runtime.errors import DataError
from ...runtime.text import first_of
from .audio_folder import AudioFolder
from .column_names import FILE_NAMES, SPEAKER_NAMES, SPLIT_NAMES, SPLITS, speaker_of, split_of, words
from .table_text import TextTable


class Roles(NamedTuple):
    """The columns that say which clip a row is of; "" where there is none."""

    file: str
    split: str
    speaker: str


@dataclass(frozen=True, kw_only=True)
class Role:
    """What one column of a table says of each row."""

    usual: str  # its column in the Hume-VB layout
    names: tuple[str, ...]  # of such columns; the earlier ones are taken where several agree
    what: str  # that it names
    option: str
    meaning: Callable[[str], Hashable]  # of a cell; False as a truth where a cell has none
    is_label: bool = False  # cells tell rows apart, and mean nothing else


SPEAKER = Role(
    usual="Subject_ID",
    names=SPEAKER_NAMES,
    what="the speakers",
    option="--speaker-column",
    meaning=speaker_of,
    is_label=True,
)


def roles_of_audio(audio: AudioFolder) -> tuple[Role, Role, Role]:
    """The roles, in the order of Roles, of a table whose files lie in this folder."""
    file = Role(
        usual="File_ID",
        names=FILE_NAMES,
        what="the files",
        option="--file-column",
        meaning=lambda cell: tuple(audio.candidates(cell)),
    )
    split = Role(
        usual="Split", names=SPLIT_NAMES, what="the splits", option="--split-column", meaning=_known_split
    )
    return file, split, SPEAKER


def roles_of_table(table: TextTable, asked: Roles, audio: AudioFolder) -> tuple[Roles, list[str]]:
    """The columns that are asked for, else those of the usual names; and a warning for each passed over.

    Raises DataError where one that is asked for is not there, and what `column_of_role` raises.
    """
    found, warnings = [], []
    for role, column in zip(roles_of_audio(audio), asked, strict=True):
        if column:
            if column not in table.columns:
                wanted = f"a column of {table.path}: {', '.join(table.columns)}"
                raise DataError(role.option, column, wanted=wanted)
            found.append(column)
            continue
        others, where = [name for name in table.columns if name not in asked], f"{table.path}, line 1"
        usual, texts = column_of_role(role, others, partial(_cells, table), where=where)
        found.append(usual)
        warnings += [f"{table.path.name}: {text}" for text in texts]
    return Roles(*found), warnings


def column_of_role(
    role: Role, columns: Sequence[str], cells_of: Callable[[str], Sequence[str]], *, where: str
) -> tuple[str, list[str]]:
    """The column that has one of the role's names in any spelling; "" where none has.

    Of several, those count that mean something in a row. Where two of these differ, the one that has the
    exact name of the Hume-VB layout is taken, and a text says it. Without such a one this is a DataError:
    nobody would notice that the wrong one was taken. `cells_of` has the cells [n] of a column, and `where`
    is the place of the header.
    """
    joined = {column: "".join(words(column)) for column in columns}
    named = [column for name in role.names for column in joined if joined[column] == name]
    if len(named) < 2:
        return "".join(named), []
    meanings = {column: [*map(role.meaning, cells_of(column))] for column in named}
    named = [column for column in named if any(meanings[column])] or named[:1]
    chosen = role.usual if role.usual in named else named[0]
    unlike = [name for name in named if not _agree(meanings[chosen], meanings[name], role.is_label)]
    if not unlike:
        return chosen, []
    if chosen != role.usual:
        came, fix = f"{chosen} and {unlike[0]} both name {role.what}, and differ", f"{role.option} NAME"
        raise DataError(where, came, wanted="one such column", fix=f"{fix}, or rename the other one")
    differ = "differs from it and is" if len(unlike) == 1 else "differ from it and are"
    return chosen, [f"{chosen} names {role.what}; {first_of(unlike)} {differ} passed over"]


def _agree(one: Sequence[Hashable], other: Sequence[Hashable], is_label: bool) -> bool:
    """[n] meanings of two columns. Labels agree where each of one column is always the same of the other."""
    if not is_label:
        return one == other
    return len(set(one)) == len(set(other)) == len(set(zip(one, other, strict=True)))


def _cells(table: TextTable, column: str) -> list[str]:
    """[n]; rows may be shorter than the header."""
    k = table.columns.index(column)
    return [record.cells[k] if k < len(record.cells) else "" for record in table.records]


def _known_split(cell: str) -> str:
    split = split_of(cell)
    return split if split in SPLITS else ""
