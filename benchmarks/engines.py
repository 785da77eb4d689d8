"""Engines of a frozen AST on the CPU, against the hub's own `ASTModel` in fp32 eager.

A full-size AST (the defaults of `ASTConfig`, random weights of a fixed seed) on a sweep in
noise. Per engine: seconds a chunk, the hub's and ours in turn, medians of wall and of processor
seconds, their ratios, and the cosine of the pooled vectors. Marks: the fastest engine at least 3
times as fast as the hub in processor seconds, at a cosine of at least .999.

Then files of five minutes are embedded by the fastest engine, converted before: the share of the
processor that this work takes, all cores and workers together. Mark: .90. Other work on the machine
lowers it: the share of the cores that nothing used is printed beside.

    python benchmarks/engines.py [--tracks 12] [--rounds 3] [--audio FOLDER]
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import soundfile
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from subgenre.audio.features import AST_SPEC, Statistics, log_mel
from subgenre.core import parallel
from subgenre.errors import SubgenreError
from subgenre.models import backbones, engines, file_embedding
from subgenre.models.backbones.hub import quiet
from subgenre.models.encoder import Encoder

N_CHUNKS, CHUNK_S = 4, 10
RATE, FILE_S = 44_100, 300
FASTER, BUSY = 3.0, 0.90
SAMPLE_EVERY_S = 0.2


def sweep(rng: np.random.Generator, rate: int, start_s: float, length_s: float) -> np.ndarray:
    """Noise under a sweep, so that no frame is cheap or like another."""
    t = start_s + np.arange(round(rate * length_s)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (200 * t + 30 * np.sin(t)))
    return (tone + 0.1 * rng.standard_normal(len(t))).astype(np.float32)


def save_ast(folder: Path) -> Path:
    """Save an AST of full size as the hub's library does."""
    torch.manual_seed(0)
    with quiet():
        transformers.ASTModel(transformers.ASTConfig()).save_pretrained(folder)
    return folder


def load(folder: Path, engine: str, features: Tensor) -> Encoder:
    """An encoder around the AST of the folder."""
    backbone = backbones.load(str(folder))
    backbone.engine = engine
    encoder = Encoder(backbone, generator=torch.Generator().manual_seed(0)).eval()
    encoder.set_statistics(Statistics.of(features))
    return encoder


def hub_network(folder: Path, encoder: Encoder) -> Callable[[Tensor], Tensor]:
    """The hub's own network and the mean of its tokens, on our inputs."""
    with quiet():
        model = transformers.ASTModel.from_pretrained(folder).eval()
    return lambda x: model(encoder.inputs(x)).last_hidden_state.mean(1)


def timed(run: Callable[[], Tensor]) -> tuple[float, float, Tensor]:
    """Wall and processor seconds of this process, and the result."""
    wall, used = time.perf_counter(), time.process_time()
    found = run()
    return time.perf_counter() - wall, time.process_time() - used, found


@torch.inference_mode()
def compare(folder: Path, rounds: int) -> tuple[Encoder, engines.Frozen, bool]:
    """Print the table; return the network in the fastest engine, and whether it keeps the marks."""
    rng = np.random.default_rng(0)
    samples = np.stack([sweep(rng, AST_SPEC.rate, 37.0 * i, CHUNK_S) for i in range(N_CHUNKS)])
    features = log_mel(torch.from_numpy(samples), AST_SPEC)
    encoder = load(folder, "torch", features)
    runs: dict[str, Callable[[Tensor], Tensor]] = {"hub": hub_network(folder, encoder)}
    ours: dict[str, tuple[Encoder, engines.Frozen]] = {}
    for engine in ("torch", "openvino", "onnx"):
        one = load(folder, engine, features)
        frozen = engines.Frozen(one, one.pooled)
        start = time.perf_counter()
        try:
            frozen(features[:1])
        except SubgenreError as problem:
            print(f"{engine}: {problem}")
            continue
        print(f"{engine}: ready in {time.perf_counter() - start:.1f} s", flush=True)
        runs[engine], ours[engine] = frozen, (one, frozen)
    wall: dict[str, list[float]] = {name: [] for name in runs}
    used: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, Tensor] = {}
    pairs = [features[i : i + 2] for i in range(0, N_CHUNKS, 2)]  # as many as a CPU gets at a time
    for _ in range(rounds):
        for name, run in runs.items():
            seconds, processor, out = timed(lambda: torch.cat([run(two) for two in pairs]))  # noqa: B023
            wall[name].append(seconds / N_CHUNKS)
            used[name].append(processor / N_CHUNKS)
            found[name] = out
    titles = f"{'s/chunk':>9}{'ratio':>7}{'cpu s':>9}{'ratio':>7}{'cosine: min':>13}{'mean':>10}"
    print(f"\n{'':10}{titles}")
    ratios, cosines = {}, {}
    for name in runs:
        seconds, processor = median(wall[name]), median(used[name])
        cosine = F.cosine_similarity(found[name].double(), found["hub"].double())
        ratios[name], cosines[name] = median(used["hub"]) / processor, float(cosine.min())
        print(
            f"{name:10}{seconds:9.3f}{median(wall['hub']) / seconds:7.2f}{processor:9.3f}"
            f"{ratios[name]:7.2f}{cosines[name]:13.6f}{float(cosine.mean()):10.6f}"
        )
    fastest = max(ours, key=ratios.__getitem__)
    good = ratios[fastest] >= FASTER and cosines[fastest] >= engines.AGREES
    print(f"fastest: {fastest}; {FASTER:g} times in processor seconds: {'yes' if good else 'NO'}")
    return *ours[fastest], good


class Meter:
    """Processor seconds of this process and all that it starts, until it is stopped."""

    def __enter__(self) -> Meter:
        self._of: dict[tuple[int, float], float] = {}
        self._stop = threading.Event()
        self._read()
        self._before = sum(self._of.values())
        self._idle, self._start = psutil.cpu_times().idle, time.perf_counter()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        wall = time.perf_counter() - self._start
        self.idle = (psutil.cpu_times().idle - self._idle) / (wall * psutil.cpu_count())
        self._stop.set()
        self._thread.join()
        self._read()
        self.wall = wall
        self.busy = (sum(self._of.values()) - self._before) / (wall * parallel.worker_count())

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY_S):
            self._read()

    def _read(self) -> None:
        own = psutil.Process()
        for process in (own, *own.children(recursive=True)):
            try:
                times = process.cpu_times()
                self._of[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:  # it has ended
                continue


def embed(encoder: Encoder, pooled: engines.Frozen, audio: list[Path]) -> bool:
    """Embed the files and print the share of the processor; return whether it keeps the mark."""
    with Meter() as meter:
        found = file_embedding.embed_files(encoder, audio, pooled=pooled)
    good = meter.busy >= BUSY
    print(
        f"{len(found.paths)} files, {len(found.chunks)} chunks by {encoder.backbone.engine}: "
        f"{meter.wall:.1f} s, busy {meter.busy:.2f} of {parallel.worker_count()} cores, unused by "
        f"anyone {meter.idle:.2f}; {BUSY:g} busy: {'yes' if good else 'NO'}"
    )
    for skipped in found.skipped:
        print(f"skipped: {skipped}")
    return good


def tracks(place: Path, count: int) -> list[Path]:
    """Write a file of five minutes, and copies of it."""
    first = place / "0.mp3"
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(first, "w", RATE, 2, format="MP3") as file:
        for second in range(FILE_S):
            file.write(np.repeat(sweep(rng, RATE, second, 1.0)[:, None], 2, axis=1))
    return [first, *(shutil.copy(first, place / f"{i}.mp3") for i in range(1, count))]


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("--tracks", type=int, default=12)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--audio", type=Path, help="a folder of files to embed instead")
    given = options.parse_args()
    load_1, threads = os.getloadavg()[0], torch.get_num_threads()
    print(f"{threads} threads of {parallel.worker_count()} cores; load before: {load_1:.1f}")
    with tempfile.TemporaryDirectory(prefix="subgenre-") as place:
        folder = save_ast(Path(place) / "ast")
        encoder, pooled, fast = compare(folder, given.rounds)
        own = sorted(p for p in given.audio.rglob("*") if p.is_file()) if given.audio else None
        audio = own or tracks(Path(place), given.tracks)
        busy = embed(encoder, pooled, audio)
    return 0 if fast and busy else 1


if __name__ == "__main__":
    raise SystemExit(main())
