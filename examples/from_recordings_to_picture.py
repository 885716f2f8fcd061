"""From a folder of recordings to a picture of their scores. Needs rrtn and nothing else.

    python examples/from_recordings_to_picture.py recordings/ BUNDLE scores.svg

Each recording is a row, each label a column. The stronger a cell's colour, the higher the score on the
scale of its label. A file that cannot be scored is a row with its error code.
"""

import argparse
import os
from html import escape
from pathlib import Path

from rrtn.runtime import Scorer
from rrtn.runtime.system.files import write_bytes
from rrtn.runtime.text import printable

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
Scales = dict[str, tuple[float, float]]  # label -> the lowest and the highest rating
NAMES, HEAD = 190, 120  # width of the names, height of the head, in pixels
CELL, LINE = 46, 24  # width and height of a cell, in pixels
STYLE = """
    text { font: 12px sans-serif; fill: #24292f }
    .cell { fill: #3b5bdb }
    .error { fill: #c92a2a }
    @media (prefers-color-scheme: dark) {
        text { fill: #e6edf3 } .cell { fill: #91a7ff } .error { fill: #ff8787 }
    }
"""


def main() -> None:
    """Scores the folder's recordings and writes the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recordings", type=Path, help="a folder of audio files")
    parser.add_argument("bundle", help="a folder or an .onnx file that rrtn export wrote")
    parser.add_argument("picture", type=Path, help="the SVG file to write")
    arguments = parser.parse_args()

    files = recordings_in(arguments.recordings)
    with Scorer(arguments.bundle) as scorer:
        picture = picture_of_files(files, scorer)
    write_bytes(arguments.picture, picture.encode())  # all of it, or what was there stays


def recordings_in(folder: Path) -> list[Path]:
    """The audio files of a folder and its subfolders, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def picture_of_files(files: list[Path], scorer: Scorer) -> str:
    """An SVG with a row for each file and a column for each label."""
    labels, meaning = scorer.labels, scorer.bundle.meaning
    scales = meaning.scales if meaning else {}
    lines: list[str] = []
    rows = scorer.score_files(files)  # without windows: one row for each file
    for file, row in zip(files, rows, strict=True):
        middle = HEAD + LINE * (len(lines) + 0.5)
        name = text(name_of(file), NAMES - 8, middle + 4, anchor="end")
        cells = (
            cells_of_scores(row.scores, scales, middle)
            if row.scores
            else text(row.error, NAMES + 4, middle + 4, style="error")
        )
        lines.append(name + cells)
    width, height = NAMES + CELL * len(labels) + 80, HEAD + LINE * len(lines) + 10
    head = [text(label, NAMES + CELL * (i + 0.5), HEAD - 8, angle=-45) for i, label in enumerate(labels)]
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f"<style>{STYLE}</style>",
        *head,
        *lines,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def name_of(file: Path) -> str:
    """The file's name, whatever encoding it is in and whichever the locale has."""
    return os.fsencode(file.name).decode(errors="backslashreplace")


def cells_of_scores(scores: dict[str, float], scales: Scales, middle: float) -> str:
    """The cells of a row, side by side."""
    cells = []
    for i, (label, score) in enumerate(scores.items()):
        low, high = scales.get(label, (0.0, 1.0))  # a probability of a class has no scale
        share = (score - low) / (high - low)
        cells.append(cell(score, share, NAMES + CELL * i, middle - LINE / 2))
    return "".join(cells)


def cell(score: float, share: float, left: float, top: float) -> str:
    """A score as a cell that is shaded by its share of the scale; hovering shows the number."""
    place = f'x="{left:g}" y="{top:g}" width="{CELL - 2}" height="{LINE - 2}" rx="3"'
    shade = min(max(share, 0.0), 1.0)
    return f'<rect class="cell" {place} fill-opacity="{shade:.3f}"><title>{score:.3f}</title></rect>'


def text(words: str, x: float, y: float, *, anchor: str = "start", angle: int = 0, style: str = "") -> str:
    """Words at a place, turned by an angle in degrees. A character that XML does not have is written out."""
    turned = f' transform="rotate({angle} {x:g} {y:g})"' if angle else ""
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{turned}{kind}>{escape(printable(words))}</text>'


if __name__ == "__main__":
    main()
