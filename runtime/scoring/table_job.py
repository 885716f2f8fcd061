"""A table in the making. Each shard is scored once and its rows are kept, so a run that was stopped goes on.

Beside the table `scores.csv` lies the folder `.scores.csv.rrtn`. Its job.json says what the rows depend on:
model and settings, and what the user named to be scored. Each part holds the rows of one shard under the key
of the shard. The table is put together from the parts.

The key says the names, sizes and times of the files. A file with the same size and time may hold another
sound, so a part also has the hash of each file's content, and beside the part lie the ctime and inode of each
file (.seen). Where these are as before, the file is not read; where they differ, its hash decides.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
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
from ..documents import converted, parsed
from ..errors import AudioError, ConfigError, StoppedError
from ..system.cpus import usable_cpus
from ..system.failpoints import failpoint
from ..system.files import read_regular, remove_left, sha256_of, write_bytes, write_json
from ..system.locks import locked
from ..tables.embedding_file import embedding_path
from ..tables.formats import FORMATS
from ..tables.rows import Row
from ..tables.writer import has_embeddings_beside
from .part_file import hashes_from_part, rows_from_part

SCORING_RULES: Final = 4  # rises whenever the same file, model and settings can give another row
_JOB: Final = "job.json"
_SEEN: Final = ".seen"
_LOCK: Final = "lock"
# In job.json, of the model: label -> the lowest and the highest rating, and the highest frequency that the
# model hears, in Hz, where that is not the default's.
SCALES: Final = "scales"
CHANNEL: Final = "channel"
F_MAX: Final = "f_max"
_INPUTS: Final = "inputs"  # in job.json: what the user named; all else there are settings
_SUBMISSIONS: Final = "submissions"  # in job.json: where the table was written in the challenge's form
_RELATIVE_TO: Final = "relative_to"  # in job.json: the working directories of the table's relative names
# In job.json: _UNKNOWN until --overwrite has written the table in place of another.
_REPLACES: Final = "replaces"
# In job.json: the hash of the table that was written, and before that of the one that takes its place.
_TABLES: Final = "tables"
_NO_SETTINGS: Final = (_INPUTS, _SUBMISSIONS, _RELATIVE_TO, _REPLACES, _TABLES)
_EMBEDDING: Final = "embedding"  # a setting: D, or null
_UNKNOWN: Final = "rows of another table"  # that --append has kept; no user can name that


class TableJob:
    """The parts of a table in the making."""

    def __init__(
        self,
        folder: Path,
        labels: tuple[str, ...],
        *,
        keeps_all: bool = False,
        settings_of_kept: bool = True,
    ) -> None:
        """`keeps_all` keeps parts of files that are no inputs now; see the attribute `settings_of_kept`."""
        self.settings_of_kept = settings_of_kept  # False where nobody knows how the kept rows were made
        self._folder, self._labels, self._keeps_all = folder, labels, keeps_all
        self._parts = {path.name.partition("-")[0]: path for path in folder.glob("*.part")}
        self._table = ""  # the hash of the one that this process has written

    @property
    def is_new(self) -> bool:
        """True if no shard has been scored."""
        return not self._parts

    def has(self, shard: Shard, inputs: Sequence[Input] = ()) -> bool:
        """True if the rows of the shard are there, and whole, and made of what `inputs` hold now.

        A file whose ctime or inode has changed is read; one that cannot be read now counts as unchanged, and
        is compared the next time. Raises StoppedError if the storage fails.
        """
        content = self._content(shard)
        if content is None or not inputs:
            return content is not None
        if (hashes := hashes_from_part(content)) is None:
            return True
        part, marks = self._parts[shard.key], _marks(inputs)
        seen = self._seen(part, len(inputs))
        differ = (marks != seen).any(axis=1) | (marks[:, 1] == 0)
        known = [i for i in np.flatnonzero(differ).tolist() if hashes[i]]
        compared = _compared([inputs[i] for i in known], [hashes[i] for i in known])
        if False in compared:
            self._forget(self._parts.pop(shard.key))
            return False
        if differ.any():
            unread = [i for i, same in zip(known, compared, strict=True) if same is None]
            marks[unread] = seen[unread]
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

    def has_written(self, submission: Path) -> bool:
        """Whether an earlier call wrote the table in the challenge's form there, too."""
        return os.path.realpath(submission) in (_job(self._folder) or {}).get(_SUBMISSIONS, [])

    def note_submission(self, submission: Path) -> None:
        """Keeps in mind that the table is written there, too."""
        job = _job(self._folder) or {}
        written = {*job.get(_SUBMISSIONS, []), os.path.realpath(submission)}
        write_json(self._folder / _JOB, {**job, _SUBMISSIONS: sorted(written)})

    def note_table(self, temporary: Path) -> None:
        """Keeps in mind the content of the table that is about to take its place."""
        self._table, job = sha256_of(temporary), _job(self._folder) or {}
        known = job.get(_TABLES, [])
        if self._table not in known:
            write_json(self._folder / _JOB, {**job, _TABLES: [*known, self._table]})

    def note_written(self, spool: InputSpool) -> None:
        """Keeps in mind the table, which is whole now, and what the relative names in it are relative to."""
        if job := _job(self._folder):
            notes = {_RELATIVE_TO: _folders(spool.relative_to), _REPLACES: list[str]()}
            notes = {} if self._keeps_all else notes
            if (noted := _noted(job, {**notes, _TABLES: [self._table]})) != job:
                write_json(self._folder / _JOB, noted)

    def rows(self, spool: InputSpool, shards: Sequence[Shard] | None = None) -> Iterator[list[Row]]:
        """Gives the rows of every file of `shards`, in order; without them, of all.

        Raises StoppedError if a part has gone bad since.
        """
        for shard in spool.shards if shards is None else shards:
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
        patterns = (".*.tmp",) if self._keeps_all else ("*.part", f"*{_SEEN}", ".*.tmp")
        for pattern in patterns:
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


def check_job(
    target: Path,
    inputs: Sequence[str],
    *,
    embeddings: bool = False,
    overwrite: bool = False,
    append: bool = False,
) -> None:
    """Whether a table of `inputs` (what the user named) may be put at `target`, asked before the work.

    A table that `rrtn score` began with the same inputs is brought up to date. Raises ConfigError for any
    other file or table that is there, unless `overwrite` or `append` says what is to become of it, and for
    what is in the way of the folder beside the table.
    """
    folder = _folder(target)
    _check_folder(folder)
    job = None if overwrite else _job(folder)
    if embeddings and has_embeddings_beside(target):
        _check_embeddings(target, overwrite=overwrite)
    if append and job and os.path.lexists(target):
        _check_working_directory(job, target)
    if overwrite or append:
        return
    if job is None and os.path.lexists(target):
        raise _not_this_table(target, "is there already, and not known to be of these files")
    if job and set(job.get(_INPUTS, inputs)) != set(inputs):
        raise _not_this_table(target, f"has the scores of {_short(', '.join(job[_INPUTS]))}")


@contextlib.contextmanager
def opened_job(
    target: Path,
    settings: dict[str, Any],
    labels: tuple[str, ...],
    *,
    inputs: Sequence[str] = (),
    relative_to: str = "",
    overwrite: bool = False,
    append: bool = False,
) -> Iterator[TableJob]:
    """The job of the table `target`, for this process alone.

    `inputs` is what the user named, `relative_to` the spool's. `overwrite` begins the table anew; `append`
    keeps the rows that it has.

    Raises ConfigError if another process writes this table, if it was begun with other settings, and what
    `check_job` raises.
    """
    folder = _folder(target)
    _check_folder(folder)
    folder.mkdir(exist_ok=True)
    with locked(folder / _LOCK, does="scores"):
        embeddings = settings.get(_EMBEDDING) is not None
        check_job(target, inputs, embeddings=embeddings, overwrite=overwrite, append=append)
        job = None if overwrite else _job(folder)
        if job and not append:
            _check_unchanged(job, target)
        if job is None:  # without job.json nobody knows what the parts are
            _empty(folder)
        else:
            _check_settings(job, target, settings)
        has_table, before = os.path.lexists(target), job or {}
        now = {_INPUTS: _known_inputs(job, inputs, append=append, had_table=has_table)}
        now[_RELATIVE_TO] = _folders(relative_to, *before.get(_RELATIVE_TO, ()) if has_table else ())
        now[_REPLACES] = [_UNKNOWN] if has_table and (overwrite or before.get(_REPLACES)) else []
        if (noted := _noted(job or settings, now)) != job:
            write_json(folder / _JOB, noted)
        _remove_unfinished(target)
        is_known = _UNKNOWN not in now[_INPUTS] + now[_REPLACES]
        yield TableJob(folder, labels, keeps_all=append, settings_of_kept=is_known)


def _noted(job: dict[str, Any], notes: dict[str, list[str]]) -> dict[str, Any]:
    """What job.json says with these notes; of what rrtn notes beside the inputs, nothing empty is written."""
    return {
        name: value
        for name, value in {**job, **notes}.items()
        if value or name not in notes or name == _INPUTS
    }


def settings_of_table(target: Path) -> dict[str, Any]:
    """The settings that the table was begun with; {} if it was not begun, or nobody knows how."""
    return _job_or_nothing(target)


def working_directories(target: Path) -> list[str]:
    """What relative names in the table are relative to; [] if nobody knows, or there are no such names.

    Two where a call that was to write the table anew was stopped.
    """
    return list(_job_or_nothing(target).get(_RELATIVE_TO, []))


def _folders(*names: str) -> list[str]:
    return sorted({name for name in names if name})


def _known_inputs(
    job: dict[str, Any] | None, inputs: Sequence[str], *, append: bool, had_table: bool
) -> list[str]:
    """What the table is made from, as job.json lists it."""
    before: Iterable[str] = ()
    if append:
        before = job.get(_INPUTS, ()) if job else [_UNKNOWN] * had_table
    return sorted({*before, *inputs})


def _folder(target: Path) -> Path:
    return target.parent / f".{target.name}.rrtn"


def _job(folder: Path) -> dict[str, Any] | None:
    """What job.json says; None where there is none. Raises ConfigError where it cannot be read."""
    path = folder / _JOB
    try:
        job = _in_todays_words(converted(parsed(read_regular(path)), dict[str, Any]))
        for name in _NO_SETTINGS:
            if not all(isinstance(one, str) for one in job.get(name, [])):
                raise TypeError(f"{name} are no texts")
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        raise ConfigError(
            str(path), str(error), wanted="what rrtn score writes", fix="begin anew with --overwrite"
        ) from error
    return job


def _check_folder(folder: Path) -> None:
    """Raises ConfigError for a folder that rrtn has not made: it must be neither followed nor emptied."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        came = "a link" if folder.is_symlink() else "no folder"
        raise ConfigError(str(folder), came, wanted="a folder that rrtn made", fix="remove it")
    names = {entry.name: entry.is_file(follow_symlinks=False) for entry in os.scandir(folder)}
    ours = {name for name in names if _is_ours(name)}
    if wrong := sorted(name for name in ours if not names[name]):
        raise ConfigError(
            str(folder / wrong[0]), "no regular file", wanted="a file that rrtn made", fix="remove it"
        )
    if _JOB not in names and (others := sorted(names.keys() - ours)):
        raise ConfigError(
            str(folder), f"holds {others[0]}", wanted="a folder that rrtn made", fix="move it elsewhere"
        )


def _is_ours(name: str) -> bool:
    return name in (_JOB, _LOCK) or name.endswith((".part", _SEEN, ".tmp"))


def _check_embeddings(target: Path, *, overwrite: bool) -> None:
    """Raises ConfigError where the embeddings beside are those of a table with another suffix."""
    beside = embedding_path(target)
    others = [target.with_suffix(suffix) for suffix in FORMATS if suffix != target.suffix.lower()]
    others = [other for other in others if has_embeddings_beside(other)]
    ours = _job_or_nothing(target).get(_EMBEDDING) is not None
    for other in others:
        begun = _job_or_nothing(other)
        if begun.get(_EMBEDDING) is not None or (other.exists() and beside.exists() and not ours):
            raise ConfigError(
                f"--out {target}",
                f"{beside.name} is for the embeddings of {other.name}",
                wanted="a name of its own",
                fix="choose another --out",
            )
    if beside.exists() and not ours and not overwrite and not target.exists():
        raise _not_this_table(target, f"{beside.name} is there already")


def _job_or_nothing(table: Path) -> dict[str, Any]:
    with contextlib.suppress(ConfigError, OSError):
        return _job(_folder(table)) or {}
    return {}


def _not_this_table(target: Path, came: str) -> ConfigError:
    return ConfigError(
        f"--out {target}",
        came,
        wanted="a table of the same AUDIO and --list, or none",
        fix="choose another --out; --append keeps its rows, --overwrite begins anew",
    )


def _check_unchanged(job: dict[str, Any], target: Path) -> None:
    """Raises ConfigError where the table is not as rrtn wrote it. To be asked under the lock."""
    if (known := job.get(_TABLES)) and target.exists() and sha256_of(target) not in known:
        raise ConfigError(
            f"--out {target}",
            "was changed since rrtn wrote it",
            wanted="the table as it was, or none",
            fix="move it away and run the command again: no file is scored twice",
        )


def _check_working_directory(job: dict[str, Any], target: Path) -> None:
    """Raises ConfigError where a relative name in the table is of another file than the same name now.

    A folder that is gone counts as moved to here.
    """
    before, now = [folder for folder in job.get(_RELATIVE_TO, []) if os.path.isdir(folder)], os.getcwd()
    if before and before != [now]:
        raise ConfigError(
            f"--append --out {target}",
            f"the names in it are relative to {' and '.join(before)}, and this is {now}",
            wanted="the same working directory",
            fix="run the command there" if len(before) == 1 else "choose another --out, or --overwrite",
        )


def _check_settings(job: dict[str, Any], target: Path, settings: dict[str, Any]) -> None:
    before = {name: value for name, value in job.items() if name not in _NO_SETTINGS}
    changes = [
        f"{name} {_short(before.get(name))}, now {_short(settings.get(name))}"
        for name in {**before, **settings}
        if before.get(name) != settings.get(name) and name not in (SCALES, F_MAX)
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
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:24]}..."


def _empty(folder: Path) -> None:
    """Removes what rrtn has put there, and nothing else."""
    for path in folder.iterdir():
        if path.name != _LOCK and _is_ours(path.name):
            path.unlink()


def _remove_unfinished(target: Path) -> None:
    """Removes what killed writers of the table, and of the embeddings beside it, have left."""
    for path in (target, embedding_path(target)):
        remove_left(path)


def _marks(inputs: Sequence[Input]) -> "npt.NDArray[np.uint64]":
    """[F, 2]: ctime and inode."""
    marks = [(found.ctime_ns % 2**64, found.inode) for found in inputs]
    return np.array(marks, np.uint64).reshape(-1, 2)


def _compared(inputs: Sequence[Input], hashes: Sequence[bytes]) -> list[bool | None]:
    """Whether each file has the content of this hash, up to the first that has not; None where unread."""
    packs = PackReader()
    one_by_one = any(isinstance(found.source, PackedFile) for found in inputs)  # they share `packs`
    pool = ThreadPoolExecutor(1 if one_by_one else usable_cpus(), thread_name_prefix="hash")
    try:
        now = pool.map(partial(_hash_now, packs), [found.source for found in inputs])
        compared: list[bool | None] = []
        for found, before in zip(now, hashes, strict=True):
            compared.append(None if found is None else found == before)
            if compared[-1] is False:
                break
        return compared
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
