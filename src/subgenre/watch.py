"""What is watched while a model trains: its loss, the spread of its embeddings, their scale."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from subgenre.errors import CollapseError, NotFiniteError

# Fraction of the spread at the start under which the embeddings count as one point. An untrained
# network may begin with little spread: only the fall of it is a collapse.
_FALLEN = 0.02
_TINY = 1e-7
# A head whose output grows by this factor a layer has lost its first weights: steps are larger than
# the weights themselves. Training that works stays under a factor of about 30.
_WILD = 200.0
_SHORT = 10  # collapsed steps at the end of a run that count, whatever the patience
_WAY_OUT = (
    "lower the learning rate (--lr), add warm-up (--set optim.warmup=0.1), or clip the gradient "
    "(--set optim.clip_norm=1.0)"
)


def spread(vectors: Tensor) -> Tensor:
    """Return 1 - |mean of the unit vectors|^2: 0 where all are one point, near 1 where they spread.

    It is the mean cosine distance over all pairs of [B, D], each vector with itself included.
    """
    return 1.0 - vectors.detach().float().mean(0).square().sum()


class Scale:
    """The root mean square of a module's latest output in training, kept on its device."""

    def __init__(self, module: nn.Module) -> None:
        self.latest = torch.tensor(math.nan)
        module.register_forward_hook(self._note)

    def _note(self, module: nn.Module, _inputs: object, output: Tensor) -> None:
        if module.training:
            self.latest = output.detach().float().square().mean().sqrt()


@dataclass
class CollapseWatch:
    """Raises when the embeddings have become one point, or the head's output has exploded.

    The signs (FaceNet, Schroff et al. 2015, section 3.2, and what users of triplet losses report):
    the spread falls to a sliver of what it was, the loss rests at the margin. Embeddings of unit
    norm hide the other failure: weights that no longer learn but jump, under which the output
    before the normalisation grows without bound and the loss may even fall.

    Args:
        margin: at which the loss rests when all embeddings are one point; None where it has none.
        depth: linear layers of the head.
        patience: steps in a row that make a collapse.
        wild_patience: steps in a row that make an explosion.
    """

    margin: float | None
    depth: int = 3
    patience: int = 50
    wild_patience: int = 10
    start: float = math.nan
    start_scale: float = math.nan
    low_steps: int = 0
    wild_steps: int = 0

    def update(self, loss: float, active: float, now: float, scale: float = math.nan) -> None:
        """Look at one step: its loss, share of active triplets, spread, and the output's scale.

        Raises:
            NotFiniteError: the loss is NaN or infinite.
            CollapseError: collapsed for `patience` steps in a row, or exploded.
        """
        if not math.isfinite(loss) or not math.isfinite(now):
            raise NotFiniteError(
                f"the loss is {loss}: {_WAY_OUT}; the last good checkpoint is kept"
            )
        if math.isnan(self.start):
            self.start, self.start_scale = now, scale
        resting = (
            self.margin is not None
            and active > 0.99
            and abs(loss - self.margin) < 1e-4 * max(self.margin, 1e-3)
        )
        fallen = now < max(self.start * _FALLEN, _TINY)
        self.low_steps = self.low_steps + 1 if fallen or (resting and now < _TINY) else 0
        wild = scale > self.start_scale * _WILD**self.depth  # False where either is unknown
        self.wild_steps = self.wild_steps + 1 if wild else 0
        if self.low_steps >= self.patience or self.wild_steps >= self.wild_patience:
            self._stop(loss, active, now, scale)

    def close(self, loss: float, active: float, now: float, scale: float = math.nan) -> None:
        """Look at the end of a run, which may be too short for the patience.

        Raises:
            CollapseError: it ends exploded, or collapsed for more than its first steps, in which
                the spread often falls before it grows.
        """
        if self.low_steps >= _SHORT or self.wild_steps:
            self._stop(loss, active, now, scale)

    def memory(self) -> dict[str, float]:
        """Give what a checkpoint must keep."""
        names = ("start", "start_scale", "low_steps", "wild_steps")
        return {name: getattr(self, name) for name in names}

    def _stop(self, loss: float, active: float, now: float, scale: float) -> None:
        if not self.wild_steps:
            found = f"all embeddings have become one point (spread {now:.2g}, {self.start:.2g} at"
            more = ", or choose mining 'semihard' or 'none'"
        else:
            found = f"the head's output has exploded (size {scale:.2g}, {self.start_scale:.2g} at"
            more = ""
        raise CollapseError(
            f"{found} the start; loss {loss:.4g}; {active:.0%} of the triplets active): "
            f"{_WAY_OUT}{more}; no model was saved"
        )


def check_finite(parameters: Iterable[Tensor]) -> None:
    """Refuse weights that are no numbers: one that is not spoils its tensor's sum.

    Raises:
        NotFiniteError: naming what to change.
    """
    sums = [p.detach().sum(dtype=torch.float32) for p in parameters]
    if sums and not bool(torch.isfinite(torch.stack(sums)).all()):
        raise NotFiniteError(
            f"a weight is no longer a number: {_WAY_OUT}; the last good checkpoint is kept"
        )
