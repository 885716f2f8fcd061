"""T1, and T2 at every place: training killed again and again comes to the bytes of a run that nobody
has touched.

Real processes and real SIGKILL; see docs/reliability.md. Minutes, so under `make soak`.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rrtn.train.checkpoint import POINTER, load_checkpoint
from rrtn.train.data.corpus import synthesise

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

RANDOM_KILLS = 50
PLACES = ("write.*", "checkpoint.prune", "train.step", "train.validate")
Outcome = Callable[[Path], dict[str, object]]


class Soak:
    """One run's command, started over and over, and what it must come to."""

    def __init__(self, server: Any, outcome: Outcome, folder: Path, flags: tuple[object, ...]) -> None:
        self._server, self._outcome, self._folder, self._flags = server, outcome, folder, flags
        self._run = folder / "run"
        self.kills = self.starts = 0
        self._begun = time.monotonic()
        self.expected: dict[str, object] = {}

    def start(self, **options: object) -> Any:
        """A new run, or the one that was killed; a kill before config.toml leaves none to resume."""
        self.starts += 1
        argv = ("--resume",) if (self._run / "config.toml").exists() else self._flags
        return self._server.start("train", "--out", self._run, *argv, cwd=self._folder, **options)

    def is_killed(self, child: Any) -> bool:
        """Once it has ended; its last checkpoint is then whole, and otherwise the run is what it must be."""
        ended = child.wait()
        assert ended.code in (0, -signal.SIGKILL), ended.err
        assert "note: " not in ended.err  # nobody had to take the checkpoint before
        last = self._run / "checkpoints/last"
        if (last / POINTER).exists():
            load_checkpoint(last, "weights", "optimizer")
        self.kills += ended.code != 0
        return bool(ended.code)

    def check_and_clear(self) -> None:
        assert self._outcome(self._run) == self.expected
        assert [path for path in self._run.rglob("*") if path.suffix == ".tmp"] == []
        shutil.rmtree(self._run)

    def unbroken(self, **options: object) -> float:
        """Runs once without a kill, for what is expected; -> the seconds that it took."""
        began = time.monotonic()
        assert not self.is_killed(self.start(**options))
        seconds = time.monotonic() - began
        self.expected = self.expected or self._outcome(self._run)
        self.check_and_clear()
        return seconds

    def summary(self, what: str) -> str:
        seconds = time.monotonic() - self._begun
        return (
            f"\nsoak: {what}: {self.kills} kills, {self.starts} starts, {seconds:.0f} s, all "
            "runs equal byte for byte"
        )


@pytest.fixture
def soak(server: Any, outcome: Outcome, settings: Path, tmp_path: Path) -> Iterator[Soak]:
    """64 clips, three epochs of five steps, and a checkpoint every 50 ms: in the midst of epochs, too."""
    corpus = synthesise(
        tmp_path / "corpus", clips=64, speakers=12, seed=5, split=(0.65, 0.25, 0.1), workers=1
    )
    config = tmp_path / "soak.toml"
    config.write_text(
        "checkpoint_minutes = 0.0008\n" + settings.read_text().replace("batch_size = 4", "batch_size = 8")
    )
    flags = ("--data", corpus, "--config", config, "--device", "cpu")
    soak = Soak(server, outcome, tmp_path, flags)
    soak.unbroken()
    return soak


def test_t1_killed_at_random_moments(soak: Soak, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Moments are uniform over an unbroken run, decoding included: each run has a cache of its own,
    and is killed again after each restart until it ends before its kill.
    """
    rng = np.random.default_rng(0)
    duration = float(np.median([soak.unbroken(RRTN_CACHE=tmp_path / f"timed-{i}") for i in range(3)]))
    runs = 0
    while soak.kills < RANDOM_KILLS:
        runs += 1
        while True:
            child = soak.start(RRTN_CACHE=tmp_path / f"cache-{runs}")
            time.sleep(rng.uniform(0, duration))
            child.kill()
            if not soak.is_killed(child):
                break
        soak.check_and_clear()
    with capsys.disabled():
        print(soak.summary(f"{runs} runs of {duration:.2f} s, killed at random moments"))


@pytest.mark.parametrize("place", PLACES)
def test_t1_t2_killed_at_every_place(soak: Soak, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At the first, the second, ... until a run passes without being killed."""
    while soak.is_killed(soak.start(RRTN_FAILPOINT=f"{place}:sigkill:{soak.kills + 1}")):
        assert not soak.is_killed(soak.start())
        soak.check_and_clear()
    soak.check_and_clear()
    assert soak.kills >= 3
    with capsys.disabled():
        print(soak.summary(f"killed at every {place}"))
