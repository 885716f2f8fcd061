"""A recording of a day takes the memory of one of two hours."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rrtn.runtime import Scorer

RATE = 8_000
HOUR = 3600 * RATE
ALLOWED = 8 << 10  # KiB


def with_a_burst_an_hour(path: Path, hours: int) -> Path:
    """Digital silence takes no room on the disk."""
    burst = np.random.default_rng(0).normal(size=RATE) * 0.1
    soundfile.write(path, np.zeros(1), RATE)
    header = path.read_bytes()[:44]
    size = 2 * HOUR * hours
    with path.open("wb") as file:
        file.write(header[:4] + (size + 36).to_bytes(4, "little") + header[8:40] + size.to_bytes(4, "little"))
        for hour in range(hours):
            file.seek(44 + 2 * (hour * HOUR + HOUR // 2))
            file.write((burst * 32_767).astype("<i2").tobytes())
        file.truncate(44 + size)
    return path


def peaks_of_children() -> list[int]:
    """KiB that each process which this one has started held at most."""
    tasks = Path("/proc/self/task").iterdir()
    children = {child for task in tasks for child in (task / "children").read_text().split()}
    peaks = []
    for child in children:
        status = Path(f"/proc/{child}/status").read_text().splitlines()
        peaks += [int(line.split()[1]) for line in status if line.startswith("VmHWM")]
    return peaks


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads /proc")
def test_n4_a_day_takes_the_memory_of_two_hours(tiny_model: Path, tmp_path: Path) -> None:
    held = []
    for hours in (2, 24):
        path = with_a_burst_an_hour(tmp_path / f"{hours}.wav", hours)
        with Scorer(tiny_model, "cpu", workers=1, segment="level") as scorer:
            *bursts, mean = scorer.score_files([path])
            held.append(max(peaks_of_children()))
        assert len(bursts) == hours
        assert mean.seconds == 3600 * hours
    assert held[1] < held[0] + ALLOWED
