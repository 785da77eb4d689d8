"""The trainer: a visible loop of batch, encode, loss, step.

Repeatable by construction: the batches are a pure function of (seed, epoch), every other draw of
(seed, step, rank). So a run that was stopped goes on to the same weights, and a checkpoint holds no
state of a generator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from subgenre import batches, checkpoint, distributed, optim, precision, watch
from subgenre.batches import ChunkTable
from subgenre.config import TrainConfig
from subgenre.distributed import Group
from subgenre.encoder import Encoder
from subgenre.errors import TrainingError
from subgenre.losses import Loss, LossResult
from subgenre.sources import Source

Batch = NDArray[np.int64]  # positions in the table: [b], or [b, 3 or 4] of drawn triplets


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch, a row of `history.parquet`.

    Attributes:
        loss, active, spread: means over the steps; `active` is the share of triplets with a loss.
        val_map_at_r: on the validation tracks, where there are any and it was computed.
        seconds: of training and validation.
    """

    epoch: int
    loss: float
    active: float
    spread: float
    lr: float
    seconds: float
    val_map_at_r: float | None = None


@dataclass(frozen=True)
class Result:
    """What training ends with; the encoder it was given holds the chosen weights."""

    history: tuple[Epoch, ...]
    best_epoch: int
    seconds: float
    stopped_early: bool


@dataclass(frozen=True)
class Estimate:
    """What the run will take, measured on one step before the first epoch."""

    seconds: float
    memory: int
    steps: int
    why_precision: str


@dataclass(frozen=True)
class Callbacks:
    """How the trainer talks: each may be None."""

    on_estimate: Callable[[Estimate], None] | None = None
    on_step: Callable[[int, int, int], None] | None = None
    on_epoch: Callable[[Epoch], None] | None = None
    stop_asked: Callable[[], bool] | None = None


@dataclass
class State:
    """Where a run is: saved in a checkpoint beside the weights."""

    epoch: int = 0
    step: int = 0
    done: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0
    best_epoch: int = 0
    best_weights: dict[str, Tensor] | None = None
    bf16: bool = False
    start_spread: float = float("nan")
    low_steps: int = 0


class Interrupted(TrainingError):  # noqa: N818 - a stop that was asked for, not a fault
    """A signal stopped the run after its checkpoint was saved."""


class Trainer:
    """One run: the encoder, its loss, where the chunks come from, and the loop over them."""

    def __init__(
        self,
        encoder: Encoder,
        loss: Loss,
        source: Source,
        table: ChunkTable,
        config: TrainConfig,
        *,
        device: torch.device,
        validate: Callable[[], float] | None = None,
        group: Group | None = None,
        folder: Path | None = None,
        fingerprint: Mapping[str, str] | None = None,
        callbacks: Callbacks | None = None,
    ) -> None:
        self.encoder, self.loss, self.source, self.table = encoder, loss, source, table
        self.config, self.device, self.validate = config, device, validate
        self.group, self.folder = group or Group(), folder
        self.fingerprint = dict(fingerprint or {})
        self.callbacks = callbacks or Callbacks()
        self.n_blocks = encoder.backbone.n_blocks
        optim.freeze(encoder.backbone, config.model.tune, self.n_blocks)
        self.modules = nn.ModuleList([encoder, loss]).to(device)
        self.learning = optim.trainable(self.modules[:1])
        self.optimizer = optim.optimizer(encoder, loss, config.optim, n_blocks=self.n_blocks)
        columns = (table.label, table.track, table.recording)
        self.label, self.track, self.recording = (
            torch.from_numpy(column).to(device) for column in columns
        )
        self.state = State()
        self.watch = watch.CollapseWatch(
            config.loss.margin if config.loss.name in ("triplet", "track_triplet") else None
        )

    def run(self, *, resume: Path | None = None) -> Result:
        """Train from the start or from a checkpoint, and leave the best weights in the encoder.

        Raises:
            CollapseError, NotFiniteError: training can't go on; the last checkpoint stays.
            CheckpointError: the checkpoint is of another run.
            Interrupted: a stop was asked for; the checkpoint is saved.
        """
        started = time.perf_counter()
        state, settings = self.state, self.config
        if resume is not None:
            self._restore(checkpoint.load(resume, self.fingerprint))
        devices = [self.device] if self.device.type == "cuda" else []
        stopped = False
        with torch.random.fork_rng(devices=devices):
            first = self._batches(state.epoch)
            total = len(first) * settings.optim.epochs
            if resume is None:
                state.bf16, why = self._probe(first[0])
            else:
                why = "as before the stop"
            if self.callbacks.on_estimate:
                self.callbacks.on_estimate(self._estimate(first[0], total - state.done, why))
            while state.epoch < settings.optim.epochs and not stopped:
                began = time.perf_counter()
                self._epoch(total)
                stopped = self._close_epoch(began)
        self._choose_best()
        history = tuple(Epoch(**row) for row in state.history)
        return Result(history, state.best_epoch, time.perf_counter() - started, stopped)

    def _epoch(self, total: int) -> None:
        """Run the steps of the present epoch that are still to do."""
        state, settings = self.state, self.config
        todo = self._batches(state.epoch)
        head_only = state.epoch < settings.optim.head_epochs
        self.modules.train()
        for step in range(state.step, len(todo)):
            scale = optim.factor(state.done, total, settings.optim)
            optim.set_rate(self.optimizer, scale, head_only=head_only)
            result, spread = self._step(todo[step], last=step == len(todo) - 1)
            self._look(float(result.value.detach()), result.active, spread)
            state.step, state.done = step + 1, state.done + 1
            if self.callbacks.on_step:
                self.callbacks.on_step(state.epoch, state.step, len(todo))
            if (step + 1) % settings.batch.accumulate == 0:
                self._save_if_due()

    def _step(self, batch: Batch, *, last: bool) -> tuple[LossResult, float]:
        """Encode this process's share, compute the loss of the whole batch, move the weights."""
        every = self.config.batch.accumulate
        seed = _seed(self.config.run.seed, self.state.done, self.group.rank)
        vectors = self._encode(batch, seed)
        vectors = distributed.gather(vectors, self.group)
        result = self._loss(vectors, torch.from_numpy(batch).to(self.device))
        if result.value.requires_grad:
            torch.autograd.backward(result.value / every)
        if last or (self.state.step + 1) % every == 0:
            distributed.sum_gradients(self.learning, self.group)
            if self.config.optim.clip_norm:
                nn.utils.clip_grad_norm_(self.learning, self.config.optim.clip_norm)
            # A gradient that is no number would spoil the weights that the next look protects.
            if watch.finite_gradients(optim.trainable(self.modules)):
                self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return result, watch.spread(vectors)

    def _loss(self, vectors: Tensor, batch: Tensor) -> LossResult:
        """Compare drawn triplets [b, 3 or 4] as they are, a P x K batch [b] in every way."""
        if batch.ndim == 2:
            return self.loss.explicit(vectors.view(*batch.shape, -1), self.label[batch])
        found: LossResult = self.loss(
            vectors, self.label[batch], self.track[batch], self.recording[batch]
        )
        return found

    def _encode(self, batch: Batch, seed: int) -> Tensor:
        """Return the unit vectors [b, D] of this process's share, in float32.

        A chunk that stands in the batch more than once is encoded once.
        """
        mine = distributed.share(batch, self.group).reshape(-1)
        chunks, places = np.unique(mine, return_inverse=True)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # dropout draws from the global generator, which is forked here
        inputs = self.source.batch(self.table.row[chunks], generator)
        with precision.autocast(self.device, self.state.bf16):
            vectors = self.source.encode(self.encoder, inputs.to(self.device), generator)
        return vectors.float()[torch.from_numpy(places).to(self.device)]

    def _look(self, loss: float, active: float, spread: float) -> None:
        """Add up the figures and stop a run that has gone wrong."""
        state = self.state
        for place, value in enumerate((loss, active, spread, 1.0)):
            state.sums[place] += value
        if self.config.watch.collapse:
            self.watch.update(loss, active, spread)

    def _close_epoch(self, began: float) -> bool:
        """Validate, note the epoch, keep the best weights, save; return whether to stop early."""
        state, settings = self.state, self.config.watch
        value = None
        number = state.epoch + 1
        if self.validate and (number % settings.every == 0 or number == self.config.optim.epochs):
            self.modules.eval()
            with torch.inference_mode():
                value = self.validate()
            if value > state.best:
                state.best, state.best_epoch = value, number
                state.best_weights = {
                    name: tensor.detach().clone() for name, tensor in self._weights().items()
                }
        steps = max(state.sums[3], 1.0)
        loss, active, spread = (total / steps for total in state.sums[:3])
        lr = max(float(group["lr"]) for group in self.optimizer.param_groups)
        row = Epoch(number, loss, active, spread, lr, time.perf_counter() - began, value)
        state.history.append(asdict(row))
        state.epoch, state.step, state.sums = number, 0, [0.0] * 4
        self._save()
        if self.callbacks.on_epoch and self.group.first:
            self.callbacks.on_epoch(row)
        waited = number - state.best_epoch
        return bool(self.validate and settings.patience and waited >= settings.patience)

    def _choose_best(self) -> None:
        """Put the best weights of ALL learning modules back, or keep the last ones."""
        state = self.state
        if state.best_weights is not None:
            current = self.modules.state_dict()
            current.update({k: v.to(self.device) for k, v in state.best_weights.items()})
            self.modules.load_state_dict(current)
        else:
            state.best_epoch = state.epoch
        self.modules.eval()

    def _weights(self) -> dict[str, Tensor]:
        """Return what learns, by name: frozen weights need no second copy."""
        return {name: p for name, p in self.modules.named_parameters() if p.requires_grad}

    def _save_if_due(self) -> None:
        """Save every so many steps, and before a stop that was asked for."""
        asked = bool(self.callbacks.stop_asked and self.callbacks.stop_asked())
        asked = distributed.agree(asked, self.group, self.device)
        every = self.config.run.save_every
        if asked or (every and self.state.done % every == 0):
            self._save()
        if asked:
            raise Interrupted(f"stopped after step {self.state.done} as asked; go on with --resume")

    def _save(self) -> None:
        """Write the checkpoint, by the first process alone."""
        if self.folder is None or not self.group.first:
            return
        self.state.start_spread, self.state.low_steps = self.watch.start, self.watch.low_steps
        state = {**vars(self.state), "weights": self._weights()}
        state["optimizer"] = self.optimizer.state_dict()
        checkpoint.save(self.folder, state, self.fingerprint)

    def _restore(self, saved: dict[str, Any]) -> None:
        """Take up where a checkpoint left."""
        for name in vars(self.state):
            setattr(self.state, name, saved[name])
        current = self.modules.state_dict()
        current.update(saved["weights"])
        self.modules.load_state_dict(current)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.watch.start, self.watch.low_steps = self.state.start_spread, self.state.low_steps

    def _batches(self, epoch: int) -> list[Batch]:
        """Return the whole batches of an epoch, the same in every process.

        N processes with batches of B share batches of N x B.
        """
        settings, seed, world = self.config.batch, self.config.run.seed, self.group.world
        if settings.kind == "triplet":
            quadruplet = self.config.loss.name == "quadruplet"
            return batches.triplet_batches(
                self.table,
                size=settings.size * world,
                seed=seed,
                epoch=epoch,
                quadruplet=quadruplet,
            )
        return batches.pk_batches(
            self.table,
            subgenres=settings.subgenres,
            tracks=settings.tracks * world,
            chunks=settings.chunks,
            same_genre=settings.same_genre,
            seed=seed,
            epoch=epoch,
        )

    def _probe(self, batch: Batch) -> tuple[bool, str]:
        """Choose the number format by a timed forward and backward pass; no weight moves."""
        if self.config.model.tune == "head":
            return False, "fp32: the head alone is small"
        asked = self.config.run.precision
        few = batch[: self.group.world]
        return precision.pick_dtype(asked, self.device, lambda half: self._dry_step(few, half))

    def _dry_step(self, batch: Batch, bf16: bool) -> None:
        """Run one forward and backward pass over a few chunks of a batch and forget it."""
        kept, self.state.bf16 = self.state.bf16, bf16
        self.modules.train()
        torch.autograd.backward(self._encode(batch, 0).square().sum())
        self.optimizer.zero_grad(set_to_none=True)
        self.state.bf16 = kept

    def _estimate(self, batch: Batch, steps: int, why: str) -> Estimate:
        """Measure one small step and tell what all of them will take."""
        few = batch[: self.group.world]
        seconds = precision.timed(lambda: self._dry_step(few, self.state.bf16), runs=1)
        seconds *= len(np.unique(batch)) / len(np.unique(few)) * steps
        return Estimate(seconds, precision.peak_memory(), steps, why)


def _seed(seed: int, step: int, rank: int) -> int:
    """Mix seed, step and rank into one 63-bit number (splitmix64's finaliser)."""
    mask = (1 << 64) - 1
    value = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank + 1) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return (value ^ (value >> 31)) >> 1
