"""Several processes train one model: what one process would have trained."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from subgenre import cli
from subgenre.audio.features import AST_SPEC
from subgenre.config import TrainConfig
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import Interrupted, TrainingError
from subgenre.models import embedding
from subgenre.models.cache import CACHE
from subgenre.training import checkpoint, distributed, fit, trainer
from subgenre.training.distributed import Group
from tests.folders import make_folder
from tests.toy import make_ast_folder
from tests.training.test_distributed import free_port, join, two_processes
from tests.training_runs import ids, recipe, weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", trash=2)


@pytest.mark.slow
def test_torchrun_gives_one_model_and_an_error_ends_every_process(
    folder: FeatureFolder, tmp_path: Path
) -> None:
    words = ["train", "--recipe", "thesis", "--backbone", "musicnn", "--tune", "head"]
    words += ["--features", str(folder.path), "--epochs", "1", "--out", str(tmp_path / "model")]
    words += ["--device", "cpu", "--json"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += [f"--master-port={free_port()}", "-m", "subgenre", *words]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "model" / "config.toml").is_file()
    assert found.stderr.count("epoch 1 of 1") == 1
    assert json.loads(found.stdout)["run"] == str(tmp_path / "model")
    two_processes(_fails, words, tmp_path)
    texts = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert "is not empty" in texts[0]
    assert "another process of this run stopped" in texts[1]


def _fails(rank: int, port: int, words: list[str], out: Path) -> None:
    """Run a command that fails in the first process; note the exit code and what it prints."""
    join(rank, port)
    with (out / f"{rank}.txt").open("w") as err, contextlib.redirect_stderr(err):
        assert cli.main(words) == 2


def _shared(world: int) -> TrainConfig:
    """Batches of 2 tracks a process, or of 2 x world in one."""
    return recipe(
        batch={"kind": "pk", "subgenres": 0, "tracks": 2 * world, "chunks": 2},
        loss={"name": "supcon"},
        optim={"epochs": 3},
    )


def _head_first(
    features: Path, backbone: str, world: int, *, layer: int, group: Group | None = None
) -> dict[str, Any]:
    """Train a toy AST, in the first epochs its head alone."""
    folder = FeatureFolder.open(features)
    model = {"backbone": backbone, "tune": "full", "head": (16,), "embedding_size": 8}
    settings = recipe(
        model={**model, "layer": layer},
        batch={"kind": "pk", "subgenres": 0, "tracks": 2 * world, "chunks": 1},
        loss={"name": "supcon"},
        optim={"epochs": 3, "head_epochs": 2},
        run={"precision": "fp32", "device": "cpu"},
    )
    fitted = fit.fit(folder, ids(folder), settings, group=group)
    losses = [row.loss for row in fitted.result.history]
    return {"weights": fitted.encoder.state_dict(), "loss": losses}


@dataclass(frozen=True)
class _Place:
    """Features, a toy AST, features for it, and where the ranks save what they find."""

    features: Path
    ast: Path
    ast_features: Path
    out: Path


def _rank(rank: int, port: int, place: _Place) -> None:
    """Train as one of two, on the frozen backbone and on the toy AST."""
    group = join(rank, port)
    folder = FeatureFolder.open(place.features)
    fitted = fit.fit(folder, ids(folder), _shared(1), group=group)
    history = [row.loss for row in fitted.result.history]
    torch.save({"weights": weights(fitted), "loss": history}, place.out / f"{rank}.pt")
    for layer in (-1, 0):
        found = _head_first(place.ast_features, str(place.ast), 1, layer=layer, group=group)
        torch.save(found, place.out / f"{rank}{layer}.pt")
    distributed.stop()


@pytest.fixture(scope="module")
def two_ranks(folder: FeatureFolder, tmp_path_factory: pytest.TempPathFactory) -> _Place:
    """What two processes have trained."""
    root = tmp_path_factory.mktemp("ranks")
    ast = make_folder(
        root / "features", tracks=4, chunks=1, trash=2, spec=AST_SPEC, chunk_s=0.5
    ).path
    place = _Place(folder.path, make_ast_folder(root / "toy"), ast, root)
    two_processes(_rank, place)
    return place


@pytest.mark.slow
def test_two_ranks_equal_one_with_twice_the_batch(folder: FeatureFolder, two_ranks: _Place) -> None:
    alone = fit.fit(folder, ids(folder), _shared(2))
    for rank in range(2):
        found = torch.load(two_ranks.out / f"{rank}.pt", weights_only=True)
        assert found["loss"] == pytest.approx([r.loss for r in alone.result.history], rel=1e-5)
        for name, tensor in weights(alone).items():
            assert torch.allclose(found["weights"][name], tensor, atol=1e-5), name


@pytest.mark.slow
def test_two_ranks_train_the_head_first_as_one_does(two_ranks: _Place) -> None:
    features, backbone = two_ranks.ast_features, str(two_ranks.ast)
    for layer in (-1, 0):
        alone = _head_first(features, backbone, 2, layer=layer)
        for rank in range(2):
            found = torch.load(two_ranks.out / f"{rank}{layer}.pt", weights_only=True)
            assert found["loss"] == pytest.approx(alone["loss"], rel=1e-4)
            for name, tensor in alone["weights"].items():
                if layer == 0 and ".layers.1." in name:  # has no gradient in any process
                    assert torch.equal(found["weights"][name], tensor), name
                elif not name.endswith("k_proj.bias"):  # has one of rounding alone
                    off = (found["weights"][name] - tensor).abs()
                    assert off.mean() < 2e-6, name  # a step is 1e-3, also of a tiny gradient


def _by_ranks(rank: int, port: int, place: _Place, out: Path) -> None:
    """Train as one of two on frozen outputs, and note which chunks this process has encoded."""
    group, run = join(rank, port), embedding._run
    encoded: list[int] = []

    def noted(network: Any, folder: FeatureFolder, rows: Any, device: Any) -> Any:
        encoded.extend(rows.tolist())
        return run(network, folder, rows, device)

    embedding._run = noted
    for name, settings in _frozen(place).items():
        encoded.clear()
        folder = FeatureFolder.open(out / name)
        fitted = fit.fit(folder, ids(folder), settings, group=group)
        found = {"weights": fitted.encoder.state_dict(), "encoded": encoded}
        torch.save(found, out / f"{name}{rank}.pt")
    distributed.stop()


def _frozen(place: _Place) -> dict[str, TrainConfig]:
    """Recipes that cache the backbone's pooled output, and the activations of its first block."""
    model = {"backbone": str(place.ast), "tune": "last:1", "head": (16,), "embedding_size": 8}
    batch = {"kind": "pk", "subgenres": 0, "tracks": 2, "chunks": 1}
    short = {"optim": {"epochs": 2}, "run": {"precision": "fp32", "device": "cpu"}}
    last = recipe(model=model, batch=batch, loss={"name": "supcon"}, **short)
    return {"head": _shared(1), "last": last}


@pytest.mark.slow
def test_the_frozen_output_is_made_in_shares(two_ranks: _Place, tmp_path: Path) -> None:
    """The same cache and the same weights, byte for byte, as where one process has made it all."""
    sources = {"head": two_ranks.features, "last": two_ranks.ast_features}
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    for name, settings in _frozen(two_ranks).items():
        for place in (shared, alone):
            shutil.copytree(sources[name], place / name, ignore=lambda *_: [CACHE])
        folder = FeatureFolder.open(alone / name)
        fit.fit(folder, ids(folder), settings)  # fills the cache
    two_processes(_by_ranks, two_ranks, shared)
    two_processes(_by_ranks, two_ranks, alone)
    for name in sources:
        caches = [sorted((place / name / CACHE).iterdir()) for place in (shared, alone)]
        assert [path.name for path in caches[0]] == [path.name for path in caches[1]]
        assert [p.read_bytes() for p in caches[0]] == [p.read_bytes() for p in caches[1]]
        n = len(FeatureFolder.open(sources[name]).track_of)
        encoded = []
        for rank in range(2):
            one, other = (
                torch.load(place / f"{name}{rank}.pt", weights_only=True)
                for place in (shared, alone)
            )
            assert one["weights"].keys() == other["weights"].keys()
            for key, tensor in one["weights"].items():
                assert torch.equal(tensor, other["weights"][key]), key
            assert set(other["encoded"]) <= {0}  # a probe of the shape
            assert len(set(one["encoded"])) < 0.7 * n
            encoded += one["encoded"]
        assert set(encoded) == set(range(n))


def _stopped_rank(rank: int, port: int, features: Path, out: Path) -> None:
    """Train as one of two, with a request to stop; note what is saved when this process leaves."""
    group, save, step = join(rank, port), checkpoint.save, trainer.Trainer._step
    requested: list[int] = []

    def slowly(*arguments: Any) -> None:
        time.sleep(1)
        save(*arguments)

    def noted(self: trainer.Trainer, *arguments: Any, **options: Any) -> None:
        step(self, *arguments, **options)
        requested.append(rank)

    checkpoint.save, trainer.Trainer._step = slowly, noted  # type: ignore[method-assign]
    folder = FeatureFolder.open(features)
    place: dict[str, Any] = {"group": group, "checkpoints": out / "run", "fingerprint": {}}
    with pytest.raises(Interrupted):
        fit.fit(folder, ids(folder), _shared(1), stop_requested=lambda: 1 in requested, **place)
    done = checkpoint.load(out / "run" / checkpoint.NAME, {})["done"]
    (out / f"{rank}.txt").write_text(str(done), encoding="utf-8")
    distributed.stop()


@pytest.mark.slow
def test_no_process_leaves_before_the_first_has_saved(
    folder: FeatureFolder, tmp_path: Path
) -> None:
    """torchrun kills the others soon after one has left."""
    fit.fit(folder, ids(folder), _shared(1))  # the frozen backbone's output is cached
    two_processes(_stopped_rank, folder.path, tmp_path)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["1", "1"]


def _sees_another(rank: int, port: int, features: Path, out: Path) -> None:
    """Resume as one of two, where the second one does not yet see the checkpoint."""
    group = join(rank, port)
    folder = FeatureFolder.open(features)
    run: dict[str, Any] = {"group": group, "checkpoints": out, "fingerprint": {}}
    fit.fit(folder, ids(folder), _shared(1), **run)
    seen = None if rank else out / checkpoint.NAME
    reason = "another process" if rank == 0 else r"after step 0 here, after step \d+ in the first"
    with pytest.raises(TrainingError, match=reason):
        fit.fit(folder, ids(folder), _shared(1), **run, resume=seen)
    distributed.stop()


@pytest.mark.slow
def test_processes_that_see_different_checkpoints_stop(
    folder: FeatureFolder, tmp_path: Path
) -> None:
    """A network file system may show another machine the newest file some seconds later."""
    fit.fit(folder, ids(folder), _shared(1))  # the frozen backbone's output is cached
    two_processes(_sees_another, folder.path, tmp_path)
