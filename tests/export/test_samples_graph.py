"""The graph that takes whole recordings hears what `rrtn score` hears: the same 16-bit samples."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from rrtn.export.samples_graph import samples_from_log_mel, waveform_from_log_mel
from rrtn.runtime import FrontendSpec, Scorer, load_bundle
from rrtn.runtime.audio.reader import audio_from_array
from rrtn.runtime.frontend import clip_log_mel, clip_of

SPECS = {
    "default": FrontendSpec(),
    "trim": FrontendSpec(trim=True),
    "zero_db": FrontendSpec(pad="zero_db"),
    "all else": FrontendSpec(
        trim=True, pad="zero_db", sampling_rate=8_000, f_max=4_000.0, peak_dbfs=-1.0, frames=100
    ),
}
LENGTHS = (1, 2, 159, 160, 161, 256, 799, 800, 1_599, 1_600, 15_839, 15_840, 15_841, 39_840, 39_841, 90_000)
_NO_SOUND = 1e-9  # an amplitude far below the last bit of 24-bit audio
CLIP, LOG_MEL = "samples.frontend.waveform", "samples.frontend.log_mel"


def recordings() -> Iterator[tuple[str, np.ndarray]]:
    """Recordings of every length and kind that a rule is about; loudest behind the first clip."""
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        sound = rng.normal(0, 0.1, length) * np.linspace(0.05, 1, length)
        padded = np.concatenate([np.zeros(length // 3), sound, np.zeros(length // 2)])
        yield f"sound of {length}", sound
        yield f"quiet sound of {length}", sound * 1e-4
        yield f"very loud sound of {length}", sound * 1e30
        yield f"sound of {length} with an offset", 0.5 * sound + 0.3
        yield f"sound of {length} in silence", padded
        yield f"sound of {length} in noise", padded + rng.normal(0, 3e-5, len(padded))
        yield f"nothing of {length}", np.zeros(length)
        yield f"less than a bit of {length}", sound * _NO_SOUND
        yield f"full scale of {length}", np.sign(sound)
    yield from faint_ends(np.sin(np.arange(1_600) / 9) / 2)


def faint_ends(loud: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """A frame that is cut short at the end of a recording, just within 60 dB of the loudest, and just not."""
    power = np.square(loud).mean()
    for factor in (4e-6, 0.25e-6):
        end = np.full(10, np.sqrt(factor * power))
        yield f"an end with {factor} of the power", np.concatenate([loud, np.zeros(1_600), end])


class Graph:
    """The graph in ONNX Runtime, with the clip and the log-Mel inside it as outputs."""

    def __init__(self, content: bytes, spec: FrontendSpec) -> None:
        model = onnx.load_from_string(content)
        floats = onnx.TensorProto.FLOAT
        last = next(
            node.input[0] for node in model.graph.node if node.output[0] == "mean"
        )  # of the tiny model
        for name, shape in ((CLIP, [1, spec.clip_samples]), (last, [1, 1, spec.frames, spec.n_mels])):
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, floats, shape))
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def __call__(self, recording: np.ndarray) -> list[np.ndarray]:
        """-> scores [1, K], clip [1, S], log_mel [1, 1, T, M]."""
        found: list[np.ndarray] = self._session.run(None, {"samples": recording[None].astype(np.float32)})
        return found


@pytest.mark.parametrize("name", SPECS)
def test_each_rule_of_the_spec_stands_in_the_graph(
    name: str, tmp_path: Path, tiny_model_of: Callable[[Path, FrontendSpec], Path]
) -> None:
    spec = SPECS[name]
    path = tiny_model_of(tmp_path / "tiny.onnx", spec)
    graph, scorer = Graph(samples_from_log_mel(path.read_bytes(), spec), spec), Scorer(path, "cpu")
    for what, recording in recordings():
        scores, clip, log_mel = graph(recording)
        audio = audio_from_array(recording, spec.sampling_rate, spec)
        different = np.abs(32_768 * (clip[0] - clip_of(audio.waveform, spec)))
        if "offset" in what:  # a mean, whose last bit depends on the order of its sum
            assert different.max() <= 1 and different.mean() < 0.01, what
        else:
            assert not different.any(), what
        np.testing.assert_allclose(
            log_mel[0, 0], clip_log_mel(audio.waveform, spec), atol=0.2, rtol=0, err_msg=what
        )
        expected = list(scorer.score_waveform(recording, spec.sampling_rate).values())
        np.testing.assert_allclose(scores, [expected], atol=1e-5, rtol=0, err_msg=what)


def test_every_field_of_the_spec_is_known_here() -> None:
    """A field that is added to the spec must get its operators; then it is added to this list, too."""
    known = "sampling_rate n_fft hop n_mels f_min f_max power_floor frames pad peak_dbfs trim"
    assert [field.name for field in fields(FrontendSpec)] == known.split()


def test_the_graph_of_waveforms_has_a_free_batch(
    tiny_model: Path, tmp_path: Path, spec: FrontendSpec
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(waveform_from_log_mel(tiny_model.read_bytes(), spec))
    variant = load_bundle(path).variants[0]
    assert (variant.name, variant.input) == ("waveform", "waveform")
    sound = np.random.default_rng(0).normal(0, 0.1, 50_000)
    scores = [Scorer(each, "cpu").score_waveform(sound, 16_000) for each in (path, tiny_model)]
    np.testing.assert_allclose(*(list(each.values()) for each in scores), atol=1e-5, rtol=0)
    batch = np.zeros((3, spec.clip_samples), np.float32)
    assert onnxruntime.InferenceSession(path).run(["scores"], {"waveform": batch})[0].shape == (3, 3)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scores_are_nan_where_a_sample_is_no_number(
    wrong: float, tiny_model: Path, spec: FrontendSpec
) -> None:
    """`rrtn score` refuses such a file. Behind the first clip, a bad sample still spoils the level."""
    graph = Graph(samples_from_log_mel(tiny_model.read_bytes(), spec), spec)
    for place in (0, 45_000):
        recording = np.sin(np.arange(50_000) / 9)
        recording[place] = wrong
        assert np.isnan(graph(recording)[0]).all()


def test_a_long_offset_does_not_drift(tiny_model: Path, spec: FrontendSpec) -> None:
    """Ten minutes: a sum in float32 would be wrong by several 16-bit steps."""
    graph = Graph(samples_from_log_mel(tiny_model.read_bytes(), spec), spec)
    rng = np.random.default_rng(0)
    recording = (rng.normal(0, 0.01, 600 * 16_000) + 0.7).astype(np.float32)
    expected = clip_of(audio_from_array(recording, 16_000, spec).waveform, spec)
    assert np.abs(32_768 * (graph(recording)[1][0] - expected)).max() <= 1


def test_the_file_says_what_it_takes(tiny_model: Path, tmp_path: Path, spec: FrontendSpec) -> None:
    content = samples_from_log_mel(tiny_model.read_bytes(), spec)
    (tmp_path / "model.samples.onnx").write_bytes(content)
    bundle = load_bundle(tmp_path / "model.samples.onnx")
    (variant,) = bundle.variants
    assert (variant.name, variant.input, variant.precision) == ("samples", "samples", "fp32")
    assert (bundle.labels, bundle.spec) == (load_bundle(tiny_model).labels, spec)
    graph = onnx.load_from_string(content).graph
    sizes = [
        [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    ]
    assert sizes == [[1, "N"], [1, 3]]
    assert not graph.value_info
    for names in ([node.name for node in graph.node], [name for node in graph.node for name in node.output]):
        named = [name for name in names if name]
        assert len(set(named)) == len(named)  # else ONNX Runtime's WASM refuses the file
