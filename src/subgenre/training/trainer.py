"""The trainer: a loop of batch, encode, loss, step.

Training is repeatable: the batches are a pure function of (seed, epoch), every other draw of
(seed, step, rank). So a resumed run reaches the same weights without a generator's state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from subgenre.config import TrainConfig
from subgenre.core import hardware
from subgenre.errors import Interrupted, TrainingError
from subgenre.losses import Loss, LossResult
from subgenre.models.encoder import Encoder
from subgenre.training import batches, checkpoint, collapse, distributed, optim, run_state
from subgenre.training.batches import ChunkTable
from subgenre.training.distributed import Group
from subgenre.training.inputs import Source, prefetch
from subgenre.training.run_state import Callbacks, Epoch, Estimate, Result, State

Batch = NDArray[np.int64]  # positions in the table: [b], or [b, 3 or 4] of drawn triplets
Rows = NDArray[np.int64]
# Steps between two readings of the figures on a GPU: each reading waits for the device.
_READ_EVERY = 10
_ADAMW = 2  # numbers that AdamW keeps beside each weight


class Trainer:
    """One run: an encoder, its loss, the source of the chunks, and the loop over them.

    Args:
        encoder, loss: the modules that learn; their weights change in place.
        validate: returns the validation MAP@R; called with the encoder in evaluation mode.
        folder: of the checkpoints; None: none are written.
        fingerprint: see `checkpoint.save`.
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
        validate: Callable[[], float] | None,
        group: Group,
        folder: Path | None,
        fingerprint: Mapping[str, str],
        callbacks: Callbacks,
    ) -> None:
        self.encoder, self.loss, self.source, self.table = encoder, loss, source, table
        self.config, self.device, self.validate = config, device, validate
        self.group, self.folder, self.fingerprint = group, folder, fingerprint
        self.callbacks = callbacks
        optim.freeze(encoder.backbone, config.model.tune)
        encoder.backbone.set_checkpointing(config.run.checkpointing)
        self.modules = nn.ModuleList([encoder, loss]).to(device)
        self.weights = {n: p for n, p in self.modules.named_parameters() if p.requires_grad}
        self.encoder_weights = [p for p in encoder.parameters() if p.requires_grad]
        self.backbone_weights = [p for p in encoder.backbone.parameters() if p.requires_grad]
        self.optimizer = optim.optimizer(encoder, loss, config.optim)
        self.label, self.track, self.recording = (
            torch.from_numpy(column).to(device)
            for column in (table.label, table.track, table.recording)
        )
        self.state = State()
        self.scale = collapse.OutputScale(encoder.head)
        self.watch = collapse.watch_for(config)
        self.unread: list[tuple[Tensor, float]] = []  # figures of steps, still on the device
        self.read_every = 1 if device.type == "cpu" else _READ_EVERY

    def run(self, *, resume: Path | None = None) -> Result:
        """Train from the start or from a checkpoint, and leave the best weights in the encoder.

        Raises:
            CollapseError, NotFiniteError: training can't go on; the last checkpoint is kept.
            CheckpointError: the checkpoint is of another run.
            TrainingError: run.compile is set and nothing can be compiled here.
            Interrupted: a stop was requested; the checkpoint is saved.
        """
        self.began = time.perf_counter()
        state, epochs = self.state, self.config.optim.epochs
        if resume is not None:
            saved = checkpoint.load(resume, self.fingerprint)
            vars(state).update({name: saved[name] for name in vars(state) if name in saved})
            run_state.copy_weights(saved["weights"], self.weights)
            self.optimizer.load_state_dict(saved["optimizer"])
            vars(self.watch).update(state.watch)
            self.began -= state.seconds
        expected = distributed.broadcast(state.done, self.group, self.device)
        with distributed.fail_together(self.group, self.device):  # a shared folder may lag behind
            if state.done != expected:
                raise TrainingError(
                    f"the checkpoint ends after step {state.done} here, after step {expected:.0f} "
                    "in the first process; start again when all machines see the same file"
                )
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            first = self._batches(state.epoch)
            total = len(first) * epochs
            if not self._ended():
                self._prepare(first[0], total - state.done, resumed=resume is not None)
            while not self._ended():
                began = time.perf_counter()
                self._epoch(total)
                self._close_epoch(began)
        stopped_early = self._out_of_patience() and state.epoch < epochs
        if state.best_weights is not None:
            run_state.copy_weights(state.best_weights, self.weights)
        else:
            state.best_epoch = state.epoch
        self.modules.eval()
        history = tuple(Epoch(**row) for row in state.history)
        return Result(history, state.best_epoch, time.perf_counter() - self.began, stopped_early)

    def _ended(self) -> bool:
        return self.state.epoch >= self.config.optim.epochs or self._out_of_patience()

    def _out_of_patience(self) -> bool:
        """Return whether to stop early, by the state alone, so that a resumed run agrees.

        The epochs of the head alone do not count: the backbone must learn too.
        """
        patience = self.config.watch.patience
        waited = self.state.epoch - max(self.state.best_epoch, self.config.optim.head_epochs)
        return bool(self.validate and patience and waited >= patience)

    def _prepare(self, batch: Batch, steps: int, *, resumed: bool) -> None:
        """Choose the number format, compile, and estimate the run."""
        settings, state = self.config.run, self.state
        precision = "as in the run that is resumed"
        if not resumed:
            state.bf16, precision = False, "fp32: the head alone is small"
            if self.source.deep or settings.precision != "auto":
                state.bf16, precision = hardware.pick_bf16(settings.precision, self.device)
            state.bf16 = distributed.broadcast(state.bf16, self.group, self.device) > 0
        if settings.compile:
            for block in optim.blocks(self.encoder.backbone):
                block.compile()
        try:
            estimate = self._estimate(batch, steps, precision)
        except (RuntimeError, OSError) as problem:
            if not settings.compile or isinstance(problem, torch.OutOfMemoryError):
                raise
            raise TrainingError(
                f"torch.compile does not work here ({type(problem).__name__}: "
                f"{str(problem).splitlines()[0][:200]}); train with --set run.compile=false"
            ) from problem
        self.callbacks.on_estimate(estimate)

    def _estimate(self, batch: Batch, steps: int, precision: str) -> Estimate:
        """Measure small steps that change no weight, and scale them up to the remaining run."""
        rows, _ = self._needed(batch)
        few = rows[:1] if self.source.deep and self.device.type == "cpu" else rows
        loaded, ratio = self.source.load(few).to(self.device), len(rows) / len(few)

        def step() -> None:
            self.modules.train()
            torch.autograd.backward(self._encode(loaded, None, 0).square().sum())
            self.optimizer.zero_grad(set_to_none=True)

        before, activations = hardware.step_memory(step, self.modules, self.device)
        seconds = hardware.step_seconds(step, self.device)  # the step before has warmed it up
        copies = _ADAMW + 1 + bool(self.validate)  # beside each weight: gradient, best weights
        learning = sum(p.numel() for p in self.weights.values())
        memory = before + learning * 4 * copies + activations * ratio
        return Estimate(seconds * ratio * steps, int(memory), steps, precision)

    def _epoch(self, total: int) -> None:
        """Run the remaining steps of the present epoch."""
        state, settings = self.state, self.config
        head_only = state.epoch < settings.optim.head_epochs
        for parameter in self.backbone_weights:  # LP-FT: at first it gets no gradient
            parameter.requires_grad_(not head_only)
        self.modules.train()
        every = self._batches(state.epoch)
        remaining = every[state.step :]
        needed = [self._needed(batch) for batch in remaining]
        inputs = prefetch(self.source, [rows for rows, _ in needed], self.device)
        for batch, (_, places), loaded in zip(remaining, needed, inputs, strict=True):
            rate = optim.factor(state.done, total, settings.optim)
            optim.set_rate(self.optimizer, rate, head_only=head_only)
            self._step(batch, loaded, places, steps=len(every))
            state.step, state.done = state.step + 1, state.done + 1
            if len(self.unread) >= self.read_every:
                self._read_figures()
            self.callbacks.on_step(state.epoch, state.step, len(every))
            stop, last = self.callbacks.stop_requested(), state.step == len(every)
            if last or state.step % settings.batch.accumulate == 0:
                self._save_if_due(stop=stop, last=last)

    def _step(self, batch: Batch, loaded: Tensor, places: Tensor | None, *, steps: int) -> None:
        """Encode this process's share, compute the loss of the whole batch, update the weights.

        The gradient is the mean over `accumulate` steps, or over those left of the epoch's `steps`.
        """
        every, step = self.config.batch.accumulate, self.state.step
        added = min(every, steps - step // every * every)
        seed = run_state.step_seed(self.config.run.seed, self.state.done, self.group.rank)
        vectors = distributed.gather(self._encode(loaded, places, seed), self.group)
        result = self._loss(vectors, torch.from_numpy(batch).to(self.device))
        if result.value.requires_grad:
            torch.autograd.backward(result.value / added)
        if step + 1 == steps or (step + 1) % every == 0:
            distributed.sum_gradients(self.encoder_weights, self.group)
            if self.config.optim.clip_norm:
                nn.utils.clip_grad_norm_(self.weights.values(), self.config.optim.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        figures = (result.value.detach().float(), collapse.spread(vectors), self.scale.latest)
        self.unread.append((torch.stack(figures), result.active))

    def _loss(self, vectors: Tensor, batch: Tensor) -> LossResult:
        """Return the loss of drawn triplets [b, 3 or 4], or of a P x K batch [b]."""
        if batch.ndim == 2:
            return self.loss.explicit(vectors.view(*batch.shape, -1))
        result: LossResult = self.loss(
            vectors, self.label[batch], self.track[batch], self.recording[batch]
        )
        return result

    def _needed(self, batch: Batch) -> tuple[Rows, Tensor | None]:
        """Return the rows of this process's share, and the place of each position among them.

        A deep network encodes a chunk of several drawn triplets once.
        """
        mine = distributed.share(batch, self.group).reshape(-1)
        if batch.ndim == 1 or not self.source.deep:
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

    def _read_figures(self) -> None:
        """Add up the figures of the latest steps, and stop a run that has collapsed."""
        if not self.unread:
            return
        values = torch.stack([figures for figures, _ in self.unread]).tolist()
        for (loss, spread, scale), (_, active) in zip(values, self.unread, strict=True):
            self.state.add(loss, active, spread)
            if self.config.watch.collapse:
                self.watch.update(loss, active, spread, scale)
        self.unread.clear()

    def _check_last_weights(self) -> None:
        """Encode the last batch again, by the same draws: its figures are those before the step."""
        batch = self._batches(self.state.epoch - 1)[-1]
        seed = run_state.step_seed(self.config.run.seed, self.state.done - 1, self.group.rank)
        rows, places = self._needed(batch)
        self.modules.train()  # as for the figures at the start
        with torch.no_grad():
            vectors = self._encode(self.source.load(rows).to(self.device), places, seed)
            figures = collapse.spread(distributed.gather(vectors, self.group)), self.scale.latest
        with distributed.fail_together(self.group, self.device):  # each process has its own scale
            self.watch.check_end(*self.state.latest, *torch.stack(figures).tolist())

    def _close_epoch(self, began: float) -> None:
        """Validate, record the epoch, keep the best weights, save the checkpoint."""
        state, settings = self.state, self.config.watch
        self._read_figures()
        collapse.check_finite(self.weights.values())
        number = state.epoch + 1
        value = None
        if self.validate and (number % settings.every == 0 or number == self.config.optim.epochs):
            self.modules.eval()
            value = 0.0
            if self.group.first:
                with torch.inference_mode(), hardware.autocast(self.device, state.bf16):
                    value = self.validate()
            value = distributed.broadcast(value, self.group, self.device)
            if value > state.best:
                state.best, state.best_epoch = value, number
                state.best_weights = {
                    name: p.detach().to("cpu", copy=True) for name, p in self.weights.items()
                }
        lr = max(float(group["lr"]) for group in self.optimizer.param_groups)
        row = state.close_epoch(lr, time.perf_counter() - began, value)
        if settings.collapse and self._ended():
            self._check_last_weights()
        self._save()
        if self.group.first:
            self.callbacks.on_epoch(row)

    def _save_if_due(self, *, stop: bool, last: bool) -> None:
        """Save every `save_every` steps, and before a stop that was requested."""
        state, every = self.state, self.config.run.save_every
        if self.group.world > 1:  # processes compare requests only at steps that all of them know
            compared = last or state.done % self.read_every == 0
            stop = compared and distributed.any_process(stop, self.group, self.device)
        if stop or (every and state.done % every == 0):
            self._read_figures()
            collapse.check_finite(self.weights.values())
            self._save()
        if stop:
            distributed.any_process(False, self.group, self.device)  # wait until it is saved
            raise Interrupted(f"stopped after step {state.done}; {Interrupted.go_on}")

    def _save(self) -> None:
        """Write the checkpoint, in the first process."""
        if self.folder is None or not self.group.first:
            return
        self.state.watch, self.state.seconds = self.watch.state(), time.perf_counter() - self.began
        state = {**vars(self.state), "weights": self.weights}
        state["optimizer"] = self.optimizer.state_dict()
        checkpoint.save(self.folder, state, self.fingerprint)

    def _batches(self, epoch: int) -> list[Batch]:
        """Return the batches of an epoch, the same in all processes."""
        return batches.epoch_batches(
            self.table,
            self.config.batch,
            quadruplet=self.config.loss.name == "quadruplet",
            seed=self.config.run.seed,
            epoch=epoch,
            world=self.group.world,
        )
