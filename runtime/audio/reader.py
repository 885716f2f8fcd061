"""Audio as the model hears it: any file that libsndfile reads -> mono int16 at the spec's rate and peak.

Training and scoring both read through this module, so a clip has the same samples in both. First the
channels are averaged, then the sound is resampled (soxr HQ), set to its level, and rounded to int16. The
level comes after the resampling, so that the model sees the spec's peak whatever the file's rate.

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
from ..spec import MAX_RATE, MIN_RATE, FrontendSpec
from .codes import in_order
from .file_names import FilePath
from .sound import Sound

if TYPE_CHECKING:
    import soundfile

Meter = Callable[[Float32], None]  # is given each block [N, C] of a file, before anything is done to it

MAX_CHANNELS: Final = 8
BLOCK_FRAMES: Final = 1 << 16
SILENCE_PEAK: Final = 1e-7  # below the last bit of 24-bit audio
_UNKNOWN_LENGTH: Final = 1 << 40  # frames; libsndfile says 2^63 - 1 where a header gives none
_STREAMED_BYTES: Final = 0x7FFF_F000  # a writer that cannot seek back leaves this size, or a larger one
_SHORT_CHUNK = re.compile(r"(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)")
_NOT_RECOGNISED: Final = 1  # SF_ERR_UNRECOGNISED_FORMAT
_NOTHING: Final = np.zeros(0, dtype=np.float32)
# Given a descriptor, or virtual files, libsndfile looks for a Mac resource fork `._` in the working
# directory, and reads that. Beside these names there are only names of descriptors, so no fork.
_DESCRIPTORS: Final = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"


@dataclass(frozen=True, kw_only=True)
class Audio:
    """A whole file as the model hears it."""

    samples: Int16  # [N] at the spec's rate, mono, levelled
    seconds: float  # length of the file
    flags: tuple[str, ...] = ()  # codes of FLAGS
    start: float = 0.0  # s, where in the file the samples begin; above 0 where the spec trims

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
    """Reads one file. Its content says what format it has, not its name.

    `max_seconds` bounds the memory, whatever the header claims. `meter` is shown every block.

    Raises AudioError with a code of ERROR_CODES for a file that cannot be used, StoppedError where the
    storage fails, which says nothing about the file.
    """
    with opened(path) as descriptor:
        return audio_from_descriptor(
            descriptor, spec, max_seconds=max_seconds, allow_truncated=allow_truncated, meter=meter
        )


@contextlib.contextmanager
def opened(path: FilePath) -> Iterator[int]:
    """The descriptor of a regular file.

    Raises AudioError where the file cannot be opened or is written to meanwhile, StoppedError where the
    storage fails.
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
    """What `read_audio` gives, for a file that is open."""
    mono, truncated = _decode(descriptor, spec, max_seconds=max_seconds, meter=meter)
    if truncated and not allow_truncated:
        raise AudioError("truncated", truncated)
    return _audio(mono, spec, flags={"truncated"} if truncated else set())


def audio_from_array(waveform: npt.ArrayLike, sampling_rate: int, spec: FrontendSpec) -> Audio:
    """Samples in memory, [N] or [N, C] of any scale -> what `read_audio` gives for a file with them.

    `sampling_rate` is in Hz. Raises ConfigError for another shape or an unusual rate, AudioError for NaN,
    infinity or no samples.
    """
    x = np.asarray(waveform)
    if x.ndim not in (1, 2) or (x.ndim == 2 and not 1 <= x.shape[1] <= MAX_CHANNELS):
        wanted = f"[N], or [N, C] with 1 to {MAX_CHANNELS} channels"
        raise ConfigError("waveform", f"shape {x.shape}", wanted=wanted)
    if not MIN_RATE <= sampling_rate <= MAX_RATE:
        raise ConfigError("sampling_rate", f"{sampling_rate} Hz", wanted=f"{MIN_RATE} to {MAX_RATE} Hz")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, and is refused
        mono = _mono(x.astype(np.float32))
    return _audio(_resampled(iter([mono]), sampling_rate, spec.sampling_rate), spec)


def levelled(mono: Float32, spec: FrontendSpec) -> Int16:
    """mono [N] -> int16 [N] with the spec's peak; silence stays silence.

    Raises AudioError for NaN and infinity. A file may have them, or the resampler makes them where it
    overshoots the limit of float32.
    """
    peak = float(np.abs(mono).max(initial=0.0))
    if not np.isfinite(peak):
        raise AudioError("non_finite", "NaN or infinity among the samples")
    if peak < SILENCE_PEAK:
        return np.zeros(len(mono), dtype=np.int16)
    return np.round(mono * np.float32(INT16_SCALE * spec.peak / peak)).astype(np.int16)


def _audio(mono: Float32, spec: FrontendSpec, *, flags: set[str] | None = None) -> Audio:
    if not len(mono):
        raise AudioError("empty", "no samples")
    samples = levelled(mono, spec)
    flags = flags or set()
    if not samples.any():
        flags.add("silent")
    begin, end = Sound(samples, spec.sampling_rate).extent() if spec.trim else (0, len(samples))
    return Audio(
        samples=samples[begin:end],
        seconds=len(mono) / spec.sampling_rate,
        flags=in_order(flags),
        start=begin / spec.sampling_rate,
    )


def _open_regular(path: FilePath) -> int:
    """Opens without blocking, so that a pipe without a writer is refused and not waited for."""
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
    """Raises AudioError where the file was written to meanwhile, in place of whatever else was raised."""
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
        repr(os.fsdecode(path)),
        error.strerror or str(error),
        wanted="storage that can be read",
        fix="repair the storage and run the command again",
    )


def _decode(
    descriptor: int, spec: FrontendSpec, *, max_seconds: float, meter: Meter | None
) -> tuple[Float32, str]:
    """-> mono [N] at the spec's rate, and what is missing of the file; "" where it is whole."""
    if os.fstat(descriptor).st_size == 0:
        raise AudioError("empty", "0 bytes")
    import soundfile  # not above: only what decodes needs it

    try:
        with soundfile.SoundFile(f"{_DESCRIPTORS}/{descriptor}") as file:
            file.seekable = lambda: False  # FLAC of unknown length fails at a seek behind its last block
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


def _checked_limit(file: "soundfile.SoundFile", max_seconds: float) -> float:
    """The most frames to read. Raises AudioError for what the header already rules out."""
    if file.channels > MAX_CHANNELS or not MIN_RATE <= file.samplerate <= MAX_RATE:
        raise AudioError("unsupported_layout", f"{file.channels} channels at {file.samplerate} Hz")
    limit = max_seconds * float(file.samplerate)
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
    if block.ndim == 1:
        return block
    if block.shape[1] == 1:
        return block[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):  # `levelled` refuses NaN and infinity
        return np.asarray(block.mean(axis=1))


def _missing(file: "soundfile.SoundFile", decoded: int) -> str:
    """What the header promises and the file lacks: frames, or bytes of the data chunk.

    libsndfile corrects the chunk's size, but says so in its notes.
    """
    estimated = file.format == "MP3"  # the header has no count; libsndfile guesses it from the bit rate
    if decoded < file.frames < _UNKNOWN_LENGTH and not estimated:
        return f"{decoded} of {file.frames} frames"
    for claimed, present in _SHORT_CHUNK.findall(file.extra_info):
        if int(present) < int(claimed) < _STREAMED_BYTES:
            return f"{present} of {claimed} bytes"
    return ""


def _resampled(blocks: Iterator[Float32], rate: int, target_rate: int) -> Float32:
    """Blocks [N] that follow each other -> [N] at the target's rate."""
    if rate == target_rate:
        return np.concatenate([_NOTHING, *blocks])
    import soxr

    first, second = next(blocks, _NOTHING), next(blocks, None)
    if second is None:  # most files; a stream gives the same samples, and takes a quarter longer
        return np.asarray(soxr.resample(first, rate, target_rate, quality="HQ"))
    stream = soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="HQ")
    parts = [stream.resample_chunk(block) for block in chain([first, second], blocks)]
    return np.concatenate([*parts, stream.resample_chunk(_NOTHING, last=True)])
