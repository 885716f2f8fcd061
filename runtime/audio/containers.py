"""What a file's own bytes say of its length and its parts, where libsndfile gets them wrong.

libsndfile believes lengths that a recorder never filled in, and ends at the first of several recordings that
lie behind each other. In many formats it does not say that samples are missing. So the headers are read here
first. What libsndfile is to read is then the file as it is, or pieces of it behind a mended header.
"""

import io
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..system.host import pread, pread_into
from .mpeg_frames import FrameRun, id3_size, recordings

Pieces = tuple[bytes | range, ...]  # bytes of our own, and ranges of the file, one behind the other

SLACK: Final = 0.02  # s that may be missing: some recorders count bytes of the header as sound
_WINDOW: Final = 1 << 16  # bytes that are read at once while headers are looked through
_HEAD: Final = 4096
MOST_CHUNKS: Final = 10_000
STREAMED: Final = 0x7FFF_F000  # a writer that cannot seek back leaves this size, or a larger one
UNKNOWN_SIZE: Final = 0xFFFF_FFFF  # the largest size of 32 bits, which says the same
_SEARCHED: Final = 1 << 16  # bytes that are searched at once
_SPARE_FRAME: Final = 1  # some encoders count the tag as a frame
_NAME: Final = re.compile(rb"[ -~]+")  # of a chunk, with the space of "cue "
_END_OF_VOC: Final = b"\0"
_ID3V1: Final = 128  # bytes of a tag at the end
_FLAC: Final = b"fLaC\0\0\0\x22"  # with the only length that STREAMINFO has


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The recordings in a file, and what is missing of them."""

    recordings: tuple[Pieces, ...] = ((),)  # (): the file as it is
    stated: int = 0  # units by the header; 0 where the format does not say
    present: int = 0  # of those
    unit: str = "bytes"
    unfinished: bool = False  # the recorder has not filled in the length

    @property
    def missing(self) -> str:
        """What is missing, or empty."""
        return f"{self.present} of {self.stated} {self.unit}" if self.present < self.stated else ""


def layout_of(descriptor: int) -> Layout:
    """Looks at the headers of an open file. A format that is not known here is taken as it is."""
    content = _Content(descriptor)
    for magic, look in _FORMATS.items():
        if content.head.startswith(magic):
            try:
                return look(content) or Layout()
            except (struct.error, ValueError):  # the header is cut or no header, and libsndfile refuses it
                return Layout()
    return Layout()


class PiecesFile(io.RawIOBase):
    """Pieces of an open file, as a file.

    libsndfile takes what cannot be read for the end. The error is kept for `check`.
    """

    def __init__(self, descriptor: int, pieces: Pieces) -> None:
        super().__init__()
        self._descriptor, self._pieces = descriptor, pieces
        self._size = sum(map(len, pieces))
        self._at = 0
        self._error: OSError | None = None

    def check(self) -> None:
        """Raises the OSError that reading gave."""
        if self._error:
            raise self._error

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of io.RawIOBase."""
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def tell(self) -> int:
        """As of io.RawIOBase."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As of io.RawIOBase; fewer bytes where a piece ends."""
        begin = self._at
        for piece in self._pieces:
            if begin < len(piece):
                count = self._copy(piece, begin, memoryview(buffer))
                self._at += count
                return count
            begin -= len(piece)
        return 0

    def _copy(self, piece: bytes | range, begin: int, target: memoryview) -> int:
        part = piece[begin : begin + len(target)]
        target = target[: len(part)]
        if isinstance(part, bytes):
            target[:] = part
            return len(part)
        try:
            return pread_into(self._descriptor, target, part.start)
        except OSError as error:
            self._error = error
            return 0


class _Content:
    """The bytes of a file, of which the part that was read last is kept."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.head = self._window = pread(descriptor, _HEAD, 0)
        self._begin = 0

    def at(self, offset: int, count: int) -> bytes:
        """Fewer than `count` bytes at the end of the file."""
        begin = offset - self._begin
        if begin < 0 or (begin + count > len(self._window) and offset < self.size):
            self._window = pread(self._descriptor, max(count, _WINDOW), offset)
            self._begin, begin = offset, 0
        return self._window[begin : begin + count]

    def unpacked(self, form: str, offset: int) -> tuple[Any, ...]:
        """Raises struct.error where the file ends before."""
        return struct.unpack(form, self.at(offset, struct.calcsize(form)))

    def number(self, form: str, offset: int) -> int:
        """One number. Raises struct.error where the file ends before."""
        return int(self.unpacked(form, offset)[0])

    def with_patches(self, patches: dict[int, bytes], end: int | None = None) -> Pieces:
        """The file, up to `end`, with other bytes at some offsets, in their order."""
        pieces: list[bytes | range] = []
        at = 0
        for offset, patch in patches.items():
            pieces += [range(at, offset), patch]
            at = offset + len(patch)
        return (*pieces, range(at, self.size if end is None else end))

    def found(self, pattern: bytes) -> Iterator[int]:
        """Each offset at which the pattern begins."""
        for begin in range(0, self.size, _SEARCHED):
            block, at = self.at(begin, _SEARCHED + len(pattern) - 1), -1
            while (at := block.find(pattern, at + 1)) >= 0:
                yield begin + at

    def split(self, begins: list[int]) -> tuple[Pieces, ...]:
        """A recording from each of these offsets to the next; the file as it is where there is one."""
        if len(begins) < 2:
            return ((),)
        return tuple((range(*ends),) for ends in zip(begins, [*begins[1:], self.size], strict=True))


# Formats of chunks


class _Style(NamedTuple):
    """How chunks are written."""

    first: int  # offset of the first chunk
    size: str  # of the field with the size, for struct
    align: int = 2
    name: int = 4  # bytes of a name
    inclusive: bool = False  # the size counts name and size, too


class Chunk(NamedTuple):
    """A chunk of a RIFF or IFF file and the like, a box of an MP4 file, a page of Ogg."""

    name: bytes
    begin: int  # offset of what it holds
    size: int  # of what it holds, as the file says


def _chunks(content: _Content, style: _Style, at: int) -> Iterator[Chunk]:
    """The chunks from offset `at` on, up to one of unknown size."""
    head = style.name + struct.calcsize(style.size)
    for _ in range(MOST_CHUNKS):
        if at + head > content.size:
            return
        size = content.number(style.size, at + style.name) - (head if style.inclusive else 0)
        yield Chunk(content.at(at, style.name), at + head, size)
        if size < 0:
            return
        at += head + size + -size % style.align


def _up_to(content: _Content, style: _Style, sound: bytes) -> dict[bytes, Chunk]:
    """The chunks up to the first of that name."""
    found = {}
    for chunk in _chunks(content, style, style.first):
        found[chunk.name] = chunk
        if chunk.name == sound:
            break
    return found


def _more_chunks(content: _Content, style: _Style, at: int) -> bool:
    """True where nothing but chunks lies from there to the end: an empty chunk in front of them is empty."""
    end = at
    for chunk in _chunks(content, style, at):
        if not _NAME.fullmatch(chunk.name):
            return False
        end = chunk.begin + chunk.size
    return abs(content.size - end) < style.align


def _sound_chunk(
    content: _Content, style: _Style, chunk: Chunk | None, *, unused: int = 0, streamed: int = 1 << 63
) -> Layout | None:
    """What the chunk of sound says. Its first `unused` bytes are no samples."""
    if chunk is None:
        return None
    there = content.size - chunk.begin
    if chunk.size <= unused < there and not _more_chunks(content, style, chunk.begin + max(0, chunk.size)):
        # The format's own way to say that this chunk is the last is -1.
        return Layout(recordings=(_resized(content, style, chunk, there),), unfinished=chunk.size != -1)
    if there < chunk.size and chunk.size >= streamed:
        return Layout(unfinished=True)
    if there < chunk.size:
        return Layout(recordings=(_resized(content, style, chunk, there),), stated=chunk.size, present=there)
    return None


def _beyond(content: _Content, style: _Style, chunk: Chunk | None) -> Layout | None:
    """Sound that goes on where it should end by its size of 32 bits.

    Of a larger size, libsndfile writes the largest of 32 bits into WAV, and the lower 32 bits into AIFF. The
    true end has nothing but other chunks behind it. Where no end has, all that follows is sound.
    """
    if chunk is None or (there := content.size - chunk.begin) <= max(chunk.size, STREAMED):
        return None
    if chunk.size < STREAMED and there <= UNKNOWN_SIZE:
        return None
    sizes = (chunk.size + (turns << 32) for turns in range(min(there >> 32, MOST_CHUNKS) + 1))
    ends = (size for size in sizes if _more_chunks(content, style, chunk.begin + size + -size % style.align))
    size = next(ends, None)
    if size == chunk.size:
        return None
    sound = _resized(content, style, chunk, there if size is None else min(size, there))
    return Layout(recordings=(sound,), unfinished=size is None)


def _resized(content: _Content, style: _Style, chunk: Chunk, size: int) -> Pieces:
    """The file up to the end of the chunk, with another size of the chunk.

    libsndfile refuses some formats where it is wrong. It takes a file of 8 bytes with an empty chunk of sound
    for one that was not closed, and reads on to the end. So it reads more than 32 bits can say.
    """
    width = struct.calcsize(style.size)
    end = chunk.begin + size
    if width == 4 and size > UNKNOWN_SIZE:
        return content.with_patches({4: struct.pack(style.size, 8), chunk.begin - width: bytes(width)}, end)
    size += style.name + width if style.inclusive else 0
    return content.with_patches({chunk.begin - width: struct.pack(style.size, size)}, end)


def _iff(content: _Content) -> Layout | None:
    """AIFF, AIFF-C, and Amiga's 8SVX and 16SV."""
    style = _Style(first=12, size=">I")
    is_amiga = content.at(8, 4) in (b"8SVX", b"16SV")
    sound, unused = (b"BODY", 0) if is_amiga else (b"SSND", 8)
    chunk = _up_to(content, style, sound).get(sound)
    layout = _sound_chunk(content, style, chunk, unused=unused, streamed=STREAMED)
    layout = layout or _beyond(content, style, chunk)
    if chunk and is_amiga and not layout:  # libsndfile hears the chunks behind it as sound
        return Layout(recordings=(_resized(content, style, chunk, chunk.size),))
    return layout


def _core_audio(content: _Content) -> Layout | None:
    style = _Style(first=8, size=">q", align=1)
    return _sound_chunk(content, style, _up_to(content, style, b"data").get(b"data"), unused=4)


def _wave64(content: _Content) -> Layout | None:
    style = _Style(first=40, size="<q", align=8, name=16, inclusive=True)
    sound = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
    return _sound_chunk(content, style, _up_to(content, style, sound).get(sound))


def _wave(content: _Content) -> Layout | None:
    """WAV in both byte orders, and RF64."""
    style = _Style(first=12, size=">I" if content.head.startswith(b"RIFX") else "<I")
    chunks = _up_to(content, style, b"data")
    chunk = chunks.get(b"data")
    if chunk is None or content.at(8, 4) != b"WAVE":
        return None
    if b"ds64" in chunks:
        return _rf64(content, chunk, chunks[b"ds64"])
    if _is_mpeg(content, chunks.get(b"fmt ")):
        size = chunk.size if 0 < chunk.size < STREAMED else content.size
        return _mpeg(content, chunk.begin, min(chunk.begin + size, content.size), bare=False)
    layout = _sound_chunk(content, style, chunk, streamed=STREAMED) or _waves(content, style)
    return layout or _beyond(content, style, chunk)


def _rf64(content: _Content, chunk: Chunk, ds64: Chunk) -> Layout | None:
    """The sizes of 64 bits stand in a chunk in front."""
    field = ds64.begin + 8
    size, there = content.number("<Q", field), content.size - chunk.begin
    pieces = content.with_patches({field: struct.pack("<Q", there)})
    if size == 0 and there:
        return Layout(recordings=(pieces,), unfinished=True)
    return Layout(recordings=(pieces,), stated=size, present=there) if there < size else None


def _is_mpeg(content: _Content, form: Chunk | None) -> bool:
    """True for MPEG audio in a WAV file."""
    return form is not None and content.at(form.begin, 2) in (b"\x50\0", b"\x55\0")


def _waves(content: _Content, style: _Style) -> Layout | None:
    """WAV files behind each other."""
    begins, at = [0], 0
    while (end := at + 8 + content.number(style.size, at + 4)) + 12 <= content.size:
        if content.at(end, 4) != content.head[:4] or content.at(end + 8, 4) != b"WAVE":
            break
        begins.append(at := end)
    return Layout(recordings=content.split(begins)) if len(begins) > 1 else None


# Formats that are a header and samples


def _of_bytes(content: _Content, begin: int, size: int) -> Layout:
    """Samples of that size from there on."""
    return Layout(stated=size, present=min(size, content.size - begin))


def _au(content: _Content) -> Layout | None:
    order = "<" if content.head.startswith(b"dns.") else ">"
    begin, size = content.unpacked(f"{order}2I", 4)
    there = content.size - begin
    if 0 < size < STREAMED and there <= UNKNOWN_SIZE:
        return _of_bytes(content, begin, size)
    if size == UNKNOWN_SIZE or not 24 <= begin < content.size:  # the format's own way to give no size
        return None
    # libsndfile takes any other size of 2 GiB or more for a negative one.
    pieces = content.with_patches({8: struct.pack(f"{order}I", UNKNOWN_SIZE)})
    is_low_half = size > 0 and (there - size) % (1 << 32) == 0  # of the true size, or all of it
    return Layout(recordings=(pieces,), unfinished=there < size or not is_low_half)


def _nist(content: _Content) -> Layout | None:
    begin = int(content.at(8, 8).strip() or b"0")
    header = content.at(0, min(begin, _HEAD))
    fields = dict(re.findall(rb"^(\w+) -\w+ (\S+)", header, flags=re.MULTILINE))
    numbers = [int(fields.get(name, b"0")) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    if b"," in fields.get(b"sample_coding", b""):  # compressed
        return None
    if numbers[0] == 0:
        return Layout(unfinished=True)
    return _of_bytes(content, begin, numbers[0] * numbers[1] * numbers[2])


def _voc(content: _Content) -> Layout | None:
    """Blocks with a type and a size; sound has three of the types.

    libsndfile refuses the wrong size of one.
    """
    at, stated = content.number("<H", 20), 0
    for _ in range(MOST_CHUNKS):
        if not 0 < (kind := content.number("B", at)) <= 9:
            return None
        size, begin = int.from_bytes(content.at(at + 1, 3), "little"), at + 4
        if stated and begin + size > content.size:  # sox counts 8 bytes too few: this is sound, and no block
            return None
        stated += size if kind in (1, 2, 9) else 0
        missing = begin + size - content.size
        if missing > 0:
            patch = {at + 1: max(0, size - missing).to_bytes(3, "little")}
            pieces = (*content.with_patches(patch), _END_OF_VOC)
            return Layout(recordings=(pieces,), stated=stated, present=stated - missing)
        at = begin + size
    return None


def _avr(content: _Content) -> Layout | None:
    mono, bits = content.unpacked(">HH", 12)
    return _of_bytes(content, 128, content.number(">I", 26) * (1 if mono == 0 else 2) * (bits // 8))


def _mpc2k(content: _Content) -> Layout | None:
    stereo, frames = content.number("B", 21), content.number("<I", 30)
    return _of_bytes(content, 42, frames * (2 if stereo else 1) * 2)


def _wve(content: _Content) -> Layout | None:
    return _of_bytes(content, 32, content.number(">I", 18))


def _xi(content: _Content) -> Layout | None:
    """The first of its samples. libsndfile itself writes no size."""
    count, size = content.unpacked("<HI", 0x128)
    return _of_bytes(content, 0x12A + 40 * count, size)


def _mat4(content: _Content) -> Layout | None:
    """Matrices behind each other; the last one has the samples."""
    order = "<" if content.head[:4] == bytes(4) else ">"
    width = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}  # bytes, by the third digit of the type
    begin = size = 0
    for _ in range(MOST_CHUNKS):
        if begin + size >= content.size:
            break
        kind, rows, columns, imaginary, name = content.unpacked(f"{order}5I", begin + size)
        if kind // 10 % 10 not in width or imaginary:
            return None
        begin, size = begin + size + 20 + name, rows * columns * width[kind // 10 % 10]
    return _of_bytes(content, begin, size)


def _mat5(content: _Content) -> Layout | None:
    """Elements behind each other; the last one has the samples."""
    order = "<" if content.at(126, 2) == b"IM" else ">"
    begin, size = 128, 0
    for _ in range(MOST_CHUNKS):
        if begin + size >= content.size:
            break
        begin += size + 8
        size = content.number(f"{order}I", begin - 4)
        size += -size % 8
    return _of_bytes(content, begin, size)


def _sds(content: _Content) -> Layout | None:
    """Packets of 127 bytes. libsndfile repeats the last whole packet for those that are missing."""
    bits, stated = content.number("B", 6), _of_7_bits(content.at(10, 3))
    per_packet = 120 // -(-bits // 7) if bits else 1
    begin, packets = 21, 0
    while content.at(begin + 127 * packets, 2) == b"\xf0\x7e" and begin + 127 * (packets + 1) <= content.size:
        packets += 1
    present = min(stated, packets * per_packet)
    if present == stated and begin + 127 * packets == content.size:
        return None
    head = content.at(0, 10) + bytes([present & 0x7F, present >> 7 & 0x7F, present >> 14]) + content.at(13, 8)
    pieces = (head, range(begin, begin + 127 * packets))
    return Layout(recordings=(pieces,), stated=stated, present=present, unit="frames")


def _of_7_bits(number: bytes) -> int:
    return sum(byte << 7 * place for place, byte in enumerate(number))


# Recordings behind each other


def _flac(content: _Content) -> Layout | None:
    begins = list(content.found(_FLAC))
    return Layout(recordings=content.split(begins)) if len(begins) > 1 else None


def _ogg(content: _Content) -> Layout | None:
    """Pages. A recording begins with pages that say so; a cut page is lost whole."""
    begins, at, opening, end = [], 0, False, 0
    while (head := content.at(at, 27))[:4] == b"OggS" and len(head) == 27:
        opens = bool(head[5] & 2)
        if opens and not opening:
            begins.append(at)
        opening = opens
        end = at + 27 + head[26] + sum(content.at(at + 27, head[26]))
        if end > content.size or len(content.at(at + 27, head[26])) < head[26]:
            pieces = content.split([*begins, at])[:-1]  # without the page that is cut
            return Layout(recordings=pieces or ((),), stated=max(end, content.size + 1), present=at)
        at = end
    return Layout(recordings=content.split(begins)) if len(begins) > 1 else None


def _id3(content: _Content) -> Layout | None:
    """A tag of players, in front of MP3 or of something else."""
    begin = id3_size(content.head) if len(content.head) >= 10 else 0
    return _mpeg(content, begin, content.size) if content.at(begin, 1) == b"\xff" else None


def _bare_mpeg(content: _Content) -> Layout | None:
    return _mpeg(content, 0, content.size)


def _mpeg(content: _Content, begin: int, end: int, *, bare: bool = True) -> Layout | None:
    """Frames of MPEG audio. A `bare` file of them is read as it is, where libsndfile finds them all."""
    found = recordings(content.at, begin, end)
    if not found:
        return None
    as_it_is = bare and len(found) == 1 and found[0].length_is_clear
    pieces = tuple(_with_room(one, content.size) for one in found)
    stated = sum(max(one.frames, (one.tagged or 0) - _SPARE_FRAME) for one in found)
    return Layout(
        recordings=((),) if as_it_is else pieces,
        stated=stated,
        present=sum(one.frames for one in found),
        unit="frames",
    )


def _with_room(recording: FrameRun, size: int) -> Pieces:
    """One recording, as libsndfile reads all of it.

    libsndfile divides the size by that of the first frames and stops there. So the file seems to be longer
    where that would be too few: reading stops at bytes behind the end of the file. Players' tags are looked
    for in the last bytes.
    """
    if recording.length_is_clear:
        return (range(recording.begin, recording.end),)
    room = 2 * recording.frames * recording.largest
    return range(recording.audio, recording.end), range(size, size + room), bytes(_ID3V1)


_FORMATS: Final = {
    b"RIFF": _wave,
    b"RIFX": _wave,
    b"RF64": _wave,
    b"FORM": _iff,
    b"caff": _core_audio,
    b"riff": _wave64,
    b".snd": _au,
    b"dns.": _au,
    b"NIST": _nist,
    b"Creative Voice File": _voc,
    b"2BIT": _avr,
    b"\1\4": _mpc2k,
    b"ALawSoundFile": _wve,
    b"Extended Instrument: ": _xi,
    struct.pack("<3I", 0, 1, 1): _mat4,
    struct.pack(">3I", 1000, 1, 1): _mat4,
    b"MATLAB 5": _mat5,
    b"\xf0\x7e": _sds,
    b"fLaC": _flac,
    b"OggS": _ogg,
    b"ID3": _id3,
    b"\xff": _bare_mpeg,
}
