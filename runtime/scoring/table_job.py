"""A table in the making. Each shard is scored once and its rows are kept, so a run that was stopped goes on.

Beside the table `scores.csv` lies the folder `.scores.csv.rrtn`. Its job.json says what the rows depend on:
model and settings. Each part holds the rows of one shard under the key of the shard. The table is put
together from the parts.

The key says the names, sizes and times of the files. A file with the same size and time may hold another
sound, so a part also has the hash of each file's content, and beside the part lie the ctime and inode of each
file (.seen). Where these are as before, the file is not read; where they differ, its hash decides.
"""

import contextlib
import glob
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..audio.input_spool import InputSpool, Shard
from ..audio.pack_reader import PackReader
from ..audio.reader import opened
from ..audio.sources import AudioSource, Input, PackedFile, content_hash
from ..cpus import usable_cpus
from ..errors import AudioError, ConfigError, StoppedError
from ..failpoints import failpoint
from ..files import write_bytes, write_json
from ..locks import locked
from ..tables.embedding_file import embedding_path
from ..tables.rows import Row
from .part_file import hashes_from_part, rows_from_part

SCORING_RULES: Final = 2  # rises whenever the same file, model and settings can give another row
_JOB: Final = "job.json"
_SEEN: Final = ".seen"


class TableJob:
    """The parts of a table in the making."""

    def __init__(self, folder: Path, labels: tuple[str, ...]) -> None:
        self._folder, self._labels = folder, labels
        self._parts = {path.name.partition("-")[0]: path for path in folder.glob("*.part")}

    @property
    def is_new(self) -> bool:
        """True if no shard has been scored."""
        return not self._parts

    def has(self, shard: Shard, inputs: Sequence[Input] = ()) -> bool:
        """True if the rows of the shard are there, and whole, and made of what `inputs` hold now.

        A file whose ctime or inode has changed is read. Raises StoppedError if the storage fails.
        """
        content = self._content(shard)
        if content is None or not inputs:
            return content is not None
        if (hashes := hashes_from_part(content)) is None:
            return True
        part, marks = self._parts[shard.key], _marks(inputs)
        differ = (marks != self._seen(part, len(inputs))).any(axis=1) | (marks[:, 1] == 0)
        known = [i for i in np.flatnonzero(differ).tolist() if hashes[i]]
        if not _all_are([inputs[i] for i in known], [hashes[i] for i in known]):
            self._forget(self._parts.pop(shard.key))
            return False
        if differ.any():
            self._note(part, marks)
        return True

    def put(self, shard: Shard, content: bytes, inputs: Sequence[Input] = ()) -> None:
        """Keeps what `part_from_rows` gave for a shard, whole or not at all."""
        path = self._folder / part_name(shard.key, content)
        write_bytes(path, content)
        if (before := self._parts.get(shard.key, path)) != path:
            self._forget(before)
        self._parts[shard.key] = path
        if inputs:
            self._note(path, _marks(inputs))
        failpoint("shard.done")

    def rows(self, spool: InputSpool) -> Iterator[list[Row]]:
        """Gives the rows of every file, in order. Raises StoppedError if a part has gone bad since."""
        for shard in spool.shards:
            content = self._content(shard)
            if content is None:
                raise StoppedError(
                    str(self._folder),
                    f"part {shard.key} is gone or broken",
                    fix="run the command again",
                )
            yield from rows_from_part(content, spool.sources(shard), self._labels)

    def tidy(self, spool: InputSpool) -> None:
        """Removes parts that no shard has any more, and what killed writers left."""
        wanted = {path for shard in spool.shards if (path := self._parts.get(shard.key))}
        for pattern in ("*.part", "*.seen", ".*.tmp"):
            for path in self._folder.glob(pattern):
                if path.with_suffix(".part") not in wanted:
                    path.unlink(missing_ok=True)

    def _seen(self, part: Path, files: int) -> "npt.NDArray[np.uint64]":
        """[F, 2]: the ctime and inode of each file when its content was hashed; zeros if unknown."""
        with contextlib.suppress(OSError):
            content = part.with_suffix(_SEEN).read_bytes()
            if len(content) == 16 * files:
                return np.frombuffer(content, np.uint64).reshape(files, 2)
        return np.zeros((files, 2), np.uint64)

    def _note(self, part: Path, marks: "npt.NDArray[np.uint64]") -> None:
        write_bytes(part.with_suffix(_SEEN), marks.tobytes())

    def _forget(self, part: Path) -> None:
        part.unlink(missing_ok=True)
        part.with_suffix(_SEEN).unlink(missing_ok=True)

    def _content(self, shard: Shard) -> bytes | None:
        """The part of the shard; None if it is missing, broken, or the part of another shard."""
        path = self._parts.get(shard.key)
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except OSError:
            return None
        return content if path.name == part_name(shard.key, content) else None


@contextlib.contextmanager
def opened_job(
    target: Path, settings: dict[str, Any], labels: tuple[str, ...], *, overwrite: bool = False
) -> Iterator[TableJob]:
    """The job of the table `target`, for this process alone. `overwrite` begins it anew.

    Raises ConfigError if another process writes this table, or if it was begun with other settings.
    """
    folder = target.parent / f".{target.name}.rrtn"
    folder.mkdir(exist_ok=True)
    with locked(folder / "lock", does="scores"):
        if overwrite or not (folder / _JOB).exists():  # without job.json nobody knows what the parts are
            _empty(folder)
        _check_settings(folder / _JOB, target, settings)
        _remove_unfinished(target)
        yield TableJob(folder, labels)


def _check_settings(path: Path, target: Path, settings: dict[str, Any]) -> None:
    if not path.exists():
        write_json(path, settings)
    try:
        before = _in_todays_words(dict(json.loads(path.read_bytes())))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            str(path), str(error), wanted="what rrtn score writes", fix="begin anew with --overwrite"
        ) from error
    changes = [
        f"{name} {_short(before.get(name))}, now {_short(settings.get(name))}"
        for name in {**before, **settings}
        if before.get(name) != settings.get(name)
    ]
    if changes:
        raise ConfigError(
            f"--out {target}",
            f"begun with {', '.join(changes)}",
            wanted="the same model and settings",
            fix="choose another --out, or begin anew with --overwrite",
        )


def _in_todays_words(settings: dict[str, Any]) -> dict[str, Any]:
    """rrtn 0.1.0 wrote its own version instead of the number of the rules, which was 1."""
    if "rrtn" in settings and "scoring_rules" not in settings:
        return {"scoring_rules": 1, **{name: value for name, value in settings.items() if name != "rrtn"}}
    return settings


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:24]}..."


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == "lock":
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove_unfinished(target: Path) -> None:
    """Removes what killed writers of the table, and of the embeddings beside it, have left."""
    for path in (target, embedding_path(target)):
        for left in path.parent.glob(f".{glob.escape(path.name[:40])}.????????.tmp"):
            left.unlink(missing_ok=True)


def _marks(inputs: Sequence[Input]) -> "npt.NDArray[np.uint64]":
    """[F, 2]: ctime and inode."""
    marks = [(found.ctime_ns % 2**64, found.inode) for found in inputs]
    return np.array(marks, np.uint64).reshape(-1, 2)


def _all_are(inputs: Sequence[Input], hashes: Sequence[bytes]) -> bool:
    """Whether each file has the content of this hash. A file that cannot be read now counts as unchanged."""
    packs = PackReader()
    one_by_one = any(isinstance(found.source, PackedFile) for found in inputs)  # they share `packs`
    pool = ThreadPoolExecutor(1 if one_by_one else usable_cpus(), thread_name_prefix="hash")
    try:
        now = pool.map(partial(_hash_now, packs), [found.source for found in inputs])
        return all(found in (None, before) for found, before in zip(now, hashes, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)
        packs.close()


def _hash_now(packs: PackReader, source: AudioSource) -> bytes | None:
    try:
        with packs.opened(source) if isinstance(source, PackedFile) else opened(source) as descriptor:
            return content_hash(descriptor)
    except AudioError:
        return None


def part_name(key: str, content: bytes) -> str:
    """The shard's key, and a hash that tells whether the content is whole and of this shard."""
    return f"{key}-{hashlib.sha256(key.encode() + content).hexdigest()[:32]}.part"
