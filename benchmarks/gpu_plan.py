"""The sections of gpu_suite.py in their order of worth, within the minutes that a GPU is to be had.

    python benchmarks/gpu_plan.py --minutes 29 --out OUT
    python benchmarks/gpu_plan.py --smoke --out OUT         the whole plan at tiny sizes on the CPU

Each section is a process of its own: one that crashes or hangs ends no other. Each writes its JSON after
every line (gpu_suite.py says where). The same command again goes on with what is missing. What is done
stands in `--scratch`, and in OUT for a machine that has lost its scratch folder. Where calls are cut off,
`--call-minutes` says after how long, and no section is begun for which the rest of a call is too short.

It needs a checkout, torch, onnx, onnxruntime and onnxscript. `--packages` takes what gpu_pack.py brought.

The exit code is 0 if every section ran and is right, 1 if something failed, 4 if sections are left.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SUITE = Path(__file__).with_name("gpu_suite.py")
GRACE = 45.0  # s that a section may take to end after its minutes
STATE = "gpu_plan.state"  # no .json: those of results/ are results
TRIES = 2  # of a section that was killed or broke


class Part(NamedTuple):
    """One call of gpu_suite.py."""

    name: str
    section: str
    encoders: tuple[str, ...]
    minutes: float  # after which it begins nothing new
    least: float  # minutes under which it is not begun


# Training comes first: it needs nothing that must be brought.
PLAN = (
    Part("probe", "probe", ("cnn14",), 4.0, 2.0),
    Part("correct", "correct", (), 4.0, 2.0),
    Part("step", "step", ("cnn14",), 4.0, 2.0),
    Part("paper-run", "paper-run", ("cnn14",), 7.5, 5.0),
    Part("ranks", "ranks", (), 1.5, 0.8),
    Part("infer", "infer", ("cnn14",), 3.5, 2.0),
    Part("folder", "folder", ("cnn14",), 2.5, 1.5),
    Part("step of the others", "step", ("cnn10", "resnet18"), 3.0, 2.0),
    Part("table2", "table2", (), 6.0, 3.0),
)


@dataclass
class Progress:
    """What earlier calls did."""

    spent: float = 0.0  # s of all calls
    tries: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)  # name -> exit code

    @classmethod
    def read(cls, folders: Sequence[Path]) -> "Progress":
        """The progress in the first folder that has a file of it; none where no folder has."""
        found = next((folder / STATE for folder in folders if (folder / STATE).exists()), None)
        return cls(**json.loads(found.read_text())) if found else cls()

    def write(self, folders: Sequence[Path]) -> None:
        """Whole or not at all: the call may be cut off at any time."""
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f"{STATE}.tmp"
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n")
            temporary.replace(folder / STATE)


def missing(progress: Progress) -> Iterator[Part]:
    """What has not ended yet, and has not been tried too often."""
    for part in PLAN:
        if part.name not in progress.done and progress.tries.get(part.name, 0) < TRIES:
            yield part


def run(part: Part, minutes: float, arguments: argparse.Namespace) -> int | None:
    """Runs a section; -> its exit code, None where it had to be killed."""
    command = [sys.executable, str(SUITE), "--section", part.section, "--minutes", f"{minutes:.2f}"]
    command += ["--out", str(folder_of(part, arguments.out)), "--cache", str(arguments.out / "compiled.bin")]
    if arguments.smoke:
        command.append("--smoke")
    elif part.encoders:
        command += ["--encoders", *part.encoders]
    print(f"== {part.name}: {minutes:.1f} minutes", flush=True)
    limit = 600.0 if arguments.smoke else 60 * minutes + GRACE
    process = subprocess.Popen(command, env=environment(arguments), start_new_session=True)
    try:
        return process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # its decoders and ranks, too
        process.wait()
        print(f"== {part.name}: killed after {limit:.0f} s", flush=True)
        return None


def folder_of(part: Part, out: Path) -> Path:
    """A folder of its own for a section that is called twice, or the second would replace the first."""
    return out if part.name == part.section else out / part.name.replace(" ", "-")


def environment(arguments: argparse.Namespace) -> dict[str, str]:
    """Kernels that are compiled once serve all sections; packages that were brought are found."""
    found = {**os.environ, "PYTHONUNBUFFERED": "1"}
    found.setdefault("TORCHINDUCTOR_CACHE_DIR", str(arguments.scratch / "inductor"))
    found.setdefault("RRTN_CACHE", str(arguments.scratch / "rrtn"))
    if arguments.packages:
        paths = [str(arguments.packages), found.get("PYTHONPATH", "")]
        found["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return found


def carried_out(arguments: argparse.Namespace) -> Progress:
    """Runs what is missing and fits, and says what it came to."""
    folders, begun = (arguments.scratch, arguments.out), time.monotonic()
    progress = Progress.read(folders)
    before = progress.spent
    ends = begun + 60 * min(arguments.call_minutes, arguments.minutes - before / 60)
    for part in list(missing(progress)):
        left = (ends - time.monotonic() - GRACE) / 60
        if left < (0.0 if arguments.smoke else part.least):
            print(f"== {part.name}: left out, {max(left, 0):.1f} minutes are too few", flush=True)
            continue
        progress.tries[part.name] = progress.tries.get(part.name, 0) + 1
        progress.write(folders)
        code = run(part, min(part.minutes, left), arguments)
        if code is not None and code >= 0:  # else a signal ended it
            progress.done[part.name] = code
        progress.spent = before + time.monotonic() - begun
        progress.write(folders)
    return progress


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=29.0, help="of all calls together")
    parser.add_argument("--call-minutes", type=float, default=float("inf"), help="of this call")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/rrtn-gpu"), help="for caches")
    parser.add_argument("--packages", type=Path, help="where gpu_pack.py put what it joined")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU")
    arguments = parser.parse_args()
    progress = carried_out(arguments)
    print(json.dumps({"benchmark": "gpu_plan", **asdict(progress)}))
    if any(progress.done.values()):
        raise SystemExit(1)
    raise SystemExit(0 if len(progress.done) == len(PLAN) else 4)


if __name__ == "__main__":
    main()
