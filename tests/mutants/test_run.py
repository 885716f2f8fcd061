"""The page has a place for each module, and a change is told by its line."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DIFF = """--- mutation diff ---
--- aruntime/spec.py
+++ bruntime/spec.py
@@ -101,3 +101,3 @@
     def frames_of(self, samples: int) -> int:
-        return 1 + samples // self.hop
+        return 2 + samples // self.hop
"""


@pytest.fixture(scope="module")
def run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants_run", Path(__file__).with_name("run.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_modules_and_their_tests_are_there(run: ModuleType) -> None:
    for module, tests in run.TESTS.items():
        assert all((ROOT / path).is_file() for path in (module, *tests.split())), module


def test_an_outcome_takes_the_place_of_the_last_one(run: ModuleType) -> None:
    survivor = run.survivor_of({"diff": DIFF})
    assert survivor == (102, "return 1 + samples // self.hop", "return 2 + samples // self.hop")
    page = run.PAGE.read_text()
    for module in run.TESTS:
        changed = run.with_outcome(page, module, run.Outcome(4, [survivor]))
        assert changed.count(f"| `{module}` | 4 | 3 | 75% |") == 1
        assert changed.count("| 102 | `return 1 + samples // self.hop` |") == 1
        assert run.with_outcome(changed, module, run.Outcome(4, [])).count("| 102 |") == 0


def test_the_docs_say_how_much_the_tests_see(run: ModuleType) -> None:
    rows = re.findall(r"^\| `\S+` \| (\d+) \| \d+ \| (\d+)% \|", run.PAGE.read_text(), flags=re.M)
    counts, shares = zip(*(map(int, row) for row in rows), strict=True)
    page = " ".join((ROOT / "docs/reliability.md").read_text().split())
    assert f"between {min(shares)}% and {max(shares)}% of {sum(counts):,} changes" in page
