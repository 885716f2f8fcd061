"""The frames of MPEG audio (MP3, MP2, MP1), one by one.

A file of them states no length. libsndfile guesses the length from the first frames: it stops early in a file
of variable bit rate, and at the first recording where two lie behind each other. So they are counted here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

ReadAt = Callable[[int, int], bytes]  # (offset, count) -> bytes of the file, fewer at its end

_KILOBITS: Final = {  # by (MPEG-1?, layer), from index 1 on
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES: Final = (44_100, 48_000, 32_000)
_HALVINGS: Final = {3: 0, 2: 1, 0: 2}  # of the rate, by version: MPEG-1, 2, 2.5
_TAGS: Final = (b"Xing", b"Info")
_TAG_FRAMES: Final = 1  # flag of a Xing tag: it has the number of frames
_SEARCHED: Final = 1 << 16  # bytes in which the next frame is looked for behind something else


class Frame(NamedTuple):
    """What a header says."""

    size: int  # bytes
    kilobits: int
    kind: tuple[int, int, int, bool]  # version, layer, rate, mono: constant in a recording
    side: int  # bytes between the header and a Xing tag


@dataclass(slots=True)
class FrameRun:
    """Frames of one kind that follow each other, with the tag in front of them."""

    begin: int  # offset of the first frame, or of the tag
    audio: int  # offset of the first frame of sound
    end: int
    tagged: int | None  # frames by the tag, 0 where the tag lacks the number; None without a tag
    frames: int = 0  # without the tag's
    kilobits: int = 0  # of the first frame
    largest: int = 0  # bytes of a frame
    steady: bool = True  # all frames have the first's bit rate

    def add(self, frame: Frame, end: int) -> None:
        """Adds a frame of sound that ends there."""
        self.kilobits = self.kilobits or frame.kilobits
        self.steady = self.steady and frame.kilobits == self.kilobits
        self.largest = max(self.largest, frame.size)
        self.frames += 1
        self.end = end

    @property
    def length_is_clear(self) -> bool:
        """True where libsndfile finds at least as many frames as there are."""
        return self.steady if not self.tagged else self.tagged >= self.frames


def recordings(read: ReadAt, begin: int, end: int) -> list[FrameRun]:
    """The recordings in bytes `begin` to `end` of a file, which begins with one; [] if there is none."""
    found: list[FrameRun] = []
    kind = None
    for offset, frame in _frames(read, begin, end):
        tagged = _tag_at(read, offset, frame)
        if tagged is not None or frame.kind != kind:
            audio = offset if tagged is None else offset + frame.size
            found.append(FrameRun(offset, audio, audio, tagged))
            kind = frame.kind
        if tagged is None:
            found[-1].add(frame, offset + frame.size)
    return [recording for recording in found if recording.frames]


def _frames(read: ReadAt, begin: int, end: int) -> Iterator[tuple[int, Frame]]:
    """(offset, frame) of every whole frame."""
    at = begin
    while at + 4 <= end:
        frame = frame_of_header(read(at, 4))
        if frame is None:
            beyond = _behind_other_things(read, at, end)
            if beyond is None:
                return
            at = beyond
        elif at + frame.size > end:
            return
        else:
            yield at, frame
            at += frame.size


@lru_cache
def frame_of_header(header: bytes) -> Frame | None:
    """The first four bytes; None where they are no header of a frame, or of one of free format."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bit_rate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return None
    mpeg1, mono = version == 3, header[3] >> 6 == 3
    hertz = _RATES[rate] >> _HALVINGS[version]
    kilobits = _KILOBITS[mpeg1, layer][bit_rate - 1]
    padding = header[2] >> 1 & 1
    samples = 384 if layer == 1 else 1152 if layer == 2 or mpeg1 else 576
    if layer == 1:
        size = (12_000 * kilobits // hertz + padding) * 4
    else:
        size = samples * 125 * kilobits // hertz + padding
    side = {(True, False): 32, (False, True): 9}.get((mpeg1, mono), 17)
    return Frame(size, kilobits, (version, layer, hertz, mono), side)


def _tag_at(read: ReadAt, offset: int, frame: Frame) -> int | None:
    """The number of frames by a Xing or Info tag, 0 where the tag lacks it; None where there is no tag."""
    if frame.kind[1] != 3:
        return None
    beginning = read(offset + 4 + frame.side, 14)
    for tag in (beginning, beginning[2:]):  # behind a checksum or not
        if tag[:4] in _TAGS:
            return int.from_bytes(tag[8:12]) if tag[7] & _TAG_FRAMES else 0
    return None


def _behind_other_things(read: ReadAt, at: int, end: int) -> int | None:
    """The next frame behind tags of players, or junk; None where there is none."""
    head = read(at, 32)
    if head.startswith(b"ID3") and len(head) >= 10:
        return at + id3_size(head)
    if head.startswith(b"TAG") and at + 128 <= end:
        return at + 128
    block, i = read(at, min(_SEARCHED, end - at)), 0
    while (i := block.find(b"\xff", i + 1)) > 0:
        if _starts_frames(read, at + i, end):
            return at + i
    return None


def _starts_frames(read: ReadAt, at: int, end: int) -> bool:
    """True where two whole frames of one kind lie behind each other: one may be chance."""
    frame = frame_of_header(read(at, 4))
    follower = frame_of_header(read(at + frame.size, 4)) if frame and at + frame.size + 4 <= end else None
    return frame is not None and follower is not None and frame.kind == follower.kind


def id3_size(head: bytes) -> int:
    """Bytes of the ID3v2 tag that begins so."""
    footer = 10 if head[5] & 0x10 else 0
    return (
        10
        + footer
        + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    )
