"""What is watched while a model trains: its loss, the spread of its embeddings, their scale."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from subgenre.config import MINING_LOSSES, LossConfig, TrainConfig
from subgenre.errors import CollapseError, NotFiniteError

# Fraction of the spread at the start under which the embeddings count as one point. An untrained
# network may begin with little spread: only the fall of it is a collapse.
_FALLEN = 0.02
_TINY = 1e-7
# Drawn together: below this fraction of the spread at the start. That alone is no collapse, as a
# spread may shrink while it learns; nor is a loss near the margin, where any run of little spread
# begins. Together, for long, and with positives no nearer than negatives on average, they are one.
_SHRUNK = 0.1
_AT_REST = 0.03  # of the mean spread, by which the mean loss may be off the margin
_LONG = 20  # patiences that are averaged: single steps of a few triplets are off it by chance
# A head whose output grows by this factor a layer has lost its first weights: steps are larger than
# the weights themselves. Training that works stays under a factor of about 30.
_WILD = 200.0
_SHORT = 10  # collapsed steps at the end of a run that count, whatever the patience
_GONE = 1e-3  # of the spread at the start: below it at the end one step is enough
_WAY_OUT = (
    "lower the learning rate (--lr), warm up for longer (--set optim.warmup=0.2), or clip the "
    "gradient (--set optim.clip_norm=1.0)"
)


def spread(vectors: Tensor) -> Tensor:
    """Return 1 - |mean of the unit vectors|^2: 0 where all are one point, near 1 where they spread.

    It is the mean cosine distance over all pairs of [B, D], each vector with itself included.
    """
    return 1.0 - vectors.detach().float().mean(0).square().sum()


class OutputScale:
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

    What is judged (FaceNet, Schroff et al. 2015, section 3.2, and what users of triplet losses
    report), over steps in a row:

    - The spread is down to a sliver of what it was at the start.
    - With a loss that has a margin: the spread is well below what it was, all triplets are active,
      and the loss, averaged over many steps, rests at the margin: by the measure of the spread that
      is left, positives are no nearer than negatives.
    - The head's output before the normalisation has grown without bound. Embeddings of unit norm
      hide this failure, weights that no longer learn but jump; the loss may even fall.

    Args:
        margin: see `loss_of_one_point`; None: not known.
        depth: linear layers of the head.
        mines: hard triplets are mined, which collapses by itself: the error offers the others.
        patience: steps in a row that make a collapse.
        wild_patience: steps in a row that make an explosion.
    """

    margin: float | None
    depth: int = 3
    mines: bool = False
    patience: int = 50
    wild_patience: int = 10
    start: float = math.nan
    start_scale: float = math.nan
    low_steps: int = 0
    wild_steps: int = 0
    rest_steps: int = 0
    rest_gap: float = 0.0
    rest_spread: float = 0.0

    def update(self, loss: float, active: float, now: float, scale: float = math.nan) -> None:
        """Look at one step: its loss, share of active triplets, spread, and the output's scale.

        Raises:
            NotFiniteError: the loss is NaN or infinite.
            CollapseError: collapsed for `patience` steps in a row, or exploded.
        """
        self._check(loss, now)
        if math.isnan(self.start):
            self.start, self.start_scale = now, scale
        self._count(now, scale)
        rests = self._rests(loss, active, now)
        if self.low_steps >= self.patience or self.wild_steps >= self.wild_patience or rests:
            self._stop(loss, active, now, scale)

    def check_end(self, loss: float, active: float, now: float, scale: float = math.nan) -> None:
        """Look at the end of a run, which may be too short for the patience.

        Args:
            loss, active: of the last step.
            now, scale: spread and scale that its last weights give.

        Raises:
            NotFiniteError: the weights give embeddings that are no numbers.
            CollapseError: it ends exploded, as one point, or collapsed for more than its first
                steps, in which the spread often falls before it grows.
        """
        self._check(loss, now)
        self._count(now, scale)
        one_point = now < max(self.start * _GONE, _TINY)
        if self.low_steps >= _SHORT or self.wild_steps or one_point:
            self._stop(loss, active, now, scale)

    def _check(self, loss: float, now: float) -> None:
        if not math.isfinite(loss) or not math.isfinite(now):
            wrong = f"the spread of the embeddings is {now}"
            if not math.isfinite(loss):
                wrong = f"the loss is {loss}"
            raise NotFiniteError(f"{wrong}: {_WAY_OUT}; the last good checkpoint is kept")

    def _count(self, now: float, scale: float) -> None:
        """Count the steps in a row that are collapsed, and those that are exploded."""
        fallen = now < max(self.start * _FALLEN, _TINY)
        self.low_steps = self.low_steps + 1 if fallen else 0
        wild = scale > self.start_scale * _WILD**self.depth  # False where either is unknown
        self.wild_steps = self.wild_steps + 1 if wild else 0

    def _rests(self, loss: float, active: float, now: float) -> bool:
        """Tell whether the loss has rested at the margin for long, the spread well down."""
        if self.margin is None or active <= 0.99 or now >= self.start * _SHRUNK:
            self.rest_steps, self.rest_gap, self.rest_spread = 0, 0.0, 0.0
            return False
        self.rest_steps += 1
        self.rest_gap += self.margin - loss
        self.rest_spread += now
        if self.rest_steps < _LONG * self.patience:
            return False
        rests = abs(self.rest_gap) < _AT_REST * self.rest_spread
        self.rest_steps, self.rest_gap, self.rest_spread = 0, 0.0, 0.0  # a mean is judged once
        return rests

    def state(self) -> dict[str, float]:
        """Give what a checkpoint must keep."""
        given = ("margin", "depth", "mines", "patience", "wild_patience")
        return {name: value for name, value in vars(self).items() if name not in given}

    def _stop(self, loss: float, active: float, now: float, scale: float) -> None:
        more = ", or choose mining 'semihard' or 'none'" if self.mines else ""
        if self.wild_steps:
            found = f"the head's output has exploded (size {scale:.2g}, {self.start_scale:.2g} at"
            more = ""
        elif self.low_steps:
            found = f"all embeddings have become one point (spread {now:.2g}, {self.start:.2g} at"
        else:
            found = (
                "the loss rests at the margin and the embeddings have drawn together "
                f"(spread {now:.2g}, {self.start:.2g} at"
            )
        raise CollapseError(
            f"{found} the start; loss {loss:.4g}; {active:.0%} of the triplets active): "
            f"{_WAY_OUT}{more}; no model was saved"
        )


def watch_for(config: TrainConfig) -> CollapseWatch:
    """Return a watch over a run by this recipe."""
    loss, model = config.loss, config.model
    mines = loss.name in MINING_LOSSES and loss.mining == "hard"
    return CollapseWatch(loss_of_one_point(loss), len(model.head) + 1, mines)


def loss_of_one_point(config: LossConfig) -> float | None:
    """Return the loss of embeddings that are all one point, where it is one number.

    It is not where the margin depends on the pair, nor for a loss that is not made of triplets."""
    if config.name not in ("triplet", "track_triplet") or config.genre_margin:
        return None
    return config.margin


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
