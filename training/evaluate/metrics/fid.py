"""Fréchet distance of feature sets (Heusel et al. 2017), the number behind FID, in float64.

d² = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) for the means and covariances of two sets of features.

FID is this distance of the 2048 features of `inception`.
"""

from __future__ import annotations

import torch
from torch import Tensor


class FeatureStatistics:
    """Mean and covariance of features that come in batches; one pass, nothing kept but sums, float64.

    Sums are taken about the first batch's mean, so that large common values do not cancel.
    """

    def __init__(self) -> None:
        self.count = 0
        self._origin = self._sum = self._products = torch.zeros(0)

    def add(self, features: Tensor) -> FeatureStatistics:
        """Take in `(N, D)` features, one D and all finite, or raise ValueError; returns itself."""
        if features.ndim != 2 or 0 in features.shape:
            raise ValueError(f"Features are (pictures, features); these are {tuple(features.shape)}.")
        values = features.detach().double().cpu()
        if not torch.isfinite(values).all():
            bad = (~torch.isfinite(values)).any(dim=1).sum().item()
            raise ValueError(f"{bad} of {len(values)} pictures have features that are NaN or infinite.")
        size = values.shape[1]
        if not self.count:
            self._origin, self._sum = values.mean(dim=0), values.new_zeros(size)
            self._products = values.new_zeros(size, size)
        if size != len(self._origin):
            raise ValueError(
                f"These are {size} features of each picture, and there were {len(self._origin)} before."
            )
        values = values - self._origin
        self._sum += values.sum(dim=0)
        self._products += values.T @ values
        self.count += len(values)
        return self

    @property
    def mean(self) -> Tensor:
        """`(D,)` float64. Raises ValueError before there are features."""
        self._need(1)
        return self._origin + self._sum / self.count

    @property
    def covariance(self) -> Tensor:
        """`(D, D)` float64, unbiased (N − 1). Raises ValueError for fewer than 2 pictures."""
        self._need(2)
        return (self._products - torch.outer(self._sum, self._sum) / self.count) / (self.count - 1)

    def _need(self, pictures: int) -> None:
        if self.count < pictures:
            raise ValueError(
                f"There are features of {self.count} pictures; at least {pictures} are needed, and FID is "
                "usually reported with 10,000 or more."
            )


def frechet_distance(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """d² between two Gaussians, >= 0.

    means: `(D,)`, covariances: `(D, D)`, symmetric and positive semi-definite, which may be singular.
    tr (Σ₁Σ₂)^½ is the sum of the roots of the eigenvalues of the symmetric Σ₁^½ Σ₂ Σ₁^½, so no root of a
    matrix that is not symmetric is needed, and rounding cannot make it complex.
    Raises ValueError when sizes do not go together.
    """
    mean, covariance, other_mean, other_covariance = (
        v.detach().double().cpu() for v in (mean, covariance, other_mean, other_covariance)
    )
    size = mean.numel()
    for name, value, expected in (
        ("other mean", other_mean, (size,)),
        ("covariance", covariance, (size, size)),
        ("other covariance", other_covariance, (size, size)),
    ):
        if tuple(value.shape) != expected:
            raise ValueError(
                f"The {name} has shape {tuple(value.shape)} and should have {expected}, as the mean has "
                f"{size} features."
            )
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T  # eigenvalues below 0 are rounding
    crossed = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp_min(0.0).sqrt().sum()
    apart = (mean - other_mean).square().sum()
    return max(0.0, (apart + covariance.trace() + other_covariance.trace() - 2.0 * crossed).item())
