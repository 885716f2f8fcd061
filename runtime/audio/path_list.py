"""Lists of paths: what `--list` takes, as programs and people write them.

There is one path a line, or a NUL between two paths (find -print0). The text may be UTF-16 or have a byte
order mark. A path may stand in quotes, and a line that begins with # is a comment. Between NULs a path is
taken as it is.
"""

import codecs
import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO, Final

from ..errors import DataError
from .file_names import LONGEST_NAME
from .signatures import is_audio

STDIN: Final = "-"
_CHUNK: Final = 1 << 16  # bytes that are read at a time
_MARKS: Final = {  # in this order: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OF_PATHS: Final = frozenset(b"./\\\n\r")
_COMMENT: Final = b"#"  # unless there is a file of that name
_QUOTES: Final = (b'"', b"'")
_NUL, _LINE_END, _OLD_MAC_LINE_END = b"\0", b"\n", b"\r"


@dataclass
class PathList:
    """A list's name, and what is to be said about its paths once they are read."""

    name: str  # or "-"
    elsewhere: int = 0  # relative paths that are in the current folder and not in the list's
    ambiguous: int = 0  # relative paths that are in both; the list's folder counts
    _content: Any = field(default_factory=hashlib.sha256, repr=False)  # hash of what was read

    @property
    def subject(self) -> str:
        """What messages call it."""
        return f"--list {self.name}"

    @property
    def is_file(self) -> bool:
        """Whether the list is a file, and not stdin or another pipe."""
        return self.name != STDIN and os.path.isfile(self.name)

    @property
    def identity(self) -> str:
        """What tells lists apart. A file may grow; of a pipe, the content counts once it is read."""
        if self.is_file:
            return f"--list {os.path.realpath(self.name)}"
        return f"--list of sha256 {self._content.hexdigest()}"

    def notes(self) -> list[str]:
        """Lines for the person."""
        what = f"of {self.subject} are relative and"
        return [
            f"note: {count} paths {what} {place}"
            for count, place in (
                (self.elsewhere, "are not in the list's folder: those in the current folder were taken"),
                (self.ambiguous, "are in the current folder, too: those in the list's folder were taken"),
            )
            if count
        ]

    def paths(self) -> Iterator[bytes]:
        """The paths, one after the other. Raises DataError for what is no list."""
        try:
            name = sys.stdin.fileno() if self.name == STDIN else self.name
            with open(name, "rb", closefd=self.name != STDIN) as file:
                yield from self._found(file)
        except OSError as error:
            raise self._refused(error.strerror or str(error)) from error
        except UnicodeError as error:
            raise self._refused(f"is no text: {error}") from error

    def _found(self, file: BinaryIO) -> Iterator[bytes]:
        first = file.read(_CHUNK)
        if is_audio(first):
            raise DataError(
                self.subject, "is audio", wanted="a file with one path a line", fix="leave out --list"
            )
        chunks = _as_utf8(self._read(first, file))
        first = next(chunks, b"")
        between = _separator(first)
        folder = b"" if self.name == STDIN else os.path.split(os.fsencode(self.name))[0]
        for line in self._lines(first, chunks, between):
            if between != _NUL and _NUL in line:
                raise self._refused("has a NUL within a line")
            readings = [line] if between == _NUL else _readings(line)
            if path := self._located(readings, folder):
                yield path
            elif readings and (between == _NUL or not readings[-1].startswith(_COMMENT)):
                yield os.path.join(folder, readings[-1])

    def _lines(self, first: bytes, chunks: Iterator[bytes], between: bytes) -> Iterator[bytes]:
        """What stands between two of `between`, unless it is empty."""
        rest = b""
        for chunk in chain([first], chunks):
            *whole, rest = (rest + chunk).split(between)
            if any(len(line) > LONGEST_NAME for line in (*whole, rest)):
                raise self._refused(f"has a line of more than {LONGEST_NAME:,} bytes")
            yield from filter(None, whole)
        if rest:
            yield rest

    def _located(self, readings: list[bytes], folder: bytes) -> bytes | None:
        """The first reading of a line that is there; None where none is."""
        for path in readings:
            beside = os.path.join(folder, path)
            if os.path.lexists(beside):
                if beside != path and os.path.lexists(path) and not _same(beside, path):
                    self.ambiguous += 1
                return beside
            if beside != path and os.path.lexists(path):
                self.elsewhere += 1
                return path
        return None

    def _read(self, first: bytes, file: BinaryIO) -> Iterator[bytes]:
        chunk = first
        while chunk:
            self._content.update(chunk)
            yield chunk
            chunk = file.read(_CHUNK)

    def _refused(self, came: str) -> DataError:
        return DataError(self.subject, came, wanted="a file with one path a line")


def _as_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The content, without a byte order mark."""
    first = next(chunks, b"")
    if encoding := _wide_encoding(first):
        decoder = codecs.getincrementaldecoder(encoding)()
        for chunk in chain([first], chunks):
            yield decoder.decode(chunk).encode("utf-8", "surrogateescape")
        yield decoder.decode(b"", final=True).encode()
    else:
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from chunks


def _wide_encoding(first: bytes) -> str:
    """UTF-16 or UTF-32, by the mark or by zeros in every second byte; else "".

    Names of one letter with NULs between them have these zeros, too, but no suffix, folder or line end.
    """
    for mark, encoding in _MARKS.items():
        if first.startswith(mark):
            return encoding
    sample = first[: len(first) // 2 * 2][:512]
    even, odd = sample[::2], sample[1::2]
    if len(even) > 1 and even.count(0) + odd.count(0) > len(even) // 2:
        if not even.count(0) and not _OF_PATHS.isdisjoint(even):
            return "utf-16-le"
        if not odd.count(0) and not _OF_PATHS.isdisjoint(odd):
            return "utf-16-be"
    return ""


def _separator(first: bytes) -> bytes:
    """A NUL, which no path has, among the first bytes says that NUL stands between two."""
    if _NUL in first:
        return _NUL
    return _OLD_MAC_LINE_END if _OLD_MAC_LINE_END in first and _LINE_END not in first else _LINE_END


def _readings(line: bytes) -> list[bytes]:
    """The paths that a line may mean, the most literal first; none for an empty line."""
    literal = line.removesuffix(b"\r")
    unquoted = bare = literal.strip()
    for quote in _QUOTES:
        if len(bare) > 1 and bare.startswith(quote) and bare.endswith(quote):
            unquoted = bare[1:-1].replace(quote * 2, quote)
    return list(dict.fromkeys((literal, bare, unquoted))) if unquoted else []


def _same(one: bytes, other: bytes) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(one), os.stat(other))
    return False
