"""Mutation tests: each module below is changed in one place at a time, and its tests should fail each time.

`python tests/mutants/run.py [NAME ...]` -> docs/mutants.md. It works in a copy of the checkout, where
cosmic-ray makes the changes. It takes minutes for each module.
"""

import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/mutants.md"
MODULES = {  # what is changed -> the tests that should see it
    "train/method/losses.py": "tests/train/method/test_losses.py",
    "train/method/views.py": "tests/train/method/test_views.py",
    "runtime/spec.py": "tests/runtime/test_spec.py",
    "runtime/onnx_file.py": "tests/runtime/test_onnx_file.py",
}


class Mutant(NamedTuple):
    """One change, and whether the tests saw it."""

    line: int
    operator: str
    seen: bool


def mutants_of(module: str, tests: str, copy: Path) -> list[Mutant]:
    """Runs all of a module's mutants in the copy."""
    python = sys.executable
    config, session = copy / "mutants.toml", copy / "mutants.sqlite"
    session.unlink(missing_ok=True)
    config.write_text(
        f'[cosmic-ray]\nmodule-path = "{module}"\ntimeout = 120.0\nexcluded-modules = []\n'
        f'test-command = "{python} -m pytest -p no:cacheprovider -q -x {tests}"\n'
        '[cosmic-ray.distributor]\nname = "local"\n'
    )
    tool = [python, "-m", "cosmic_ray.cli"]
    env = {**os.environ, "PYTHONPATH": str(copy / ".types")}
    for command in (
        ["baseline", str(config)],
        ["init", str(config), str(session)],
        ["exec", str(config), str(session)],
    ):
        subprocess.run([*tool, *command], cwd=copy, env=env, check=True)
    dumped = subprocess.run(
        [*tool, "dump", str(session)], cwd=copy, check=True, capture_output=True, text=True
    ).stdout
    mutants = []
    for line in dumped.splitlines():
        work, result = json.loads(line)
        (mutation,) = work["mutations"]
        seen = result["test_outcome"] != "survived"
        mutants.append(Mutant(mutation["start_pos"][0], mutation["operator_name"].rpartition("/")[2], seen))
    return mutants


def page_of(found: dict[str, list[Mutant]]) -> str:
    lines = [
        "# Mutants",
        "",
        "`make mutants` changes one place of a module at a time and runs its tests, which should fail",
        "each time.",
        f"Last run: {datetime.date.today()}.",
        "",
        "| module | mutants | not seen | where |",
        "|---|---|---|---|",
    ]
    for module, mutants in found.items():
        missed = [mutant for mutant in mutants if not mutant.seen]
        where = ", ".join(sorted({f"line {mutant.line}: {mutant.operator}" for mutant in missed})[:12])
        lines.append(f"| `{module}` | {len(mutants)} | {len(missed)} | {where} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    chosen = {
        module: tests
        for module, tests in MODULES.items()
        if not sys.argv[1:] or Path(module).stem in sys.argv[1:]
    }
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "rrtn"
        files = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split("\n")
        for name in filter(None, files):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
        (copy / ".types").mkdir()
        (copy / ".types/rrtn").symlink_to("..")
        found = {module: mutants_of(module, tests, copy) for module, tests in chosen.items()}
    PAGE.write_text(page_of(found))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
