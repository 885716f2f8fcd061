"""Audio as the model hears it: a file -> mono int16 at the spec's rate and peak.

libsndfile reads it (snd_reader.py), or else the second reader (av_reader.py), where that is installed.

Training and scoring both read through this module, so a clip has the same samples in both. First the
channels become one (mixdown.py), then the sound is resampled (soxr HQ), set to its level, and rounded to
int16. The level comes after the resampling, so that the model sees the spec's peak whatever the file's rate.

N samples, C channels.
"""

import contextlib
import errno
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arrays import Float32, Int16, around_zero, in_float32, signal_of, waveform_from_samples
from ..errors import AudioError, ConfigError, StoppedError
from ..spec import MAX_CHANNELS, MAX_RATE, MIN_RATE, FrontendSpec
from ..system.failpoints import failpoint
from ..system.host import open_to_read
from .av_reader import AvSound, opened_by_av
from .bursts import BurstDetector
from .codes import in_order
from .containers import SLACK, Layout, Pieces, layout_of
from .file_names import FilePath
from .foreign import broken_pages, container_of
from .level import Level
from .level_curve import LevelCurve
from .mixdown import ChannelLevels, Mixdown
from .recording import MOST_KEPT, Blocks, Measured, Recording
from .segments import BurstFilter, Meter, Segments
from .snd_reader import SndSound, opened_by_libsndfile, refusal
from .sound import FramePowers

_NOTHING: Final = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)  # arrays have no single truth: compare the parts
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
    channel: int | None = None,
    meter: Meter | None = None,
) -> Audio:
    """Reads one file. Its content says what format it has, not its name.

    `max_seconds` bounds the memory, whatever the header claims. `channel`, counted from 1, is read in place
    of the mean of all. `meter` is shown every block.

    Raises AudioError with a code of ERROR_CODES for a file that cannot be used, StoppedError where the
    storage fails, which says nothing about the file.
    """
    with opened(path) as descriptor:
        recording = recording_from_descriptor(
            descriptor,
            spec,
            max_seconds=max_seconds,
            allow_truncated=allow_truncated,
            channel=channel,
            meter=meter,
            most_kept=None,
        )
        return _audio(recording)


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


def recording_from_descriptor(
    descriptor: int,
    spec: FrontendSpec,
    *,
    max_seconds: float = 3600.0,
    allow_truncated: bool = False,
    channel: int | None = None,
    meter: Meter | None = None,
    most_kept: int | None = MOST_KEPT,
    level: Level = "file",
) -> Recording:
    """What `read_audio` gives, for a file that is open and stays open as long as the recording is in use.

    A recording of more than `most_kept` samples is not held in memory. At the running level it is heard as
    `mono_from_live` gives it.
    """
    decoder = _FileDecoder(max_seconds, allow_truncated, channel, meter, by_rules=level == "file")
    decoded = decoder.decode(descriptor, Measured(FramePowers(spec.sampling_rate), most_kept))
    return Recording(spec, decoded.measured, decoded.parts, decoded.flags, level)


def segments_from_descriptor(
    descriptor: int,
    spec: FrontendSpec,
    *,
    gate: BurstFilter | None = None,
    max_seconds: float = math.inf,
    allow_truncated: bool = False,
    channel: int | None = None,
    meter: Meter | None = None,
    most_kept: int | None = MOST_KEPT,
) -> Segments:
    """The bursts in a file that is open and stays open as long as they are in use.

    The recording may be of any length. `meter` is shown every block, and once more, as one channel, while the
    bursts are taken.
    """
    decoder = _FileDecoder(max_seconds, allow_truncated, channel, meter)
    decoded = decoder.decode(descriptor, Measured(BurstDetector(spec.sampling_rate), most_kept))
    return Segments(spec, decoded.measured, decoded.parts, decoded.flags, gate=gate, meter=meter)


def mono_from_live(
    blocks: Iterator[Float32], rate: int, spec: FrontendSpec, *, channel: int | None = None
) -> Iterator[Float32]:
    """Blocks [N, C] of sound that has no end yet -> blocks [N] at the spec's rate, each as soon as it can be.

    `rate` is in Hz. The channels are averaged, or `channel` is taken: the rules for channels that cancel each
    other and for offsets look at the whole of a recording. soxr gives a sample some milliseconds after the
    last one that it is made of, and the same samples whatever the blocks are.

    Raises AudioError where the channel is missing.
    """
    mono = _mono(blocks, _first_mixdown(channel), None)
    return mono if rate == spec.sampling_rate else _resampled_as_it_comes(mono, rate, spec.sampling_rate)


def levels_of_file(path: FilePath, channel: int | None = None) -> tuple[float, Float32]:
    """Length (s) of a recording of any length, and the level of each second of it, in dBFS.

    `channel`, counted from 1, is heard in place of the mean of all.

    Raises AudioError for a file that cannot be used, StoppedError where the storage fails.
    """
    listener = LevelCurve(FrontendSpec().sampling_rate)
    decoder = _FileDecoder(math.inf, allow_truncated=True, channel=channel)
    with opened(path) as descriptor:
        decoded = decoder.decode(descriptor, Measured(listener, 0))
    curve: LevelCurve = decoded.measured.listener
    return curve.seconds, curve.levels()


def audio_from_array(
    waveform: npt.ArrayLike, sampling_rate: int, spec: FrontendSpec, *, channel: int | None = None
) -> Audio:
    """Samples in memory, [N] or [N, C] of any scale -> what `read_audio` gives for a file with them.

    They are integers or floats; unsigned ones lie around the middle of their range, as in a WAV file of 8
    bits. A peak below 1e-7 is silence. `sampling_rate` is in Hz. Raises ConfigError
    for another shape or type or an unusual rate, AudioError for NaN, infinity or no samples.
    """
    x = signal_of(waveform)
    if x.ndim not in (1, 2) or (x.ndim == 2 and not 1 <= x.shape[1] <= MAX_CHANNELS):
        wanted = f"[N], or [N, C] with 1 to {MAX_CHANNELS} channels"
        raise ConfigError("waveform", f"shape {x.shape}", wanted=wanted)
    is_number = isinstance(sampling_rate, int | float | np.integer | np.floating)
    if not is_number or not MIN_RATE <= sampling_rate <= MAX_RATE or sampling_rate % 1:
        wanted = f"{MIN_RATE} to {MAX_RATE} Hz, as a whole number"
        raise ConfigError("sampling_rate", f"{sampling_rate!r} Hz", wanted=wanted)
    block = in_float32(around_zero(x))  # infinity is refused
    blocks = [block.reshape(len(block), -1)] if block.size else []
    measured = Measured(FramePowers(spec.sampling_rate), None)
    decoded = _mixed_down(iter(blocks), lambda: iter(blocks), sampling_rate, measured, channel)
    return _audio(Recording(spec, decoded.measured, decoded.parts, decoded.flags))


def _audio(recording: Recording) -> Audio:
    return Audio(
        samples=np.concatenate([*recording.blocks()]),
        seconds=recording.seconds,
        flags=in_order(set(recording.flags)),
        start=recording.start,
    )


def _open_regular(path: FilePath) -> int:
    """Opens without blocking, so that a pipe without a writer is refused and not waited for."""
    try:
        descriptor = open_to_read(path)
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
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP | errno.ENAMETOOLONG | errno.EINVAL:
            return AudioError("missing", error.strerror or "not there")
        case errno.EACCES | errno.EPERM:
            return AudioError("permission", error.strerror or "not allowed")
        case errno.ENXIO | errno.ENODEV | errno.EISDIR:
            return AudioError("not_regular", error.strerror or "a socket, device or folder")
    return _storage_failed(path, error)


def _storage_failed(path: FilePath, error: OSError) -> StoppedError:
    return StoppedError(
        repr(os.fsdecode(path)),
        error.strerror or str(error),
        wanted="storage that can be read",
        fix="repair the storage and run the command again",
    )


_OpenSound = Callable[[Pieces], AbstractContextManager[AvSound | SndSound]]


class _Decoded(NamedTuple):
    """The recordings of a file that were decoded so far, one behind the other."""

    measured: Measured[Any]  # at the spec's rate
    parts: tuple[Blocks, ...] = ()  # give the same samples once more
    flags: frozenset[str] = frozenset()
    missing: str = ""  # what the file should have, too; empty where it is whole


@dataclass(frozen=True)
class _FileDecoder:
    """How a file is decoded: by libsndfile, or by the second reader what that does not know."""

    max_seconds: float  # of all recordings together
    allow_truncated: bool
    channel: int | None = None  # counted from 1; None for the mean of all
    meter: Meter | None = None  # is shown every block
    by_rules: bool = True  # those of mixdown.py, which look at the whole of a recording

    def decode(self, descriptor: int, measured: Measured[Any]) -> _Decoded:
        """Adds all recordings of a file to what was measured before.

        Raises AudioError where parts are missing, unless that is allowed.
        """
        decoded = self._what_is_there(descriptor, measured)
        if decoded.missing and not self.allow_truncated:
            raise AudioError("truncated", decoded.missing)
        return decoded._replace(flags=decoded.flags | {"truncated"}) if decoded.missing else decoded

    def _what_is_there(self, descriptor: int, measured: Measured[Any]) -> _Decoded:
        if os.fstat(descriptor).st_size == 0:
            raise AudioError("empty", "0 bytes")
        import soundfile  # not above: only what decodes needs it

        layout = layout_of(descriptor)
        try:
            decoded = self._joined(layout, partial(opened_by_libsndfile, descriptor), measured)
            damaged = {"damaged"} if broken_pages(descriptor) else set()
            return decoded._replace(flags=decoded.flags | damaged)
        except soundfile.LibsndfileError as error:
            container = container_of(descriptor)
            if container is None:
                raise refusal(error, layout) from error
        # FFmpeg knows formats that layout_of does not; of Ogg alone it needs the recordings apart.
        layout = Layout(recordings=layout.recordings) if container.demuxer == "ogg" else Layout()
        return self._joined(layout, partial(opened_by_av, descriptor, container), measured)

    def _joined(self, layout: Layout, opened: _OpenSound, measured: Measured[Any]) -> _Decoded:
        """All recordings of a file, one behind the other."""
        rate, parts = measured.rate, []
        for pieces in layout.recordings:
            left = self.max_seconds - measured.samples / rate
            parts.append(self._recording(opened, pieces, left, measured))
            measured = parts[-1].measured
        missing = [part.missing for part in parts if part.missing]
        if _is_cut(layout, measured.samples / rate):
            missing = [layout.missing]
        unfinished = {"no_length"} if layout.unfinished else set()
        flags = frozenset(unfinished).union(*(part.flags for part in parts))
        again = tuple(blocks for part in parts for blocks in part.parts)
        return _Decoded(measured, again, flags, "; ".join(missing))

    def _recording(
        self, opened: _OpenSound, pieces: Pieces, max_seconds: float, measured: Measured[Any]
    ) -> _Decoded:
        """One recording, which is decoded a second time where its mixdown is not the usual one."""
        with opened(pieces) as sound:
            _check_layout(sound.channels, sound.rate)
            if sound.stated > max(0.0, max_seconds * sound.rate):
                seconds = sound.stated / sound.rate
                raise AudioError("too_long", f"{seconds:.0f} s by its header, limit {max_seconds:g} s")
            blocks = _limited(sound.blocks(), max_seconds, sound.rate, self.meter)
            again = partial(_blocks_again, opened, pieces)
            decoded = _mixed_down(blocks, again, sound.rate, measured, self.channel, by_rules=self.by_rules)
            return decoded._replace(flags=decoded.flags | sound.flags, missing=sound.missing)


def _limited(
    blocks: Iterator[Float32], max_seconds: float, rate: int, meter: Meter | None
) -> Iterator[Float32]:
    """Passes blocks on. Raises AudioError where there are more than so many seconds of them."""
    decoded = 0
    for block in blocks:
        if meter:
            meter(block)
        decoded += len(block)
        if decoded > max_seconds * rate:
            raise AudioError("too_long", f"more than {max_seconds:g} s")
        yield block


def _is_cut(layout: Layout, seconds: float) -> bool:
    """True where more than a trifle is missing. `seconds` is how long that is which is there."""
    missing = max(0, layout.stated - layout.present)
    return missing > 0 and (not seconds or seconds * missing > SLACK * layout.present)


def _blocks_again(opened: _OpenSound, pieces: Pieces) -> Iterator[Float32]:
    with opened(pieces) as sound:
        yield from sound.blocks()


def _check_layout(channels: int, rate: int) -> None:
    if channels > MAX_CHANNELS or not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError("unsupported_layout", f"{channels} channels at {rate} Hz")


def _mixed_down(
    blocks: Iterator[Float32],
    again: Callable[[], Iterator[Float32]],
    rate: int,
    measured: Measured[Any],
    channel: int | None,
    *,
    by_rules: bool = True,
) -> _Decoded:
    """Adds blocks [N, C] to what was measured before, as mono at the target's rate.

    `again` gives the blocks once more: only all of them show which mixdown is right `by_rules`.
    """
    target_rate = measured.rate
    made = _first_mixdown(channel)
    while True:
        levels, attempt = ChannelLevels(), measured.copy()
        for block in _resampled(_mono(blocks, made, levels), rate, target_rate):
            attempt.add(block)
        is_judged = by_rules and attempt.samples > measured.samples
        right = levels.right_mixdown(made, rate) if is_judged else made
        if right == made:
            part = partial(_mono_again, again, made, rate, target_rate)
            return _Decoded(attempt, (part,), made.flags)
        made, blocks = right, again()


def _first_mixdown(channel: int | None) -> Mixdown:
    """The mean of all channels, or one of them, counted from 1."""
    return Mixdown(channel=None if channel is None else channel - 1)


def _mono_again(
    again: Callable[[], Iterator[Float32]], mixdown: Mixdown, rate: int, target_rate: int
) -> Iterator[Float32]:
    """The blocks [N] that `_mixed_down` has measured."""
    return _resampled(_mono(again(), mixdown, None), rate, target_rate)


def _mono(blocks: Iterator[Float32], mixdown: Mixdown, levels: ChannelLevels | None) -> Iterator[Float32]:
    """Blocks [N, C] -> blocks [N]; `levels` is shown both."""
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity are refused later
        for block in blocks:
            channels = np.ascontiguousarray(block.T)
            mono = mixdown(channels)
            if levels:
                levels.add(channels, mono)
            yield mono


def _resampled(blocks: Iterator[Float32], rate: int, target_rate: int) -> Iterator[Float32]:
    """Blocks [N] that follow each other, at the target's rate."""
    if rate == target_rate:
        yield from blocks
        return
    import soxr

    first, second = next(blocks, _NOTHING), next(blocks, None)
    if second is None:  # most files; a stream gives the same samples, and takes a quarter longer
        yield np.asarray(soxr.resample(first, rate, target_rate, quality="HQ"))
        return
    yield from _resampled_as_it_comes(chain([first, second], blocks), rate, target_rate)


def _resampled_as_it_comes(blocks: Iterator[Float32], rate: int, target_rate: int) -> Iterator[Float32]:
    import soxr

    stream = soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(_NOTHING, last=True)
