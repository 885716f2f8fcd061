"""Where a sound comes from: a file of its own, or a row of a pack."""

from typing import NamedTuple

from .file_names import FilePath


class PackedFile(NamedTuple):
    """A file in a pack."""

    pack: bytes  # path of the Parquet file
    row: int
    name: bytes  # of the file when it was packed, and in rows of scores


AudioSource = bytes | PackedFile


class Input(NamedTuple):
    """One sound to score. Size and time tell whether it has changed; both are 0 where they are unknown."""

    source: AudioSource
    size: int = 0
    mtime_ns: int = 0


def name_from_source(source: FilePath | PackedFile) -> FilePath:
    """The name that rows of scores have for it."""
    return source.name if isinstance(source, PackedFile) else source
