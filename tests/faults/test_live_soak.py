"""Half an hour of live sound at its own pace: the scores of a file, no drift, no loss, flat memory.

Issue 21, part 2. RRTN_SOAK=0.1 is a tenth of it.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rrtn.export.graph import onnx_from_network
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.train.method.model import TwinsNetwork

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

SECONDS = round(1800 * float(os.environ.get("RRTN_SOAK", "1")))
RATE = 48_000
HOP = 0.5
BLOCK = RATE // 50  # samples that are written at once: 20 ms
BURSTS = sorted((Path(__file__).parents[1] / "fixtures/bursts").glob("*.wav"))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet18 with random weights."""
    spec, labels = FrontendSpec(), ("Awe", "Fear", "Joy")
    torch.manual_seed(0)
    network = TwinsNetwork("resnet18", n_mels=spec.n_mels, n_targets=len(labels), projector_layers=0).eval()
    path = tmp_path_factory.mktemp("resnet") / "resnet18.onnx"
    path.write_bytes(onnx_from_network(network, spec, labels))
    return path


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\nsoak: {text}")

    return say


class Live:
    """A live `rrtn`, each line of which is noted with the time at which it came."""

    def __init__(self, *arguments: object, cwd: Path) -> None:
        with (cwd / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rrtn", *map(str, arguments), "--json"],
                cwd=cwd,
                stdin=subprocess.PIPE if arguments[0] == "score" else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
            )
        self.lines: list[tuple[float, dict[str, Any]]] = []
        self.memory: list[int] = []  # KiB, at every tenth line
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), json.loads(line)))
            if len(self.lines) % 10 == 0:
                self.memory.append(self._resident())

    def _resident(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]

    def ended(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Rows and summary."""
        self._thread.join()
        assert self.process.wait() == 0
        assert self.process.stdout
        self.process.stdout.close()
        rows = [row for _, row in self.lines]
        return rows[:-1], rows[-1]

    def drift(self) -> tuple[float, float]:
        """When rows came, by the clock of their sound: the last tenth behind the first, and the largest."""
        behind = np.array([at - row["end"] for at, row in self.lines[:-2]])
        tenth = max(1, len(behind) // 10)
        first = np.median(behind[:tenth])
        return float(np.median(behind[-tenth:]) - first), float(behind.max() - first)


def sound() -> "np.ndarray[Any, np.dtype[np.int16]]":
    """Real bursts over noise, quiet and loud, seeded."""
    rng = np.random.default_rng(0)
    samples = np.resize(rng.normal(0, 30, 10 * RATE).astype(np.int16), SECONDS * RATE)
    bursts = [
        np.resize(soundfile.read(path, dtype="int16", always_2d=True)[0][:, 0], RATE) for path in BURSTS
    ]
    for place in range(RATE, len(samples) - RATE, 5 * RATE):
        burst = bursts[rng.integers(len(bursts))] * rng.uniform(0.02, 0.9)
        samples[place : place + RATE] += burst.astype(np.int16)
    return samples


def written_at_its_pace(samples: "np.ndarray[Any, np.dtype[np.int16]]", process: Any) -> None:
    begin = time.monotonic()
    for i in range(0, len(samples), BLOCK):
        time.sleep(max(0.0, begin + (i + BLOCK) / RATE - time.monotonic()))
        process.stdin.write(samples[i : i + BLOCK].tobytes())
        process.stdin.flush()
    process.stdin.close()


def check(live: Live, say: Callable[[str], None], name: str) -> list[dict[str, Any]]:
    rows, summary = live.ended()
    drift, worst = live.drift()
    dropped = summary["dropped_windows"]  # of a microphone, on a busy machine
    growth = live.memory[-1] - live.memory[len(live.memory) // 10]
    p50, p99 = (1000 * summary[f"latency_{name}"] for name in ("p50", "p99"))
    say(
        f"{name}: {len(rows)} windows, {dropped} dropped, of {summary['audio_seconds']} s; "
        f"latency p50 {p50:.1f} ms, p99 {p99:.1f} ms; drift {1000 * drift:.1f} ms, "
        f"latest {1000 * worst:.0f} ms; memory {live.memory[-1]} KiB, {growth:+} KiB"
    )
    assert (summary["dropped_samples"], summary["errors"]) == (0, {})
    assert len(rows) == summary["windows"] == int((SECONDS - 2.49) / HOP + 1e-9) + 2 - dropped
    assert abs(drift) < 0.1
    assert growth < 16 << 10
    return rows


def test_stdin(resnet: Path, tmp_path: Path, say: Callable[[str], None]) -> None:
    samples = sound()
    soundfile.write(tmp_path / "whole.wav", samples, RATE)
    live = Live("score", "-", "--rate", RATE, "-m", resnet, "--hop", HOP, cwd=tmp_path)
    written_at_its_pace(samples, live.process)
    rows = check(live, say, "score -")  # it waits, and drops nothing
    with Scorer(resnet, window="auto", hop=HOP, level="running") as scorer:
        *expected, _ = scorer.score_files([tmp_path / "whole.wav"])
    assert [(row["start"], row["end"]) for row in rows] == [(row.start, row.end) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row["scores"] == pytest.approx(other.scores, abs=1e-6)
    assert np.std([row["scores"]["Awe"] for row in rows]) > 1e-3


def test_the_null_device(resnet: Path, tmp_path: Path, say: Callable[[str], None]) -> None:
    """Silence in real time."""
    arguments = ("listen", "--device", "null", "--seconds", SECONDS, "-m", resnet, "--hop", HOP)
    rows = check(Live(*arguments, cwd=tmp_path), say, "listen")
    with Scorer(resnet) as scorer:
        silence = scorer.score_clip(np.zeros(39_840, np.int16))
    for row in rows:
        assert row["scores"] == pytest.approx(silence, abs=1e-6)
