"""Writes packs; see pack_reader for what a pack is. Needs pyarrow, the extra `parquet`."""

import contextlib
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from ..errors import AudioError, DataError
from ..progress import Bar
from ..system.failpoints import failpoint
from ..system.files import atomic_path, left_in
from ..system.locks import locked
from .file_names import exact_name
from .input_spool import InputSpool, Shard
from .pack_reader import DIGEST, PACK_FORMAT, PackDigest, PackReader, imported_pyarrow
from .reader import opened
from .sources import AudioSource, Input, PackedFile, name_from_source

PACK_BYTES: Final = 256 << 20  # of audio in a pack, about
_GROUP_BYTES: Final = 8 << 20  # of audio in a row group
_LOCK: Final = ".rrtn-pack.lock"  # in the folder of the packs
_GROUP_FILES: Final = 64  # in a row group, at most


class Packed(NamedTuple):
    """What `write_packs` has made."""

    packs: int  # in the folder now
    written: int  # packs that this call wrote
    files: int  # in all packs
    errors: Counter[str]  # codes of files in packs that this call wrote


def write_packs(spool: InputSpool, folder: Path, bar: Bar) -> Packed:
    """Writes the packs that are not there yet; each appears whole.

    A file that cannot be read is a row with its error. Raises DataError where the folder has packs of other
    files, StoppedError where the storage fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    errors: Counter[str] = Counter()
    written = 0
    with locked(folder / _LOCK, does="packs"):
        packs = [(folder / _name(number, shards), shards) for number, shards in enumerate(_groups(spool))]
        _check_folder(folder, {path.name for path, _ in packs})
        for path, shards in packs:
            if not path.exists():
                _write(path, itertools.chain.from_iterable(map(spool.inputs, shards)), errors)
                written += 1
            bar.advance(spool.files_of(shards))
    return Packed(len(packs), written, spool.files, errors)


def _groups(spool: InputSpool) -> Iterator[list[Shard]]:
    """The shards of each pack."""
    group: list[Shard] = []
    size = 0
    for shard in spool.shards:
        group.append(shard)
        size += sum(found.size for found in spool.inputs(shard))
        if size >= PACK_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _name(number: int, shards: list[Shard]) -> str:
    key = hashlib.sha256("".join(shard.key for shard in shards).encode()).hexdigest()[:32]
    return f"pack-{number:06}-{key}.parquet"


def _check_folder(folder: Path, names: set[str]) -> None:
    for path in left_in(folder, "pack-??????-*"):
        path.unlink(missing_ok=True)
    if others := sorted(path.name for path in folder.glob("pack-*.parquet") if path.name not in names):
        raise DataError(
            f"--out {folder}",
            f"{others[0]} has other files, or these files have changed",
            wanted="packs of these files, or no packs",
            fix="choose another --out",
        )


def _write(path: Path, inputs: Iterable[Input], errors: Counter[str]) -> None:
    digest = PackDigest()
    with atomic_path(path) as temporary, temporary.open("wb") as file, _writer(file) as writer:
        for rows in _row_groups(inputs, errors, digest):
            writer.write_table(_table(rows))
        writer.add_key_value_metadata({DIGEST: digest.text()})
    failpoint("pack.done")


def _row_groups(
    inputs: Iterable[Input], errors: Counter[str], digest: PackDigest
) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    with PackReader() as reader:
        for found in inputs:
            rows.append(_row(found, reader))
            exact = os.fsencode(name_from_source(found.source))
            digest.add(exact, found.size, found.mtime_ns, rows[-1]["error"])
            size += len(rows[-1]["content"] or b"")
            errors.update(filter(None, [rows[-1]["error"]]))
            if len(rows) == _GROUP_FILES or size >= _GROUP_BYTES:
                yield rows
                rows, size = [], 0
    if rows:
        yield rows


def _row(found: Input, reader: PackReader) -> dict[str, Any]:
    text, exact = exact_name(name_from_source(found.source))
    content, error = None, None
    try:
        with _opened(found.source, reader) as descriptor:
            content = _content_of(descriptor)
    except AudioError as failed:
        error = failed.code
    return {
        "file": text,
        "file_bytes": exact,
        "size": found.size,
        "mtime_ns": found.mtime_ns,
        "content": content,
        "error": error,
    }


def _opened(source: AudioSource, reader: PackReader) -> contextlib.AbstractContextManager[int]:
    return reader.opened(source) if isinstance(source, PackedFile) else opened(source)


def _content_of(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()


@contextlib.contextmanager
def _writer(file: BinaryIO) -> Iterator[Any]:
    """Writes audio as it is, since it hardly compresses, with a checksum on each page."""
    _, parquet = imported_pyarrow()
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    writer = parquet.ParquetWriter(file, _schema(), version="2.6", write_page_checksum=True, **plain)
    try:
        yield writer
        writer.close()
    finally:
        writer.is_open = False  # or its __del__ would write the footer to a disk that is full


def _table(rows: list[dict[str, Any]]) -> Any:
    arrow, _ = imported_pyarrow()
    return arrow.Table.from_pylist(rows, schema=_schema())


def _schema() -> Any:
    arrow, _ = imported_pyarrow()
    types = {
        "file": arrow.string(),
        "file_bytes": arrow.binary(),  # null where `file` is exact
        "size": arrow.int64(),
        "mtime_ns": arrow.int64(),
        "content": arrow.large_binary(),  # null where there is an error
        "error": arrow.string(),
    }
    return arrow.schema(types.items(), metadata=PACK_FORMAT)
