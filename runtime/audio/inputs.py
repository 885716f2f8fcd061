"""From the command line's AUDIO arguments to files in a fixed order.

Paths are bytes, since a name need not be UTF-8. A folder gives the audio files below it, chosen by their
suffix. A file that is named on the command line is taken whatever its suffix. Links to folders are not
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

_READABLE: Final = "wav wave flac ogg oga opus mp3 aif aiff aifc au snd caf w64 rf64"
# libsndfile cannot read these; but a row with an error is better than a file that is skipped silently.
_UNREADABLE: Final = "wv m4a aac wma amr ape mka webm"
AUDIO_SUFFIXES: Final = tuple(f".{suffix}".encode() for suffix in f"{_READABLE} {_UNREADABLE}".split())
STDIN: Final = "-"
_PACK_SUFFIX: Final = b".parquet"
_PACK: Final = re.compile(rb"pack-\d{6}-[0-9a-f]{32}\.parquet")  # in a folder, where tables may lie, too
_CHUNK: Final = 1 << 16  # bytes of a list that are read at a time


def inputs_from_arguments(arguments: Sequence[FilePath]) -> Iterator[Input]:
    """The files that files, folders and patterns name, as they are found.

    Arguments keep their order, and what is in a folder is sorted by its bytes. Raises DataError for an
    argument that does not exist, or a folder that cannot be read.
    """
    for argument in map(os.fsencode, arguments):
        if os.path.isdir(argument):
            yield from _audio_below(argument)
        elif os.path.lexists(argument):
            yield from _audio_at(argument)
        else:
            yield from _matching(argument)


def inputs_from_list(name: str) -> Iterator[Input]:
    """The files whose paths stand in a file, or on stdin where `name` is "-".

    There is one path a line, or a NUL between two paths (find -print0). A path that does not exist becomes
    a row that says so. Raises DataError where the list cannot be read.
    """
    try:
        with open(sys.stdin.fileno() if name == STDIN else name, "rb", closefd=name != STDIN) as file:
            for path in _paths(file):
                yield from _audio_at(path)
    except OSError as error:
        came = error.strerror or str(error)
        raise DataError(f"--list {name}", came, wanted="a file with one path a line") from error


def list_audio(arguments: Sequence[FilePath]) -> list[AudioSource]:
    """The files to score, each once, for programs.

    Raises DataError as `inputs_from_arguments`, and where there is no audio at all.
    """
    files = list(dict.fromkeys(found.source for found in inputs_from_arguments(arguments)))
    if not files:
        raise no_audio(arguments)
    return files


def no_audio(arguments: Iterable[FilePath]) -> DataError:
    """The error for arguments that lead to no file."""
    return DataError(
        ", ".join(repr(os.fsdecode(argument)) for argument in arguments) or "no argument",
        "no audio files found",
        wanted="files with a suffix like .wav, .flac, .ogg or .mp3",
        fix="name another folder, or the files themselves",
    )


def _matching(pattern: bytes) -> Iterator[Input]:
    """A pattern that the shell has left alone, because it is in quotes: "data/**/*.wav"."""
    found = sorted(glob.iglob(pattern, recursive=True)) if glob.has_magic(pattern) else []
    if not found:
        raise DataError(
            repr(os.fsdecode(pattern)), "does not exist", wanted="an audio file, or a folder of audio files"
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
    """Paths in a list. A NUL, which no path has, among the first bytes says that NUL stands between two."""
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
    """Depth first, and without recursion, which a deep tree would bring to an end."""
    pending = [folder]
    while pending:
        current = pending.pop()
        files, folders = _contents(current)
        for name in files:
            yield from _audio_at(os.path.join(current, name))
        pending.extend(os.path.join(current, name) for name in reversed(folders))


def _contents(folder: bytes) -> tuple[list[bytes], list[bytes]]:
    """The sorted names of audio files and of folders.

    Only names are kept: the entries of a million files would fill the memory.
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
        raise DataError(
            repr(os.fsdecode(folder)), error.strerror or str(error), wanted="a folder that can be read"
        ) from error
    return sorted(files), sorted(folders)


def _input(path: bytes) -> Input:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return Input(path)
    if not stat.S_ISREG(status.st_mode):
        return Input(path)
    return Input(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
