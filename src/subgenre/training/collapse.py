"""Detect a collapse in training: by the loss, the spread of the embeddings, their scale."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from subgenre.config import LOSSES, TrainConfig
from subgenre.core.text import percent
from subgenre.errors import CollapseError, NotFiniteError

# Below this fraction of the spread at the start the embeddings count as one point. An untrained
# network may begin with little spread: only its fall is a collapse.
_FALLEN = 0.02
_TINY = 1e-7
# Below this fraction the embeddings have contracted. Alone that is no collapse: the spread may
# shrink while the network learns, and a run of little spread begins with a loss near the margin.
_SHRUNK = 0.1
_AT_MARGIN = 0.03  # distance of the mean loss from the margin, in units of the mean spread
_LONG = 20  # patiences to average over: the loss of a few triplets varies by chance
# If the head's output grows by this factor a layer, steps are larger than the weights themselves.
# Training that works stays under a factor of about 30.
_EXPLODED = 200.0
_SHORT = 10  # collapsed steps at the end of a run that make a collapse, whatever the patience
_ONE_POINT = 1e-3  # fraction of the spread at the start: at the end, one step below it is enough
_WAY_OUT = (
    "lower the learning rate (--lr), warm up for longer (--set optim.warmup=0.2), or clip the "
    "gradient (--set optim.clip_norm=1.0)"
)


def spread(vectors: Tensor) -> Tensor:
    """Return 1 - |mean of the unit vectors [B, D]|^2: the mean cosine distance over all pairs."""
    return 1.0 - vectors.detach().float().mean(0).square().sum()


class OutputScale:
    """The root mean square of a module's latest output in training, on its device."""

    def __init__(self, module: nn.Module) -> None:
        self.latest = torch.tensor(math.nan)
        module.register_forward_hook(self._note)

    def _note(self, module: nn.Module, _inputs: object, output: Tensor) -> None:
        if module.training:
            self.latest = output.detach().float().square().mean().sqrt()


@dataclass
class CollapseWatch:
    """Raises when the embeddings become one point, or the head's output explodes.

    A collapse is one of these, over several steps (see FaceNet, Schroff et al. 2015, section 3.2):

    - The spread is a small fraction of that at the start.
    - With a margin loss: the spread is well below that at the start, all triplets are active, and
      the mean loss over many steps is the margin, so positives are no nearer than negatives.
    - The head's output before the normalisation grows without bound. Embeddings of unit norm hide
      this failure; the loss may even fall.

    Args:
        margin: the loss of embeddings that are all one point; None: it is not one number.
        depth: linear layers of the head.
        mines: hard triplets are mined, which can cause a collapse: the error names the others.
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
        """Check one step by its loss, share of active triplets, spread, and output scale.

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
        """Check the end of a run, which may be shorter than the patience; errors as of `update`.

        `loss` and `active` are those of the last step, `now` and `scale` those after it.
        """
        self._check(loss, now)
        self._count(now, scale)
        one_point = now < max(self.start * _ONE_POINT, _TINY)
        # not after one low step: at first the spread often falls before it grows
        if self.low_steps >= _SHORT or self.wild_steps or one_point:
            self._stop(loss, active, now, scale)

    def _check(self, loss: float, now: float) -> None:
        for name, value in (("loss", loss), ("spread of the embeddings", now)):
            if not math.isfinite(value):
                raise NotFiniteError(
                    f"the {name} is {value}: {_WAY_OUT}; the last good checkpoint is kept"
                )

    def _count(self, now: float, scale: float) -> None:
        """Count the collapsed and the exploded steps in a row."""
        fallen = now < max(self.start * _FALLEN, _TINY)
        self.low_steps = self.low_steps + 1 if fallen else 0
        wild = scale > self.start_scale * _EXPLODED**self.depth  # False if either is unknown
        self.wild_steps = self.wild_steps + 1 if wild else 0

    def _rests(self, loss: float, active: float, now: float) -> bool:
        """Return whether the loss has been at the margin for many steps with a small spread."""
        rests = False
        if self.margin is not None and active > 0.99 and now < self.start * _SHRUNK:
            self.rest_steps += 1
            self.rest_gap += self.margin - loss
            self.rest_spread += now
            if self.rest_steps < _LONG * self.patience:
                return False
            rests = abs(self.rest_gap) < _AT_MARGIN * self.rest_spread
        self.rest_steps, self.rest_gap, self.rest_spread = 0, 0.0, 0.0  # each mean is judged once
        return rests

    def state(self) -> dict[str, float]:
        """Return the counters and the figures at the start, for a checkpoint."""
        fixed = ("margin", "depth", "mines", "patience", "wild_patience")
        return {name: value for name, value in vars(self).items() if name not in fixed}

    def _stop(self, loss: float, active: float, now: float, scale: float) -> None:
        more = ", or choose mining 'semihard' or 'none'" if self.mines else ""
        if self.wild_steps:
            failure = f"the head's output has exploded (size {scale:.2g}, {self.start_scale:.2g} at"
            more = ""
        elif self.low_steps:
            failure = f"all embeddings have become one point (spread {now:.2g}, {self.start:.2g} at"
        else:
            failure = (
                "the loss stays at the margin and the embeddings have contracted "
                f"(spread {now:.2g}, {self.start:.2g} at"
            )
        raise CollapseError(
            f"{failure} the start; loss {loss:.4g}; {percent(active)} of the triplets active): "
            f"{_WAY_OUT}{more}; no model was saved"
        )


def watch_for(config: TrainConfig) -> CollapseWatch:
    """Return the watch for a run with this recipe."""
    loss, depth = config.loss, len(config.model.head) + 1
    margin = loss.margin if loss.name == "triplet" else None  # else one point has no fixed loss
    return CollapseWatch(margin, depth, LOSSES[loss.name].triplets and loss.mining == "hard")


def check_finite(parameters: Iterable[Tensor]) -> None:
    """Refuse weights that are not finite: one such weight makes its tensor's sum not finite."""
    sums = [p.detach().sum(dtype=torch.float32) for p in parameters]
    if sums and not bool(torch.isfinite(torch.stack(sums)).all()):
        raise NotFiniteError(
            f"a weight is no longer finite: {_WAY_OUT}; the last good checkpoint is kept"
        )
