"""What files say of their length and parts, against what libsndfile makes of them."""

import functools
import io
import itertools
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.codes import ERROR_CODES, FLAGS
from rrtn.runtime.audio.containers import _FORMATS, PiecesFile, layout_of
from rrtn.runtime.audio.level import levelled
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.errors import AudioError

Samples = NDArray[np.float64]
RATE = 16_000


def speech(frames: int = 2 * RATE, seed: int = 0) -> Samples:
    noise = np.random.default_rng(seed).normal(0, 0.1, frames)
    return noise * (1.1 + np.sin(np.arange(frames) / 3_000))


def content(path: Path, samples: Samples, format: str, subtype: str = "", rate: int = RATE) -> bytearray:
    """What libsndfile writes."""
    soundfile.write(path, samples, rate, format=format, subtype=subtype or soundfile.default_subtype(format))
    return bytearray(path.read_bytes())


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def code_of(path: Path, spec: FrontendSpec) -> str:
    """The code of its error, or its flags; empty where it is whole."""
    try:
        return ";".join(read_audio(path, spec).flags)
    except AudioError as error:
        return error.code


def assert_same_sound(path: Path, expected: Path, spec: FrontendSpec, **options: bool) -> None:
    ours, theirs = read_audio(path, spec, **options), read_audio(expected, spec)
    np.testing.assert_array_equal(ours.samples, theirs.samples)


# Cut-off files

NO_LENGTH = {"IRCAM", "PAF", "PVF", "XI"}  # the format, or libsndfile's way to write it, has none
OTHERWISE = {"FLAC": "corrupt", "HTK": "unsupported_format"}  # docs/scoring.md says why
NEVER_READ = {"RAW", "SD2"}  # without a header, and with one in a file of its own


@functools.cache
def pairs() -> list[tuple[str, str]]:
    return [*_pairs()]


def _pairs() -> Iterator[tuple[str, str]]:
    for format in sorted(soundfile.available_formats()):
        for subtype in sorted(soundfile.available_subtypes(format)):
            if format not in NEVER_READ and writable(format, subtype):
                yield format, subtype


def writable(format: str, subtype: str) -> bool:
    """libsndfile only reads some of what it lists."""
    try:
        soundfile.write(io.BytesIO(), np.zeros(100), RATE, format=format, subtype=subtype)
    except (soundfile.LibsndfileError, ValueError):
        return False
    return True


@pytest.mark.parametrize("format", sorted({format for format, _ in pairs()}))
def test_n28_a_cut_off_file_of_every_format_is_truncated(
    tmp_path: Path, spec: FrontendSpec, format: str
) -> None:
    """Every subtype, byte order and number of channels; cut in the middle, and a quarter behind it."""
    expected = "" if format in NO_LENGTH else OTHERWISE.get(format, "truncated")
    tried, mono = 0, speech(RATE)
    for (_, subtype), channels, endian in itertools.product(
        [pair for pair in pairs() if pair[0] == format], (1, 2), ("FILE", "LITTLE", "BIG")
    ):
        whole = tmp_path / f"{subtype}.{channels}.{endian}"
        samples = np.stack([mono] * channels, axis=1)
        try:
            soundfile.write(whole, samples, RATE, format=format, subtype=subtype, endian=endian)
        except (soundfile.LibsndfileError, ValueError):
            continue  # the format has no such byte order or number of channels
        tried += 1
        data = whole.read_bytes()
        assert code_of(whole, spec) == "", whole.name
        for share in (0.5, 0.75):
            assert code_of(put(tmp_path / "cut", data[: int(share * len(data))]), spec) == expected, (
                whole.name
            )
    assert tried


@pytest.mark.parametrize(
    ("format", "subtype"), [pair for pair in pairs() if pair[0] not in {*NO_LENGTH, *OTHERWISE}]
)
def test_n28_what_is_there_of_a_cut_off_file_is_scored_on_request(
    tmp_path: Path, spec: FrontendSpec, format: str, subtype: str
) -> None:
    """No sample more than is there: SDS repeated its last packet."""
    data = content(tmp_path / "whole", speech(), format, subtype)
    whole = read_audio(tmp_path / "whole", spec)
    cut = put(tmp_path / "cut", data[: len(data) // 2])
    try:
        audio = read_audio(cut, spec, allow_truncated=True)
    except AudioError as error:  # one page of Vorbis may be a second
        assert (format, error.code) in {("OGG", "empty"), ("OGG", "truncated")}
        return
    assert "truncated" in audio.flags
    assert 0.2 < audio.seconds / whole.seconds < 0.6


@pytest.mark.parametrize(
    "format", ["WAV", "AIFF", "AU", "CAF", "W64", "RF64", "NIST", "AVR", "SVX", "MAT5", "VOC"]
)
def test_n13_a_length_that_is_a_little_too_large_is_no_truncation(
    tmp_path: Path, spec: FrontendSpec, format: str
) -> None:
    """Some recorders count bytes of the header: 44 of them here."""
    data = content(tmp_path / "whole", speech(), format)
    short = put(tmp_path / "short", data[:-44])
    audio = read_audio(short, spec)
    assert audio.flags == ()
    assert 0 <= 2.0 - audio.seconds < 0.003


# Lengths that a recorder never filled in


def zeroed(data: bytearray, *fields: tuple[int, int]) -> bytes:
    for offset, size in fields:
        data[offset : offset + size] = bytes(size)
    return bytes(data)


def unfinished(format: str, data: bytearray) -> list[bytes]:
    """The file as recorders leave it that are stopped: without its sizes, in one way or another."""
    at = data.find
    match format:
        case "WAV" | "WAVEX":
            counts = [(at(b"fact") + 8, 4)] if b"fact" in data else []
            sizes = [(4, 4), (at(b"data") + 4, 4), *counts]
            only_data = zeroed(data.copy(), sizes[1])
            header_only = bytearray(zeroed(data.copy(), *sizes))
            header_only[4:8] = struct.pack("<I", at(b"data"))
            return [zeroed(data, *sizes), only_data, bytes(header_only)]
        case "RF64":
            return [zeroed(data, (at(b"ds64") + 8, 24))]
        case "AIFF":
            without = zeroed(data.copy(), (4, 4), (at(b"SSND") + 4, 4), (at(b"COMM") + 10, 4))
            eight = bytearray(without)
            eight[at(b"SSND") + 7] = 8
            return [without, bytes(eight)]
        case "AU":
            return [zeroed(data, (8, 4))]
        case "CAF":
            return [zeroed(data, (at(b"data") + 4, 8))]
        case "W64":
            first = zeroed(data.copy(), (16, 8), (at(b"data") + 16, 8))
            second = bytearray(first)
            second[at(b"data") + 16] = 24
            return [first, bytes(second)]
        case "SVX":
            return [zeroed(data, (4, 4), (at(b"BODY") + 4, 4))]
        case "NIST":
            return [bytes(data.replace(b"sample_count -i 32000", b"sample_count -i 0    "))]
    raise AssertionError(format)


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        *(("WAV", kind) for kind in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "GSM610")),
        *((format, "") for format in ("WAVEX", "RF64", "AIFF", "AU", "CAF", "W64", "SVX", "NIST")),
    ],
)
def test_n13_what_a_stopped_recorder_left_is_read_to_its_end(
    tmp_path: Path, spec: FrontendSpec, format: str, subtype: str
) -> None:
    data = content(tmp_path / "whole", speech(), format, subtype)
    for number, left in enumerate(unfinished(format, data)):
        path = put(tmp_path / f"{number}", left)
        assert read_audio(path, spec).flags == ("no_length",), number
        assert_same_sound(path, tmp_path / "whole", spec)


def test_n13_a_whole_file_without_samples_is_empty_whatever_follows(
    tmp_path: Path, spec: FrontendSpec
) -> None:
    """A chunk of text behind an empty chunk of sound is no recording."""
    empty = content(tmp_path / "whole", np.zeros(0), "WAV")
    text = (
        b"LIST" + struct.pack("<I", 5_000) + b"INFOICMT" + struct.pack("<I", 4_988) + b"words " * 831 + b"  "
    )
    assert code_of(put(tmp_path / "a.wav", empty + text), spec) == "empty"
    cue = b"cue " + struct.pack("<II", 4, 0)
    assert code_of(put(tmp_path / "b.wav", empty + cue + text), spec) == "empty"


def test_n13_a_long_header_does_not_hide_what_a_stopped_recorder_left(
    tmp_path: Path, spec: FrontendSpec
) -> None:
    data = content(tmp_path / "whole", speech(), "WAV")
    at, room = data.index(b"data"), 17 << 20
    with (tmp_path / "a.wav").open("wb") as file:
        file.write(data[:at] + b"JUNK" + struct.pack("<I", room))
        file.seek(room, os.SEEK_CUR)
        file.write(b"data" + bytes(4) + data[at + 8 :])
    assert read_audio(tmp_path / "a.wav", spec).flags == ("no_length",)
    assert_same_sound(tmp_path / "a.wav", tmp_path / "whole", spec)


# Sizes of more than 32 bits. The files are holes between a header and a last frame, and take no room.

GIB = 1 << 30
LAST = -0.5  # the last frame
KINDS = [
    ("WAV", "LITTLE"),
    ("WAV", "BIG"),
    ("WAVEX", "LITTLE"),
    ("AIFF", "BIG"),
    ("SVX", "BIG"),
    ("AU", "BIG"),
]


def huge(path: Path, format: str, endian: str, stated: int, size: int, *, has_more: bool = False) -> Path:
    """A file with `size` bytes of sound, whose header says `stated`, and other chunks behind it."""
    soundfile.write(path, [LAST], RATE, format=format, subtype="PCM_16", endian=endian)
    data, order = path.read_bytes(), "<" if endian == "LITTLE" else ">"
    name, unused = {"AIFF": (b"SSND", 8), "SVX": (b"BODY", 0), "AU": (b".snd", 16)}.get(format, (b"data", 0))
    at = data.rindex(name) + (8 if format == "AU" else 4)
    if format == "AIFF" and 0 < stated < 0xFFFF_FFFF:
        stated += unused
    begin = at + 4 + (len(data) - 2 - at - 4 if format == "AU" else unused)
    with path.open("wb") as file:
        file.write(data[:at] + struct.pack(f"{order}I", stated) + data[at + 4 : begin])
        file.seek(size - 2, os.SEEK_CUR)
        file.write(data[begin : begin + 2])
        if has_more:
            file.write(b"cue " + bytes(4) + b"LIST" + struct.pack(f"{order}I", 4) + b"INFO")
    return path


def heard(path: Path) -> tuple[int, float, bool]:
    """Bytes of sound of all recordings in a file, the last frame, and whether the length is none."""
    size, last = 0, 0.0
    with path.open("rb") as file:
        layout = layout_of(file.fileno())
        for pieces in layout.recordings:
            recording = PiecesFile(file.fileno(), pieces or (range(path.stat().st_size),))
            with soundfile.SoundFile(io.BufferedReader(recording)) as sound:
                size += 2 * sound.frames
                sound.seek(sound.frames - 1)
                last = float(sound.read()[0])
    return size, last, layout.unfinished


@pytest.mark.parametrize(("format", "endian"), KINDS)
@pytest.mark.parametrize(
    ("stated", "size"),
    [
        *((stated, 5 * GIB) for stated in (0, 100, 0x7FFF_F000, 0xFFFF_F000)),
        *((stated, 3 * GIB) for stated in (0, 0x7FFF_F000, 0x7FFF_FFFF)),
    ],
)
def test_n13_what_lies_behind_a_size_that_is_none_is_heard_and_flagged(
    tmp_path: Path, format: str, endian: str, stated: int, size: int
) -> None:
    path = huge(tmp_path / "a", format, endian, stated, size)
    assert heard(path) == (size, LAST, True)


@pytest.mark.parametrize(("format", "endian"), KINDS)
def test_n13_the_largest_size_says_that_it_is_none(tmp_path: Path, format: str, endian: str) -> None:
    """libsndfile writes it into WAV of more than 4 GiB, ffmpeg into a pipe. AU itself defines it so."""
    path = huge(tmp_path / "a", format, endian, 0xFFFF_FFFF, 5 * GIB)
    assert heard(path) == (5 * GIB, LAST, format != "AU")


@pytest.mark.parametrize(("format", "endian"), KINDS)
@pytest.mark.parametrize("size", [100, 3 * GIB, 4 * GIB + 100, 13 * GIB])
@pytest.mark.parametrize("has_more", [False, True])
def test_n13_a_true_size_and_the_lower_half_of_one_end_the_sound_before_other_chunks(
    tmp_path: Path, format: str, endian: str, size: int, has_more: bool
) -> None:
    """libsndfile writes the lower half into AIFF."""
    has_more = has_more and format != "AU"  # which has no chunks
    path = huge(tmp_path / "a", format, endian, size % (1 << 32), size, has_more=has_more)
    assert heard(path) == (size, LAST, False)


def test_n13_recordings_behind_each_other_may_be_longer_together(tmp_path: Path) -> None:
    data = content(tmp_path / "one", np.full(1, LAST), "WAV")
    with (tmp_path / "all").open("wb") as file:
        for _ in range(3):
            file.write(data[:4] + struct.pack("<I", 3 * GIB + 36) + data[8:40] + struct.pack("<I", 3 * GIB))
            file.seek(3 * GIB - 2, os.SEEK_CUR)
            file.write(data[44:])
    assert heard(tmp_path / "all") == (9 * GIB, LAST, False)


# Recordings behind each other


@pytest.mark.parametrize(
    ("format", "subtype"),
    [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("FLAC", "PCM_16"), ("WAV", "PCM_16")],
)
@pytest.mark.parametrize("count", [2, 3])
def test_n13_recordings_behind_each_other_are_all_read(
    tmp_path: Path, spec: FrontendSpec, format: str, subtype: str, count: int
) -> None:
    """What each of them alone decodes to, one behind the other."""
    alone = [tmp_path / f"{number}" for number in range(count)]
    data = [content(path, speech(seed=number), format, subtype) for number, path in enumerate(alone)]
    audio = read_audio(put(tmp_path / "all", b"".join(data)), spec)
    expected = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in alone])
    assert audio.samples.shape == expected.shape
    assert np.abs(audio.samples.astype(int) - levelled(expected, spec)).max() <= 1
    assert audio.flags == ()


@pytest.mark.parametrize(
    ("format", "subtype"), [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("WAV", "PCM_16")]
)
def test_n13_the_rate_and_the_channels_may_change_between_recordings(
    tmp_path: Path, spec: FrontendSpec, format: str, subtype: str
) -> None:
    first = content(tmp_path / "1", speech(), format, subtype)
    second = content(tmp_path / "2", np.stack([speech(44_100, 1)] * 2, axis=1), format, subtype, rate=44_100)
    audio = read_audio(put(tmp_path / "all", first + second), spec)
    parts = [read_audio(tmp_path / name, spec) for name in "12"]
    assert audio.seconds == sum(part.seconds for part in parts)
    for part, heard in zip(parts, np.split(audio.samples, [len(parts[0].samples)]), strict=True):
        assert np.corrcoef(part.samples, heard)[0, 1] > 0.999_99


def test_n13_a_cut_in_the_last_of_several_recordings_is_seen(tmp_path: Path, spec: FrontendSpec) -> None:
    for format, subtype in (("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")):
        data = content(tmp_path / "1", speech(8 * RATE), format, subtype)
        assert code_of(put(tmp_path / "2", data + data[: len(data) // 2]), spec) == "truncated"


# MP3


def without_tag(mp3: bytes) -> bytes:
    """Without the frame in front that has the number of frames."""
    second = mp3.index(mp3[:2], 4)
    assert b"Info" in mp3[:second] or b"Xing" in mp3[:second]
    return mp3[second:]


def variable(path: Path, samples: Samples, rate: int) -> bytes:
    """MP3 of variable bit rate without a tag."""
    with soundfile.SoundFile(
        path, "w", rate, 1, "MPEG_LAYER_III", format="MP3", compression_level=0.1, bitrate_mode="VARIABLE"
    ) as file:
        file.write(samples)
    return without_tag(path.read_bytes())


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("loud", ["first", "last"])
def test_n13_the_length_of_variable_mp3_is_counted_and_not_guessed(
    tmp_path: Path, spec: FrontendSpec, rate: int, loud: str
) -> None:
    """libsndfile guesses from the first frames: too long, or too short, and then it leaves out the end."""
    noise = 0.3 * np.random.default_rng(0).normal(size=rate)
    sound = np.concatenate([noise, 1e-3 * np.sin(np.arange(9 * rate) / 9)])
    data = variable(tmp_path / "tagged.mp3", sound if loud == "first" else sound[::-1], rate)
    path = put(tmp_path / "a.mp3", data)
    guess = soundfile.info(path).duration
    assert guess < 8 or guess > 12, "the guess is wrong"
    audio = read_audio(path, spec, max_seconds=10.5)
    assert audio.seconds == pytest.approx(10, abs=0.2)
    assert audio.flags == ()
    seconds = np.abs(audio.samples[: 10 * RATE].reshape(10, RATE).astype(int)).max(axis=1)
    assert seconds[0 if loud == "first" else -1] > 100 * seconds[5] > 0, "each second is where it was"


@pytest.mark.parametrize("max_seconds", [9.0, 11.0])
def test_n13_limits_are_held_against_what_was_decoded(
    tmp_path: Path, spec: FrontendSpec, max_seconds: float
) -> None:
    quiet_first = np.concatenate([np.zeros(5 * RATE), 0.3 * np.random.default_rng(0).normal(size=5 * RATE)])
    path = put(tmp_path / "a.mp3", variable(tmp_path / "tagged.mp3", quiet_first, RATE))
    assert soundfile.info(path).duration > 11
    if max_seconds > 10:
        assert read_audio(path, spec, max_seconds=max_seconds).seconds == pytest.approx(10, abs=0.2)
    else:
        with pytest.raises(AudioError, match="too_long"):
            read_audio(path, spec, max_seconds=max_seconds)


def test_n13_limits_hold_for_all_recordings_of_a_file_together(tmp_path: Path, spec: FrontendSpec) -> None:
    data = content(tmp_path / "1", speech(), "OGG", "VORBIS")
    path = put(tmp_path / "5", data * 5)
    assert read_audio(path, spec, max_seconds=10).seconds == 10
    with pytest.raises(AudioError, match="too_long"):
        read_audio(path, spec, max_seconds=9.5)


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("size", ["right", "zero"])
def test_n13_mp3_in_a_wav_file_is_whole(tmp_path: Path, spec: FrontendSpec, rate: int, size: str) -> None:
    mp3 = content(tmp_path / "a.mp3", speech(2 * rate), "MP3", rate=rate)
    form = struct.pack("<HHIIHH", 0x55, 1, rate, 8_000, 1, 0) + struct.pack("<HHIHHH", 12, 1, 2, 1_152, 1, 0)
    body = b"fmt " + struct.pack("<I", len(form)) + form + b"fact" + struct.pack("<II", 4, 2 * rate)
    data = b"data" + struct.pack("<I", len(mp3) if size == "right" else 0) + mp3
    wav = put(tmp_path / "a.wav", b"RIFF" + struct.pack("<I", 4 + len(body + data)) + b"WAVE" + body + data)
    assert read_audio(wav, spec).flags == ()
    assert_same_sound(wav, tmp_path / "a.mp3", spec)


def test_n13_a_tag_of_players_at_either_end_changes_nothing(tmp_path: Path, spec: FrontendSpec) -> None:
    mp3 = content(tmp_path / "a.mp3", speech(), "MP3")
    picture = b"ID3\3\0\0" + bytes([0, 0, 39, 8]) + b"\xff\xfb" * 2_500
    tagged = put(tmp_path / "b.mp3", picture + mp3 + b"TAG" + bytes(125))
    assert_same_sound(tagged, tmp_path / "a.mp3", spec)
    twice = put(tmp_path / "c.mp3", (picture + mp3 + b"TAG" + bytes(125)) * 2)
    assert read_audio(twice, spec).seconds == 2 * read_audio(tagged, spec).seconds


def test_n13_fewer_frames_than_the_tag_of_an_mp3_says_are_a_truncation(
    tmp_path: Path, spec: FrontendSpec
) -> None:
    mp3 = content(tmp_path / "a.mp3", speech(), "MP3")
    assert code_of(put(tmp_path / "b.mp3", mp3[: len(mp3) * 9 // 10]), spec) == "truncated"
    assert code_of(put(tmp_path / "c.mp3", without_tag(mp3)[: len(mp3) // 2]), spec) == ""


# Hostile headers


@pytest.mark.parametrize(
    "magic", [b"MATLAB 5", b"NIST_1A\n", b"RIFF\0\0\0\0WAVE", b"\xf0\x7e", b"OggS", b"\xff\xfb"]
)
def test_n13_headers_of_zeros_or_noise_end_soon_and_raise_nothing_else(
    tmp_path: Path, spec: FrontendSpec, magic: bytes
) -> None:
    noise = np.random.default_rng(zlib.crc32(magic)).bytes(1 << 16)
    for number, tail in enumerate((bytes(1 << 20), noise, b"", b"\xff" * 300)):
        assert code_of(put(tmp_path / f"{number}", magic + tail), spec) in ERROR_CODES


def mutants(sources: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Cut, joined, and with a few bytes or a size changed, most of them in the header."""
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(rng.choice(sources))
        if rng.random() < 0.3:
            data = data[: rng.randrange(1, len(data))]
        if rng.random() < 0.15:
            data += rng.choice(sources)
        for _ in range(rng.choice((0, 1, 2, 4, 8))):
            reach = min(len(data), rng.choice((40, 200, len(data))))
            data[rng.randrange(reach)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        if rng.random() < 0.1:
            at = rng.randrange(60)
            data[at : at + 4] = rng.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
        yield bytes(data)


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_n13_whatever_a_header_says_the_file_is_read_or_has_a_code(
    tmp_path: Path, spec: FrontendSpec, count: int
) -> None:
    sources = [
        bytes(content(tmp_path / "source", speech(8_000), format, subtype))
        for format, subtype in {format: (format, subtype) for format, subtype in pairs()}.values()
    ]
    ogg = bytes(content(tmp_path / "source", speech(8_000), "OGG", "VORBIS"))
    no_beginning = b"OggS\0\0" + ogg[6 : len(ogg) // 2]
    for data in (no_beginning, *mutants([*sources, ogg], count, seed=count)):
        code = code_of(put(tmp_path / "mutant", data), spec)
        assert {*filter(None, code.split(";"))} <= {*ERROR_CODES, *FLAGS}


# Beginnings of every format that headers are looked at of, and words that these look for.
BEGINNINGS = (
    *_FORMATS,
    *(b"RIFF\x10\0\0\0WAVEfmt ", b"RF64\xff\xff\xff\xffWAVEds64", b"RIFF\0\0\0\0AVI ", b"RIFF\0\0\0\0QLCM"),
    *(
        b"FORM\0\0\0\x10AIFFCOMM",
        b"FORM\0\0\0\x10AIFCCOMM",
        b"FORM\0\0\0\x108SVX",
        b"FRM8" + bytes(8) + b"DSD ",
    ),
    *(
        b"OggS\0\2",
        b"fLaC\0\0\0\x22",
        b"ID3\x03\0\0\0\0\0\x0a",
        b"\xff\xfb\x90\0",
        b"\xff\xf1P\x80",
        b"V\xe0\0",
    ),
    *(b"\0\0\0\x10ftypM4A ", b"\0\0\0\x08moov", b"\0\0\0\x01mdat", b"\x1aE\xdf\xa3", b"caff\0\1\0\0"),
    *(b"riff\x2e\x91\xcf\x11", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"NIST_1A\n", b"wvpk", b"MAC ", b"TTA1"),
    *(b"MPCK", b"MP+\7", b"DSD \x1c", b".SoX", b".ra\xfd\0", b".RMF\0", b"FLV\1", b"\0\0\1\xba", b"#!AMR"),
    *(b"\x0b\x77", b"\x7f\xfe\x80\1", b"qoaf", b"EA3\3", b"ajkg", b"tBaK", b".snd\0\0\0\x18"),
)
WORDS = b"data SSND COMM fmt  ds64 moov mdat dref OggS\0 OpusHead \x01vorbis Speex BODY VHDR fact LIST".split(
    b" "
)


@pytest.mark.parametrize("count", [500, pytest.param(30_000, marks=pytest.mark.slow)])
def test_n13_files_that_end_in_the_middle_of_a_header(tmp_path: Path, spec: FrontendSpec, count: int) -> None:
    """Such as none that libsndfile wrote: of a few bytes, with the words in the wrong places."""
    rng = random.Random(count)

    def noise() -> bytes:
        return bytes(
            rng.choice((0, 0, 1, 2, 255, rng.randrange(256))) for _ in range(rng.choice((0, 5, 20, 90)))
        )

    cut = (begin + word for begin in BEGINNINGS for word in WORDS)
    noisy = (rng.choice(BEGINNINGS) + noise() + rng.choice(WORDS) + noise() for _ in range(count))
    for data in (*cut, *noisy):
        code = code_of(put(tmp_path / "file", data), spec)
        assert {*filter(None, code.split(";"))} <= {*ERROR_CODES, *FLAGS}, data
