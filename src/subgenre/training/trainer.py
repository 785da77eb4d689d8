"""The trainer: a visible loop of batch, encode, loss, step.

Repeatable by construction: the batches are a pure function of (seed, epoch), every other draw of
(seed, step, rank). So a run that was stopped goes on to the same weights, and a checkpoint holds no
state of a generator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from subgenre.config import TrainConfig
from subgenre.core import hardware
from subgenre.errors import Interrupted
from subgenre.losses import Loss, LossResult
from subgenre.models.encoder import Encoder
from subgenre.training import batches, checkpoint, collapse, distributed, optim
from subgenre.training import inputs as sources
from subgenre.training.batches import ChunkTable
from subgenre.training.distributed import Group
from subgenre.training.inputs import Source
from subgenre.training.rehearsal import Rehearsal
from subgenre.training.state import Callbacks, Epoch, Estimate, Result, State, put, step_seed

__all__ = ["Callbacks", "Epoch", "Estimate", "Interrupted", "Result", "State", "Trainer"]

Batch = NDArray[np.int64]  # positions in the table: [b], or [b, 3 or 4] of drawn triplets
Rows = NDArray[np.int64]
# Steps between two looks at the figures on a GPU: each look waits for all that is under way.
_LOOK_EVERY = 10


class Trainer:
    """One run: the encoder, its loss, where the chunks come from, and the loop over them.

    Args:
        encoder, loss: what learns; their weights are moved in place.
        source, table: the chunks, and what is known of them.
        config: the recipe.
        device: where it runs.
        validate: gives the validation MAP@R; the encoder is in evaluation mode then.
        group: the processes that train together.
        folder: of the checkpoints; None: none are written.
        fingerprint: what must be the same for a run to be resumed.
        callbacks: hear how it goes.
    """

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
        optim.freeze(encoder.backbone, config.model.tune)
        encoder.backbone.set_checkpointing(config.run.checkpointing)
        self.modules = nn.ModuleList([encoder, loss]).to(device)
        self.weights = {n: p for n, p in self.modules.named_parameters() if p.requires_grad}
        self.learning = list(self.weights.values())
        self.of_encoder = [p for p in encoder.parameters() if p.requires_grad]
        self.of_backbone = [p for p in encoder.backbone.parameters() if p.requires_grad]
        self.optimizer = optim.optimizer(encoder, loss, config.optim)
        self.label, self.track, self.recording = (
            torch.from_numpy(column).to(device)
            for column in (table.label, table.track, table.recording)
        )
        self.state = State()
        self.scale = collapse.Scale(encoder.head)
        self.watch = collapse.of_run(config)
        self.seen: list[tuple[Tensor, float]] = []  # figures of steps that were not looked at yet
        self.look_every = _LOOK_EVERY if device.type == "cuda" else 1

    def run(self, *, resume: Path | None = None) -> Result:
        """Train from the start or from a checkpoint, and leave the best weights in the encoder.

        Raises:
            CollapseError, NotFiniteError: training can't go on; the last checkpoint stays.
            CheckpointError: the checkpoint is of another run.
            Interrupted: a stop was asked for; the checkpoint is saved.
        """
        self.began = time.perf_counter()
        state, settings = self.state, self.config
        if resume is not None:
            self._restore(checkpoint.load(resume, self.fingerprint))
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            first = self._batches(state.epoch)
            total = len(first) * settings.optim.epochs
            if not self._ended():
                self._rehearse(first[0], total - state.done, resumed=resume is not None)
            while not self._ended():
                began = time.perf_counter()
                self._epoch(total)
                self._close_epoch(began)
        stopped = self._waited_enough() and state.epoch < settings.optim.epochs
        state.put_best(self.weights)
        self.modules.eval()
        history = tuple(Epoch(**row) for row in state.history)
        return Result(history, state.best_epoch, time.perf_counter() - self.began, stopped)

    def _ended(self) -> bool:
        return self.state.epoch >= self.config.optim.epochs or self._waited_enough()

    def _waited_enough(self) -> bool:
        """Tell whether to stop early, by the state alone: a run that is resumed knows it too.

        While the head learns alone, nothing is waited for: the backbone shall have its turn.
        """
        patience = self.config.watch.patience
        waited = self.state.epoch - max(self.state.best_epoch, self.config.optim.head_epochs)
        return bool(self.validate and patience and waited >= patience)

    def _epoch(self, total: int) -> None:
        """Run the steps of the present epoch that are still to do."""
        state, settings = self.state, self.config
        head_only = state.epoch < settings.optim.head_epochs
        for parameter in self.of_backbone:  # LP-FT: no gradient is computed for it at first
            parameter.requires_grad_(not head_only)
        self.modules.train()
        every = self._batches(state.epoch)
        todo = every[state.step :]
        needed = [self._needed(batch) for batch in todo]
        inputs = sources.ahead(self.source, [rows for rows, _ in needed], self.device)
        for batch, (_, places), loaded in zip(todo, needed, inputs, strict=True):
            rate = optim.factor(state.done, total, settings.optim)
            optim.set_rate(self.optimizer, rate, head_only=head_only)
            last = batch is todo[-1]
            self._step(batch, loaded, places, steps=len(every))
            state.step, state.done = state.step + 1, state.done + 1
            if len(self.seen) >= self.look_every:
                self._look()
            if self.callbacks.on_step:
                self.callbacks.on_step(state.epoch, state.step, len(every))
            if last or state.step % settings.batch.accumulate == 0:
                self._save_if_due(last=last)

    def _step(self, batch: Batch, loaded: Tensor, places: Tensor | None, *, steps: int) -> None:
        """Encode this process's share, compute the loss of the whole batch, move the weights.

        They move by the mean of `accumulate` steps, or of what is left of the epoch's `steps`.
        """
        every, step = self.config.batch.accumulate, self.state.step
        added = min(every, steps - step // every * every)
        seed = step_seed(self.config.run.seed, self.state.done, self.group.rank)
        vectors = distributed.gather(self._encode(loaded, places, seed), self.group)
        result = self._loss(vectors, torch.from_numpy(batch).to(self.device))
        if result.value.requires_grad:
            torch.autograd.backward(result.value / added)
        if step + 1 == steps or (step + 1) % every == 0:
            distributed.sum_gradients(self.of_encoder, self.group)
            if self.config.optim.clip_norm:
                nn.utils.clip_grad_norm_(self.learning, self.config.optim.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        figures = (result.value.detach().float(), collapse.spread(vectors), self.scale.latest)
        self.seen.append((torch.stack(figures), result.active))

    def _loss(self, vectors: Tensor, batch: Tensor) -> LossResult:
        """Compare drawn triplets [b, 3 or 4] as they are, a P x K batch [b] in every way."""
        if batch.ndim == 2:
            return self.loss.explicit(vectors.view(*batch.shape, -1), self.label[batch])
        found: LossResult = self.loss(
            vectors, self.label[batch], self.track[batch], self.recording[batch]
        )
        return found

    def _needed(self, batch: Batch) -> tuple[Rows, Tensor | None]:
        """Return the rows of this process's share, and where each stands in it.

        A chunk that drawn triplets use twice goes through a deep network once.
        """
        mine = distributed.share(batch, self.group).reshape(-1)
        if batch.ndim == 1 or not self.source.costly:
            return self.table.row[mine], None
        chunks, places = np.unique(mine, return_inverse=True)
        return self.table.row[chunks], torch.from_numpy(places).to(self.device)

    def _encode(self, loaded: Tensor, places: Tensor | None, seed: int) -> Tensor:
        """Return the unit vectors [b, D] of this process's share, in float32."""
        generator = torch.Generator().manual_seed(seed)
        hardware.seed_device(self.device, seed)  # the global generators are forked here
        inputs = self.source.augment(loaded, generator)
        with hardware.autocast(self.device, self.state.bf16):
            vectors = self.source.encode(self.encoder, inputs, generator).float()
        return vectors if places is None else vectors[places]

    def _look(self) -> None:
        """Add up the figures of the latest steps and stop a run that has gone wrong."""
        if not self.seen:
            return
        values = torch.stack([figures for figures, _ in self.seen]).tolist()
        for (loss, spread, scale), (_, active) in zip(values, self.seen, strict=True):
            self.state.add(loss, active, spread)
            if self.config.watch.collapse:
                self.watch.update(loss, active, spread, scale)
        self.seen.clear()

    def _last_look(self) -> None:
        """Look at the last batch once more: a step's figures are of before it moved the weights.

        The same batch and draws, so that a run resumed at its end sees the same.
        """
        batch = self._batches(self.state.epoch - 1)[-1]
        seed = step_seed(self.config.run.seed, self.state.done - 1, self.group.rank)
        rows, places = self._needed(batch)
        self.modules.train()  # as where the figures of the start come from
        with torch.no_grad():
            vectors = self._encode(self.source.load(rows).to(self.device), places, seed)
            figures = collapse.spread(distributed.gather(vectors, self.group)), self.scale.latest
        with distributed.together(self.group, self.device):  # a scale is of one process's share
            self.watch.close(*self.state.latest, *torch.stack(figures).tolist())

    def _close_epoch(self, began: float) -> None:
        """Validate, note the epoch, keep the best weights; save what is still good."""
        state, settings = self.state, self.config.watch
        self._look()
        collapse.check_finite(self.learning)
        number = state.epoch + 1
        value = None
        if self.validate and (number % settings.every == 0 or number == self.config.optim.epochs):
            value = self._validate(self.validate)
            state.keep_best(value, self.weights)
        lr = max(float(group["lr"]) for group in self.optimizer.param_groups)
        row = state.close_epoch(lr, time.perf_counter() - began, value)
        if settings.collapse and self._ended():
            self._last_look()
        self._save()
        if self.callbacks.on_epoch and self.group.first:
            self.callbacks.on_epoch(row)

    def _validate(self, validate: Callable[[], float]) -> float:
        """Score by the first process alone; all hear the value and take the same turn."""
        self.modules.eval()
        value = 0.0
        if self.group.first:
            with torch.inference_mode(), hardware.autocast(self.device, self.state.bf16):
                value = validate()
        return distributed.first_says(value, self.group, self.device)

    def _save_if_due(self, *, last: bool) -> None:
        """Save every so many steps, and before a stop that was asked for."""
        state, every = self.state, self.config.run.save_every
        asked = bool(self.callbacks.stop_asked and self.callbacks.stop_asked())
        if self.group.world > 1:  # asked together, at steps that all processes know
            together = last or state.done % self.look_every == 0
            asked = together and distributed.agree(asked, self.group, self.device)
        if asked or (every and state.done % every == 0):
            self._look()
            collapse.check_finite(self.learning)
            self._save()
        if asked:
            distributed.agree(False, self.group, self.device)  # none leaves before it is saved
            raise Interrupted(f"stopped after step {state.done} as asked; {Interrupted.go_on}")

    def _save(self) -> None:
        """Write the checkpoint, by the first process alone."""
        if self.folder is None or not self.group.first:
            return
        self.state.watch, self.state.seconds = self.watch.memory(), time.perf_counter() - self.began
        state = {**vars(self.state), "weights": self.weights}
        state["optimizer"] = self.optimizer.state_dict()
        checkpoint.save(self.folder, state, self.fingerprint)

    def _restore(self, saved: dict[str, Any]) -> None:
        """Take up where a checkpoint left."""
        vars(self.state).update({n: saved[n] for n in vars(self.state) if n in saved})
        put(saved["weights"], self.weights)
        self.optimizer.load_state_dict(saved["optimizer"])
        vars(self.watch).update(self.state.watch)
        self.began -= self.state.seconds

    def _batches(self, epoch: int) -> list[Batch]:
        """Return the batches of an epoch: what all processes share."""
        return batches.epoch_batches(
            self.table,
            self.config.batch,
            quadruplet=self.config.loss.name == "quadruplet",
            seed=self.config.run.seed,
            epoch=epoch,
            world=self.group.world,
        )

    def _rehearse(self, batch: Batch, steps: int, *, resumed: bool) -> None:
        """Choose number format and compilation by small steps, and say what the run will take."""
        settings, state = self.config.run, self.state
        rows, _ = self._needed(batch)
        costly, device = self.source.costly, self.device
        few = rows[:1] if costly and device.type == "cpu" else rows
        loaded, ratio = self.source.load(few).to(device), len(rows) / len(few)
        trial = Rehearsal(
            lambda half: self._dry_step(loaded, half), ratio, costly, device, self.modules
        )
        why = "as before the stop"
        if not resumed:
            bf16, why = trial.choose(settings)
            state.bf16 = distributed.first_says(float(bf16), self.group, self.device) > 0
        if settings.compile:
            blocks = optim.blocks(self.encoder.backbone)
            if not resumed:  # chosen once, by one process: compiled code rounds otherwise
                why += "; " + hardware.compile_if_faster(blocks, lambda: trial.step(state.bf16))
                fast = float(hardware.are_compiled(blocks))
                state.compiled = distributed.first_says(fast, self.group, self.device) > 0
            elif state.compiled:
                there = "go on where it does, or start anew with --set run.compile=false"
                hardware.compiled_time(blocks, lambda: trial.step(state.bf16), there)
            hardware.set_compiled(blocks, state.compiled)
        if self.callbacks.on_estimate:
            learning, copies = sum(p.numel() for p in self.learning), 1 + bool(self.validate)
            self.callbacks.on_estimate(
                trial.estimate(state.bf16, why, steps=steps, learning=learning, copies=copies)
            )

    def _dry_step(self, loaded: Tensor, bf16: bool) -> None:
        """Run one forward and backward pass over a few chunks of a batch and forget it."""
        kept, self.state.bf16 = self.state.bf16, bf16
        self.modules.train()
        torch.autograd.backward(self._encode(loaded, None, 0).square().sum())
        self.optimizer.zero_grad(set_to_none=True)
        self.state.bf16 = kept
