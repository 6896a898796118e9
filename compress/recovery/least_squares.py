"""Ridge least squares for the change of a layer's weights, from sums over rows or from the rows themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compress.recovery.moments import Sums


@dataclass(frozen=True, slots=True)
class WeightChange:
    """A change of weights, and what it does to the residual.

    Attributes:
        change: (cardinality, columns, outputs).
        intercept: the constant that goes with it, (cardinality, outputs); zero where none is allowed.
        mean: of the residual before, (cardinality, outputs).
        variance: of the residual before, the same shape.
        left: what is left of it, summed over everything.
    """

    change: Tensor
    intercept: Tensor
    mean: Tensor
    variance: Tensor
    left: Tensor


def from_sums(sums: Sums, ridge: float, centred: bool) -> WeightChange:
    """``(A + rI) dW = B`` from sums over any number of rows.

    Args:
        sums: of the inputs, with the residuals beside them.
        ridge: pull of the change towards zero, in units of the inputs' mean variance.
        centred: whether a constant is free: moments about the mean, and an intercept.
    """
    k = sums.columns
    joint, mean, variance = sums.covariance(), sums.mean(), sums.variance()[:, k:]
    if not centred:
        joint = joint + mean[:, :k, None] * mean[:, None, :]
    A, B = joint[:, :, :k], joint[:, :, k:]
    change = _solve(A, B, ridge)
    power = variance if centred else variance + mean[:, k:].square()
    left = power.sum() - 2 * (change * B).sum() + (change * (A @ change)).sum()
    intercept = mean[:, k:] - torch.einsum("gk,gko->go", mean[:, :k], change) if centred else torch.zeros_like(variance)
    return WeightChange(change=change, intercept=intercept, mean=mean[:, k:], variance=variance, left=left.clamp(min=0))


def from_rows(u: Tensor, residual: Tensor, ridge: float, centred: bool) -> WeightChange:
    """The same answer from few rows of many columns: ``dW = U^T (U U^T + n r I)^-1 R``.

    Args:
        u: rows, (cardinality, rows, columns).
        residual: (cardinality, rows, outputs).
        ridge: as in :func:`from_sums`.
        centred: as in :func:`from_sums`.
    """
    u, residual = u.double(), residual.double()
    mean_u, mean_r = u.mean(1, keepdim=True), residual.mean(1, keepdim=True)
    variance = (residual - mean_r).square().mean(1)
    if centred:
        u, residual = u - mean_u, residual - mean_r
    n, k = u.shape[1:]
    # The mean diagonal of U U^T is k / n times that of U^T U.
    change = u.transpose(1, 2) @ _solve(u @ u.transpose(1, 2), residual, ridge * n / k)
    left = (residual - u @ change).square().mean(1).sum()
    intercept = (mean_r - mean_u @ change)[:, 0] if centred else torch.zeros_like(variance)
    return WeightChange(change=change, intercept=intercept, mean=mean_r[:, 0], variance=variance, left=left)


def _solve(A: Tensor, B: Tensor, ridge: float) -> Tensor:
    A, B = A.double(), B.double()
    diagonal = A.diagonal(dim1=1, dim2=2)
    pull = (ridge * diagonal.mean(1, keepdim=True)).clamp(min=torch.finfo(torch.float64).tiny)
    A = A + torch.diag_embed(pull.expand_as(diagonal))
    factor, failed = torch.linalg.cholesky_ex(A)
    if bool(failed.any()) and bool(torch.isfinite(A).all()):  # no ridge, and inputs that depend on each other
        inverse: Tensor = torch.linalg.pinv(A, hermitian=True)
        return inverse @ B
    return torch.cholesky_solve(B, factor)
