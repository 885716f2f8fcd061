"""The bytes of the compiled step may not grow. They are counted, so they are the same on every machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CNN14_GB, RESNET18_GB = 24.5, 6.9  # at batch 128; 24.42 and 6.81 by torch 2.11


def last_line(*arguments: str) -> dict[str, object]:
    command = [sys.executable, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    found: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_step_of_the_paper_moves_no_more_bytes_than_it_did() -> None:
    found = last_line(str(BENCHMARKS / "step_bytes.py"), "--encoders", "cnn14", "resnet18")
    for encoder, limit in (("cnn14", CNN14_GB), ("resnet18", RESNET18_GB)):
        gb = found["results"][encoder]["gb"]["step"]
        assert 0.8 * limit < gb <= limit, (encoder, gb)  # far less: something was not counted
