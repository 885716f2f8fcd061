"""From the command line's AUDIO arguments to a fixed order of files, each once.

Paths are bytes: a name need not be UTF-8. A folder gives its audio files, recursively, by their
suffix; a file named on the command line is taken whatever its name. Links to folders are not
followed.
"""

import glob
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final

from ..errors import DataError
from .file_names import FilePath
from .pack_reader import inputs_from_pack
from .sources import AudioSource, Input

# Also formats that libsndfile cannot read: a file that is skipped silently is worse than a row with an error.
_PACK_SUFFIX: Final = b".parquet"
_SUFFIXES: Final = (
    *(
        "wav",
        "wave",
        "flac",
        "ogg",
        "oga",
        "opus",
        "mp3",
        "aif",
        "aiff",
        "aifc",
        "au",
        "snd",
        "caf",
        "w64",
        "rf64",
    ),
    *("wv", "m4a", "aac", "wma", "amr", "ape", "mka", "webm"),
)
AUDIO_SUFFIXES: Final = tuple(f".{suffix}".encode() for suffix in _SUFFIXES)
STDIN: Final = "-"
_PACK: Final = re.compile(rb"pack-\d{6}-[0-9a-f]{32}\.parquet")  # in a folder; tables are Parquet, too
_CHUNK: Final = 1 << 16  # bytes of a list read at a time


def inputs_from_arguments(arguments: Sequence[FilePath]) -> Iterator[Input]:
    """Files, folders and patterns: arguments in their order, folders sorted bytewise, as they are found.

    Raises DataError for an argument that does not exist, or a folder that cannot be read.
    """
    for argument in map(os.fsencode, arguments):
        if os.path.isdir(argument):
            yield from _audio_below(argument)
        elif os.path.lexists(argument):
            yield from _audio_at(argument)
        else:
            yield from _matching(argument)


def inputs_from_list(name: str) -> Iterator[Input]:
    """Paths from a file, or from stdin where `name` is "-": one a line, or with NUL between them (find
    -print0).

    They are files, taken as they are: one that is not there becomes a row that says so. Raises
    DataError.
    """
    try:
        with open(sys.stdin.fileno() if name == STDIN else name, "rb", closefd=name != STDIN) as file:
            for path in _paths(file):
                yield from _audio_at(path)
    except OSError as error:
        raise DataError(f"--list {name} | {error.strerror} | expected a file with one path a line") from error


def list_audio(arguments: Sequence[FilePath]) -> list[AudioSource]:
    """The files to score, each once, for programs.

    Raises DataError as above, and where there is no audio at all.
    """
    files = list(dict.fromkeys(found.source for found in inputs_from_arguments(arguments)))
    if not files:
        raise no_audio(arguments)
    return files


def no_audio(arguments: Iterable[FilePath]) -> DataError:
    """The error for arguments that lead to nothing."""
    where = ", ".join(repr(os.fsdecode(argument)) for argument in arguments) or "no argument"
    return DataError(f"{where} | no audio files found | expected suffixes like .wav .flac .ogg .mp3")


def _matching(pattern: bytes) -> Iterator[Input]:
    """What the shell has left to us: "data/**/*.wav" in quotes."""
    if not (found := sorted(glob.iglob(pattern, recursive=True)) if glob.has_magic(pattern) else []):
        raise DataError(
            f"{os.fsdecode(pattern)!r} | does not exist | expected an audio file or a folder of them"
        )
    for path in found:
        if not os.path.isdir(path):
            yield from _audio_at(path)


def _audio_at(path: bytes) -> Iterator[Input]:
    """A file, or those in a pack."""
    if path.lower().endswith(_PACK_SUFFIX) and os.path.isfile(path):
        yield from inputs_from_pack(path)
    else:
        yield _input(path)


def _paths(file: BinaryIO) -> Iterator[bytes]:
    """NUL is no part of a path, so one in the first bytes says what stands between them."""
    rest = file.read(_CHUNK)
    between = b"\0" if b"\0" in rest else b"\n"
    while rest:
        *whole, rest = rest.split(between)
        yield from filter(None, (path.removesuffix(b"\r") if between == b"\n" else path for path in whole))
        more = file.read(_CHUNK)
        if not more:
            break
        rest += more
    if rest:
        yield rest


def _audio_below(folder: bytes) -> Iterator[Input]:
    """Depth first, without recursion: a deep tree is no reason to fail."""
    pending = [folder]
    while pending:
        current = pending.pop()
        files, folders = _contents(current)
        for name in files:
            yield from _audio_at(os.path.join(current, name))
        pending.extend(os.path.join(current, name) for name in reversed(folders))


def _contents(folder: bytes) -> tuple[list[bytes], list[bytes]]:
    """Names of audio files and of folders, sorted.

    Names only: entries of a million files would fill the memory.
    """
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.name.lower().endswith(AUDIO_SUFFIXES) or _PACK.fullmatch(entry.name):
                    files.append(entry.name)
    except OSError as error:
        raise DataError(f"{os.fsdecode(folder)!r} | {error.strerror} | a folder that can be read") from error
    return sorted(files), sorted(folders)


def _input(path: bytes) -> Input:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return Input(path)
    return Input(path, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else Input(path)
