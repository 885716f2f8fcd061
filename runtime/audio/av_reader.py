"""The second reader: what libsndfile refuses, by PyAV, whose wheels carry FFmpeg (the extra `[formats]`).

FFmpeg is given the demuxer by name, chosen by `foreign` from the file's content, and a view of the one
file that is open. It opens nothing by itself: no other file, no socket, no playlist. PyAV is imported with
the first file that needs it.

N samples, C channels.
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, groupby
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import numpy as np

from ..arrays import Float32
from ..errors import AudioError, install_command
from ..spec import MAX_CHANNELS
from ..system.packages import installed_version
from .containers import SLACK, Pieces, PiecesFile
from .foreign import Container, broken_pages, cut_off, names_another_file
from .mended_wav import mended_file

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, Packet
    from av.container import InputContainer

_BUFFER: Final = 1 << 16  # bytes that FFmpeg asks for at a time
_BLOCK_FRAMES: Final = 1 << 16
_MOST_DAMAGE: Final = 0.1  # of the packets; a file with more that cannot be decoded is corrupt
# Where the header says how many samples there are. Elsewhere FFmpeg estimates the duration.
_STATED: Final = (
    *("wv", "ape", "tta", "tak", "mpc", "mpc8", "dsf"),
    *("w64", "au", "flac", "qoa", "nistsphere"),
)
_PLANES: Final = 8  # AV_NUM_DATA_POINTERS
_PROTECTED: Final = ("drms", "enca", "aavd")  # codec tags of encrypted sound


def second_reader() -> str:
    """The name and version of the second reader; "" where it is not installed."""
    try:
        version = installed_version("av")
        return f"PyAV {version}" if version and importlib.util.find_spec("av") else ""
    except ImportError:
        return ""


class AvSound:
    """The sound in a file that is open."""

    stated: Final = 0  # frames by the header: what FFmpeg says may be an estimate, and refuses nothing

    def __init__(self, opened: "InputContainer", source: "_Source", container: Container) -> None:
        self._opened, self._source, self._container = opened, source, container
        self._stream = _audio_stream(opened, container)
        self._packets = self._decoded = 0
        self._bad = broken_pages(source.descriptor)  # or packets
        self._ended = ""  # why the demuxer ended before the file
        self._cut_packet = False  # whether the last of the bad packets is the last of all, and cut
        self._frames = self._decode()
        first = next(self._frames, None)
        if first is None:
            if self._bad > self._cut_packet:
                raise AudioError("corrupt", "nothing can be decoded")
            if missing := self.missing:
                raise AudioError("truncated", missing)
            raise AudioError("empty", "no samples")
        self.rate, self.channels = first.sample_rate, first.layout.nb_channels
        self._frames = chain([first], self._frames)

    def blocks(self) -> Iterator[Float32]:
        """Blocks [N, C] of the whole sound, once.

        All have the rate and the channels of the first. Raises AudioError where too much cannot be decoded.
        """
        for (rate, channels), run in groupby(self._frames, lambda f: (f.sample_rate, f.layout.nb_channels)):
            if channels > MAX_CHANNELS:
                raise AudioError("unsupported_layout", f"{channels} channels")
            blocks = _gathered(_samples(frame, channels) for frame in _packed(run))
            if channels != self.channels:
                blocks = (np.repeat(block.mean(1, keepdims=True), self.channels, 1) for block in blocks)
            at_one_rate = blocks if rate == self.rate else _resampled(blocks, rate, self.rate, self.channels)
            yield from filter(len, at_one_rate)
        self._bad -= self._cut_packet
        if self._bad and (_is_lossless(self._stream) or self._bad > max(1, _MOST_DAMAGE * self._packets)):
            raise AudioError("corrupt", f"{self._bad} packets of {self._packets} cannot be decoded")

    @property
    def missing(self) -> str:
        """After the last block: what the file promises and lacks; "" where it is whole."""
        return self._cut_sound() or cut_off(self._source.descriptor, self._container) or self._short()

    @property
    def flags(self) -> frozenset[str]:
        """After the last block: `damaged` where parts are missing that cannot be decoded."""
        return frozenset({"second_reader", "damaged"} if self._bad > 0 else {"second_reader"})

    def _cut_sound(self) -> str:
        _, _, stated, present = self._source
        seconds = self._decoded / max(1, self._stream.codec_context.sample_rate)
        if (stated - present) * seconds > SLACK * present:
            return f"{present} of {stated} bytes"
        return ""

    def _short(self) -> str:
        stated = self._stated_frames()
        tolerance = 0 if _is_lossless(self._stream) else 2 * max(self._stream.codec_context.frame_size, 2048)
        if self._decoded + tolerance < stated:
            return f"{self._decoded} of {stated} frames"
        # FFmpeg takes the end of a whole VOC file for a cut, too.
        return "" if stated or self._container.demuxer == "voc" else self._ended

    def _stated_frames(self) -> int:
        stream, context = self._stream, self._stream.codec_context
        if self._container.demuxer in _STATED and stream.duration and stream.time_base:
            return round(stream.duration * stream.time_base * context.sample_rate)
        if context.name == "flac" and len(context.extradata or b"") >= 18:  # its STREAMINFO
            return int.from_bytes((context.extradata or b"")[13:18], "big") & (1 << 36) - 1
        return 0

    def _decode(self) -> "Iterator[AudioFrame]":
        from av.error import EOFError as End
        from av.error import FFmpegError

        for packet in self._demuxed():
            self._packets += 1
            self._cut_packet &= not packet.size
            try:
                frames = packet.decode()
            except End:
                return
            except FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                self._bad += 1
                self._cut_packet = packet.is_corrupt
                continue
            for frame in frames:
                self._decoded += frame.samples
                yield frame

    def _demuxed(self) -> "Iterator[Packet[AudioStream]]":
        from av.error import FFmpegError

        while True:
            try:
                for packet in self._opened.demux(self._stream):
                    if packet.size:  # the last one has none, and makes the decoder give what it holds
                        self._ended = "the last packet is cut" if packet.is_corrupt else ""
                    yield packet
                self._source.file.check()
                return
            except IndexError:  # PyAV met a stream that the file's beginning had not announced
                continue
            except FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                self._source.file.check()
                self._ended = f"reading ended after {self._decoded} frames: {error.strerror}"
                return


@contextlib.contextmanager
def opened_by_av(descriptor: int, container: Container, pieces: Pieces = ()) -> Iterator[AvSound]:
    """The sound of an open file, or of pieces of it.

    Raises AudioError for a file that cannot be used or where PyAV is missing, OSError where the storage
    fails.
    """
    try:
        import av
        import av.error
    except ImportError as error:
        detail = f"{container.words}: {install_command('formats')} ({error})"
        raise AudioError("needs_formats_extra", detail) from error

    if names_another_file(descriptor, container):
        raise AudioError("unsupported_format", f"{container.words}, whose sound lies in another file")
    source = _source(descriptor, container, pieces)
    try:
        with av.open(
            source.file,
            "r",
            format=container.demuxer,
            container_options={
                "format_whitelist": container.demuxer,
                "codec_whitelist": _audio_codecs(),
                "protocol_whitelist": "none",
            },
            io_open=_refuse,
            metadata_errors="replace",
            buffer_size=_BUFFER,
        ) as opened:
            yield _sound(opened, source, container)
    except av.error.MemoryError as error:
        raise AudioError("out_of_memory", f"{container.words}: more memory than FFmpeg may take") from error
    except av.error.FFmpegError as error:
        source.file.check()
        if missing := cut_off(descriptor, container):
            raise AudioError("truncated", missing) from error
        raise AudioError("corrupt", f"{container.words}: {error.strerror}") from error


@cache
def _audio_codecs() -> str:
    """The names of all decoders of sound, so that FFmpeg does not look into films and pictures."""
    import av
    from av.codec import Codec, codecs_available

    names = []
    for name in sorted(codecs_available):
        with contextlib.suppress(av.codec.codec.UnknownCodecError):
            if Codec(name, "r").type == "audio":
                names.append(name)
    return ",".join(names)


def _sound(opened: "InputContainer", source: "_Source", container: Container) -> AvSound:
    try:
        return AvSound(opened, source, container)
    except AudioError as error:
        source.file.check()
        if missing := cut_off(source.descriptor, container):
            raise AudioError("truncated", missing) from error
        raise


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    """What FFmpeg gets when a file names another one."""
    raise AudioError("unsupported_format", "names another file, which is not opened")


def _audio_stream(opened: "InputContainer", container: Container) -> "AudioStream":
    """The stream that ffmpeg would take. All others are passed over without being read."""
    from av import AudioStream
    from av.codec.context import Flags2
    from av.stream import Discard

    stream = opened.streams.best("audio")
    if not isinstance(stream, AudioStream) or stream.codec_context is None:
        raise AudioError("unsupported_format", f"{container.words} without sound that can be decoded")
    if _codec_tag(stream) in _PROTECTED:
        raise AudioError("unsupported_format", f"{container.words}, encrypted")
    for other in opened.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    stream.codec_context.thread_count = 1
    if _is_lossless(stream):
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
        if container.demuxer == "caf":  # FFmpeg 8 cuts the end of ALAC in CAF twice
            stream.codec_context.flags2 |= Flags2.skip_manual
    return stream


def _codec_tag(stream: "AudioStream") -> str:
    try:
        return stream.codec_context.codec_tag
    except UnicodeDecodeError:  # any four bytes
        return ""


def _is_lossless(stream: "AudioStream") -> bool:
    return stream.codec_context.codec.lossless


def _packed(frames: "Iterable[AudioFrame]") -> "Iterator[AudioFrame]":
    """Frames whose channels, where there are 8 of them, lie in one plane.

    PyAV 18 takes what lies behind the last of 8 planes for another one, and may crash.
    """
    from av import AudioResampler

    resampler = None
    for frame in frames:
        if frame.format.is_planar and frame.layout.nb_channels == _PLANES:
            frame.pts = None
            resampler = resampler or AudioResampler(format=frame.format.packed.name)
            yield from resampler.resample(frame)
        else:
            yield frame
    if resampler:
        yield from resampler.resample(None)


def _samples(frame: "AudioFrame", channels: int) -> Float32:
    """[N, C] in [-1, 1], as libsndfile scales them."""
    try:
        array = frame.to_ndarray()
    except ValueError as error:  # integers of 64 bits, and one bit a sample
        raise AudioError("unsupported_layout", f"samples as {frame.format.name}") from error
    array = array.T if frame.format.is_planar else array.reshape(-1, channels)
    samples = array.astype(np.float32)
    match array.dtype.kind:
        case "u":
            return (samples - np.float32(128)) / np.float32(128)
        case "i":
            return samples / np.float32(1 << 8 * array.dtype.itemsize - 1)
    return samples


def _gathered(frames: Iterable[Float32]) -> Iterator[Float32]:
    """Frames -> their samples in larger blocks."""
    kept: list[Float32] = []
    count = 0
    for frame in frames:
        kept.append(frame)
        count += len(frame)
        if count >= _BLOCK_FRAMES:
            yield np.concatenate(kept)
            kept, count = [], 0
    if kept:
        yield np.concatenate(kept)


def _resampled(blocks: Iterable[Float32], rate: int, target: int, channels: int) -> Iterator[Float32]:
    import soxr

    stream = soxr.ResampleStream(rate, target, channels, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)


class _Source(NamedTuple):
    """What FFmpeg reads of a file."""

    descriptor: int
    file: PiecesFile
    stated: int = 0  # bytes of sound, where the headers were read here
    present: int = 0


def _source(descriptor: int, container: Container, pieces: Pieces) -> _Source:
    if container.demuxer in ("wav", "aiff"):
        return _Source(descriptor, *mended_file(descriptor, container.demuxer))
    size = os.fstat(descriptor).st_size
    return _Source(descriptor, PiecesFile(descriptor, pieces or (range(size),)))
