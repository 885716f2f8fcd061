"""The compiled form of ReLU and pooling computes what torch's operators do, and only in training steps."""

import pytest
import torch
import torch.nn.functional as F
from rrtn.train.method import fusible
from rrtn.train.method.encoders import PannsCnn
from torch import Tensor

torch_compile = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script_method:DeprecationWarning", "ignore:.*torch._prims_common.check:FutureWarning"
)
REFERENCES = {"relu": F.relu, "halved": lambda x: F.avg_pool2d(x, 2)}


def with_gradient(function: object, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    out = function(x)  # type: ignore[operator]
    weights = torch.rand(out.shape, generator=torch.Generator().manual_seed(1))
    return out.detach(), torch.autograd.grad((out * weights).sum(), x)[0]


@torch_compile
@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 3, 7, 5), (1, 2, 2, 3)], ids=str)
def test_the_compiled_form_is_torchs_operator(name: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x.view(-1)[:3] = torch.tensor([0.0, -0.0, 1e-30])
    compiled = torch.compile(
        lambda x: getattr(fusible, name)(x, training=True), backend="eager", fullgraph=True, dynamic=False
    )
    came, expected = with_gradient(compiled, x), with_gradient(REFERENCES[name], x)
    torch.testing.assert_close(came[0], expected[0], rtol=0, atol=2.4e-7)  # the order of four summands
    assert torch.equal(came[1], expected[1])


@torch_compile
def test_nan_stays_nan() -> None:
    """Else the guard of the step would not see a network that has gone wrong."""
    compiled = torch.compile(lambda x: fusible.relu(x, training=True), backend="eager", fullgraph=True)
    assert compiled(torch.tensor([float("nan"), -1.0, 2.0])).isnan().tolist() == [True, False, False]


@torch_compile
@pytest.mark.parametrize("training", [True, False])
def test_only_compiled_training_takes_the_other_form(training: bool) -> None:
    """An export is traced too, in evaluation mode: its graphs keep pooling and ReLU."""
    network = PannsCnn(64, channels=(4, 8), pooled_blocks=2).train(training)
    called: set[str] = set()

    def noted(graph: torch.fx.GraphModule, _: object) -> object:
        called.update(getattr(node.target, "__name__", str(node.target)) for node in graph.graph.nodes)
        return graph

    torch.compile(network, backend=noted, fullgraph=True)(torch.randn(2, 1, 16, 64))
    assert ("avg_pool2d" in called) == (not training)
    assert ("where" in called) == training
    torch.compiler.reset()
