"""Live windows have the scores of a file's, and the work that cannot keep up is counted."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.errors import ConfigError
from rrtn.runtime.live.live_scoring import LiveRow, LiveScoring
from rrtn.runtime.live.sound_queue import SoundQueue
from rrtn.runtime.live.source import LiveSource
from rrtn.runtime.tables.rows import Row

RATE = 16_000
rng = np.random.default_rng(0)
Samples = NDArray[np.floating[Any]]


@pytest.fixture
def scorer_of(tiny_model: Path) -> Iterator[Callable[..., Scorer]]:
    """A scorer of live windows; several share their model's file alone."""
    made: list[Scorer] = []

    def make(**settings: Any) -> Scorer:
        made.append(Scorer(tiny_model, "cpu", workers=1, level="running", **{"window": 0.5, **settings}))
        return made[-1]

    yield make
    for scorer in made:
        scorer.close()


def source_of(samples: Samples, *, rate: int = RATE, block: int = 480, **queue: Any) -> LiveSource:
    """Sound that has been heard to its end, and waits."""
    heard = SoundQueue(samples.shape[1], **{"limit": 10**9, "waits": True, **queue})
    for i in range(0, len(samples), block):
        heard.put(samples[i : i + block].astype(np.float32))
    heard.end()
    return LiveSource(name="stdin", description="", rate=rate, queue=heard)


def live(
    scorer: Scorer, source: LiveSource, *, drops_late: bool = False
) -> tuple[list[Row], LiveScoring, list[LiveRow]]:
    scoring = LiveScoring(scorer, source, drops_late=drops_late)
    rows = [*scoring.rows()]
    return [one.row for one in rows], scoring, rows


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, int, Samples]]:
    """Files of many rates and lengths: first almost silent, then a voice, then noise 100 dB below it."""
    folder, made = tmp_path_factory.mktemp("sounds"), []
    for rate in (8_000, 16_000, 44_100, 192_000):
        for seconds in (0.3, 2.49, 4.03):
            count = round(seconds * rate)
            gains = np.repeat([0.001, 0.3, 1e-6], -(-count // 3))[:count, None]
            samples = (gains * rng.normal(size=(count, 2))).astype(np.float32)
            path = folder / f"{rate}.{seconds}.wav"
            soundfile.write(path, samples, rate, subtype="FLOAT")
            made.append((path, rate, samples))
    return made


@pytest.mark.parametrize(
    "settings",
    [
        {"window": "auto"},
        {"window": 0.5},
        {"window": 1.0, "hop": 0.3},
        {"window": 0.2, "hop": 0.7},
        {"window": 0.5, "channel": 2},
    ],
    ids=str,
)
def test_the_rows_are_those_of_a_file(
    sounds: list[tuple[Path, int, Samples]], scorer_of: Callable[..., Scorer], settings: dict[str, Any]
) -> None:
    scorer = scorer_of(**settings)
    files = scorer.rows_of_files([path for path, _, _ in sounds])
    for expected, (_, rate, samples) in zip(files, sounds, strict=True):
        rows, scoring, _ = live(scorer, source_of(samples, rate=rate))
        found = [*rows, *([mean] if (mean := scoring.mean_row()) else [])]
        places = [(row.start, row.end, row.error, row.flags) for row in expected]
        assert [(row.start, row.end, row.error, row.flags) for row in found] == places
        for row, other in zip(found, expected, strict=True):
            assert row.scores == pytest.approx(other.scores, abs=1e-6)


def test_the_mean_of_silence_is_silent_as_in_a_file(tmp_path: Path, scorer_of: Callable[..., Scorer]) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    scorer = scorer_of()
    *_, expected = scorer.score_files([tmp_path / "a.wav"])
    rows, scoring, _ = live(scorer, source_of(np.zeros((RATE, 1))))
    assert [row.flags for row in rows] == [("silent",)] * 2
    mean = scoring.mean_row()
    assert mean
    assert mean.flags == expected.flags == ("silent",)
    assert mean.scores == pytest.approx(expected.scores, abs=1e-6)


def test_late_windows_are_left_out_and_counted(scorer_of: Callable[..., Scorer]) -> None:
    """4 s wait: a window is scored once no more than 2 s wait behind it."""
    noise = rng.normal(size=(4 * RATE, 1))
    rows, scoring, states = live(scorer_of(), source_of(noise, block=RATE // 10), drops_late=True)
    summary = scoring.summary()
    assert summary["windows"] + summary["dropped_windows"] == 8
    assert summary["dropped_windows"] == 3
    assert [row.start for row in rows] == [1.5, 2.0, 2.5, 3.0, 3.5]
    assert [one.dropped_windows for one in states] == [3] * 5


def test_a_window_that_is_left_out_still_sets_the_level(scorer_of: Callable[..., Scorer]) -> None:
    noise = 0.02 * rng.normal(size=(4 * RATE, 1))
    noise[:RATE] *= 30
    scorer = scorer_of()
    all_rows, _, _ = live(scorer, source_of(noise))
    rows, _, _ = live(scorer, source_of(noise, block=RATE // 10), drops_late=True)
    assert [row.scores for row in rows] == [row.scores for row in all_rows[-5:]]


def test_without_drops_late_no_window_is_left_out(scorer_of: Callable[..., Scorer]) -> None:
    rows, scoring, _ = live(scorer_of(), source_of(rng.normal(size=(4 * RATE, 1))))
    assert (len(rows), scoring.summary()["dropped_windows"]) == (8, 0)


def test_lost_samples_are_counted_and_their_windows_flagged(scorer_of: Callable[..., Scorer]) -> None:
    """1 s fits, the rest is lost; the sound keeps its length."""
    source = source_of(rng.normal(size=(3 * RATE, 1)), rate=RATE, limit=RATE, waits=False)
    rows, scoring, states = live(scorer_of(), source)
    lost = 3 * RATE - -(-RATE // 480) * 480
    assert scoring.summary()["dropped_samples"] == states[-1].dropped_samples == lost
    assert scoring.summary()["audio_seconds"] == 3.0
    assert [row.flags for row in rows] == [(), (), *[("gap",)], *[("silent", "gap")] * 3]


@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_window_with_nan_is_an_error_and_the_others_are_scored(
    scorer_of: Callable[..., Scorer], bad: float, rate: int
) -> None:
    noise = rng.normal(size=(3 * rate, 1))
    noise[rate + rate // 4] = bad
    rows, scoring, _ = live(scorer_of(), source_of(noise, rate=rate))
    assert [row.error for row in rows] == ["", "", "non_finite", "", "", ""]
    assert [row.scores is None for row in rows] == [False, False, True, False, False, False]
    summary = scoring.summary()
    assert (summary["errors"], summary["windows"], summary["scored"]) == ({"non_finite": 1}, 6, 5)
    mean = scoring.mean_row()
    assert mean
    assert mean.scores
    assert all(np.isfinite([*mean.scores.values()]))


def test_a_channel_that_is_not_there_ends_it(scorer_of: Callable[..., Scorer]) -> None:
    with pytest.raises(
        ConfigError, match=r"--channel 2 \| the sound has 1 channel \| expected 1 to 1 \| leave"
    ):
        live(scorer_of(channel=2), source_of(rng.normal(size=(RATE, 1))))


def test_no_sound_gives_no_row(scorer_of: Callable[..., Scorer]) -> None:
    rows, scoring, _ = live(scorer_of(), source_of(np.zeros((0, 1))))
    assert (rows, scoring.mean_row(), scoring.summary()["scores"]) == ([], None, None)
    assert scoring.summary()["latency_p50"] is None


def test_memory_is_bounded(scorer_of: Callable[..., Scorer], spec: FrontendSpec) -> None:
    """Ten minutes in windows: nothing that is kept grows with them."""
    queue = SoundQueue(1, limit=RATE, waits=True)
    source = LiveSource(name="stdin", description="", rate=RATE, queue=queue)
    scoring = LiveScoring(scorer_of(window=0.1, hop=1.0), source, drops_late=False)
    rows = scoring.rows()
    noise = rng.normal(size=(RATE, 1)).astype(np.float32)
    for _ in range(600):
        queue.put(noise)
        next(rows)
    assert len(queue._arrivals) + len(queue._gaps) + len(queue._blocks) < 100
    assert scoring._latencies.maxlen
