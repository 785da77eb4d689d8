"""One epoch of triplet training: sentence-transformers 6.2 against ours, on the same AST folder.

Same weights, same audio, same batch size, `BatchSemiHardTripletLoss` there and semi-hard
mining here; fp32 on both sides, feature extraction outside the timed loop on both, and an epoch (or
a batch, on our side) before the timed one. The two take turns; the median of the rounds counts. The
peer lives in a virtual environment of its own, which this script makes in a temporary folder
(network needed) unless --peer-python names one.

Run: python benchmarks/sentence_transformers_peer.py [--tracks 4] [--batch 8] [--rounds 3] [--full]
     [--peer-python VENV/bin/python]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from statistics import median

import numpy as np
import torch

RATE, SECONDS, LABELS = 16_000, 10, 4
CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
SMALL = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3}
SMALL["intermediate_size"] = 768

# Runs in the peer's environment. The transform that extracts features is taken out of the loop: the
# collator is handed what it made before the clock starts.
PEER = """
import json, sys, time
import numpy as np, torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
from sentence_transformers.sentence_transformer.losses import BatchSemiHardTripletLoss
from transformers import TrainerCallback

folder, audio, batch, out = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(int(sys.argv[5]))
model = SentenceTransformer(folder, device="cpu")
clips = [{"array": clip, "sampling_rate": 16000} for clip in audio["samples"]]
extract = model.preprocess if hasattr(model, "preprocess") else model.tokenize
made = [extract([clip]) for clip in clips]
class Collator:
    valid_label_columns = ["label"]
    def __call__(self, rows):
        parts = [made[row["clip"]] for row in rows]
        found = {}
        for key, value in parts[0].items():
            if torch.is_tensor(value):
                found["clip_" + key] = torch.cat([part[key] for part in parts])
            else:
                found["clip_" + key] = value
        found["label"] = torch.tensor([row["label"] for row in rows])
        return found
class Clock(TrainerCallback):
    def on_epoch_begin(self, args, state, control, **rest):
        self.start, self.first = time.perf_counter(), state.global_step
    def on_epoch_end(self, args, state, control, **rest):
        self.seconds = time.perf_counter() - self.start
        self.steps = state.global_step - self.first
clock = Clock()
data = Dataset.from_dict({"clip": list(range(len(clips))), "label": audio["labels"].tolist()})
arguments = Arguments(output_dir=out, num_train_epochs=2, per_device_train_batch_size=batch,
    batch_sampler="group_by_label", learning_rate=1e-4, use_cpu=True, save_strategy="no",
    report_to="none", logging_strategy="no", disable_tqdm=True, remove_unused_columns=False)
trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data,
    loss=BatchSemiHardTripletLoss(model), data_collator=Collator(), callbacks=[clock])
trainer.train()
print(json.dumps({"seconds": clock.seconds, "steps": clock.steps}))
"""


def save_ast(path: Path, *, full: bool) -> None:
    """Save an AST of random weights with its feature extractor, as the peer loads it."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    torch.manual_seed(0)
    ASTModel(ASTConfig(**({} if full else SMALL))).save_pretrained(path)
    ASTFeatureExtractor().save_pretrained(path)


def make_audio(path: Path, tracks: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise of a colour of its own for each label: [n, samples] and labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(LABELS), tracks)
    samples = []
    for label in labels:
        noise = rng.normal(size=RATE * SECONDS)
        samples.append(np.convolve(noise, np.ones(1 + 3 * label), "same"))
    found = (np.array(samples) / 10).astype(np.float32)
    np.savez(path, samples=found, labels=labels)
    return found, labels


def peer_python(folder: Path) -> Path:
    """Make the peer's environment."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "-q", "--constraint", str(CONSTRAINTS)]
    subprocess.run([*command, "sentence-transformers[train]>=6.2"], check=True)
    return python


def theirs(python: Path, place: Path, batch: int, threads: int) -> dict[str, float]:
    command = [str(python), "-c", PEER, str(place / "ast"), str(place / "audio.npz")]
    command += [str(batch), str(place / "out"), str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def ours(place: Path, samples: np.ndarray, labels: np.ndarray, batch: int) -> dict[str, float]:
    """The same epoch: shuffled batches, each clip once, semi-hard triplets of the batch."""
    from subgenre import config, losses
    from subgenre.audio import features
    from subgenre.models import backbones
    from subgenre.models.encoder import Encoder

    backbone = backbones.load(str(place / "ast"))
    encoder = Encoder(backbone, head=(), generator=torch.Generator().manual_seed(0)).train()
    mels = features.log_mel(torch.from_numpy(samples), backbone.spec)
    encoder.set_statistics(features.Statistics.of(mels))
    genre = torch.zeros(LABELS, dtype=torch.long)
    loss = losses.build(
        config.LossConfig(mining="semihard"), n_labels=LABELS, embedding_size=128, label_genre=genre
    )
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-4, fused=True)
    label, track = torch.from_numpy(labels), torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    steps = 0
    for chosen in order.split(batch):
        vectors = encoder(mels[chosen])
        loss(vectors, label[chosen], track[chosen], track[chosen]).value.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)  # as the peer's trainer does
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
    return {"seconds": time.perf_counter() - start, "steps": steps}


def run(arguments: argparse.Namespace) -> None:
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        save_ast(place / "ast", full=arguments.full)
        samples, labels = make_audio(place / "audio.npz", arguments.tracks)
        python = arguments.peer_python or peer_python(place / "venv")
        ours(place, samples[: arguments.batch], labels[: arguments.batch], arguments.batch)
        rounds = []
        for _ in range(arguments.rounds):
            mine = ours(place, samples, labels, arguments.batch)
            rounds.append((theirs(python, place, arguments.batch, threads), mine))
    print(f"{len(labels)} chunks of 10 s, batches of {arguments.batch}, {threads} threads, fp32")
    print(f"{'':24}{'s an epoch':>12}{'steps':>8}{'s a step':>10}{'ratio':>8}   each round")
    # a step, not an epoch: the peer's sampler leaves out what does not fill a batch
    each = [
        [found["seconds"] / found["steps"] for found in side] for side in zip(*rounds, strict=True)
    ]
    for i, title in enumerate(("sentence-transformers", "ours")):
        step, steps = median(each[i]), rounds[0][i]["steps"]
        row = f"{title:24}{step * steps:12.2f}{steps:8.0f}{step:10.2f}{median(each[0]) / step:8.2f}"
        print(row + "   " + ", ".join(f"{seconds:.2f}" for seconds in each[i]))


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--tracks", type=int, default=4, help="of each of four labels")
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--full", action="store_true", help="the full-size AST")
    options.add_argument("--peer-python", type=Path)
    return options


if __name__ == "__main__":
    sys.exit(run(parser().parse_args()))
