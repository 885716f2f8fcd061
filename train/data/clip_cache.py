"""A cache of decoded clips: each file becomes 16 kHz int16 once, and is memory-mapped from then on.

The cache is cut into shards of consecutive files. The name of a shard is a hash of everything that
its samples depend on: the decoder, the spec, and the path, size and time of each file. A changed
file or setting therefore makes a new shard, and an interrupted decoding continues with the shards
that are missing. A file that cannot be decoded has no samples in its shard; the next call tries to
decode it again. n files, B batch, N samples.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...runtime.arrays import Int16, Int64
from ...runtime.audio.reader import read_audio
from ...runtime.cpus import usable_cpus
from ...runtime.errors import AudioError, DataError, counted
from ...runtime.files import atomic_path, write_json
from ...runtime.progress import Progress
from ...runtime.spec import FrontendSpec
from .levels import LevelMeter

# change this whenever runtime.audio gives other samples, or the index gets other fields
_DECODER: Final = "mean-soxrHQ-level-int16/2"
_SHARD_FILES: Final = 512
_SHOWN: Final = 3


class CacheShard(NamedTuple):
    """Consecutive files of a list."""

    samples: Int16  # memory-mapped
    offsets: Int64  # where each file begins, and the end
    sha256: str  # of the samples
    peaks: list[float]  # of the files' own samples; full scale is 1
    flat_tops: list[int]  # see levels.py
    errors: list[str]  # "code: what is wrong" of a file that cannot be decoded, else ""

    @classmethod
    def in_memory(cls, samples: Int16, offsets: Int64) -> "CacheShard":
        """Samples that have no file; their levels are unknown."""
        count = len(offsets) - 1
        return cls(
            samples, offsets, sha256="", peaks=[0.0] * count, flat_tops=[0] * count, errors=[""] * count
        )


class ClipStore:
    """The decoded waveforms of a list of files, in its order."""

    def __init__(self, shards: Sequence[CacheShard]) -> None:
        self._shards = shards
        self.lengths: Int64 = np.concatenate([np.diff(shard.offsets) for shard in shards])  # [n] samples
        self.peaks = np.concatenate([shard.peaks for shard in shards])  # [n]
        self.flat_tops = np.concatenate([shard.flat_tops for shard in shards])  # [n]
        self.errors = [error for shard in shards for error in shard.errors]  # [n]

    @property
    def shards(self) -> list[Int16]:
        """The samples of all files, one after the other, in pieces."""
        return [shard.samples for shard in self._shards]

    @property
    def digest(self) -> str:
        """A hash of all samples and of where each file begins.

        The same content has the same hash, wherever the files are and however old they are.
        """
        parts = [self.lengths.tobytes(), *(shard.sha256.encode() for shard in self._shards)]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    @cached_property
    def silent(self) -> npt.NDArray[np.bool_]:
        """[n] True for a decoded clip whose samples are all zero. Reads all samples, once."""
        return np.array([not error and not self.waveform(i).any() for i, error in enumerate(self.errors)])

    def __len__(self) -> int:
        return len(self.lengths)

    def waveform(self, index: int) -> Int16:
        """[N], a view of the mapped file."""
        shard, row = divmod(index, _SHARD_FILES)
        begin, end = self._shards[shard].offsets[row : row + 2]
        return self._shards[shard].samples[begin:end]

    def clips(self, indices: Int64, starts: Int64, spec: FrontendSpec) -> Int16:
        """[B, clip_samples]: the clips that begin at `starts` [B].

        Zeros follow where a recording is too short.
        """
        batch = np.zeros((len(indices), spec.clip_samples), dtype=np.int16)
        for row, index, start in zip(batch, indices, starts, strict=True):
            part = self.waveform(int(index))[start : start + spec.clip_samples]
            row[: len(part)] = part
        return batch


def clip_store(paths: Sequence[Path], spec: FrontendSpec, *, label: str = "decode") -> ClipStore:
    """Decodes the files that the cache lacks; -> all of them.

    Raises DataError, with the names of the files that cannot be decoded.
    """
    store = store_with_errors(paths, spec, label=label)
    if bad := [f"{path.name}: {error}" for path, error in zip(paths, store.errors, strict=True) if error]:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise DataError(
            f"{len(bad)} of {counted(len(paths), 'file')} cannot be decoded",
            f"{'; '.join(bad[:_SHOWN])}{more}",
            fix="repair these files or remove their rows from the CSV; rrtn data check DIR --json "
            "names all of them",
        )
    return store


def store_with_errors(paths: Sequence[Path], spec: FrontendSpec, *, label: str) -> ClipStore:
    """The same, but a file that cannot be decoded is kept, with its error and without samples."""
    folder = cache_folder() / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    groups = [paths[i : i + _SHARD_FILES] for i in range(0, len(paths), _SHARD_FILES)]
    files = [folder / f"{_fingerprint(group, spec)}.npy" for group in groups]
    todo = [(group, file) for group, file in zip(groups, files, strict=True) if not _is_good(file)]
    with Progress(label, sum(len(group) for group, _ in todo), "files") as progress:
        for group, file in todo:
            _decode_shard(group, file, spec, progress)
    return ClipStore([_map_shard(file) for file in files])


def cache_folder() -> Path:
    """$RRTN_CACHE, else the user's cache folder, else one in the system's temporary folder."""
    if chosen := os.environ.get("RRTN_CACHE"):
        return Path(chosen)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rrtn"
    try:
        base.mkdir(parents=True, exist_ok=True)
        return base
    except OSError:
        return Path(tempfile.gettempdir()) / "rrtn-cache"


def _fingerprint(paths: Sequence[Path], spec: FrontendSpec) -> str:
    stats = [(str(path.resolve()), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]
    trim = ["trim"] if spec.trim else []
    key = json.dumps([_DECODER, spec.sampling_rate, spec.peak_dbfs, *trim, stats])
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _decode_shard(paths: Sequence[Path], target: Path, spec: FrontendSpec, progress: Progress) -> None:
    files = []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for decoded in pool.map(lambda path: _decoded(path, spec), paths):
            progress.advance()
            files.append(decoded)
    samples = np.concatenate([file.samples for file in files])
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        np.save(file, samples)
    index = {
        "lengths": [len(file.samples) for file in files],
        "sha256": hashlib.sha256(samples.tobytes()).hexdigest(),
        "peaks": [file.peak for file in files],
        "flat_tops": [file.flat_tops for file in files],
        "errors": [file.error for file in files],
    }
    write_json(_index_file(target), index)


class _Decoded(NamedTuple):
    samples: Int16
    peak: float
    flat_tops: int
    error: str = ""


def _decoded(path: Path, spec: FrontendSpec) -> _Decoded:
    meter = LevelMeter()
    try:
        samples = read_audio(path, spec, meter=meter).samples
    except AudioError as error:
        return _Decoded(np.zeros(0, dtype=np.int16), 0.0, 0, str(error))
    return _Decoded(samples, meter.peak, meter.flat_tops)


def _index_file(shard: Path) -> Path:
    """The index is written last: a shard without one is not complete."""
    return shard.with_suffix(".json")


def _is_good(shard: Path) -> bool:
    """True for a complete shard without errors: a file with an error may be readable by now."""
    index = _index_file(shard)
    return shard.exists() and index.exists() and not any(json.loads(index.read_bytes())["errors"])


def _map_shard(file: Path) -> CacheShard:
    index = json.loads(_index_file(file).read_bytes())
    offsets = np.cumsum([0, *index.pop("lengths")], dtype=np.int64)
    return CacheShard(np.load(file, mmap_mode="r"), offsets, **index)
