"""rrtn with a 3-layer CNN in place of the encoders, so that a run takes a second and can be killed a
hundred times.

    python small_rrtn.py train ...    what `python -m rrtn train ...` does
    python small_rrtn.py --serve      the same in a forked child for each order on stdin

An order is one line of JSON: {"start": {"argv", "cwd", "env", "before", "out", "err"}} is answered
by the child's process id, {"wait": id} by its exit code. `before` is Python that the child runs
first, to set up its fault.
"""

import contextlib
import ctypes
import gc
import itertools
import json
import os
import runpy
import signal
import sys
from typing import Any

import rrtn.cli
import rrtn.train.loop
import rrtn.train.method.model
import torch
import torch._dynamo  # an optimiser imports it, for a second
import torch.nn.functional as F
from rrtn.train.method.encoders import Encoder
from torch import Tensor, nn

_PR_SET_PDEATHSIG = 1


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
    rrtn.train.method.model.encoder_from_name = lambda name, *, n_mels: SmallCnn(n_mels)
    rrtn.train.loop.matmul_peak = lambda *arguments, **options: 1e12
    rrtn.train.loop.step_flops = lambda *arguments, **options: 1


def run(argv: list[str]) -> None:
    """As `python -m rrtn`. RRTN_FAILPOINT_RANK1 is for one of several processes with the same environment."""
    if os.environ.get("RANK") == "1" and (chosen := os.environ.get("RRTN_FAILPOINT_RANK1")):
        os.environ["RRTN_FAILPOINT"] = chosen
    sys.argv = ["rrtn", *argv]
    runpy.run_module("rrtn", run_name="__main__", alter_sys=True)


def serve() -> None:
    gc.freeze()  # a child that collects garbage would copy every page
    for line in sys.stdin:
        order = json.loads(line)
        if "start" in order:
            answer = _start(**order["start"])
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        print(json.dumps(answer), flush=True)


def _start(argv: list[str], cwd: str, env: dict[str, str], before: str, out: str, err: str) -> int:
    if child := os.fork():
        return child
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # no child outlives the tests
    status: Any = 1
    try:
        os.chdir(cwd)
        os.environ.update(env)
        for stream, path in ((0, os.devnull), (1, out), (2, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), stream)
        exec(before, {})
        run(argv)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads do not survive a fork
    make_small()
    serve() if sys.argv[1:] == ["--serve"] else run(sys.argv[1:])
