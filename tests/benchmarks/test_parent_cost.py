"""The benchmark of the scoring process runs: its decoders and its model stand in for the real ones."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks/parent_cost.py"


def test_it_measures_rows_copies_and_a_table() -> None:
    command = [sys.executable, str(BENCHMARK), "--files", "600", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])["results"]
    assert {name: result["n"] for name, result in results.items()} == {"rows": 1, "copies": 1, "table": 1}
    assert all(result["us_a_file"] > 0 for result in results.values())
