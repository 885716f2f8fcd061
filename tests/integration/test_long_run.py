"""What does not show in a short run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rrtn.train.data.corpus import synthesise


def peak_mebibytes(corpus: Path, run: Path, epochs: int) -> float:
    """Peak memory of a whole `rrtn train` process."""
    command = [
        sys.executable,
        "-m",
        "rrtn",
        "train",
        "--data",
        corpus,
        "--epochs",
        epochs,
        "--batch-size",
        16,
        "--out",
        run,
    ]
    with subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1024


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_epochs(tmp_path: Path, cache: Path) -> None:
    corpus = synthesise(tmp_path / "corpus", clips=80, speakers=12, seed=3, split=(0.6, 0.3, 0.1), workers=1)
    runs = [(epochs, tmp_path / f"run-{epochs}-{turn}") for turn in range(2) for epochs in (3, 30)]
    found = [(epochs, peak_mebibytes(corpus, run, epochs)) for epochs, run in runs]
    # The better of two: which thread allocates what differs by 6% from run to run.
    peaks = {epochs: min(peak for of, peak in found if of == epochs) for epochs in (3, 30)}
    print(
        "\npeak memory of rrtn train: "
        f"{', '.join(f'{peak:.0f} MiB in {n} epochs' for n, peak in peaks.items())}"
    )
    assert peaks[30] < 1.05 * peaks[3]
