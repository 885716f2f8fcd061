"""Changes six modules in every small way, one change at a time, and lists the changes that no test sees.

    python tests/mutants/run.py [losses views metrics spec frontend onnx_file]

Cosmic Ray makes the changes ("mutants") in a copy of the checkout, so that nothing here is ever left
changed, and runs the module's tests on each. benchmarks/results/mutants.md gets the
numbers and what survived.
`+`, `*` and the like are exchanged among each other and not for bit operations, which only crash.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "benchmarks/results/mutants.md"
BIN = Path(sys.executable).parent
TESTS = {  # module -> its tests
    "train/method/losses.py": "tests/train/method/test_losses.py tests/train/method/test_twins_loss.py",
    "train/method/views.py": "tests/train/method/test_views.py",
    "train/method/metrics.py": "tests/train/method/test_metrics.py",
    "runtime/spec.py": "tests/runtime/test_spec.py",
    "runtime/frontend.py": "tests/runtime/test_frontend.py tests/parity/test_log_mel.py",
    "runtime/bundle/onnx_file.py": "tests/runtime/bundle/test_onnx_file.py "
    "tests/runtime/bundle/test_description.py",
}
CONFIG = """
[cosmic-ray]
module-path = "{module}"
timeout = 120
excluded-modules = []
test-command = "{python} -m pytest -x -p no:cacheprovider -m 'not slow' {tests}"
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = ["core/ReplaceBinaryOperator_.*_(LShift|RShift|BitAnd|BitOr|BitXor|Mod|FloorDiv)"]
"""
ROW = re.compile(r"^\| `(\S+)` \|.*$", flags=re.M)


class Survivor(NamedTuple):
    """A change that no test has seen."""

    line: int
    before: str
    after: str


class Outcome(NamedTuple):
    """What became of a module's mutants."""

    mutants: int
    survivors: list[Survivor]


def main() -> None:
    names = {Path(module).stem: module for module in TESTS}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", choices=[*names, []], default=[])
    chosen = parser.parse_args().modules or list(names)
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_of_checkout(Path(folder) / "rrtn")
        for name in chosen:
            outcome = outcome_of_module(names[name], copy)
            print(f"{name}: {len(outcome.survivors)} of {outcome.mutants} mutants survive", flush=True)
            PAGE.write_text(with_outcome(PAGE.read_text(), names[name], outcome))


def copy_of_checkout(copy: Path) -> Path:
    """All files that git knows, as they are now, importable as rrtn."""
    copy.mkdir()
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    packed = subprocess.run(
        ["tar", "-c", "--null", "-T-"], cwd=ROOT, check=True, input=files, capture_output=True
    )
    subprocess.run(["tar", "-x"], cwd=copy, check=True, input=packed.stdout)
    (copy / ".types").mkdir()
    (copy / ".types/rrtn").symlink_to("..")
    return copy


def outcome_of_module(module: str, copy: Path) -> Outcome:
    """Makes and tests all mutants of a module. Ends the program where the tests fail without any."""
    (copy / "mutants.toml").write_text(
        CONFIG.format(module=module, python=sys.executable, tests=TESTS[module])
    )
    (copy / "mutants.sqlite").unlink(missing_ok=True)
    cosmic_ray("cosmic-ray", "baseline", "mutants.toml", copy=copy)
    cosmic_ray("cosmic-ray", "init", "mutants.toml", "mutants.sqlite", copy=copy)
    cosmic_ray("cr-filter-operators", "mutants.sqlite", "mutants.toml", copy=copy)
    cosmic_ray("cosmic-ray", "exec", "mutants.toml", "mutants.sqlite", copy=copy)
    done = list(results(cosmic_ray("cosmic-ray", "dump", "mutants.sqlite", copy=copy)))
    return Outcome(
        len(done), sorted(survivor_of(result) for result in done if result["test_outcome"] == "survived")
    )


def cosmic_ray(*command: str, copy: Path) -> str:
    """One of its programs in the copy; -> its stdout."""
    env = {**os.environ, "PYTHONPATH": str(copy / ".types")}
    program = [str(BIN / command[0]), *command[1:]]
    done = subprocess.run(program, cwd=copy, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} | exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


def results(dump: str) -> Iterator[dict[str, Any]]:
    """The results of the mutants that were tested, not of those that the filter left out."""
    for line in dump.splitlines():
        _, result = json.loads(line)
        if result["worker_outcome"] == "normal":
            yield result


def survivor_of(result: dict[str, Any]) -> Survivor:
    """From the diff of the change."""
    lines = result["diff"].splitlines()
    first = next(int(found[1]) for line in lines if (found := re.match(r"@@ -(\d+)", line)))
    body = lines[next(i for i, line in enumerate(lines) if line.startswith("@@")) + 1 :]
    place = next(i for i, line in enumerate(body) if line.startswith("-"))
    before, after = ([line[1:].strip() for line in body if line.startswith(sign)] for sign in "-+")
    return Survivor(first + place, " ".join(before), " ".join(after))


def with_outcome(page: str, module: str, outcome: Outcome) -> str:
    """The page with a module's row and its survivors in place of the last ones."""
    killed = outcome.mutants - len(outcome.survivors)
    share = f"{killed / outcome.mutants:.0%}"
    day = datetime.datetime.now(datetime.UTC).date()
    row = f"| `{module}` | {outcome.mutants} | {killed} | {share} | {day} |"
    page = ROW.sub(lambda found: row if found[1] == module else found[0], page)
    rows = [f"| {one.line} | `{escaped(one.before)}` | `{escaped(one.after)}` |" for one in outcome.survivors]
    table = (
        "\n".join(["| line | code | change that no test sees |", "|---|---|---|", *rows]) if rows else "None."
    )
    return re.sub(
        rf"(## `{re.escape(module)}`\n\n).*?(?=\n## |\Z)",
        lambda found: f"{found[1]}{table}\n",
        page,
        flags=re.S,
    )


def escaped(code: str) -> str:
    """For a cell of a Markdown table."""
    return code.replace("|", "\\|").replace("`", "'")


if __name__ == "__main__":
    main()
