"""The bytes of the compiled step may not grow. They are counted, so they are the same on every machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CNN14_GB, RESNET18_GB = 24.5, 6.9  # at batch 128; 24.42 and 6.81 by torch 2.11
SMALL_GB = 4.65  # 4.60
# Two blocks of CNN14, of which one is pooled: every form of kernel that the whole network has.
SMALL = f"""
import gc, json, sys, warnings
gc.disable()  # to look for garbage takes a tenth of the time
from unittest import mock
sys.path.insert(0, {str(BENCHMARKS)!r})
warnings.simplefilter("ignore", FutureWarning)
import step_bytes
from rrtn.train.method import model
from rrtn.train.method.encoders import PannsCnn
small = lambda name, *, n_mels: PannsCnn(n_mels, channels=(16, 32), pooled_blocks=1)
with mock.patch.object(model, "encoder_from_name", small):
    kernels = step_bytes.kernels_of_step("cnn14", batch_size=128)
print(json.dumps({{"gb": step_bytes.gigabytes(kernels), "kernels": len(kernels)}}))
"""


def last_line(*arguments: str) -> dict[str, object]:
    command = [sys.executable, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    found: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_two_blocks_move_no_more_bytes_than_they_did() -> None:
    found = last_line("-c", SMALL)
    assert 0.8 * SMALL_GB < found["gb"]["step"] <= SMALL_GB, found  # far less: something was not counted


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_step_of_the_paper_moves_no_more_bytes_than_it_did() -> None:
    found = last_line(str(BENCHMARKS / "step_bytes.py"), "--encoders", "cnn14", "resnet18")
    for encoder, limit in (("cnn14", CNN14_GB), ("resnet18", RESNET18_GB)):
        gb = found["results"][encoder]["gb"]["step"]
        assert 0.8 * limit < gb <= limit, (encoder, gb)
