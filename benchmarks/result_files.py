"""Results as they are kept: one file a run, and the ratios within it.

Two of the first days, .jsonl, have another form: they are there for the pages that link them. Which
instructions the processors before 2026-11-30 have was added later, from those pages.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# Beside the width of vectors: words -> the instructions, any of them.
_MORE = {
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "bf16": ("avx512_bf16", "amx_bf16"),
    "AMX": ("amx_int8", "amx_bf16"),
}


class MachineKind(NamedTuple):
    """What can be compared with what."""

    cpu: str
    cores: int
    gpu: str | None
    extensions: str  # "AVX-512, VNNI, bf16"; "" where it is not known
    family: str  # "family 26 model 2"; "" where it was not kept

    @property
    def processor(self) -> str:
        """What tells processors of one name apart; "" where nothing is known."""
        return ", ".join(filter(None, (self.family, self.extensions)))


@dataclass(frozen=True)
class Result:
    """One file of results/."""

    path: Path
    lines: list[dict[str, Any]]  # of the benchmarks

    @property
    def date(self) -> str:
        """From the name of the file, or of its folder."""
        found = re.search(r"\d{4}-\d{2}-\d{2}", f"{self.path.name} {self.path.parent.name}")
        return found[0] if found else ""

    @property
    def order(self) -> tuple[str, int, str]:
        """Within a day by the number at the name's end."""
        return self.date, len(self.path.stem), self.path.stem

    @property
    def kind(self) -> MachineKind:
        """Of the machine that measured."""
        return kind_of(self.lines[0]["machine"])


def kind_of(machine: dict[str, Any]) -> MachineKind:
    gpu = (machine.get("gpu") or {}).get("name")
    extensions = _extensions(machine.get("instructions", "").split())
    family = " model ".join(machine.get("family", "").split())
    return MachineKind(machine["cpu"], machine["cores"], gpu, extensions, family and f"family {family}")


def _extensions(instructions: Sequence[str]) -> str:
    """Instructions as /proc/cpuinfo names them -> "AVX-512, VNNI, bf16"; "" for none of these."""
    vectors = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}
    widest = next((words for name, words in vectors.items() if name in instructions), "")
    more = [words for words, names in _MORE.items() if any(name in instructions for name in names)]
    return ", ".join(filter(None, (widest, *more)))


def read_result(path: Path) -> Result:
    """A JSON list, or one JSON object (of gpu_suite.py)."""
    document = json.loads(path.read_text())
    return Result(path, document if isinstance(document, list) else [document])


def all_results(folder: Path) -> list[Result]:
    """From the oldest to the newest."""
    results = [read_result(path) for path in folder.glob("**/*.json")]
    return sorted((result for result in results if result.lines), key=lambda result: result.order)


def ratios_of(result: Result) -> dict[tuple[str, str], dict[str, Any]]:
    """Benchmark and name -> median, q25, q75, n, better."""
    return {
        (line["benchmark"], name): value
        for line in result.lines
        for name, value in line.get("ratios", {}).items()
    }
