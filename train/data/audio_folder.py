"""The audio of each row of a table, found by the name that its cell writes.

A cell may name a file of another machine (C:\\study\\a.wav), without a suffix, with another one, in other
letters (A.WAV), or in the other Unicode form, as macOS writes names.
"""

import errno
import os
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...runtime.audio.signatures import audio_stem
from ...runtime.text import without_brackets


class _AudioFile(NamedTuple):
    path: Path
    parents: tuple[str, ...]  # folders below the root, compared as `_key` says


class AudioFolder:
    """The files below a folder; nothing outside of it is ever found."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def plain_path(self, file_id: str) -> Path:
        """Where the Hume-VB layout has the file: [00001], 00001 and 00001.wav are wav/00001.wav."""
        return self.root / _wav_name(file_id)

    def candidates(self, file_id: str) -> list[Path]:
        """The files that a cell may mean: none, one, or several that it does not tell apart."""
        if is_below(file_id) and is_file(plain := self.plain_path(file_id)):
            return [plain]
        *parents, name = _parts(file_id) or [""]
        if not name or ".." in parents or name == "..":
            return []
        keys = tuple(map(_key, parents))
        found = [file for file in self._by_stem.get(_key(audio_stem(name)), ()) if _agree(keys, file.parents)]
        for closeness in (
            lambda file: min(len(keys), len(file.parents)),
            lambda file: file.path.name.casefold() == name.casefold(),
            lambda file: audio_stem(file.path.name) == audio_stem(name),
        ):
            best = max(map(closeness, found), default=0)
            found = [file for file in found if closeness(file) == best]
        return [file.path for file in found]

    def of_number(self, file_id: str) -> str:
        """The name of a file whose stem is the same number, as 007.wav for 7 and 7.0; "" for none."""
        number = audio_stem(PurePosixPath(without_brackets(file_id)).name).removesuffix(".0").lstrip("0")
        found = (
            files[0].path.name
            for stem, files in self._by_stem.items()
            if stem.isdecimal() and stem.lstrip("0") == number
        )
        return next(found, "")

    def named_folders(self, file_id: str, path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The folders that a cell names: those in front of the file's own, and the file's own below the root.

        The first are of another machine, or wrong; none where they end in the root itself.
        """
        keys = tuple(map(_key, _parts(file_id)[:-1]))
        if not keys:
            return (), ()
        depth = min(len(keys), len(path.parts) - len(self.root.parts) - 1)
        front, own = keys[: len(keys) - depth], keys[len(keys) - depth :]
        return () if front[-1:] == (_key(self.root.name),) else front, own

    def known_name(self, file_id: str) -> str:
        """What the names of one file have in common, wherever it lies; "" where there is no such file."""
        key = _key(audio_stem(_parts(file_id)[-1])) if _parts(file_id) else ""
        return key if key in self._by_stem else ""

    def files(self) -> Iterator[Path]:
        """All audio that is not hidden, whatever its folder and suffix."""
        for files in self._by_stem.values():
            for file in files:
                if not any(name.startswith(".") for name in (file.path.name, *file.parents)):
                    yield file.path

    @cached_property
    def _by_stem(self) -> dict[str, list[_AudioFile]]:
        """The last part of a name, as `_key` has it, without its suffix -> the files of that name."""
        found: dict[str, list[_AudioFile]] = {}
        for folder, folders, names in os.walk(self.root):
            folders.sort()
            below = tuple(map(_key, Path(folder).relative_to(self.root).parts))
            for name in sorted(names):
                if _is_audio(name):
                    file = _AudioFile(Path(folder, name), below)
                    found.setdefault(_key(audio_stem(name)), []).append(file)
        return found


def is_below(file_id: str) -> bool:
    """Whether a cell is the name of a file below a folder, and of no other place."""
    name, parts = without_brackets(file_id), _parts(file_id)
    return bool(parts) and name[0] not in "/\\" and not os.path.splitdrive(name)[0] and ".." not in parts


def is_file(path: Path) -> bool:
    """False also for a name that no file can have: of 300 characters, or with a NUL."""
    try:
        return path.is_file()
    except ValueError:  # a NUL
        return False
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise
        return False


def _wav_name(file_id: str) -> PurePosixPath:
    """[00001], 00001 and 00001.wav are one file; spk.001 is spk.001.wav."""
    name = PurePosixPath(without_brackets(file_id))
    return name if _is_audio(name.name) or not name.name else name.with_name(f"{name.name}.wav")


def _parts(file_id: str) -> list[str]:
    return [part for part in without_brackets(file_id).replace("\\", "/").split("/") if part not in ("", ".")]


def _is_audio(name: str) -> bool:
    return audio_stem(name) != name


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _agree(named: tuple[str, ...], lies: tuple[str, ...]) -> bool:
    """Whether the folders that a cell names and those that a file lies in end alike, as far as both go."""
    both = min(len(named), len(lies))
    return named[len(named) - both :] == lies[len(lies) - both :]
