"""`rrtn listen` hears a real sound system: a PulseAudio server of the test's own, with a null sink.

The sink's monitor is the microphone.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rrtn.runtime import Scorer

RATE = 44_100  # PulseAudio's own

pytestmark = pytest.mark.skipif(
    not (shutil.which("pulseaudio") and shutil.which("paplay")), reason="needs pulseaudio and paplay"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which programs find it."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "HOME": str(tmp_path)}
    env.pop("PULSE_SERVER", None)
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [
            *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--disable-shm"),
            *("-L", f"module-null-sink sink_name=heard rate={RATE} channels=1"),
            *("-L", "module-native-protocol-unix"),
        ],
        env=env,
        stdout=log,
        stderr=log,
    )
    try:
        if not _answers(process, env):
            pytest.skip(f"pulseaudio does not start here: {(tmp_path / 'log').read_text()[-300:]}")
        yield env
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _answers(process: "subprocess.Popen[bytes]", env: dict[str, str]) -> bool:
    for _ in range(100):
        if process.poll() is not None:
            return False
        if (Path(env["XDG_RUNTIME_DIR"]) / "pulse/native").exists():
            return True
        time.sleep(0.1)
    return False


def listened(env: dict[str, str], *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "rrtn", "listen", *map(str, arguments), "--json"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_a_microphone_is_listed_with_its_own_rate(server: dict[str, str]) -> None:
    (device,) = json.loads(listened(server, "--devices").stdout)["devices"]
    assert "Monitor" in device["name"]
    assert (device["rate"], device["channels"]) == (RATE, 1)


def test_what_is_played_is_heard(server: dict[str, str], tiny_model: Path, tmp_path: Path) -> None:
    """A tenth of a second of noise again and again: the same scores whenever a window begins."""
    piece = np.random.default_rng(0).uniform(-0.3, 0.3, RATE // 10)
    soundfile.write(tmp_path / "a.wav", np.tile(piece, 600), RATE)
    playing = subprocess.Popen(["paplay", str(tmp_path / "a.wav")], env=server)
    try:
        done = listened(server, "-m", tiny_model, "--seconds", 5, "--window", 1, "--hop", 0.5)
    finally:
        playing.kill()
        playing.wait()
    assert done.returncode == 0, done.stderr
    *rows, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert summary["windows"] + summary["dropped_windows"] == 9
    assert (len(rows), summary["errors"]) == (summary["windows"], {})
    assert {row["file"] for row in rows} == {"Monitor of Null Output"}
    with Scorer(tiny_model, "cpu", window=1.0, workers=1, level="running") as scorer:
        expected = next(scorer.score_files([tmp_path / "a.wav"])).scores
    # On a busy machine the server itself may miss a block of some window.
    for label, score in (expected or {}).items():
        assert np.median([row["scores"][label] for row in rows]) == pytest.approx(score, abs=0.01)
