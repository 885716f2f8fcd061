"""Recordings shorter than a clip: the runtime and training continue them alike, with silence or
with frames of 0 dB.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rrtn.runtime import FrontendSpec, load_bundle
from rrtn.runtime.errors import ConfigError, ModelError
from rrtn.runtime.frontend import clip_log_mel, clip_of
from rrtn.train.config import config_from_dict
from rrtn.train.config_file import config_from_toml, toml_from_config
from rrtn.train.method.frontend import LogMel

SPECS = {pad: FrontendSpec(pad=pad) for pad in ("silence", "zero_db")}
N = 39_840
LENGTHS = (1, 159, 160, 161, 256, 257, 5000, 16_000, N - 160, N - 1, N, N + 1, 60_000)


def noise(length: int) -> np.ndarray:
    return np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)


@pytest.mark.parametrize("pad", SPECS)
def test_training_and_runtime_pad_alike(pad: str) -> None:
    """All lengths in one batch, as training has them."""
    spec, waveforms = SPECS[pad], [noise(length) for length in LENGTHS]
    clips = torch.from_numpy(np.array([clip_of(waveform, spec) for waveform in waveforms]))
    training = LogMel(spec)(clips, torch.tensor(LENGTHS).clamp(max=N)).numpy()
    runtime = np.array([clip_log_mel(waveform, spec) for waveform in waveforms])
    assert training.shape == (len(LENGTHS), 1, 250, 64)
    np.testing.assert_allclose(training[:, 0], runtime, atol=1e-3, rtol=0)  # dB, the contract's figure


@pytest.mark.parametrize("length", LENGTHS)
def test_zero_db_starts_behind_the_recordings_last_frame_and_is_exact(length: int) -> None:
    runtime = {pad: clip_log_mel(noise(length), spec) for pad, spec in SPECS.items()}
    own = min(250, 1 + length // 160)  # frames centred within the recording, as many as it has by itself
    np.testing.assert_array_equal(runtime["zero_db"][:own], runtime["silence"][:own])
    assert (runtime["zero_db"][:own] != 0).all()
    assert (runtime["zero_db"][own:] == 0).all()
    behind = -(-(length + 256) // 160)  # the first frame whose window has nothing of the recording
    np.testing.assert_allclose(runtime["silence"][behind:], -100, atol=1e-4)


def test_without_lengths_training_takes_all_samples_as_the_recordings() -> None:
    clips = torch.from_numpy(clip_of(noise(5000), SPECS["zero_db"]))[None]
    assert torch.equal(LogMel(SPECS["zero_db"])(clips), LogMel(SPECS["silence"])(clips))


class TestSpec:
    @pytest.mark.parametrize("pad", SPECS)
    def test_it_travels(self, pad: str, tmp_path: Path) -> None:
        spec = SPECS[pad]
        assert FrontendSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
        (tmp_path / "config.toml").write_text(
            toml_from_config(config_from_dict({"frontend": {"pad": pad}}, source="test"))
        )
        assert config_from_toml(tmp_path / "config.toml").frontend == spec

    def test_an_unknown_pad_is_refused_in_one_line(
        self, tiny_model_at: Callable[[Path], Path], tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError) as refused:
            config_from_dict({"frontend": {"pad": "loud"}}, source="my.toml")
        assert str(refused.value) == "my.toml | frontend.pad: 'loud' | expected one of silence, zero_db"
        bundle = replace(load_bundle(tiny_model_at(tmp_path / "model.onnx")), path=tmp_path)
        manifest = json.loads(json.dumps(bundle.manifest()))
        manifest["frontend"]["pad"] = "loud"
        (tmp_path / "bundle.json").write_text(json.dumps(manifest))
        with pytest.raises(ModelError, match=r"'loud' .* expected one of silence, zero_db") as refused:
            load_bundle(tmp_path)
        assert "\n" not in str(refused.value)
