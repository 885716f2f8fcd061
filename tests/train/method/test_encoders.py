"""The encoders against torchvision, a written-out PANNs forward pass, and the paper's parameter counts.

All of them also against what the docstring of `Encoder` asks; what export asks is in tests/export.
"""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from rrtn.train.method.encoders import ENCODERS, encoder_from_name
from rrtn.train.method.model import TwinsNetwork
from torch import Tensor, nn

# Exact counts of paper.md with ten targets; bn0 adds 128 to its ResNet18, which counts none.
VANILLA = {"resnet18": 11_175_370 + 128, "cnn10": 4_954_058, "cnn14": 79_694_282}
PROJECTOR = {"resnet18": 1_050_624, "cnn10": 1_050_624, "cnn14": 4_196_352}


def random_log_mel(batch: int = 2) -> Tensor:
    return torch.randn(batch, 1, 250, 64, generator=torch.Generator().manual_seed(0)) * 20 - 50


def with_random_statistics(module: nn.Module) -> nn.Module:
    """BatchNorm as after training, so that a wrong order of layers shows."""
    generator = torch.Generator().manual_seed(1)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean.normal_(0, 0.3, generator=generator)
            child.running_var.uniform_(0.5, 2, generator=generator)
            child.weight.data.uniform_(0.5, 1.5, generator=generator)
            child.bias.data.normal_(0, 0.3, generator=generator)
    module.bn0.running_mean.fill_(-50)
    module.bn0.running_var.fill_(400)
    return module.eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_parameter_counts_are_the_papers(name: str) -> None:
    with torch.device("meta"):
        counts = TwinsNetwork(name, n_mels=64, n_targets=10).parameter_counts()
    assert counts["encoder"] + counts["head"] == VANILLA[name]
    assert counts["projector"] == PROJECTOR[name]
    assert counts["total"] == VANILLA[name] + PROJECTOR[name]


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("frames", [64, 250, 333])
def test_any_number_of_clips_and_frames_becomes_an_embedding_each(name: str, frames: int) -> None:
    with torch.device("meta"):
        encoder = encoder_from_name(name, n_mels=64)
        assert encoder(torch.empty(3, 1, frames, 64)).shape == (3, encoder.embedding_size)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_clips_embedding_does_not_depend_on_its_batch_mates(name: str) -> None:
    encoder = with_random_statistics(encoder_from_name(name, n_mels=64))
    clips = random_log_mel(batch=3)[:, :, :64]
    with torch.no_grad():
        alone = torch.cat([encoder(clip[None]) for clip in clips])
        torch.testing.assert_close(encoder(clips), alone, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(alone[0], alone[1])


@pytest.mark.parametrize("name", ENCODERS)
def test_bn0_sees_the_clips_first_and_nothing_else_sees_them(name: str) -> None:
    encoder = encoder_from_name(name, n_mels=64).eval()
    inputs: list[Tensor] = []
    for module in encoder.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _, args, __: inputs.append(args[0]))
    clips = random_log_mel()[:, :, :64]
    encoder(clips)
    assert torch.equal(inputs[0], clips.transpose(1, 3))
    assert not any(x.shape == clips.shape and torch.equal(x, clips) for x in inputs[1:])
    assert inputs[0].shape[1] == encoder.bn0.num_features == 64


@pytest.mark.parametrize("name", ENCODERS)
def test_training_is_repeated_by_torchs_seed(name: str) -> None:
    encoder = encoder_from_name(name, n_mels=64).train()
    embeddings = []
    for _ in range(2):
        torch.manual_seed(0)
        embeddings.append(encoder(random_log_mel()[:, :, :64]))
    assert torch.equal(*embeddings)


def test_vanilla_has_no_projector() -> None:
    with torch.device("meta"):
        assert (
            TwinsNetwork("cnn10", n_mels=64, n_targets=10, projector_layers=0).parameter_counts()["projector"]
            == 0
        )


def test_resnet18_is_torchvisions_behind_bn0() -> None:
    ours = with_random_statistics(encoder_from_name("resnet18", n_mels=64))
    theirs = torchvision.models.resnet18()
    theirs.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    theirs.fc = nn.Identity()
    state = {key: value for key, value in ours.state_dict().items() if not key.startswith("bn0")}
    theirs.load_state_dict(state)
    with torch.no_grad():
        x = random_log_mel()
        expected = theirs.eval()(ours.normalised(x))
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)


def panns_forward(state: dict[str, Tensor], x: Tensor, *, blocks: int, pooled: int) -> Tensor:
    """qiuqiangkong/audioset_tagging_cnn, pytorch/models.py Cnn10 and Cnn14 in evaluation mode, from
    the state dict.
    """

    def norm(y: Tensor, key: str) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(y, *(state[f"{key}.{name}"] for name in names), training=False)

    x = norm(x.transpose(1, 3), "bn0").transpose(1, 3)
    for i in range(1, blocks + 1):
        for j in (1, 2):
            x = F.conv2d(x, state[f"conv_block{i}.conv{j}.weight"], padding=1)
            x = F.relu_(norm(x, f"conv_block{i}.bn{j}"))
        x = F.avg_pool2d(x, kernel_size=(2, 2) if i <= pooled else (1, 1))
    x = torch.mean(x, dim=3)
    x1, _ = torch.max(x, dim=2)
    x2 = torch.mean(x, dim=2)
    return F.relu_(F.linear(x1 + x2, state["fc1.weight"], state["fc1.bias"]))


@pytest.mark.parametrize(("name", "blocks", "pooled"), [("cnn10", 4, 4), ("cnn14", 6, 5)])
def test_cnns_are_panns(name: str, blocks: int, pooled: int) -> None:
    ours = with_random_statistics(encoder_from_name(name, n_mels=64))
    with torch.no_grad():
        expected = panns_forward(ours.state_dict(), random_log_mel(), blocks=blocks, pooled=pooled)
        came = ours(random_log_mel())
    assert came.std() > 0.01
    torch.testing.assert_close(came, expected, rtol=1e-4, atol=1e-4)


def test_dropout_of_the_cnns_is_active_in_training_only() -> None:
    torch.manual_seed(0)
    encoder = encoder_from_name("cnn10", n_mels=64)
    x = random_log_mel(batch=4)
    with torch.no_grad():
        assert not torch.equal(encoder.train()(x), encoder(x))
        assert torch.equal(encoder.eval()(x), encoder(x))


def test_bn0_normalises_each_mel_bin_apart() -> None:
    encoder = encoder_from_name("resnet18", n_mels=64).train()
    normalised = encoder.normalised(random_log_mel(8) + torch.arange(64))
    torch.testing.assert_close(normalised.mean((0, 1, 2)), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.var((0, 1, 2), correction=0), torch.ones(64), atol=1e-3, rtol=0)
