"""What the sections of gpu_suite.py share: where they run, how they record, how they time."""

import contextlib
import datetime
import functools
import json
import math
import re
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import checkout  # before rrtn
import numpy as np
import torch
from measure import machine, summary
from rrtn.train.config import TrainingDevice
from rrtn.train.method.choices import EncoderName

Choice = TypeVar("Choice")
Encoders = tuple[EncoderName, ...]
MAKERS = ("nvidia", "geforce", "tesla", "quadro")


class Skipped(Exception):  # noqa: N818  # it is no error
    """The section cannot run here; the message says what is missing."""


@dataclass(frozen=True)
class Place:
    """Where a section runs, and how much of it."""

    device: torch.device
    smoke: bool
    deadline: float  # time.monotonic() from which no new part is begun
    encoders: Encoders = ()  # of --encoders; without any, each section's own

    def size(self, full: Choice, smoke: Choice) -> Choice:
        """The one of the two that this run takes."""
        return smoke if self.smoke else full

    def chosen(self, full: Encoders, smoke: Encoders) -> Encoders:
        """The encoders of --encoders, else those of this section."""
        return self.encoders or self.size(full, smoke)

    @property
    def device_name(self) -> TrainingDevice:
        """As a config has it."""
        return "cuda" if self.device.type == "cuda" else "cpu"

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


@dataclass
class Record:
    """A section's results.

    Each is printed and written as soon as it is there: a section that is killed keeps them.
    """

    section: str
    place: Place
    path: Path
    results: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # for lack of time: the section is not complete
    more: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""
    begun: float = field(default_factory=time.monotonic)
    ended: bool = False

    def add(self, name: str, **values: Any) -> None:
        """One line of the section."""
        self.results[name] = values
        print(f"  {name:44s} " + "  ".join(f"{key} {value}" for key, value in values.items()), flush=True)
        self.write()

    def check(self, name: str, value: float, limit: float, **more: Any) -> None:
        """A value that must not be above its limit; NaN is."""
        right = bool(value <= limit)
        rounded = float(f"{value:.3g}") if math.isfinite(value) else str(value)
        self.add(name, value=rounded, limit=float(f"{limit:.3g}"), ok=right, **more)
        if not right:
            self.failed.append(name)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What the block raises is a failure of this part, and ends nothing else."""
        try:
            yield
        except Skipped:
            raise
        except Exception as error:
            traceback.print_exc()
            self.failed.append(name)
            self.note(f"{name}: {type(error).__name__}: {str(error)[:300]}")

    def leave_out(self, name: str) -> None:
        """A part for which no time is left."""
        self.left_out.append(name)
        self.note(f"{name}: left out, no time for it")

    @property
    def complete(self) -> bool:
        """True if the section came to its end and nothing was left out."""
        return self.ended and not self.left_out

    def note(self, text: str) -> None:
        """Something that a reader of the results must know."""
        self.notes.append(text)
        print(f"  note: {text}", flush=True)
        self.write()

    def document(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "benchmark": f"gpu_suite {self.section}",
            "machine": machine(self.place.device),
            "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
            "commit": commit(),
            "smoke": self.place.smoke,
            "complete": self.complete,
            "skipped": self.skipped,
            "seconds": round(time.monotonic() - self.begun, 1),
            "failed": self.failed,
            "left_out": self.left_out,
            "notes": self.notes,
            "results": self.results,
            **self.more,
        }

    def write(self) -> None:
        """The JSON so far."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.document(), indent=1) + "\n")


@functools.cache
def commit() -> str:
    """The commit of the checkout; "" where it has no history."""
    command = ["git", "-C", str(checkout.ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def result_name(section: str, device: torch.device) -> str:
    """<date>-<gpu>-<section>, the name of a section's file in results/."""
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}-{gpu_slug(device)}-{section}"


def gpu_slug(device: torch.device) -> str:
    """h100, rtx-3090, t4, ...; cpu without a GPU."""
    return "cpu" if device.type == "cpu" else slug_of_gpu(torch.cuda.get_device_name(device))


def slug_of_gpu(name: str) -> str:
    """A GPU's name as the driver gives it -> its words up to the first with a number, without the maker's."""
    words = [word for word in re.findall(r"[a-z0-9]+", name.lower()) if word not in MAKERS]
    numbered = next((i for i, word in enumerate(words) if re.search(r"\d", word)), len(words) - 1)
    return "-".join(words[: numbered + 1]) or "gpu"


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of_blocks(
    functions: Mapping[str, Callable[[], object]],
    device: torch.device,
    *,
    rounds: int,
    calls: int,
    warm_up: int = 1,
) -> dict[str, list[float]]:
    """Seconds of one call, each the mean of `calls` that are given without waiting, in rounds over
    all functions.
    """
    for function in functions.values():
        for _ in range(warm_up):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            wait(device)
            start = time.perf_counter()
            for _ in range(calls):
                function()
            wait(device)
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def latency(seconds: Sequence[float], *, clips: int = 1) -> dict[str, float]:
    """`summary` with p99 and the worst; n says how far p99 can be trusted."""
    values = np.array(seconds)
    tail = {
        "p99_ms": round(1e3 * float(np.quantile(values, 0.99)), 4),
        "max_ms": round(1e3 * float(values.max()), 4),
    }
    return {**summary(list(seconds), clips=clips), **tail}


def peak_memory_gb(device: torch.device) -> float | None:
    """Peak memory of torch on the GPU since the last call; None on the CPU."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return round(peak, 2)
