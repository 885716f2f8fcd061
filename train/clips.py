"""Each file decoded once: a cache of 16 kHz int16 waveforms, memory-mapped, content-addressed, resumable.

The cache is cut into shards of files that follow each other. A shard's name is a hash of everything that its samples
depend on (the decoder, the spec, each file's path, size and time), so a changed file or setting makes another shard, and a
decoding that was interrupted goes on with the shards that are missing. B batch, N samples.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..runtime.audio import Int16, read_audio
from ..runtime.cpus import usable_cpus
from ..runtime.errors import AudioError, DataError
from ..runtime.files import atomic_path, write_json
from ..runtime.progress import Progress
from ..runtime.spec import FrontendSpec

Int64 = npt.NDArray[np.int64]
_DECODER: Final = "mean-soxrHQ-level-int16/1"  # changes whenever runtime.audio would give other samples
_SHARD_FILES: Final = 512
_SHOWN: Final = 3


class Shard(NamedTuple):
    """Files that follow each other."""

    samples: Int16  # memory-mapped
    offsets: Int64  # where each file begins, and the end
    sha256: str  # of the samples


class ClipStore:
    """The decoded waveforms of a list of files, in its order."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self.lengths: Int64 = np.concatenate([np.diff(shard.offsets) for shard in shards])  # [n] samples

    @property
    def shards(self) -> list[Int16]:
        """The samples of all files, one behind the other, in pieces."""
        return [shard.samples for shard in self._shards]

    @property
    def digest(self) -> str:
        """A hash of all samples and of where the files begin: equal content, wherever it lies and however old it is."""
        parts = [self.lengths.tobytes(), *(shard.sha256.encode() for shard in self._shards)]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def __len__(self) -> int:
        return len(self.lengths)

    def waveform(self, index: int) -> Int16:
        """[N], a view of the mapped file."""
        shard, row = divmod(index, _SHARD_FILES)
        begin, end = self._shards[shard].offsets[row : row + 2]
        return self._shards[shard].samples[begin:end]

    def clips(self, indices: Int64, starts: Int64, spec: FrontendSpec) -> Int16:
        """The clips [B, clip_samples] that begin at `starts` [B]; zeros follow where a recording is too short."""
        batch = np.zeros((len(indices), spec.clip_samples), dtype=np.int16)
        for row, index, start in zip(batch, indices, starts, strict=True):
            part = self.waveform(int(index))[start : start + spec.clip_samples]
            row[: len(part)] = part
        return batch


def clip_store(paths: Sequence[Path], spec: FrontendSpec, *, label: str = "decode") -> ClipStore:
    """Decodes what the cache lacks. Raises DataError naming the files that cannot be decoded."""
    folder = cache_folder() / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    groups = [paths[i : i + _SHARD_FILES] for i in range(0, len(paths), _SHARD_FILES)]
    files = [folder / f"{_fingerprint(group, spec)}.npy" for group in groups]
    todo = [
        (group, file) for group, file in zip(groups, files, strict=True) if not (_index_file(file).exists() and file.exists())
    ]
    total = sum(len(group) for group, _ in todo)
    with Progress(label, total, "files") as progress:
        bad = [line for group, file in todo for line in _decode_shard(group, file, spec, progress)]
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise DataError(f"{len(bad)} of {len(paths)} files cannot be decoded | {'; '.join(bad[:_SHOWN])}{more}")
    return ClipStore([_map_shard(file) for file in files])


def cache_folder() -> Path:
    """$RRTN_CACHE, else the user's cache folder, else one below the system's temporary folder."""
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
    key = json.dumps([_DECODER, spec.sampling_rate, spec.peak_dbfs, stats])
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _decode_shard(paths: Sequence[Path], target: Path, spec: FrontendSpec, progress: Progress) -> list[str]:
    """Writes the shard where every file can be decoded; -> one line for each that cannot."""
    waveforms: list[Int16] = []
    bad = []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for path, result in zip(paths, pool.map(lambda path: _decoded(path, spec), paths), strict=True):
            progress.advance()
            if isinstance(result, AudioError):
                bad.append(f"{path.name}: {result}")
            else:
                waveforms.append(result)
    if not bad:
        samples = np.concatenate(waveforms)
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            np.save(file, samples)
        sha256 = hashlib.sha256(samples.tobytes()).hexdigest()
        write_json(_index_file(target), {"lengths": [len(waveform) for waveform in waveforms], "sha256": sha256})
    return bad


def _decoded(path: Path, spec: FrontendSpec) -> Int16 | AudioError:
    try:
        return read_audio(path, spec).samples
    except AudioError as error:
        return error


def _index_file(shard: Path) -> Path:
    """Written last: the shard is there when this file is."""
    return shard.with_suffix(".json")


def _map_shard(file: Path) -> Shard:
    index = json.loads(_index_file(file).read_bytes())
    return Shard(np.load(file, mmap_mode="r"), np.cumsum([0, *index["lengths"]], dtype=np.int64), index["sha256"])
