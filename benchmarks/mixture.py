"""A recording of hours with known bursts in it, made from real ones: what `segments.py` measures on.

Two hours hold 200 bursts. Each lies in a scene of its own: silence; steady noise (white, pink or brown) with
knocks; a passage of synthetic music; or one to three sentences of acted speech. Knocks, music and speech end
a second before the burst. A seed gives the same samples on any machine with the same libraries.

N samples, F frames of 10 ms.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from rrtn.runtime.arrays import Float32
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.errors import AudioError
from rrtn.runtime.spec import FrontendSpec

RATE: Final = 16_000
FRAME: Final = 160
Kind = Literal["silence", "noise", "music", "speech"]
KINDS: Final[tuple[Kind, ...]] = ("silence", "noise", "music", "speech")
LONGEST: Final = 10.0  # s, of a burst
_AUDIBLE: Final = 1e-4  # of the power of a burst's loudest frame: 40 dB
_MARGIN: Final = 1.0  # s around a burst, without any other sound


class Extent(NamedTuple):
    """Where a sound lies in the mixture, in seconds."""

    start: float
    end: float


@dataclass(frozen=True)
class Scene:
    """A part of the mixture with one burst."""

    kind: Kind
    samples: Float32  # [N]
    burst: Extent  # from the scene's beginning; the frames within 40 dB of the loudest and above the noise
    other: tuple[Extent, ...]  # speech, music or knocks


class Sources:
    """The recordings that a mixture is made from, decoded once."""

    def __init__(self, data: Path) -> None:
        """`data` has the folders `bursts` and `emodb`."""
        with (data / "bursts/manifest.csv").open() as file:
            paths = [data / "bursts" / row["path"] for row in csv.DictReader(file)]
        self.bursts = [one for path in paths if (one := _burst(path)) is not None]
        self.sentences = [_read(path) for path in sorted((data / "emodb/wav").glob("*.wav"))]


def scenes(sources: Sources, *, seed: int, bursts: int = 200, seconds: float = 7200.0) -> Iterator[Scene]:
    """The scenes of a mixture, one behind the other."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(sources.bursts), bursts, replace=bursts > len(sources.bursts))
    shares = rng.exponential(size=bursts) + 0.3
    heard = sum(len(sources.bursts[i]) for i in chosen) / RATE
    gaps = shares / shares.sum() * (seconds - heard - 2 * _MARGIN * bursts)
    kinds = rng.permuted(np.resize(np.arange(len(KINDS)), bursts))
    for which, gap, kind in zip(chosen, gaps, kinds, strict=True):
        yield _scene(KINDS[kind], sources.bursts[which], float(gap), sources, rng)


def _scene(kind: Kind, burst: Float32, gap: float, sources: Sources, rng: np.random.Generator) -> Scene:
    begin, margin = round(gap * RATE), round(_MARGIN * RATE)
    begin += margin
    length = begin + len(burst) + margin
    bed_dbfs = _bed_level(kind, rng)
    samples = _noise(length, bed_dbfs, str(rng.choice(["white", "pink", "brown"])), rng)
    other = _passage(kind, samples[: begin - margin], sources, rng)
    loudest = _frame_powers(burst).max()
    level = min(-8.0, max(bed_dbfs + rng.uniform(15, 45), rng.uniform(-45, -25)))
    gain = 10 ** (level / 20) / np.sqrt(loudest)
    gain = min(gain, 0.9 / float(np.abs(burst).max()))
    samples[begin : begin + len(burst)] += np.float32(gain) * burst
    powers = _frame_powers(burst) * gain**2
    audible = np.flatnonzero((powers >= _AUDIBLE * powers.max()) & (powers >= 10 ** (bed_dbfs / 10)))
    first, last = audible[0] * FRAME, (audible[-1] + 1) * FRAME
    return Scene(kind, samples, Extent((begin + first) / RATE, (begin + last) / RATE), tuple(other))


def _bed_level(kind: Kind, rng: np.random.Generator) -> float:
    """Level of the noise below everything (dBFS); -200 is digital silence."""
    match kind:
        case "silence":
            return float(rng.choice([-200.0, -75.0]))
        case "noise":
            return float(rng.uniform(-60, -35))
        case _:
            return -65.0


def _noise(length: int, dbfs: float, colour: str, rng: np.random.Generator) -> Float32:
    exponent = {"white": 0.0, "pink": 0.5, "brown": 1.0}[colour]
    made = 1 << length.bit_length()  # the FFT of another length may take minutes
    spectrum = np.fft.rfft(rng.standard_normal(made, np.float32))
    frequency = np.maximum(np.fft.rfftfreq(made, 1 / RATE), 20.0)
    noise = np.fft.irfft(spectrum * frequency**-exponent)[:length]
    return np.asarray(noise * (10 ** (dbfs / 20) / np.sqrt(np.mean(noise**2))), np.float32)


def _passage(kind: Kind, room: Float32, sources: Sources, rng: np.random.Generator) -> Iterator[Extent]:
    """Adds speech, music or knocks to `room`, which they need not fill; -> where."""
    if kind == "music":
        yield from _added(_music(rng.uniform(4, 20), rng), room, 0, rng)
    if kind == "noise":
        for place in rng.integers(max(1, len(room) - RATE), size=rng.integers(0, 4)):
            yield from _added(_knock(rng), room, int(place), rng)
    if kind == "speech":
        place = 0
        for number in rng.integers(len(sources.sentences), size=rng.integers(1, 4)):
            yield from _added(sources.sentences[number], room, place, rng)
            place += len(sources.sentences[number]) + round(rng.uniform(0.4, 1.5) * RATE)


def _added(sound: Float32, room: Float32, place: int, rng: np.random.Generator) -> Iterator[Extent]:
    sound = sound[: max(0, len(room) - place)]
    if len(sound) < RATE // 2:
        return
    room[place : place + len(sound)] += np.float32(10 ** (rng.uniform(-30, -12) / 20)) * sound
    yield Extent(place / RATE, (place + len(sound)) / RATE)


def _music(seconds: float, rng: np.random.Generator) -> Float32:
    """Chords of three decaying notes with harmonics, at an even beat; the peak is 1."""
    samples = np.zeros(round(seconds * RATE), np.float32)
    beat = rng.uniform(0.25, 0.6)
    time = np.arange(round(2 * beat * RATE), dtype=np.float32) / RATE
    for start in np.arange(0, seconds - 2 * beat, beat):
        for note in rng.choice([0, 3, 5, 7, 10, 12], 3, replace=False):
            pitch = 220.0 * 2 ** (note / 12)
            tone = sum(np.sin(2 * np.pi * pitch * n * time) / n**1.5 for n in range(1, 7))
            first = round(start * RATE)
            samples[first : first + len(time)] += tone * np.minimum(time / 0.01, 1) * np.exp(-time / beat)
    return np.asarray(samples / max(1e-9, float(np.abs(samples).max())), np.float32)


def _knock(rng: np.random.Generator) -> Float32:
    """Half a second of a sound that dies away in a tenth of it or so; the peak is 1."""
    time = np.arange(RATE // 2) / RATE
    ring = np.sin(2 * np.pi * rng.uniform(150, 2500) * time) + 0.5 * rng.standard_normal(len(time))
    knock = ring * np.exp(-time / rng.uniform(0.02, 0.08))
    return np.asarray(knock / np.abs(knock).max(), np.float32)


def _burst(path: Path) -> Float32 | None:
    try:
        samples = _read(path)
    except AudioError:
        return None
    return samples if 0.15 * RATE <= len(samples) <= LONGEST * RATE and samples.any() else None


def _read(path: Path) -> Float32:
    audio = read_audio(str(path), FrontendSpec())
    return audio.waveform / max(1e-9, float(np.abs(audio.waveform).max()))


def _frame_powers(samples: Float32) -> Float32:
    whole = np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)
    return np.asarray((whole.astype(np.float64) ** 2).mean(axis=1), np.float32)
