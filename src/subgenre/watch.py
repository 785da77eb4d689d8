"""What is watched while a model trains: spread of the embeddings, collapse, validation score."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from subgenre.errors import CollapseError, NotFiniteError

# Fraction of the spread at the start under which the embeddings count as one point. An untrained
# network may begin with little spread: only the fall of it is a collapse.
_FALLEN = 0.02
_TINY = 1e-7


def spread(vectors: Tensor) -> float:
    """Return 1 - |mean of the unit vectors|^2: 0 where all are one point, near 1 where they spread.

    It is the mean cosine distance over all pairs, each vector with itself included.
    """
    return 1.0 - float(vectors.detach().float().mean(0).square().sum())


@dataclass
class CollapseWatch:
    """Raises when the embeddings have become one point and stay so for `patience` steps.

    The signs (FaceNet, Schroff et al. 2015, section 3.2, and what users of triplet losses report):
    the spread falls to a sliver of what it was, every triplet stays active, the loss rests at
    the margin.
    """

    margin: float | None
    patience: int = 50
    start: float = field(default=math.nan)
    low_steps: int = 0

    def update(self, loss: float, active: float, now: float) -> None:
        """Look at one step.

        Raises:
            NotFiniteError: the loss is NaN or infinite.
            CollapseError: collapsed for `patience` steps in a row.
        """
        if not math.isfinite(loss) or not math.isfinite(now):
            raise NotFiniteError(
                f"the loss is {loss}: lower the learning rate (--lr), or set clip_norm; "
                "the last good checkpoint is kept"
            )
        if math.isnan(self.start):
            self.start = now
        resting = (
            self.margin is not None
            and active > 0.99
            and abs(loss - self.margin) < 1e-4 * max(self.margin, 1e-3)
        )
        fallen = now < max(self.start * _FALLEN, _TINY)
        self.low_steps = self.low_steps + 1 if fallen or (resting and now < _TINY) else 0
        if self.low_steps >= self.patience:
            raise CollapseError(
                f"all embeddings have become one point (spread {now:.2g}, {self.start:.2g} at the "
                f"start; loss {loss:.4g}; {active:.0%} of the triplets active): lower the "
                "learning rate (--lr), add warm-up, or choose mining 'semihard' or 'none'; "
                "no model was saved"
            )


def finite_gradients(parameters: list[torch.nn.Parameter]) -> bool:
    """Return whether every gradient is a number: one that is not spoils its tensor's sum."""
    sums = [p.grad.sum() for p in parameters if p.grad is not None]
    return not sums or bool(torch.isfinite(torch.stack(sums)).all())
