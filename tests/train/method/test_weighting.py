"""Each weighting against its equation written out, in value and gradient, and what it keeps of itself.

L_fixed = sum_t lambda_t / c_t^2 L_t
L_ruwl  = |2 - sum_t |c_t|| + sum_t lambda_t / c_t^2 L_t + ln(1 + c_t^2)       Eqs. 5 and 6
"""

from typing import get_args

import pytest
import torch
from rrtn.train.config import Config, Method, ModelConfig, RuwlConfig, weighting_from_config
from rrtn.train.method.weighting import FixedWeights, RuwlWeights, Weighting
from torch import Tensor

LAMBDAS, C = (0.5, 2.0, 3e-8), (0.9, -1.2, 0.02)
TERMS = torch.tensor([0.7, 0.8, 1500.0])


def weighting_of(method: Method, **ruwl: object) -> Weighting:
    return weighting_from_config(Config(model=ModelConfig(method=method), ruwl=RuwlConfig(**ruwl)))


def weighted_sum(losses: Tensor) -> Tensor:
    return (torch.tensor(LAMBDAS) / torch.tensor(C) ** 2 * losses).sum()


def gradient(weighting: Weighting, losses: Tensor) -> Tensor:
    losses = losses.clone().requires_grad_()
    return torch.autograd.grad(weighting(losses), losses)[0]


def test_fixed_weights_are_the_weighted_sum_and_nothing_of_them_is_trained() -> None:
    weighting = FixedWeights(lambdas=LAMBDAS, c=C)
    torch.testing.assert_close(weighting(TERMS), weighted_sum(TERMS))
    torch.testing.assert_close(gradient(weighting, TERMS), torch.tensor(LAMBDAS) / torch.tensor(C) ** 2)
    assert list(weighting.parameters()) == []


@pytest.mark.parametrize("learned", [True, False])
def test_ruwl_weights_add_the_restraint_and_the_regulariser(learned: bool) -> None:
    weighting = RuwlWeights(lambdas=LAMBDAS, c=C, learned=learned, lr=0.1)
    c = torch.tensor(C)
    added = (2 - c.abs().sum()).abs() + (1 + c**2).log().sum()
    torch.testing.assert_close(weighting(TERMS), weighted_sum(TERMS) + added)
    torch.testing.assert_close(gradient(weighting, TERMS), torch.tensor(LAMBDAS) / c**2)


def test_learned_c_follows_its_gradient_and_fixed_c_has_none() -> None:
    """d L / d c = -sign(2 - sum |c|) sign(c) - 2 lambda L / c^3 + 2 c / (1 + c^2), at sum |c| = 2.12."""
    learned, fixed = (RuwlWeights(lambdas=LAMBDAS, c=C, learned=which, lr=0.1) for which in (True, False))
    losses = TERMS.clone().requires_grad_()
    for weighting in (learned, fixed):
        weighting(losses).backward()
    c = torch.tensor(C)
    expected = c.sign() - 2 * torch.tensor(LAMBDAS) * TERMS / c**3 + 2 * c / (1 + c**2)
    torch.testing.assert_close(learned.c.grad, expected)
    assert fixed.c.grad is None


def test_vanilla_is_the_ccc_of_the_clean_view_to_the_bit() -> None:
    weighting = weighting_of("vanilla")
    losses = torch.tensor([1 / 3, 0, 0])
    assert torch.equal(weighting(losses), losses[0])
    assert gradient(weighting, losses)[0] == 1


def test_rrtn_stays_where_ruwl_starts() -> None:
    fixed, learned = weighting_of("rrtn"), weighting_of("rrtn-ruwl")
    assert torch.equal(fixed.weights(), learned.weights())
    torch.testing.assert_close(fixed.weights(), torch.tensor([1, 1, 1e-4]))


def test_weights_are_those_of_c_as_it_is_now() -> None:
    weighting = weighting_of("rrtn-ruwl")
    with torch.no_grad():
        weighting.c.copy_(torch.tensor([2, -0.5, 0.1]))
    torch.testing.assert_close(weighting.weights(), torch.tensor([0.25, 4, 1e-6]))


def test_settings_reach_the_weighting() -> None:
    weighting = weighting_of("rrtn-ruwl", lambdas=LAMBDAS, c=C, lr=0.5)
    torch.testing.assert_close(weighting.weights(), torch.tensor(LAMBDAS) / torch.tensor(C) ** 2)
    assert weighting.lr == 0.5
    assert weighting.c.requires_grad
    assert not weighting_of("rrtn-ruwl", mode="fixed").c.requires_grad


@pytest.mark.parametrize("method", get_args(Method))
def test_every_weighting_keeps_c_alone_so_that_older_rrtn_reads_the_checkpoint(method: Method) -> None:
    state = weighting_of(method).state_dict()
    assert list(state) == ["c"]
    other = weighting_of(method)
    other.load_state_dict({"c": torch.tensor([2.0, 3.0, 4.0])})
    assert other.state_dict()["c"].tolist() == [2, 3, 4]
