"""From the command line's AUDIO arguments to a fixed, sorted list of files.

Paths are bytes: a name need not be UTF-8. A folder gives its audio files, recursively, by their suffix; a file named
on the command line is taken whatever its name. Links to folders are not followed.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Final

from .audio import FilePath
from .errors import DataError

# Also formats that libsndfile cannot read: a file that is skipped silently is worse than a row with an error.
_SUFFIXES: Final = (
    *("wav", "wave", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "au", "snd", "caf", "w64", "rf64"),
    *("wv", "m4a", "aac", "wma", "amr", "ape", "mka", "webm"),
)
AUDIO_SUFFIXES: Final = tuple(f".{suffix}".encode() for suffix in _SUFFIXES)


def list_audio(arguments: Sequence[FilePath]) -> list[bytes]:
    """The files to score, each once: arguments in their order, folders sorted bytewise.

    Raises DataError for an argument that does not exist, an unreadable folder, or no audio at all.
    """
    files: dict[bytes, None] = {}
    for argument in map(os.fsencode, arguments):
        if os.path.isdir(argument):
            files |= dict.fromkeys(_audio_below(argument))
        elif os.path.lexists(argument):
            files[argument] = None
        else:
            raise DataError(f"{os.fsdecode(argument)!r} | does not exist | expected an audio file or a folder of them")
    if not files:
        where = ", ".join(repr(os.fsdecode(argument)) for argument in arguments) or "no argument"
        raise DataError(f"{where} | no audio files found | expected suffixes like .wav .flac .ogg .mp3")
    return list(files)


def _audio_below(folder: bytes) -> Iterator[bytes]:
    """Depth first, without recursion: a deep tree is no reason to fail."""
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{os.fsdecode(current)!r} | {error.strerror} | a folder that can be read") from error
        yield from (entry.path for entry in found if not _is_folder(entry) and _looks_like_audio(entry.name))
        pending.extend(entry.path for entry in reversed(found) if _is_folder(entry))


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    return entry.is_dir(follow_symlinks=False)


def _looks_like_audio(name: bytes) -> bool:
    return name.lower().endswith(AUDIO_SUFFIXES)
