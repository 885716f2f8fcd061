"""What kind of audio file something is, by its content, where libsndfile has refused it.

This tells a file that needs another reader from a file that is no audio, or broken. A container that is
named here is one that the second reader (av_reader) may open: the list is closed, and has no format that
leads to another file, such as playlists.
"""

import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from ..spec import MAX_RATE, MIN_RATE
from ..system.host import pread
from .containers import Chunk
from .mpeg_frames import id3_size, recordings
from .signatures import IMAGE_BRANDS

_HEAD: Final = 1 << 20  # bytes that are looked at
_JUNK: Final = 1 << 16  # bytes that may stand in front of a format without a header
_INDEX: Final = 1 << 26  # bytes of an MP4's index that are looked at
_TAGS: Final = 4  # ID3 tags in front of the sound that are passed over
_FRAMES: Final = 3  # of a format without a header, one behind the other, until it is believed


class Container(NamedTuple):
    """A kind of file that the second reader reads."""

    words: str
    demuxer: str  # FFmpeg's name
    matches: Callable[[bytes], object]  # is given the first bytes of a file


def container_of(descriptor: int) -> Container | None:
    """The container of a file that libsndfile refuses; None for what is no audio, or too broken to tell."""
    head = pread(descriptor, _HEAD, tags_size(descriptor))
    return next((container for container in CONTAINERS if container.matches(head)), None)


def tags_size(descriptor: int) -> int:
    """Bytes of ID3 tags, which may stand in front of any format."""
    size = 0
    for _ in range(_TAGS):
        tag = pread(descriptor, 10, size)
        if len(tag) < 10 or tag[:3] != b"ID3":
            break
        size += id3_size(tag)
    return size


def _begins(pattern: bytes) -> Callable[[bytes], object]:
    return re.compile(pattern, re.DOTALL).match


def _is_wave(head: bytes) -> bool:
    """A WAV file with a format that can be true, and with a chunk of sound."""
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:12] != b"WAVE":
        return False
    at = head.find(b"fmt ")
    if at < 0 or b"data" not in head or len(head) < at + 24:
        return False
    channels, rate = struct.unpack_from("<HI", head, at + 10)
    return bool(0 < channels < 256 and MIN_RATE <= rate <= MAX_RATE)


def _is_aiff(head: bytes) -> bool:
    """Whether a file begins as AIFF does, with a plausible rate: a float of 80 bits, 2^11 to 2^19 Hz."""
    if not _begins(rb"FORM....AIF[FC].*COMM.*SSND")(head):
        return False
    at = head.index(b"COMM")
    if len(head) < at + 18:
        return False
    channels, exponent = struct.unpack_from(">H6xH", head, at + 8)
    return bool(0 < channels < 256 and 11 <= exponent - 0x3FFF < 19)


def _is_film(head: bytes) -> bool:
    """An MP4 or QuickTime file. Pictures (HEIC, AVIF) have the same container."""
    if head[4:8] == b"ftyp":
        return head[8:12] not in IMAGE_BRANDS
    return head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def _is_packets(head: bytes) -> bool:
    """MPEG-TS: packets of 188 bytes, or of 192 with a time in front, that begin with the same byte."""
    return any(
        len(head) > start + 3 * length and all(head[start + i * length] == 0x47 for i in range(4))
        for start, length in ((0, 188), (4, 192))
    )


def _chain(head: bytes, length_at: Callable[[bytes, int], int]) -> bool:
    """Whether some byte begins several frames in a row. `length_at` gives a frame's length, or 0."""
    for found in re.finditer(rb"[\xff\x56]", head[:_JUNK]):
        place = found.start()
        for _ in range(_FRAMES):
            length = length_at(head, place)
            if not length:
                break
            place += length
        else:
            return True
    return False


def _adts_length(head: bytes, place: int) -> int:
    if len(head) < place + 7 or head[place] != 0xFF or head[place + 1] & 0xF6 != 0xF0:
        return 0
    if head[place + 2] >> 2 & 15 > 12:  # no sampling rate
        return 0
    length = (head[place + 3] & 3) << 11 | head[place + 4] << 3 | head[place + 5] >> 5
    return length if length > 7 else 0


def _latm_length(head: bytes, place: int) -> int:
    if len(head) < place + 3 or head[place] != 0x56 or head[place + 1] & 0xE0 != 0xE0:
        return 0
    return 3 + ((head[place + 1] & 0x1F) << 8 | head[place + 2])


def _is_mpeg_audio(head: bytes) -> bool:
    """Several frames of MP3, MP2 or MP1, one behind the other or behind something else."""
    found = recordings(lambda begin, count: head[begin : begin + count], 0, min(len(head), _JUNK))
    return sum(recording.frames for recording in found) >= _FRAMES


def _is_ogg_beyond_libsndfile(head: bytes) -> bool:
    """Ogg with anything but one stream of Vorbis or Opus."""
    if head[:5] != b"OggS\0" or len(head) < 64:
        return False
    body = 27 + head[26]
    packet, second = head[body : body + 19], body + sum(head[27:body])
    if packet[:7] == b"\x01vorbis" or packet[:8] == b"OpusHead":
        other_mapping = packet[:1] == b"O" and packet[18:] > b"\1"
        return other_mapping or (head[second : second + 5] == b"OggS\0" and head[second + 5] & 2 != 0)
    return packet.startswith((b"Speex   ", b"\x7fFLAC", b"fishead\0", b"\x80theora", b"\x01video", b"BBCD"))


def _is_flac_beyond_libsndfile(head: bytes) -> bool:
    """A FLAC file behind an ID3 tag, or with another number of bits than libsndfile knows (32, 20, 12)."""
    if not _begins(rb"fLaC[\x00\x80]\x00\x00\x22.{34}")(head):
        return False
    bits = (head[20] & 1) << 4 | head[21] >> 4
    return bits + 1 not in (8, 16, 24)


CONTAINERS: Final = (
    Container("MP4, M4A, MOV or 3GP", "mov", _is_film),
    Container("Matroska or WebM", "matroska", _begins(rb"\x1aE\xdf\xa3")),
    Container("Ogg with Speex, FLAC or several streams", "ogg", _is_ogg_beyond_libsndfile),
    Container("AMR", "amr", _begins(rb"#!AMR")),
    Container("WavPack", "wv", _begins(rb"wvpk")),
    Container("ASF (WMA)", "asf", _begins(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11")),
    Container("Monkey's Audio", "ape", _begins(rb"MAC ")),
    Container("True Audio", "tta", _begins(rb"TTA1")),
    Container("TAK", "tak", _begins(rb"tBaK")),
    Container("Musepack", "mpc8", _begins(rb"MPCK")),
    Container("Musepack", "mpc", _begins(rb"MP\+")),
    Container("DSD", "dsf", _begins(rb"DSD \x1c")),
    Container("DSD or 8SVX", "iff", _begins(rb"FRM8.{8}DSD |FORM....(8SVX|16SV)")),
    Container("FLAC of unusual depth", "flac", _is_flac_beyond_libsndfile),
    Container("AVI", "avi", _begins(rb"RIFF....AVI[ X\x19]")),
    Container("QCP", "qcp", _begins(rb"RIFF....QLCM")),
    Container("xWMA", "xwma", _begins(rb"RIFF....XWMA")),
    Container("WAV", "wav", _is_wave),
    Container("AIFF", "aiff", _is_aiff),
    Container("CAF", "caf", _begins(rb"caff\x00\x01")),
    Container("Wave64", "w64", _begins(rb"riff\x2e\x91\xcf\x11")),
    Container("AU", "au", _begins(rb"\.snd\x00\x00...{4}\x00\x00\x00[\x17-\x1a]")),
    Container("VOC", "voc", _begins(rb"Creative Voice File\x1a")),
    Container("SPHERE with Shorten", "nistsphere", _begins(rb"NIST_1A.{1,1000}embedded-shorten")),
    Container("Shorten", "shn", _begins(rb"ajkg")),
    Container("SoX", "sox", _begins(rb"\.SoX|XoS\.")),
    Container("RealAudio", "rm", _begins(rb"\.RMF\x00|\.ra\xfd\x00")),
    Container("Flash", "flv", _begins(rb"FLV\x01")),
    Container("MPEG programme stream", "mpeg", _begins(rb"\x00\x00\x01\xba")),
    Container("MPEG transport stream", "mpegts", _is_packets),
    Container("DSS", "dss", _begins(rb"[\x02\x03]dss")),
    Container("iLBC", "ilbc", _begins(rb"#!iLBC[23]0\n")),
    Container("QOA", "qoa", _begins(rb"qoaf")),
    Container("ATRAC", "oma", _begins(rb"(ea3|EA3)[\x01\x03]")),
    Container("AC-3", "ac3", _begins(rb"\x0b\x77.{62,4094}\x0b\x77")),
    Container("TrueHD or MLP", "truehd", _begins(rb".{4}\xf8\x72\x6f[\xba\xbb]")),
    Container("DTS", "dts", _begins(rb"\x7f\xfe\x80\x01")),
    Container("AAC", "aac", lambda head: _chain(head, _adts_length)),
    Container("AAC in LATM", "loas", lambda head: _chain(head, _latm_length)),
    Container("MPEG audio", "mp3", _is_mpeg_audio),
)


def cut_off(descriptor: int, container: Container) -> str:
    """What is missing of a file whose container states its length; "" where nothing is, or nobody knows."""
    size = os.fstat(descriptor).st_size
    match container.demuxer:
        case "mov":
            stated = max((box.begin + box.size for box in _boxes(descriptor, size)), default=0)
        case "matroska":
            stated = _segment_end(pread(descriptor, _HEAD, 0))
        case "avi" | "qcp" | "xwma":
            head = pread(descriptor, 8, 0)
            stated = 8 + struct.unpack("<I", head[4:8])[0] if len(head) == 8 else 0
        case "ogg":
            stated = max((page.begin + page.size for page in _pages(descriptor, size)), default=0)
        case "w64":
            stated = int.from_bytes(pread(descriptor, 8, 16), "little")
        case "caf":
            stated = max((chunk.begin + chunk.size for chunk in _caf_chunks(descriptor, size)), default=0)
        case "asf":
            stated = _asf_size(pread(descriptor, _HEAD, 0))
        case _:
            return ""
    return f"{size} of {stated} bytes" if stated > size else ""


def names_another_file(descriptor: int, container: Container) -> bool:
    """Whether an MP4 or QuickTime file says that some of its samples lie in another file."""
    if container.demuxer != "mov":
        return False
    for box in _boxes(descriptor, os.fstat(descriptor).st_size):
        if box.name == b"moov":
            content = pread(descriptor, min(box.size, _INDEX), box.begin)
            return any(_has_reference(content, found.end()) for found in re.finditer(b"dref", content))
    return False


def _has_reference(content: bytes, begin: int) -> bool:
    """Whether one of the entries of a dref box lacks the flag "in this file"."""
    count = int.from_bytes(content[begin + 4 : begin + 8], "big")
    begin += 8
    for _ in range(min(count, 16)):
        if len(content) < begin + 12:
            return False
        size, flags = struct.unpack_from(">I4xI", content, begin)
        if not flags & 1:
            return True
        begin += max(size, 12)
    return False


def _boxes(descriptor: int, size: int) -> Iterator[Chunk]:
    """The boxes of an MP4 file up to the first thing that is none."""
    begin = 0
    while begin + 8 <= size:
        head = pread(descriptor, 16, begin)
        length, name = struct.unpack(">I4s", head[:8])
        inner = begin + 8
        if length == 1 and len(head) == 16:
            inner, length = begin + 16, struct.unpack(">Q", head[8:])[0]
        if name not in _BOXES or begin + length < inner:  # a length of 0: up to the end of the file
            return
        yield Chunk(name, inner, begin + length - inner)
        begin += length


def broken_pages(descriptor: int) -> int:
    """Pages of an Ogg file with a wrong checksum. Both readers leave such pages out, and say nothing."""
    if pread(descriptor, 4, 0) != b"OggS":
        return 0
    size = os.fstat(descriptor).st_size
    return sum(
        page.begin + page.size <= size and _ogg_checksum(pread(descriptor, page.size, page.begin)) != 0
        for page in _pages(descriptor, size)
    )


def _pages(descriptor: int, size: int) -> Iterator[Chunk]:
    """The pages of an Ogg file, with their headers. What is between pages is passed over."""
    begin = 0
    while begin + 27 <= size:
        head = pread(descriptor, 27 + 255, begin)
        if head[:4] == b"OggS":
            length = 27 + head[26] + sum(head[27 : 27 + head[26]])
            yield Chunk(b"OggS", begin, length)
            begin += length
        else:
            found = pread(descriptor, _JUNK, begin + 1).find(b"OggS")
            begin += 1 + found if found >= 0 else _JUNK


_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_checksum(page: bytes) -> int:
    """0 for a page as it was written.

    Ogg's CRC takes the bits of zlib's in the other order, and its own field as zero.
    """
    bare = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(bare.translate(_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{crc:032b}"[::-1], 2) ^ int.from_bytes(page[22:26], "little")


def _caf_chunks(descriptor: int, size: int) -> Iterator[Chunk]:
    """The chunks of a CAF file. The last one may have the length -1: up to the end of the file."""
    begin = 8
    while begin + 12 <= size:
        name, length = struct.unpack(">4sq", pread(descriptor, 12, begin))
        if length < 0 or not name.isalnum():
            return
        yield Chunk(name, begin + 12, length)
        begin += 12 + length


_BOXES: Final = frozenset(b"ftyp moov mdat free skip wide moof mfra styp sidx uuid meta pnot udta".split())


def _segment_end(head: bytes) -> int:
    """Where the segment of a Matroska file ends; 0 where that is not stated, as in live recordings."""
    header = _ebml_size(head, 4)
    if not header:
        return 0
    size, width = header
    segment = 4 + width + size
    if head[segment : segment + 4] != b"\x18\x53\x80\x67":
        return 0
    inside = _ebml_size(head, segment + 4)
    return segment + 4 + inside[1] + inside[0] if inside else 0


def _ebml_size(head: bytes, place: int) -> tuple[int, int] | None:
    """A size, and how many bytes it takes; None where it is unknown."""
    first = head[place : place + 1]
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    value = int.from_bytes(head[place : place + width], "big") & (1 << 7 * width) - 1
    return None if value == (1 << 7 * width) - 1 else (value, width)


def _asf_size(head: bytes) -> int:
    """The size of an ASF file by its header; 0 for a broadcast, which has none."""
    at = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    if at < 0 or len(head) < at + 92:
        return 0
    (size,), (flags,) = struct.unpack_from("<Q", head, at + 40), struct.unpack_from("<I", head, at + 88)
    return 0 if flags & 1 else int(size)
