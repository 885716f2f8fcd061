"""Audio as the model hears it: any file that libsndfile reads -> 16 kHz mono int16, peak at -3 dBFS.

Training and scoring both read through this module, so a clip is the same samples in both. The order
is: mean of the channels, resampling (soxr HQ), level, rounding to int16. The level comes after the
resampling, so that the peak that the model sees is the spec's, whatever the file's rate.

N samples, C channels.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from ..arrays import INT16_SCALE, Float32, Int16, waveform_from_samples
from ..errors import AudioError, ConfigError, StoppedError
from ..failpoints import failpoint
from ..spec import FrontendSpec
from .file_names import FilePath

if TYPE_CHECKING:
    import soundfile

Meter = Callable[[Float32], None]  # is given each block [N, C] of a file as the file has it

MAX_CHANNELS: Final = 8
MIN_RATE, MAX_RATE = 4_000, 384_000  # Hz
BLOCK_FRAMES: Final = 1 << 16
SILENCE_PEAK: Final = 1e-7  # below the last bit of 24-bit audio
_UNKNOWN_LENGTH: Final = 1 << 40  # frames; libsndfile says 2^63 - 1 where a header gives none
_STREAMED_BYTES: Final = 0x7FFF_F000  # a writer that could not seek back leaves a size from here on
_SHORT_CHUNK = re.compile(r"(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)")
_NOT_RECOGNISED: Final = 1  # SF_ERR_UNRECOGNISED_FORMAT
_NOTHING: Final = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Audio:
    """A whole file as the model hears it."""

    samples: Int16  # [N] at the spec's rate, mono, levelled
    seconds: float  # of the file
    flag: str = ""  # one of FLAGS, or nothing

    @property
    def waveform(self) -> Float32:
        """[N] in [-1, 1]."""
        return waveform_from_samples(self.samples)


def read_audio(
    path: FilePath,
    spec: FrontendSpec,
    *,
    max_seconds: float = 3600.0,
    allow_truncated: bool = False,
    meter: Meter | None = None,
) -> Audio:
    """Reads one file by content, never by its name.

    Raises AudioError with a code of ERROR_CODES for a file that cannot be used, StoppedError where
    the storage fails (that says nothing about the file). Memory is bounded by `max_seconds`,
    whatever the header claims.
    """
    with opened(path) as descriptor:
        return audio_from_descriptor(
            descriptor, spec, max_seconds=max_seconds, allow_truncated=allow_truncated, meter=meter
        )


@contextlib.contextmanager
def opened(path: FilePath) -> Iterator[int]:
    """A regular file by its descriptor, for as long as nobody writes to it.

    Raises AudioError, StoppedError.
    """
    descriptor = _open_regular(path)
    try:
        with _unchanged(descriptor):
            failpoint("read", file=path)
            yield descriptor
    except OSError as error:
        raise _storage_failed(path, error) from error
    finally:
        os.close(descriptor)


def audio_from_descriptor(
    descriptor: int,
    spec: FrontendSpec,
    *,
    max_seconds: float = 3600.0,
    allow_truncated: bool = False,
    meter: Meter | None = None,
) -> Audio:
    """What `read_audio` gives, of an open file."""
    mono, truncated = _decode(descriptor, spec, max_seconds=max_seconds, meter=meter)
    if truncated and not allow_truncated:
        raise AudioError("truncated", truncated)
    return _audio(mono, spec, flag="truncated" if truncated else "")


def audio_from_array(waveform: npt.ArrayLike, sampling_rate: int, spec: FrontendSpec) -> Audio:
    """Samples in memory, [N] or [N, C] of any scale -> what `read_audio` gives for a file of them."""
    x = np.asarray(waveform)
    if x.ndim not in (1, 2) or (x.ndim == 2 and not 1 <= x.shape[1] <= MAX_CHANNELS):
        raise ConfigError(f"waveform | shape {x.shape} | expected [N], or [N, C] with C <= {MAX_CHANNELS}")
    if not MIN_RATE <= sampling_rate <= MAX_RATE:
        raise ConfigError(f"sampling_rate | {sampling_rate} Hz | expected {MIN_RATE} to {MAX_RATE}")
    with np.errstate(over="ignore"):  # beyond float32 is infinity
        mono = _mono(x.astype(np.float32))
    return _audio(_resampled(iter([mono]), sampling_rate, spec.sampling_rate), spec)


def levelled(mono: Float32, spec: FrontendSpec) -> Int16:
    """[N] -> [N] int16 with its peak at the spec's level; silence stays silence.

    Raises AudioError for NaN and infinity: those of the file, which spread in the resampler, and
    the resampler's own, where it overshoots at the limit of float32.
    """
    peak = float(np.abs(mono).max(initial=0.0))
    if not np.isfinite(peak):
        raise AudioError("non_finite", "NaN or infinity among the samples")
    if peak < SILENCE_PEAK:
        return np.zeros(len(mono), dtype=np.int16)
    return np.round(mono * np.float32(INT16_SCALE * spec.peak / peak)).astype(np.int16)


def _audio(mono: Float32, spec: FrontendSpec, *, flag: str = "") -> Audio:
    if not len(mono):
        raise AudioError("empty", "no samples")
    samples = levelled(mono, spec)
    return Audio(
        samples=samples,
        seconds=len(mono) / spec.sampling_rate,
        flag=flag or ("" if samples.any() else "silent"),
    )


def _open_regular(path: FilePath) -> int:
    """Never blocks: a pipe without a writer is opened, and then refused by its kind."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _open_failed(path, error) from error
    except ValueError as error:  # NUL in the path
        raise AudioError("missing", str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise AudioError("not_regular", "a folder, pipe, socket or device")
    return descriptor


@contextlib.contextmanager
def _unchanged(descriptor: int) -> Iterator[None]:
    """Whatever came of reading a file while it was written to, an error too, says nothing about the file."""
    before = os.fstat(descriptor)
    try:
        yield
    finally:
        after = os.fstat(descriptor)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise AudioError("changed", "size or time changed during reading")


def _open_failed(path: FilePath, error: OSError) -> Exception:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP | errno.ENAMETOOLONG:
            return AudioError("missing", error.strerror or "not there")
        case errno.EACCES | errno.EPERM:
            return AudioError("permission", error.strerror or "not allowed")
        case errno.ENXIO | errno.ENODEV:
            return AudioError("not_regular", error.strerror or "a socket or device")
    return _storage_failed(path, error)


def _storage_failed(path: FilePath, error: OSError) -> StoppedError:
    return StoppedError(
        f"{os.fsdecode(path)!r} | {error.strerror} | readable storage | mend it, then run again"
    )


def _decode(
    descriptor: int, spec: FrontendSpec, *, max_seconds: float, meter: Meter | None
) -> tuple[Float32, str]:
    """-> mono [N] at the spec's rate, and what is missing of it ("" when whole)."""
    if os.fstat(descriptor).st_size == 0:
        raise AudioError("empty", "0 bytes")
    import soundfile  # not above: only what decodes needs it

    try:
        with soundfile.SoundFile(descriptor, closefd=False) as file:
            file.seekable = lambda: (
                False
            )  # FLAC of unknown length would fail at the seek after its last block
            limit = _checked_limit(file, max_seconds)
            decoded = 0

            def blocks() -> Iterator[Float32]:
                nonlocal decoded
                for block in _mono_blocks(file, meter):
                    decoded += len(block)
                    if decoded > limit:
                        raise AudioError("too_long", f"more than {max_seconds:g} s")
                    yield block

            return _resampled(blocks(), file.samplerate, spec.sampling_rate), _missing(file, decoded)
    except soundfile.LibsndfileError as error:
        code = "unsupported_format" if error.code == _NOT_RECOGNISED else "corrupt"
        raise AudioError(code, error.error_string) from error


def _checked_limit(file: "soundfile.SoundFile", max_seconds: float) -> int:
    """Refuses by the header what need not be decoded; -> most frames to read."""
    if file.channels > MAX_CHANNELS or not MIN_RATE <= file.samplerate <= MAX_RATE:
        raise AudioError("unsupported_layout", f"{file.channels} channels at {file.samplerate} Hz")
    limit = int(max_seconds * file.samplerate)
    if limit < file.frames < _UNKNOWN_LENGTH:
        raise AudioError(
            "too_long", f"{file.frames / file.samplerate:.0f} s by its header, limit {max_seconds:g} s"
        )
    return limit


def _mono_blocks(file: "soundfile.SoundFile", meter: Meter | None) -> Iterator[Float32]:
    while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        if meter:
            meter(block)
        yield _mono(block)


def _mono(block: Float32) -> Float32:
    """[N] or [N, C] -> [N], the mean of the channels' samples."""
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of that is refused by its level
        return block if block.ndim == 1 else block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)


def _missing(file: "soundfile.SoundFile", decoded: int) -> str:
    """Where the header promises more than came: by frames, or by the size of the data chunk, which
    libsndfile mends.
    """
    estimated = file.format == "MP3"  # its header has no count, libsndfile guesses one from the bit rate
    if decoded < file.frames < _UNKNOWN_LENGTH and not estimated:
        return f"{decoded} of {file.frames} frames"
    for claimed, present in _SHORT_CHUNK.findall(file.extra_info):
        if int(present) < int(claimed) < _STREAMED_BYTES:
            return f"{present} of {claimed} bytes"
    return ""


def _resampled(blocks: Iterator[Float32], rate: int, target_rate: int) -> Float32:
    """Blocks [N] one after the other -> [N] at the target's rate."""
    if rate == target_rate:
        return np.concatenate([_NOTHING, *blocks])
    import soxr

    first, second = next(blocks, _NOTHING), next(blocks, None)
    if (
        second is None
    ):  # most files; the same samples as of a stream, which would take a quarter longer to set up
        return np.asarray(soxr.resample(first, rate, target_rate, quality="HQ"))
    stream = soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="HQ")
    parts = [stream.resample_chunk(block) for block in chain([first, second], blocks)]
    return np.concatenate([*parts, stream.resample_chunk(_NOTHING, last=True)])
