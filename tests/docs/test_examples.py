"""Each example runs as its first lines say, on real recordings."""

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest
from onnx import helper
from rrtn.runtime import FrontendSpec, Scorer
from rrtn.runtime.bundle import LabelMeaning, metadata_of
from rrtn.runtime.bundle.onnx_file import sealed

EXAMPLES = Path(__file__).parents[2] / "examples"
SVG = "{http://www.w3.org/2000/svg}"


def test_from_recordings_to_picture(
    tmp_path: Path, real_clips: list[Path], tiny_model_at: Callable[[Path], Path]
) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for clip in real_clips:
        shutil.copy(clip, recordings)
    (recordings / "Notes & more.wav").write_bytes(b"no audio")
    bundle, picture = tiny_model_at(tmp_path / "tiny.onnx"), tmp_path / "scores.svg"
    program = [sys.executable, str(EXAMPLES / "from_recordings_to_picture.py")]
    done = subprocess.run(
        [*program, str(recordings), str(bundle), str(picture)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    drawn = ElementTree.parse(picture).getroot()
    shown = [title.text for title in drawn.iter(f"{SVG}title")]
    scorer = Scorer(bundle)
    scores = [row.scores for row in scorer.score_files(sorted(real_clips, key=lambda clip: clip.name))]
    assert shown == [f"{row[label]:.3f}" for row in scores if row for label in scorer.labels]
    assert len(shown) == 12 * len(scorer.labels)
    words = [text.text for text in drawn.iter(f"{SVG}text")]
    assert set(words) == {
        *scorer.labels,
        *(clip.name for clip in real_clips),
        "Notes & more.wav",
        "unsupported_format",
    }


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0"}], ids=["UTF-8", "C"])
def test_names_of_any_bytes_are_in_the_picture(
    tmp_path: Path, tiny_model_at: Callable[[Path], Path], environment: dict[str, str]
) -> None:
    names = [b"a\xff.wav", b"b\x01.wav", "\u00fc.wav".encode(), "\uffff.wav".encode(), b"<&>.wav"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"no audio")
    bundle, picture = tiny_model_at(tmp_path / "tiny.onnx"), tmp_path / "scores.svg"
    program = [sys.executable, str(EXAMPLES / "from_recordings_to_picture.py")]
    command = [*program, str(tmp_path), str(bundle), str(picture)]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    words = {text.text for text in ElementTree.parse(picture).getroot().iter(f"{SVG}text")}
    assert words >= {"a\\xff.wav", "b\\x01.wav", "\u00fc.wav", "\\uffff.wav", "<&>.wav"}


def test_the_picture_shades_each_label_on_its_scale(
    tmp_path: Path, real_clips: list[Path], tiny_model_at: Callable[..., Path], spec: FrontendSpec
) -> None:
    labels = ("Arousal", "Valence", "Type=Laugh", "Type=Cry")
    meaning = LabelMeaning(
        scales={"Arousal": (0.0, 9.0), "Valence": (-1.0, 1.0)},
        classes={"Type": ("Laugh", "Cry")},
        submitted=("Arousal", "Valence", "Type"),
    )
    model = onnx.load(tiny_model_at(tmp_path / "tiny.onnx", labels))
    helper.set_model_props(model, metadata_of(labels, spec, "logmel", "fp32", meaning=meaning))
    (tmp_path / "tiny.onnx").write_bytes(sealed(model.SerializeToString()))
    example = runpy.run_path(str(EXAMPLES / "from_recordings_to_picture.py"))
    with Scorer(tmp_path / "tiny.onnx") as scorer:
        drawn = ElementTree.fromstring(example["picture_of_files"](real_clips[:1], scorer))
    cells = list(drawn.iter(f"{SVG}rect"))
    shades = [float(cell.attrib["fill-opacity"]) for cell in cells]
    arousal, valence, laugh, cry = (float(next(iter(cell)).text or "") for cell in cells)
    assert shades == pytest.approx([arousal / 9, (valence + 1) / 2, laugh, cry], abs=1e-3)
    assert 0.1 < valence < 0.9
