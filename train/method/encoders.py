"""The encoders: log-Mel clip [B, 1, T, M] -> embedding [B, D]. Those of the paper are here.

To add one, write a subclass of `Encoder`, whose docstring says what an encoder must do, and give
the class a name in ENCODERS and in choices.py. B batch, T frames, M mels, C channels, D embedding.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .choices import ENCODER_NAMES, EncoderName
from .fusible import halved, relu


class Encoder(nn.Module):
    """A network from log-Mel clips in dB to embeddings, with a BatchNorm per mel bin (bn0) in front.

    What training and export ask of a subclass:

    - `__init__` takes `n_mels` alone, and sets `embedding_size`, the D of the embedding.
    - `forward` takes any number of clips with any number of frames: `eval.crop = "full"` sees whole
      recordings.
    - `forward` begins with `normalised`. In float16 exports bn0 stays in float32, because it brings
      decibels into the range of float16.
    - Normalisation is BatchNorm, so that several processes can share its statistics. Each BatchNorm2d
      but bn0 stands directly behind a Conv2d, and both are called once: the float16 export folds
      one into the other.
    - There are at least two Conv2d: between the first and the last one lies what the int8 exports
      quantise.
    - In evaluation mode a clip's embedding depends on the clip alone, and `forward` uses only
      operators that ONNX has. Randomness in training comes from torch's generator, which each step
      seeds.
    """

    embedding_size: int

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(n_mels)

    def forward(self, log_mel: Tensor) -> Tensor:
        """[B, 1, T, M] -> [B, D]."""
        raise NotImplementedError

    def normalised(self, log_mel: Tensor) -> Tensor:
        """[B, 1, T, M] -> same, each mel bin with its own mean and scale."""
        out: Tensor = self.bn0(log_mel.transpose(1, 3)).transpose(1, 3)
        return out


class PannsCnn(Encoder):
    """A CNN of PANNs (Kong et al. 2020) with fc1, without the 527-way layer.

    Its state dict has PANNs' keys.
    """

    def __init__(self, n_mels: int, *, channels: tuple[int, ...], pooled_blocks: int) -> None:
        super().__init__(n_mels)
        self.embedding_size = channels[-1]
        self.n_blocks = len(channels)
        self.pooled_blocks = pooled_blocks
        for i, (c_in, c_out) in enumerate(zip((1, *channels), channels, strict=False), start=1):
            self.add_module(f"conv_block{i}", ConvBlock(c_in, c_out))
        self.fc1 = nn.Linear(channels[-1], self.embedding_size)
        _init_as_panns(self)

    def forward(self, log_mel: Tensor) -> Tensor:
        """[B, 1, T, M] -> [B, D]."""
        x = self.normalised(log_mel)
        for i in range(1, self.n_blocks + 1):
            x = self.get_submodule(f"conv_block{i}")(x)
            if i <= self.pooled_blocks:
                x = halved(x, training=self.training)
            x = F.dropout(x, 0.2, training=self.training)
        x = x.mean(3)  # over mels: [B, C, T']
        x = x.amax(2) + x.mean(2)
        x = F.dropout(x, 0.5, training=self.training)
        x = F.relu(self.fc1(x))
        return F.dropout(x, 0.5, training=self.training)


class Cnn10(PannsCnn):
    """PANNs' CNN10."""

    def __init__(self, n_mels: int) -> None:
        super().__init__(n_mels, channels=(64, 128, 256, 512), pooled_blocks=4)


class Cnn14(PannsCnn):
    """PANNs' CNN14."""

    def __init__(self, n_mels: int) -> None:
        super().__init__(n_mels, channels=(64, 128, 256, 512, 1024, 2048), pooled_blocks=5)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each with BatchNorm and ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, T, M] -> [B, c_out, T, M]."""
        x = relu(self.bn1(self.conv1(x)), training=self.training)
        return relu(self.bn2(self.conv2(x)), training=self.training)


class ResNet18(Encoder):
    """ResNet18 (He et al. 2016) with a one-channel stem, without the 1000-way layer.

    Its state dict has torchvision's keys.
    """

    embedding_size = 512

    def __init__(self, n_mels: int) -> None:
        super().__init__(n_mels)
        self.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, stride=1), BasicBlock(64, 64, stride=1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, stride=2), BasicBlock(128, 128, stride=1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, stride=2), BasicBlock(256, 256, stride=1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, stride=2), BasicBlock(512, 512, stride=1))
        for module in self.modules():
            # To draw no numbers for the meta device, torch would import its compiler: half a second.
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, log_mel: Tensor) -> Tensor:
        """[B, 1, T, M] -> [B, D]."""
        x = relu(self.bn1(self.conv1(self.normalised(log_mel))), training=self.training)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        embedding: Tensor = x.mean((2, 3))
        return embedding


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, c_in: int, c_out: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            shortcut = nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, T, M] -> [B, c_out, T / stride, M / stride]."""
        out = relu(self.bn1(self.conv1(x)), training=self.training)
        out = self.bn2(self.conv2(out))
        return relu(out + self.downsample(x), training=self.training)


ENCODERS: Final[dict[EncoderName, type[Encoder]]] = {
    "resnet18": ResNet18,
    "cnn10": Cnn10,
    "cnn14": Cnn14,
}
assert tuple(ENCODERS) == ENCODER_NAMES


def encoder_from_name(name: EncoderName, *, n_mels: int) -> Encoder:
    """A freshly initialised encoder."""
    return ENCODERS[name](n_mels)


def _init_as_panns(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                torch.nn.init.zeros_(child.bias)
