"""A folder that is written anew each time. It takes the place of what rrtn wrote there, and of nothing else.

Beside the files lies rrtn.json with their hashes, and with the option that they were written for. A file that
is not in it, or has changed since, is somebody's.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NotRequired, TypedDict

from .. import __version__
from ..runtime.documents import converted, parsed
from ..runtime.errors import ModelError, StoppedError
from ..runtime.system.files import (
    mend_folder,
    read_regular,
    remove_abandoned,
    replace_folder,
    resolved,
    sha256_of,
    takes_no_file,
    temporary_name,
    write_json,
)
from ..runtime.system.locks import in_turn

RECORD: Final = "rrtn.json"
_TURN: Final = ".rrtn-folder.lock"  # beside the folder: held while another takes its place


class _Record(TypedDict):
    """rrtn.json."""

    files: dict[str, str]
    option: NotRequired[str]  # what the folder was named by: --triton or --web


@contextlib.contextmanager
def rewritten(folder: Path, option: str, holds: str) -> Iterator[Path]:
    """A new folder, which becomes `folder` at the end; where that fails, the old one stays.

    Raises what `check_rewritable` raises.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    turn = folder.absolute().parent / _TURN
    with in_turn(turn):
        mend_folder(folder.absolute())
    check_rewritable(folder, option, holds)
    remove_abandoned(folder)
    staging = temporary_name(folder.absolute())
    staging.mkdir()
    try:
        yield staging
        hashes = {_name(path, staging): sha256_of(path) for path in _files(staging)}
        write_json(staging / RECORD, {"version": __version__, "option": option, "files": hashes})
        with in_turn(turn):
            replace_folder(folder.absolute(), staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_rewritable(folder: Path, option: str, holds: str) -> None:
    """Raises ModelError where `folder` has a file that rrtn did not write for `option`, or that was changed.

    `option` names the folder to the user, and `holds` says what may be in it.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ModelError(
            str(folder), "a link or a file", wanted="a folder, or nothing", fix=f"choose another {option}"
        )
    if Path.cwd().is_relative_to(resolved(folder)):
        came, wanted = "the working directory, or a folder above it", "a folder that can be replaced"
        raise ModelError(str(folder), came, wanted=wanted, fix=f"choose another {option}")
    beside = next(one for one in folder.absolute().parents if one.exists())
    if reason := takes_no_file(beside):
        wanted = "a folder that takes files"
        raise StoppedError(
            str(beside), reason, wanted=wanted, fix=f"make it writable, or choose another {option}"
        )
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    record = _record(folder / RECORD)
    for path in _files(folder):
        name = _name(path, folder)
        if name != RECORD and (path.is_symlink() or record["files"].get(name) != sha256_of(path)):
            raise ModelError(
                str(path),
                "not as rrtn wrote it",
                wanted=f"a folder with {holds}",
                fix=f"choose another {option}",
            )
    if (other := _option_of(record)) != option:
        fix = f"choose another {option}, or remove it"
        raise ModelError(str(folder), f"written for {other}", wanted=f"a folder with {holds}", fix=fix)


def _option_of(record: _Record) -> str:
    """What the folder was written for; a record that does not say it lists the files."""
    is_repository = any(name.endswith("/config.pbtxt") for name in record["files"])
    return record.get("option") or ("--triton" if is_repository else "--web")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _name(path: Path, folder: Path) -> str:
    """As rrtn.json has it: the folder may go to another system."""
    return path.relative_to(folder).as_posix()


def _record(path: Path) -> _Record:
    """What is known of a folder of ours; no files where it is not ours."""
    try:
        return converted(parsed(read_regular(path)), _Record)
    except (OSError, ValueError):
        return {"files": {}}
