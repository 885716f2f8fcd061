"""The gate: what agrees passes with its figures, what does not is named and kept."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from rrtn.export.parity import check_parity, probe_clips
from rrtn.runtime import FrontendSpec, load_bundle
from rrtn.runtime.errors import ModelError
from rrtn.runtime.ort_backend import OrtBackend, ort_backend_from_bundle


@pytest.fixture
def backend(tiny_model: Path) -> OrtBackend:
    bundle = load_bundle(tiny_model)
    return ort_backend_from_bundle(bundle, bundle.variants[0], device="cpu")


@pytest.fixture
def clips(spec: FrontendSpec) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(-1, 1, (8, spec.clip_samples)) * np.logspace(-3, 0, 8)[:, None]
    return probe_clips(noise.astype(np.float32), spec)


def reference(backend: OrtBackend, spec: FrontendSpec, clips: np.ndarray) -> np.ndarray:
    from rrtn.runtime import log_mel

    return backend.scores(np.stack([log_mel(clip, spec)[None] for clip in clips]))


def test_probe_adds_the_extremes(clips: np.ndarray) -> None:
    silence, click, noise, square = clips[-4:]
    assert not silence.any()
    assert np.count_nonzero(click) == 1
    assert np.abs(noise).max() > 0.999
    assert set(np.unique(square)) <= {-1.0, 0.0, 1.0}


def test_agreement_passes_with_its_figures(backend: OrtBackend, spec: FrontendSpec, clips: np.ndarray, tmp_path: Path) -> None:
    expected = reference(backend, spec, clips)
    parity = check_parity(backend, spec, clips, expected + 3e-5, limit=1e-4, worst_to=tmp_path / "worst.npz")
    assert parity.max_abs == pytest.approx(3e-5, abs=1e-6)
    assert (parity.clips, parity.batches) == (12, (1, 2, 7, 12))
    assert not (tmp_path / "worst.npz").exists()


@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_e4_a_difference_is_refused_and_the_worst_clip_saved(
    error: float, backend: OrtBackend, spec: FrontendSpec, clips: np.ndarray, tmp_path: Path
) -> None:
    expected = reference(backend, spec, clips)
    expected[5, 1] += error
    with pytest.raises(ModelError, match="not published"):
        check_parity(backend, spec, clips, expected, limit=1e-4, worst_to=tmp_path / "worst.npz")
    with np.load(tmp_path / "worst.npz") as worst:
        assert np.array_equal(worst["waveform"], clips[5])


def test_e4_scores_that_depend_on_the_batch_are_refused(
    backend: OrtBackend, spec: FrontendSpec, clips: np.ndarray, tmp_path: Path
) -> None:
    """Wrong only when run alone, as a graph with a baked-in batch statistic would be."""
    expected = reference(backend, spec, clips)

    class Leaky(OrtBackend):
        def scores(self, batch: np.ndarray) -> np.ndarray:
            return super().scores(batch) + 1e-3 * (len(batch) == 1)

    leaky = Leaky(**{field.name: getattr(backend, field.name) for field in dataclasses.fields(backend)})
    with pytest.raises(ModelError, match=r"differ from PyTorch's by 1\.\d+e-03"):
        check_parity(leaky, spec, clips, expected, limit=1e-4, worst_to=tmp_path / "worst.npz")
