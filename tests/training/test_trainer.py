from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from subgenre import config, metrics
from subgenre.dataset import splits
from subgenre.dataset.folder import FeatureFolder
from subgenre.evaluation.tracks import EvaluationTracks, embed_tracks
from subgenre.models import embedding, encoder
from subgenre.models.cache import CACHE
from subgenre.training import batches, fit
from subgenre.training.inputs import VectorSource
from tests.folders import make_folder
from tests.training_runs import ids, recipe, same, weights

pytestmark = pytest.mark.slow  # each trains or evaluates a model

FP32 = {"precision": "fp32"}


def two_labels(path: Path, **options: Any) -> FeatureFolder:
    return make_folder(path / "features", labels=(("a", "one"), ("b", "two")), **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    return make_folder(tmp_path_factory.mktemp("library") / "features", trash=2)


def test_training_learns_and_keeps_its_figures(folder: FeatureFolder) -> None:
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


@pytest.mark.parametrize("loss", config.LOSSES)
def test_every_loss_trains(folder: FeatureFolder, loss: str) -> None:
    settings = recipe(
        batch={"kind": "pk", "subgenres": 0, "tracks": 4, "chunks": 2},
        loss={"name": loss, "margin": 0.3},
        optim={"epochs": 5},
    )
    history = fit.fit(folder, ids(folder), settings).result.history
    assert history[-1].loss < history[0].loss


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
    small = two_labels(tmp_path, tracks=6, chunks=1)
    settings = recipe(
        model={"tune": "last:1"},
        optim={"epochs": 8, "head_epochs": 3, "lr": 1e-12, "backbone_lr": 1e-12},
        watch={"val_share": 0.4, "patience": 1},
        batch={"size": 4},
        run=FP32,
    )
    result = fit.fit(small, ids(small), settings).result
    assert result.best_epoch == 1  # nothing moves at such a rate
    assert len(result.history) == 4
    assert result.stopped_early
    settings = config.replace(settings, "optim", epochs=4)
    assert not fit.fit(small, ids(small), settings).result.stopped_early


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_the_remaining_steps_of_an_epoch_are_averaged(folder: FeatureFolder, clip: float) -> None:
    """More accumulation than an epoch has steps is all of them; twice as much is no smaller."""
    batch = {"kind": "pk", "subgenres": 2, "tracks": 2, "chunks": 1, "same_genre": 0.0}

    def trained(accumulate: int) -> fit.Fitted:
        optim = {"epochs": 3, "lr": 1e-2, "clip_norm": clip}
        settings = recipe(batch={**batch, "accumulate": accumulate}, optim=optim)
        return fit.fit(folder, ids(folder), settings)

    n = -(-len(folder.track_of[folder.rows(ids(folder))]) // 4)  # 2 x 2 x 1 chunks a step
    assert same(trained(n), trained(10 * n))
    assert not same(trained(n), trained(1))


def test_the_last_block_of_musicnn_learns_on_cached_activations(tmp_path: Path) -> None:
    small = two_labels(tmp_path, tracks=2, chunks=1)
    backbone = fit.load_backbone("musicnn", small)
    settings = recipe(model={"tune": "last:1"}, optim={"epochs": 2}, batch={"size": 4}, run=FP32)
    learnt = fit.fit(small, ids(small), settings, backbone=backbone).encoder
    (held,) = (small.path / CACHE).glob("*.done.npy")
    assert (np.load(held) >= 0).all()
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
def test_validation_uses_the_chosen_chunks_only(tmp_path: Path, tune: str) -> None:
    small = two_labels(tmp_path, tracks=6, chunks=2, level=0.2)
    settings = recipe(model={"tune": tune}, optim={"epochs": 1}, watch={"val_share": 0.4}, run=FP32)
    only = np.arange(0, len(small.track_of), 2)
    fitted = fit.fit(small, ids(small), settings, only=only)
    known = splits.validation(small.tracks, ids(small), share=0.4, seed=settings.run.seed).test
    rows = np.intersect1d(small.rows(known), only)
    assert len(rows) == len(known) >= 4
    with torch.no_grad():
        vectors = fitted.encoder(small.load(rows)).numpy()
    expected = metrics.map_at_r(vectors, small.label_of[rows])
    assert 0 < expected < 1  # else other chunks might give the same
    assert fitted.result.history[0].val_map_at_r == pytest.approx(expected)


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
def test_the_order_of_the_chosen_chunks_has_no_effect(tmp_path: Path, tune: str) -> None:
    small = two_labels(tmp_path, tracks=3, chunks=1)
    settings = recipe(model={"tune": tune}, optim={"epochs": 1}, run=FP32)
    order = np.random.default_rng(0).permutation(len(small.track_of))
    assert same(
        fit.fit(small, ids(small), settings, only=np.sort(order)),
        fit.fit(small, ids(small), settings, only=order),
    )


def test_a_row_that_is_not_held_is_an_error() -> None:
    rows, vectors = np.array([1, 4, 6]), np.eye(3, dtype=np.float32)
    held = VectorSource(
        rows, vectors, config.AugmentConfig(), train_rows=rows, device=torch.device("cpu")
    )
    assert held.load(np.array([6, 1])).argmax(1).tolist() == [2, 0]
    for row in (0, 3, 5, 7):
        with pytest.raises(IndexError, match="not held"):
            held.load(np.array([1, row]))


def test_full_tuning_moves_the_backbone_and_the_head_alone_does_not(tmp_path: Path) -> None:
    small = two_labels(tmp_path, tracks=2, chunks=1)
    backbone = fit.load_backbone("musicnn", small)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    for tune, moved in (("full", True), ("head", False)):
        settings = recipe(model={"tune": tune}, optim={"epochs": 1}, batch={"size": 4}, run=FP32)
        after = fit.fit(small, ids(small), settings, backbone=backbone).encoder.backbone
        changed = any(not torch.equal(before[k], v) for k, v in after.state_dict().items())
        assert changed == moved
        given = backbone.state_dict()  # is left as it was, to serve the next fold
        assert all(torch.equal(before[name], given[name]) for name in before)


@pytest.mark.parametrize(
    ("kind", "loss", "uses"),
    [
        ("triplet", "triplet", False),
        ("triplet", "quadruplet", True),
        ("pk", "supcon", True),
        ("pk", "arcface", False),
    ],
)
def test_trash_is_a_negative_where_the_loss_compares_with_it(
    folder: FeatureFolder, kind: str, loss: str, uses: bool
) -> None:
    table = batches.learnt_chunks(folder, ids(folder), config.BatchConfig(kind=kind), loss)
    assert (table.label < 0).any() == uses


def test_the_trained_model_beats_chance_on_held_out_tracks(folder: FeatureFolder) -> None:
    held = {track.id for track in folder.tracks if int(track.id[2:], 16) >= 6}
    rest = tuple(t for t in ids(folder) if t not in held)
    fitted = fit.fit(folder, rest, recipe(optim={"epochs": 10}))
    assert fitted.pooled is not None
    labels = EvaluationTracks(folder).labels
    (train, vectors), (test, new) = (
        embed_tracks(fitted.encoder, folder, folder.rows(side), device=torch.device("cpu"))
        for side in (rest, tuple(sorted(held)))
    )
    nearest = metrics.nearest_centroids(vectors, labels[train], new)
    assert (nearest == labels[test]).mean() >= 0.8
    assert np.allclose(np.linalg.norm(new, axis=1), 1, atol=1e-5)


def test_a_column_that_hardly_varied_is_left_out(folder: FeatureFolder) -> None:
    """Below 1e-3 of its mean it is rounding; a backbone that learns needs 1e-2."""
    backbone = fit.load_backbone("musicnn", folder)
    settings = recipe(model={"tune": "full", "standardise": "on"})
    net = fit.new_encoder(backbone, settings.model, folder, np.arange(4), 0)
    generator = np.random.default_rng(0)
    pooled = 1 + generator.normal(size=(50, backbone.hidden_size)).astype(np.float32)
    pooled[:, 0] = 1 + 3e-3 * pooled[:, 0]
    pooled[:, 1] = 1 + 3e-4 * pooled[:, 1]
    for learns, constant in ((False, [1]), (True, [0, 1])):
        encoder.standardise(net, pooled, np.arange(50), backbone_learns=learns)
        assert torch.isinf(net.pooled_std).nonzero().flatten().tolist() == constant


def test_a_centred_embedding_is_the_plain_one_without_its_mean(
    folder: FeatureFolder, tmp_path: Path
) -> None:
    """The mean is of the training chunks alone, and is kept with the model."""
    train = ids(folder)[::2]
    plain = fit.fit(folder, train, recipe())
    centred = fit.fit(folder, train, recipe(model={"centre": True}))
    assert plain.pooled is not None
    before = embedding.project_vectors(plain.encoder, plain.pooled).astype(np.float64)
    moved = before - before[folder.rows(train)].mean(axis=0)
    expected = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    found = embedding.project_vectors(centred.encoder, plain.pooled)
    assert np.allclose(found, expected, atol=1e-5)
    assert not np.allclose(found, before, atol=1e-2)
    encoder.save(centred.encoder, tmp_path)
    again = encoder.load(tmp_path)
    assert np.array_equal(embedding.project_vectors(again, plain.pooled), found)


def test_a_centred_run_learns_the_same_weights_and_joins_what_it_joined(
    folder: FeatureFolder,
) -> None:
    model = {"pca": 20, "fusion": 0.7}
    plain = fit.fit(folder, ids(folder), recipe(model=model))
    centred = fit.fit(folder, ids(folder), recipe(model={**model, "centre": True}))
    one, two = weights(plain), weights(centred)
    assert set(two) - set(one) == {"mean_embedding"}
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert centred.encoder.mean_embedding is not None
    assert centred.encoder.mean_embedding.shape == (128 + 20,)
    assert float(centred.encoder.mean_embedding.norm()) > 0
