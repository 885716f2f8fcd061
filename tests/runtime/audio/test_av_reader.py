"""Issue 16, point 13: what libsndfile refuses is read by PyAV, or the code says that no reader is there."""

import os
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from generated_sounds import Samples, voice, write_av
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.av_reader import opened_by_av
from rrtn.runtime.audio.foreign import CONTAINERS, Container, container_of
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.errors import AudioError, StoppedError, install_command

RATE = 16_000


def read_by_av(path: Path, demuxer: str) -> NDArray[np.float32]:
    """[N, C], by the second reader, whether libsndfile refuses the file or not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with opened_by_av(descriptor, Container("a file", demuxer, bool)) as sound:
            return np.concatenate(list(sound.blocks()))
    finally:
        os.close(descriptor)


def refusal(path: Path, spec: FrontendSpec, **options: Any) -> AudioError:
    with pytest.raises(AudioError) as caught:
        read_audio(path, spec, **options)
    return caught.value


def lag(ours: NDArray[Any], source: NDArray[Any]) -> int:
    """Samples by which `ours` comes later than `source`."""
    size = 1 << (2 * max(len(ours), len(source))).bit_length()
    product = np.fft.rfft(ours, size) * np.fft.rfft(source, size).conj()
    best = int(np.argmax(np.fft.irfft(product)))
    return best if best < size // 2 else best - size


def wav_of(path: Path, samples: Samples, rate: int = RATE) -> Path:
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


@pytest.fixture
def burst() -> Samples:
    return voice(1.5, RATE, 1)


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)


LOSSLESS = {
    "m4a": ("alac", "ipod"),
    "oga": ("flac", "ogg"),
    "mkv": ("flac", "matroska"),
    "mov": ("pcm_s16be", "mov"),
    "avi": ("pcm_s16le", "avi"),
    "wv": ("wavpack", "wv"),
    "tta": ("tta", "tta"),
    "mp4": ("flac", "mp4"),
}


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_n13_lossless_formats_are_read_as_the_same_sound_in_wav_is(
    tmp_path: Path, spec: FrontendSpec, burst: Samples, suffix: str
) -> None:
    codec, container = LOSSLESS[suffix]
    path = tmp_path / "a.wav"  # the content counts, not the name
    sample_format = "s16p" if codec in ("wavpack", "alac") else "s16"
    write_av(path, burst, RATE, codec, container, sample_format=sample_format)
    expected = read_audio(wav_of(tmp_path / "b.wav", burst), spec)
    audio = read_audio(path, spec)
    np.testing.assert_array_equal(audio.samples, expected.samples)
    assert (audio.seconds, audio.start) == (expected.seconds, 0.0)
    assert audio.flags == ("second_reader",)


@pytest.mark.parametrize(
    ("codec", "container", "sample_format"), [("flac", "ogg", "s16"), ("wavpack", "wv", "s16p")]
)
@pytest.mark.parametrize("channels", [2, 6, 8])
def test_n13_channels_are_kept_apart_up_to_8(
    tmp_path: Path, codec: str, container: str, sample_format: str, channels: int
) -> None:
    source = voice(1.0, 16_000, channels)
    write_av(tmp_path / "a", source, 16_000, codec, container, sample_format=sample_format)
    np.testing.assert_array_equal(read_by_av(tmp_path / "a", container), source.astype(np.float32))


LOSSY = {  # -> the samples at the sound's beginning, and at most at its end, that the format cannot take away
    "m4a": ("aac", "ipod", RATE, 0, 1024),
    "3gp": ("libopencore_amrnb", "3gp", 8_000, 31, 160),
    "amr": ("libopencore_amrnb", "amr", 8_000, 82, 160),
    "aac": ("aac", "adts", RATE, 1024, 2048),
    "latm": ("aac", "latm", RATE, 1024, 2048),
    "mp4": ("libopus", "mp4", 48_000, 0, 960),
    "webm": ("libopus", "webm", 48_000, 0, 960),
    "ts": ("aac", "mpegts", RATE, 1024, 2048),
    "flv": ("nellymoser", "flv", 8_000, 128, 512),
    "ac3": ("ac3", "ac3", 48_000, 256, 1536),
    "rm": ("real_144", "rm", 8_000, 160, 320),
}


@pytest.mark.parametrize("suffix", LOSSY)
def test_n13_what_phones_and_browsers_record_begins_and_ends_as_with_ffmpeg(
    tmp_path: Path, spec: FrontendSpec, suffix: str
) -> None:
    codec, container, rate, delay, more = LOSSY[suffix]
    source = voice(1.5, rate, 1)
    path = tmp_path / f"a.{suffix}"
    write_av(path, source, rate, codec, container)
    demuxer = next(c.demuxer for c in CONTAINERS if c.matches(path.read_bytes()))
    sound = read_by_av(path, demuxer)[:, 0]
    assert abs(lag(sound, source[:, 0]) - delay) <= 1
    assert 0 <= len(sound) - len(source) <= delay + more
    audio = read_audio(path, spec)
    assert audio.flags == ("second_reader",)
    assert audio.seconds == pytest.approx(len(sound) / rate, abs=1e-3)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg")
@pytest.mark.parametrize(
    ("codec", "container", "rate"), [("aac", "ipod", 44_100), ("libopus", "webm", 48_000)]
)
def test_n13_samples_are_those_of_the_ffmpeg_program(
    tmp_path: Path, codec: str, container: str, rate: int
) -> None:
    write_av(tmp_path / "a", voice(1.5, rate, 2), rate, codec, container)
    command = ["ffmpeg", "-v", "error", "-i", "a", "-f", "f32le", "-"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    theirs = np.frombuffer(done.stdout, "<f4").reshape(-1, 2)
    ours = read_by_av(tmp_path / "a", "mov" if container == "ipod" else "matroska")
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


# Without the extra


@pytest.mark.parametrize("suffix", ["m4a", "oga", "wv", "mkv", "avi"])
def test_n13_without_the_extra_the_code_says_that_the_reader_is_at_fault(
    tmp_path: Path, spec: FrontendSpec, burst: Samples, request: pytest.FixtureRequest, suffix: str
) -> None:
    write_av(tmp_path / "a", burst, RATE, *LOSSLESS[suffix])  # PyAV loads parts of itself meanwhile
    request.getfixturevalue("without_the_extra")
    error = refusal(tmp_path / "a", spec)
    assert error.code == "needs_formats_extra"
    assert install_command("formats") in error.detail


NO_AUDIO = {
    "text": b"this is no audio\n" * 500,
    "playlist": b"#EXTM3U\n#EXTINF:1,\nother.wav\n",
    "zeros": bytes(5_000),
    "noise": np.random.default_rng(3).bytes(200_000),
    "zip": b"PK\3\4" + np.random.default_rng(4).bytes(9_000),
    "png": b"\x89PNG\r\n\x1a\n" + np.random.default_rng(5).bytes(9_000),
    "heic": b"\0\0\0\x18ftypheic" + bytes(200),
    "heis": b"\0\0\0\x18ftypheis" + bytes(200),
    "wav": b"RIFF\0\1\0\0WAVE" + np.random.default_rng(6).bytes(9_000),
    "wav with a rate of 0": b"RIFF\0\1\0\0WAVEfmt \x10\0\0\0\1\0\1\0"
    + bytes(12)
    + b"data\x64\0\0\0"
    + bytes(100),
    "ogg": b"OggS\0\2" + np.random.default_rng(7).bytes(9_000),
    "flac": b"fLaC" + np.random.default_rng(8).bytes(9_000),
}


@pytest.mark.parametrize("name", NO_AUDIO)
@pytest.mark.parametrize("installed", [True, False])
def test_n13_what_is_no_audio_is_not_blamed_on_the_reader(
    tmp_path: Path, spec: FrontendSpec, monkeypatch: pytest.MonkeyPatch, name: str, installed: bool
) -> None:
    if not installed:
        monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.m4a").write_bytes(NO_AUDIO[name])
    assert refusal(tmp_path / "a.m4a", spec).code in ("unsupported_format", "corrupt", "truncated")


def test_n13_a_film_without_sound_is_no_audio(tmp_path: Path, spec: FrontendSpec, burst: Samples) -> None:
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        out.mux(stream.encode(None))
    assert refusal(tmp_path / "a.mp4", spec).code == "unsupported_format"


# The same limits


def test_n13_the_limits_are_those_of_the_first_reader(
    tmp_path: Path, spec: FrontendSpec, burst: Samples
) -> None:
    write_av(tmp_path / "long.m4a", burst, RATE, "aac", "ipod")
    assert refusal(tmp_path / "long.m4a", spec, max_seconds=1.0).code == "too_long"
    assert read_audio(tmp_path / "long.m4a", spec, max_seconds=2.0).flags == ("second_reader",)
    nine = np.zeros((100, 9), np.int16)
    soundfile.write(tmp_path / "nine.wav", nine, RATE)
    odd = with_odd_list((tmp_path / "nine.wav").read_bytes())
    (tmp_path / "nine.wav").write_bytes(odd)
    assert refusal(tmp_path / "nine.wav", spec).code == "unsupported_layout"


def test_n13_a_bomb_is_decoded_in_blocks_up_to_the_limit(tmp_path: Path, spec: FrontendSpec) -> None:
    write_av(tmp_path / "a.oga", np.zeros((20 * 60 * 8_000, 1)), 8_000, "flac", "ogg")
    assert (tmp_path / "a.oga").stat().st_size < 300_000
    blocks: list[int] = []
    error = refusal(tmp_path / "a.oga", spec, max_seconds=60, meter=lambda block: blocks.append(len(block)))
    assert error.code == "too_long"
    assert sum(blocks) <= 60 * 8_000 + blocks[-1]
    assert max(blocks) < 1 << 17


@pytest.mark.parametrize("suffix", ["m4a", "mkv", "mov", "avi", "wv", "tta", "mp4"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_n13_a_cut_off_file_is_truncated_where_its_container_states_the_length(
    tmp_path: Path, spec: FrontendSpec, burst: Samples, suffix: str, share: float
) -> None:
    codec, container = LOSSLESS[suffix]
    write_av(tmp_path / "a", burst, RATE, codec, container)
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[: int(len(whole) * share)])
    assert refusal(tmp_path / "a", spec).code == "truncated"


def test_n13_a_cut_off_recording_with_its_index_in_front_is_scored_if_allowed(
    tmp_path: Path, spec: FrontendSpec, burst: Samples
) -> None:
    path = tmp_path / "a.m4a"
    write_av(
        path, burst, RATE, "alac", "ipod", container_options={"movflags": "faststart"}, sample_format="s16p"
    )
    whole = read_audio(path, spec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refusal(path, spec).code == "truncated"
    part = read_audio(path, spec, allow_truncated=True)
    assert part.flags == ("truncated", "second_reader")
    assert 0 < len(part.samples) < len(whole.samples)


def test_n13_packets_that_cannot_be_decoded_are_said(tmp_path: Path, spec: FrontendSpec) -> None:
    source = voice(3.0, 22_050, 1)
    write_av(tmp_path / "a.mp3", source, 22_050, "libmp3lame", "mp3")
    whole = (tmp_path / "a.mp3").read_bytes()
    middle = len(whole) // 2
    junk = np.random.default_rng(1).integers(0, 200, 4_000, np.uint8).tobytes()
    (tmp_path / "a.mp3").write_bytes(whole[:middle] + junk + whole[middle:])
    audio = read_audio(tmp_path / "a.mp3", spec)
    assert audio.flags == ("second_reader", "damaged")
    assert audio.seconds == pytest.approx(3.0, abs=0.1)


def test_n13_a_flipped_bit_in_a_lossless_codec_is_corrupt(
    tmp_path: Path, spec: FrontendSpec, burst: Samples
) -> None:
    for suffix in ("oga", "mkv", "wv", "tta"):
        write_av(tmp_path / suffix, burst, RATE, *LOSSLESS[suffix])
        whole = bytearray((tmp_path / suffix).read_bytes())
        whole[len(whole) // 2] ^= 4
        (tmp_path / suffix).write_bytes(whole)
        assert refusal(tmp_path / suffix, spec).code == "corrupt", suffix


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_n13_a_flipped_bit_in_ogg_is_said_whoever_reads_it(
    tmp_path: Path, spec: FrontendSpec, subtype: str
) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, voice(8.0, 48_000, 1), 48_000, format="OGG", subtype=subtype)
    assert read_audio(path, spec).flags == ()
    whole = path.read_bytes()
    for place, flags in ((len(whole) // 2, ("truncated", "damaged")), (len(whole) - 20, ("damaged",))):
        content = bytearray(whole)
        content[place] ^= 1
        path.write_bytes(content)
        assert read_audio(path, spec, allow_truncated=True).flags == flags


def test_n13_storage_that_fails_says_nothing_about_the_file(
    tmp_path: Path, spec: FrontendSpec, burst: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_av(tmp_path / "a.m4a", voice(8.0, 44_100, 2), 44_100, "alac", "ipod")
    real, calls = os.pread, 0

    def failing(descriptor: int, count: int, offset: int) -> bytes:
        nonlocal calls
        calls += 1
        if offset > 300_000:
            raise OSError(5, "Input/output error")
        return real(descriptor, count, offset)

    assert (tmp_path / "a.m4a").stat().st_size > 600_000
    monkeypatch.setattr("os.pread", failing)
    with pytest.raises(StoppedError):
        read_audio(tmp_path / "a.m4a", spec)


@pytest.mark.parametrize("suffix", ["m4a", "mkv", "avi", "wv", "tta", "oga"])
def test_n13_bytes_behind_the_end_do_not_matter(
    tmp_path: Path, spec: FrontendSpec, burst: Samples, suffix: str
) -> None:
    codec, container = LOSSLESS[suffix]
    sample_format = "s16p" if codec in ("wavpack", "alac") else "s16"
    write_av(tmp_path / "a", burst, RATE, codec, container, sample_format=sample_format)
    whole = read_audio(tmp_path / "a", spec)
    with (tmp_path / "a").open("ab") as file:
        file.write(np.random.default_rng(9).bytes(20_000))
    audio = read_audio(tmp_path / "a", spec)
    np.testing.assert_array_equal(audio.samples, whole.samples)
    assert audio.flags == ("second_reader",)


def test_n13_recordings_behind_each_other_are_read_to_the_last(
    tmp_path: Path, spec: FrontendSpec, burst: Samples
) -> None:
    for rate in (RATE, 2 * RATE):
        write_av(tmp_path / f"{rate}.oga", np.repeat(burst, rate // RATE, axis=0), rate, "flac", "ogg")
    parts = [(tmp_path / f"{rate}.oga").read_bytes() for rate in (RATE, 2 * RATE)]
    (tmp_path / "a.oga").write_bytes(b"".join(parts))
    audio = read_audio(tmp_path / "a.oga", spec)
    assert audio.seconds == pytest.approx(3.0, abs=1e-3)
    assert audio.flags == ("second_reader",)


def test_n13_a_tag_in_front_does_not_matter(tmp_path: Path, spec: FrontendSpec, burst: Samples) -> None:
    write_av(tmp_path / "a.tta", burst, RATE, "tta", "tta", sample_format="s16")
    whole = read_audio(tmp_path / "a.tta", spec)
    (tmp_path / "a.tta").write_bytes(b"ID3\4\0\0\0\0\2\1" + bytes(257) + (tmp_path / "a.tta").read_bytes())
    np.testing.assert_array_equal(read_audio(tmp_path / "a.tta", spec).samples, whole.samples)
    wav = wav_of(tmp_path / "a.wav", burst)
    wav.write_bytes(b"ID3\4\0\0\0\0\2\1" + bytes(257) + with_odd_list(wav.read_bytes()))
    np.testing.assert_array_equal(read_audio(wav, spec).samples, whole.samples)


PIDS = {"mpegts_start_pid": "512"}  # others than the first part has


def test_n13_a_stream_that_comes_later_does_not_matter(tmp_path: Path, spec: FrontendSpec) -> None:
    write_av(tmp_path / "a.ts", voice(2.0, 44_100, 1), 44_100, "aac", "mpegts")
    write_av(
        tmp_path / "b.ts", voice(2.0, 44_100, 1), 44_100, "aac", "mpegts", film=True, container_options=PIDS
    )
    # More than FFmpeg looks at before it names the streams.
    (tmp_path / "c.ts").write_bytes((tmp_path / "a.ts").read_bytes() * 5 + (tmp_path / "b.ts").read_bytes())
    assert read_audio(tmp_path / "c.ts", spec).seconds >= 5 * 2.0


def test_n13_a_change_of_rate_and_channels_inside_is_followed(tmp_path: Path, spec: FrontendSpec) -> None:
    for name, rate, channels in (("a", 44_100, 2), ("b", 22_050, 1)):
        write_av(tmp_path / name, voice(1.0, rate, channels), rate, "aac", "adts")
    (tmp_path / "c.aac").write_bytes((tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes())
    assert read_audio(tmp_path / "c.aac", spec).seconds == pytest.approx(2.2, abs=0.1)


def test_n13_names_in_other_encodings_do_not_matter(
    tmp_path: Path, spec: FrontendSpec, burst: Samples
) -> None:
    write_av(tmp_path / "a.m4a", burst, RATE, "aac", "ipod", metadata={"title": "QQQQQQ"})
    content = (tmp_path / "a.m4a").read_bytes()
    assert b"QQQQQQ" in content
    (tmp_path / "a.m4a").write_bytes(content.replace(b"QQQQQQ", b"caf\xe9\xff\xfe"))
    assert read_audio(tmp_path / "a.m4a", spec).flags == ("second_reader",)


def test_n13_pictures_and_films_are_passed_over_unread(
    tmp_path: Path, spec: FrontendSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = voice(8.0, RATE, 1)
    write_av(tmp_path / "a.mp4", source, RATE, "aac", "mp4", film=True)
    write_av(tmp_path / "b.m4a", source, RATE, "aac", "ipod")
    write_av(tmp_path / "c.m4a", source, RATE, "aac", "mp4", picture=True)
    size = (tmp_path / "a.mp4").stat().st_size
    assert size > 14 << 20
    read, real = 0, os.preadv

    def counting(descriptor: int, buffers: Sequence[Any], offset: int) -> int:
        nonlocal read
        found = real(descriptor, buffers, offset)
        read += found
        return found

    monkeypatch.setattr("os.preadv", counting)
    film = read_audio(tmp_path / "a.mp4", spec)
    assert read < 0.6 * size
    for path in (tmp_path / "b.m4a", tmp_path / "c.m4a"):
        np.testing.assert_array_equal(film.samples, read_audio(path, spec).samples)


# WAV and AIFF that a writer spoilt


def with_odd_list(wav: bytes, order: str = "<") -> bytes:
    """A chunk of 17 bytes, and no byte behind it, in front of the sound."""
    at = wav.index(b"data" if order == "<" else b"SSND")
    return wav[:at] + b"LIST" + struct.pack(f"{order}I", 17) + b"INFOISFT\5\0\0\0abcde" + wav[at:]


def two_data(wav: bytes) -> bytes:
    at = wav.index(b"data")
    sound = wav[at + 8 :]
    half = len(sound) // 4 * 2
    parts = (sound[:half], sound[half:])
    return wav[:at] + b"".join(b"data" + struct.pack("<I", len(part)) + part for part in parts)


def too_long_chunk(wav: bytes) -> bytes:
    at = wav.index(b"data")
    return wav[:at] + b"LIST\xff\xff\xff\x0fINFOxx" + wav[at:]


def odd_and_killed(wav: bytes) -> bytes:
    odd = with_odd_list(wav)
    at = odd.index(b"data") + 4
    return odd[:at] + bytes(4) + odd[at + 4 :]


def test_n13_samples_of_8_bits_have_no_offset(tmp_path: Path, burst: Samples) -> None:
    soundfile.write(tmp_path / "a.wav", burst, RATE, subtype="PCM_U8")
    expected = soundfile.read(tmp_path / "a.wav", dtype="float32", always_2d=True)[0]
    (tmp_path / "b.wav").write_bytes(with_odd_list((tmp_path / "a.wav").read_bytes()))
    np.testing.assert_array_equal(read_by_av(tmp_path / "b.wav", "wav"), expected)


def without_bits(wav: bytes) -> bytes:
    """The oldest form of the format: 14 bytes."""
    at = wav.index(b"fmt ")
    return wav[: at + 4] + struct.pack("<I", 14) + wav[at + 8 : at + 22] + wav[at + 24 :]


def format_behind(wav: bytes) -> bytes:
    at, end = wav.index(b"fmt "), wav.index(b"data")
    return wav[:at] + wav[end:] + wav[at:end]


def short_peak(wav: bytes) -> bytes:
    at = wav.index(b"data")
    return wav[:at] + b"PEAK\5\0\0\0abcde\0" + wav[at:]


SPOILT = (
    *(with_odd_list, two_data, too_long_chunk, odd_and_killed),
    *(without_bits, format_behind, short_peak),
)


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("channels", [1, 2])
def test_n13_wav_files_with_odd_chunks_give_all_of_their_sound(
    tmp_path: Path, spec: FrontendSpec, spoil: Callable[[bytes], bytes], channels: int
) -> None:
    whole = wav_of(tmp_path / "a.wav", voice(1.0, RATE, channels))
    expected = read_audio(whole, spec)
    whole.write_bytes(spoil(whole.read_bytes()))
    audio = read_audio(whole, spec)
    np.testing.assert_array_equal(audio.samples, expected.samples)
    assert audio.flags == ("second_reader",)


def test_n13_a_spoilt_aiff_file_gives_all_of_its_sound(
    tmp_path: Path, spec: FrontendSpec, burst: Samples
) -> None:
    soundfile.write(tmp_path / "a.aiff", burst, RATE, subtype="PCM_16")
    expected = read_by_av(tmp_path / "a.aiff", "aiff")
    (tmp_path / "b.aiff").write_bytes(with_odd_list((tmp_path / "a.aiff").read_bytes(), ">"))
    np.testing.assert_array_equal(read_by_av(tmp_path / "b.aiff", "aiff"), expected)
    np.testing.assert_array_equal(expected[:, 0], soundfile.read(tmp_path / "a.aiff", dtype="float32")[0])


def test_n13_a_spoilt_wav_file_that_is_cut_is_truncated(
    tmp_path: Path, spec: FrontendSpec, burst: Samples
) -> None:
    path = wav_of(tmp_path / "a.wav", burst)
    spoilt = with_odd_list(path.read_bytes())
    path.write_bytes(spoilt[: len(spoilt) // 2])
    assert refusal(path, spec).code == "truncated"


# No file names another one


def with_reference(movie: bytes, target: Path) -> bytes:
    """An MP4 whose sound lies in another file by its data reference."""
    at = movie.index(b"dref")
    begin = at - 4
    old = movie[begin : begin + struct.unpack(">I", movie[begin:at])[0]]
    path = os.fsencode(target) + b"\0"
    entry = struct.pack(">I4sI", 12 + len(path), b"url ", 0) + path
    new = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    movie = movie.replace(old, new)
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = movie.index(box) - 4
        size = struct.unpack(">I", movie[place : place + 4])[0] + len(new) - len(old)
        movie = movie[:place] + struct.pack(">I", size) + movie[place + 4 :]
    return movie


def references(canary: Path, port: int, film: bytes) -> dict[str, bytes]:
    """Files of many kinds that name the canary, and a server."""
    web = f"http://127.0.0.1:{port}/a.wav"
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    mpd = (
        '<?xml version="1.0"?><MPD type="static" mediaPresentationDuration="PT1S"><Period><AdaptationSet '
        'mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {} RTP/AVP 0\n"
    texts = {
        "m3u8": playlist.format(canary),
        "m3u8-web": playlist.format(web),
        "concat": f"ffconcat version 1.0\nfile '{canary}'\n",
        "concat-web": f"ffconcat version 1.0\nfile '{web}'\n",
        "dash": mpd.format(canary),
        "dash-web": mpd.format(web),
        "sdp": sdp.format(port),
        "asx": f'<asx version="3.0"><entry><ref href="{web}"/></entry></asx>',
        "pls": f"[playlist]\nFile1={web}\n",
        "ram": f"{web}\n",
        "imf": f"<AssetMap><Path>{canary}</Path></AssetMap>",
        "rtsptext": f"RTSPtext\nrtsp://127.0.0.1:{port}/a\n",
        "webm-dash": f"concat:{canary}",
    }
    files = {name: text.encode() for name, text in texts.items()}
    files["dref"] = with_reference(film, canary)
    return files


@pytest.fixture
def film(tmp_path: Path, burst: Samples) -> bytes:
    write_av(tmp_path / "film", burst, RATE, "pcm_s16le", "mov")
    return (tmp_path / "film").read_bytes()


SUFFIXES = ("wav", "m4a", "mp3", "m3u8")


def test_n13_no_file_opens_another_one_or_a_socket(
    tmp_path: Path, spec: FrontendSpec, burst: Samples, film: bytes, watch: Callable[[Path], Any]
) -> None:
    canary = watch(wav_of(tmp_path / "canary.wav", burst))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        for name, content in references(tmp_path / "canary.wav", port, film).items():
            for suffix in SUFFIXES:
                path = tmp_path / f"{name}.{suffix}"
                path.write_bytes(content)
                error = refusal(path, spec)
                assert error.code in ("unsupported_format", "corrupt", "truncated"), (path.name, error)
            # Even where FFmpeg is told that it is a playlist.
            for demuxer in ("hls", "concat", "sdp"):
                with pytest.raises(AudioError):
                    read_by_av(tmp_path / f"{name}.wav", demuxer)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert canary.opened() == 0


READS = """
import os, sys
from rrtn.runtime import FrontendSpec
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.errors import AudioError

def read(path):
    try:
        read_audio(path, FrontendSpec())
    except AudioError as error:
        print(error)

read("film")  # loads all libraries
read("text")  # and what a refusal needs
os.access("MARK", os.R_OK)
for path in sys.argv[1:]:
    read(path)
os.access("END", os.R_OK)
"""


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace")
def test_n13_only_the_named_files_are_opened_by_strace(tmp_path: Path, burst: Samples, film: bytes) -> None:
    files = []
    (tmp_path / "text").write_text("this is no audio\n" * 1_000)
    for name, content in references(tmp_path / "canary.wav", 9, film).items():
        (tmp_path / f"{name}.m4a").write_bytes(content)
        files.append(f"{name}.m4a")
    command = ["strace", "-f", "-e", "trace=%file,%network", "-o", "trace"]
    command += [sys.executable, "-c", READS, *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert len(done.stdout.splitlines()) == 1 + len(files)
    calls = (tmp_path / "trace").read_text().partition("MARK")[2].partition("END")[0].splitlines()[1:]
    named = [found[1] for call in calls if (found := re.search(r"open\w*\(.*?\"(.*?)\"", call))]
    assert {name for name in named if not name.startswith("/proc/self/fd/")} == {*files}
    assert not [call for call in calls if re.search(r" (socket|connect|bind|execve|creat)\(", call)]


def test_n13_an_unreadable_file_leaves_nothing_open(tmp_path: Path, spec: FrontendSpec, film: bytes) -> None:
    (tmp_path / "a.mov").write_bytes(film[:2_000])
    before = set(os.listdir("/proc/self/fd"))
    refusal(tmp_path / "a.mov", spec)
    assert set(os.listdir("/proc/self/fd")) == before


def test_n13_containers_are_told_apart_behind_tags_and_junk(tmp_path: Path, burst: Samples) -> None:
    write_av(tmp_path / "a.aac", burst, RATE, "aac", "adts")
    content = (tmp_path / "a.aac").read_bytes()
    tag = b"ID3\4\0\0\0\0\2\1" + bytes(257)
    for front in (b"", tag, tag + tag, bytes(1_000)):
        (tmp_path / "b").write_bytes(front + content)
        descriptor = os.open(tmp_path / "b", os.O_RDONLY)
        container = container_of(descriptor)
        os.close(descriptor)
        assert container and container.demuxer == "aac"
