"""Results as they are kept: one file a run, and the ratios within it, whichever form it has."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNKNOWN = 0.15  # spread of old results, which kept medians alone


@dataclass(frozen=True)
class Result:
    """One file of results/, whichever form it has."""

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
    def kind(self) -> tuple[Any, ...]:
        """CPU, cores, GPU: what can be compared with what."""
        return kind_of(self.lines[0]["machine"])


def kind_of(machine: dict[str, Any]) -> tuple[Any, ...]:
    return machine["cpu"], machine["cores"], (machine.get("gpu") or {}).get("name")


def read_result(path: Path) -> Result:
    """A JSON list, one JSON object (of gpu_suite.py), or one object a line, as the first results
    were kept.
    """
    text = path.read_text()
    if path.suffix == ".jsonl":
        return Result(path, [json.loads(line) for line in text.splitlines() if line])
    document = json.loads(text)
    return Result(path, document if isinstance(document, list) else [document])


def all_results(folder: Path) -> list[Result]:
    """From the oldest to the newest."""
    paths = [*folder.glob("**/*.json"), *folder.glob("**/*.jsonl")]
    return sorted(
        (result for path in paths if (result := read_result(path)).lines), key=lambda result: result.order
    )


def ratios_of_line(line: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """name -> median, q25, q75, better. Old lines have no quartiles: these are assumed."""
    if "ratios" in line and all("q25" in value for value in line["ratios"].values()):
        return dict(line["ratios"])
    old = {
        f"{encoder}: share of bare ORT, fp32": value
        for encoder, value in line.get("share_of_bare_ort", {}).items()
    }
    if "numpy_over_torchaudio" in line:
        old["numpy over torchaudio float32"] = line["numpy_over_torchaudio"]
    for name, values in line["results"].items():
        if "times_plain" in values and "plain" not in name:
            old[f"{name} over plain"] = values["times_plain"]
    half, n = UNKNOWN / 2, min(values.get("n", 1) for values in line["results"].values())
    return {
        name: {
            "median": value,
            "q25": value * (1 - half),
            "q75": value * (1 + half),
            "n": n,
            "better": "higher",
        }
        for name, value in old.items()
    }


def ratios_of(result: Result) -> dict[tuple[str, str], dict[str, Any]]:
    """By benchmark and name; "score a folder" had another title once."""
    return {
        (line["benchmark"].replace(", fp32, CPU", ", CPU"), name): value
        for line in result.lines
        for name, value in ratios_of_line(line).items()
    }
