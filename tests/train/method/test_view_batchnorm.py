"""BatchNorm over several views in one batch is torch's BatchNorm called once for each view."""

import copy

import pytest
import torch
from rrtn.train.method.view_batchnorm import BatchNormPerView, with_views_apart
from torch import Tensor, nn

SHAPES = {"maps": (4, 3, 5, 6), "channels last": (4, 3, 5, 6), "embeddings": (8, 3)}


def norm_of(shape: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(0)
    norm = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(shape[1])
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def views_of(name: str, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    views = [scale + scale * torch.randn(SHAPES[name], generator=generator) for scale in (1.0, 3.0)]
    form = torch.channels_last if name == "channels last" else torch.contiguous_format
    return [view.to(dtype).contiguous(memory_format=form) for view in views]


@pytest.mark.parametrize("name", SHAPES)
def test_output_and_gradients_are_those_of_a_pass_for_each_view(name: str) -> None:
    apart = norm_of(SHAPES[name]).double()
    together = with_views_apart(copy.deepcopy(apart), 2)
    views = views_of(name, torch.float64)
    weights = torch.linspace(-1, 1, 2 * views[0].numel(), dtype=torch.float64)
    passes = {apart: lambda v: [apart(x) for x in v], together: lambda v: [together(v.flatten(0, 1))]}
    found = []
    for norm, passed in passes.items():
        x = torch.stack(views).requires_grad_()
        out = torch.cat([part.flatten() for part in passed(x)])
        found.append([out, *torch.autograd.grad((out**2 * weights).sum(), [x, *norm.parameters()])])
    for came, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(came, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_running_statistics_are_to_the_bit_those_of_a_pass_for_each_view(name: str) -> None:
    """Torch's own, which rounds a product less or more (its compiler's choice), differ in the last bit."""
    torchs = norm_of(SHAPES[name])
    one_by_one, together = (with_views_apart(copy.deepcopy(torchs), views) for views in (1, 2))
    for scale in (1, -2, 3):
        views = [scale * view for view in views_of(name, torch.float32)]
        for view in views:
            torchs(view)
            one_by_one(view)
        together(torch.cat(views))
    expected, came, near = one_by_one.state_dict(), together.state_dict(), torchs.state_dict()
    assert list(came) == list(near)
    assert int(came["num_batches_tracked"]) == 6
    assert all(torch.equal(came[key], expected[key]) for key in expected)
    for key in near:
        torch.testing.assert_close(came[key], near[key], rtol=4e-7, atol=0)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script_method:DeprecationWarning",
    "ignore:.*should not be instantiated:DeprecationWarning",  # of an autograd function, by dynamo
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_compiled_gradients_are_the_eager_ones(dtype: torch.dtype) -> None:
    """torch.compile loses them without a word where an autograd function's output is an input of `to`."""
    norm = with_views_apart(norm_of((4, 3, 5, 6)), 2)
    x = torch.cat(views_of("channels last", dtype))
    found = []
    for function in (norm, torch.compile(norm, backend="aot_eager", fullgraph=True)):
        view = x.clone().requires_grad_()
        found.append(torch.autograd.grad((function(view).float() ** 3).sum(), [view, *norm.parameters()]))
    for came, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(came, expected)
        assert expected.abs().max() > 0.1


def test_without_training_it_is_torchs_own() -> None:
    apart = norm_of((4, 3, 5, 6)).eval()
    together = with_views_apart(copy.deepcopy(apart), 2)
    x = torch.randn(3, 3, 5, 6)  # no two views
    assert isinstance(together, BatchNormPerView)
    assert torch.equal(together(x), apart(x))


def test_bfloat16_maps_have_float32_statistics() -> None:
    x = 1000 + torch.randn(8, 3, 5, 6)
    together = with_views_apart(norm_of((4, 3, 5, 6)), 2)
    out = together(x.bfloat16())
    assert out.dtype == torch.bfloat16
    exact = x.bfloat16().double().unflatten(0, (2, 4)).mean((1, 3, 4))
    expected = 0.1 * exact[1] + 0.9 * 0.1 * exact[0]
    torch.testing.assert_close(together.running_mean.double(), expected, rtol=1e-6, atol=0)
