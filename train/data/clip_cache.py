"""A cache of decoded clips: each file becomes 16 kHz int16 once, and is memory-mapped from then on.

The cache is cut into shards of consecutive files. The name of a shard is a hash of everything that
its samples depend on: the decoder, the spec, and the path, size and time of each file. A changed
file or setting therefore makes a new shard, and an interrupted decoding continues with the shards
that are missing. A file that cannot be decoded has no samples in its shard; the next call tries to
decode it again. n files, B batch, N samples.

A file with the size and time of before may hold another sound. The index of a shard therefore has the
ctime, the inode and the hash of each file; where ctime or inode differ, the hash decides. Disks lose
bits, so the samples are compared with their own hash, too: training does it in the background, and all
others before they read. A shard that is broken in any way is made anew.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...runtime.arrays import Int16, Int64
from ...runtime.audio.av_reader import second_reader
from ...runtime.audio.reader import opened, read_audio
from ...runtime.audio.sources import content_hash
from ...runtime.documents import check_digest, parsed, with_digest
from ...runtime.errors import AudioError, ConfigError, DataError, StoppedError
from ...runtime.progress import Progress
from ...runtime.spec import FrontendSpec
from ...runtime.system.cache import cache_folder
from ...runtime.system.cpus import usable_cpus
from ...runtime.system.descriptors import quiet_codecs
from ...runtime.system.files import atomic_path, name_refused, remove_left, write_json
from ...runtime.system.locks import in_turn
from ...runtime.text import counted, first_of
from .levels import LevelMeter

# change this whenever runtime.audio gives other samples, or the index gets other fields
_DECODER: Final = "mixdown-soxrHQ-level-int16/4"
_SHARD_FILES: Final = 512
_NO_CHANNEL: Final = "no_channel"  # of ERROR_CODES


class CacheShard(NamedTuple):
    """Consecutive files of a list."""

    samples: Int16  # memory-mapped
    offsets: Int64  # where each file begins, and the end
    sha256: str  # of the samples
    peaks: list[float]  # of the files' own samples; full scale is 1
    flat_tops: list[int]  # see levels.py
    errors: list[str]  # "code: what is wrong" of a file that cannot be decoded, else ""
    codes: list[str]  # that code alone
    file: Path | None = None

    @classmethod
    def in_memory(cls, samples: Int16, offsets: Int64) -> "CacheShard":
        """Samples that have no file; their levels are unknown."""
        count = len(offsets) - 1
        none = [""] * count
        return cls(
            samples, offsets, sha256="", peaks=[0.0] * count, flat_tops=[0] * count, errors=none, codes=none
        )


class ClipStore:
    """The decoded waveforms of a list of files, in its order; or of some of them."""

    def __init__(self, shards: Sequence[CacheShard], rows: Int64 | None = None) -> None:
        """`rows` [n] are those of the files that it has, among all files of the shards."""
        self._shards, self._is_whole = shards, rows is None
        files = sum(len(shard.errors) for shard in shards)
        self._rows: Int64 = np.arange(files) if rows is None else rows
        self.lengths: Int64 = np.concatenate([np.diff(shard.offsets) for shard in shards])[self._rows]  # [n]
        self.peaks = np.concatenate([shard.peaks for shard in shards])[self._rows]  # [n]
        self.flat_tops = np.concatenate([shard.flat_tops for shard in shards])[self._rows]  # [n]
        errors = [both for shard in shards for both in zip(shard.errors, shard.codes, strict=True)]
        self.errors = [errors[row][0] for row in self._rows]  # [n]
        self.codes = [errors[row][1] for row in self._rows]  # [n]

    def part(self, rows: Int64) -> "ClipStore":
        """Some of the files, by their numbers; what is decoded is shared."""
        return ClipStore(self._shards, self._rows[rows])

    @property
    def parts(self) -> tuple[CacheShard, ...]:
        """What the store is put together from."""
        return tuple(self._shards)

    @property
    def shards(self) -> list[Int16]:
        """The samples of all files, one after the other, in pieces."""
        if self._is_whole:
            return [shard.samples for shard in self._shards]
        return [self.waveform(index) for index in range(len(self))]

    @property
    def digest(self) -> str:
        """A hash of all samples and of where each file begins.

        The same content has the same hash, wherever the files are, however old they are, and whether they
        were decoded together with others. Of some of the files it reads all samples.
        """
        hashes = [shard.sha256 for shard in self._shards] if self._is_whole else self._hashes()
        return hashlib.sha256(b"".join([self.lengths.tobytes(), *map(str.encode, hashes)])).hexdigest()

    def _hashes(self) -> Iterator[str]:
        """Hashes of the samples of each so many files, as if these were a shard."""
        for begin in range(0, len(self), _SHARD_FILES):
            sha256 = hashlib.sha256()
            for index in range(begin, min(begin + _SHARD_FILES, len(self))):
                sha256.update(self.waveform(index).data)
            yield sha256.hexdigest()

    @cached_property
    def silent(self) -> npt.NDArray[np.bool_]:
        """[n] True for a decoded clip whose samples are all zero. Reads all samples, once."""
        return np.array([not error and not self.waveform(i).any() for i, error in enumerate(self.errors)])

    def __len__(self) -> int:
        return len(self.lengths)

    def waveform(self, index: int) -> Int16:
        """[N], a view of the mapped file."""
        shard, row = divmod(int(self._rows[index]), _SHARD_FILES)
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


class SampleCheck:
    """Compares the samples of stores with their hashes, in a thread, as fast as the disk gives them."""

    def __init__(self, stores: Iterable[ClipStore]) -> None:
        self._shards = {shard.file: shard for store in stores for shard in store.parts}.values()
        self._left = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="check")
        self._broken: list[Path] = []
        self._compared = self._pool.submit(self._compare)

    def __enter__(self) -> "SampleCheck":
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._pool.shutdown()

    @property
    def has_passed(self) -> bool:
        """True once all samples were compared and are right."""
        return self._compared.done() and not self.broken()

    @property
    def has_failed(self) -> bool:
        """True once a shard was found whose samples are wrong."""
        return bool(self._broken)

    def broken(self) -> list[Path]:
        """Waits for the end; -> the shards whose samples are wrong. The next start makes them anew."""
        self._compared.result()
        return self._broken

    def _compare(self) -> None:
        for shard in self._shards:
            if self._left.is_set():
                break
            if shard.file and not _is_intact(shard):
                _index_file(shard.file).unlink(missing_ok=True)
                self._broken.append(shard.file)


def clip_store(
    paths: Sequence[Path],
    spec: FrontendSpec,
    *,
    label: str = "decode",
    channel: int | None = None,
    without_channel: str = "",
    checked: bool = True,
) -> ClipStore:
    """Decodes the files that the cache lacks; -> all of them.

    `channel`, counted from 1, is taken in place of the mean of all; `without_channel` is what to do where
    sound files lack it. `checked` compares the samples with their hashes first; else a SampleCheck has to.

    Raises DataError, with the names of the files that cannot be decoded.
    """
    store = store_with_errors(paths, spec, label=label, channel=channel, checked=checked)
    if lacking := [path.name for path, code in zip(paths, store.codes, strict=True) if code == _NO_CHANNEL]:
        raise DataError(
            f"{len(lacking)} of {counted(len(paths), 'file')} without channel {channel}",
            first_of(lacking),
            wanted=f"files of {channel} channels or more",
            fix=without_channel or "take another --channel (data.channel), or none for the mean of all",
        )
    if bad := [f"{path.name}: {error}" for path, error in zip(paths, store.errors, strict=True) if error]:
        raise DataError(
            f"{len(bad)} of {counted(len(paths), 'file')} cannot be decoded",
            first_of(bad, separator="; "),
            fix="repair these files or remove their rows from the CSV; rrtn data check DIR --json "
            "names all of them",
        )
    return store


def store_with_errors(
    paths: Sequence[Path],
    spec: FrontendSpec,
    *,
    label: str,
    channel: int | None = None,
    checked: bool = True,
) -> ClipStore:
    """As `clip_store`, but a file that cannot be decoded is kept, with its error and without samples."""
    folder = cache_folder() / "clips"
    groups = [paths[i : i + _SHARD_FILES] for i in range(0, len(paths), _SHARD_FILES)]
    files = [folder / f"{_fingerprint(group, spec, channel)}.npy" for group in groups]
    shards: dict[Path, CacheShard] = {}
    with Progress("check", len(paths) if checked else 0, "files") as bar:
        for group, file in zip(groups, files, strict=True):
            if shard := _good_shard(group, file, checked=checked):
                shards[file] = shard
            bar.advance(len(group) if checked else 0)
    todo = [(group, file) for group, file in zip(groups, files, strict=True) if file not in shards]
    count = sum(len(group) for group, _ in todo)
    with _written_to(folder), quiet_codecs(), Progress(label, count, "files") as progress:
        for group, file in todo:
            shards[file] = _made_shard(group, file, spec, channel, progress)
    return ClipStore([shards[file] for file in files])


@contextlib.contextmanager
def _written_to(cache: Path) -> Iterator[None]:
    """The folder is there. Raises StoppedError or ConfigError where it takes no file, with RRTN_CACHE."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        came, wanted = error.strerror or str(error), "a cache with free space that can be written to"
        fix = "make room there, or set RRTN_CACHE to another folder, and run the command again"
        kind = ConfigError if name_refused(cache, error) else StoppedError
        raise kind(str(cache), came, wanted=wanted, fix=fix) from error


def _fingerprint(paths: Sequence[Path], spec: FrontendSpec, channel: int | None) -> str:
    import soundfile  # not above: the GPU suite trains where nothing can decode
    import soxr

    stats = [(str(path.resolve()), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in paths]
    trim = ["trim"] if spec.trim else []
    readers = [_DECODER, soundfile.__libsndfile_version__, soxr.__libsoxr_version__]
    readers += filter(None, [second_reader()])
    key = json.dumps([*readers, spec.sampling_rate, spec.peak_dbfs, *trim, channel, stats])
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _made_shard(
    paths: Sequence[Path], target: Path, spec: FrontendSpec, channel: int | None, progress: Progress
) -> CacheShard:
    """Decodes a shard, unless another process has done so meanwhile."""
    with in_turn(target.with_suffix(".lock")):
        if shard := _good_shard(paths, target, checked=True):
            progress.advance(len(paths))
            return shard
        _index_file(target).unlink(missing_ok=True)  # what is there is not complete from here on
        for path in (target, _index_file(target)):
            remove_left(path)
        _decode_shard(paths, target, spec, channel, progress)
        return _mapped(paths, target)


def _decode_shard(
    paths: Sequence[Path], target: Path, spec: FrontendSpec, channel: int | None, progress: Progress
) -> None:
    files = []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for decoded in pool.map(lambda path: _decoded(path, spec, channel), paths):
            progress.advance()
            files.append(decoded)
    samples = np.concatenate([file.samples for file in files])
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        # np.save does not say that the disk is full
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(samples))
        file.write(samples.data)
    index = {
        "lengths": [len(file.samples) for file in files],
        "sha256": hashlib.sha256(samples.tobytes()).hexdigest(),
        "peaks": [file.peak for file in files],
        "flat_tops": [file.flat_tops for file in files],
        "errors": [file.error for file in files],
        "codes": [file.code for file in files],
        "sources": [[*file.marks, file.content] for file in files],
    }
    write_json(_index_file(target), with_digest(index))


class _Decoded(NamedTuple):
    samples: Int16
    peak: float
    flat_tops: int
    error: str = ""
    code: str = ""
    marks: tuple[int, int] = (0, 0)  # ctime and inode
    content: str = ""  # hash of the file, in hex; "" if unknown


def _decoded(path: Path, spec: FrontendSpec, channel: int | None) -> _Decoded:
    meter = LevelMeter()
    try:
        before = _marks(path)
        samples = read_audio(path, spec, channel=channel, meter=meter).samples
        content = _hash_of_file(path)
    except AudioError as error:
        return _bad(error)
    except (StoppedError, MemoryError):  # they say nothing about the file
        raise
    except Exception as error:  # it has the name of the file that met it
        return _bad(AudioError.of_fault(error))
    if _marks(path) != before:  # the hash may be of another content than the samples
        content = ""
    return _Decoded(samples, meter.peak, meter.flat_tops, marks=before, content=content)


def _bad(error: AudioError) -> _Decoded:
    return _Decoded(np.zeros(0, dtype=np.int16), 0.0, 0, str(error), error.code)


def _marks(path: Path) -> tuple[int, int]:
    """ctime and inode; zeros for a file that is gone."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_ctime_ns, status.st_ino
    return 0, 0


def _hash_of_file(path: Path) -> str:
    with opened(path) as descriptor:
        return content_hash(descriptor).hex()


def _index_file(shard: Path) -> Path:
    """The index is written last: a shard without one is not complete."""
    return shard.with_suffix(".json")


def _index(shard: Path) -> dict[str, Any]:
    """The content of the index. Raises FileNotFoundError, ValueError or TypeError if that is broken."""
    index: dict[str, Any] = parsed(_index_file(shard).read_bytes())
    check_digest(index)
    return index


def _good_shard(paths: Sequence[Path], file: Path, *, checked: bool) -> CacheShard | None:
    """The shard, if it is whole, has no errors, and was made of what the files hold now.

    A file that had an error may be readable by now.
    """
    try:
        shard = _mapped(paths, file)
        if any(shard.errors) or not _has_same_sources(paths, file):
            return None
    except (FileNotFoundError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return shard if not checked or _is_intact(shard) else None


def _mapped(paths: Sequence[Path], file: Path) -> CacheShard:
    """Raises FileNotFoundError, EOFError, ValueError, KeyError, TypeError or AttributeError if broken."""
    if not (file.is_file() and _index_file(file).is_file()):  # opening a pipe would wait for ever
        raise FileNotFoundError(file)
    index = _index(file)
    lengths, peaks, flat_tops, errors = (
        list(index[name]) for name in ("lengths", "peaks", "flat_tops", "errors")
    )
    samples = np.load(file, mmap_mode="r")
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    codes = list(index.get("codes", [""] * len(paths)))  # a shard without them has no errors
    columns = (lengths, peaks, flat_tops, errors, codes)
    if samples.dtype != np.int16 or samples.shape != (offsets[-1],) or min(lengths, default=0) < 0:
        raise ValueError("another number of samples")
    if {len(paths)} != {*map(len, columns)} or not all(isinstance(error, str) for error in errors):
        raise ValueError("another number of files")
    np.array([peaks, flat_tops], np.float64)  # raises where one is no number
    return CacheShard(samples, offsets, str(index["sha256"]), peaks, flat_tops, errors, codes, file)


def _has_same_sources(paths: Sequence[Path], file: Path) -> bool:
    """Whether the files hold what they held. Where a ctime or inode differs, the file is read."""
    index = _index(file)
    if "sources" not in index:  # there is nothing to compare with
        return True
    kept = [((int(ctime), int(inode)), str(content)) for ctime, inode, content in index["sources"]]
    now = [_marks(path) for path in paths]
    pairs = zip((marks for marks, _ in kept), now, strict=True)  # raises ValueError for too few
    differ = [i for i, (before, marks) in enumerate(pairs) if before != marks or not marks[1]]
    if not differ:
        return True
    with ThreadPoolExecutor(usable_cpus()) as pool:
        hashes = list(pool.map(_hash_of_file, [paths[i] for i in differ]))
    if any(kept[i][1] != found for i, found in zip(differ, hashes, strict=True)):
        return False
    index["sources"] = [[*marks, content] for marks, (_, content) in zip(now, kept, strict=True)]
    with contextlib.suppress(OSError):  # a cache that may only be read
        write_json(_index_file(file), with_digest(index))
    return True


def _is_intact(shard: CacheShard) -> bool:
    """Whether the samples have the hash that they had when they were decoded."""
    return hashlib.sha256(shard.samples.data).hexdigest() == shard.sha256
