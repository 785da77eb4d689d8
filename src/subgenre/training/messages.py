"""The messages of a training run: its estimate, its steps, its epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from subgenre.config import TrainConfig
from subgenre.core.progress import Console
from subgenre.core.text import counted, duration, percent
from subgenre.models.backbones import Backbone
from subgenre.training.run_state import Epoch, Estimate, Result

_HOUR = 3600


def report_estimate(
    estimate: Estimate,
    console: Console,
    settings: TrainConfig,
    device: torch.device,
    backbone: Backbone,
) -> None:
    """Show the time and memory of the run; if it takes hours on a CPU, name a faster way."""
    console.info(
        f"{counted(estimate.steps, 'step')} on {device.type}, about {duration(estimate.seconds)} "
        f"and {estimate.memory / 2**30:.1f} GB of memory; {estimate.precision}"
    )
    n_last = max(1, min(2, backbone.n_blocks - 1))  # with all blocks, nothing would be cached
    faster = {
        "full": f"--tune last:{n_last} runs the lower blocks once, --tune head all of them once",
        "lora": "--tune head runs the backbone once",
        "last": "--tune head trains the projection head alone, in minutes",
    }
    tune = settings.model.tune
    kind = tune.partition(":")[0]
    if device.type == "cpu" and kind in faster and estimate.seconds > _HOUR:
        console.warn(
            f"tune '{tune}' takes about {duration(estimate.seconds)} on this CPU; faster: "
            f"{faster[kind]}"
        )


def chosen_weights(result: Result, settings: TrainConfig) -> str:
    """Return the epoch of the model's weights, and whether the run stopped early, in words."""
    last = len(result.history)
    if not settings.watch.val_share:
        return f"the weights of epoch {last}, the last (no validation tracks to choose by)"
    best = max(row.val_map_at_r or 0.0 for row in result.history)
    early = f", stopped early at {last}" if result.stopped_early else ""
    return f"the weights of epoch {result.best_epoch}: validation MAP@R {best:.3f}{early}"


@contextmanager
def training_progress(
    console: Console, epochs: int
) -> Iterator[tuple[Callable[[int, int, int], None], Callable[[Epoch], None]]]:
    """Show a bar over all steps and about ten epochs; yields `on_step` and `on_epoch`."""
    with console.progress("training") as bar:

        def on_step(epoch: int, step: int, steps: int) -> None:
            bar(epoch * steps + step, epochs * steps)

        def on_epoch(row: Epoch) -> None:
            if row.epoch in (1, epochs) or row.epoch % max(1, epochs // 10) == 0:
                score = row.val_map_at_r
                validation = "" if score is None else f", validation MAP@R {score:.3f}"
                console.info(
                    f"epoch {row.epoch} of {epochs}: loss {row.loss:.4f}, {percent(row.active)} of "
                    f"the triplets still have a loss, spread of the embeddings {row.spread:.3f} "
                    f"(0: one point){validation}"
                )

        yield on_step, on_epoch
