"""Training speed: the thesis's way against ours, on one machine in one run.

1. Full fine-tuning of the full-size AST (random weights), a few steps each on the same tokens:
   three forward passes a triplet through the hub's ASTModel, fp32, two triplets a step, as a loop
   over the hub's library is written; against ours, which encodes each chunk of a P x K batch once
   and uses every triplet, in the number format that its probe picks. Seconds per chunk encoded and
   back-propagated, patchout off; patchout is a row of its own. The same with LoRA: peft's
   `get_peft_model` around the hub's ASTModel in that loop, against `tune = "lora"`.
2. With --features FOLDER (of musicnn), fully tuned: seconds until the validation MAP@R that
   `thesis` ends with is reached, by `thesis` and by the recipe `gpu`: the head first, then all.

Run: python benchmarks/train_throughput.py [--steps 3] [--device cpu] [--small] [--compile]
     [--features FOLDER] [--epochs 30] [--windows 3] [--threads 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import torch
from torch import nn

from subgenre import config, losses
from subgenre.core import hardware
from subgenre.core.progress import Silent
from subgenre.dataset import splits
from subgenre.dataset.folder import FeatureFolder
from subgenre.models import lora
from subgenre.models.backbones.ast import Ast
from subgenre.models.encoder import Encoder
from subgenre.training import fit, optim
from subgenre.training.compatibility import disable_unused
from subgenre.training.run_state import Epoch

FRAMES, MELS = 998, 128  # 10 s
CHUNKS = 6  # two triplets, or 3 subgenres x 2 tracks
PATCHOUT = 0.4
RANK = 8  # of LoRA
SMALL = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}


def hub_model(small: bool) -> nn.Module:
    from transformers import ASTConfig, ASTModel

    torch.manual_seed(0)
    return ASTModel(ASTConfig(**(SMALL if small else {})))


def head(width: int) -> nn.Module:
    layers = [nn.Linear(width, 768), nn.ReLU(), nn.Linear(768, 512), nn.ReLU(), nn.Linear(512, 128)]
    return nn.Sequential(*layers)


def timed(step: Callable[[], None], steps: int, device: torch.device) -> float:
    """Return the median seconds of a step after a first one."""
    step()
    found = []
    for _ in range(steps):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return sorted(found)[len(found) // 2]


def thesis_way(device: torch.device, steps: int, *, small: bool, adapted: bool = False) -> float:
    """Anchor, positive and negative each through the model on its own; fp32; AdamW."""
    model = hub_model(small)
    if adapted:
        targets = list(Ast.lora_targets)
        adapters = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets)
        model = peft.get_peft_model(model, adapters)
    model = model.to(device).train()
    top = head(model.config.hidden_size).to(device).train()
    optimizer = torch.optim.AdamW([*model.parameters(), *top.parameters()], lr=1e-4)
    features = torch.randn(3, CHUNKS // 3, 1024, MELS, device=device)

    def step() -> None:
        anchor, positive, negative = (
            nn.functional.normalize(top(model(part).last_hidden_state.mean(1)), dim=-1)
            for part in features
        )
        loss = losses.triplet_loss(anchor, positive, negative)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return timed(step, steps, device) / CHUNKS


def our_way(
    device: torch.device,
    steps: int,
    *,
    keep: float = 1.0,
    small: bool,
    compiled: bool = False,
    adapted: bool = False,
) -> tuple[float, str]:
    """One pass over the batch, every triplet of it, the number format by the probe.

    Compiled where that is asked for: blocks as `run.compile` takes them, and left so however long
    they take.
    """
    backbone = Ast(hub_model(small), source="random", licence="")
    if adapted:
        lora.add(backbone, rank=RANK, seed=0)
    encoder = Encoder(backbone, generator=torch.Generator().manual_seed(0)).to(device).train()
    genre = torch.zeros(3, dtype=torch.long)
    loss = losses.build(config.LossConfig(), n_labels=3, embedding_size=128, label_genre=genre).to(
        device
    )
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-4, fused=True)
    features = torch.randn(CHUNKS, FRAMES, MELS, device=device)
    label = torch.arange(3, device=device).repeat_interleave(CHUNKS // 3)
    track = torch.arange(CHUNKS, device=device)
    generator = torch.Generator().manual_seed(0)

    def step(bf16: bool, chunks: int = CHUNKS) -> None:
        with hardware.autocast(device, bf16):
            pooled = encoder.pooled(features[:chunks], keep=keep, generator=generator)
            vectors = encoder.project(pooled).float()
        loss(vectors, label[:chunks], track[:chunks], track[:chunks]).value.backward()
        if chunks == CHUNKS:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    bf16, why = hardware.pick_bf16("auto", device)
    if compiled:
        for block in optim.blocks(backbone):
            block.compile()
    return timed(lambda: step(bf16), steps, device) / CHUNKS, why


def throughput(
    device: torch.device, steps: int, *, small: bool, compiled: bool
) -> dict[str, float]:
    size = "small" if small else "full-size"
    print(f"{size} AST on {device}, {torch.get_num_threads()} threads")
    print(f"{'':32}{'s per chunk':>12}{'ratio':>8}", flush=True)
    theirs = thesis_way(device, steps, small=small)
    _row("thesis's way, fp32", theirs, 1.0)
    ours, why = our_way(device, steps, small=small)
    _row("ours", ours, theirs / ours)
    fewer, _ = our_way(device, steps, keep=1.0 - PATCHOUT, small=small)
    _row(f"ours, patchout {PATCHOUT:g}", fewer, theirs / fewer)
    peft_s = thesis_way(device, steps, small=small, adapted=True)
    _row("peft's LoRA, the thesis's way", peft_s, 1.0)
    lora_s, _ = our_way(device, steps, small=small, adapted=True)
    _row("ours, LoRA", lora_s, peft_s / lora_s)
    found = {"thesis_s": theirs, "ours_s": ours, "patchout_s": fewer, "ratio": theirs / ours}
    found |= {"peft_lora_s": peft_s, "lora_s": lora_s, "lora_ratio": peft_s / lora_s}
    if compiled:
        found["compiled_s"], _ = our_way(device, steps, small=small, compiled=True)
        _row("ours, torch.compile", found["compiled_s"], theirs / found["compiled_s"])
    print(why)
    return found


def _row(name: str, seconds: float, ratio: float) -> None:
    print(f"{name:32}{seconds:12.4f}{ratio:8.2f}", flush=True)


def until(
    device: torch.device, features: Path, epochs: int, windows: int | None, threads: int
) -> dict[str, object]:
    """Seconds until the validation MAP@R is reached that the thesis's training ends with.

    Both in fp32, one after the other, with the same validation tracks. The best of its epochs is a
    second target: a few dozen validation tracks make the last one jump.
    """
    torch.set_num_threads(threads)
    folder = FeatureFolder.open(features)
    train = splits.split(folder.tracks).train
    thesis = config.load_recipe("thesis")
    thesis = config.replace(thesis, "model", backbone="musicnn", tune="full")
    thesis = config.replace(thesis, "run", precision="fp32")
    thesis = config.replace(thesis, "watch", val_share=0.2)
    thesis = config.replace(thesis, "optim", epochs=epochs)
    runs = {"thesis": thesis, "gpu": head_first(thesis)}
    seen = np.concatenate([folder.rows([track])[:windows] for track in train])
    found = {}
    for name, settings in runs.items():
        print(f"{name}, {threads} threads", flush=True)
        found[name] = history(folder, train, settings, seen, device)
        scores = " ".join(f"{row.val_map_at_r or 0:.3f}" for row in found[name][0])
        print(f"MAP@R after each epoch: {scores}", flush=True)
    rows = found["thesis"][0]
    last, best = rows[-1].val_map_at_r or 0.0, max(row.val_map_at_r or 0.0 for row in rows)
    whole = [sum(row.seconds for row in side) for side, _ in found.values()]
    print(f"\n{len(seen)} windows of {len(train)} tracks, a fifth of them held out")
    print(f"{'s until validation MAP@R':38}{'thesis':>9}{'gpu':>9}{'ratio':>8}")
    result: dict[str, object] = {"whole_s": dict(zip(found, whole, strict=True))}
    for title, target, ended in (
        ("the thesis's last, at its end", last, True),
        ("the thesis's last, first passed", last, False),
        ("the thesis's best", best, False),
    ):
        theirs, ours = (_reached(side, target) for side, _ in found.values())
        theirs = whole[0] if ended else theirs
        print(f"{f'{title}, {target:.3f}':38}{theirs:9.1f}{ours:9.1f}{theirs / ours:8.2f}")
        seconds = ours if math.isfinite(ours) else None  # never reached
        result[title] = {"target": target, "thesis_s": theirs, "ours_s": seconds}
    print(f"{'the whole training':38}{whole[0]:9.1f}{whole[1]:9.1f}")
    shares = [share for _, share in found.values()]
    print(f"{'processor seconds in a second':38}{shares[0]:9.2f}{shares[1]:9.2f}")
    return result


def head_first(thesis: config.TrainConfig) -> config.TrainConfig:
    """The recipe `gpu` as it is, on the backbone, number format and validation of `thesis`."""
    ours = config.load_recipe("gpu")
    ours = config.replace(ours, "model", backbone=thesis.model.backbone)
    ours = config.replace(ours, "run", precision=thesis.run.precision)
    ours = config.replace(ours, "watch", val_share=thesis.watch.val_share)
    return disable_unused(ours, transformer=False)[0]


def history(
    folder: FeatureFolder,
    train: tuple[str, ...],
    settings: config.TrainConfig,
    seen: np.ndarray,
    device: torch.device,
) -> tuple[tuple[Epoch, ...], float]:
    """Train; give the rows of its epochs, and the processor seconds in a second of the clock."""
    wall, processor = time.perf_counter(), time.process_time()
    rows = fit.fit(
        folder, train, settings, device=device, only=seen, console=Aloud()
    ).result.history
    return rows, (time.process_time() - processor) / (time.perf_counter() - wall)


class Aloud(Silent):
    """Prints what a training tells."""

    def info(self, text: str) -> None:
        """Print at once: a run takes an hour."""
        print(text, flush=True)


def _reached(history: tuple[Epoch, ...], target: float) -> float:
    """Seconds of the epochs up to the first that reaches the target; inf where none does."""
    total = 0.0
    for row in history:
        total += row.seconds
        if (row.val_map_at_r or 0.0) >= target:
            return total
    return float("inf")


def run(arguments: argparse.Namespace) -> None:
    device = hardware.pick_device(arguments.device)
    found: dict[str, object] = {}
    if arguments.steps:
        found["throughput"] = throughput(
            device, arguments.steps, small=arguments.small, compiled=arguments.compile
        )
    if arguments.features:
        found["until"] = until(
            device, arguments.features, arguments.epochs, arguments.windows, arguments.threads
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=3, help="timed steps; 0: leave part 1 out")
    options.add_argument("--device", default="auto")
    options.add_argument("--small", action="store_true", help="a small AST, to see that it runs")
    options.add_argument("--compile", action="store_true", help="a row for torch.compile too")
    options.add_argument("--features", type=Path, help="a musicnn feature folder, for part 2")
    options.add_argument("--epochs", type=int, default=30, help="of the thesis, in part 2")
    options.add_argument("--windows", type=int, help="of a track, in part 2; by default all")
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of part 2")
    options.add_argument("--json", type=Path)
    return options


if __name__ == "__main__":
    run(parser().parse_args())
