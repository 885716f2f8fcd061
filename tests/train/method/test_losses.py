"""The losses against written-out float64 references, others' implementations, and their own gradients."""

import math

import numpy as np
import pytest
import torch
from lightly.loss import BarlowTwinsLoss
from rrtn.train.method.losses import (
    bt_loss,
    ccc_loss,
    ccc_loss_of_rated,
    class_loss,
    cross_correlation,
    ruwl_loss,
    ruwl_weights,
)
from torch import Tensor
from torchmetrics.functional import concordance_corrcoef


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def written_out_ccc_loss(x: Tensor, y: Tensor) -> float:
    """Eq. 1 with loops and Python floats."""
    losses = []
    for k in range(x.shape[1]):
        a, b = x[:, k].tolist(), y[:, k].tolist()
        n = len(a)
        m_a, m_b = math.fsum(a) / n, math.fsum(b) / n
        s_aa = math.fsum((v - m_a) ** 2 for v in a) / n
        s_bb = math.fsum((v - m_b) ** 2 for v in b) / n
        s_ab = math.fsum((v - m_a) * (w - m_b) for v, w in zip(a, b, strict=True)) / n
        losses.append(1 - 2 * s_ab / (s_aa + s_bb + (m_a - m_b) ** 2))
    return math.fsum(losses) / len(losses)


def written_out_bt_loss(z_a: Tensor, z_b: Tensor, weight: float) -> float:
    """Eqs. 2 and 3 with loops, BatchNorm's epsilon included."""
    n, d = z_a.shape

    def standardised(z: Tensor) -> list[list[float]]:
        columns = []
        for i in range(d):
            column = z[:, i].tolist()
            mean = math.fsum(column) / n
            variance = math.fsum((v - mean) ** 2 for v in column) / n
            columns.append([(v - mean) / math.sqrt(variance + 1e-5) for v in column])
        return columns

    a, b = standardised(z_a), standardised(z_b)
    loss = 0.0
    for i in range(d):
        for j in range(d):
            c_ij = math.fsum(v * w for v, w in zip(a[i], b[j], strict=True)) / n
            loss += (1 - c_ij) ** 2 if i == j else weight * c_ij**2
    return loss


def test_ccc_loss_is_equation_1() -> None:
    x, y = random(9, 4, seed=1), random(9, 4, seed=2)
    assert ccc_loss(x, y).item() == pytest.approx(written_out_ccc_loss(x, y), rel=1e-12)


def test_ccc_loss_agrees_with_torchmetrics() -> None:
    """torchmetrics' is unbiased in all moments, which leaves only the means' term different:
    compare at equal means.
    """
    x, y = random(50, 3, seed=3), random(50, 3, seed=4)
    x, y = x - x.mean(0), y - y.mean(0)
    assert ccc_loss(x, y).item() == pytest.approx(1 - concordance_corrcoef(x, y).mean().item(), rel=1e-6)


def test_ccc_loss_is_zero_for_equal_and_two_for_opposite_ratings() -> None:
    y = random(20, 2)
    y = y - y.mean(0)
    assert ccc_loss(y, y).item() == pytest.approx(0, abs=1e-12)
    assert ccc_loss(-y, y).item() == pytest.approx(2, abs=1e-12)


def test_ccc_loss_gradient() -> None:
    y = random(6, 3, seed=5)
    assert torch.autograd.gradcheck(lambda x: ccc_loss(x, y), random(6, 3, seed=6).requires_grad_())


def test_bt_loss_is_equations_2_and_3() -> None:
    z_a, z_b = random(7, 5, seed=7), random(7, 5, seed=8)
    loss = bt_loss(cross_correlation(z_a, z_b), off_diagonal=0.001)
    assert loss.item() == pytest.approx(written_out_bt_loss(z_a, z_b, 0.001), rel=1e-12)


def test_bt_loss_agrees_with_lightly() -> None:
    z_a, z_b = random(16, 32, seed=9), random(16, 32, seed=10)
    theirs = BarlowTwinsLoss(lambda_param=0.001)(z_a, z_b)
    assert bt_loss(cross_correlation(z_a, z_b), off_diagonal=0.001).item() == pytest.approx(
        theirs.item(), rel=1e-12
    )


def test_cross_correlation_is_batch_norm_without_affine() -> None:
    z_a, z_b = random(12, 6, seed=11), random(12, 6, seed=12) * 5 + 3
    norm = torch.nn.BatchNorm1d(6, affine=False).double()
    reference = norm(z_a).T @ norm(z_b) / 12
    torch.testing.assert_close(cross_correlation(z_a, z_b), reference, rtol=1e-12, atol=1e-12)


def test_bt_loss_of_equal_uncorrelated_views_is_near_zero_and_ignores_scale_and_shift() -> None:
    z = torch.linalg.qr(random(64, 8) - random(64, 8).mean(0)).Q * 8
    z = z - z.mean(0)
    loss = bt_loss(cross_correlation(z, z * 3 + 1), off_diagonal=0.001)
    assert loss.item() < 1e-2


def test_bt_loss_gradient() -> None:
    z_b = random(6, 4, seed=13)
    z_a = random(6, 4, seed=14).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: bt_loss(cross_correlation(z, z_b), off_diagonal=0.001), z_a)


def test_losses_leave_their_inputs_untouched() -> None:
    """c may be logged afterwards."""
    c = random(4, 4)
    before = c.clone()
    bt_loss(c, off_diagonal=0.001)
    assert torch.equal(c, before)


def test_ruwl_loss_is_equations_5_and_6() -> None:
    losses, lambdas = [0.7, 0.9, 2000.0], [1.0, 1.0, 1e-8]
    c = [0.9, -1.1, 0.02]
    expected = abs(2 - sum(map(abs, c)))
    for loss, lam, c_t in zip(losses, lambdas, c, strict=True):
        expected += lam / c_t**2 * loss + math.log(1 + c_t**2)
    came = ruwl_loss(*(torch.tensor(values, dtype=torch.float64) for values in (losses, c, lambdas)))
    assert came.item() == pytest.approx(expected, rel=1e-12)


def test_ruwl_starts_with_the_fixed_weights_of_the_paper() -> None:
    weights = ruwl_weights(torch.tensor([1, 1, 0.01]).double(), torch.tensor([1, 1, 1e-8]).double())
    np.testing.assert_allclose(weights, [1, 1, 1e-4], rtol=1e-6)


def test_ruwl_loss_gradient_with_respect_to_losses_and_c() -> None:
    lambdas = torch.tensor([1.0, 1.0, 1e-8], dtype=torch.float64)
    losses = torch.tensor([0.7, 0.9, 20.0], dtype=torch.float64, requires_grad=True)
    c = torch.tensor([0.9, 1.2, 0.05], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: ruwl_loss(a, b, lambdas), (losses, c))


BLANK = math.nan


class TestCccOfRated:
    """CCC where ratings are missing: 7 clips; targets with 7, 4, 1 and no rating."""

    @staticmethod
    def batch() -> tuple[Tensor, Tensor]:
        x, y = random(7, 4), random(7, 4, seed=1)
        y[[0, 2, 5], 1] = BLANK
        y[1:, 2] = BLANK
        y[:, 3] = BLANK
        return x.requires_grad_(), y

    def test_it_is_the_loss_of_each_targets_rated_clips(self) -> None:
        x, y = self.batch()
        rows = [1, 3, 4, 6]
        parts = [written_out_ccc_loss(x[:, :1], y[:, :1]), written_out_ccc_loss(x[rows, 1:2], y[rows, 1:2])]
        assert ccc_loss_of_rated(x, y).item() == pytest.approx(sum(parts) / 2, abs=1e-12)

    def test_so_is_its_gradient_and_fewer_than_two_ratings_give_none(self) -> None:
        x, y = self.batch()
        (gradient,) = torch.autograd.grad(ccc_loss_of_rated(x, y), x)
        rows = [1, 3, 4, 6]
        expected = torch.zeros_like(x)
        for k, chosen in ((0, list(range(7))), (1, rows)):
            part = x[chosen, k : k + 1].detach().requires_grad_()
            expected[chosen, k] = torch.autograd.grad(ccc_loss(part, y[chosen, k : k + 1]) / 2, part)[0][:, 0]
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
        assert (gradient[:, 2:] == 0).all()
        assert (gradient[[0, 2, 5], 1] == 0).all()

    def test_without_blanks_it_is_the_loss(self) -> None:
        x, y = random(9, 3), random(9, 3, seed=1)
        torch.testing.assert_close(ccc_loss_of_rated(x, y), ccc_loss(x, y), rtol=0, atol=1e-12)

    def test_without_any_rating_it_is_0_and_has_no_gradient(self) -> None:
        x = random(5, 2).requires_grad_()
        loss = ccc_loss_of_rated(x, torch.full((5, 2), BLANK, dtype=torch.float64))
        assert loss.item() == 0
        assert (torch.autograd.grad(loss, x)[0] == 0).all()

    @pytest.mark.parametrize("others", [0, 1, 2])
    def test_two_ratings_count_and_the_mean_is_over_the_targets_that_do(self, others: int) -> None:
        """One target has two ratings, `others` have seven, and two have fewer than two."""
        x, y = random(7, 3 + others), random(7, 3 + others, seed=1)
        y[2:, 0] = BLANK
        y[1:, 1] = BLANK
        y[:, 2] = BLANK
        parts = [written_out_ccc_loss(x[:2, :1], y[:2, :1])]
        parts += [written_out_ccc_loss(x[:, k : k + 1], y[:, k : k + 1]) for k in range(3, 3 + others)]
        expected = math.fsum(parts) / (1 + others)
        assert ccc_loss_of_rated(x, y).item() == pytest.approx(expected, abs=1e-12)

    def test_constant_ratings_give_no_nan(self) -> None:
        x = torch.full((4, 1), 0.5, dtype=torch.float64, requires_grad=True)
        y = torch.tensor([[0.5], [0.5], [BLANK], [0.5]], dtype=torch.float64)
        loss = ccc_loss_of_rated(x, y)
        assert torch.isfinite(torch.autograd.grad(loss, x)[0]).all()


class TestClassLoss:
    @pytest.mark.parametrize("known", [[0, 1, 3, 5], [3], [2, 4]])
    def test_it_is_torchs_cross_entropy_of_the_clips_with_a_class(self, known: list[int]) -> None:
        logits, classes = random(6, 4), torch.full((6,), BLANK, dtype=torch.float64)
        classes[known] = torch.tensor([2.0, 0, 1, 3], dtype=torch.float64)[: len(known)]
        expected = torch.nn.functional.cross_entropy(logits[known], classes[known].long())
        torch.testing.assert_close(class_loss(logits, classes), expected, rtol=0, atol=1e-12)

    def test_a_clip_without_a_class_has_no_gradient(self) -> None:
        logits = random(3, 2).requires_grad_()
        loss = class_loss(logits, torch.tensor([1, BLANK, 0], dtype=torch.float64))
        assert (torch.autograd.grad(loss, logits)[0][1] == 0).all()

    def test_without_any_class_it_is_0(self) -> None:
        assert class_loss(random(3, 2), torch.full((3,), BLANK)).item() == 0


def test_the_restraint_may_hold_another_sum() -> None:
    """Eq. 5 with four terms: 3 in the place of 2."""
    terms, c = random(4).abs(), torch.tensor([1, 1, 0.01, 1.2], dtype=torch.float64)
    lambdas = torch.tensor([1, 1, 1e-8, 1], dtype=torch.float64)
    ruwl = (lambdas / c**2 * terms + torch.log(1 + c**2)).sum() + abs(3 - 3.21)
    torch.testing.assert_close(ruwl_loss(terms, c, lambdas, restraint=3), ruwl, rtol=0, atol=1e-12)
