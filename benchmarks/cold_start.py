"""From the shell to the answer, each time in a new process, on a warm disk: `rrtn --help`, `rrtn
score`, `rrtn inspect`.

    python benchmarks/cold_start.py [--repeats 10]

Beside them: what the interpreter takes alone, with typer, and with what scoring cannot do without. None may
import torch, in any of its processes (checked first, by Python's own list of imports). ResNet18 with random
weights, one WAV file.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from files_to_scores import ROOT
from measure import interleaved, ratio, report, summary
from random_bundle import model_file

TARGETS = {"rrtn --help over import typer": 1.6, "rrtn score over its imports": 2.5}
TORCH = re.compile(r"\|\s+torch$", re.MULTILINE)


def command_line() -> list[str]:
    """The installed command; from a checkout, the module."""
    installed = Path(sys.executable).with_name("rrtn")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "rrtn"]


def run(command: list[str], folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """By the shell, as a person would."""
    result = subprocess.run(
        ["/bin/sh", "-c", shlex.join(command)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise SystemExit(
            f"{shlex.join(command)} | exit code {result.returncode}: {result.stderr[-500:]} | expected 0"
        )
    return result


def check_no_torch(name: str, command: list[str], folder: Path) -> None:
    said = run(command, folder, PYTHONPROFILEIMPORTTIME="1").stderr
    if "import time:" not in said:
        raise SystemExit(f"{name} | no list of its imports | expected one with PYTHONPROFILEIMPORTTIME")
    if TORCH.search(said):
        raise SystemExit(f"{name} | imports torch | expected not to")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_file("resnet18", folder)
        audio = next(
            path for path in sorted((ROOT / "tests/fixtures/bursts").iterdir()) if path.suffix == ".wav"
        )
        rrtn, out = command_line(), folder / "out/scores.csv"
        out.parent.mkdir()
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import typer": [sys.executable, "-c", "import typer"],
            "imports of scoring": [sys.executable, "-c", "import numpy, onnxruntime, soundfile, soxr"],
            "rrtn --help": [*rrtn, "--help"],
            "rrtn score": [
                *rrtn,
                "score",
                str(audio),
                "-m",
                str(model),
                "--out",
                str(out),
                "--backend",
                "cpu",
            ],
            "rrtn inspect": [*rrtn, "inspect", str(model)],
        }

        def call(command: list[str]) -> None:
            shutil.rmtree(out.parent, ignore_errors=True)  # or it would find that all is done
            out.parent.mkdir()
            said = run(command, folder).stderr
            if "score" in command and "1 of 1 file scored" not in said:
                raise SystemExit(f"{shlex.join(command)} | {said[-200:]!r} | expected one file to be scored")

        for what, command in commands.items():
            check_no_torch(what, command, folder)  # and a warm-up
        calls = {what: lambda command=command: call(command) for what, command in commands.items()}
        seconds = interleaved(calls, repeats=arguments.repeats, warm_up=1)
    results = {
        name: summary(values, clips=1) | {"best_ms": round(1e3 * min(values), 1), "imports_torch": False}
        for name, values in seconds.items()
    }
    pairs = [
        ("rrtn --help", "import typer"),
        ("rrtn score", "imports of scoring"),
        *((name, "python -c pass") for name in commands if name.startswith("rrtn")),
    ]
    ratios = {
        f"{name} over {least}": ratio(seconds[name], seconds[least], better="lower") for name, least in pairs
    }
    report("cold start", results, ratios=ratios, targets=TARGETS)


if __name__ == "__main__":
    main()
