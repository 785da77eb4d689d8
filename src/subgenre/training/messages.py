"""What a training run says while it goes: its estimate, its steps, its epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from subgenre.config import TrainConfig
from subgenre.core.progress import Console, Progress
from subgenre.core.text import duration
from subgenre.errors import Interrupted
from subgenre.models.backbones import Backbone
from subgenre.training.trainer import Epoch, Estimate, Result

_HOUR = 3600


def told(
    console: Console, settings: TrainConfig, device: torch.device, backbone: Backbone
) -> Callable[[Estimate], None]:
    """Return a function that says what the run will take, and what would be cheaper."""
    n_last = max(1, min(2, backbone.n_blocks - 1))  # of all blocks, none would lie below
    cheaper = {
        "full": f"--tune last:{n_last} runs the lower blocks once, --tune head all of them once",
        "lora": "--tune head runs the backbone once",
        "last": "--tune head trains the projection head alone, in minutes",
    }

    def tell(estimate: Estimate) -> None:
        console.info(
            f"{estimate.steps} steps on {device.type}, about {duration(estimate.seconds)} and "
            f"{estimate.memory / 2**30:.1f} GB of memory; {estimate.why}"
        )
        kind = settings.model.tune.partition(":")[0]
        if device.type == "cpu" and kind in cheaper and estimate.seconds > _HOUR:
            console.warn(
                f"tune '{settings.model.tune}' takes about {duration(estimate.seconds)} on this "
                f"CPU; cheaper: {cheaper[kind]}"
            )

    return tell


def chosen(result: Result, settings: TrainConfig) -> str:
    """Say whose weights the model holds, and whether it stopped before its last epoch."""
    ran = len(result.history)
    if not settings.watch.val_share:
        return f"the weights of epoch {ran}, the last (nothing is held out to choose by)"
    best = max(row.val_map_at_r or 0.0 for row in result.history)
    early = f", stopped early at {ran}" if result.stopped_early else ""
    return f"the weights of epoch {result.best_epoch}: validation MAP@R {best:.3f}{early}"


class Bars:
    """Bars for the steps of a long epoch, a line an epoch."""

    def __init__(self, console: Console, settings: TrainConfig) -> None:
        self.console, self.epochs = console, settings.optim.epochs
        self.bar: Progress = lambda _done, _total: None

    def __enter__(self) -> tuple[Callable[[int, int, int], None], Callable[[Epoch], None]]:
        self.open = self.console.progress("training")
        self.bar = self.open.__enter__()
        return self.on_step, self.on_epoch

    def __exit__(self, *error: object) -> None:
        self.open.__exit__(*error)  # type: ignore[arg-type]

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        """Move the bar: `step` of `steps` of an epoch is done."""
        self.bar(epoch * steps + step, self.epochs * steps)

    def on_epoch(self, row: Epoch) -> None:
        """Say how an epoch went, ten times a run at most."""
        value = "" if row.val_map_at_r is None else f", validation MAP@R {row.val_map_at_r:.3f}"
        if row.epoch == 1 or row.epoch == self.epochs or row.epoch % max(1, self.epochs // 10) == 0:
            self.console.info(
                f"epoch {row.epoch} of {self.epochs}: loss {row.loss:.4f}, active triplets "
                f"{row.active:.0%}, spread {row.spread:.3f}{value}"
            )


class Stoppable:
    """A listener whose progress ends the work when a stop has been asked for."""

    def __init__(self, console: Console, stop_asked: Callable[[], bool] | None) -> None:
        self.info, self.warn = console.info, console.warn
        self.console, self.stop_asked = console, stop_asked

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """Open a bar.

        Raises:
            Interrupted: from the bar, once a stop is asked for.
        """
        with self.console.progress(title) as bar:

            def step(done: int, total: int) -> None:
                bar(done, total)
                if self.stop_asked and self.stop_asked():
                    raise Interrupted(
                        f"stopped as asked ({title}: {done} of {total}); run the same command "
                        "again: what was made so far is kept"
                    )

            yield step
