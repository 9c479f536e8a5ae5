"""Selections and thresholds: the sparsity rules that are layers.

A selection multiplies by a mask of 0 and 1. The mask has no gradient, so that the gradient of a
selected unit passes unchanged and the others get 0. Ties go to the lowest index in the order N, C,
H, W.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .layer import REQUIRED, Layer, Run, Spec, per_channel


def _largest(rows: Tensor, k: int) -> Tensor:
    """A mask of the k largest elements of each row; ties go to the lowest index."""
    if k >= rows.shape[1]:
        return torch.ones_like(rows)
    # `topk` does not define which of equal elements it takes.
    smallest = rows.kthvalue(rows.shape[1] - k + 1, dim=1, keepdim=True).values
    above, equal = rows > smallest, rows == smallest
    free = k - above.sum(1, keepdim=True)
    return (above | (equal & (equal.cumsum(1) <= free))).to(rows.dtype)


class Dropout(Layer):
    """Dropout in training, the identity otherwise. Kept elements are multiplied by 1/(1 − p)."""

    OPTIONS = {"p": REQUIRED}

    def forward(self, run: Run, x: Tensor) -> Tensor:
        return F.dropout(x, self.plan.options["p"], self.training)


class SoftThreshold(Layer):
    """Soft thresholding by learned thresholds, which can depend on the corruption level."""

    OPTIONS = {"value": 0.01, "slope": None, "threshold": None}

    def setup(self, **options: Any) -> None:
        name = options["threshold"] or f"{self.plan.name}.threshold"
        self.tensors["threshold"] = Spec(name, (self.size.c,))
        if options["slope"] is not None:
            slope = f"{name.removesuffix('.threshold')}.slope"
            self.tensors["slope"] = Spec(slope, (self.size.c,))

    def forward(
        self, run: Run, x: Tensor, threshold: Tensor, slope: Tensor | None = None
    ) -> Tensor:
        limit = per_channel(threshold)
        if slope is not None:
            level = x.new_zeros(len(x)) if run.level is None else run.level
            limit = limit + per_channel(slope) * level[:, None, None, None]
        # sign(0) = 0 matters only for negative thresholds.
        return torch.where(x.abs() > limit, x - x.sign() * limit, 0.0)


class Kept(Layer):
    """A selection that keeps a number of units, given for a sample or for a position of maps."""

    def setup(self, **options: Any) -> None:
        if (options["k"] > 0) == (options["per_position"] is not None):
            raise self.refuse("set either k or per_position")

    def number(self, x: Tensor) -> int:
        """Number of units kept of a sample like those of `x`."""
        k, each = int(self.plan.options["k"]), self.plan.options["per_position"]
        if each is not None:
            # Halves are rounded up, as by the program: `round` would round them to even numbers.
            k = max(math.floor(each * x.shape[2] * x.shape[3] + 0.5), 1)
        return min(k, x[0].numel())


class TopK(Kept):
    """TopK: keeps the k largest elements of each sample."""

    OPTIONS = {"k": 0, "per_position": None}

    def forward(self, run: Run, x: Tensor) -> Tensor:
        return x * _largest(x.detach().flatten(1), self.number(x)).view_as(x)


class BatchTopK(Kept):
    """BatchTopK: in training it keeps the k·n largest elements of a batch of n.

    Otherwise it keeps the elements above the threshold, a running mean that training updates.
    """

    OPTIONS = {"k": 0, "per_position": None, "rate": 0.01}

    def setup(self, **options: Any) -> None:
        super().setup(**options)
        self.tensors["threshold"] = Spec(f"{self.plan.name}.threshold", (1,), "state")

    def forward(self, run: Run, x: Tensor, threshold: Tensor) -> Tensor:
        if not self.training:
            return x * ((x >= threshold) & (x > 0)).to(x.dtype)
        k = min(self.number(x) * len(x), x.numel())
        mask = _largest(x.detach().reshape(1, -1), k).view_as(x)
        self.update(x.detach(), mask, threshold)
        return x * mask

    @torch.no_grad()
    def update(self, x: Tensor, mask: Tensor, threshold: Tensor) -> None:
        """Moves the threshold towards the smallest selected element above 0."""
        selected = x[(mask > 0) & (x > 0)]
        if selected.numel() == 0:
            return
        smallest = selected.min()
        moved = threshold + self.plan.options["rate"] * (smallest - threshold)
        # A threshold of 0 is not set yet.
        threshold.copy_(torch.where(threshold == 0, smallest, moved))


class SpatialWta(Layer):
    """Spatial winner-take-all: keeps the largest element of each map of each sample."""

    def forward(self, run: Run, x: Tensor) -> Tensor:
        maps = x.detach().flatten(2)
        winners = maps.argmax(2, keepdim=True)
        return x * torch.zeros_like(maps).scatter(2, winners, 1.0).view_as(x)


class LifetimeWta(Layer):
    """Lifetime winner-take-all in training, the identity otherwise.

    Each channel keeps its maps with the largest sums in the batch: a share `rate` of them, rounded
    up.
    """

    OPTIONS = {"rate": REQUIRED}

    def forward(self, run: Run, x: Tensor) -> Tensor:
        if not self.training:
            return x
        # The 1e-9 keeps rounding from adding one when rate·n is a whole number.
        share = math.ceil(self.plan.options["rate"] * len(x) - 1e-9)
        sums = x.detach().sum((2, 3), dtype=torch.float64 if x.device.type != "mps" else None)
        mask = _largest(sums.to(x.dtype).T, min(max(share, 1), len(x))).T
        return x * mask[:, :, None, None]


class Known(Layer):
    """The input where a pixel is known, and 0 where it is missing."""

    def setup(self, **options: Any) -> None:
        if self.size != self.plan.image:
            raise self.refuse(f"the mask has the size of the input, {self.plan.image}")

    def forward(self, run: Run, x: Tensor) -> Tensor:
        return x if run.known is None else x * run.known


def compares_maps(layer: Layer) -> bool:
    """Whether a layer selects units by comparing whole maps of a sample, also in evaluation."""
    return isinstance(layer, (TopK, SpatialWta))


def is_winner_rule(layer: Layer) -> bool:
    """Whether a layer is a winner-take-all rule, which features are read before."""
    return isinstance(layer, (SpatialWta, LifetimeWta))
