"""Sound files of many formats, made by the encoders of soundfile and PyAV: no other program is needed."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

Samples = NDArray[np.float64]  # [N, C] in [-1, 1]
Kind = Literal["lossless", "lossy"]
SPEECH = (8_000, 16_000)
USUAL = (8_000, 16_000, 22_050, 44_100, 48_000)
AAC = (16_000, 22_050, 44_100, 48_000)
LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 6: "5.1", 8: "7.1"}


@dataclass(frozen=True)
class Format:
    """One way to write a sound."""

    name: str  # container and codec
    suffix: str
    demuxer: str  # of the second reader
    kind: Kind
    write: Callable[[Path, Samples, int], None]
    rates: tuple[int, ...] = USUAL
    channels: tuple[int, ...] = (1, 2)
    bits: int = 16  # of the source's samples, so that lossless means bit-equal
    by_libsndfile: bool = True
    delay: int = 0  # samples in front of the sound that the container cannot take away
    more: int = 0  # samples that the last frames may add, or lack where it is negative


def voice(seconds: float, rate: int, channels: int, *, seed: int = 0, bits: int = 16) -> Samples:
    """[N, C] bursts of band-limited noise under a moving formant: aperiodic, so that one lag fits best."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = 2 * np.pi * np.cumsum(120 + 60 * np.sin(2 * np.pi * 0.7 * t + seed)) / rate
    sound = sum(np.sin(k * pitch) / k for k in range(1, 12) if k * 180 < rate / 2)
    sound = sound + 0.3 * np.convolve(rng.standard_normal(len(t) + 8), np.ones(9) / 3, "valid")
    sound = sound * (0.55 + 0.45 * np.sin(2 * np.pi * 3.1 * t + 0.3))
    steps = 1 << bits - 1
    loud = 0.5 * sound / np.abs(sound).max()
    parts = [np.roll(loud, 37 * c) * 0.9**c for c in range(channels)]
    return np.round(np.stack(parts, axis=1) * steps) / steps


def by_soundfile(container: str, subtype: str, **options: Any) -> Callable[[Path, Samples, int], None]:
    def write(path: Path, samples: Samples, rate: int) -> None:
        soundfile.write(path, samples, rate, format=container, subtype=subtype, **options)

    return write


def by_av(codec: str, container: str, **options: Any) -> Callable[[Path, Samples, int], None]:
    def write(path: Path, samples: Samples, rate: int) -> None:
        write_av(path, samples, rate, codec, container, **options)

    return write


def by_program(command: str) -> Callable[[Path, Samples, int], None]:
    """A program that turns the WAV file `in.wav` into the file `out`."""

    def write(path: Path, samples: Samples, rate: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            soundfile.write(f"{folder}/in.wav", samples, rate, subtype="PCM_16")
            subprocess.run(command.split(), cwd=folder, capture_output=True, timeout=60, check=True)
            shutil.copy(f"{folder}/out", path)

    return write


def write_av(
    path: Path,
    samples: Samples,
    rate: int,
    codec: str,
    container: str,
    *,
    bit_rate: int | None = None,
    container_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    sample_format: str | None = None,
    metadata: dict[str, str] | None = None,
    picture: bool = False,
    film: bool = False,
) -> None:
    """Encodes with FFmpeg. `picture` adds cover art, `film` a stream of video."""
    channels = samples.shape[1]
    with av.open(str(path), "w", format=container, container_options=container_options or {}) as out:
        out.metadata.update(metadata or {})
        video = None
        if picture or film:
            video = out.add_stream("mjpeg" if picture else "mpeg4", rate=25)
            video.width, video.height = 640, 480
            video.pix_fmt = "yuvj420p" if picture else "yuv420p"
            video.bit_rate = 60_000_000
            if picture:
                video.disposition = av.stream.Disposition.attached_pic
        stream = out.add_stream(codec, rate=rate, layout=LAYOUTS[channels], options=options or {})
        if bit_rate:
            stream.bit_rate = bit_rate
        if sample_format:
            stream.format = sample_format
        wide = stream.format.name.startswith(("s32", "flt", "dbl"))
        if wide:
            data = np.round(samples * 2**31).clip(-(2**31), 2**31 - 1).astype(np.int32)
        else:
            data = np.round(samples * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
        if video is not None:
            noise = np.random.default_rng(0).integers(0, 255, (480 + 1_000, 640, 3), np.uint8)
            for i in range(1 if picture else round(25 * len(samples) / rate)):
                frame = av.VideoFrame.from_ndarray(noise[i : i + 480], format="rgb24")
                frame.pts = i
                out.mux(video.encode(frame.reformat(format=video.pix_fmt)))
            out.mux(video.encode(None))
        for begin in range(0, len(data), 4096):
            block = np.ascontiguousarray(data[begin : begin + 4096]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(
                block, format="s32" if wide else "s16", layout=LAYOUTS[channels]
            )
            frame.sample_rate, frame.pts = rate, begin
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
