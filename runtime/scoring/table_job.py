"""A table in the making. Each shard is scored once and its rows are kept, so a run that was stopped goes on.

Beside the table `scores.csv` lies the folder `.scores.csv.rrtn`. Its job.json says what the rows depend on:
model and settings. Each part holds the rows of one shard under the key of the shard. The table is put
together from the parts.
"""

import contextlib
import glob
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ..audio.input_spool import InputSpool, Shard
from ..errors import ConfigError, StoppedError
from ..failpoints import failpoint
from ..files import write_bytes, write_json
from ..locks import locked
from ..tables.embedding_file import embedding_path
from ..tables.rows import Row
from .part_file import rows_from_part

SCORING_RULES: Final = 2  # rises whenever the same file, model and settings can give another row
_JOB: Final = "job.json"


class TableJob:
    """The parts of a table in the making."""

    def __init__(self, folder: Path, labels: tuple[str, ...]) -> None:
        self._folder, self._labels = folder, labels
        self._parts = {path.name.partition("-")[0]: path for path in folder.glob("*.part")}

    def has(self, shard: Shard) -> bool:
        """True if the rows of the shard are there, and whole."""
        return self._content(shard) is not None

    def put(self, shard: Shard, content: bytes) -> None:
        """Keeps what `part_from_rows` gave for a shard, whole or not at all."""
        path = self._folder / _part_name(shard, content)
        write_bytes(path, content)
        self._parts[shard.key] = path
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
        wanted = {self._parts.get(shard.key) for shard in spool.shards}
        for path in (*self._folder.glob("*.part"), *self._folder.glob(".*.tmp")):
            if path not in wanted:
                path.unlink(missing_ok=True)

    def _content(self, shard: Shard) -> bytes | None:
        """The part of the shard; None if it is missing, broken, or the part of another shard."""
        path = self._parts.get(shard.key)
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except OSError:
            return None
        return content if path.name == _part_name(shard, content) else None


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
    text = "none" if value is None else str(value)
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


def _part_name(shard: Shard, content: bytes) -> str:
    """The key, and a hash that tells whether the content is whole and of this shard."""
    return f"{shard.key}-{hashlib.sha256(shard.key.encode() + content).hexdigest()[:32]}.part"
