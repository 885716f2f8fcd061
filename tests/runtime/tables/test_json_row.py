"""A line of the JSONL table says each score in as few digits as the float32 needs."""

import re

import numpy as np
from rrtn.runtime.tables.json_row import json_row
from rrtn.runtime.tables.rows import Row


def test_jsonl_gives_back_every_kind_of_float32_in_its_own_digits() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    values = np.append(values[np.isfinite(values)], np.float32([0.1, 1.0, 1e-45, 3.4028235e38, 16777216.0]))
    scores = {str(place): value for place, value in enumerate(values.tolist())}
    texts = {place: repr(value) for place, value in json_row(Row(file="a", scores=scores))["scores"].items()}
    assert np.array_equal(np.float32([float(text) for text in texts.values()]), values)
    assert max(len(re.sub(r"^-|\.|e.*|^0\.0*", "", text).strip("0")) for text in texts.values()) <= 9
