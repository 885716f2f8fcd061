"""A 3-layer CNN in the place of the encoders, for small_rrtn.py."""

import itertools

import rrtn.cli
import rrtn.train.loop
import rrtn.train.method.model
import rrtn.train.plan
import torch
import torch._dynamo  # an optimiser imports it, for a second
import torch.nn.functional as F
from rrtn.train.method.encoders import Encoder
from torch import Tensor, nn


class SmallCnn(Encoder):
    """Three convolutions, with what makes a resume hard: BatchNorm's running statistics and
    dropout's generator.
    """

    embedding_size = 16

    def __init__(self, n_mels: int) -> None:
        super().__init__(n_mels)
        channels, strides = (1, 8, 16, 16), (4, 2, 2)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1)
            for (c_in, c_out), stride in zip(itertools.pairwise(channels), strides, strict=True)
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        x = self.normalised(log_mel)
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        return F.dropout(x.mean((2, 3)), 0.2, training=self.training)


def make_small() -> None:
    """Every encoder is the small one from here on, and nobody asks how much arithmetic that is, or
    what the machine can do.
    """
    torch.set_num_threads(1)  # threads do not survive a fork
    for module in (rrtn.train.method.model, rrtn.train.plan):
        module.encoder_from_name = lambda name, *, n_mels: SmallCnn(n_mels)
    rrtn.train.loop.matmul_peak = lambda *arguments, **options: 1e12
    rrtn.train.loop.step_flops = lambda *arguments, **options: 1
