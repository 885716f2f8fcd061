"""What int8.py says of the difference between two graphs."""

import importlib
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_difference_is_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    difference = importlib.import_module("int8").difference
    reference = np.array([[0.1, 0.5], [0.3, 0.5], [0.5, 0.5]], dtype=np.float32)
    scores = reference + np.array([[0.01, 0], [-0.01, 0], [0.04, 0]], dtype=np.float32)
    found = difference(scores, reference)
    assert found["clips"] == 3
    assert found["max_abs"] == pytest.approx(0.04, rel=1e-5)
    assert found["rms"] == pytest.approx(np.sqrt((1e-4 + 1e-4 + 16e-4) / 6), rel=1e-5)
    assert found["rms_share"] == pytest.approx(np.sqrt(6e-4) / np.std([0.1, 0.3, 0.5]), rel=1e-5)
    assert np.isnan(difference(np.full_like(reference, np.nan), reference)["max_abs"])
