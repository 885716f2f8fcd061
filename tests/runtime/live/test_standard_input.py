"""What comes through a pipe becomes samples: as libsndfile reads them, whatever is wrong with the bytes."""

import contextlib
import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from rrtn.runtime.errors import ConfigError, DataError, RrtnError, StoppedError
from rrtn.runtime.live.pcm import PCM_BYTES, samples_from_bytes
from rrtn.runtime.live.source import LiveSource
from rrtn.runtime.live.standard_input import sound_on_stdin

SUBTYPES = {
    "u8": "PCM_U8",
    "s16le": "PCM_16",
    "s24le": "PCM_24",
    "s32le": "PCM_32",
    "f32le": "FLOAT",
    "f64le": "DOUBLE",
}
rng = np.random.default_rng(0)
NOISE = rng.uniform(-1, 1, (1_000, 2))
MP3 = (Path(__file__).parents[2] / "fixtures/bursts/BabyCry.mp3").read_bytes()[:2_000]  # without a tag
Samples = NDArray[np.float32]


@pytest.fixture
def through_pipe() -> Iterator[Callable[..., tuple[Samples, LiveSource]]]:
    """Bytes -> the samples and the source, once all of them have come through a pipe."""
    readers: list[int] = []

    def through(content: bytes, **options: object) -> tuple[Samples, LiveSource]:
        reader, writer = os.pipe()
        readers.append(reader)
        threading.Thread(target=_write, args=(writer, content)).start()
        with sound_on_stdin(descriptor=reader, **options) as source:  # type: ignore[arg-type]
            blocks = [*source.queue.blocks()]
        return np.concatenate([np.zeros_like(blocks[0][:0]), *blocks]) if blocks else np.zeros((0, 1)), source

    yield through
    wait_for_readers()
    for reader in readers:
        os.close(reader)


def _write(descriptor: int, content: bytes) -> None:
    """In pieces that end anywhere, as long as somebody reads."""
    with contextlib.suppress(BrokenPipeError):
        for i in range(0, len(content), 777):
            os.write(descriptor, content[i : i + 777])
    os.close(descriptor)


def wait_for_readers() -> None:
    """Or one of them might read what the next test opens under the same number."""
    for thread in threading.enumerate():
        if thread.name == "stdin":
            thread.join()


def wav(tmp_path: Path, pcm: str = "s16le", *, rate: int = 48_000, container: str = "WAV") -> bytes:
    soundfile.write(tmp_path / "a", NOISE, rate, format=container, subtype=SUBTYPES[pcm])
    return (tmp_path / "a").read_bytes()


def read(tmp_path: Path) -> Samples:
    return soundfile.read(tmp_path / "a", dtype="float32", always_2d=True)[0]


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("pcm", SUBTYPES)
def test_a_wav_file_has_the_samples_that_libsndfile_reads(
    tmp_path: Path, through_pipe: Callable[..., tuple[Samples, LiveSource]], pcm: str, container: str
) -> None:
    samples, source = through_pipe(wav(tmp_path, pcm, container=container))
    np.testing.assert_array_equal(samples, read(tmp_path))
    assert source.rate == 48_000
    assert source.missing() == ""


@pytest.mark.parametrize("pcm", SUBTYPES)
def test_bare_samples_are_those_of_a_wav_file(
    tmp_path: Path, through_pipe: Callable[..., tuple[Samples, LiveSource]], pcm: str
) -> None:
    bare = wav(tmp_path, pcm)[-2_000 * PCM_BYTES[pcm] :]
    samples, source = through_pipe(bare, rate=8_000, channels=2, pcm=pcm)
    np.testing.assert_array_equal(samples, read(tmp_path))
    assert source.rate == 8_000


def test_every_format_is_tested() -> None:
    assert set(SUBTYPES) == set(PCM_BYTES)


@pytest.mark.parametrize("length", [0, 0xFFFF_FFFF, 0x7FFF_FFFF])
def test_a_length_that_nobody_filled_in_is_none(
    tmp_path: Path, through_pipe: Callable[..., tuple[Samples, LiveSource]], length: int
) -> None:
    """As ffmpeg and sox write to a pipe."""
    content = bytearray(wav(tmp_path))
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", length)
    samples, source = through_pipe(bytes(content))
    np.testing.assert_array_equal(samples, read(tmp_path))
    assert source.missing() == ""


def test_a_length_of_64_ones_is_none(
    through_pipe: Callable[..., tuple[Samples, LiveSource]],
) -> None:
    form = struct.pack("<4sI2H2I2H", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    lengths = b"ds64" + struct.pack("<I3QI", 28, *[2**64 - 1] * 3, 0)
    head = b"RF64\xff\xff\xff\xffWAVE" + lengths + form + b"data\xff\xff\xff\xff"
    samples, source = through_pipe(head + np.arange(100, dtype="<i2").tobytes())
    assert (len(samples), source.missing()) == (100, "")


def test_what_follows_the_sound_is_no_sound(
    tmp_path: Path, through_pipe: Callable[..., tuple[Samples, LiveSource]]
) -> None:
    samples, source = through_pipe(wav(tmp_path) + b"LIST\x04\0\0\0abcd")
    np.testing.assert_array_equal(samples, read(tmp_path))
    assert source.missing() == ""


def test_chunks_before_the_sound_are_passed_over(
    tmp_path: Path, through_pipe: Callable[..., tuple[Samples, LiveSource]]
) -> None:
    content = wav(tmp_path)
    samples, _ = through_pipe(content[:12] + b"LIST\x03\0\0\0abc\0" + content[12:])
    np.testing.assert_array_equal(samples, read(tmp_path))


def test_what_is_missing_of_a_wav_file_is_said(
    tmp_path: Path, through_pipe: Callable[..., tuple[Samples, LiveSource]]
) -> None:
    samples, source = through_pipe(wav(tmp_path)[:-402])
    np.testing.assert_array_equal(samples, read(tmp_path)[:-101])
    assert source.missing() == "402 bytes fewer than the WAV header says"


def test_bytes_of_half_a_frame_at_the_end_are_said(
    through_pipe: Callable[..., tuple[Samples, LiveSource]],
) -> None:
    samples, source = through_pipe(b"\1\2\3\4" * 1_000 + b"\1\2\3", rate=16_000, channels=2)
    assert len(samples) == 1_000
    assert source.missing() == "3 bytes at the end are no whole sample"


def test_one_byte_is_one_byte(through_pipe: Callable[..., tuple[Samples, LiveSource]]) -> None:
    _, source = through_pipe(b"\1\2\3", rate=16_000)
    assert source.missing() == "1 byte at the end is no whole sample"


@pytest.mark.parametrize(
    ("content", "options", "kind", "words"),
    [
        (b"", {}, DataError, "without any sound"),
        (b"", {"rate": 8_000}, DataError, "without any sound"),
        (b"12", {}, ConfigError, "--rate is missing"),
        (b"fLaC\0\0\0\x22" + bytes(100), {}, ConfigError, "another format than WAV"),
        (b"fLaC\0\0\0\x22" + bytes(100), {"rate": 16_000}, ConfigError, "another format than WAV"),
        (b"FORM\0\0\0\0AIFF" + bytes(100), {"rate": 16_000}, ConfigError, "another format than WAV"),
        (b"RIFF\0\0\0\0WAVE", {}, DataError, "cut in its header"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", {}, DataError, "no format before"),
        (b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\xff", {}, DataError, "before any sound"),
        (MP3, {}, ConfigError, "another format than WAV"),
        (MP3, {"rate": 16_000}, ConfigError, "another format than WAV"),
        (b"\0" * 100, {"rate": 3_999}, ConfigError, "3999 Hz"),
        (b"\0" * 100, {"rate": 16_000, "channels": 9}, ConfigError, "9 channels"),
    ],
)
def test_what_cannot_be_read_is_refused(
    through_pipe: Callable[..., tuple[Samples, LiveSource]],
    content: bytes,
    options: dict[str, object],
    kind: type[RrtnError],
    words: str,
) -> None:
    with pytest.raises(kind, match=words):
        through_pipe(content, **options)


@pytest.mark.parametrize("tag", [2, 6, 7, 0x55])  # ADPCM, A-law, mu-law, MP3
def test_a_wav_file_of_other_samples_is_refused(
    through_pipe: Callable[..., tuple[Samples, LiveSource]], tag: int
) -> None:
    form = struct.pack("<4sI2H2I2H", b"fmt ", 16, tag, 1, 8_000, 8_000, 1, 8)
    with pytest.raises(DataError, match=f"format {tag} with 8 bits"):
        through_pipe(b"RIFF\0\0\0\0WAVE" + form + b"data\0\0\0\0" + bytes(100))


@pytest.mark.parametrize("option", [{"rate": 44_100}, {"channels": 1}, {"pcm": "f32le"}])
def test_options_that_a_wav_file_contradicts_are_refused(
    tmp_path: Path, through_pipe: Callable[..., tuple[Samples, LiveSource]], option: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(option))} .* the WAV file says"):
        through_pipe(wav(tmp_path), **option)
    through_pipe(wav(tmp_path), rate=48_000, channels=2, pcm="s16le")


def test_integers_are_scaled_to_one() -> None:
    for pcm, lowest in (
        ("u8", b"\0"),
        ("s16le", b"\0\x80"),
        ("s24le", b"\0\0\x80"),
        ("s32le", b"\0\0\0\x80"),
    ):
        assert samples_from_bytes(lowest, pcm, 1) == [[-1.0]]
    assert np.isinf(samples_from_bytes(struct.pack("<d", 1e300), "f64le", 1)).all()


def test_storage_that_fails_is_no_end(tmp_path: Path) -> None:
    """A folder can be opened, and not read."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError), sound_on_stdin(descriptor=descriptor, rate=8_000):
            pass
    finally:
        os.close(descriptor)


def test_an_error_while_the_sound_is_read_comes_to_who_scores() -> None:
    reader, writer = os.pipe()
    os.write(writer, bytes(100))
    with sound_on_stdin(descriptor=reader, rate=8_000) as source:
        blocks = source.queue.blocks()
        assert len(next(blocks)) == 50
        source.queue.end(StoppedError("stdin", "Input/output error"))
        with pytest.raises(StoppedError, match="Input/output"):
            next(blocks)
    os.close(writer)
    wait_for_readers()
    os.close(reader)


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    """Another program may have set it so: the setting belongs to the pipe, not to the process."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    threading.Timer(0.05, _write, (writer, bytes(3_000))).start()
    with sound_on_stdin(descriptor=reader, rate=8_000) as source:
        assert sum(map(len, source.queue.blocks())) == 1_500
    wait_for_readers()
    os.close(reader)
