"""The gate: what agrees passes with its figures; each kind of fault is planted once, and caught."""

import copy
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from rrtn.export import deployed_network as deployed
from rrtn.export import log_mel_graph
from rrtn.export.deployed_network import folded_encoder
from rrtn.export.graph import onnx_from_network
from rrtn.export.parity import (
    Probe,
    check_half_range,
    check_parity,
    parity_of_backend,
    torch_scores,
)
from rrtn.export.samples_graph import waveform_from_log_mel
from rrtn.runtime import FrontendSpec
from rrtn.runtime.arrays import samples_from_waveform, waveform_from_samples
from rrtn.runtime.backends.ort_backend import OrtBackend, ort_backend_from_bundle
from rrtn.runtime.backends.variant_rows import difference_text
from rrtn.runtime.bundle import Bundle, Variant
from rrtn.runtime.errors import ModelError
from rrtn.runtime.probe_sounds import extremes
from rrtn.train.method.columns import UNIT, Columns, Scale
from rrtn.train.method.encoders import PannsCnn
from rrtn.train.method.frontend import LogMel
from rrtn.train.method.model import Head, TwinsNetwork

LABELS = ("Awe", "Fear", "Joy")
N = 24


@pytest.fixture(scope="module")
def clips() -> NDArray[np.float32]:
    """Noise of many levels and colours, so that scores differ; of 16 bits, as what is decoded."""
    spec, rng = FrontendSpec(), np.random.default_rng(0)
    noise = rng.uniform(-1, 1, (N, spec.clip_samples)) * np.logspace(-3, 0, N)[:, None]
    smooth = np.array(
        [np.convolve(row, np.ones(1 + i % 9) / (1 + i % 9), mode="same") for i, row in enumerate(noise)]
    )
    return waveform_from_samples(samples_from_waveform(smooth))


@pytest.fixture
def network(settled: TwinsNetwork) -> TwinsNetwork:
    """A copy that a test may change."""
    return copy.deepcopy(settled)


@pytest.fixture(scope="module")
def settled(clips: NDArray[np.float32]) -> TwinsNetwork:
    """A narrow CNN10 with the statistics of the clips, and a head that spreads their scores."""
    torch.manual_seed(0)
    network = TwinsNetwork("cnn10", n_mels=64, n_targets=len(LABELS), projector_layers=0)
    network.encoder = PannsCnn(64, channels=(8, 16), pooled_blocks=2)
    network.head = Head(16, len(LABELS), "sigmoid")
    log_mel = LogMel(FrontendSpec())(torch.from_numpy(clips))
    for _ in range(12):
        network.train()(log_mel)
    network.eval()
    with torch.no_grad():
        embedding = network.encoder(log_mel)
        network.head.weight.mul_(2 / (embedding @ network.head.weight.T).std())
    return network


@pytest.fixture(scope="module")
def plain(settled: TwinsNetwork) -> bytes:
    """Its log-Mel graph, exported once."""
    return exported(copy.deepcopy(settled))


@pytest.fixture(scope="module")
def halved(settled: TwinsNetwork) -> bytes:
    """Likewise, in float16."""
    return exported(copy.deepcopy(settled), half=True)


@pytest.fixture(scope="module")
def probe(settled: TwinsNetwork, clips: NDArray[np.float32]) -> Probe:
    spec = FrontendSpec()
    every = np.concatenate([clips, extremes(spec)])
    reference = torch_scores(copy.deepcopy(settled), spec, every)
    ratings = np.clip(reference[:N] + np.random.default_rng(1).normal(0, 0.05, (N, len(LABELS))), 0, 1)
    return Probe(
        clips=every, reference=reference, ratings=ratings, speakers=tuple(f"s{i % 8}" for i in range(N))
    )


@pytest.fixture
def backend_of(tmp_path: Path) -> Callable[..., OrtBackend]:
    """A real ONNX Runtime session for a graph."""

    def make(model: bytes, *, precision: str = "fp32", input: str = "logmel") -> OrtBackend:
        (tmp_path / "model.onnx").write_bytes(model)
        variant = Variant(
            name=precision,
            file="model.onnx",
            kind="onnx",
            input=input,  # type: ignore[arg-type]
            precision=precision,
            sha256=hashlib.sha256(model).hexdigest(),
            size=len(model),
        )
        bundle = Bundle(path=tmp_path, labels=LABELS, spec=FrontendSpec(), variants=(variant,), provenance={})
        return ort_backend_from_bundle(bundle, variant, device="cpu")

    return make


def exported(network: TwinsNetwork, *, half: bool = False) -> bytes:
    return onnx_from_network(network, FrontendSpec(), LABELS, half=half)


def of_waveforms(model: bytes) -> bytes:
    return waveform_from_log_mel(model, FrontendSpec())


def changed(model: bytes, change: Callable[[onnx.GraphProto], None]) -> bytes:
    proto = onnx.load_from_string(model)
    change(proto.graph)
    return bytes(proto.SerializeToString())


def refusal(backend: OrtBackend, probe: Probe, tmp_path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        check_parity(backend, FrontendSpec(), probe, worst_to=tmp_path / "worst.npz")
    assert (tmp_path / "worst.npz").exists() == tmp_path.exists()
    return str(caught.value)


def test_the_extremes() -> None:
    silence, click, noise, square = extremes(FrontendSpec())
    assert not silence.any()
    assert np.count_nonzero(click) == 1
    assert np.abs(noise).max() > 0.999
    assert set(np.unique(square * 32_768)) <= {-32_768.0, 0.0, 32_767.0}


@pytest.mark.parametrize("input_kind", ["logmel", "waveform"])
@pytest.mark.parametrize("half", [False, True])
def test_what_is_exported_passes(
    input_kind: str,
    half: bool,
    plain: bytes,
    halved: bytes,
    probe: Probe,
    backend_of: Callable[..., OrtBackend],
    tmp_path: Path,
) -> None:
    log_mel = halved if half else plain
    model = log_mel if input_kind == "logmel" else of_waveforms(log_mel)
    backend = backend_of(model, precision="fp16" if half else "fp32", input=input_kind)
    parity = check_parity(backend, FrontendSpec(), probe, worst_to=tmp_path / "worst.npz")
    assert (parity.clips, parity.batches) == (N + 4, (1, 2, 7, 32))
    assert parity.limit == (2e-3 if half else 1e-4)
    assert 0 < parity.max_abs < parity.limit
    assert parity.p999_abs <= parity.max_abs
    assert abs(parity.ccc_change) < 5e-4
    assert parity.ccc_interval is not None
    assert parity.ccc_interval[0] - 1e-6 <= parity.ccc_change <= parity.ccc_interval[1] + 1e-6
    assert not (tmp_path / "worst.npz").exists()


class Unscaled:
    """A backend that takes samples of 16 bits for shares of 1."""

    def __init__(self, backend: OrtBackend) -> None:
        self.variant, self.scores_of = backend.variant, backend.scores

    def scores(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        return self.scores_of(batch.astype(np.float32))


def test_a_graph_of_waveforms_is_given_what_decoders_hand_on(
    plain: bytes, probe: Probe, backend_of: Callable[..., OrtBackend], tmp_path: Path
) -> None:
    wrong: Any = Unscaled(backend_of(of_waveforms(plain), input="waveform"))
    assert "differ from PyTorch's" in refusal(wrong, probe, tmp_path)
    other = dataclasses.replace(probe, clips=probe.clips * np.float32(0.9999))  # no samples of 16 bits
    assert parity_of_backend(wrong, FrontendSpec(), other)[0].max_abs < 1e-2


def test_e4_a_perturbed_weight(
    plain: bytes, probe: Probe, backend_of: Callable[..., OrtBackend], tmp_path: Path
) -> None:
    def perturb(graph: onnx.GraphProto) -> None:
        weights = next(t for t in graph.initializer if "conv_block2.conv1" in t.name and len(t.dims) == 4)
        values = numpy_helper.to_array(weights).copy()
        values.flat[7] += 0.1
        weights.CopyFrom(numpy_helper.from_array(values, weights.name))

    assert "differ from PyTorch's" in refusal(backend_of(changed(plain, perturb)), probe, tmp_path)
    with np.load(tmp_path / "worst.npz") as worst:
        assert worst["waveform"].shape == (39_840,)


def test_why_it_failed_is_said_where_its_worst_clip_cannot_be_kept(
    plain: bytes, probe: Probe, backend_of: Callable[..., OrtBackend], tmp_path: Path
) -> None:
    def zeros(graph: onnx.GraphProto) -> None:
        bias = next(t for t in graph.initializer if "conv_block2.conv1" in t.name and len(t.dims) == 4)
        bias.CopyFrom(numpy_helper.from_array(np.zeros(bias.dims, np.float32), bias.name))

    said = refusal(backend_of(changed(plain, zeros)), probe, tmp_path / "no folder")
    assert "differ from PyTorch's" in said
    assert "could not be kept" in said


def test_e4_a_swapped_mel_matrix(
    plain: bytes,
    probe: Probe,
    backend_of: Callable[..., OrtBackend],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HTK's mel scale in place of Slaney's, inside the waveform graph."""
    import torchaudio

    htk = (
        torchaudio.functional.melscale_fbanks(257, 50.0, 8000.0, 64, 16_000, norm="slaney", mel_scale="htk")
        .double()
        .numpy()
    )
    monkeypatch.setattr(log_mel_graph, "mel_filterbank", lambda spec: htk)
    backend = backend_of(of_waveforms(plain), input="waveform")
    assert "differ from PyTorch's" in refusal(backend, probe, tmp_path)


def test_e4_batchnorm_left_in_training_mode(
    network: TwinsNetwork,
    probe: Probe,
    backend_of: Callable[..., OrtBackend],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its statistics are then the batch's: a score depends on its batch mates."""

    def in_training(network: TwinsNetwork, *args: object, **options: object) -> torch.nn.Module:
        module = deployed.LogMelModel(network.encoder, network.head, embeddings=False)
        for child in module.modules():
            if isinstance(child, torch.nn.BatchNorm2d):
                child.track_running_stats, child.running_mean, child.running_var = False, None, None
        return module.eval()

    monkeypatch.setattr("rrtn.export.graph.deployed_from_network", in_training)
    assert "differ from PyTorch's" in refusal(backend_of(exported(copy.deepcopy(network))), probe, tmp_path)


def test_e4_a_batch_dimension_baked_in(plain: bytes, backend_of: Callable[..., OrtBackend]) -> None:
    """The graph takes batches of two and nothing else."""

    def bake(graph: onnx.GraphProto) -> None:
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 2

    with pytest.raises(ModelError, match="in batches of any size"):
        backend_of(changed(plain, bake))


def test_e4_scores_that_depend_on_the_batch_size(
    plain: bytes, probe: Probe, backend_of: Callable[..., OrtBackend], tmp_path: Path
) -> None:
    class Leaky(OrtBackend):
        def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            return super().scores(batch) + np.float32(1e-3 * (len(batch) == 1))

    backend = backend_of(plain)
    leaky = Leaky(**{field.name: getattr(backend, field.name) for field in dataclasses.fields(backend)})
    assert "by 1.0" in refusal(leaky, probe, tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_e4_scores_that_are_not_finite(
    value: float, plain: bytes, probe: Probe, backend_of: Callable[..., OrtBackend], tmp_path: Path
) -> None:
    class Broken(OrtBackend):
        def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            scores = super().scores(batch)
            scores[-1, 0] = value
            return scores

    backend = backend_of(plain)
    broken = Broken(**{field.name: getattr(backend, field.name) for field in dataclasses.fields(backend)})
    assert "differ from PyTorch's by nan" in refusal(broken, probe, tmp_path)


def test_an_fp16_overflow_of_activations(network: TwinsNetwork, probe: Probe) -> None:
    """Between two layers, where float32 undoes it: neither weights nor scores show it."""
    encoder = folded_encoder(network.encoder, FrontendSpec())
    check_half_range(encoder, FrontendSpec(), probe)
    block = encoder.get_submodule("conv_block1")
    with torch.no_grad():
        block.conv1.weight.mul_(1e5)
        block.conv1.bias.mul_(1e5)
        block.conv2.weight.mul_(1e-5)
    with pytest.raises(ModelError, match=r"fp16 \| activations reach .* \| expected at most 65504"):
        check_half_range(encoder, FrontendSpec(), probe)


def test_an_fp16_overflow_of_a_sum_of_a_residual_block(probe: Probe) -> None:
    """Of two addends that float16 holds; ReLU and a mean behind it are no layers of their own."""

    class Residual(torch.nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 1, bias=False)
            torch.nn.init.constant_(self.conv.weight, scale)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.full_like(x, 1000.0)
            out: torch.Tensor = torch.relu(self.conv(x) + self.conv(x)) - 500.0 * self.conv.weight
            return out.clamp(max=1.0).mean((2, 3))

    check_half_range(Residual(30.0), FrontendSpec(), probe)
    with pytest.raises(ModelError, match=r"activations reach 8e\+04"):
        check_half_range(Residual(40.0), FrontendSpec(), probe)


def test_activations_that_are_no_numbers_are_beyond_fp16(probe: Probe) -> None:
    """In whichever layer, and the layers behind it may make numbers of them again."""

    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.nan

    encoder = torch.nn.Sequential(torch.nn.Flatten(), Broken(), torch.nn.Threshold(0, 0))
    with pytest.raises(ModelError, match="activations reach nan"):
        check_half_range(encoder, FrontendSpec(), probe)


def test_an_fp16_overflow_of_weights(network: TwinsNetwork) -> None:
    with torch.no_grad():
        network.encoder.get_submodule("conv_block2.conv1").weight.mul_(1e6)
        network.encoder.get_submodule("conv_block2.bn1").running_var.fill_(1e-6)
    with pytest.raises(ModelError, match="NaN or infinity"):
        exported(network, half=True)


def test_int8_is_judged_by_ccc(
    plain: bytes, probe: Probe, backend_of: Callable[..., OrtBackend], tmp_path: Path
) -> None:
    """Differences beyond the limits of the other precisions pass where CCC keeps, and not where it
    does not.
    """
    fine, coarse = (_noisy(backend_of(plain, precision="int8"), size) for size in (0.003, 0.1))
    parity = check_parity(fine, FrontendSpec(), probe, worst_to=tmp_path / "worst.npz")
    assert parity.limit is None
    assert parity.max_abs > 2e-3
    assert abs(parity.ccc_change) <= 0.002
    assert "CCC is 0." in refusal(coarse, probe, tmp_path)


def _noisy(backend: OrtBackend, size: float) -> OrtBackend:
    class Noisy(OrtBackend):
        def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            scores = super().scores(batch)
            return scores + np.float32(size) * np.sin(1e4 * scores)

    return Noisy(**{field.name: getattr(backend, field.name) for field in dataclasses.fields(backend)})


def test_the_figures_are_those_of_the_scores(
    plain: bytes, probe: Probe, backend_of: Callable[..., OrtBackend]
) -> None:
    from rrtn.train.method.metrics import ccc_challenge

    shifted = dataclasses.replace(probe, reference=probe.reference + np.float32(3e-5))
    parity, differences = parity_of_backend(backend_of(plain), FrontendSpec(), shifted)
    assert parity.max_abs == pytest.approx(3e-5, abs=2e-6)
    np.testing.assert_allclose(differences, 3e-5, atol=2e-6)
    assert parity.ccc == pytest.approx(ccc_challenge(probe.reference[:N], probe.ratings).mean(), abs=1e-5)
    assert parity.ccc_reference == pytest.approx(
        ccc_challenge(shifted.reference[:N], probe.ratings).mean(), abs=1e-9
    )


def test_the_figures_of_several_scales_are_in_the_units_of_the_worst(
    plain: bytes, probe: Probe, backend_of: Callable[..., OrtBackend]
) -> None:
    """1e-3 of a scale of 100 is less than 3e-5 of one of 1."""
    shift = np.full(len(LABELS), 1e-3, np.float32)
    shift[0] = 3e-5
    scales = (UNIT, *(Scale(0, 100) for _ in LABELS[1:]))
    columns = Columns(targets=LABELS, scales=scales)
    shifted = dataclasses.replace(probe, reference=probe.reference + shift, columns=columns)
    parity, _ = parity_of_backend(backend_of(plain), FrontendSpec(), shifted)
    assert parity.max_abs == pytest.approx(3e-5, abs=2e-6)
    assert parity.p999_abs <= parity.max_abs
    assert parity.limit == 1e-4
    assert parity.of == LABELS[0]
    assert difference_text(parity.to_dict()) == f"{parity.max_abs:.1e} of {LABELS[0]}"
