"""Loading PANNs checkpoints: made here in PANNs' form, with torchlibrosa's modules as the frontend
and random weights.
"""

import os
import pickle
import resource
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rrtn.runtime import FrontendSpec
from rrtn.runtime.errors import ConfigError, ModelError
from rrtn.runtime.frontend import mel_filterbank
from rrtn.train.method.encoders import Encoder, PannsCnn, encoder_from_name
from rrtn.train.method.frontend import LogMel
from rrtn.train.method.panns import FRONTEND_TOLERANCE, initialisation_from_panns
from torch import Tensor, nn
from torchlibrosa import LogmelFilterBank, Spectrogram

SPEC = FrontendSpec()
CNN10 = (64, 128, 256, 512)
CNN14 = (*CNN10, 1024, 2048)
NARROW_CNN14 = (8, 16, 32, 64, 128, 256)
MEL_WEIGHTS = "logmel_extractor.melW"
KERNELS = ["spectrogram_extractor.stft.conv_real.weight", "spectrogram_extractor.stft.conv_imag.weight"]
HEAD = ["fc_audioset.weight", "fc_audioset.bias"]
State = dict[str, Tensor]


class PannsBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, (3, 3), padding=(1, 1), bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, (3, 3), padding=(1, 1), bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.bn2 = nn.BatchNorm2d(c_out)


class Panns(nn.Module):
    """audioset_tagging_cnn's Cnn10 and Cnn14 once more: the modules in its order, the waveform to
    the embedding.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.spectrogram_extractor, self.logmel_extractor = torchlibrosa_frontend()
        self.bn0 = nn.BatchNorm2d(64)
        for i, (c_in, c_out) in enumerate(zip((1, *channels), channels, strict=False), start=1):
            setattr(self, f"conv_block{i}", PannsBlock(c_in, c_out))
        self.fc1 = nn.Linear(channels[-1], channels[-1])
        self.fc_audioset = nn.Linear(channels[-1], 527)
        self.blocks = len(channels)

    def forward(self, waveform: Tensor) -> Tensor:
        """[B, N] -> [B, D], in evaluation mode."""
        x = self.logmel_extractor(self.spectrogram_extractor(waveform))
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)
        for i in range(1, self.blocks + 1):
            block = self.get_submodule(f"conv_block{i}")
            x = F.relu_(block.bn2(block.conv2(F.relu_(block.bn1(block.conv1(x))))))
            if i <= min(self.blocks, 5):
                x = F.avg_pool2d(x, kernel_size=(2, 2))
        x = torch.mean(x, dim=3)
        return F.relu_(self.fc1(torch.max(x, dim=2)[0] + torch.mean(x, dim=2)))


def torchlibrosa_frontend(
    *,
    rate: int = 16_000,
    window: int = 512,
    hop: int = 160,
    mels: int = 64,
    fmin: int = 50,
    fmax: int = 8_000,
    shape: str = "hann",
) -> tuple[nn.Module, nn.Module]:
    stft = Spectrogram(n_fft=window, hop_length=hop, win_length=window, window=shape, freeze_parameters=True)
    return stft, LogmelFilterBank(
        sr=rate, n_fft=window, n_mels=mels, fmin=fmin, fmax=fmax, top_db=None, freeze_parameters=True
    )


def frontend_state(**settings: Any) -> State:
    stft, mel = torchlibrosa_frontend(**settings)
    return {
        **{f"spectrogram_extractor.{key}": value for key, value in stft.state_dict().items()},
        **{f"logmel_extractor.{key}": value for key, value in mel.state_dict().items()},
    }


def random_panns(channels: tuple[int, ...], seed: int = 0) -> Panns:
    """Weights and BatchNorm as after training: no two layers alike, activations of order 1."""
    generator = torch.Generator().manual_seed(seed)
    panns = Panns(channels).eval()
    for module in panns.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
            module.num_batches_tracked.fill_(600_000)
    panns.bn0.running_mean.fill_(-40)
    panns.bn0.running_var.fill_(400)
    return panns


@pytest.fixture(scope="module")
def panns() -> Panns:
    return random_panns(CNN10)


@pytest.fixture
def state(panns: Panns) -> State:
    return dict(panns.state_dict())


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(1)
    return encoder_from_name("cnn10", n_mels=64).eval()


def saved(path: Path, state: State, sampler: object = None, *, zipped: bool = True) -> Path:
    content = {
        "iteration": 600_000,
        "model": state,
        "sampler": {"pointer": 3} if sampler is None else sampler,
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def without(state: State, *parts: str) -> State:
    return {key: value for key, value in state.items() if not any(part in key for part in parts)}


def refusal(path: Path, encoder: Encoder) -> str:
    """The message of the ModelError: one line of four parts, the file first."""
    with pytest.raises(ModelError) as caught:
        initialisation_from_panns(path, encoder, SPEC)
    message = str(caught.value)
    assert message.startswith(f"{path} | ")
    assert ("\n" in message, message.count(" | ")) == (False, 3)
    return message.removeprefix(f"{path} | ")


class TestWhatIsLoaded:
    @pytest.mark.parametrize(
        ("channels", "seconds"),
        [(CNN10, 2), (NARROW_CNN14, 1), pytest.param(CNN14, 1, marks=pytest.mark.slow)],
        ids=["cnn10", "cnn14, narrow", "cnn14"],
    )
    def test_the_embedding_of_a_waveform_is_panns_own(
        self, channels: tuple[int, ...], seconds: int, tmp_path: Path
    ) -> None:
        theirs = random_panns(channels)
        ours = PannsCnn(64, channels=channels, pooled_blocks=min(5, len(channels))).eval()
        path = saved(tmp_path / "panns.pth", theirs.state_dict())
        found = initialisation_from_panns(path, ours, SPEC)
        path.unlink()
        ours.load_state_dict(found.weights, strict=True)
        waveform = torch.rand(2, seconds * 16_000, generator=torch.Generator().manual_seed(2)) - 0.5
        with torch.no_grad():
            expected, came = theirs(waveform), ours(LogMel(SPEC)(waveform))
        assert expected.std() > 0.1
        torch.testing.assert_close(came, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))

    def test_every_key_is_used_and_equal_and_the_rest_is_listed(
        self, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        found = initialisation_from_panns(saved(tmp_path / "panns.pth", state), encoder, SPEC)
        encoder.load_state_dict(found.weights)
        assert [
            key for key, value in encoder.state_dict().items() if not torch.equal(value, state[key])
        ] == []
        assert (
            set(found.used)
            == encoder.state_dict().keys()
            == without(state, MEL_WEIGHTS, *KERNELS, *HEAD).keys()
        )
        assert set(found.dropped) == {MEL_WEIGHTS, *KERNELS, *HEAD}
        assert found.melw_difference is not None and found.melw_difference < 1e-8

    def test_the_file_is_what_is_loaded_not_the_encoder(
        self, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        before = {key: value.clone() for key, value in encoder.state_dict().items()}
        found = initialisation_from_panns(saved(tmp_path / "panns.pth", state), encoder, SPEC)
        assert [
            key for key, value in encoder.state_dict().items() if not torch.equal(value, before[key])
        ] == []
        assert not torch.equal(found.weights["fc1.weight"], before["fc1.weight"])

    @pytest.mark.parametrize("prefix", ["base.", "module.", "module.base."])
    def test_prefixes_of_transfer_and_parallel_training(
        self, prefix: str, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        transfer = {f"{prefix}{key}": value for key, value in state.items()}
        transfer |= {"fc_transfer.weight": torch.zeros(10, 512), "out.bias": torch.zeros(10)}
        found = initialisation_from_panns(saved(tmp_path / "panns.pth", transfer), encoder, SPEC)
        assert [key for key, value in found.weights.items() if not torch.equal(value, state[key])] == []
        assert set(found.dropped) == {MEL_WEIGHTS, *KERNELS, *HEAD, "fc_transfer.weight", "out.bias"}

    def test_a_bare_state_dict_without_frontend(self, tmp_path: Path, state: State, encoder: Encoder) -> None:
        torch.save(without(state, "extractor"), tmp_path / "bare.pth")
        found = initialisation_from_panns(tmp_path / "bare.pth", encoder, SPEC)
        assert found.melw_difference is None
        assert found.dropped == tuple(HEAD)
        assert torch.equal(found.weights["conv_block4.conv2.weight"], state["conv_block4.conv2.weight"])

    def test_files_that_count_no_batches_begin_at_0(
        self, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        old = without(state, "num_batches_tracked")
        found = initialisation_from_panns(saved(tmp_path / "old.pth", old), encoder, SPEC)
        encoder.load_state_dict(found.weights, strict=True)
        assert {int(value) for key, value in encoder.state_dict().items() if "num_batches" in key} == {0}
        assert set(found.used) == without(old, "extractor", "fc_audioset").keys()

    def test_parameters_and_half_precision_become_plain_float32(
        self, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        halved = {
            key: nn.Parameter(value.half()) for key, value in without(state, "extractor", "tracked").items()
        }
        found = initialisation_from_panns(saved(tmp_path / "half.pth", halved), encoder, SPEC)
        kinds = {
            (value.dtype, value.requires_grad) for key, value in found.weights.items() if "tracked" not in key
        }
        assert kinds == {(torch.float32, False)}
        torch.testing.assert_close(found.weights["fc1.weight"], state["fc1.weight"], rtol=1e-3, atol=1e-6)


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


SAMPLERS = {
    "Sampler": {"indexes": np.arange(7), "pointer": 3},
    "BalancedSampler": {
        "indexes_per_class": [np.arange(3), np.arange(2)],
        "queue": [1, 0],
        "pointers_of_classes": [0, 1],
    },
    "scalars": {"pointer": np.int64(3), "seed": np.float32(2)},
    "RandomState": {"random_state": np.random.RandomState(3)},
}


class TestSamplers:
    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_numpy_in_the_sampler_is_no_obstacle(
        self, sampler: str, zipped: bool, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        path = saved(tmp_path / "panns.pth", state, SAMPLERS[sampler], zipped=zipped)
        with pytest.raises(pickle.UnpicklingError, match=r"numpy\."):
            torch.load(path, weights_only=True)
        found = initialisation_from_panns(path, encoder, SPEC)
        assert [key for key, value in found.weights.items() if not torch.equal(value, state[key])] == []

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_names_of_older_numpy(self, sampler: str, tmp_path: Path, state: State, encoder: Encoder) -> None:
        path = saved(tmp_path / "panns.pth", state, SAMPLERS[sampler], zipped=False)
        new = path.read_bytes()
        old = new.replace(b"cnumpy._core.", b"cnumpy.core.")
        old = old.replace(
            b"cnumpy.random._pickle\n__randomstate_ctor\n", b"cnumpy.random\n__RandomState_ctor\n"
        )
        assert old != new
        path.write_bytes(old)
        found = initialisation_from_panns(path, encoder, SPEC)
        assert torch.equal(found.weights["fc1.weight"], state["fc1.weight"])

    def test_nothing_of_numpy_is_called(self, tmp_path: Path, state: State, encoder: Encoder) -> None:
        """Calls that NumPy itself refuses go through, so a buffer read as Python objects cannot be
        made either.
        """
        impossible = [
            Calls(np.ndarray, (2,), Calls(np.dtype, "O"), bytearray(8)),
            Calls(np.dtype, "no such type"),
            Calls(np._core.multiarray._reconstruct, np.ndarray, (-1,), "f4"),
        ]
        for call in impossible:
            with pytest.raises((TypeError, ValueError)):
                pickle.loads(pickle.dumps(call))
        found = initialisation_from_panns(
            saved(tmp_path / "panns.pth", state, {"indexes": impossible}), encoder, SPEC
        )
        assert torch.equal(found.weights["fc1.weight"], state["fc1.weight"])

    def test_numpy_arrays_in_place_of_weights_are_refused(
        self, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        state["fc1.bias"] = np.zeros(512, np.float32)  # type: ignore[assignment]
        assert "expected a state dict of plain tensors" in refusal(
            saved(tmp_path / "panns.pth", state), encoder
        )


class TestFrontend:
    @pytest.mark.parametrize(
        ("settings", "came"),
        [
            ({"rate": 32_000, "window": 1024, "hop": 320, "fmax": 14_000}, "(513, 64)"),
            ({"mels": 128}, "(257, 128)"),
            ({"rate": 8_000, "window": 256, "hop": 80, "fmax": 4_000}, "(129, 64)"),
        ],
    )
    def test_another_shape_is_refused(
        self, settings: dict[str, int], came: str, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        message = refusal(saved(tmp_path / "panns.pth", state | frontend_state(**settings)), encoder)
        ours = "expected (257, 64): 16000 Hz, window 512, 64 mels, 50 to 8000 Hz"
        assert (
            message
            == f"{MEL_WEIGHTS} {came} | {ours} | use the 16 kHz checkpoint Cnn14_16k with --encoder cnn14"
        )

    @pytest.mark.parametrize(
        ("settings", "key"),
        [({"fmin": 51}, MEL_WEIGHTS), ({"fmax": 7_999}, MEL_WEIGHTS), ({"shape": "hamming"}, KERNELS[0])],
    )
    def test_other_values_are_refused(
        self, settings: dict[str, Any], key: str, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        message = refusal(saved(tmp_path / "panns.pth", state | frontend_state(**settings)), encoder)
        assert message.startswith(f"{key} is ")
        assert "Cnn14_16k" in message

    @pytest.mark.parametrize("key", [MEL_WEIGHTS, *KERNELS])
    def test_each_constant_is_compared(
        self, key: str, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        for broken in (-state[key], torch.full_like(state[key], torch.nan), state[key][..., :-1].clone()):
            assert refusal(saved(tmp_path / "panns.pth", state | {key: broken}), encoder).startswith(key)

    @pytest.mark.parametrize("share", [0.5, 0.95, 1.05])
    def test_the_tolerance_and_the_difference(
        self, share: float, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        moved = state[MEL_WEIGHTS].double()
        difference = share * FRONTEND_TOLERANCE * mel_filterbank(SPEC).max()
        moved[100, 40] += difference
        path = saved(tmp_path / "panns.pth", state | {MEL_WEIGHTS: moved})
        if share > 1:
            assert refusal(path, encoder).startswith(MEL_WEIGHTS)
        else:
            found = initialisation_from_panns(path, encoder, SPEC)
            assert found.melw_difference == pytest.approx(difference, abs=1e-8)

    def test_it_is_compared_first(self, tmp_path: Path, state: State, encoder: Encoder) -> None:
        path = saved(tmp_path / "panns.pth", without(state | frontend_state(mels=128), "fc1", "conv_block2"))
        assert refusal(path, encoder).startswith(f"{MEL_WEIGHTS} (257, 128)")

    def test_the_spec_decides(self, tmp_path: Path, state: State) -> None:
        wide = encoder_from_name("cnn10", n_mels=128)
        state |= frontend_state(mels=128) | {
            key: torch.ones(128) for key in state if "bn0" in key and "tracked" not in key
        }
        spec = FrontendSpec(n_mels=128)
        found = initialisation_from_panns(saved(tmp_path / "panns.pth", state), wide, spec)
        assert found.melw_difference is not None and found.melw_difference < 1e-8


class TestLayers:
    def test_a_missing_key_is_named(self, tmp_path: Path, state: State, encoder: Encoder) -> None:
        message = refusal(
            saved(tmp_path / "panns.pth", without(state, "conv_block3.bn2.running_var")), encoder
        )
        assert message.startswith("no conv_block3.bn2.running_var | ")

    def test_the_first_few_of_many_are_named(self, tmp_path: Path, state: State, encoder: Encoder) -> None:
        message = refusal(saved(tmp_path / "panns.pth", without(state, "conv_block3")), encoder)
        names = "no conv_block3.conv1.weight, no conv_block3.bn1.weight, no conv_block3.bn1.bias"
        assert message.startswith(f"{names} and 7 more | ")

    def test_another_shape_is_named(self, tmp_path: Path, state: State, encoder: Encoder) -> None:
        message = refusal(saved(tmp_path / "panns.pth", state | {"fc1.bias": torch.zeros(2048)}), encoder)
        assert message.startswith("fc1.bias (2048,) for (512,) | ")

    def test_a_broadcastable_shape_is_another(self, tmp_path: Path, state: State, encoder: Encoder) -> None:
        message = refusal(saved(tmp_path / "panns.pth", state | {"fc1.bias": torch.zeros(1)}), encoder)
        assert message.startswith("fc1.bias (1,) for (512,) | ")

    def test_more_layers_are_another_network(self, tmp_path: Path, state: State, encoder: Encoder) -> None:
        deeper = state | {"conv_block5.conv1.weight": torch.zeros(1024, 512, 3, 3), "a\nb": torch.zeros(1)}
        message = refusal(saved(tmp_path / "panns.pth", deeper), encoder)
        assert message.startswith(
            r"unknown 'conv_block5.conv1.weight', unknown 'a\nb' | expected the layers of this --encoder"
        )

    def test_resnet18_has_none(self, tmp_path: Path, state: State) -> None:
        with pytest.raises(
            ConfigError, match=r"^--init \| .* ResNet18 \| choose --encoder cnn10 or --encoder cnn14$"
        ):
            initialisation_from_panns(
                saved(tmp_path / "panns.pth", state), encoder_from_name("resnet18", n_mels=64), SPEC
            )

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("key", ["conv_block1.conv1.weight", "bn0.running_mean", "fc1.bias"])
    def test_nan_and_infinity(
        self, value: float, key: str, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        state[key] = state[key].clone()
        state[key].view(-1)[-1] = value
        assert refusal(saved(tmp_path / "panns.pth", state), encoder).startswith(
            f"{key} | expected finite values"
        )

    def test_a_negative_variance_would_give_nan(self, tmp_path: Path, state: State, encoder: Encoder) -> None:
        state["bn0.running_var"] = torch.full((64,), -1.0)
        assert refusal(saved(tmp_path / "panns.pth", state), encoder).startswith("bn0.running_var | ")


class TestFiles:
    def test_no_file_and_a_folder(self, tmp_path: Path, encoder: Encoder) -> None:
        for path, reason in ((tmp_path / "none.pth", "No such file"), (tmp_path, "Is a directory")):
            with pytest.raises(ConfigError, match=reason) as caught:
                initialisation_from_panns(path, encoder, SPEC)
            assert "\n" not in str(caught.value)

    def test_n29_tar_archives(self, tmp_path: Path, encoder: Encoder) -> None:
        for mode in ("w", "w:gz", "w:xz"):
            with tarfile.open(tmp_path / "panns.pth", mode) as archive:
                archive.add(__file__, "storages")
            message = refusal(tmp_path / "panns.pth", encoder)
            assert message.startswith("a tar archive | ")
            assert "unpack it" in message

    def test_n29_a_pipe_and_a_device(self, tmp_path: Path, encoder: Encoder) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", Path("/dev/zero")):
            with pytest.raises(ConfigError, match="a pipe, socket or device"):
                initialisation_from_panns(path, encoder, SPEC)

    def test_n29_a_small_archive_that_unfolds_is_refused(
        self, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        saved(tmp_path / "whole.pth", {**state, "zeros": torch.zeros(1 << 22)})
        with (
            zipfile.ZipFile(tmp_path / "whole.pth") as whole,
            zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
        ):
            for record in whole.infolist():
                bomb.writestr(record.filename, whole.read(record))
        assert "bytes that unfold to" in refusal(tmp_path / "bomb.pth", encoder)

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("kind", [bytearray, torch.Tensor])
    def test_n29_a_few_bytes_that_ask_for_all_memory(
        self, kind: Callable[[int], object], zipped: bool, tmp_path: Path, encoder: Encoder
    ) -> None:
        class Asks:
            def __reduce__(self) -> tuple[Callable[[int], object], tuple[int]]:
                return kind, (3 << 30 if kind is bytearray else 1 << 40,)  # the machine has 3 GiB

        before = resource.getrlimit(resource.RLIMIT_AS)
        torch.save({"a": Asks()}, tmp_path / "panns.pth", _use_new_zipfile_serialization=zipped)
        assert refusal(tmp_path / "panns.pth", encoder).startswith("asks for far more memory than its size")
        assert resource.getrlimit(resource.RLIMIT_AS) == before

    @pytest.mark.parametrize("share", [0.0, 1e-6, 1e-4, 0.5, 0.999])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_truncated(
        self, zipped: bool, share: float, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        path = saved(tmp_path / "panns.pth", state, SAMPLERS["Sampler"], zipped=zipped)
        os.truncate(path, int(path.stat().st_size * share))
        assert refusal(path, encoder).endswith(" | expected a file of torch.save | download it again")

    @pytest.mark.parametrize(
        "content", [b"<!DOCTYPE html>\n<html>not found</html>", b"PK\x03\x04\n" * 99, bytes(4096)]
    )
    def test_other_files(self, content: bytes, tmp_path: Path, encoder: Encoder) -> None:
        (tmp_path / "panns.pth").write_bytes(content)
        assert "expected a file of torch.save" in refusal(tmp_path / "panns.pth", encoder)

    @pytest.mark.parametrize(
        ("content", "came"),
        [
            ([torch.zeros(3)], "a list"),
            ({"epoch": 3, "state_dict": {}}, "holds 'epoch', 'state_dict'"),
            ({"model": None}, "a NoneType"),
            ({"model": {3: torch.zeros(1)}}, "holds 3"),
            ({"model": {"fc1.bias": torch.zeros(512, device="meta")}}, "holds 'fc1.bias'"),
            ({"model": {"fc1.bias": torch.zeros(512).to_sparse()}}, "holds 'fc1.bias'"),
            ({"model": {"fc1.bias": torch.zeros(512, dtype=torch.complex64)}}, "holds 'fc1.bias'"),
        ],
    )
    def test_other_contents(self, content: Any, came: str, tmp_path: Path, encoder: Encoder) -> None:
        torch.save(content, tmp_path / "panns.pth")
        assert refusal(tmp_path / "panns.pth", encoder).startswith(
            f"{came} | expected a state dict of plain tensors"
        )


class TestMalice:
    @pytest.fixture
    def marker(self, tmp_path: Path) -> Path:
        return tmp_path / "was-run"

    @pytest.fixture(params=["os.system", "eval", "through NumPy"])
    def payload(self, request: pytest.FixtureRequest, marker: Path) -> Calls:
        touch = f"touch {marker}"
        if request.param == "eval":
            return Calls(eval, f"__import__('os').system({touch!r})")
        return (
            Calls(np.dtype, Calls(os.system, touch))
            if request.param == "through NumPy"
            else Calls(os.system, touch)
        )

    @pytest.fixture
    def harmful(self, payload: Calls, marker: Path) -> Iterator[Calls]:
        """The payload, once it is seen to work and then forgotten."""
        try:
            pickle.loads(pickle.dumps(payload))
        except TypeError:
            pass  # NumPy, after the harm is done
        assert marker.exists()
        marker.unlink()
        yield payload
        assert not marker.exists()

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("place", ["model", "sampler"])
    def test_a_payload_is_refused_and_not_run(
        self, place: str, zipped: bool, harmful: Calls, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        content = {"model": state, "sampler": {}, place: harmful}
        torch.save(content, tmp_path / "panns.pth", _use_new_zipfile_serialization=zipped)
        message = refusal(tmp_path / "panns.pth", encoder)
        assert message.startswith(("asks for Python's 'posix.system'", "asks for Python's 'eval'"))
        assert (
            "nothing of it was run | expected weights alone | use a checkpoint from a source that you trust"
            in message
        )

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_plain_pickle_is_refused_and_not_run(
        self, protocol: int, harmful: Calls, tmp_path: Path, encoder: Encoder
    ) -> None:
        (tmp_path / "panns.pth").write_bytes(pickle.dumps(harmful, protocol))
        message = refusal(tmp_path / "panns.pth", encoder)
        assert [advice for advice in ("weights_only", "Detected pickle protocol") if advice in message] == []

    @pytest.mark.parametrize(
        "name", ["numpy.load", "numpy.lib.npyio.load", "numpy.core.multiarray.fromfile", "torch.load"]
    )
    def test_other_names_of_the_same_packages_are_refused(
        self, name: str, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        path = saved(tmp_path / "panns.pth", state, np.dtype("f4"), zipped=False)
        module, _, function = name.rpartition(".")
        content = path.read_bytes()
        assert content.count(b"cnumpy\ndtype\n") == 1
        path.write_bytes(content.replace(b"cnumpy\ndtype\n", f"c{module}\n{function}\n".encode()))
        assert refusal(path, encoder).startswith(f"asks for Python's {name!r}, and nothing of it was run | ")

    def test_torch_allows_nothing_more_afterwards(
        self, tmp_path: Path, state: State, encoder: Encoder
    ) -> None:
        initialisation_from_panns(saved(tmp_path / "panns.pth", state, SAMPLERS["Sampler"]), encoder, SPEC)
        (tmp_path / "broken.pth").write_bytes(b"")
        refusal(tmp_path / "broken.pth", encoder)
        names = [item[1] for item in torch.serialization.get_safe_globals() if isinstance(item, tuple)]
        assert [name for name in names if name.startswith("numpy.")] == []
