"""Rows in, rows out: the numbers of a written-out model, in the order of the files, whatever lies between them."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rrtn.runtime import FrontendSpec, Scorer, load_bundle, log_mel
from rrtn.runtime.audio import read_audio
from rrtn.runtime.bundle import metadata_of
from rrtn.runtime.errors import AudioError, ConfigError, ModelError, StoppedError
from rrtn.runtime.onnx_file import sealed
from rrtn.runtime.ort_backend import cuda_missing


def weights_of(model: Path) -> NDArray[np.float32]:
    stored = {tensor.name: tensor for tensor in onnx.load(model).graph.initializer}
    return numpy_helper.to_array(stored["weights"])


def with_weights(model: Path, weights: NDArray[np.float32]) -> Path:
    proto = onnx.load(model)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "weights"))
    model.write_bytes(sealed(proto.SerializeToString()))
    return model


def test_scores_equal_the_model_written_out(
    scorer: Scorer, tiny_model: Path, real_clips: list[Path], spec: FrontendSpec
) -> None:
    for row in scorer.score_files(real_clips):
        samples = read_audio(row.file, spec).waveform[: spec.clip_samples]
        clip = np.zeros(spec.clip_samples, dtype=np.float32)
        clip[: len(samples)] = samples
        logits = log_mel(clip, spec).mean(axis=0) @ weights_of(tiny_model)
        assert row.scores is not None
        assert list(row.scores) == ["Awe", "Fear", "Joy"]
        # 1e-6: the order in which float32 sums of 250 and 64 terms are taken
        np.testing.assert_allclose(list(row.scores.values()), 1 / (1 + np.exp(-logits)), atol=1e-6, rtol=0)


def test_the_test_model_tells_clips_apart(scorer: Scorer, real_clips: list[Path]) -> None:
    """Or else every comparison of scores here would compare saturated zeros and ones."""
    scores = np.array([list((row.scores or {}).values()) for row in scorer.score_files(real_clips)])
    assert scores.min() > 1e-3
    assert scores.max() < 0.999
    assert scores.std(axis=0).min() > 0.03


def test_rows_come_in_the_order_of_the_files_bad_ones_in_their_places(scorer: Scorer, real_clips: list[Path]) -> None:
    paths = [real_clips[3], Path("gone.wav"), real_clips[1], real_clips[3], *[Path("gone.wav")] * 20, real_clips[2]]
    rows = list(scorer.score_files(paths))
    assert [row.file for row in rows] == paths
    assert [row.error for row in rows] == ["missing" if path.name == "gone.wav" else "" for path in paths]
    assert all((row.scores is None) == (row.error == "missing") for row in rows)
    assert rows[0].scores == rows[3].scores != rows[2].scores


def test_a_row_says_what_was_scored_and_how_long_the_file_is(scorer: Scorer, tmp_path: Path, spec: FrontendSpec) -> None:
    for name, seconds in (("short.wav", 0.5), ("long.wav", 4.0)):
        soundfile.write(tmp_path / name, np.ones(round(8_000 * seconds)), 8_000)
    short, long = scorer.score_files([tmp_path / "short.wav", tmp_path / "long.wav"])
    assert (short.start, short.end, short.seconds) == (0.0, 0.5, 0.5)
    assert (long.start, long.end, long.seconds) == (0.0, 2.49, 4.0)  # 249 hops of 10 ms


def test_no_files_no_rows(scorer: Scorer) -> None:
    assert list(scorer.score_files([])) == []


def test_a_waveform_scores_as_its_file_does(scorer: Scorer, tmp_path: Path, sound: NDArray[np.float64]) -> None:
    stereo = np.stack([sound, np.roll(sound, 7)], axis=1).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, 44_100, subtype="FLOAT")
    row = next(scorer.score_files([tmp_path / "a.wav"]))
    assert scorer.score_waveform(stereo, 44_100) == row.scores


@pytest.mark.parametrize(("samples", "code"), [([np.nan], "non_finite"), ([], "empty")])
def test_a_bad_waveform_raises_its_code(scorer: Scorer, samples: list[float], code: str) -> None:
    with pytest.raises(AudioError) as caught:
        scorer.score_waveform(samples, 16_000)
    assert caught.value.code == code


def test_a_score_that_is_not_finite_is_an_error_never_a_number(tiny_model: Path, real_clips: list[Path]) -> None:
    scorer = Scorer(with_weights(tiny_model, weights_of(tiny_model) * np.float32(np.nan)), "cpu")
    rows = list(scorer.score_files(real_clips[:3]))
    assert [(row.error, row.scores) for row in rows] == [("invalid_score", None)] * 3
    with pytest.raises(AudioError, match="invalid_score"):
        scorer.score_waveform(np.ones(100), 16_000)


def test_a_waveform_model_is_fed_the_clip_itself(tmp_path: Path, spec: FrontendSpec) -> None:
    nodes = [helper.make_node("ReduceMax", ["waveform", "axes"], ["scores"], keepdims=1)]
    shape = ["batch", spec.clip_samples]
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.array([1]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata_of(("Peak",), spec, "waveform", "fp32"))
    (tmp_path / "peak.onnx").write_bytes(sealed(model.SerializeToString()))
    scores = Scorer(tmp_path / "peak.onnx", "cpu").score_waveform([0.1, 0.2, -0.1], 16_000)
    assert scores == {"Peak": 23_198 / 32_768}  # -3 dBFS, as int16


@pytest.mark.parametrize("option", ["batch_size", "workers", "max_seconds"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_options_are_positive_numbers(tiny_model: Path, option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')}"):
        Scorer(tiny_model, "cpu", **{option: value})  # type: ignore[arg-type]


def test_a_bundle_that_is_loaded_is_taken_as_it_is(tiny_model: Path) -> None:
    bundle = load_bundle(tiny_model)
    assert Scorer(bundle, "cpu").bundle is bundle


def test_an_unknown_backend_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="--backend"):
        Scorer(tiny_model, "tpu")  # type: ignore[arg-type]


@pytest.mark.skipif(not cuda_missing(), reason="CUDA is there")
def test_cuda_is_never_replaced_silently(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="--backend cuda"):
        Scorer(tiny_model, "cuda")
    assert Scorer(tiny_model).backend.device == "cpu"


def test_only_a_few_files_are_read_ahead(tiny_model: Path, real_clips: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield real_clips[1]

    rows = Scorer(tiny_model, "cpu", batch_size=2, workers=2).score_files(endless())
    assert next(rows).error == ""
    rows.close()  # type: ignore[attr-defined]
    assert taken <= 64  # five batches of two, and two chunks of one for each decoder, and what they give meanwhile


def test_failing_storage_stops_scoring(scorer: Scorer, real_clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRTN_FAILPOINT", f"read.{real_clips[1].name}:eio:all")
    with pytest.raises(StoppedError, match=os.fspath(real_clips[1])):
        list(scorer.score_files(real_clips))


def test_storage_that_recovers_is_asked_again(scorer: Scorer, real_clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = list(scorer.score_files(real_clips))
    scorer.close()
    monkeypatch.setenv("RRTN_FAILPOINT", "read.*:eio")  # once in each decoder
    assert list(scorer.score_files(real_clips)) == undisturbed
