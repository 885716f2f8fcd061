"""Synthetic vocal bursts in the Hume-VB layout: ten intensities drive a voice, and raters hear it.

What each emotion does to the voice follows Sauter et al. 2010, Cowen et al. 2019 and Anikin 2019
(bursts), Bachorowski et al. 2001 (laughter), Juslin & Laukka 2003 (pitch, level, tempo), and Arnal
et al. 2015 (screams). The corpus is a test signal, not a model of people: the differences between
countries and speakers are random.
"""

import csv
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runtime.audio.wav_file import wav_bytes
from ...runtime.challenge import EMOTIONS
from ...runtime.errors import ConfigError, DataError, StoppedError
from ...runtime.system.cpus import usable_cpus
from ...runtime.system.files import atomic_path, write_refused
from ...runtime.system.host import MOST_PROCESSES, ignore_interrupts, interrupts_blocked
from ..method.tasks import TASK_NAMES, task_of_name
from .places import SETTINGS
from .voice import SAMPLING_RATE, Gesture, Speaker, burst

Floats = NDArray[np.float64]

# Columns of the table below: fields of `voice.Gesture`, in its units.
# fmt: off
_FIELDS = ("length", "f0", "slope", "arch", "declination", "rate", "irregularity", "duty", "attack",
           "crescendo",
           "effort", "breath", "openness", "frontness", "glide", "tremor_rate", "tremor_depth", "roughness",
           "gasp", "sigh")

_GESTURES: dict[str, tuple[float, ...]] = {
    # len  f0 slope arch decl rate irr duty  att cresc effo brea open fron glid tr/s trem roug gasp sigh
    # "whoa": low, soft and breathy, a slow swell that opens, then a breath let out
    "Awe":
    ( 1.9,  3,  0,  5, -1, 0.6, 0.0, 0.9, .150,   3, 0.1, 0.6, 0.3, 0.0,  0.7,  5, 0.0, 0.0, 0.1, 0.6),
    # "woo-hoo": high, loud, quick syllables that each rise, and grow
    "Excitement":
    ( 1.5, 11,  6,  0,  3, 2.6, 0.1, 0.8, .020,   8, 0.7, 0.1, 0.2, 0.2,  0.0,  5, 0.0, 0.0, 0.1, 0.0),
    # laughter: five short regular "ha" a second, each falling, the bout sinking and fading (Bachorowski)
    "Amusement":
    ( 1.9,  6, -3,  0, -6, 5.0, 0.0, 0.5, .012, -12, 0.5, 0.7, 0.9, 0.3,  0.0,  5, 0.0, 0.1, 0.0, 0.1),
    # "uh ... hm": low, soft, closing; short pieces at irregular intervals, a creak
    "Awkwardness":
    ( 1.6, -2,  0,  0, -1, 2.4, 0.9, 0.3, .040,  -3, 0.2, 0.1, 0.2, 0.6, -0.6,  5, 0.0, 0.4, 0.0, 0.1),
    # a gasp, then a high thin voice that trembles fast
    "Fear":
    ( 1.5, 13,  1,  0,  2, 1.4, 0.1, 0.7, .020,   0, 0.4, 0.6, 0.6, 1.0,  0.0, 10, 1.2, 0.1, 0.8, 0.0),
    # a scream: one long "aah", highest, loudest, rough (Arnal)
    "Horror":
    ( 1.9, 13, -2,  3,  0, 0.6, 0.0, 0.9, .015,   4, 1.0, 0.2, 1.0, 0.6,  0.0,  8, 0.3, 0.9, 0.3, 0.0),
    # wails: tense syllables that each fall far, growing, somewhat rough
    "Distress":
    ( 1.7,  7, -7,  0,  2, 1.6, 0.2, 0.9, .060,   5, 0.7, 0.1, 0.6, 1.0, -0.3,  7, 0.6, 0.6, 0.0, 0.1),
    # "yeah": loud, bright, sustained, opening, pitch up to the end with a slow vibrato
    "Triumph":
    ( 1.7,  5,  5,  2,  3, 0.8, 0.0, 0.9, .030,   4, 1.0, 0.0, 0.8, 0.2,  0.7,  5, 0.7, 0.1, 0.0, 0.0),
    # sobs or a moan: low, soft, breathy, falling and fading, a long sigh
    "Sadness":
    ( 1.7,  0, -5,  0, -5, 1.8, 0.3, 0.7, .110,  -8, 0.1, 0.5, 0.4, 0.6, -0.3,  4, 0.6, 0.1, 0.0, 0.9),
    # a sharp gasp, then one short "oh?" that leaps up
    "Surprise":
    ( 1.0,  7,  9,  0,  2, 0.9, 0.0, 0.4, .008,  -3, 0.4, 0.3, 0.7, 0.0, -0.5,  5, 0.0, 0.0, 0.9, 0.0),
}
# Standard deviations between speakers and between the clips of one, then what a throat can do.
_HABIT = np.array(
    [ .1,  2,  1,  1,  1, 0.3, 0.1, .06, .010,   2, .12, .10, .10, .10,  0.1,  1, 0.1, .12, .12, .12])
_WHIM  = np.array(
    [ .5,  2,  1,  1,  1, 0.3, 0.1, .06, .010,   2, .10, .08, .08, .08,  0.1,  1, 0.1, .10, .10, .10])
_LEAST = np.array(
    [ .7, -6,-12, -3,-12, 0.4, 0.0, .25, .004, -20, 0.0, .05, 0.0, 0.0, -1.0,  3, 0.0, 0.0, 0.0, 0.0])
_MOST  = np.array(
    [5.0, 18, 12,  9,  9, 6.5, 1.2, .95, .250,  15, 1.0, 0.9, 1.0, 1.0,  1.0, 12, 1.8, 1.0, 1.0, 1.0])

# Which EMOTIONS are felt together, 0 .. 9: the weight with which the row's emotion calls the column's.
_COMPANY = np.array([
    # awe exc amu awk fea hor dis tri sad sur
    [  0,  4,  2,  1,  1,  1,  1,  3,  3,  9],  # Awe
    [  4,  0,  7,  1,  1,  0,  0,  8,  0,  5],  # Excitement
    [  2,  7,  0,  5,  0,  0,  0,  5,  0,  3],  # Amusement
    [  1,  1,  6,  0,  2,  1,  4,  0,  4,  2],  # Awkwardness
    [  1,  1,  0,  1,  0,  9,  7,  0,  2,  6],  # Fear
    [  1,  0,  0,  1,  9,  0,  7,  0,  1,  4],  # Horror
    [  0,  0,  0,  3,  7,  7,  0,  0,  7,  2],  # Distress
    [  4,  9,  5,  0,  0,  0,  0,  0,  0,  2],  # Triumph
    [  3,  0,  0,  4,  2,  1,  9,  0,  0,  1],  # Sadness
    [  8,  5,  2,  2,  6,  4,  1,  2,  0,  0],  # Surprise
])
# fmt: on

COUNTRIES = ("United States", "China", "South Africa", "Venezuela")

# What else a clip of each emotion is, for tasks that ask for it: valence, arousal, kind of vocalisation.
_OTHER_LABELS: dict[str, tuple[float, float, str]] = {
    "Awe": (0.75, 0.45, "Pant"),
    "Excitement": (0.90, 0.85, "Scream"),
    "Amusement": (0.90, 0.70, "Laugh"),
    "Awkwardness": (0.35, 0.40, "Grunt"),
    "Fear": (0.15, 0.85, "Gasp"),
    "Horror": (0.05, 0.90, "Scream"),
    "Distress": (0.10, 0.75, "Groan"),
    "Triumph": (0.85, 0.85, "Other"),
    "Sadness": (0.15, 0.25, "Cry"),
    "Surprise": (0.55, 0.80, "Gasp"),
}

MARK = "SYNTHETIC.txt"  # a file in each folder that is made here

_RATERS = 5
_RATER_SD = 0.2  # of one rater's rating of one emotion
_CHUNK = 25  # clips: a fraction of a second, so that progress and Ctrl-C are prompt
_COLUMNS = ("File_ID", "Split", "Subject_ID", "Country", "Country_string", "Age", *EMOTIONS)


class _Layout(NamedTuple):
    """Where a challenge has its table and its recordings, and what a hidden label of Test is."""

    table: str
    audio: str
    columns: tuple[str, ...]
    hidden: str


def _layout(task: str) -> _Layout:
    """The layout of Hume-VB and ExVo, or of A-VB. Raises ConfigError for a task that is none."""
    if task in ("", "exvo-multitask"):
        return _Layout("data_info.csv", "wav", _COLUMNS, "")
    found = task_of_name(task)
    if found is None:
        raise ConfigError("--task", task, wanted=f"one of {', '.join(TASK_NAMES[1:])}")
    labels = (*found.targets, *found.class_targets)
    name = task.removeprefix("avb-")
    return _Layout(f"labels/{name}_info.csv", "audio/wav", ("File_ID", "Split", *labels), "-1")


class _Stream(IntEnum):
    """Each purpose has random numbers of its own."""

    COUNTRY = 0
    SPEAKER = 1
    CLIP = 2


@dataclass(frozen=True, kw_only=True)
class _Corpus:
    """Everything that a clip depends on, except for its index."""

    out: Path
    speakers: int
    seed: int
    split: tuple[float, float, float]
    task: str = ""


@dataclass(frozen=True, kw_only=True)
class _Person:
    """A speaker."""

    voice: Speaker
    habit: Floats  # [fields], what they add to every gesture
    country: int
    age: int  # years


def synthesise(
    out: Path,
    *,
    clips: int,
    speakers: int,
    seed: int = 0,
    split: tuple[float, float, float] = (0.6, 0.25, 0.15),
    workers: int | None = None,
    task: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes wav/00001.wav ... and data_info.csv to the folder `out`; -> the folder.

    SYNTHETIC.txt says what made them. The table is written last: a folder without it is incomplete.
    `split` is the share of speakers in Train, Val and Test. A clip depends only on its index, on `seed`
    and on `speakers`; `task` is of a challenge, and changes labels and layout alone.
    `progress` is called with (clips done, clips) a few times a second. Raises ConfigError for
    arguments that make no corpus, DataError where `out` is not empty, StoppedError where the disk is full
    or the folder cannot be written to.
    """
    _check(out, clips=clips, speakers=speakers, seed=seed, split=split, workers=workers)
    corpus = _Corpus(out=out, speakers=speakers, seed=seed, split=split, task=task)
    try:
        _write_corpus(corpus, clips, workers=workers or usable_cpus(), progress=progress)
    except OSError as error:
        refused = write_refused(error.filename or out, error)
        if isinstance(refused, StoppedError) and not isinstance(error, PermissionError):
            refused.fix = f"make room there, remove {out}, and run the same command again"
        raise refused from error
    return out


def _write_corpus(
    corpus: _Corpus, clips: int, *, workers: int, progress: Callable[[int, int], None] | None
) -> None:
    out, task, layout = corpus.out, corpus.task, _layout(corpus.task)
    (out / layout.audio).mkdir(parents=True, exist_ok=True)
    chunks = [range(first, min(first + _CHUNK, clips)) for first in range(0, clips, _CHUNK)]
    rows: list[list[str]] = []
    for done in _rows_of_chunks(corpus, chunks, workers=workers):
        rows += done
        if progress:
            progress(len(rows), clips)
    made = f"rrtn data synth: {clips} clips of {corpus.speakers} speakers, seed {corpus.seed}\n"
    (out / MARK).write_text(made, encoding="utf-8")
    if task:
        (out / SETTINGS).write_text(_settings(layout, task), encoding="utf-8")
    (out / layout.table).parent.mkdir(exist_ok=True)
    _write_table(out / layout.table, layout.columns, rows)


def is_synthetic(folder: Path) -> bool:
    """True for a data set that `synthesise` made."""
    return (folder / MARK).is_file()


def _check(
    out: Path, *, clips: int, speakers: int, seed: int, split: tuple[float, float, float], workers: int | None
) -> None:
    """Refuses bad arguments before anything is written."""
    if speakers < 3:
        raise ConfigError("speakers", str(speakers), wanted="at least 3, one for each split")
    if clips < speakers:
        raise ConfigError("clips", str(clips), wanted=f"at least {speakers}, one for each speaker")
    if seed < 0:
        raise ConfigError("seed", str(seed), wanted="at least 0")
    if min(split) <= 0 or abs(sum(split) - 1) > 1e-6:
        raise ConfigError(
            "split",
            str(split),
            wanted="three positive shares that add up to 1",
            fix="for example 0.6 0.25 0.15",
        )
    if workers is not None and workers < 1:
        raise ConfigError("workers", str(workers), wanted="at least 1", fix="leave it out to use every CPU")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            str(out), "not an empty folder", wanted="a new folder", fix="choose another one, or remove it"
        )


def _rows_of_chunks(corpus: _Corpus, chunks: list[range], *, workers: int) -> Iterator[list[list[str]]]:
    """Yields the rows of each chunk in order, while other processes write the clips."""
    if workers == 1:
        yield from map(_write_clips, repeat(corpus), chunks)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of a program with threads
    count = min(workers, len(chunks), MOST_PROCESSES)
    with ProcessPoolExecutor(count, mp_context=context, initializer=ignore_interrupts) as pool:
        with interrupts_blocked():  # Ctrl-C is for this process, which stops the others
            results = pool.map(_write_clips, repeat(corpus), chunks)
        yield from results


def _write_clips(corpus: _Corpus, indices: range) -> list[list[str]]:
    """Writes these clips' WAV files and returns their rows of the table."""
    return [_write_clip(corpus, index) for index in indices]


def _write_clip(corpus: _Corpus, index: int) -> list[str]:
    number = index % corpus.speakers
    split = _split_of_speaker(number, speakers=corpus.speakers, split=corpus.split)
    person = _person(corpus.seed, number)
    rng = np.random.default_rng((corpus.seed, _Stream.CLIP, index))
    felt = _felt(rng)
    waveform = burst(_gesture(felt, habit=person.habit, rng=rng), speaker=person.voice, rng=rng)
    name = f"{index + 1:05d}"
    layout = _layout(corpus.task)
    path = corpus.out / layout.audio / f"{name}.wav"
    try:
        path.write_bytes(wav_bytes(waveform, SAMPLING_RATE))
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say where
        raise
    if layout.columns != _COLUMNS:
        labels = _labels(corpus.task, felt, person, rng)
        return [f"[{name}]", split, *(labels if split != "Test" else [layout.hidden] * len(labels))]
    ratings = [""] * len(EMOTIONS) if split == "Test" else [f"{rating:.4f}" for rating in _rated(felt, rng)]
    speaker = f"Speaker_{number + 1:04d}"
    known = ["", ""] if corpus.task and split == "Test" else [str(person.country), str(person.age)]
    return [f"[{name}]", split, speaker, known[0], COUNTRIES[person.country], known[1], *ratings]


def _labels(task: str, felt: Floats, person: _Person, rng: np.random.Generator) -> list[str]:
    """The cells of an A-VB task; of avb-culture only those of the speaker's own culture are rated."""
    valence, arousal, kinds = zip(*(_OTHER_LABELS[name] for name in EMOTIONS), strict=True)
    match task:
        case "avb-two":
            noise = _RATER_SD * rng.standard_normal((_RATERS, 2)).mean(axis=0)
            means = np.array([felt @ valence, felt @ arousal]) / felt.sum()
            return [f"{rating:.4f}" for rating in np.clip(means + noise, 0, 1)]
        case "avb-type":
            return [kinds[int(felt.argmax())]]
    rated = dict(zip(EMOTIONS, _rated(felt, rng), strict=True))
    if task == "avb-high":
        return [f"{rating:.4f}" for rating in rated.values()]
    own = {f"{COUNTRIES[person.country]}_{name}": f"{rating:.4f}" for name, rating in rated.items()}
    return [own.get(column, "") for column in _layout(task).columns[2:]]


def _settings(layout: _Layout, task: str) -> str:
    """data.toml, so that the folder trains as it is."""
    lines = [f'task = "{task}"']
    if layout.audio != "wav":
        lines += [f'csv = "{layout.table}"', f'audio = "{layout.audio}"']
    return "\n".join(lines) + "\n"


def _split_of_speaker(number: int, *, speakers: int, split: tuple[float, float, float]) -> str:
    """Train has the first speakers, then comes Val, then Test. Each has at least one."""
    train = min(max(round(split[0] * speakers), 1), speakers - 2)
    val = min(max(round(split[1] * speakers), 1), speakers - train - 1)
    return "Train" if number < train else "Val" if number < train + val else "Test"


def _person(seed: int, number: int) -> _Person:
    """A low or a high voice (Peterson & Barney 1952), a microphone, and the speaker's habits."""
    rng = np.random.default_rng((seed, _Stream.SPEAKER, number))
    country = int(rng.integers(len(COUNTRIES)))
    manner = np.random.default_rng((seed, _Stream.COUNTRY, country)).normal(0, 0.5, len(_FIELDS))
    f0, tract_length = (115.0, 17.0) if rng.random() < 0.5 else (205.0, 14.7)
    voice = Speaker(
        f0=f0 * rng.lognormal(0, 0.14),
        tract_length=tract_length * rng.lognormal(0, 0.04),
        jitter=rng.uniform(0.004, 0.02),
        shimmer=rng.uniform(0.02, 0.12),
        tilt=rng.normal(0, 1.8),
        cutoff=rng.uniform(5_000, 8_000),
        room=rng.uniform(-58, -38),
    )
    habit = _HABIT * (manner + rng.standard_normal(len(_FIELDS)))
    return _Person(voice=voice, habit=habit, country=country, age=int(rng.integers(20, 61)))


def _felt(rng: np.random.Generator) -> Floats:
    """[K] intensities: one emotion at 1, one to three related ones, a trace of the others."""
    felt = 0.15 * rng.beta(1, 3, len(EMOTIONS))
    first = int(rng.integers(len(EMOTIONS)))
    weights = _COMPANY[first] / _COMPANY[first].sum()
    company = rng.choice(len(EMOTIONS), size=rng.integers(1, 4), replace=False, p=weights)
    felt[company] = rng.uniform(0.2, 0.9, len(company))
    felt[first] = 1
    return felt


def _gesture(felt: Floats, *, habit: Floats, rng: np.random.Generator) -> Gesture:
    """The emotions' rows averaged by intensity, plus the speaker's habit and a random whim."""
    row = felt @ np.array([_GESTURES[name] for name in EMOTIONS]) / felt.sum()
    row += habit + _WHIM * rng.standard_normal(len(_FIELDS))
    fields = dict(zip(_FIELDS, np.clip(row, _LEAST, _MOST).tolist(), strict=True))
    return Gesture(lead=rng.uniform(0.05, 0.3), tail=rng.uniform(0.05, 0.7), **fields)


def _rated(felt: Floats, rng: np.random.Generator) -> Floats:
    """[K] the mean of a few raters' marks; the clip's highest becomes 1, as in Hume-VB."""
    marks = np.clip(felt + _RATER_SD * rng.standard_normal((_RATERS, len(felt))), 0, 1).mean(axis=0)
    return np.asarray(marks / marks.max())


def _write_table(path: Path, columns: tuple[str, ...], rows: list[list[str]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
