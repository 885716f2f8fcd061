"""Each example runs as its first lines say, on real recordings."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from rrtn.runtime import Scorer

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
