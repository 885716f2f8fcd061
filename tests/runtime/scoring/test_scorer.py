"""Rows in, rows out: the numbers of a written-out model, in the order of the files, whatever lies
between them.
"""

import hashlib
import inspect
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rrtn.runtime import FrontendSpec, Scorer, load_bundle, log_mel
from rrtn.runtime.arrays import waveform_from_samples
from rrtn.runtime.audio.reader import read_audio
from rrtn.runtime.backends.base import Backend
from rrtn.runtime.backends.cuda_libraries import cuda_missing
from rrtn.runtime.backends.model_batch import Outputs
from rrtn.runtime.backends.registry import BACKENDS, backend_kind
from rrtn.runtime.bundle import Bundle, metadata_of
from rrtn.runtime.bundle.onnx_file import sealed
from rrtn.runtime.errors import AudioError, ConfigError, ModelError, OutOfMemoryError, StoppedError
from rrtn.runtime.frontend import clip_log_mel
from rrtn.runtime.scoring.decoder_pool import DecoderPool
from rrtn.runtime.scoring.feed import Feed
from rrtn.runtime.scoring.scorer_settings import ScorerSettings
from rrtn.runtime.system.cpus import vector_extension
from rrtn.runtime.tables.rows import Row


def weights_of(model: Path) -> NDArray[np.float32]:
    stored = {tensor.name: tensor for tensor in onnx.load(model).graph.initializer}
    return numpy_helper.to_array(stored["weights"])


def with_weights(model: Path, weights: NDArray[np.float32]) -> Path:
    proto = onnx.load(model)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "weights"))
    model.write_bytes(sealed(proto.SerializeToString()))
    return model


def test_a_name_that_no_file_can_have_is_missing(scorer: Scorer, real_clips: list[Path]) -> None:
    names = [real_clips[0], "a\ud800.wav", real_clips[1]]
    rows = [*scorer.score_files(names)]
    assert [row.error for row in rows] == ["", "missing", ""]
    assert rows[1].file == b"a\xed\xa0\x80.wav"


@pytest.mark.parametrize("path", ["cut.wav", b"cut.wav", Path("cut.wav")])
def test_a_path_is_not_taken_for_a_list_of_letters(scorer: Scorer, path: Any) -> None:
    with pytest.raises(ConfigError, match="expected a list of paths"):
        next(scorer.score_files(path))


@pytest.mark.parametrize("value", [None, float("nan"), 3, ["a.wav"]])
def test_what_is_no_path_in_a_list_is_named_by_its_place(scorer: Scorer, value: Any) -> None:
    """As a column of pandas has it where a name is missing."""
    with pytest.raises(ConfigError) as raised:
        list(scorer.score_files(["gone.wav", value]))
    assert str(raised.value) == f"paths[1] | {value!r} | expected a path: str, bytes or os.PathLike"
    assert [row.error for row in scorer.score_files(["gone.wav"])] == ["missing"]


@pytest.mark.parametrize("name", ["lanes", "batch_size", "workers", "channel"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_a_number_of_things_is_a_whole_number(tiny_model: Path, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="expected a whole number above 0"):
        Scorer(tiny_model, "cpu", **{name: value})


def test_more_lanes_than_any_machine_has_use_for(tiny_model: Path) -> None:
    """Each has memory for its batches, and a thread."""
    with pytest.raises(ConfigError, match=r"lanes \| 1,000,000 \| expected at most 4,096"):
        Scorer(tiny_model, "cpu", lanes=10**6)


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


def test_rows_come_in_the_order_of_the_files_bad_ones_in_their_places(
    scorer: Scorer, real_clips: list[Path]
) -> None:
    paths = [
        real_clips[3],
        Path("gone.wav"),
        real_clips[1],
        real_clips[3],
        *[Path("gone.wav")] * 20,
        real_clips[2],
    ]
    rows = list(scorer.score_files(paths))
    assert [row.file for row in rows] == paths
    assert [row.error for row in rows] == ["missing" if path.name == "gone.wav" else "" for path in paths]
    assert all((row.scores is None) == (row.error == "missing") for row in rows)
    assert rows[0].scores == rows[3].scores != rows[2].scores


def test_a_row_says_what_was_scored_and_how_long_the_file_is(
    scorer: Scorer, tmp_path: Path, spec: FrontendSpec
) -> None:
    for name, seconds in (("short.wav", 0.5), ("long.wav", 4.0)):
        soundfile.write(tmp_path / name, np.ones(round(8_000 * seconds)), 8_000)
    short, long = scorer.score_files([tmp_path / "short.wav", tmp_path / "long.wav"])
    assert (short.start, short.end, short.seconds) == (0.0, 0.5, 0.5)
    assert (long.start, long.end, long.seconds) == (0.0, 2.49, 4.0)  # 249 hops of 10 ms


def test_no_files_no_rows(scorer: Scorer) -> None:
    assert list(scorer.score_files([])) == []


def test_a_waveform_scores_as_its_file_does(
    scorer: Scorer, tmp_path: Path, sound: NDArray[np.float64]
) -> None:
    stereo = np.stack([sound, np.roll(sound, 7)], axis=1).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, 44_100, subtype="FLOAT")
    (row,) = scorer.score_files([tmp_path / "a.wav"])
    assert scorer.score_waveform(stereo, 44_100) == pytest.approx(row.scores, abs=1e-6)


def test_single_clips_do_not_take_the_variant_that_is_made_for_batches(
    tiny_model: Path, real_clips: list[Path], spec: FrontendSpec
) -> None:
    """The stand-in for the variant `cpu` gives 0.5 for everything, which tells the two apart."""
    bundle = with_cpu_variant(load_bundle(tiny_model))
    half, fp32 = dict.fromkeys(bundle.labels, 0.5), Scorer(tiny_model, "cpu")
    samples, rate = soundfile.read(real_clips[0])
    expected = fp32.score_waveform(samples, rate)
    assert expected != half
    with Scorer(bundle, "cpu") as folders, Scorer(bundle, "cpu", batch_size=1) as clips:
        for _ in range(2):
            assert [row.scores for row in folders.score_files(real_clips[:1])] == [half]
            assert folders.score_waveform(samples, rate) == expected
        assert clips.score_waveform(samples, rate) == expected
        assert [row.scores for row in clips.score_files(real_clips[:1])] == [
            pytest.approx(expected, abs=1e-6)
        ]
    for named in Scorer(bundle, "cpu", variant="cpu"), Scorer(replace(bundle, variants=bundle.variants[1:])):
        assert named.score_waveform(samples, rate) == half
        assert named.model.backend_for_clips() is named.backend  # not loaded a second time


def test_single_clips_go_on_in_another_folder_and_after_another_export(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs them is read when the first one comes."""
    bundle = with_cpu_variant(load_bundle(tiny_model))
    clip = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    half, expected = dict.fromkeys(bundle.labels, 0.5), Scorer(tiny_model, "cpu").score_waveform(clip, 16_000)
    monkeypatch.chdir(tiny_model.parent)
    here = replace(bundle, path=Path("."))
    with Scorer(here, "cpu") as moved, Scorer(here, "cpu") as replaced:
        monkeypatch.chdir("/")
        assert moved.score_waveform(clip, 16_000) == expected
        (tiny_model.parent / bundle.variants[0].file).write_bytes(b"another model")
        assert replaced.score_waveform(clip, 16_000) == half


def with_cpu_variant(bundle: Bundle) -> Bundle:
    """The bundle of one file with another one beside, whose weights are zeros, as its variant `cpu`."""
    (fp32,) = bundle.variants
    name = "cpu.onnx"
    shutil.copy(bundle.path / fp32.file, bundle.path / name)
    with_weights(bundle.path / name, np.zeros((64, 3), np.float32))
    content = (bundle.path / name).read_bytes()
    fast = replace(
        fp32,
        name="cpu",
        file=name,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        plan={"vector_extension": vector_extension()},
    )
    return replace(bundle, variants=(fp32, fast))


@pytest.mark.parametrize(("samples", "code"), [([np.nan], "non_finite"), ([], "empty")])
def test_a_bad_waveform_raises_its_code(scorer: Scorer, samples: list[float], code: str) -> None:
    with pytest.raises(AudioError) as caught:
        scorer.score_waveform(samples, 16_000)
    assert caught.value.code == code


def test_a_score_that_is_not_finite_is_an_error_never_a_number(
    tiny_model: Path, real_clips: list[Path]
) -> None:
    scorer = Scorer(with_weights(tiny_model, weights_of(tiny_model) * np.float32(np.nan)), "cpu")
    rows = list(scorer.score_files(real_clips[:3]))
    assert [(row.error, row.scores) for row in rows] == [("invalid_score", None)] * 3
    with pytest.raises(AudioError, match="invalid_score"):
        scorer.score_waveform(np.ones(100), 16_000)


def waveform_model(path: Path, spec: FrontendSpec) -> Path:
    """Scores are the highest sample."""
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
    path.write_bytes(sealed(model.SerializeToString()))
    return path


def test_a_waveform_model_is_fed_the_clip_itself(tmp_path: Path, spec: FrontendSpec) -> None:
    scores = Scorer(waveform_model(tmp_path / "peak.onnx", spec), "cpu").score_waveform(
        [0.1, 0.2, -0.1], 16_000
    )
    assert scores == {"Peak": 23_198 / 32_768}  # -3 dBFS, as int16


@pytest.mark.parametrize("option", ["batch_size", "workers", "max_seconds"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_options_are_positive_numbers(tiny_model: Path, option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')}"):
        Scorer(tiny_model, "cpu", **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["timeout", "max_seconds", "window", "hop"])
@pytest.mark.parametrize("value", ["5", True, b"5", [5], 1j, np.complex64(1)])
def test_a_time_is_a_number(tiny_model: Path, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} .*expected .*(number|seconds)"):
        Scorer(tiny_model, "cpu", **{"window": 1.0, option: value})


def test_a_batch_that_no_memory_holds_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match=r"--batch-size \| 100,000 \| expected at most 32,768"):
        Scorer(tiny_model, "cpu", batch_size=100_000)


def test_the_settings_are_the_arguments_with_their_defaults() -> None:
    arguments = list(inspect.signature(Scorer).parameters.values())[1:]
    settings = {one.name: one.default for one in fields(ScorerSettings)}
    assert {one.name: one.default for one in arguments} == settings


def test_no_name_is_no_variant(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="--variant"):
        Scorer(tiny_model, "cpu", variant="")


def test_a_bundle_that_is_loaded_is_taken_as_it_is(tiny_model: Path) -> None:
    bundle = load_bundle(tiny_model)
    assert Scorer(bundle, "cpu").bundle is bundle
    assert load_bundle(os.fsencode(tiny_model)).meaning == bundle.meaning


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[DecoderPool]:
    """Every pool of decoders that the test makes."""
    made: list[DecoderPool] = []
    begin = DecoderPool.__init__

    def noted(pool: DecoderPool, *settings: Any, **more: Any) -> None:
        begin(pool, *settings, **more)
        made.append(pool)

    monkeypatch.setattr(DecoderPool, "__init__", noted)
    return made


def test_the_first_decoder_starts_before_the_model_is_loaded(
    tiny_model: Path, real_clips: list[Path], pools: list[DecoderPool]
) -> None:
    cpu, at_load = backend_kind("cpu"), list[int]()

    def load(*what: Any) -> Backend:
        at_load.append(sum(len(pool._decoders) for pool in pools))
        return cpu.load(*what)

    watched = replace(cpu, load=load)
    BACKENDS.insert(0, watched)
    try:
        with Scorer(tiny_model) as late:
            assert (at_load, pools) == ([0], [])
            expected = [*late.score_files(real_clips)]
            pools.clear()
        with Scorer(tiny_model, start_decoding=True) as early:
            assert at_load == [0, 1]
            assert [*early.score_files(real_clips)] == expected
            assert len(pools) == 1, "the decoder that began early has taken the files"
    finally:
        BACKENDS.remove(watched)


def test_a_decoder_that_began_early_ends_where_the_model_is_refused(
    tiny_model: Path, pools: list[DecoderPool]
) -> None:
    bundle = load_bundle(tiny_model)
    tiny_model.write_bytes(b"another model")
    with pytest.raises(ModelError) as kept:
        Scorer(bundle, start_decoding=True)
    assert [pool._decoders for pool in pools] == [[]], (
        "at once, though the error is kept, and with it the Scorer"
    )
    del kept


def test_how_far_a_long_recording_is_scored_can_be_asked_meanwhile(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of less than a minute is not spoken of."""
    rng = np.random.default_rng(0)
    for seconds in (50, 200):
        soundfile.write(tmp_path / f"{seconds}.wav", rng.normal(0, 0.1, seconds * 4000), 4000)
    with Scorer(tiny_model, "cpu", window=1.0, workers=1, lanes=1) as scorer:
        assert scorer.in_work() == ""
        asked, outputs = list[str](), scorer.model.outputs

        def ask(*args: Any, **options: Any) -> Outputs:
            asked.append(scorer.in_work())
            return outputs(*args, **options)

        monkeypatch.setattr(scorer.model, "outputs", ask)
        assert len([*scorer.score_files([tmp_path / "50.wav", tmp_path / "200.wav"])]) == 252
        assert scorer.in_work() == ""
    said = [*dict.fromkeys(asked)]
    assert said[0] == ""
    assert "200.wav to 3 min" in said[1:]
    assert all(one.startswith("200.wav to ") for one in said[1:])


def test_of_two_lists_the_later_one_is_asked_about_when_the_first_has_ended(
    tiny_model: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 200 * 4000)
    soundfile.write(tmp_path / "long.wav", noise, 4000)
    soundfile.write(tmp_path / "short.wav", noise[:4000], 4000)
    with Scorer(tiny_model, "cpu", window=0.2, workers=1, lanes=1, batch_size=4) as scorer:
        first = scorer.score_files([tmp_path / "short.wav"] * 3)
        next(first)
        second = scorer.rows_of_files([tmp_path / "short.wav", tmp_path / "long.wav"])
        next(second)
        files = scorer._files
        list(first)
        assert scorer._files is files
        list(second)
        assert scorer._files == {}


def test_decoders_of_a_list_that_is_half_read_end_with_it_when_the_scorer_is_closed(
    tiny_model: Path, real_clips: list[Path]
) -> None:
    with Scorer(tiny_model, "cpu", workers=1, lanes=1) as scorer:
        rows = scorer.score_files(real_clips)
        next(rows)
    assert len(list(rows)) == len(real_clips) - 1
    assert scorer._idle == []
    assert len(list(scorer.score_files(real_clips[:1]))) == 1  # it starts new ones, and keeps them
    assert len(scorer._idle) == 1
    scorer.close()
    assert scorer._idle == []


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

    rows = Scorer(tiny_model, "cpu", batch_size=2, workers=1).score_files(endless())
    assert next(rows).error == ""
    rows.close()  # type: ignore[attr-defined]
    assert taken <= 32  # six batches of two, and two chunks of one, and what is given meanwhile


# Windows


def levelled_cut(path: Path, window: tuple[float, float], spec: FrontendSpec) -> Any:
    """The samples of a window, after the whole file's level."""
    start, end = (round(seconds * spec.sampling_rate) for seconds in window)
    return waveform_from_samples(read_audio(path, spec).samples[start:end])


@pytest.mark.parametrize(
    ("seconds", "window", "hop", "expected"),
    [
        (4.0, 1.0, None, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        (3.5, 1.0, None, [(0, 1), (1, 2), (2, 3), (3, 3.5)]),
        (3.5, 1.0, 0.5, [(0, 1), (0.5, 1.5), (1, 2), (1.5, 2.5), (2, 3), (2.5, 3.5)]),
        (3.5, 1.0, 0.75, [(0, 1), (0.75, 1.75), (1.5, 2.5), (2.25, 3.25), (3, 3.5)]),
        (3.5, 1.0, 2.0, [(0, 1), (2, 3)]),  # what lies between, and at the end, is left out
        (4.0, 1.0, 2.0, [(0, 1), (2, 3)]),
        (4.5, 1.0, 2.0, [(0, 1), (2, 3), (4, 4.5)]),
        (3.0, 1.0, 3.0, [(0, 1)]),
        (0.3, 1.0, None, [(0, 0.3)]),
        (0.3, 1.0, 0.1, [(0, 0.3)]),
        (1.0, 1.0, 0.1, [(0, 1)]),
        (1.05, 1.0, 0.1, [(0, 1), (0.1, 1.05)]),
        (5.0, 2.49, None, [(0, 2.49), (2.49, 4.98), (4.98, 5.0)]),
        (1 / 16_000, 1.0, 0.5, [(0, 1 / 16_000)]),
    ],
)
def test_windows_are_these(
    tiny_model: Path,
    tmp_path: Path,
    seconds: float,
    window: float,
    hop: float | None,
    expected: list[tuple[float, float]],
) -> None:
    """They reach the file's end; the last may be short. The file's mean comes last, without a place."""
    soundfile.write(
        tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * 16_000)), 16_000
    )
    rows = list(Scorer(tiny_model, "cpu", window=window, hop=hop).score_files([tmp_path / "a.wav"]))
    assert [(row.start, row.end) for row in rows] == [*expected, (None, None)]
    assert {row.seconds for row in rows} == {seconds}
    scores = np.array([list((row.scores or {}).values()) for row in rows])
    lengths = [
        stop - start for start, stop in expected
    ]  # noise: every window holds as much sound as it is long
    mean = np.average(scores[:-1], axis=0, weights=lengths)
    np.testing.assert_allclose(scores[-1], mean, atol=1e-7, rtol=0)  # float32's rounding


@pytest.mark.parametrize("input", ["logmel", "waveform"])
def test_a_window_scores_as_that_cut_of_the_levelled_file(
    tiny_model: Path, tmp_path: Path, spec: FrontendSpec, input: str
) -> None:
    """Its level is the whole file's: a whisper beside a shout stays a whisper."""
    rng = np.random.default_rng(0)
    samples = np.concatenate(
        [rng.uniform(-1e-3, 1e-3, 16_000), rng.uniform(-0.5, 0.5, 16_000), rng.uniform(-0.01, 0.01, 9_000)]
    )
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    model = tiny_model if input == "logmel" else waveform_model(tmp_path / "peak.onnx", spec)
    scorer = Scorer(model, "cpu", window=0.5, hop=0.3)
    *windows, _ = scorer.score_files([tmp_path / "a.wav"])
    assert len(windows) == 8
    for row in windows:
        assert row.scores is not None
        assert row.start is not None
        assert row.end is not None
        cut = levelled_cut(tmp_path / "a.wav", (row.start, row.end), spec)
        if input == "waveform":
            assert row.scores == {"Peak": float(cut.max())}
        else:
            logits = clip_log_mel(cut, spec).mean(axis=0) @ weights_of(tiny_model)
            np.testing.assert_allclose(
                list(row.scores.values()), 1 / (1 + np.exp(-logits)), atol=1e-6, rtol=0
            )
    first, middle = (row.scores for row in (windows[0], windows[4]))
    assert first != middle


def test_minutes_in_windows(tiny_model: Path, tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 16_000, 1, "PCM_16", format="FLAC") as file:
        for minute in range(3):
            file.write(np.random.default_rng(minute).uniform(-0.5, 0.5, 60 * 16_000))
    short = tmp_path / "short.wav"
    soundfile.write(short, np.random.default_rng(99).uniform(-0.5, 0.5, 16_000), 16_000)
    of_long, of_short = Scorer(tiny_model, "cpu", window=2.0).rows_of_files([tmp_path / "long.flac", short])
    assert [row.start for row in of_long] == [*(2.0 * i for i in range(90)), None]
    assert len({tuple((row.scores or {}).values()) for row in of_long}) == 91
    assert len(of_short) == 2


def test_a_bad_file_has_one_row_without_a_place(tiny_model: Path, real_clips: list[Path]) -> None:
    files = list(
        Scorer(tiny_model, "cpu", window=0.5).rows_of_files([real_clips[0], Path("gone.wav"), real_clips[1]])
    )
    assert [(row.start, row.error) for row in files[1]] == [(None, "missing")]
    assert all(len(rows) >= 2 for rows in (files[0], files[2]))


@pytest.mark.parametrize("batch_size", [3, 64, pytest.param(1, marks=pytest.mark.slow)])
def test_windows_of_many_files_stay_with_their_files(
    tiny_model: Path, real_clips: list[Path], batch_size: int
) -> None:
    scorer = Scorer(tiny_model, "cpu", window=0.3, hop=0.1, batch_size=batch_size, workers=3)
    together = list(scorer.rows_of_files(real_clips))
    assert together == [rows for clip in real_clips for rows in scorer.rows_of_files([clip])]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop": 1.0}, "--hop.*without --window"),
        ({"window": 2.5}, "--window.*at most 2.49"),
        ({"window": 0.0}, "--window"),
        ({"window": float("nan")}, "--window"),
        ({"window": 1.0, "hop": -1.0}, "--hop"),
        ({"window": 1e-5}, "--window.*at least one sample"),
        ({"window": 1.0, "hop": 1e-5}, "--hop.*at least one sample"),
        ({"window": 1.0, "hop": 1e308}, "--hop.*at most"),
    ],
)
def test_windows_that_cannot_be_are_refused(
    tiny_model: Path, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Scorer(tiny_model, "cpu", **options)  # type: ignore[arg-type]


# Memory


@pytest.mark.parametrize("batch_size", [4, 7])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    tiny_model: Path, real_clips: list[Path], monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    """The same inputs, in the same order, and what comes is what the small batch gives."""
    expected = list(Scorer(tiny_model, "cpu", batch_size=1).score_files(real_clips))
    monkeypatch.setenv("RRTN_FAILPOINT", "model.[2-9]:memory:all")
    scorer = Scorer(tiny_model, "cpu", batch_size=batch_size)
    assert list(scorer.score_files(real_clips)) == expected
    assert (scorer.model.batch_that_fits, scorer.batch_size) == (1, batch_size)


def test_a_clip_that_does_not_fit_alone_is_the_models_fault(
    tiny_model: Path, real_clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRTN_FAILPOINT", "model.*:memory:all")
    with pytest.raises(OutOfMemoryError, match="one clip") as caught:
        list(Scorer(tiny_model, "cpu").score_files(real_clips))
    assert caught.value.exit_code == 5


def test_what_the_backend_says_of_its_memory_is_kept(
    tiny_model: Path, real_clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, batch: NDArray[np.float32]) -> None:
        raise OutOfMemoryError(f"the device | {len(batch)} clips")

    scorer = Scorer(tiny_model, "cpu")
    monkeypatch.setattr(type(scorer.backend), "run", full)
    with pytest.raises(OutOfMemoryError, match=r"the device \| 1 clips"):
        list(scorer.score_files(real_clips))


# Several at once


def test_two_lists_at_the_same_time_do_not_mix(scorer: Scorer, real_clips: list[Path]) -> None:
    expected = list(scorer.score_files(real_clips))
    backwards = scorer.score_files(reversed(real_clips))
    pairs = list(zip(scorer.score_files(real_clips), backwards, strict=True))
    assert [one for one, _ in pairs] == expected
    assert [other for _, other in pairs] == expected[::-1]


def test_a_list_that_is_left_in_the_middle_is_no_matter_for_the_next(
    scorer: Scorer, real_clips: list[Path]
) -> None:
    expected = list(scorer.score_files(real_clips))
    rows = scorer.score_files(real_clips)
    assert next(rows) == expected[0]
    assert list(scorer.score_files(real_clips)) == expected
    assert list(rows) == expected[1:]


def test_a_crash_leaves_the_others_their_scores(
    scorer: Scorer, tiny_model: Path, real_clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(scorer.score_files(real_clips))
    monkeypatch.setenv("RRTN_FAILPOINT", f"read.{real_clips[4].name}:sigsegv:all")
    rows = list(Scorer(tiny_model, "cpu").score_files(real_clips))
    assert (rows[4].error, rows[4].detail, rows[4].scores) == ("crashed", "signal 11", None)
    assert rows[:4] + rows[5:] == expected[:4] + expected[5:]


@pytest.mark.slow  # 2.6 s between the tries; test_engine_faults.py has a command
def test_failing_storage_stops_scoring(
    tiny_model: Path, real_clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RRTN_FAILPOINT", f"read.{real_clips[1].name}:eio:all")
    with pytest.raises(StoppedError, match=os.fspath(real_clips[1])):
        list(Scorer(tiny_model, "cpu").score_files(real_clips))


def test_storage_that_recovers_is_asked_again(
    scorer: Scorer, tiny_model: Path, real_clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = list(scorer.score_files(real_clips))
    monkeypatch.setenv("RRTN_FAILPOINT", "read.*:eio")  # once in each decoder
    assert list(Scorer(tiny_model, "cpu").score_files(real_clips)) == undisturbed


def test_a_feed_gives_the_rows_of_files_that_come_one_by_one(scorer: Scorer, real_clips: list[Path]) -> None:
    feed, files, found = Feed(), [*real_clips, Path("/nowhere")] * 3, dict[int, Row]()
    taken = threading.Thread(
        target=lambda: found.update({ticket: row for ticket, (row,) in scorer.rows_of_feed(feed)})
    )
    taken.start()
    tickets = [feed.put(os.fsencode(path)) for path in files]
    feed.close()
    taken.join()
    feed.release()
    right = list(scorer.score_files(files))
    assert [found[ticket].error for ticket in tickets] == [row.error for row in right]
    assert right[-1].error == "missing"
    for ticket, row in zip(tickets, right, strict=True):  # 1e-6: their batches have other sizes
        assert found[ticket].scores == (row.scores and pytest.approx(row.scores, abs=1e-6))


@pytest.mark.parametrize(
    "closed",
    [(0,), (1, 2), (0, 1, 2), *(pytest.param(two, marks=pytest.mark.slow) for two in ((0, 1), (0, 2)))],
)
def test_a_program_may_have_closed_its_standard_streams(
    tiny_model: Path, real_clips: list[Path], tmp_path: Path, closed: tuple[int, ...]
) -> None:
    """As daemons do: what is opened next gets their numbers."""
    program = f"""
import os
for number in {closed}:
    os.close(number)
from rrtn.runtime import Scorer
rows = list(Scorer({str(tiny_model)!r}, "cpu").score_files([{str(real_clips[0])!r}]))
open({str(tmp_path / "errors")!r}, "w").write(repr([row.error for row in rows]))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert (tmp_path / "errors").read_text() == "['']"


def test_a_thread_that_outlives_the_main_one_is_told_so(
    tiny_model: Path, real_clips: list[Path], tmp_path: Path
) -> None:
    program = f"""
import threading
from rrtn.runtime import Scorer
from rrtn.runtime.errors import StoppedError
scorer = Scorer({str(tiny_model)!r}, "cpu")
def score():
    threading.main_thread().join()
    try:
        print([row.error for row in scorer.score_files([{str(real_clips[0])!r}])])
    except StoppedError as error:
        print(error)
threading.Thread(target=score).start()
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=120, capture_output=True)
    assert done.stdout.decode().startswith("scoring | the program is ending | join the thread"), done
