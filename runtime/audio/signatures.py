"""What is audio: by a file's suffix, or by how its content begins."""

import os
import re
from pathlib import PurePath
from typing import Final

from ..system.host import open_to_read
from .mpeg_frames import frame_of_header

_READABLE: Final = (  # by libsndfile
    "wav wave bwf rf64 w64 flac ogg oga opus mp1 mp2 mp3 mpa mpga aif aiff aifc au snd caf voc sph nist svx "
    "8svx 16sv avr paf pvf sds wve ircam"
)
# By a second reader, or by none: a row with an error is better than a file that is skipped silently.
_OTHERS: Final = (
    "spx m4a m4b mp4 m4v 3gp 3gpp 3g2 aac ac3 eac3 dts amr awb gsm qcp wma asf avi mov mkv mka webm ogv ogx "
    "flv mpg mpeg wv ape tta tak mpc ofr dsf dff"
)
AUDIO_SUFFIXES: Final = tuple(f".{suffix}".encode() for suffix in f"{_READABLE} {_OTHERS}".split())

_HEAD: Final = 4096  # bytes: two frames of any MPEG audio
_AT_START: Final = (  # with a byte or two that text does not have
    *(b"fLaC\0", b"fLaC\x80", b"OggS\0", b"ID3\x02", b"ID3\x03", b"ID3\x04", b".snd\0", b"caff\0"),
    *(b"NIST_1A\n", b"Creative Voice File\x1a", b"2BIT", b"#!AMR", b"#!SILK", b"#!iLBC", b"wvpk", b"tBaK"),
    *(
        b"MPCK",
        b"MP+\x07",
        b"MP+\x17",
        b"TTA1\x01",
        b"TTA1\x02",
        b"OFR \x0c",
        b"OFR \x0f",
        b"DSD \x1c",
        b"FRM8",
    ),
    *(b".ra\xfd", b".RMF\0", b"FLV\x01", b" paf\0", b"fap \0", b"PVF1\n", b"Extended Instrument:"),
    *(b"ALawSoundFile**", b"\x7f\xfe\x80\x01", b"\0\0\x01\xba"),
    b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb",  # Wave64
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF: WMA
    b"\x1a\x45\xdf\xa3",  # EBML: Matroska, WebM
    *(b"\x64\xa3\x01\0", b"\x64\xa3\x02\0", b"\x64\xa3\x03\0", b"\x64\xa3\x04\0"),  # IRCAM
    *(b"\0\x01\xa3\x64", b"\0\x02\xa3\x64", b"\0\x03\xa3\x64", b"\0\x04\xa3\x64"),
)
_RIFF_KINDS: Final = {b"WAVE", b"AIFF", b"AIFC", b"8SVX", b"16SV", b"AVI ", b"QLCM"}
# Pictures in the container of MP4: HEIF, AVIF and Canon's CR3.
IMAGE_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"avif", b"avis", b"mif1", b"msf1", b"crx "}
)
_ATOMS: Final = {b"moov", b"mdat", b"wide"}  # how QuickTime files of before `ftyp` begin
_TS_PACKET: Final = 188

_JUNK_FOLDERS: Final = re.compile(
    rb"\.trash(es)?|\.trash-\d+|\$recycle\.bin|recycler|recycled|#recycle|@recycle|lost\+found|"
    rb"\.thumbnails?|\.thumbs?|\.@__thumb|@eadir|__macosx|\.appledouble|\.spotlight-v100|\.fseventsd|"
    rb"\.documentrevisions-v100|\.temporaryitems|system volume information",
    re.IGNORECASE,
)
# How names begin of what macOS keeps of a file where the file system takes no more than its content.
_APPLE_DOUBLE: Final = b"._"


def has_audio_suffix(name: bytes) -> bool:
    """Whether the name says that the file is audio."""
    return name.lower().endswith(AUDIO_SUFFIXES)


def audio_stem(name: str) -> str:
    """A file's name without the suffix of audio: rec.WAV -> rec, and rec.001 and .wav as they are."""
    path = PurePath(name)
    return path.stem if has_audio_suffix(os.fsencode(path.suffix)) else name


def holds_audio(path: bytes) -> bool:
    """Whether the file's content begins as audio does. False for a file that cannot be read."""
    try:
        descriptor = open_to_read(path)
    except (OSError, ValueError):
        return False
    try:
        return is_audio(os.read(descriptor, _HEAD))
    except OSError:
        return False
    finally:
        os.close(descriptor)


def is_audio(head: bytes) -> bool:
    """Whether a file that begins with these bytes is audio."""
    return head.startswith(_AT_START) or _is_container(head) or _is_frames(head)


def _is_container(head: bytes) -> bool:
    """Whether the content says later than in its first bytes that it is audio."""
    kind = head[4:8]
    match head[:4]:
        case b"MAC ":  # Monkey's Audio; text may begin so, then a number does not follow
            return head[5:6] in (b"\x0e", b"\x0f")
        case b"dns.":  # a turned .au, likewise
            return head[7:8] == b"\0"
        case b"RIFF" | b"RIFX" | b"RF64" | b"BW64" | b"FORM":
            return head[8:12] in _RIFF_KINDS
    if kind == b"ftyp":
        return head[8:12] not in IMAGE_BRANDS
    return kind in _ATOMS or _is_transport_stream(head)


def _is_transport_stream(head: bytes) -> bool:
    return head[: 3 * _TS_PACKET : _TS_PACKET] == b"\x47" * 3


def is_junk_folder(name: bytes) -> bool:
    """Whether a folder of this name has what a system keeps for itself: thumbnails, or what was deleted."""
    return _JUNK_FOLDERS.fullmatch(name) is not None


def is_apple_double(name: bytes) -> bool:
    """Whether macOS keeps a file's other properties under this name."""
    return name.startswith(_APPLE_DOUBLE)


def _is_frames(head: bytes) -> bool:
    """Two frames of MPEG audio or of ADTS behind each other. One alone may be text in UTF-16."""
    first = _frame_bytes(head)
    return first > 0 and _frame_bytes(head[first:]) > 0


def _frame_bytes(frame: bytes) -> int:
    """The length of a frame by its header; 0 if it is none."""
    if len(frame) < 6 or frame[0] != 0xFF or frame[1] < 0xE0:
        return 0
    if frame[1] >> 1 & 3:
        found = frame_of_header(frame[:4])
        return found.size if found else 0
    is_adts = frame[1] & 0xF6 == 0xF0 and frame[2] >> 2 & 15 < 13
    return (frame[3] & 3) << 11 | frame[4] << 3 | frame[5] >> 5 if is_adts else 0
