"""The losses of the paper, in the paper's letters.

B batch, K targets, D embedding. Results have the dtype of the arguments: call with float32 or float64.
"""

import torch
from torch import Tensor

_SMALLEST_SPREAD = 1e-8  # of the CCC's denominator: constant labels give a loss of 1, not NaN
_BN_EPS = 1e-5  # of BatchNorm, as in the Barlow Twins reference


def ccc_loss(x: Tensor, y: Tensor) -> Tensor:
    """Predictions x [B, K], ratings y [B, K] -> mean over targets of 1 - CCC, biased moments (Eq. 1).

    L_ccc = mean_k  1 - 2 s_xy / (s_x^2 + s_y^2 + (m_x - m_y)^2)
    """
    m_x, m_y = x.mean(0), y.mean(0)
    s_xx = (x - m_x).square().mean(0)
    s_yy = (y - m_y).square().mean(0)
    s_xy = ((x - m_x) * (y - m_y)).mean(0)
    spread = (s_xx + s_yy + (m_x - m_y).square()).clamp(min=_SMALLEST_SPREAD)
    return (1 - 2 * s_xy / spread).mean()


def cross_correlation(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Embeddings of the two views [B, D] each -> C [D, D] (Eq. 3).

    Eq. 3 is misprinted: it has no squares and no centring. As in facebookresearch/barlowtwins, each
    view is standardised over the batch (BatchNorm without affine), then C = z_a^T z_b / B.
    """
    return _standardised(z_a).T @ _standardised(z_b) / len(z_a)


def bt_loss(c: Tensor, *, off_diagonal: float) -> Tensor:
    """Cross-correlation c [D, D] -> Barlow Twins loss, a sum and not a mean over D (Eq. 2).

    L_bt = sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2
    """
    diagonal = c.diagonal()
    on = (1 - diagonal).square().sum()
    off = c.square().sum() - diagonal.square().sum()
    return on + off_diagonal * off


def ruwl_weights(c: Tensor, lambdas: Tensor) -> Tensor:
    """w_t = lambda_t / c_t^2, [3].

    Eq. 6 prints 1 / (lambda c^2), which gives the BT term a weight of 1e12; the authors' code has
    lambda / c^2.
    """
    return lambdas / c.square()


def ruwl_loss(losses: Tensor, c: Tensor, lambdas: Tensor) -> Tensor:
    """Losses of the TERMS [3] -> the loss, with restrained uncertainty weights of c [3] (Eqs. 5 and 6).

    L   = L_w + sum_t  lambda_t / c_t^2 * L_t + ln(1 + c_t^2)
    L_w = |2 - sum_t |c_t||
    """
    weighted = ruwl_weights(c, lambdas) * losses
    regulariser = torch.log1p(c.square())
    l_w = (2 - c.abs().sum()).abs()
    return l_w + (weighted + regulariser).sum()


def _standardised(z: Tensor) -> Tensor:
    centred = z - z.mean(0)
    return centred / (centred.square().mean(0) + _BN_EPS).sqrt()
