"""The losses of the paper, in the paper's letters.

B batch, K targets, D embedding, T terms. Results have the dtype of the arguments: call with float32 or
float64.
"""

import torch
from torch import Tensor

_SMALLEST_SPREAD = 1e-8  # of the CCC's denominator: constant labels give a loss of 1, not NaN
_FEWEST_RATED = 2  # clips of a target in a batch: one has no correlation
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


def ccc_loss_of_rated(x: Tensor, y: Tensor) -> Tensor:
    """`ccc_loss` where ratings y [B, K] are missing (NaN): each target's moments are over its rated clips.

    The mean is over the targets with at least two rated clips in the batch. The others have no
    correlation there: they add nothing to the loss, and their predictions get no gradient. Without any
    rating the loss is 0.
    """
    rated = ~y.isnan()
    n = rated.sum(0)
    over = n.clamp(min=1)
    x, y = x.where(rated, 0), y.where(rated, 0)
    m_x, m_y = x.sum(0) / over, y.sum(0) / over
    d_x, d_y = (x - m_x).where(rated, 0), (y - m_y).where(rated, 0)
    s_xx, s_yy, s_xy = d_x.square().sum(0) / over, d_y.square().sum(0) / over, (d_x * d_y).sum(0) / over
    spread = (s_xx + s_yy + (m_x - m_y).square()).clamp(min=_SMALLEST_SPREAD)
    counts = n >= _FEWEST_RATED
    return (1 - 2 * s_xy / spread).where(counts, 0).sum() / counts.sum().clamp(min=1)


def class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Logits [B, classes], numbers of classes [B] -> mean cross-entropy of the clips that have a class.

    A number of NaN is no class. Where no clip has one, the loss is 0.
    """
    known = ~classes.isnan()
    number = classes.where(known, 0).long()
    losses = -logits.log_softmax(1).gather(1, number[:, None])[:, 0]
    return losses.where(known, 0).sum() / known.sum().clamp(min=1)


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
    """w_t = lambda_t / c_t^2, [T].

    Eq. 6 prints 1 / (lambda c^2), which gives the BT term a weight of 1e12; the authors' code has
    lambda / c^2.
    """
    return lambdas / c.square()


def ruwl_loss(losses: Tensor, c: Tensor, lambdas: Tensor, *, restraint: float = 2) -> Tensor:
    """Losses of the terms [T] -> the loss, with restrained uncertainty weights of c [T] (Eqs. 5 and 6).

    L   = L_w + sum_t  lambda_t / c_t^2 * L_t + ln(1 + c_t^2)
    L_w = |2 - sum_t |c_t||

    The 2 is the paper's, for its two CCC terms, whose c start at 1. `restraint` takes its place where
    there are other terms: one for each term but Barlow Twins.
    """
    weighted = ruwl_weights(c, lambdas) * losses
    regulariser = torch.log1p(c.square())
    l_w = (restraint - c.abs().sum()).abs()
    return l_w + (weighted + regulariser).sum()


def _standardised(z: Tensor) -> Tensor:
    centred = z - z.mean(0)
    return centred / (centred.square().mean(0) + _BN_EPS).sqrt()
