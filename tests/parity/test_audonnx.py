"""A bundle opens with audEERING's `audonnx.load`, and scores signals there as rrtn does."""

import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import yaml
from rrtn.export.audeering import MODEL_YAML, audonnx_yaml_from_bundle, signal_for_model
from rrtn.export.samples_graph import samples_from_log_mel
from rrtn.runtime import Scorer, load_bundle
from rrtn.runtime.bundle import Bundle
from rrtn.runtime.errors import AudioError, ConfigError, ModelError

audonnx = pytest.importorskip("audonnx", reason="audonnx is not installed")

LIMIT = 1e-4  # in score: the gate's between a bundle's variants


@pytest.fixture(scope="module")
def bundle(random_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = shutil.copytree(random_bundle.path, tmp_path_factory.mktemp("audonnx") / "bundle")
    copied = load_bundle(folder)
    assert audonnx_yaml_from_bundle(copied) == folder / "model.yaml"
    return copied


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> "audonnx.Model":
    return audonnx.load(str(bundle.path))


@pytest.fixture(scope="module")
def scorer(bundle: Bundle) -> Scorer:
    """The log-Mel graph behind NumPy's frontend: another path through everything than audonnx takes."""
    scorer = Scorer(bundle, "cpu")
    assert scorer.backend.variant.input == "logmel"
    return scorer


def signals(paths: list[Path]) -> list[tuple[np.ndarray, int]]:
    """As audEERING's programs read files: float32 [channels, samples]."""
    read = (soundfile.read(path, dtype="float32", always_2d=True) for path in paths)
    return [(samples.T, rate) for samples, rate in read]


def test_scores_of_real_files_are_those_of_score_files(
    model: "audonnx.Model", scorer: Scorer, real_clips: list[Path]
) -> None:
    expected = np.array([list(row.scores.values()) for row in scorer.score_files(real_clips)])
    assert expected.std(axis=0).max() > 0.02
    came = np.concatenate([model(signal, rate) for signal, rate in signals(real_clips)])
    np.testing.assert_allclose(came, expected, atol=LIMIT, rtol=0)


def test_scores_at_16_khz_are_those_of_score_waveform(
    model: "audonnx.Model", scorer: Scorer, real_clips: list[Path]
) -> None:
    for signal, rate in signals(real_clips):
        mono = soxr.resample(signal.mean(axis=0), rate, 16_000)
        expected = list(scorer.score_waveform(mono, 16_000).values())
        for shape in (mono, mono[None]):
            np.testing.assert_allclose(model(shape, 16_000), [expected], atol=LIMIT, rtol=0)


@pytest.mark.parametrize("samples", [1, 255, 257, 4_000, 39_839, 39_840, 39_841, 200_000])
@pytest.mark.parametrize("level", [1.0, 1e-4])
def test_signals_of_any_length_and_level(
    samples: int, level: float, model: "audonnx.Model", scorer: Scorer
) -> None:
    rng = np.random.default_rng(samples)
    signal = (level * rng.normal(0, 0.1, samples) * np.linspace(0.2, 1, samples)).astype(
        np.float32
    )  # loudest at its end
    expected = list(scorer.score_waveform(signal, 16_000).values())
    np.testing.assert_allclose(model(signal, 16_000), [expected], atol=LIMIT, rtol=0)


def test_a_quiet_signal_is_levelled(model: "audonnx.Model", bundle: Bundle, real_clips: list[Path]) -> None:
    """The graph alone hears the level: what is taken away by levelling is there."""
    (signal, rate) = signals(real_clips[:1])[0]
    quiet = (signal / 1000).astype(np.float32)
    np.testing.assert_allclose(model(quiet, rate), model(signal, rate), atol=LIMIT, rtol=0)
    bare = audonnx.Model(str(bundle.path / "model.waveform.onnx"))
    clip = np.resize(signal.mean(axis=0), 39_840)
    assert np.abs(bare(clip / 1000) - bare(clip)).max() > 100 * LIMIT


def test_audonnx_knows_labels_and_graph(model: "audonnx.Model", bundle: Bundle) -> None:
    assert tuple(model.labels()) == bundle.labels
    assert model.path == str(bundle.path / "model.waveform.onnx")
    assert list(model.inputs) == ["waveform"]
    assert (list(model.outputs), model.outputs["scores"].shape) == (["scores"], [-1, len(bundle.labels)])


def test_the_file_holds_data_and_the_source_of_one_function(bundle: Bundle) -> None:
    document = yaml.safe_load((bundle.path / MODEL_YAML).read_text(encoding="ascii"))
    (fields,) = document.values()
    ((transform, settings),) = fields.pop("transform").items()
    assert fields == {"path": "model.waveform.onnx", "labels": {"scores": list(bundle.labels)}}
    assert transform == "$audonnx.core.function.Function"
    assert settings.pop("func") == inspect.getsource(signal_for_model)
    numbers = {"silence_peak": 1e-7, "offset_share": 0.15, "shortest_with_offset": 1600}
    assert settings == {"func_args": {"input": "waveform", "frontend": bundle.spec.to_dict(), **numbers}}
    assert {type(value) for value in settings["func_args"]["frontend"].values()} == {int, float, str}


WITHOUT_RRTN = """
import json, sys
sys.modules.update(rrtn=None, soxr=None, soundfile=None, torch=None)  # as if they were not installed
import audonnx, numpy
model = audonnx.load(sys.argv[1])
scores = [model(signal, rate).tolist() for signal, rate in numpy.load(sys.argv[2], allow_pickle=True)]
refused = []
ones = numpy.ones(100)
for signal, rate in ((ones, 44_100), (ones, None), (ones[:0], 16_000), (ones * numpy.nan, 16_000)):
    try:
        model(signal.astype("float32"), rate)
    except ValueError as error:
        refused.append(str(error))
print(json.dumps([model.path, scores, refused]))
"""


@pytest.mark.parametrize(
    ("changes", "has_samples", "file"),
    [
        ({}, False, "model.waveform.onnx"),
        ({}, True, "model.samples.onnx"),
        ({"pad": "zero_db", "trim": True}, True, "model.samples.onnx"),
    ],
)
def test_it_opens_where_rrtn_is_not_installed(
    changes: dict[str, Any],
    has_samples: bool,
    file: str,
    random_bundle: Bundle,
    sealed_anew: Callable[..., Bundle],
    tmp_path: Path,
    real_clips: list[Path],
) -> None:
    """At the model's rate the scores are those of rrtn; any other rate is refused."""
    bundle = sealed_anew(random_bundle, spec=replace(random_bundle.spec, **changes))
    if has_samples:
        content = samples_from_log_mel(bundle.read(bundle.variants[0]), bundle.spec)
        (bundle.path / "model.samples.onnx").write_bytes(content)
        samples = replace(bundle.variants[0], name="samples", file="model.samples.onnx", input="samples")
        bundle = replace(bundle, variants=(*bundle.variants, samples))
    audonnx_yaml_from_bundle(bundle)
    rng = np.random.default_rng(0)
    resampled = [soxr.resample(signal.mean(axis=0), rate, 16_000) for signal, rate in signals(real_clips)]
    noises = [rng.normal(level, 0.1, size) for level in (0, 0.5) for size in (1, 257, 1_600, 100_000)]
    padded = np.concatenate([np.zeros(9_000), noises[3], np.zeros(9_000)])
    sounds = [*resampled, *noises, padded, 1e-3 * noises[2], np.zeros(999), np.stack([noises[2]] * 2)]
    told = np.empty((len(sounds), 2), dtype=object)
    told[:] = [(sound.astype(np.float32), 16_000) for sound in sounds]
    np.save(tmp_path / "told.npy", told)
    command = [sys.executable, "-c", WITHOUT_RRTN, str(bundle.path), str(tmp_path / "told.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path, scores, refused = json.loads(done.stdout)
    assert path == str(bundle.path / file)
    scorer = Scorer(replace(bundle, variants=bundle.variants[:1]), "cpu")
    expected = [[list(scorer.score_waveform(sound.T, 16_000).values())] for sound, _ in told]
    np.testing.assert_allclose(scores, expected, atol=LIMIT, rtol=0)
    assert np.std(expected, axis=0).max() > 100 * LIMIT
    rates = [f"{rate} Hz: the model takes 16000 Hz; resample, or install rrtn" for rate in (44_100, None)]
    assert refused == [*rates, *["signal: no samples, or NaN or infinity among them"] * 2]


def test_a_bundle_that_was_exported_before_still_opens(
    bundle: Bundle, real_clips: list[Path], tmp_path: Path
) -> None:
    """Its model.yaml names rrtn's class."""
    old = load_bundle(shutil.copytree(bundle.path, tmp_path / "old"))
    fields = "".join(f"        {name}: {value!r}\n" for name, value in bundle.spec.to_dict().items())
    transform = (
        f"    $rrtn.runtime.model_input.ModelInput==0.0.1:\n      input: waveform\n      frontend:\n{fields}"
    )
    (old.path / MODEL_YAML).write_text(
        f"$audonnx.core.model.Model:\n  path: model.waveform.onnx\n  transform:\n{transform}".replace(
            "1e-10", "1.0e-10"
        )
    )
    model, (signal, rate) = audonnx.load(str(old.path)), signals(real_clips[:1])[0]
    expected = next(iter(Scorer(bundle, "cpu").score_files(real_clips[:1]))).scores
    assert expected
    np.testing.assert_allclose(model(signal, rate), [list(expected.values())], atol=LIMIT, rtol=0)


def test_it_loads_without_torch(bundle: Bundle) -> None:
    program = (
        "import sys; sys.modules.update(torch=None, torchaudio=None); import audonnx, numpy; "
        f"print(audonnx.load({str(bundle.path)!r})(numpy.ones(100, 'float32'), 16000).shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "(1, 4)\n", done.stderr


def test_audonnx_can_write_the_model_again(model: "audonnx.Model", tmp_path: Path) -> None:
    model.to_yaml(str(tmp_path / "again.yaml"))
    again = audonnx.load(str(tmp_path), model_file="again.yaml")
    signal = np.sin(np.arange(30_000) / 20).astype(np.float32)
    assert np.array_equal(again(signal, 22_050), model(signal, 22_050))


def test_n17_a_bundle_with_embeddings_opens_and_gives_both(
    embedding_bundle: Bundle, tmp_path: Path, real_clips: list[Path]
) -> None:
    bundle = load_bundle(shutil.copytree(embedding_bundle.path, tmp_path / "bundle"))
    audonnx_yaml_from_bundle(bundle)
    model = audonnx.load(str(bundle.path))
    assert list(model.outputs) == ["scores", "embedding"]
    assert tuple(model.labels("scores")) == bundle.labels
    scorer = Scorer(bundle, "cpu", embeddings=True)
    rows = list(scorer.score_files(real_clips))
    for (signal, rate), row in zip(signals(real_clips), rows, strict=True):
        came = model(signal, rate)
        np.testing.assert_allclose(came["scores"], [list(row.scores.values())], atol=LIMIT, rtol=0)
        np.testing.assert_allclose(came["embedding"], [row.embedding], atol=1e-2, rtol=0)
        assert np.array_equal(model(signal, rate, outputs="scores"), came["scores"])


def test_padding_in_decibels_is_done_before_the_graph(
    random_bundle: Bundle, sealed_anew: Callable[..., Bundle]
) -> None:
    """The waveform graph cannot: it does not know where a short recording ended."""
    spec = replace(random_bundle.spec, pad="zero_db")
    bundle = sealed_anew(random_bundle, spec=spec)
    audonnx_yaml_from_bundle(bundle)
    signal = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    expected = list(Scorer(bundle, "cpu").score_waveform(signal, 16_000).values())
    silence = list(Scorer(random_bundle, "cpu").score_waveform(signal, 16_000).values())
    assert np.abs(np.subtract(expected, silence)).max() > 100 * LIMIT
    np.testing.assert_allclose(audonnx.load(str(bundle.path))(signal, 16_000), [expected], atol=1e-6, rtol=0)


def test_signals_that_are_none_are_refused_as_rrtn_refuses_them(model: "audonnx.Model") -> None:
    with pytest.raises(AudioError, match="non_finite"):
        model(np.array([0, np.nan], dtype=np.float32), 16_000)
    with pytest.raises(AudioError, match="empty"):
        model(np.zeros((1, 0), dtype=np.float32), 16_000)
    with pytest.raises(ConfigError, match="sampling_rate"):
        model(np.zeros(100, dtype=np.float32))


def test_a_bundle_without_onnx_is_refused(random_bundle: Bundle) -> None:
    with pytest.raises(ModelError, match="no variant samples or waveform or fp32"):
        audonnx_yaml_from_bundle(replace(random_bundle, variants=()))
