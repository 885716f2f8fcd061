"""What README and docs/ quote of a terminal is what the command above it prints.

Quotations are the ```console fences: "$ " and a command, then all that it says on a terminal of 200
columns. They run in a folder with recordings/ (the twelve clips of tests/fixtures/bursts),
broken.wav, DIR, fixed.toml, and a tiny model as BUNDLE and runs/demo/export. Its scores and this
machine's speed are not the page's, so `comparable` replaces them on both sides; names, order,
counts, times within recordings, codes and messages are compared as they are.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from rrtn.runtime import load_bundle
from rrtn_processes import Server
from terminals import on_terminal

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
}
COLUMNS = 200  # no line is broken, so that paths may be of any length
LABELS = "Awe Excitement Amusement Awkwardness Fear Horror Distress Triumph Sadness Surprise".split()
VARYING = {
    rf"\b({'|'.join(LABELS)}) \d\.\d\d\b": "LABEL SCORE",  # on the screen; another model ranks otherwise
    r"(?<=,)0\.\d{6}(?=,)": "SCORE",  # of a row of a table
    r"in \d+\.\d s \([\d,]+ files?/s, \d+ x real time\)": "in SECONDS (SPEED)",
    r"\bmodel(\.cpu)?\.onnx on": "MODEL on",  # the variant that this machine runs fastest
}


class Quotation(NamedTuple):
    """A command and the lines below it."""

    command: str
    said: str


def quotations_of(text: str) -> list[Quotation]:
    blocks = re.findall(r"^```console\n(.*?)^```$", text, flags=re.S | re.M)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.M)[1:]]
    return [Quotation(*part.split("\n", 1)) for part in parts]


QUOTED = {name: found for name in PAGES if (found := quotations_of((ROOT / name).read_text()))}


def comparable(text: str) -> list[str]:
    """The lines, without empty ones; the width of columns follows from scores and goes, too."""
    for pattern, words in VARYING.items():
        text = re.sub(pattern, words, text)
    lines = [re.sub(r"─+", "─", re.sub(r"\s+", " ", line)).strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("busy: ")]  # of scoring that took long


@pytest.fixture
def folder(
    server: Server,
    runtime_server: Server,
    tmp_path: Path,
    corpus: Path,
    tiny_model_at: Callable[..., Path],
) -> Path:
    server.put_command(tmp_path / "bin", runtime_server)
    bursts = ROOT / "tests/fixtures/bursts"
    shutil.copytree(bursts, tmp_path / "recordings", ignore=shutil.ignore_patterns("*.md"))
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    (tmp_path / "fixed.toml").write_text('[ruwl]\nmode = "fixed"\n')
    (tmp_path / "DIR").symlink_to(corpus)
    bundle = tmp_path / "runs/demo/export"
    bundle.mkdir(parents=True)
    bare = load_bundle(tiny_model_at(bundle / "model.onnx", tuple(LABELS)))
    (bundle / "bundle.json").write_text(json.dumps(bare.manifest()))
    (tmp_path / "BUNDLE").symlink_to(bundle)
    return tmp_path


@pytest.mark.parametrize("page", QUOTED)
def test_quoted_outputs(page: str, folder: Path) -> None:
    for command, said in QUOTED[page]:
        shown = "\n".join(on_terminal(command, folder, columns=COLUMNS)).replace(str(folder), "/home/me")
        shown = shown.replace(f"{sys.executable} -m rrtn", "rrtn")  # as it was called here
        assert comparable(shown) == comparable(said), f"{page}: $ {command}\n{shown}"


def test_readme_quotes_rrtn_score() -> None:
    assert any(command.startswith("rrtn score") for command, _ in QUOTED["README.md"])


def test_what_is_left_of_a_quotation() -> None:
    row = "  Laugh.wav  0.00-2.49   Fear 0.31  Awe 0.22"
    summary = "12 of 12 files scored in 1.7 s (7 files/s, 9 x real time)"
    assert comparable(f"{row}\n\n{summary}") == [
        "Laugh.wav 0.00-2.49 LABEL SCORE LABEL SCORE",
        "12 of 12 files scored in SECONDS (SPEED)",
    ]
