"""Runs the benchmarks, keeps their results, and compares two runs.

    python benchmarks/results.py run [--smoke]
        runs all of them, 9 to 14 minutes on 2 cores; writes results/<date>-<machine>.json and .md,
        then does what `table` does
    python benchmarks/results.py compare [NEW OLD]
        compares the newest result with the last one of the same kind of machine
    python benchmarks/results.py table
        writes the figures in README.md and the table in docs/benchmarks.md from the newest results of every
        machine

`compare` looks at ratios within each run, never at seconds: the machines are shared, and a slow
hour slows both sides of a ratio. It names the ratios that moved by more than their spread. The exit
code is 1 if something got worse, or a benchmark broke.
"""

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from result_files import Result, all_results, kind_of, read_result
from result_moves import before_of, compare
from result_pages import machine_of, page, refresh_tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
BUNDLES = ".bundles"  # `make .bundles`; below the checkout, whose own place is nobody's business

# Sizes that together take 9 to 14 minutes on 2 cores, and sizes that only show that the benchmarks run.
SUITE: dict[str, tuple[list[str], list[str]]] = {
    "frontend.py": ([], []),
    "cold_start.py": (["--repeats", "5"], ["--repeats", "2"]),
    "every_way.py": (
        ["--bundles", BUNDLES, "--rounds", "4", "--tune", "cnn10"],
        ["--encoders", "resnet18", "--rounds", "2"],
    ),
    "score_folder.py": (
        ["--bundles", BUNDLES, "--encoders", "resnet18", "cnn14", "--share", "0.25", "--repeats", "3"],
        ["--encoders", "resnet18", "--share", "0.03", "--repeats", "2"],
    ),
    "train_step.py": (
        ["--methods", "rrtn-ruwl", "--batch-size", "64", "--precisions", "fp32", "bf16", "--steps", "5"],
        ["--methods", "rrtn-ruwl", "--batch-size", "4", "--steps", "2"],
    ),
}


def run_suite(*, smoke: bool, only: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """-> the JSON line of each benchmark, and the names of those that broke."""
    lines, broken = [], []
    for name, (full, small) in SUITE.items():
        if only and name not in only:
            continue
        print(f"== {name}", flush=True)
        start = time.monotonic()
        process = subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / name), *(small if smoke else full)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        *said, last = process.stdout.splitlines() or [""]
        print("\n".join([*said, f"== {name} took {time.monotonic() - start:.0f} s"]), flush=True)
        if process.returncode or not last.startswith("{"):
            came = f"exit code {process.returncode}, last line {last[:80]!r}"
            print(f"{name} | {came} | expected 0 and a line of JSON")
            broken.append(name)
            continue
        lines.append({**json.loads(last), "arguments": small if smoke else full})
    return lines, broken


def file_of(lines: list[dict[str, Any]], folder: Path) -> Path:
    """<date>-<machine>.json; with a number from the second of a day on."""
    kind = kind_of(lines[0]["machine"])
    words = re.sub(r"\((r|tm)\)|\bamd\b|\bintel\b|\bcpu\b|@.*|\d+-core|processor", " ", kind.cpu.lower())
    machine = "-".join(re.findall(r"[a-z0-9]+", f"{words} {kind.cores} cores {kind.gpu or ''}"))
    stem = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}-{machine}"
    found = [re.fullmatch(rf"{re.escape(stem)}(?:-(\d+))?\.jsonl?", path.name) for path in folder.iterdir()]
    last = max((int(match[1] or 1) for match in found if match), default=0)  # numbers only go up
    return folder / f"{stem}{f'-{last + 1}' if last else ''}.json"


def write_result(lines: list[dict[str, Any]], folder: Path) -> Result:
    """The JSON, one line each for `git diff`, and a page to read beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = file_of(lines, folder)
    path.write_text("[\n" + ",\n".join(json.dumps(line) for line in lines) + "\n]\n")
    result = Result(path, lines)
    path.with_suffix(".md").write_text("\n".join(page(result)) + "\n")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--smoke", action="store_true", help="tiny sizes; its numbers say nothing")
    run.add_argument("--only", nargs="+", default=[], choices=SUITE)
    run.add_argument("--out", type=Path, help="instead of results/, and the tables stay as they are")
    comparison = commands.add_parser("compare")
    comparison.add_argument("files", nargs="*", type=Path, help="NEW and OLD")
    comparison.add_argument("--results", type=Path, default=RESULTS)
    commands.add_parser("table")
    arguments = parser.parse_args()
    if arguments.command == "run":
        raise SystemExit(_run(arguments))
    if arguments.command == "table":
        changed = refresh_tables(ROOT, all_results(RESULTS))
        print(f"README.md and docs/benchmarks.md: {'refreshed' if changed else 'unchanged'}")
        return
    raise SystemExit(_compare(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.smoke and not arguments.out:
        arguments.out = Path(tempfile.mkdtemp(prefix="rrtn-bench-"))  # never among the results
    lines, broken = run_suite(smoke=arguments.smoke, only=arguments.only)
    if lines:
        print(f"written: {write_result(lines, arguments.out or RESULTS).path}")
    if lines and not arguments.out:
        refresh_tables(ROOT, all_results(RESULTS))
    return 1 if broken else 0


def _compare(arguments: argparse.Namespace) -> int:
    given = [read_result(path) for path in arguments.files]
    results = all_results(arguments.results)
    if not given and not results:
        raise SystemExit(f"{arguments.results} | no results | expected some | make bench")
    new = given[0] if given else results[-1]
    old = given[1] if len(given) > 1 else before_of(new, results)
    if old is None:
        print(
            f"{new.path.name}: no earlier result of this kind of machine ({machine_of(new)}) to compare with"
        )
        return 0
    return 0 if compare(old, new) else 1


if __name__ == "__main__":
    main()
