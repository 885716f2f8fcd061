"""What each command shows on terminals of 80 and 120 columns, recorded in tests/screens/*.txt.

The files are as a person saw them; who changes a screen looks at it and records it anew:

    make screens        (or RRTN_RECORD_SCREENS=1 python -m pytest tests/screens -m "slow or not slow")

Compared are words, their order, columns and rows, not figures: `comparable` makes each number one 0, each
gap two blanks and each rule or bar one sign, joins the lines of prose, and makes equal rows one. Rows of
`doctor`, and names of processors, are this machine's own: their first column is compared.

The runs have the three-layer CNN of tests/faults, so that they take a second.
"""

import itertools
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.cells import cell_len
from rrtn.runtime import load_bundle
from rrtn.train.data.corpus import synthesise
from rrtn_processes import Server
from terminals import on_terminal

HERE = Path(__file__).parent
RECORDING = "RRTN_RECORD_SCREENS" in os.environ
WIDTHS = (80, 120)
LABELS = tuple("Awe Excitement Amusement Awkwardness Fear Horror Distress Triumph Sadness Surprise".split())
LONG_NAME = "interviews of 2026/participant 0137, second session, the laugh at the end of it (take 3).wav"
TRAIN = "rrtn train --data DIR --batch-size 16 --device cpu"
SHORT = f"{TRAIN} --epochs 1"
FEW = "rrtn train --data FEW --batch-size 16 --device cpu --epochs 2"


class Screen(NamedTuple):
    """A command, and what it needs before it."""

    command: str
    before: str = ""
    slow: bool = False


SCREENS = {
    "help": Screen("rrtn -h"),
    "doctor": Screen("rrtn doctor"),
    "data-synth": Screen("rrtn data synth OUT --clips 24 --speakers 6 --workers 1", slow=True),
    "data-check": Screen("rrtn data check DIR"),
    "train-dry-run": Screen(f"{TRAIN} --epochs 2 --dry-run"),
    "train": Screen(f"{TRAIN} --epochs 3 --seed 1 --out runs/new"),
    "train-vanilla": Screen(f"{TRAIN} --epochs 1 --method vanilla --out runs/vanilla", slow=True),
    "evaluate": Screen("rrtn evaluate runs/first"),
    "evaluate-compare": Screen("rrtn evaluate runs/first --no-ridge --compare runs/second"),
    "evaluate-few-speakers": Screen(
        "rrtn evaluate runs/few --compare runs/fewer",
        before="rrtn data synth FEW --clips 40 --speakers 9 --seed 5 --workers 1 "
        f"&& {FEW} --out runs/few && {FEW} --seed 1 --out runs/fewer",
        slow=True,
    ),
    "report": Screen("rrtn report runs/first", slow=True),
    "table2-dry-run": Screen("rrtn table2 --data DIR --seeds 1 --epochs 1 --dry-run", slow=True),
    "table2": Screen("rrtn table2 --data DIR --seeds 1 --epochs 1 --batch-size 16 --device cpu", slow=True),
    "crossval-dry-run": Screen(
        "rrtn crossval --data DIR --folds 4 --epochs 1 --device cpu --dry-run", slow=True
    ),
    "export": Screen("rrtn export runs/first --out bundle --fp16 --int8 --no-cpu-variant", slow=True),
    "inspect": Screen("rrtn inspect runs/demo", slow=True),
    "inspect-variants": Screen("rrtn inspect many"),
    "parity": Screen(
        "rrtn parity bundle",
        before="test -d bundle || rrtn export runs/first --out bundle --int8 --no-cpu-variant",
        slow=True,
    ),
    "bench": Screen("rrtn bench runs/demo --seconds 0.02 --batches 1,8", slow=True),
    "score": Screen("rrtn score recordings broken.wav -m runs/demo"),
    "score-windows": Screen(
        "rrtn score recordings/Laugh-male2.wav -m runs/demo --window 1 --hop 0.5", slow=True
    ),
    "score-long-name": Screen(
        f"rrtn score recordings/Cough-male.wav '{LONG_NAME}' -m runs/demo",
        before=f"mkdir 'interviews of 2026' && cp recordings/Cough-female.wav '{LONG_NAME}'",
    ),
    "score-table": Screen("rrtn score recordings broken.wav -m runs/demo --out scores.csv", slow=True),
    "tracks": Screen(
        "rrtn tracks windows.csv --as audacity,html",
        before="rrtn score recordings/Laugh-male2.wav -m runs/demo --window 1 --out windows.csv",
        slow=True,
    ),
    "listen": Screen("rrtn listen --device null --seconds 1 --window 0.5 -m runs/demo", slow=True),
    "serve": Screen("rrtn serve -h", slow=True),
    "tune": Screen("rrtn tune -h", slow=True),
    "pack": Screen("rrtn pack recordings --out packs"),
    "demo": Screen("rrtn demo recordings/*.wav --out runs/everything", slow=True),
    "refused-option": Screen("rrtn score --windows 3"),
    "refused-value": Screen(f"{TRAIN} --lr 99"),
}


def comparable(lines: list[str], *, first_column: bool = False) -> list[str]:
    """The lines without what depends on the machine, the minute, and how well a network has learnt."""
    text = "\n".join(line for line in lines if not line.startswith("busy: "))  # of scoring that took long
    text = re.sub(r"on (AMD|Intel|ARM|\w+-core)\b[^\n]*", "on CPU", text)
    text = re.sub(r"runs, [\d.]+ times as fast[^\n]*(\n {12,}[^\n]*)*", "runs, faster on CPU", text)
    text = re.sub(r"(?m)^.*(?=, \d+ cores?: sgemm)", "CPU", text)
    text = re.sub(r"--precision \w+", "--precision P", text)  # of a demo: what the processor has
    text = re.sub(rf"(\s+({'|'.join(LABELS)}) \d\.\d\d)+(\n {{20,}})?", "  HIGHEST  ", text)
    text = re.sub(r"\b(Linux|macOS|Windows)-[\w.-]+", "SYSTEM", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "HASH", text)
    text = re.sub(r"(?<!\w)[+-]?\d[\d.,]*(e[+-]?\d+)?\b", "0", text)
    text = re.sub(r"[─━]{2,}", "─", text)
    text = re.sub(r"  best\b", "", text)  # which epoch is the best is for the figures to say
    text = re.sub(r"[▁▂▃▄▅▆▇█]+( *[▁▂▃▄▅▆▇█]+)*", "BARS", text)
    text = re.sub(r"\n(?=[^ ─\n])", " ", text)  # where prose is broken depends on its figures
    shown = [re.sub(r" {2,}", "  ", line).strip() for line in text.splitlines()]
    rows = [line.split("  ")[0] if first_column else line for line in shown if line]
    return [row for row, _ in itertools.groupby(rows)]  # a fast machine's demo has more epochs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, server: Server, runtime_server: Server) -> Path:
    """Data of eight validation speakers, and two runs on them."""
    folder = tmp_path_factory.mktemp("screens")
    server.put_command(folder / "bin", runtime_server)
    synthesise(folder / "DIR", clips=120, speakers=40, seed=5, workers=1)
    for run, seed in (("first", 0), ("second", 1)):
        options = f"--epochs 2 --batch-size 16 --device cpu --seed {seed} --out runs/{run}"
        lines = on_terminal(f"rrtn train --data DIR {options}", folder, columns=80)
        assert (folder / "runs" / run / "checkpoints/best").is_dir(), lines
    return folder


@pytest.fixture
def place(folder: Path, tiny_model_at: Callable[..., Path]) -> Iterator[Path]:
    """A copy of `folder` with bundles of a tiny model and recordings. All its paths have the same length."""
    place = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    shutil.copytree(folder, place, symlinks=True, dirs_exist_ok=True)
    model = tiny_model_at(place / "tiny.onnx", LABELS)
    manifest = load_bundle(model).manifest()
    put_bundle(place / "runs/demo/export", model, manifest["variants"], manifest)
    put_bundle(place / "many", model, many_variants(manifest["variants"][0]), manifest)
    bursts = HERE.parent / "fixtures/bursts"
    shutil.copytree(bursts, place / "recordings", ignore=shutil.ignore_patterns("*.md"))
    (place / "broken.wav").write_bytes(b"no audio")
    yield place
    shutil.rmtree(place)


def put_bundle(folder: Path, model: Path, variants: list[dict[str, Any]], manifest: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    for variant in variants:
        shutil.copy(model, folder / variant["file"])
    (folder / "bundle.json").write_text(json.dumps(manifest | {"variants": variants}))


def many_variants(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The one variant under the names that an export gives, with the figures that it may have."""
    parity = {"clips": 132, "max_abs": 7.2e-7, "p999_abs": 5e-7, "limit": 1e-4, "ccc_change": -1e-7}
    onnx = {"fp32": "model.onnx", "waveform-fp16": "model.waveform.fp16.onnx"}
    variants = [one | {"name": name, "file": file, "parity": parity} for name, file in onnx.items()]
    engine = {"name": "trt-fp16", "file": "model.fp16.engine", "kind": "engine", "parity": None}
    return [*variants, one | engine]


def screens() -> list[object]:
    return [
        pytest.param(
            name,
            columns,
            id=f"{name}-{columns}",
            marks=[pytest.mark.slow] * (screen.slow or (name, columns) == ("train", WIDTHS[1])),
        )
        for name, screen in SCREENS.items()
        for columns in WIDTHS
    ]


@pytest.mark.parametrize(("name", "columns"), screens())
def test_n18_screens_are_as_recorded_and_nothing_is_cut(name: str, columns: int, place: Path) -> None:
    screen = SCREENS[name]
    if screen.before:
        on_terminal(screen.before, place, columns=columns)
    shown = on_terminal(screen.command, place, columns=columns)
    lines = [
        line.replace(str(place), "/home/me/there")
        .replace(sys.prefix, "/home/me/venv")
        .replace(platform.release(), "6.1.0")
        for line in shown
    ]
    lines = [f"$ {screen.command}", *"\n".join(lines).strip("\n").split("\n")]
    assert [line for line in lines[1:] if cell_len(line) > columns and not of_one_word(line)] == []
    assert "…" not in "".join(lines)
    recorded = HERE / f"{name}.{columns}.txt"
    if RECORDING:
        recorded.write_text("\n".join(lines) + "\n")
    was = recorded.read_text().splitlines()
    first = name in {"doctor", "bench"}  # the rest is for the machine to say
    assert comparable(lines, first_column=first) == comparable(was, first_column=first), "\n".join(lines)


def of_one_word(line: str) -> bool:
    """A name that is wider than the terminal, or a command to be copied, is broken by the terminal."""
    return " " not in line.strip() or line.startswith("$ ")


def test_n18_each_command_has_its_screens() -> None:
    from rrtn.cli import COMMANDS

    shown = {screen.command.split()[1] for screen in SCREENS.values()}
    assert set(COMMANDS) <= shown
    files = {path.name for path in HERE.glob("*.txt")}
    assert files == {f"{name}.{columns}.txt" for name in SCREENS for columns in WIDTHS}


def test_n18_what_is_compared() -> None:
    rows = [" a.wav  0.00-0.60  Amusement 0.94  Surprise 0.92", "                    Triumph 0.88  silent"]
    assert comparable(rows) == ["a.wav  0-0  HIGHEST  silent"]
    assert comparable(["Some CPU @ 2.80GHz, 2 cores: sgemm 5 GFLOP/s"]) == ["CPU, 0 cores: sgemm 0 GFLOP/s"]
    assert comparable(["  fp32   44.8  max 7.2e-07, CCC -0.0002", "────────"]) == [
        "fp32  0  max 0, CCC 0",
        "─",
    ]
