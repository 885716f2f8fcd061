"""A split through the network: in order, each clip as if it were alone, shared among ranks without a gap.

n clips, K targets.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from rrtn.runtime.arrays import waveform_from_samples
from rrtn.runtime.frontend import clip_log_mel
from rrtn.runtime.spec import FrontendSpec
from rrtn.train import predict as predict_module
from rrtn.train.data.clip_cache import ClipStore, clip_store
from rrtn.train.data.device_clips import SplitClips
from rrtn.train.distributed import World
from rrtn.train.method.encoders import PannsCnn
from rrtn.train.method.frontend import LogMel
from rrtn.train.method.model import TwinsNetwork
from rrtn.train.predict import mel_mean, predict

SPEC = FrontendSpec(frames=51)  # clips of 8000 samples
LENGTHS = (8000, 100, 12_000, 7999, 30_000, 8001, 2500, 8160, 16_000)
# One recording alone or in a batch: float32 sums in another order.
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClipStore]:
    """Noise of those lengths under different envelopes."""
    folder, rng = tmp_path_factory.mktemp("wav"), np.random.default_rng(0)
    paths = [folder / f"{i}.wav" for i in range(len(LENGTHS))]
    for i, (path, length) in enumerate(zip(paths, LENGTHS, strict=True)):
        soundfile.write(path, rng.uniform(-0.7, 0.7, length) * np.linspace(0.01, 1, length) ** i, 16_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RRTN_CACHE", str(folder / "cache"))
        yield clip_store(paths, SPEC)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_module, "_BATCH", {"cpu": 4})


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # of torch's compiler
@pytest.mark.parametrize("crop", ["clip", "full"])
def test_a_compiled_network_sees_one_shape_alone(split: SplitClips, network: TwinsNetwork, crop: str) -> None:
    """The short last batch is padded, and whole recordings go through the network as it is."""
    shapes: list[tuple[int, ...]] = []

    def noted(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        shapes.extend(tuple(value.shape) for value in inputs if value.dim() == 4 and value.shape[1] == 1)
        return graph

    compiled = torch.compile(network, backend=noted, dynamic=False)
    frontend = LogMel(split.spec)
    came = predict(network, frontend, split, crop=crop, compiled=compiled)  # type: ignore[arg-type]
    expected = predict(network, frontend, split, crop=crop)  # type: ignore[arg-type]
    np.testing.assert_allclose(came, expected, rtol=0, atol=TOLERANCE)
    assert [shape for shape in shapes if shape[2:] != (3, 3) and shape[2:] != (7, 7)] == [(4, 1, 51, 64)]
    torch.compiler.reset()


@pytest.fixture(params=["silence", "zero_db"])
def split(request: pytest.FixtureRequest, store: ClipStore) -> SplitClips:
    spec = replace(SPEC, pad=request.param)
    return SplitClips(
        store, torch.zeros(len(store), 3), [str(i) for i in range(len(store))], spec, resident=False
    )


@pytest.fixture(scope="module")
def network(store: ClipStore) -> TwinsNetwork:
    """With BatchNorm's statistics of these clips, and scores that differ; it has dropout."""
    torch.manual_seed(0)
    network = TwinsNetwork("cnn10", n_mels=64, n_targets=3)
    network.encoder = PannsCnn(64, channels=(8, 16, 32, 512), pooled_blocks=4)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of what comes
    clips = store.clips(np.arange(len(store)), np.zeros(len(store), dtype=int), SPEC)
    with torch.no_grad():
        network.train()(LogMel(SPEC)(torch.from_numpy(waveform_from_samples(clips))))
        network.head.weight.mul_(5)
    return network


def alone(network: TwinsNetwork, split: SplitClips, *, whole: bool) -> np.ndarray:
    """[n, K], one after the other: from the runtime's log-Mel for a clip, training's for what is longer."""
    frontend, rows = LogMel(split.spec), []
    for i in range(len(split)):
        waveform = waveform_from_samples(split.store.waveform(i))
        log_mel = torch.from_numpy(clip_log_mel(waveform, split.spec))[None, None]
        if whole and len(waveform) > split.spec.clip_samples:
            log_mel = frontend(torch.from_numpy(waveform)[None])
        with torch.no_grad():
            rows.append(network.eval()(log_mel).scores[0].numpy())
    return np.array(rows)


class TestPredict:
    def test_scores_are_each_clips_own_in_order(self, network: TwinsNetwork, split: SplitClips) -> None:
        expected = alone(network, split, whole=False)
        assert np.ptp(expected, axis=0).min() > 0.01
        came = predict(network.train(), LogMel(split.spec), split)
        np.testing.assert_allclose(came, expected, atol=1e-4, rtol=0)  # two log-Mels, 1e-3 dB apart

    def test_crop_full_takes_longer_recordings_whole(self, network: TwinsNetwork, split: SplitClips) -> None:
        came = predict(network, LogMel(split.spec), split, crop="full")
        np.testing.assert_allclose(came, alone(network, split, whole=True), atol=1e-4, rtol=0)
        clipped = predict(network, LogMel(split.spec), split)
        differs = np.abs(came - clipped).max(axis=1) > 1e-4
        assert differs.tolist() == [length > 8000 for length in LENGTHS]

    @pytest.mark.parametrize("crop", ["clip", "full"])
    @pytest.mark.parametrize("size", [2, 4])
    def test_ranks_cover_all_clips_once_and_in_order(
        self, size: int, crop: str, network: TwinsNetwork, split: SplitClips, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = predict(network, LogMel(split.spec), split, crop=crop)
        monkeypatch.setattr(predict_module, "concatenated", lambda world, part: part)
        parts = [
            predict(network, LogMel(split.spec), split, crop=crop, world=World(rank, size))
            for rank in range(size)
        ]
        assert min(len(part) for part in parts) > 0
        np.testing.assert_allclose(np.concatenate(parts), expected, atol=TOLERANCE, rtol=0)

    @pytest.mark.parametrize("crop", ["clip", "full"])
    @pytest.mark.parametrize("size", [2, 4])
    def test_all_ranks_report_equally_often(
        self, size: int, crop: str, network: TwinsNetwork, split: SplitClips, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever their shares of the clips: they agree there whether to stop."""
        monkeypatch.setattr(predict_module, "concatenated", lambda world, part: part)
        counts: list[list[int]] = [[] for _ in range(size)]
        for rank in range(size):
            world, advance = World(rank, size), counts[rank].append
            predict(network, LogMel(split.spec), split, crop=crop, world=world, advance=advance)
        assert len({len(of_rank) for of_rank in counts}) == 1
        assert sum(map(sum, counts)) == size * len(split)

    def test_every_clip_is_reported_and_nothing_of_the_network_changes(
        self, network: TwinsNetwork, split: SplitClips
    ) -> None:
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        counts: list[int] = []
        predict(network.train(), LogMel(split.spec), split, advance=counts.append)
        assert counts == [4, 4, 1]
        assert not network.training
        assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())

    def test_half_is_close_and_its_scores_are_float32(self, network: TwinsNetwork, split: SplitClips) -> None:
        came = predict(network, LogMel(split.spec), split, half=torch.bfloat16)
        expected = predict(network, LogMel(split.spec), split)
        assert came.dtype == np.float32
        assert not np.array_equal(came, expected)
        np.testing.assert_allclose(came, expected, atol=0.05, rtol=0)  # bfloat16's 8 bits, through 10 layers


class TestMelMean:
    def test_is_the_mean_of_all_frames(self, split: SplitClips) -> None:
        log_mels = [
            clip_log_mel(waveform_from_samples(split.store.waveform(i)), split.spec)
            for i in range(len(split))
        ]
        expected = np.concatenate(log_mels).mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(mel_mean(split, LogMel(split.spec)), expected, atol=1e-3, rtol=0)  # dB

    def test_of_a_large_split_it_is_that_of_clips_spread_over_it(
        self, split: SplitClips, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(predict_module, "_MEAN_CLIPS", 3)
        chosen = [clip_log_mel(waveform_from_samples(split.store.waveform(i)), split.spec) for i in (0, 4, 8)]
        expected = np.concatenate(chosen).mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(mel_mean(split, LogMel(split.spec)), expected, atol=1e-3, rtol=0)
