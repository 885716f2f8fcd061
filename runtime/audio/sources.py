"""Where a sound comes from: a file of its own, or a row of a pack."""

from typing import NamedTuple

from .file_names import FilePath


class PackedFile(NamedTuple):
    """A file in a pack. Its rows of scores carry `name`."""

    pack: bytes  # path of the Parquet file
    row: int
    name: bytes  # as the file was called when it was packed


AudioSource = bytes | PackedFile


class Input(NamedTuple):
    """One sound to score. Size and time tell whether it has changed; both are 0 where it cannot be asked."""

    source: AudioSource
    size: int = 0
    mtime_ns: int = 0


def name_from_source(source: FilePath | PackedFile) -> FilePath:
    """What rows of scores call it."""
    return source.name if isinstance(source, PackedFile) else source
