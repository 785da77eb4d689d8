from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from subgenre import batches, checkpoint, config, distributed, metrics, splits, train
from subgenre.config import TrainConfig
from subgenre.distributed import Group
from subgenre.errors import CollapseError, ConfigError, NotFiniteError
from subgenre.features import AST_SPEC
from subgenre.pipeline import fit, score, stopping
from subgenre.pipeline import train as stage
from subgenre.pipeline.lacking import lacking
from subgenre.sources import VectorSource
from subgenre.splits import Split
from subgenre.store import FeatureFolder
from tests.folders import make_folder
from tests.test_distributed import free_port, join
from tests.toy import make_ast_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", trash=2)


def recipe(**sections: dict[str, Any]) -> TrainConfig:
    """A small head on the frozen built-in backbone."""
    base = config.load_recipe("thesis")
    base = config.replace(base, "model", backbone="musicnn", tune="head", head=(32,))
    base = config.replace(base, "optim", epochs=3, lr=1e-3)
    for section, values in sections.items():
        base = config.replace(base, section, **values)
    return base


def ids(folder: FeatureFolder) -> tuple[str, ...]:
    return tuple(track.id for track in folder.tracks)


def weights(fitted: fit.Fitted) -> dict[str, torch.Tensor]:
    return {k: v for k, v in fitted.encoder.state_dict().items() if not k.startswith("backbone")}


def same(a: fit.Fitted, b: fit.Fitted) -> bool:
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_training_learns_what_is_there_and_says_so(folder: FeatureFolder) -> None:
    fitted = fit.fit(folder, ids(folder), recipe(optim={"epochs": 6}))
    history = fitted.result.history
    assert [row.epoch for row in history] == list(range(1, 7))
    assert history[-1].loss < 0.5 * history[0].loss
    assert history[-1].active < history[0].active
    assert all(0 <= row.spread <= 1 for row in history)


def test_a_seed_gives_the_same_weights_and_another_gives_others(folder: FeatureFolder) -> None:
    settings = recipe(model={"dropout": 0.2}, augment={"vector_noise": 0.1})
    first = fit.fit(folder, ids(folder), settings)
    torch.rand(5)  # the caller's generator plays no part
    assert same(first, fit.fit(folder, ids(folder), settings))
    other = config.replace(settings, "run", seed=1)
    assert not same(first, fit.fit(folder, ids(folder), other))


def test_training_leaves_the_callers_generator_alone(folder: FeatureFolder) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit.fit(folder, ids(folder), recipe(optim={"epochs": 1}))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stop_after", [1, 17])
@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"dropout": 0.2}},
        {
            "batch": {"kind": "pk", "subgenres": 0, "tracks": 2, "chunks": 1, "accumulate": 2},
            "loss": {"name": "proxy_anchor"},
            "watch": {"val_share": 0.25},
            "optim": {"epochs": 12},
        },
    ],
    ids=["triplets", "pk with proxies and validation"],
)
def test_an_interruption_changes_nothing(
    folder: FeatureFolder, tmp_path: Path, stop_after: int, sections: dict[str, Any]
) -> None:
    settings = recipe(**sections)
    whole = fit.fit(folder, ids(folder), settings)
    asked = iter(range(10_000))
    words = "--resume" if stop_after > 1 else "the same command again"  # before the first step
    with pytest.raises(train.Interrupted, match=words):
        fit.fit(
            folder,
            ids(folder),
            settings,
            checkpoints=tmp_path / "run",
            fingerprint={"a": "b"},
            stop_asked=lambda: next(asked) >= stop_after - 1,
        )
    (saved,) = checkpoint.fitting(tmp_path, {"a": "b"}) or (None,)
    resumed = fit.fit(folder, ids(folder), settings, resume=saved, fingerprint={"a": "b"})
    assert same(whole, resumed)
    drop = ("seconds",)
    rows = [
        [
            {k: v for k, v in dataclasses.asdict(row).items() if k not in drop}
            for row in run.result.history
        ]
        for run in (whole, resumed)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("loss", config.LOSSES)
def test_every_loss_trains(folder: FeatureFolder, loss: str) -> None:
    settings = recipe(
        batch={"kind": "pk", "subgenres": 0, "tracks": 4, "chunks": 2},
        loss={"name": loss, "margin": 0.3},
        optim={"epochs": 5},
    )
    history = fit.fit(folder, ids(folder), settings).result.history
    assert history[-1].loss < history[0].loss


def test_drawn_quadruplets_use_the_trash(folder: FeatureFolder) -> None:
    settings = recipe(loss={"name": "quadruplet"}, optim={"epochs": 4})
    history = fit.fit(folder, ids(folder), settings).result.history
    assert history[-1].loss < history[0].loss


def test_losses_without_drawn_triplets_say_what_to_set(folder: FeatureFolder) -> None:
    with pytest.raises(ConfigError, match='kind = "pk"'):
        fit.fit(folder, ids(folder), recipe(loss={"name": "supcon"}))


def test_a_learning_rate_of_ten_ends_with_the_error(folder: FeatureFolder, tmp_path: Path) -> None:
    """Whatever the batches and the loss, and however few the steps: no model is saved."""
    pk = {"kind": "pk", "subgenres": 0, "tracks": 4, "chunks": 2}
    for sections in (
        {},
        {"batch": pk},
        {"batch": pk, "loss": {"name": "supcon"}},
    ):
        settings = recipe(optim={"lr": 10.0, "epochs": 2}, **sections)
        with pytest.raises((CollapseError, NotFiniteError), match="lower the learning rate"):
            stage.train(folder.path, settings, out=tmp_path / "m", checkpoints=tmp_path / "c")
        assert not (tmp_path / "m").exists()


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = train.Trainer._loss, iter(range(10_000))

    def poisoned(self: train.Trainer, *arguments: Any) -> Any:
        result = real(self, *arguments)
        bad = next(calls) >= 40
        return dataclasses.replace(result, value=result.value * (float("nan") if bad else 1.0))

    monkeypatch.setattr(train.Trainer, "_loss", poisoned)
    with pytest.raises(NotFiniteError, match="last good checkpoint"):
        fit.fit(folder, ids(folder), recipe(), checkpoints=tmp_path / "run", fingerprint={})
    (saved,) = checkpoint.fitting(tmp_path, {})
    kept = checkpoint.load(saved, {})
    assert kept["epoch"] == 1
    assert all(bool(torch.isfinite(w).all()) for w in kept["weights"].values())


def test_early_stopping_restores_every_module(folder: FeatureFolder) -> None:
    settings = recipe(
        batch={"kind": "pk", "subgenres": 0, "tracks": 2, "chunks": 1},
        loss={"name": "proxy_anchor"},
        watch={"val_share": 0.25, "patience": 2},
        optim={"epochs": 200, "lr": 3e-2},
    )
    result = fit.fit(folder, ids(folder), settings).result
    values = [row.val_map_at_r for row in result.history]
    assert result.stopped_early
    assert len(values) == result.best_epoch + 2
    assert values[result.best_epoch - 1] == max(v for v in values if v is not None)
    short = config.replace(settings, "optim", epochs=result.best_epoch)
    assert same(fit.fit(folder, ids(folder), settings), fit.fit(folder, ids(folder), short))


def test_the_backbone_has_its_turn_before_anything_stops_early(tmp_path: Path) -> None:
    labels = (("a", "one"), ("b", "two"))
    small = make_folder(tmp_path / "features", labels=labels, tracks=6, chunks=1)
    settings = recipe(
        model={"tune": "last:1"},
        optim={"epochs": 8, "head_epochs": 3, "lr": 1e-12, "backbone_lr": 1e-12},
        watch={"val_share": 0.4, "patience": 1},
        batch={"size": 4},
        run={"precision": "fp32"},
    )
    result = fit.fit(small, ids(small), settings).result
    assert result.best_epoch == 1  # nothing moves at such a rate
    assert len(result.history) == 4
    assert result.stopped_early
    settings = config.replace(settings, "optim", epochs=4)
    assert not fit.fit(small, ids(small), settings).result.stopped_early


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_what_is_left_of_an_epoch_is_added_up_as_what_it_is(
    folder: FeatureFolder, clip: float
) -> None:
    """More accumulation than an epoch has steps is all of them; twice as much is no smaller."""
    batch = {"kind": "pk", "subgenres": 2, "tracks": 2, "chunks": 1, "same_genre": 0.0}

    def trained(accumulate: int) -> fit.Fitted:
        optim = {"epochs": 3, "lr": 1e-2, "clip_norm": clip}
        settings = recipe(batch={**batch, "accumulate": accumulate}, optim=optim)
        return fit.fit(folder, ids(folder), settings)

    n = -(-len(folder.track_of[folder.rows(ids(folder))]) // 4)  # 2 x 2 x 1 chunks a step
    assert same(trained(n), trained(10 * n))
    assert not same(trained(n), trained(1))


def test_a_network_that_was_compiled_stays_so_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled code rounds otherwise: a probe that decides anew would change the weights."""
    from subgenre import precision

    probes: list[int] = []

    def probe(blocks: list[torch.nn.Module], _step: object) -> str:
        probes.append(1)
        precision.set_compiled(blocks, len(probes) == 1)
        return ""

    seen: list[bool] = []
    was = precision.set_compiled
    monkeypatch.setattr(torch, "compile", lambda call: call)
    monkeypatch.setattr(precision, "compile_if_faster", probe)
    monkeypatch.setattr(precision, "set_compiled", lambda b, on: (seen.append(on), was(b, on)))
    backbone = str(make_ast_folder(tmp_path / "toy", max_length=128))
    labels = (("a", "one"), ("b", "two"))
    small = make_folder(
        tmp_path / "f", labels=labels, tracks=3, chunks=1, spec=AST_SPEC, chunk_s=1.28
    )
    settings = recipe(
        model={"tune": "full", "backbone": backbone},
        optim={"epochs": 2},
        run={"compile": True, "precision": "fp32"},
    )
    places = {"checkpoints": tmp_path / "c", "out": tmp_path / "m"}
    with pytest.raises(train.Interrupted):
        stage.train(small.path, settings, talk=Signalled(signal.SIGTERM, 2), **places)
    stage.train(small.path, settings, resume=True, **places)
    assert len(probes) == 1
    assert seen[-1] is True


def test_the_last_block_of_musicnn_learns_on_what_the_front_gave(tmp_path: Path) -> None:
    labels = (("a", "one"), ("b", "two"))
    small = make_folder(tmp_path / "features", labels=labels, tracks=2, chunks=1)
    backbone = fit.load_backbone("musicnn", small)
    settings = recipe(model={"tune": "last:1"}, optim={"epochs": 2}, batch={"size": 4})
    settings = config.replace(settings, "run", precision="fp32")
    learnt = fit.fit(small, ids(small), settings, backbone=backbone).encoder
    assert list((small.path / fit.CACHE).glob("*-activations.npy"))
    before, after = backbone.state_dict(), learnt.backbone.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(("mid.", "bn_mid.")) for name in moved)
    log_mels = small.load(range(2))
    with torch.no_grad():  # what is cached is rounded to float16
        hidden = learnt.prefix(log_mels, 1).half().float()
        found = learnt.project(learnt.pooled_from(hidden, 1))
        torch.testing.assert_close(found, learnt(log_mels), rtol=0, atol=2e-3)


@pytest.mark.parametrize("tune", ["head", "full"])
def test_validation_hears_the_chosen_chunks_alone(tmp_path: Path, tune: str) -> None:
    labels = (("a", "one"), ("b", "two"))
    small = make_folder(tmp_path / "features", labels=labels, tracks=6, chunks=2, level=0.02)
    settings = recipe(model={"tune": tune}, optim={"epochs": 1}, watch={"val_share": 0.4})
    settings = config.replace(settings, "run", precision="fp32")
    only = np.arange(0, len(small.track_of), 2)
    fitted = fit.fit(small, ids(small), settings, only=only)
    known = splits.validation(small.tracks, ids(small), share=0.4, seed=settings.run.seed)[1]
    rows = np.intersect1d(small.rows(known), only)
    assert len(rows) == len(known) >= 4
    with torch.no_grad():
        vectors = fitted.encoder(small.load(rows)).numpy()
    wanted = metrics.map_at_r(vectors, small.label_of[rows])
    assert 0 < wanted < 1  # else other chunks might give the same
    assert fitted.result.history[0].val_map_at_r == pytest.approx(wanted)


def test_held_out_tracks_leave_no_trace_in_the_weights(
    folder: FeatureFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(model={"pca": 4}, augment={"vector_noise": 0.5})
    known = ids(folder)[::2]
    first = fit.fit(folder, known, settings)
    real = fit._pooled

    def changed(*arguments: Any) -> np.ndarray:
        found = np.array(real(*arguments))
        found[np.setdiff1d(np.arange(len(found)), folder.rows(known))] *= 3
        return found

    monkeypatch.setattr(fit, "_pooled", changed)
    assert same(first, fit.fit(folder, known, settings))


@pytest.mark.parametrize("tune", ["head", "last:1"])
def test_the_order_of_the_chosen_chunks_plays_no_part(tmp_path: Path, tune: str) -> None:
    labels = (("a", "one"), ("b", "two"))
    small = make_folder(tmp_path / "features", labels=labels, tracks=3, chunks=1)
    settings = recipe(model={"tune": tune}, optim={"epochs": 1})
    settings = config.replace(settings, "run", precision="fp32")
    order = np.random.default_rng(0).permutation(len(small.track_of))
    assert same(
        fit.fit(small, ids(small), settings, only=np.sort(order)),
        fit.fit(small, ids(small), settings, only=order),
    )


def test_a_row_that_is_not_held_is_no_other_row() -> None:
    rows, vectors = np.array([1, 4, 6]), np.eye(3, dtype=np.float32)
    held = VectorSource(rows, vectors, config.AugmentConfig(), train_rows=rows)
    assert held.load(np.array([6, 1])).argmax(1).tolist() == [2, 0]
    for row in (0, 3, 5, 7):
        with pytest.raises(IndexError, match="not held"):
            held.load(np.array([1, row]))


def test_full_tuning_moves_the_backbone_and_the_head_alone_does_not(tmp_path: Path) -> None:
    labels = (("a", "one"), ("b", "two"))
    small = make_folder(tmp_path / "features", labels=labels, tracks=2, chunks=1)
    backbone = fit.load_backbone("musicnn", small)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    for tune, moved in (("full", True), ("head", False)):
        settings = recipe(model={"tune": tune}, optim={"epochs": 1}, batch={"size": 4})
        settings = config.replace(settings, "run", precision="fp32")
        after = fit.fit(small, ids(small), settings, backbone=backbone).encoder.backbone
        changed = any(not torch.equal(before[k], v) for k, v in after.state_dict().items())
        assert changed == moved
        given = backbone.state_dict()  # is left as it was, to serve the next fold
        assert all(torch.equal(before[name], given[name]) for name in before)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"augment": {"patchout": 0.5}}, "no transformer"),
        ({"model": {"tune": "last:3"}}, "has 2 blocks to tune"),
        ({"model": {"tune": "lora"}}, "has none"),
        ({"model": {"layer": "weighted"}}, "leave it at -1"),
        ({"model": {"tune": "last:1", "layer": 0}}, "leave it at -1"),
        ({"model": {"tune": "last:1"}, "optim": {"layer_decay": 0.5}}, "one block alone learns"),
        ({"model": {"tune": "last:1"}, "run": {"compile": True}}, "no transformer"),
        ({"model": {"fusion": 0.5}}, "model.fusion is 0.5, but can't act: no principal axes"),
        ({"model": {"tune": "full", "pca": 4}}, "model.pca is 4, but can't act"),
        ({"model": {"tune": "full"}, "augment": {"patchout": 0.5}}, "no transformer"),
        ({"model": {"tune": "full"}, "run": {"checkpointing": True}}, "no transformer"),
        ({"optim": {"layer_decay": 0.5}}, "frozen"),
    ],
)
def test_an_option_that_can_not_act_on_this_backbone_is_an_error(
    folder: FeatureFolder, sections: dict[str, dict[str, Any]], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        fit.fit(folder, ids(folder), recipe(**sections))


def test_adapters_are_refused_before_the_backbone_has_run(
    folder: FeatureFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "_source", None)
    with pytest.raises(ConfigError, match="has none"):
        fit.fit(folder, ids(folder), recipe(model={"tune": "lora", "standardise": "on"}))


@pytest.mark.parametrize(
    ("kind", "loss", "uses"),
    [
        ("triplet", "triplet", False),
        ("triplet", "quadruplet", True),
        ("pk", "supcon", True),
        ("pk", "arcface", False),
    ],
)
def test_trash_is_a_negative_where_the_loss_has_a_place_for_it(
    kind: str, loss: str, uses: bool
) -> None:
    assert batches.takes_trash(config.BatchConfig(kind=kind), loss) == uses


class Signalled(fit.Silent):
    """Sends this process a signal while a bar stands at a step."""

    def __init__(self, number: signal.Signals, at: int, title: str = "training") -> None:
        self.number, self.at, self.title = number, at, title

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int], None]]:
        def update(done: int, _total: int) -> None:
            if title == self.title and done == self.at:
                os.kill(os.getpid(), self.number)

        yield update


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_the_run_goes_on_from_there(
    folder: FeatureFolder, tmp_path: Path, number: signal.Signals
) -> None:
    settings = recipe(optim={"epochs": 2})
    places = {"checkpoints": tmp_path / "c", "out": tmp_path / "stopped"}
    with pytest.raises(train.Interrupted, match="stopped after step 25 "):
        stage.train(folder.path, settings, talk=Signalled(number, 25), **places)
    assert not (tmp_path / "stopped").exists()
    resumed = stage.train(folder.path, settings, resume=True, **places)
    whole = stage.train(folder.path, settings, out=tmp_path / "w", checkpoints=tmp_path / "o")
    one, two = (load_file(run.run / "model.safetensors") for run in (resumed, whole))
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_a_signal_stops_the_backbone_and_what_it_made_is_kept(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f")
    places = {"checkpoints": tmp_path / "c", "out": tmp_path / "m"}
    with pytest.raises(train.Interrupted, match=r"backbone: 8 of \d+.*same command again"):
        stage.train(folder.path, recipe(), talk=Signalled(signal.SIGTERM, 8, "backbone"), **places)
    assert not (tmp_path / "m").exists()
    told = [json.loads(path.read_text()) for path in (folder.path / fit.CACHE).glob("*.json")]
    assert [len(one["rows"]) for one in told] == [8]
    assert stage.train(folder.path, recipe(), **places).run == tmp_path / "m"


@pytest.mark.slow
def test_torchrun_gives_one_model_and_an_error_ends_every_process(
    folder: FeatureFolder, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += [f"--master-port={free_port()}", "-m", "subgenre", "train", "--recipe", "thesis"]
    command += ["--features", str(folder.path), "--backbone", "musicnn", "--tune", "head"]
    command += ["--epochs", "1", "--out", str(tmp_path / "model"), "--device", "cpu", "--json"]
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 240, "check": False}
    first = subprocess.run(command, **run)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "model" / "config.toml").is_file()
    assert first.stderr.count("epoch 1 of 1") == 1
    assert json.loads(first.stdout)["run"] == str(tmp_path / "model")
    second = subprocess.run(command, **run)
    assert second.returncode != 0
    assert "is not empty" in second.stderr
    assert "another process of this run stopped" in second.stderr


def _rank(rank: int, port: int, features: Path, out: Path) -> None:
    group = join(rank, port)
    folder = FeatureFolder.open(features)
    fitted = fit.fit(folder, ids(folder), _shared(1), group=group)
    history = [row.loss for row in fitted.result.history]
    torch.save({"weights": weights(fitted), "loss": history}, out / f"{rank}.pt")
    distributed.stop()


def _shared(world: int) -> TrainConfig:
    """Batches of 2 tracks a process, or of 2 x world in one."""
    return recipe(
        batch={"kind": "pk", "subgenres": 0, "tracks": 2 * world, "chunks": 2},
        loss={"name": "supcon"},
        optim={"epochs": 3},
    )


@pytest.mark.slow
def test_two_ranks_equal_one_with_twice_the_batch(folder: FeatureFolder, tmp_path: Path) -> None:
    mp.spawn(_rank, args=(free_port(), folder.path, tmp_path), nprocs=2)
    alone = fit.fit(folder, ids(folder), _shared(2))
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["loss"] == pytest.approx([r.loss for r in alone.result.history], rel=1e-5)
        for name, tensor in weights(alone).items():
            assert torch.allclose(found["weights"][name], tensor, atol=1e-5), name


def test_the_trained_model_beats_chance_on_held_out_tracks(folder: FeatureFolder) -> None:
    held = {track.id for track in folder.tracks if int(track.id[2:], 16) >= 6}
    rest = tuple(t for t in ids(folder) if t not in held)
    fitted = fit.fit(folder, rest, recipe(optim={"epochs": 10}))
    assert fitted.pooled is not None
    split = Split(rest, tuple(sorted(held)), 0, ())
    scored = score.sides(folder, split, fitted.encoder, fitted.pooled, device=torch.device("cpu"))
    accuracy = metrics.centroid_accuracy(
        scored.train.vectors["trained"],
        scored.train.labels,
        scored.test.vectors["trained"],
        scored.test.labels,
    )
    assert accuracy >= 0.8
    assert np.allclose(np.linalg.norm(scored.test.vectors["trained"], axis=1), 1, atol=1e-5)


def test_a_run_that_stopped_early_is_at_its_end_when_it_is_resumed(
    folder: FeatureFolder, tmp_path: Path
) -> None:
    settings = recipe(
        batch={"kind": "pk", "subgenres": 0, "tracks": 2, "chunks": 1},
        loss={"name": "supcon"},
        watch={"val_share": 0.25, "patience": 2},
        optim={"epochs": 200, "lr": 3e-2},
    )
    run: dict[str, Any] = {"checkpoints": tmp_path / "run", "fingerprint": {}}
    whole = fit.fit(folder, ids(folder), settings, **run)
    assert whole.result.stopped_early
    (saved,) = checkpoint.fitting(tmp_path, {})
    resumed = fit.fit(folder, ids(folder), settings, resume=saved, **run)
    assert resumed.result.stopped_early
    assert resumed.result.history == whole.result.history
    assert resumed.result.best_epoch == whole.result.best_epoch
    assert same(whole, resumed)


PK = {"kind": "pk", "subgenres": 0, "tracks": 4, "chunks": 2, "same_genre": 0.0}
ONE_STEP = {
    "drawn": {"batch": {"size": 1000}},
    "pk": {"batch": PK},
    "supcon": {"batch": PK, "loss": {"name": "supcon"}},
}


@pytest.mark.parametrize("kind", list(ONE_STEP))
def test_one_step_at_a_learning_rate_of_ten_is_seen(kind: str, tmp_path: Path) -> None:
    """A step looks at what it found; the end is judged by what it left, however often resumed."""
    small = make_folder(tmp_path / "features", tracks=4)
    settings = recipe(**ONE_STEP[kind], run={"save_every": 1}, optim={"lr": 10.0, "epochs": 1})
    saved = tmp_path / "run" / checkpoint.NAME
    run: dict[str, Any] = {"checkpoints": saved.parent, "fingerprint": {}}
    for resume in (None, saved):
        with pytest.raises(CollapseError, match=r"exploded.* lower the learning rate"):
            fit.fit(small, ids(small), settings, resume=resume, **run)
        kept = checkpoint.load(saved, {})
        assert (kept["done"], kept["epoch"]) == (1, 0)  # the epoch was not closed


def test_the_last_look_changes_nothing(
    folder: FeatureFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(
        model={"dropout": 0.2}, augment={"vector_noise": 0.1}, watch={"val_share": 0.25}
    )
    looks: list[int] = []
    real = train.Trainer._last_look

    def look(self: train.Trainer) -> None:
        before = {name: p.clone() for name, p in self.modules.state_dict().items()}
        steps = self.state.done, list(self.state.sums)
        real(self)
        looks.append(self.state.done)
        after = self.modules.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert (self.state.done, self.state.sums) == steps
        assert all(p.grad is None for p in self.modules.parameters())

    monkeypatch.setattr(train.Trainer, "_last_look", look)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    looked = fit.fit(folder, ids(folder), settings)
    assert torch.equal(torch.rand(3), expected)
    assert len(looks) == 1
    unwatched = config.replace(settings, "watch", collapse=False)
    assert same(looked, fit.fit(folder, ids(folder), unwatched))
    assert len(looks) == 1


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


def _head_first_rank(rank: int, port: int, features: Path, backbone: str, out: Path) -> None:
    group = join(rank, port)
    for layer in (-1, 0):
        found = _head_first(features, backbone, 1, layer=layer, group=group)
        torch.save(found, out / f"{rank}{layer}.pt")
    distributed.stop()


@pytest.mark.slow
def test_two_ranks_train_the_head_first_as_one_does(tmp_path: Path) -> None:
    features = tmp_path / "features"
    make_folder(features, tracks=4, chunks=1, trash=2, spec=AST_SPEC, chunk_s=0.5)
    backbone = str(make_ast_folder(tmp_path / "toy"))
    mp.spawn(_head_first_rank, args=(free_port(), features, backbone, tmp_path), nprocs=2)
    for layer in (-1, 0):
        alone = _head_first(features, backbone, 2, layer=layer)
        for rank in range(2):
            found = torch.load(tmp_path / f"{rank}{layer}.pt", weights_only=True)
            assert found["loss"] == pytest.approx(alone["loss"], rel=1e-4)
            for name, tensor in alone["weights"].items():
                if layer == 0 and ".layers.1." in name:  # has no gradient in any process
                    assert torch.equal(found["weights"][name], tensor), name
                elif not name.endswith("k_proj.bias"):  # has one of rounding alone
                    off = (found["weights"][name] - tensor).abs()
                    assert off.mean() < 2e-6, name  # a step is 1e-3, also of a tiny gradient


def test_a_column_that_hardly_varied_is_left_out_where_the_backbone_learns(
    folder: FeatureFolder,
) -> None:
    backbone = fit.load_backbone("musicnn", folder)
    settings = recipe(model={"tune": "full", "standardise": "on"})
    encoder = fit.new_encoder(backbone, settings.model, folder, np.arange(4), 0)
    generator = np.random.default_rng(0)
    pooled = 1 + generator.normal(size=(50, backbone.hidden_size)).astype(np.float32)
    pooled[:, 0] = 1 + 1e-3 * pooled[:, 0]
    fit.standardise(encoder, pooled)
    assert bool(torch.isfinite(encoder.pooled_std).all())
    fit.standardise(encoder, pooled, backbone_learns=True)
    assert torch.isinf(encoder.pooled_std).nonzero().flatten().tolist() == [0]


def test_the_keyboard_leaves_a_checkpoint_and_says_so(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ear(fit.Silent):
        def warn(self, text: str) -> None:
            told.append(text)

    told: list[str] = []
    real, epochs = train.Trainer._epoch, iter(range(9))

    def interrupted(self: train.Trainer, total: int) -> None:
        if next(epochs) == 1:
            raise KeyboardInterrupt
        real(self, total)

    monkeypatch.setattr(train.Trainer, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.train(
            folder.path, recipe(), out=tmp_path / "m", checkpoints=tmp_path / "c", talk=Ear()
        )
    assert any("with --resume goes on" in text for text in told)
    again = {"out": tmp_path / "m", "checkpoints": tmp_path / "c", "resume": True}
    assert len(stage.train(folder.path, recipe(), **again).history) == 3


@pytest.mark.usefixtures("keyboard")
def test_the_keyboard_saves_the_step_and_the_run_goes_on_to_the_same_weights(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stage.train(folder.path, recipe(), out=tmp_path / "w", checkpoints=tmp_path / "cw")
    real = train.Trainer._save_if_due

    def pressed(self: train.Trainer, *, last: bool) -> None:
        if self.state.done == 5:
            signal.raise_signal(signal.SIGINT)
        real(self, last=last)

    before = signal.getsignal(signal.SIGINT)
    again = {"out": tmp_path / "m", "checkpoints": tmp_path / "c"}
    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "_save_if_due", pressed)
        with pytest.raises(KeyboardInterrupt):
            stage.train(folder.path, recipe(), **again)
    assert signal.getsignal(signal.SIGINT) is before
    (saved,) = (tmp_path / "c").glob("*/checkpoint.pt")
    assert torch.load(saved, weights_only=True)["done"] == 5
    resumed = stage.train(folder.path, recipe(), **again, resume=True)
    one, two = (load_file(trained.run / "model.safetensors") for trained in (whole, resumed))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.usefixtures("keyboard")
def test_a_second_press_stops_at_once(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(_self: train.Trainer, *, last: bool) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train.Trainer, "_save_if_due", pressed)
    with pytest.raises(KeyboardInterrupt):
        stage.train(folder.path, recipe(), out=tmp_path / "m", checkpoints=tmp_path / "c")
    assert not list((tmp_path / "c").glob("*/checkpoint.pt"))


def test_a_stop_that_another_process_was_asked_for_stays_a_stop() -> None:
    with pytest.raises(train.Interrupted), stopping.stop_signals(fit.Silent()):
        raise train.Interrupted("as agreed")


def test_a_job_that_is_deaf_to_the_keyboard_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping.stop_signals(fit.Silent()) as asked:
            signal.raise_signal(signal.SIGINT)
            assert not asked()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("keyboard")
def test_a_press_in_an_epoch_of_fewer_steps_than_are_accumulated_is_not_lost(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(batch={"accumulate": 64})
    real = train.Trainer._step

    def step(self: train.Trainer, *args: Any, **options: Any) -> None:
        if self.state.done == 3:
            signal.raise_signal(signal.SIGINT)
        real(self, *args, **options)

    out, place = tmp_path / "m", {"checkpoints": tmp_path / "c"}
    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            stage.train(folder.path, settings, out=out, **place)
    assert not out.exists()
    (saved,) = (tmp_path / "c").glob("*/checkpoint.pt")
    state = torch.load(saved, weights_only=True)
    assert (state["epoch"], bool(state["step"])) == (0, True)
    whole = stage.train(folder.path, settings, out=tmp_path / "w", checkpoints=tmp_path / "cw")
    resumed = stage.train(folder.path, settings, out=out, **place, resume=True)
    one, two = (load_file(trained.run / "model.safetensors") for trained in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.usefixtures("keyboard")
def test_a_press_when_the_last_epoch_is_being_closed_leaves_the_whole_model(
    folder: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = train.Trainer._close_epoch

    def close(self: train.Trainer, began: float) -> None:
        if self.state.epoch == 2:
            signal.raise_signal(signal.SIGINT)
        real(self, began)

    whole = stage.train(folder.path, recipe(), out=tmp_path / "w", checkpoints=tmp_path / "cw")
    monkeypatch.setattr(train.Trainer, "_close_epoch", close)
    with pytest.raises(KeyboardInterrupt):
        stage.train(folder.path, recipe(), out=tmp_path / "m", checkpoints=tmp_path / "c")
    one, two = (load_file(run / "model.safetensors") for run in (whole.run, tmp_path / "m"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (tmp_path / "m" / "config.toml").is_file()


@pytest.mark.parametrize(
    ("labels", "trash", "told"),
    [
        ((("a", "one"), ("b", "two")), 0, "chunks of other genres stand in for it"),
        ((("a", "one"), ("a", "two")), 0, "one genre alone"),
        ((("a", "one"), ("b", "two")), 2, ""),
    ],
)
def test_a_quadruplet_without_trash_says_what_stands_in(
    tmp_path: Path, labels: tuple[tuple[str, str], ...], trash: int, told: str
) -> None:
    folder = make_folder(tmp_path / "features", labels=labels, trash=trash)
    settings = recipe(batch={"kind": "pk", "same_genre": 0.0}, loss={"name": "quadruplet"})
    found = lacking(folder, settings)
    assert told in found[0] if told else not found
