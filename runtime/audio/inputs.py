"""From the command line's AUDIO arguments to files in a fixed order.

Paths are bytes, since a name need not be UTF-8. A folder gives the files below it that are audio by their
suffix or by their content. A file that is named on the command line is taken whatever it is. Links to
folders are not followed.
"""

import contextlib
import errno
import fnmatch
import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from ..errors import ConfigError, DataError, StoppedError
from ..system.host import inode_of, with_slashes
from ..text import counted
from .file_names import FilePath
from .pack_reader import inputs_from_pack
from .path_list import PathList
from .signatures import has_audio_suffix, holds_audio, is_apple_double, is_junk_folder
from .sources import Input, PackedFile

_PACK_SUFFIX: Final = b".parquet"
_PACK: Final = re.compile(rb"pack-\d{6}-[0-9a-f]{32}\.parquet")  # in a folder, where tables may lie, too
_SUFFIX: Final = re.compile(r"\.[a-z0-9_~-]{1,12}")
_ANY_DEPTH: Final = re.compile(rb"(?:^|(?<=/))\*\*(?:/+|$)")  # ** in a pattern
_OURS: Final = re.compile(rb"\..+\.rrtn|\.rrtn-pack\.lock")  # beside tables and packs: nobody left it out
_COUNTS_SHOWN: Final = 8
_EXCLUDED, _APPLE, _LINK = "--exclude", "._*", "link to a folder"  # reasons to leave something out
_GONE: Final = frozenset(  # a folder that gives no more is a row; storage that fails is not
    {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM}
)


@dataclass
class InputChoice:
    """What of the files that are found is left out, and how many that were."""

    exclude: Sequence[str] = ()  # patterns
    outputs: Mapping[tuple[int, int], str] = field(default_factory=dict)  # (device, inode) -> its option
    left_out: Counter[str] = field(default_factory=Counter)  # by suffix, or by another reason
    unchecked: int = 0  # packs that were written before packs had a digest

    def takes(self, path: bytes) -> bool:
        """Whether no pattern excludes the file or folder. What is excluded is counted."""
        path = with_slashes(path)
        if not any(_fits(path, os.fsencode(pattern)) for pattern in self.exclude):
            return True
        self.left_out[_EXCLUDED] += 1
        return False

    def count_unchecked(self) -> None:
        """Counts a pack without a digest."""
        self.unchecked += 1

    def notes(self) -> list[str]:
        """Lines for the person."""
        packs = counted(self.unchecked, "pack")
        what = f"note: {packs} without a digest: names and sizes are not checked"
        return [f"{what}: pack their files again"] if self.unchecked else []

    def check_no_output(self, status: os.stat_result, path: bytes) -> None:
        """Raises ConfigError for an input that is to be written to."""
        if option := self.outputs.get((status.st_dev, status.st_ino)):
            raise ConfigError(
                option,
                f"is one of the files to read: {os.fsdecode(path)}",
                wanted="a file that is no input",
                fix="choose another name",
            )


def inputs_from_arguments(
    arguments: Sequence[FilePath], choice: InputChoice | None = None
) -> Iterator[Input]:
    """The files that files, folders and patterns name, as they are found.

    Arguments keep their order, and what is in a folder is sorted by its bytes. A folder below an argument
    that cannot be read becomes a row that says so. Raises DataError for an argument that does not exist or
    cannot be read, StoppedError where the storage fails, ConfigError for a file that is an output, too.
    """
    choice = choice or InputChoice()
    for argument in map(os.fsencode, arguments):
        if os.path.isdir(argument):
            yield from _audio_below(argument, choice)
        elif os.path.lexists(argument):
            yield from _audio_at(argument, choice)
        else:
            yield from _matching(argument, choice)


def inputs_from_list(paths: PathList, choice: InputChoice | None = None) -> Iterator[Input]:
    """The files that a list names. A path that does not exist becomes a row that says so.

    Raises DataError where the list cannot be read, ConfigError for a file that is an output, too.
    """
    choice = choice or InputChoice()
    for path in paths.paths():
        yield from _audio_at(path, choice)


def no_audio(arguments: Iterable[FilePath], choice: InputChoice) -> DataError:
    """The error for arguments that lead to no file."""
    if not (named := [repr(os.fsdecode(argument)) for argument in arguments]):
        wanted = "files, folders or patterns, or --list FILE"
        return DataError(
            "AUDIO", "not given", wanted=wanted, fix="name them, such as: rrtn score recordings/"
        )
    others = f" ({counts_text(choice.left_out)} left out)" if choice.left_out else ""
    return DataError(
        ", ".join(named),
        f"no audio files found{others}",
        wanted="files that are audio by their suffix or content: .wav, .flac, .ogg, .mp3, ...",
        fix="name another folder, or the files themselves",
    )


def counts_text(counts: Counter[str]) -> str:
    """The highest counts: `.txt 3, ._* 2`."""
    highest = counts.most_common(_COUNTS_SHOWN)
    listed = [f"{what} {count}" for what, count in highest]
    more = counts.total() - sum(count for _, count in highest)
    return ", ".join([*listed, *([f"others {more}"] if more else [])])


def _matching(pattern: bytes, choice: InputChoice) -> Iterator[Input]:
    """A pattern that the shell has left alone, because it is in quotes: "data/**/*.wav"."""
    found = sorted(set(_found(with_slashes(pattern), choice))) if glob.has_magic(pattern) else []
    if not found:
        raise DataError(
            repr(os.fsdecode(pattern)), "does not exist", wanted="an audio file, or a folder of audio files"
        )
    for path in found:
        if not os.path.isdir(path):
            yield from _audio_at(path, choice)


def _found(pattern: bytes, choice: InputChoice) -> Iterator[bytes]:
    """As `glob.iglob`, whose ** follows links to folders, also in circles."""
    if not (depth := _ANY_DEPTH.search(pattern)):
        yield from glob.iglob(pattern)
        return
    before, rest = pattern[: depth.start()], pattern[depth.end() :]
    if pattern.endswith(b"**") and not rest:
        rest = b"*"
    pending = list(glob.iglob(before)) if before else [b""]
    while pending:
        folder = pending.pop()
        yield from _found(glob.escape(folder) + rest, choice)
        pending.extend(_folders_in(folder, choice))


def _folders_in(folder: bytes, choice: InputChoice) -> Iterator[bytes]:
    """Those that ** goes into. Links are counted, and so it skips what cannot be read."""
    with contextlib.suppress(OSError), os.scandir(folder or b".") as entries:
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            if _leads_to_folder(entry):
                choice.left_out[_LINK] += 1
            elif _is_folder(entry):
                yield folder + entry.name + b"/"


def _audio_at(path: bytes, choice: InputChoice) -> Iterator[Input]:
    """A file, or those in a pack."""
    path = with_slashes(path)
    if not choice.takes(path):
        return
    if path.lower().endswith(_PACK_SUFFIX) and os.path.isfile(path):
        choice.check_no_output(os.stat(path), path)
        for found in inputs_from_pack(path, unchecked=choice.count_unchecked):
            if not isinstance(found.source, PackedFile) or choice.takes(found.source.name):
                yield found
    else:
        yield _input(path, choice)


def _audio_below(folder: bytes, choice: InputChoice) -> Iterator[Input]:
    """Depth first, and without recursion, which a deep tree would bring to an end."""
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            files, folders = _contents(current, choice)
        except OSError as error:
            if current == folder or error.errno not in _GONE:
                raise _unreadable(current, error) from error
            yield Input(with_slashes(current))  # its decoder says why
            continue
        for name in files:
            yield from _audio_at(os.path.join(current, name), choice)
        pending.extend(os.path.join(current, name) for name in reversed(folders))


def _contents(folder: bytes, choice: InputChoice) -> tuple[list[bytes], list[bytes]]:
    """The sorted names of audio files and of folders.

    Only names are kept: the entries of a million files would fill the memory.
    """
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name):
                continue
            if not _is_folder(entry):
                if _is_wanted(entry, choice):
                    files.append(entry.name)
            elif is_junk_folder(entry.name):
                choice.left_out[f"{_text(entry.name)}/"] += 1
            elif choice.takes(entry.path):
                folders.append(entry.name)
    return sorted(files), sorted(folders)


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # gone meanwhile, or in a folder that may be listed and no more
        return False


def _is_wanted(entry: "os.DirEntry[bytes]", choice: InputChoice) -> bool:
    """Whether something in a folder that is no folder is audio, or a pack. What is not is counted."""
    if is_apple_double(entry.name):
        choice.left_out[_APPLE] += 1
    elif _leads_to_folder(entry):
        choice.left_out[_LINK] += 1
    elif _is_audio(entry) or _PACK.fullmatch(entry.name):
        return True
    else:
        choice.left_out[_suffix(entry.name)] += 1
    return False


def _is_audio(entry: "os.DirEntry[bytes]") -> bool:
    """By its suffix, whatever it is; by its content, only a file: a device may act when it is opened."""
    if has_audio_suffix(entry.name):
        return True
    try:
        return entry.is_file() and holds_audio(entry.path)
    except OSError:
        return False


def _leads_to_folder(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:
        return False


def _suffix(name: bytes) -> str:
    suffix = PurePosixPath(_text(name)).suffix.lower()
    return suffix if _SUFFIX.fullmatch(suffix) else "no suffix"


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _fits(path: bytes, pattern: bytes) -> bool:
    """A pattern without / is for the name, one with / for the end of the path."""
    pattern = pattern.rstrip(b"/")
    if b"/" not in pattern:
        return fnmatch.fnmatchcase(os.path.basename(path), pattern)
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, b"*/" + pattern)


def _unreadable(folder: bytes, error: OSError) -> Exception:
    subject, came = repr(os.fsdecode(folder)), error.strerror or str(error)
    if error.errno in _GONE:
        return DataError(subject, came, wanted="a folder that can be read")
    return StoppedError(
        subject,
        came,
        wanted="storage that can be read",
        fix="repair the storage and run the command again",
    )


def _input(path: bytes, choice: InputChoice) -> Input:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return Input(path)
    choice.check_no_output(status, path)
    if not stat.S_ISREG(status.st_mode):
        return Input(path)
    return Input(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode_of(status))
