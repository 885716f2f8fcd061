"""PyTorch checkpoint, log-Mel ONNX, waveform ONNX and `rrtn score` on the same real files."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rrtn.runtime import Scorer
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.backends.ort_backend import ort_backend_from_bundle
from rrtn.runtime.frontend import clip_of
from rrtn.train.checkpoint import load_checkpoint
from rrtn.train.config import config_from_dict
from rrtn.train.evidence.best_checkpoint import network_from_weights
from rrtn.train.method.frontend import LogMel

LIMIT = 1e-4  # the contract's, in score


@pytest.fixture(scope="module")
def run(main_job: Path) -> Path:
    """A short real training of ResNet18, so that the scores spread over [0, 1]."""
    return main_job / "runs/first"


@pytest.fixture(scope="module")
def files(request: pytest.FixtureRequest) -> list[Path]:
    """50 real files where shared data lies beside the project, else the project's 12."""
    root = Path(__file__).parents[1]
    shared = root.parents[1] / "shared/data/bursts"
    if not shared.is_dir():
        return sorted(path for path in (root / "fixtures/bursts").iterdir() if path.suffix != ".md")
    readable = [path for path in sorted(shared.rglob("*")) if path.suffix in {".ogg", ".wav", ".mp3"}]
    return readable[:: len(readable) // 50][:50]


@pytest.fixture(scope="module")
def scored(run: Path, files: list[Path]) -> np.ndarray:
    """[n, K] by the Python interface."""
    return np.array([list(row.scores.values()) for row in Scorer(run / "export").score_files(files)])


def test_pytorch_and_score_agree(run: Path, files: list[Path], scored: np.ndarray) -> None:
    info, tensors = load_checkpoint(run / "checkpoints/best", "weights")
    config = config_from_dict(info.config, source="test")
    network, frontend = network_from_weights(config, tensors["weights"]), LogMel(config.frontend)
    clips = np.array([clip_of(read_audio(path, config.frontend).waveform, config.frontend) for path in files])
    with torch.no_grad():
        expected = network(frontend(torch.from_numpy(clips))).scores.numpy()
    assert scored.std(axis=0).max() > 0.02
    np.testing.assert_allclose(scored, expected, atol=LIMIT, rtol=0)


def test_waveform_graph_and_score_agree(run: Path, files: list[Path], scored: np.ndarray) -> None:
    bundle = Scorer(run / "export").bundle
    backend = ort_backend_from_bundle(bundle, bundle.variant("waveform"), device="cpu")
    clips = np.array([clip_of(read_audio(path, bundle.spec).waveform, bundle.spec) for path in files])
    np.testing.assert_allclose(backend.scores(clips), scored, atol=LIMIT, rtol=0)


def test_command_and_python_agree(run: Path, files: list[Path], scored: np.ndarray, tmp_path: Path) -> None:
    command = [
        Path(sys.executable).with_name("rrtn"),
        "score",
        *files,
        "-m",
        run / "export",
        "--out",
        tmp_path / "s.csv",
    ]
    subprocess.run(command, check=True, capture_output=True)
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    came = np.array([[float(cell) for cell in row[3:-2]] for row in rows])
    np.testing.assert_allclose(came, scored, atol=1e-6, rtol=0)  # six decimals


def test_score_waveform_is_score_files(run: Path, files: list[Path], scored: np.ndarray) -> None:
    import soundfile

    scorer = Scorer(run / "export")
    for path, expected in list(zip(files, scored, strict=True))[:8]:
        samples, rate = soundfile.read(path, dtype="float32")
        np.testing.assert_allclose(
            list(scorer.score_waveform(samples, rate).values()), expected, atol=LIMIT, rtol=0
        )


def test_a_score_does_not_depend_on_batch_mates_batch_size_or_workers(
    run: Path, files: list[Path], scored: np.ndarray
) -> None:
    def scores(chosen: list[Path], **settings: int) -> np.ndarray:
        return np.array(
            [list(row.scores.values()) for row in Scorer(run / "export", **settings).score_files(chosen)]
        )

    assert np.array_equal(scores(files, workers=1), scored)
    assert np.array_equal(scores(files[::-1], workers=3)[::-1], scored)
    assert np.array_equal(scores(files[5:6]), scored[5:6])
    for batch_size in (1, 7, 64):  # another shape may be summed in another order
        np.testing.assert_allclose(scores(files, batch_size=batch_size), scored, atol=1e-6, rtol=0)
