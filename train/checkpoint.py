"""Checkpoints: safetensors files, and a JSON file that lists them with their hashes. There is no pickle.

    <folder>/checkpoint.json     the list of valid files; replaced atomically, after all others
    <folder>/previous.json       the list before, where two are kept (`last`)
    <folder>/weights-<step>-<epochs>.safetensors
                                 encoder, head, projector, and under `ruwl.` the weighting's tensors
    <folder>/optimizer-<step>-<epochs>.safetensors
                                 AdamW's moments and the sums of the epoch; only in `last`

New files have new names, so the JSON always points to whole files, even if a save is interrupted.
The step alone is not a new name: the last step of an epoch may be saved before its validation, and
again after it.
"""

import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from msgspec import Meta
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..runtime.bundle import label_problem
from ..runtime.documents import Count, Sha256, check_digest, converted, parsed, with_digest
from ..runtime.errors import ConfigError, ModelError, StoppedError
from ..runtime.system.failpoints import failpoint
from ..runtime.system.files import atomic_path, read_regular, sha256_of, write_bytes, write_json
from ..runtime.text import short
from .host_copy import Tensors
from .method.tasks import Metric

POINTER: Final = "checkpoint.json"
PREVIOUS: Final = "previous.json"
SCHEMA: Final = 2
LABELS_SCHEMA: Final = 3  # where there are scales, classes or a task
# May be removed. The last are files that safetensors was writing.
_OURS: Final = re.compile(r"[a-z]+-\d{8,}-\d{4,}\.safetensors|previous\.json|\..*\.tmp|\.tmp[0-9A-Za-z]{6}")
_WEIGHTING: Final = "ruwl."  # in front of the tensors of the weighting, whichever it is


class Record(TypedDict):
    """One epoch, as in history.jsonl. A method has values for its own losses alone."""

    epoch: Count
    step: Count
    loss: NotRequired[float]
    val_ccc: NotRequired[float]
    val_ccc_per_target: NotRequired[dict[str, float]]
    val_uar: NotRequired[float]
    val_uar_per_target: NotRequired[dict[str, float]]
    val_metric: NotRequired[Literal["uar", "ccc_uar", "s_mtl"]]
    val_score: NotRequired[float]
    l_ce: NotRequired[float | None]
    l_ccc: NotRequired[float | None]
    l_ccc_a: NotRequired[float | None]
    l_bt: NotRequired[float | None]
    grad_norm: NotRequired[float | None]
    weights: NotRequired[list[float] | None]
    lr: NotRequired[float | None]


class _File(TypedDict):
    file: Annotated[str, Meta(pattern=r"^[\w-]{1,200}\.safetensors$")]
    sha256: Sha256


class _Checkpoint(TypedDict):
    epoch: Count
    step: Count
    history: list[Record]
    labels: list[str]
    config: dict[str, Any]
    data_sha256: str
    versions: dict[str, str]
    files: dict[str, _File]
    digest: NotRequired[Sha256]  # of all else; one without it is read, too


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What checkpoint.json says of a run, beside the list of files."""

    epoch: int  # epochs done, with their validation
    step: int  # optimiser steps done
    history: list[dict[str, Any]]  # one record an epoch, as in history.jsonl
    labels: list[str]
    config: dict[str, Any]  # the whole Config
    data_sha256: str  # of the decoded clips and their ratings
    versions: dict[str, str]

    @property
    def ccc(self) -> float | None:
        """Mean validation CCC of the last epoch that is done (challenge metric); None without rated targets.

        Raises IndexError before the first epoch is done.
        """
        ccc = self.history[-1].get("val_ccc")
        return None if ccc is None else float(ccc)

    @property
    def per_target(self) -> dict[str, float]:
        """Validation CCC of each rated target."""
        return dict(self.history[-1].get("val_ccc_per_target", {}))

    @property
    def score(self) -> float:
        """What chooses the best epoch."""
        return score_of(self.history[-1])

    @property
    def metric(self) -> Metric:
        """Which metric that is."""
        return metric_of_record(self.history[-1])


def score_of(record: Mapping[str, Any]) -> float:
    """What chooses the best epoch: of rated targets alone the mean validation CCC."""
    return float(record["val_score"] if "val_score" in record else record["val_ccc"])


def metric_of_record(record: Mapping[str, Any]) -> Metric:
    """Which metric that is."""
    metric: Metric = record.get("val_metric", "ccc")
    return metric


def save_checkpoint(
    folder: Path, info: CheckpointInfo, tensors: Mapping[str, Tensors], *, keep_previous: bool = False
) -> None:
    """Writes a checkpoint; `tensors` {"weights": {...}, "optimizer": {...}} become one file each.

    Then every other file of a checkpoint is removed; `keep_previous` spares those of the checkpoint before.
    Raises StoppedError if the storage refuses a file; the checkpoint before is then still valid. Raises
    ConfigError where the folder is a link.
    """
    check_no_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for kind, content in tensors.items():
        path = folder / f"{kind}-{info.step:08d}-{info.epoch:04d}.safetensors"
        _write_tensors(path, content)
        files[kind] = {"file": path.name, "sha256": sha256_of(path), "size": path.stat().st_size}
    if keep_previous and (folder / POINTER).exists():
        write_bytes(folder / PREVIOUS, (folder / POINTER).read_bytes())
    document = {"schema": _schema_of(info.config), **asdict(info), "files": files}
    write_json(folder / POINTER, with_digest(document))
    _prune(folder, {POINTER, PREVIOUS} if keep_previous else {POINTER})


def check_no_link(folder: Path) -> None:
    """Raises ConfigError where the folder of checkpoints is a link: files are removed there."""
    for place in (folder.parent, folder):
        if place.is_symlink():
            raise ConfigError(str(place), "a link", wanted="a folder of the run's own", fix="remove the link")


def joined_weights(network: Mapping[str, Tensor], weighting: Mapping[str, Tensor]) -> Tensors:
    """Two state dicts -> the content of one weights file."""
    return {**network, **{_WEIGHTING + name: tensor for name, tensor in weighting.items()}}


def split_weights(weights: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
    """The content of a weights file -> the state dicts of the network and of the weighting."""
    network = {name: tensor for name, tensor in weights.items() if not name.startswith(_WEIGHTING)}
    weighting = {name.removeprefix(_WEIGHTING): weights[name] for name in weights.keys() - network.keys()}
    return network, weighting


def read_info(folder: Path) -> CheckpointInfo:
    """Reads checkpoint.json alone. Raises ModelError if there is no checkpoint of rrtn."""
    return _info(_document(folder / POINTER))


def load_checkpoint(
    folder: Path, *kinds: str, pointer: str = POINTER
) -> tuple[CheckpointInfo, dict[str, Tensors]]:
    """Reads the JSON and the given kinds of tensors, on the CPU. Raises ModelError if a hash differs.

    A training may replace the checkpoint, and remove its files, meanwhile: then the new one is read.
    """
    path = folder / pointer
    while True:
        document = _document(path)
        try:
            return _info(document), {kind: _load_checked(path, document["files"], kind) for kind in kinds}
        except (ModelError, FileNotFoundError):
            if _document(path) == document:
                raise


class Saver:
    """Saves in a thread while training goes on: one job at a time, in order.

    The next call raises what a job raised.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self.wait()

    def submit(self, job: Callable[[], None]) -> None:
        """Starts a job once the one before is done: memory holds two copies of the weights at most."""
        self.wait()
        self._pending = self._pool.submit(job)

    def wait(self) -> None:
        """Returns when everything is on the disk. Raises what the last job raised."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()


def _write_tensors(path: Path, content: Tensors) -> None:
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in content.items()}
    try:
        with atomic_path(path) as temporary:
            mode = temporary.stat().st_mode
            save_file(tensors, temporary)
            temporary.chmod(mode)  # safetensors makes a file that the owner alone may read
    except (OSError, SafetensorError) as error:
        size = sum(tensor.nbytes for tensor in tensors.values())
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        whole = "; the checkpoint before is whole" if (path.parent / POINTER).exists() else ""
        raise StoppedError(
            str(path),
            str(reason),
            wanted=f"room for {size:,} bytes",
            fix=f"make room and continue with --resume{whole}",
        ) from error


def _prune(folder: Path, pointers: set[str]) -> None:
    """Removes the files that no JSON lists: those of older checkpoints and of a save that was killed."""
    current = set(pointers)
    for name in pointers & {path.name for path in folder.iterdir()}:
        current |= {entry["file"] for entry in _document(folder / name)["files"].values()}
    for old in folder.iterdir():
        if old.name not in current and _OURS.fullmatch(old.name):
            failpoint("checkpoint.prune")
            old.unlink()


def _document(path: Path) -> dict[str, Any]:
    """The checked content of a pointer. Raises ModelError."""
    try:
        content = read_regular(path)
    except OSError as error:
        came = error.strerror or str(error)
        raise ModelError(str(path), came, wanted="a checkpoint of rrtn train", fix="rrtn train") from error
    try:
        document = parsed(content)
        found = document.get("schema") if isinstance(document, dict) else None
        if type(found) is int and found in (SCHEMA, LABELS_SCHEMA):
            _check(converted(document, _Checkpoint))
            check_digest(document)
    except ValueError as error:
        raise ModelError(
            str(path), str(error), wanted="what rrtn train wrote", fix="restore the file, or train again"
        ) from error
    if type(found) is not int or found not in (SCHEMA, LABELS_SCHEMA):
        raise ModelError(
            str(path),
            f"schema {short(found)}",
            wanted=f"schema {SCHEMA} or {LABELS_SCHEMA}, which this rrtn reads",
            fix="use the rrtn that wrote it",
        )
    assert isinstance(document, dict)
    return document


def _check(checkpoint: _Checkpoint) -> None:
    """Raises ValueError where two fields contradict each other."""
    history, labels = checkpoint["history"], checkpoint["labels"]
    if problem := label_problem(labels):
        raise ValueError(problem)
    if len(history) != checkpoint["epoch"]:
        raise ValueError(f"epoch {checkpoint['epoch']}, and a history of {len(history)} epochs")
    for kind, entry in checkpoint["files"].items():
        if not entry["file"].startswith(f"{kind}-"):
            raise ValueError(f"{entry['file']} in the place of {kind}")
    for number, record in enumerate(history, start=1):
        if record["epoch"] != number:
            raise ValueError(f"epoch {record['epoch']} in the place of epoch {number}")
        if set(record.get("val_ccc_per_target", {})) != set(labels) - _classes(checkpoint["config"]):
            raise ValueError(f"epoch {number} has other targets than the labels {short(labels)}")
        if not {"val_ccc", "val_score"} & set(record):
            raise ValueError(f"epoch {number} has no val_ccc")


def _classes(config: Mapping[str, Any]) -> set[str]:
    """The labels that are classes, if the settings say so."""
    data = config.get("data")
    named = data.get("classes") if isinstance(data, dict) else None
    return {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()


def _schema_of(config: Mapping[str, Any]) -> int:
    """The settings of labels are written where they are used alone."""
    is_new = {"scale", "class_targets", "task"} & set(config.get("data", {}))
    return LABELS_SCHEMA if is_new else SCHEMA


def _info(document: dict[str, Any]) -> CheckpointInfo:
    return CheckpointInfo(**{name: document[name] for name in CheckpointInfo.__dataclass_fields__})


def _load_checked(pointer: Path, files: dict[str, Any], kind: str) -> Tensors:
    if kind not in files:
        raise ModelError(
            str(pointer), f"lists no {kind}, only {', '.join(files)}", fix="use checkpoints/last"
        )
    path = pointer.parent / files[kind]["file"]
    expected = files[kind]["sha256"]
    came = f"sha256 {sha256_of(path)}" if path.is_file() else "not there"
    if came != f"sha256 {expected}":
        raise ModelError(
            str(path),
            came[: len("sha256 ") + 12],
            wanted=f"{expected[:12]}, as {pointer.name} lists it",
            fix="the file was changed: use another checkpoint",
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(str(path), str(error), wanted="safetensors", fix="use another checkpoint") from error
