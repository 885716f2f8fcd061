"""Clips of about the same length run together, and get the scores that each has alone."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from onnx import TensorProto, helper
from rrtn.export.graph import file_from_onnx
from rrtn.runtime.backends.choice import choose_backend
from rrtn.runtime.backends.model_batch import Outputs, Spent
from rrtn.runtime.backends.ort_backend import OrtBackend
from rrtn.runtime.backends.silence import parts_by_sound
from rrtn.runtime.bundle import load_bundle, metadata_of
from rrtn.runtime.errors import ModelError
from rrtn.runtime.frontend import decibels_behind
from rrtn.runtime.scoring.scorer import Scorer
from rrtn.runtime.spec import FrontendSpec, Pad

SPEC = FrontendSpec()
LENGTHS = (250, 3, 97, 0, 16, 17, 250, 112, 249)


def log_mels(lengths: tuple[int, ...], silence: float) -> NDArray[np.float32]:
    """[B, 1, T, M]: noise of so many frames, of which some values and whole frames are silence, too."""
    rng = np.random.default_rng(0)
    clips = np.full((len(lengths), 1, SPEC.frames, SPEC.n_mels), silence, np.float32)
    for clip, frames in zip(clips, lengths, strict=True):
        clip[:, :frames] = rng.choice([silence, 5.0], (1, frames, SPEC.n_mels))
        clip[:, : frames // 2] = silence
        clip[:, frames - 1 : frames, 7] = 1.0
    return clips


def file_that_counts(path: Path, spec: FrontendSpec, *, frames: int | str = "frames") -> Path:
    """scores [B, 2]: the frames that it was given, and the sum of all values."""
    nodes = [
        helper.make_node("Flatten", ["log_mel"], ["values"]),
        helper.make_node("ReduceSum", ["values", "axis"], ["sums"], keepdims=1),
        helper.make_node("Shape", ["log_mel"], ["given"], start=2, end=3),
        helper.make_node("Cast", ["given"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["sums", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "count"], ["counts"]),
        helper.make_node("Concat", ["counts", "sums"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "counts",
        [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["batch", 1, frames, spec.n_mels])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("zero", TensorProto.FLOAT, [1], [0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(file_from_onnx(model, metadata_of(("frames", "sum"), spec, "logmel", "int8")))
    return path


def parts_of(lengths: tuple[int, ...]) -> list[tuple[list[int], int]]:
    """The clips of each part, and its frames."""
    found = parts_by_sound(log_mels(lengths, -100.0), -100.0)
    return [(sorted(part.clips.tolist()), part.frames) for part in found]


def test_clips_of_about_the_same_length_are_together() -> None:
    assert parts_of(LENGTHS) == [([1, 3, 4, 5], 32), ([2, 7], 112), ([0, 6, 8], 250)]
    assert parts_of((250,) * 9) == [([*range(9)], 250)]
    assert parts_of((0, 0)) == [([0, 1], 16)]
    assert parts_of((17,)) == [([0], 32)]


@pytest.mark.parametrize("seed", range(8))
def test_no_other_parts_cost_less(seed: int) -> None:
    """Of all ways to cut the clips, from the shortest to the longest, into parts."""
    lengths = np.random.default_rng(seed).integers(1, 251, 9)
    stepped = sorted(np.minimum(-(-lengths // 16) * 16, 250).tolist())

    def cost(parts: list[list[int]]) -> float:
        return sum(0.7 * 250 + len(part) * max(part) for part in parts)

    ways = []
    for cuts in itertools.product([False, True], repeat=8):
        ends = [i + 1 for i, cut in enumerate(cuts) if cut]
        ways.append([stepped[i:j] for i, j in itertools.pairwise([0, *ends, 9])])
    found, place = [], 0
    for clips, frames in parts_of(tuple(lengths.tolist())):
        part = stepped[place : place + len(clips)]
        assert max(part) == frames
        found.append(part)
        place += len(clips)
    assert place == 9
    assert cost(found) == pytest.approx(min(cost(way) for way in ways))


@pytest.mark.parametrize("pad", ["silence", "zero_db"])
def test_a_model_gets_the_frames_with_sound_and_each_clip_its_own_scores(pad: Pad, tmp_path: Path) -> None:
    """What is not a number is not silence."""
    spec = FrontendSpec(pad=pad)
    silence = decibels_behind(spec)
    backend = choose_backend(load_bundle(file_that_counts(tmp_path / "m.onnx", spec)), "cpu").backend
    clips = log_mels(LENGTHS, silence)
    spent = Spent()
    found = backend.run(clips, spent).scores
    assert found[:, 0].tolist() == [250, 32, 112, 32, 32, 32, 250, 112, 250]
    behind = (spec.frames - found[:, 0]) * spec.n_mels * silence
    np.testing.assert_allclose(found[:, 1] + behind, clips.sum((1, 2, 3)), rtol=1e-5)
    assert spent.model > 0
    clips[1, 0, 200, 3] = np.nan
    assert np.isnan(backend.scores(clips)[1]).all()


def test_a_model_of_whole_clips_gets_all_frames(tmp_path: Path) -> None:
    path = file_that_counts(tmp_path / "m.onnx", SPEC, frames=SPEC.frames)
    backend = choose_backend(load_bundle(path), "cpu").backend
    assert set(backend.scores(log_mels(LENGTHS, decibels_behind(SPEC)))[:, 0]) == {250}


def test_other_frames_than_the_specs_are_refused(tmp_path: Path) -> None:
    path = file_that_counts(tmp_path / "m.onnx", SPEC, frames=SPEC.frames - 1)
    with pytest.raises(
        ModelError, match=r"log_mel \['batch', 1, 249, 64\].* expected one input of \[1, 250, 64\]"
    ):
        choose_backend(load_bundle(path), "cpu")


def test_a_scorer_puts_files_of_about_the_same_length_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By turns 1 and 1.5 s: in the order of the files they would share batches, as two parts cost more."""
    rng, rate = np.random.default_rng(0), SPEC.sampling_rate
    files = [tmp_path / f"{i:02}.wav" for i in range(22)]
    for i, file in enumerate(files):
        soundfile.write(file, rng.uniform(-0.5, 0.5, rate * (3 if i % 2 else 2) // 2), rate)
    ran: list[int] = []

    def run(self: OrtBackend, batch: Any, spent: Spent | None = None) -> Outputs:
        ran.append(len(batch))
        return original(self, batch, spent)

    original = OrtBackend.run
    monkeypatch.setattr(OrtBackend, "run", run)
    bundle = load_bundle(file_that_counts(tmp_path / "m.onnx", SPEC))
    with Scorer(bundle, "cpu", batch_size=4, lanes=1) as scorer:
        rows = list(scorer.score_files(files))
    given = [row.scores["frames"] for row in rows if row.scores]
    assert given[1::2] == [160.0] * 11
    assert given[::2].count(112.0) >= 9  # a batch of those that are left at the end may hold both
    assert sum(ran) == 22 and max(ran) == 4  # nothing was padded
