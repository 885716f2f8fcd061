"""What `rrtn tune` has found about a bundle on this machine, kept in the user's cache.

The file's name is made of the hashes of the bundle's files and of what the machine is. Versions of the
runtimes stand inside: where they have changed, the file is ignored with a remark.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypedDict

from ..bundle import Bundle
from ..documents import Count, Name, converted, parsed
from ..errors import ConfigError
from ..system.cache import cache_folder
from ..system.cpus import cpu_kind, usable_cpus
from ..system.files import check_takes_files, read_regular, remove_abandoned, write_json, write_refused
from ..system.packages import installed_version
from .cuda_driver import driver_cuda, gpu_names
from .engine_stamp import TENSORRT_PACKAGES, driver_version

SCHEMA: Final = 1
Use = Literal["folders", "clips"]
MOST_LANES: Final = 1 << 12  # batches at once; of clips in a tuned batch and of threads there are no more
_FOLDER: Final = "tuning"
_AGAIN: Final = "run: rrtn tune"
_RUNTIMES: Final = (
    *("onnxruntime-gpu", "onnxruntime", "openvino", "mnn"),
    *(name for names in TENSORRT_PACKAGES.values() for name in names),
)


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to run a bundle, and how fast it was."""

    variant: Name
    backend: Name
    batch_size: Count  # clips
    lanes: Count  # batches at once
    threads: Count  # of each batch
    milliseconds: float  # of a batch, in the best round
    clips_per_second: float  # of all lanes, in the best round
    spread: float  # between the rounds, as a share of the best

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


class _Document(TypedDict):
    schema: Literal[1]
    bundle: str
    made: str
    allowed: list[Name]
    machine: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, str]
    folders: dict[str, Any]
    clips: dict[str, Any]
    measured: list[dict[str, Any]]
    not_taken: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What was measured for a bundle on a machine."""

    bundle: str  # its folder when it was measured
    made: str  # the time, ISO 8601
    allowed: tuple[str, ...]  # precisions that `auto` may take on a CPU
    folders: Way  # the highest throughput
    clips: Way  # the least time of a single clip
    measured: tuple[dict[str, Any], ...]  # every way, with the use that it was measured for
    not_taken: dict[str, str]  # a way -> why it was not measured

    def to_dict(self) -> dict[str, Any]:
        """For --json, and for the file."""
        return asdict(self)

    @property
    def summary(self) -> str:
        """On one line, for people."""
        folders, clips = self.folders, self.clips
        size = f"{folders.lanes} x {folders.batch_size}"
        return (
            f"{folders.variant} on {folders.backend}, {size}, {folders.clips_per_second:.1f} clips/s; "
            f"single clips: {clips.variant} on {clips.backend}, {clips.milliseconds:.1f} ms"
        )


class Found(NamedTuple):
    """The tuning that applies here; or None, with a remark where one was ignored."""

    tuning: Tuning | None = None
    remark: str = ""


def tuning_path(bundle: Bundle) -> Path:
    """Where the tuning of this bundle on this machine is kept. Raises ConfigError without a cache folder."""
    key = json.dumps([_files(bundle), machine_key()], sort_keys=True)
    return cache_folder() / _FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def machine_key() -> dict[str, Any]:
    """What makes this machine another one: processor, cores that may be used, GPUs and their driver.

    Where the system does not tell the driver's version (WSL2, sandboxes), the driver's newest CUDA does.
    """
    driver = driver_version() or ((cuda := driver_cuda()) and f"of CUDA {cuda}")
    gpus = ", ".join(gpu_names() or ())
    return {**cpu_kind(), "cores": usable_cpus(), "driver": driver, **({"gpus": gpus} if gpus else {})}


def runtime_versions() -> dict[str, str]:
    """Package -> version, of the runtimes that are installed."""
    found = {name: installed_version(name) for name in _RUNTIMES}
    return {name: version for name, version in found.items() if version}


def check_can_be_kept(bundle: Bundle) -> None:
    """Called before the work begins. Raises StoppedError where the cache folder takes no file."""
    path = tuning_path(bundle)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_takes_files(path.parent)
    except OSError as error:
        raise write_refused(path, error) from error


def keep_tuning(bundle: Bundle, tuning: Tuning) -> Path:
    """Writes the file, in the place of an earlier one; -> where it is.

    Raises StoppedError for a full disk.
    """
    path = tuning_path(bundle)
    document = {
        "schema": SCHEMA,
        **tuning.to_dict(),
        "machine": machine_key(),
        "versions": runtime_versions(),
        "files": _files(bundle),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path)
        write_json(path, document)
    except OSError as error:
        raise write_refused(path, error) from error
    return path


def tuning_of(bundle: Bundle) -> Found:
    """The tuning of this bundle on this machine. What cannot be used is a remark and never an error."""
    try:
        path = tuning_path(bundle)
        content = read_regular(path)
    except FileNotFoundError:
        return Found(remark=_remark_on_others(bundle))
    except (OSError, ConfigError, ValueError):
        return Found()
    try:
        document = parsed(content)
        form = converted(document, _Document)
        if reason := _changed(bundle, form):
            return Found(remark=_ignored(reason))
        return Found(_tuning(bundle, form))
    except ValueError as error:
        return Found(remark=_ignored(f"{path}: {error}"))


def newest_tuning() -> Tuning | None:
    """The last one that applies on this machine, of whatever bundle; None where there is none."""
    here = machine_key(), runtime_versions()
    for form in _kept_documents():
        with contextlib.suppress(ValueError):
            if (form["machine"], form["versions"]) == here:
                return _tuning(None, form)
    return None


def _remark_on_others(bundle: Bundle) -> str:
    """On what was found in the same folder with other files, or on another machine; "" without that.

    A single ONNX file has no folder of its own: others may lie beside it.
    """
    if len(bundle.variants) == 1:
        return ""
    folder = str(bundle.path.absolute())
    same = (form for form in _kept_documents() if form["bundle"] == folder and len(form["files"]) > 1)
    form = next(same, None)
    return _ignored(reason) if form and (reason := _changed(bundle, form)) else ""


def _kept_documents() -> Iterator[_Document]:
    """All that can be read, the newest first."""
    try:
        files = sorted((cache_folder() / _FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime)
    except (OSError, ConfigError):
        return
    for path in reversed(files):
        with contextlib.suppress(OSError, ValueError):
            yield converted(parsed(read_regular(path)), _Document)


def _ignored(reason: str) -> str:
    return f"the tuning is ignored: {reason}; {_AGAIN}"


def _files(bundle: Bundle) -> dict[str, str]:
    return {variant.name: variant.sha256 for variant in bundle.variants}


def _changed(bundle: Bundle, form: _Document) -> str:
    """What differs from the machine and the bundle that were measured; "" where nothing does."""
    if form["files"] != _files(bundle):
        return "the bundle has other files now"
    for before, now in ((form["machine"], machine_key()), (form["versions"], runtime_versions())):
        if reason := _difference(before, now):
            return reason
    return ""


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            return f"{name} was {before.get(name) or 'not there'}, is {now.get(name) or 'not there'}"
    return ""


def _tuning(bundle: Bundle | None, form: _Document) -> Tuning:
    return Tuning(
        bundle=form["bundle"],
        made=form["made"],
        allowed=tuple(form["allowed"]),
        folders=_way(bundle, form["folders"]),
        clips=_way(bundle, form["clips"]),
        measured=tuple(form["measured"]),
        not_taken=form["not_taken"],
    )


def _way(bundle: Bundle | None, fields: dict[str, Any]) -> Way:
    """Raises ValueError for a way that the bundle has no file for, or that no backend could go."""
    way = converted(fields, Way)
    if bundle and bundle.variant(way.variant) is None:
        raise ValueError(f"no variant {way.variant!r} in the bundle")
    if not all(1 <= count <= MOST_LANES for count in (way.batch_size, way.lanes, way.threads)):
        raise ValueError(f"{way.lanes} x {way.batch_size} clips with {way.threads} threads each")
    return way
