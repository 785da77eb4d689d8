"""A model as the explorer shows it, and its head refitted with corrections."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from subgenre import config
from subgenre.cli import main
from subgenre.commands import explore, refit
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import validation, workspace
from subgenre.core.progress import Silent
from subgenre.dataset import track_vectors
from subgenre.errors import AudioError, EvaluationError
from subgenre.evaluation.audits.findings import Finding
from subgenre.explorer import Correction
from subgenre.library.track import Track
from subgenre.models import backbones, embedding, encoder
from subgenre.report import writer
from subgenre.search.collection import Collection
from subgenre.search.vector_index import Index
from tests.consoles import RecordingConsole
from tests.folders import make_folder
from tests.runs import DIM, settings, vector_run, write_run
from tests.small_library import replace_workers, write_wav

pytestmark = pytest.mark.slow  # each trains or evaluates a model

EACH = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose features are there: three subgenres of four tracks, one of each held out."""
    patch = pytest.MonkeyPatch()
    replace_workers(patch)
    base = tmp_path_factory.mktemp("refit")
    folder = make_folder(base / "features", tracks=EACH, chunks=1)
    net = encoder.Encoder(
        backbones.load("musicnn"),
        head=(),
        embedding_size=DIM,
        generator=torch.Generator().manual_seed(0),
    ).eval()
    path = base / "fully_trained_models_1"
    path.mkdir()
    encoder.save(net, path)
    numbers, vectors = track_vectors.track_vectors(
        embedding.chunk_vectors(net, folder, np.arange(len(folder.track_of))), folder.track_of
    )
    tracks = [folder.tracks[i] for i in numbers]
    split = ["test" if t.id.endswith(str(EACH - 1)) else "train" for t in tracks]
    write_run(path, tracks, vectors, split, encoder=encoder.fingerprint(net), features=folder.path)
    plain = config.replace(settings(), "optim", epochs=8, lr=0.01)
    validation.save_toml(path / workspace.CONFIG, plain)
    yield ModelFolder.open(path)
    patch.undo()


def nearness(found, track_id, subgenre):
    """Cosine of a track to the mean of a subgenre's other training tracks."""
    stored = found.embeddings
    columns = zip(stored.ids, stored.subgenres, stored.splits, strict=True)
    rows = [i != track_id and (s, side) == (subgenre, "train") for i, s, side in columns]
    mean = stored.vectors[rows].mean(axis=0)
    return float(stored.vectors[stored.ids.index(track_id)] @ mean / np.linalg.norm(mean))


def test_refit_follows_the_corrections_and_writes_nothing(run):
    stored = run.embeddings
    moved, wrong = stored.ids[0], stored.ids[1]
    assert stored.subgenres[:2] == ("one", "one")
    before = {p: p.read_bytes() for p in sorted(run.path.rglob("*")) if p.is_file()}
    plain = refit.refit(run, {})
    again = refit.refit(run, {})
    np.testing.assert_array_equal(plain.embeddings.vectors, again.embeddings.vectors)
    assert plain.embeddings.ids == stored.ids
    assert plain.train_ids == run.train_ids
    found = refit.refit(run, {moved: ("b", "three")}, frozenset({wrong}))
    assert found.embeddings.subgenres[:2] == ("three", "one")
    assert found.train_ids == run.train_ids - {wrong}
    assert found.fingerprint != plain.fingerprint
    assert nearness(found, moved, "three") > nearness(plain, moved, "three") + 0.1
    assert {p: p.read_bytes() for p in sorted(run.path.rglob("*")) if p.is_file()} == before
    with pytest.raises(EvaluationError, match="b/nine is not a subgenre"):
        refit.refit(run, {moved: ("b", "nine")})
    one = {i for i, s in zip(stored.ids, stored.subgenres, strict=True) if s != "two"}
    with pytest.raises(EvaluationError, match="fewer than two subgenres"):
        refit.refit(run, {}, frozenset(one))


def test_a_refit_survives_music_that_was_only_indexed(run, tmp_path, monkeypatch):
    """A corrected track is learnt from its file; taking the correction back undoes all."""
    paths = [tmp_path / f"new {seed}.wav" for seed in (3, 4, 5)]
    for seed, path in enumerate(paths, start=3):
        write_wav(path, 7.0, seed)
    found = run.embed(paths)
    more = [Track(i, p) for i, p in zip(found.ids, found.paths, strict=True)]
    vectors = np.vstack([run.embeddings.vectors, found.vectors])
    everything = Collection.of([*run.tracks, *more], vectors)
    monkeypatch.setattr(ModelFolder, "collection", lambda *_: everything)
    shown = explore.library(run, playlists=tmp_path)
    plain = shown.refit({}, Silent())
    moved = plain.refit({more[0].id: Correction("b", "three")}, Silent())
    undone = moved.refit({}, Silent())
    row = len(run.tracks)
    assert len(moved.collection) == len(everything)
    assert moved.collection.track(row).subgenre == "three"
    assert more[0].id in moved.trained
    assert "2 tracks that" in moved.note
    centre = ("b", "three")

    def nearness(library):
        number = library.classifier.labels.index(centre)
        return library.collection.vectors([row])[0] @ library.classifier.centroids[number]

    assert nearness(moved) > nearness(plain) + 0.05
    assert undone.collection.track(row).subgenre == ""
    np.testing.assert_array_equal(
        undone.collection.vectors(range(len(everything))),
        plain.collection.vectors(range(len(everything))),
    )
    paths[0].unlink()
    with pytest.raises(AudioError, match=r"new 3\.wav"):
        shown.refit({more[0].id: Correction("b", "three")}, Silent())


def test_other_vectors_are_carried_along_by_a_refit():
    """Exact for a rotation, and near for a linear map, on tracks that it was not fitted on."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 16))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    rotation = np.linalg.qr(generator.normal(size=(16, 16)))[0]
    for linear, least in ((rotation, 1 - 1e-6), (rotation + 0.2 * np.diag(range(16)), 0.97)):
        y = x @ linear
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        found = refit.carried(x[:200], y[:200], x[200:])
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        assert (found * y[200:]).sum(axis=1).min() > least


def test_refit_learns_from_a_corrected_track_that_was_held_out(run):
    stored = run.embeddings
    held = next(i for i in run.test_ids if stored.subgenres[stored.ids.index(i)] == "one")
    other = next(i for i in run.test_ids if i != held)
    plain = refit.refit(run, {})
    found = refit.refit(run, {held: ("b", "three")}, frozenset({other}))
    assert found.train_ids == run.train_ids | {held}
    assert set(found.test_ids) == set(run.test_ids) - {held, other}
    assert nearness(found, held, "three") > nearness(plain, held, "three") + 0.1
    assert found.classifier() is not None
    every = refit.refit(run, dict.fromkeys(run.test_ids, ("b", "three")))
    assert every.test_ids == ()
    assert every.classifier() is not None


def test_the_explorer_shows_the_model(run, tmp_path):
    near = run.embeddings.ids[1:3]
    findings = [
        Finding(run.embeddings.ids[0], "x", "outlier", "one", "", 0.9, "far away"),
        Finding(*(near[0], "y", "wrong playlist", "one", "two", 0.6, "like two"), 0.25, near),
    ]
    writer.write_doctor(run.path / workspace.DOCTOR, findings)
    shown = explore.library(run, playlists=tmp_path / "lists")
    (run.path / workspace.DOCTOR).unlink()
    assert len(shown.collection) == 3 * EACH
    assert shown.findings == tuple(findings)
    assert shown.trained == run.train_ids
    assert shown.chunk_starts[run.embeddings.ids[0]] == (0.0,)
    assert shown.classifier is not None
    assert shown.encode is not None
    write_wav(tmp_path / "new.wav", 7.0, 3)
    encoded = shown.encode(tmp_path / "new.wav")
    assert encoded.vector.shape == (DIM,)
    assert encoded.duration_s == pytest.approx(7.0, abs=0.01)
    (tmp_path / "bad.wav").write_text("no music")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        shown.encode(tmp_path / "bad.wav")
    assert shown.refit is not None
    new = shown.refit({run.embeddings.ids[0]: Correction("b", "three")}, Silent())
    assert new.collection.tracks([0])[0].subgenre == "three"
    assert new.refit is not None
    assert not np.allclose(new.coordinates, shown.coordinates)


def test_an_index_that_another_process_changes_is_read_again(run, tmp_path):
    """Also after a refit, which then counts for the new tracks."""
    folder = tmp_path / "index"
    index = Index.create(folder, dim=DIM, fingerprint=run.fingerprint)
    index.upsert(run.tracks, run.embeddings.vectors)
    shown = explore.library(run, index=folder, playlists=tmp_path / "lists")
    refitted = shown.refit({run.embeddings.ids[0]: Correction("b", "three")}, Silent())
    for library in (shown, refitted):
        assert library.reread() is None
    new = Track("f" * 32, tmp_path / "new.wav", "b", "three")
    index.upsert([new], run.embeddings.vectors[-1:])
    index.delete([run.embeddings.ids[1]])
    for library in (shown, refitted):
        after = library.reread()
        assert set(after.collection.rows["id"][after.collection.live]) == {
            *run.embeddings.ids, new.id,
        } - {run.embeddings.ids[1]}  # fmt: skip
        np.testing.assert_allclose(
            after.coordinates[after.collection.live == after.collection.row(new.id)],
            library.place(after.collection.vectors([after.collection.row(new.id)])),
            atol=1e-4,
        )
        assert after.reread() is None
        assert after.collection.track(after.collection.row(run.embeddings.ids[0])).subgenre == (
            "one" if library is shown else "three"
        )
        assert after.refit is not None
        assert after.note.startswith(library.note[:20])
    index.delete([new.id])
    assert not after.reread().collection.has(new.id)
    assert len(after.refit({}, Silent()).collection) == len(after.collection)


def test_the_obstacle_to_a_refit_is_named(run, tmp_path, monkeypatch):
    assert not refit.obstacle(run)
    monkeypatch.setitem(run.data, "features", str(tmp_path / "gone"))
    console = RecordingConsole()
    assert explore.library(run, playlists=tmp_path, console=console).refit is None
    assert any("the features are gone" in line for line in console.messages)


def test_a_model_with_a_tuned_backbone_gets_a_new_head(run):
    gpu = config.load_recipe("gpu")
    model = config.replace(settings(), "model", tune="last:1").model
    gpu = dataclasses.replace(gpu, model=model)
    gpu = config.replace(gpu, "optim", epochs=4)
    new = refit.refit(ModelFolder(run.path, gpu, run.data), {})
    assert new.embeddings.ids == run.embeddings.ids
    assert new.settings.model.tune == "head"
    assert new.settings.augment == config.AugmentConfig()


def test_explore_serves_the_map_and_prints_the_address(tmp_path, monkeypatch, capsys):
    pytest.importorskip("fastapi")
    path = vector_run(tmp_path / "fully_trained_models_1", each=3)
    received = {}

    def serve(library, *, host, port, on_ready):
        from starlette.testclient import TestClient

        from subgenre.explorer.app import create_app

        client = TestClient(create_app(library), base_url="http://127.0.0.1")
        received.update(client.get("/api/library").json(), host=host, port=port)
        on_ready("http://127.0.0.1:1/?token=a")

    monkeypatch.setattr("subgenre.explorer.server.serve", serve)
    assert main(["explore", "--run", str(path), "--port", "0", "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"address": "http://127.0.0.1:1/?token=a"}
    assert "http://127.0.0.1:1/?token=a" in printed.err
    assert (received["host"], received["port"]) == ("127.0.0.1", 0)
    assert received["can_place"] is True
    assert received["can_refit"] is False
