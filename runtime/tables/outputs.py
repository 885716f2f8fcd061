"""Files that a command is to write: whether it can, and whether they are free to be written.

All of this is asked before a model is loaded and hours are spent.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ..errors import ConfigError
from ..system.files import check_takes_files, write_refused

OutputFiles = Mapping[Path, str]  # each file, and the option that names it
_RATINGS: Final = "data_info.csv"
_RATING_COLUMNS: Final = {"file_id", "split"}  # that ratings have, and no table of scores
_HEADER: Final = 1 << 16  # bytes of a CSV that its header is looked for in


def check_place(path: Path, option: str) -> None:
    """Whether a file can be written there.

    Raises ConfigError for a place that no file can have, StoppedError where the folder takes no file.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(option, "is not a regular file", wanted="a file name")
        if not path.parent.is_dir():
            raise ConfigError(
                option,
                f"{path.parent} is no folder",
                wanted="a folder that exists",
                fix=f"mkdir -p {path.parent}",
            )
        check_takes_files(path.parent)
    except OSError as error:
        raise write_refused(path, error) from error


def check_outputs(outputs: OutputFiles, inputs: Iterable[Path] = ()) -> None:
    """Whether each file can be written, is none of `inputs` or of the other files, and has no ratings.

    Raises what `check_place` raises.
    """
    kept = {_identity(path): path for path in inputs}
    named: dict[object, str] = {}
    for path, option in outputs.items():
        check_place(path, option)
        for key in filter(None, (_place(path), _identity(path))):
            if key in named:
                raise _not_free(option, f"is also {named[key]}")
        named |= {_place(path): option, _identity(path): option}
        if path.exists() and (found := kept.get(_identity(path))):
            raise _not_free(option, f"is {found}, which is read")
        if _holds_ratings(path):
            raise _not_free(option, "holds ratings, not scores")


def check_new(path: Path, option: str, *, mark: bytes = b"", overwrite: bool = False) -> None:
    """Whether a file of a command's own can be written there, where nothing tells what made it before.

    A file that is there must have `mark` near its start, or is to be overwritten. Raises ConfigError
    otherwise, and what `check_outputs` raises.
    """
    check_outputs({path: option})
    if overwrite or not os.path.lexists(path):
        return
    with path.open("rb") as file:
        if mark and mark in file.read(_HEADER):
            return
    fix = "choose another name, or remove the file" if mark else "choose another name, or --overwrite"
    raise ConfigError(option, "is there already", wanted="a new file", fix=fix)


def identities(outputs: OutputFiles) -> dict[tuple[int, int], str]:
    """(device, inode) of each file that is there, with its option."""
    return {key: option for path, option in outputs.items() if (key := _identity(path))}


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _place(path: Path) -> tuple[str, str]:
    """Two names that differ in case alone are one file on some systems."""
    return os.path.realpath(path.parent), path.name.casefold()


def _holds_ratings(path: Path) -> bool:
    """Whether it is what `rrtn train` reads: its ratings exist nowhere else."""
    if path.name.casefold() == _RATINGS and path.exists():
        return True
    try:
        with path.open("rb") as file:
            header = file.readline(_HEADER).decode(errors="replace")
    except OSError:
        return False
    columns = {cell.strip(' "\ufeff\r\n').casefold() for cell in header.replace(";", ",").split(",")}
    return columns >= _RATING_COLUMNS


def _not_free(option: str, came: str) -> ConfigError:
    return ConfigError(option, came, wanted="a file of its own", fix="choose another name")
