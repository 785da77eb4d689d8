"""The uses of a trained model, by the command line: index, classify, similar, playlist, runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from subgenre import api, config
from subgenre.audio import tempo_key
from subgenre.cli import main, use
from subgenre.commands import classify as stage
from subgenre.commands import embed, explore, index, model_map
from subgenre.commands.model_folder import ModelFolder
from subgenre.core import files, validation, workspace
from subgenre.dataset import chunking, track_vectors
from subgenre.dataset.windows import Sound
from subgenre.errors import AudioError, ConfigError, LibraryError, RunError, SubgenreError
from subgenre.explorer.view import View
from subgenre.library import formats, sources
from subgenre.library.track import Track
from subgenre.metrics import METRICS
from subgenre.models import backbones, encoder
from subgenre.models.cache import CACHE
from subgenre.models.encoder import Encoder
from subgenre.report import maps
from subgenre.search import journeys
from subgenre.search.classifier import Placement
from subgenre.search.ranking import Hit
from subgenre.search.requests import TRACKS
from subgenre.search.vector_index import Index
from tests import audio_files
from tests.audio.test_tempo_key import RATE, cadence, clicks
from tests.commands.conftest import Call
from tests.consoles import RecordingConsole
from tests.runs import DIM, LABELS, Row, sounding_run, vector_run, write_run
from tests.search.test_vector_index import without_checksums
from tests.small_library import replace_workers, write_wav

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A library and a model with an encoder; its workers run in this process."""
    patch = pytest.MonkeyPatch()
    replace_workers(patch)
    folder = tmp_path_factory.mktemp("made")
    sounding_run(folder)
    yield folder
    patch.undo()


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy to change; the stored paths still name the original."""
    shutil.copytree(made, tmp_path / "home")
    return tmp_path / "home"


def model(folder: Path) -> Path:
    return folder / "fully_trained_models_1"


def at_home(home: Path) -> Path:
    """Let the stored paths name the copy of the library; return its folder."""
    stored, run = embeddings(model(home)), ModelFolder.open(model(home))
    here = home / "WAV"
    tracks = [replace(t, path=here / t.path.relative_to(made_at(home))) for t in run.tracks]
    out, fingerprint = model(home) / workspace.EMBEDDINGS, stored.fingerprint
    track_vectors.write_embeddings(
        out, tracks, stored.vectors, split=stored.splits, fingerprint=fingerprint
    )
    return here


def embeddings(run: Path) -> track_vectors.Embeddings:
    return track_vectors.read_embeddings(run / workspace.EMBEDDINGS)


def test_embed_writes_vectors_and_lists_what_it_skipped(made: Path, tmp_path: Path, call: Call):
    (tmp_path / "bad.mp3").write_text("no music")
    source = made / "WAV" / "techno" / "dark"
    out = tmp_path / "x.parquet"
    code, result, _ = call(
        "embed", source, tmp_path, "gone.wav", "--run", model(made), "--out", out
    )
    assert code == 1
    assert result["n_tracks"] == 4
    assert {Path(s["path"]).name for s in result["skipped"]} == {"bad.mp3", "gone.wav"}
    found, stored = track_vectors.read_embeddings(out), embeddings(model(made))
    at = [stored.ids.index(track_id) for track_id in found.ids]
    np.testing.assert_allclose(found.vectors, stored.vectors[at], atol=1e-6)
    assert found.fingerprint == stored.fingerprint


def test_the_size_of_a_joined_vector_has_its_parts(tmp_path: Path):
    settings = config.load_recipe("laptop")
    joined = settings.model
    sizes = joined.embedding_size + joined.pca, joined.embedding_size, joined.pca
    found = embed._size(ModelFolder(tmp_path, settings, {}))
    assert [int(number) for number in re.findall(r"\d+", found)] == [*sizes]
    alone = replace(settings, model=replace(joined, fusion=0.0))
    found = embed._size(ModelFolder(tmp_path, alone, {}))
    assert found == f"{joined.embedding_size} values"


def test_a_map_fitted_on_a_sample_has_all_tracks(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = ModelFolder.open(model(made))
    monkeypatch.setattr(maps, "FITTED_TRACKS", 3)
    fitted, tracks = model_map.fit(opened), opened.collection()
    assert fitted.coordinates.shape == (3, 2)
    placed = model_map.coordinates(fitted, opened, tracks)
    np.testing.assert_allclose(placed, fitted.place(tracks.vectors(tracks.live)), atol=1e-6)
    assert (np.abs(placed[:, None] - fitted.coordinates).max(axis=2) == 0).any(axis=0).all()


def test_a_file_is_decoded_once_whatever_command_embeds_it(
    home: Path, call: Call, monkeypatch: pytest.MonkeyPatch
):
    run, new = ("--run", model(home)), home / "new"
    write_wav(new / "a.wav", 8.0, 60)
    write_wav(new / "b.wav", 9.0, 61)
    decoded: list[str] = []
    whole = chunking.make_chunks

    def counted(job: chunking.Job, sounds: Iterable[Sound] | None = None) -> chunking.Outcome:
        decoded.append(job.path.name)
        return whole(job, sounds)

    monkeypatch.setattr(chunking, "make_chunks", counted)
    first = call("classify", new / "a.wav", *run)[1]["placements"]
    assert decoded == ["a.wav"]
    assert call("classify", new / "a.wav", *run)[1]["placements"] == first
    assert call("similar", new / "a.wav", *run)[0] == 0
    assert call("embed", new / "a.wav", "--out", home / "a.parquet", *run)[0] == 0
    shutil.copy(new / "a.wav", home / "copy.wav")  # another name, the same audio
    assert call("classify", home / "copy.wav", *run)[1]["placements"][0]["fits"] == first[0]["fits"]
    assert decoded == ["a.wav"]
    assert call("index", new, *run)[1]["embedded"] == 2
    both = call("classify", new, *run)[1]["placements"]
    assert decoded == ["a.wav", "b.wav"]
    assert both[0] == first[0]
    write_wav(new / "a.wav", 8.0, 62)  # other audio, the same name
    call("classify", new / "a.wav", *run)
    assert decoded == ["a.wav", "b.wav", "a.wav"]
    shutil.rmtree(model(home) / CACHE)
    assert call("classify", new / "b.wav", *run)[1]["placements"][0] == both[1]
    assert decoded == ["a.wav", "b.wav", "a.wav", "b.wav"]


def test_index_adds_new_tracks_and_removes_missing_ones(home: Path, call: Call):
    library = at_home(home)
    write_wav(library / "techno/dark/new.wav", 5.0, 99)
    code, result, _ = call("index", library, "--run", model(home))
    assert code == 0
    assert (result["n_tracks"], result["embedded"], result["reused"]) == (9, 1, 8)
    stored = embeddings(model(home))
    known = Index.open(model(home) / "index", dim=DIM, fingerprint=stored.fingerprint).collection
    found = known.vectors([known.row_of_id(stored.ids[0])])[0]
    np.testing.assert_allclose(found, stored.vectors[0], atol=1e-6)
    result = call("index", library, "--run", model(home))[1]
    assert (result["embedded"], result["updated"], result["forgotten"]) == (0, 0, 0)
    (library / "techno/dark/new.wav").rename(library / "techno/emotional/new.wav")
    (library / "techno/dark/dark, ü 0.wav").unlink()
    write_wav(library / "techno/dark/dark, ü 1.wav", 5.0, 77)  # other audio, same name
    result = call("index", library, "--run", model(home))[1]
    counts = result["n_tracks"], result["embedded"], result["updated"], result["forgotten"]
    assert counts == (8, 1, 1, 2)
    opened = Index.open(model(home) / "index")
    assert opened.collection.track(opened.collection.row("new.wav")).subgenre == "emotional"


def test_an_index_keeps_the_tracks_of_other_libraries(home: Path, call: Call):
    call("index", home / "WAV", "--run", model(home))
    other = home / "other"
    write_wav(other / "a.wav", 4.0, 50)
    write_wav(other / "deep/er/b.wav", 4.0, 51)
    result = call("index", other, "--run", model(home))[1]
    assert (result["n_tracks"], result["forgotten"]) == (10, 0)
    found = ModelFolder.open(model(home)).collection()
    named = {name: found.track(found.row(name)).subgenre for name in ("a.wav", "b.wav")}
    assert named == {"a.wav": "", "b.wav": "er"}  # which is no class of the model
    run = ModelFolder.open(model(home))
    assert set(run.classifier().labels) == run.labels
    assert ("deep", "er") not in run.labels
    (other / "a.wav").unlink()
    assert call("index", other, "--run", model(home))[1]["n_tracks"] == 9


def test_an_index_begins_with_the_tracks_of_the_training(home: Path, call: Call):
    """Indexing other music first does not take the learnt subgenres from the lists."""
    other, second = home / "other", home / "second"
    write_wav(other / "a.wav", 4.0, 50)
    run = ["--run", model(home)]
    code, result, err = call("index", other, *run)
    assert (code, result["n_tracks"], result["embedded"], result["others"]) == (0, 9, 1, 8)
    assert "8 tracks of other libraries" in err
    expand = ["playlist", "--expand", "dark", "--until-fit", 0, *run]
    assert {hit["subgenre"] for hit in call(*expand)[1]["hits"]} == {"emotional", ""}
    only = call(*expand, "--folder", other)[1]["hits"]
    assert [Path(hit["path"]).name for hit in only] == ["a.wav"]
    # a copy of the training's library, indexed later: nothing is doubled
    (home / "WAV/techno/dark/dark, ü 0.wav").unlink()
    result = call("index", home / "WAV", *run)[1]
    assert (result["n_tracks"], result["embedded"], result["updated"]) == (9, 0, 0)
    result = call("index", made_at(home), *run)[1]
    assert (result["n_tracks"], result["forgotten"], result["others"]) == (9, 0, 1)
    # another index holds the given library alone
    result, err = call("index", other, *run, "--index", second)[1:]
    assert (result["n_tracks"], f"{second}: 1 track; 1 embedded" in err) == (1, True)


def made_at(home: Path) -> Path:
    """Folder of the library that the run's stored paths name."""
    return ModelFolder.open(model(home)).embeddings.paths[0].parents[2]


def test_replace_removes_the_tracks_of_other_libraries(home: Path, call: Call):
    other = home / "other"
    write_wav(other / "a.wav", 4.0, 50)
    run = ["--run", model(home)]
    call("index", home / "WAV", *run)
    code, result, err = call("index", other, "--replace", *run)
    assert (code, result["n_tracks"], result["forgotten"], result["others"]) == (0, 1, 8, 0)
    assert f"Run: subgenre index {made_at(home).parent}" in err
    result = call("index", home / "WAV", *run)[1]
    assert (result["n_tracks"], result["reused"], result["others"]) == (9, 8, 1)
    code, _, err = call("index", "--replace", "--root", home / "WAV", *run)
    assert (code, "name a library" in err) == (2, True)


def test_unlabelled_copies_keep_the_labels_of_the_training(home: Path, call: Call):
    """A collection holds copies of the tracks of the training, or their folder itself."""
    run, place = ["--run", model(home)], model(home) / "index"
    other = home / "other"
    trained = made_at(home) / "techno/dark/dark, ü 0.wav"
    copy = other / "Artist/copy.wav"
    copy.parent.mkdir(parents=True)
    shutil.copy(trained, copy)
    assert call("index", other, *run)[1]["n_tracks"] == 8
    copied = ModelFolder.open(model(home)).embeddings.ids[0]
    track = Index.open(place).get(copied)
    assert (track.path, track.subgenre) == (trained, "dark")
    # the library of the training, moved into a collection whose folders give no label
    (home / "WAV/techno/dark/dark, ü 0.wav").unlink()
    (home / "WAV").rename(other / "WAV")
    call("index", "--root", other / "WAV", *run)
    result = call("index", other, *run)[1]
    assert (result["n_tracks"], result["embedded"], result["forgotten"]) == (8, 0, 0)
    found = Index.open(place).collection
    named = {t.path: t.subgenre for t in found.tracks(found.live)}
    assert named[other / "WAV/techno/dark/dark, ü 1.wav"] == "dark"
    assert sorted(named.values()) == ["dark"] * 4 + ["emotional"] * 4
    result = call("index", other, "--replace", *run)[1]
    assert (result["n_tracks"], result["others"]) == (8, 0)
    track = Index.open(place).get(copied)
    assert (track.path, track.subgenre) == (copy, "dark")


def test_a_track_keeps_its_first_path_while_the_file_exists(home: Path, call: Call):
    run, first, inbox = ["--run", model(home)], home / "first/a.wav", home / "inbox"
    write_wav(first, 4.0, 50)
    call("index", first.parent, *run)
    for copy in (inbox / "a.wav", inbox / "techno/dark/a.wav"):  # without and with a label
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(first, copy)
        for _ in range(2):
            call("index", inbox, *run)
            found = ModelFolder.open(model(home)).collection()
            assert found.track(found.row(copy)).path == first
    assert found.track(found.row(first)).subgenre == "dark"
    first.unlink()
    call("index", inbox, *run)
    found = ModelFolder.open(model(home)).collection()
    assert found.track(found.row("a.wav")).path.is_relative_to(inbox)


def test_a_track_lies_wherever_its_recording_does(home: Path, call: Call):
    """`--folder` and the sentence on other libraries agree, and no index forgets a path."""
    run = ["--run", model(home)]
    first, second = home / "first", home / "second"
    write_wav(first / "a.wav", 4.0, 50)
    write_wav(first / "b.wav", 4.0, 51)
    (second / "deep").mkdir(parents=True)
    shutil.copy(first / "a.wav", second / "deep/copy of a.wav")
    write_wav(second / "c.wav", 4.0, 52)

    def below(folder: Path) -> int:
        found = call("similar", "dark, ü 1", "-k", 50, "--versions", "--folder", folder, *run)[1]
        return len(found["hits"])

    for library, count in ((first, 2), (second, 2), (first, 2)):
        printed, said = call("index", library, *run)[1:]
        assert below(library) == count == printed["n_tracks"] - printed["others"]
        assert f"{printed['others']} tracks of other libraries" in said
    assert (below(first), below(second), below(home / "second/../second")) == (2, 2, 2)
    assert call("similar", second / "deep/copy of a.wav", *run)[0] == 0
    # a copy that goes takes its own path with it, and no other
    (first / "a.wav").unlink()
    printed = call("index", first, *run)[1]
    assert (printed["forgotten"], below(first), below(second)) == (0, 1, 2)
    (second / "deep/copy of a.wav").unlink()
    printed = call("index", second, *run)[1]
    assert (printed["forgotten"], below(first), below(second)) == (1, 1, 1)


def test_audio_anywhere_below_a_folder_is_indexed(home: Path, call: Call):
    library = home / "WAV"
    write_wav(library / "loose.wav", 4.0, 70)
    write_wav(library / "techno/beside.wav", 4.0, 71)
    write_wav(library / "trash/bad.wav", 4.0, 72)
    shutil.copy(library / "techno/dark/dark, ü 0.wav", library / "copy.wav")
    (library / "broken.mp3").write_text("no music")
    code, result, _ = call("index", library, "--run", model(home))
    assert code == 1
    assert [Path(s["path"]).name for s in result["skipped"]] == ["broken.mp3"]
    assert (result["n_tracks"], result["embedded"]) == (10, 2)
    found = ModelFolder.open(model(home)).collection()
    named = {t.path.name: t.subgenre for t in found.tracks(found.live)}
    assert (named["loose.wav"], named["beside.wav"]) == ("", "")
    assert named["dark, ü 0.wav"] == "dark"  # and not its copy, which has no label
    assert not {"copy.wav", "bad.wav"} & set(named)
    assert call("index", library, "--run", model(home))[1]["updated"] == 0
    hits = call("similar", "loose", "--subgenre", "dark", "--run", model(home))[1]["hits"]
    assert {hit["subgenre"] for hit in hits} == {"dark"}


def test_an_interrupted_index_keeps_what_was_embedded(home, call, monkeypatch):
    for n in range(3):
        write_wav(home / f"WAV/techno/dark/new {n}.wav", 4.0, 60 + n)
    run = ModelFolder.open(model(home))
    whole = type(run).embed_each

    def stopped(self: Any, paths: Any, **options: Any) -> Iterator[Any]:
        for count, one in enumerate(whole(self, paths, **options)):
            if count == 2:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(type(run), "embed_each", stopped)
    assert call("index", home / "WAV", "--run", model(home))[0] == 130
    assert run.open_index().count == 10
    monkeypatch.setattr(type(run), "embed_each", whole)
    assert call("index", home / "WAV", "--run", model(home))[1]["embedded"] == 1


def test_a_library_that_has_moved_is_found_again(home: Path, call: Call):
    call("index", at_home(home), "--run", model(home))
    (home / "WAV").rename(home / "moved")
    (home / "moved/techno/dark/dark, ü 0.wav").unlink()
    code, _, err = call("similar", "dark, ü 1", "--run", model(home))
    assert code == 0
    assert "`subgenre index --root NEW_FOLDER`" in err
    code, result, _ = call("index", "--root", home / "moved", "--run", model(home))
    assert (code, result["relinked"], len(result["missing"])) == (1, 7, 1)
    hits = call("similar", "dark, ü 1", "-k", 3, "--run", model(home))[1]["hits"]
    assert all(hit["path"].startswith(str(home)) for hit in hits)


def test_a_moved_library_is_found_again_before_an_index_was_built(home: Path, call: Call):
    run = ["--run", model(home)]
    code, result, _ = call("index", "--root", home / "WAV", *run)
    assert (code, result["n_tracks"], result["relinked"], result["missing"]) == (0, 8, 8, [])
    hits = call("similar", "dark, ü 1", *run)[1]["hits"]
    assert all(hit["path"].startswith(str(home)) for hit in hits)
    code, _, err = call("index", "--root", home / "WAV", *run, "--index", home / "second")
    assert (code, "holds no index" in err) == (2, True)
    assert not (home / "second").exists()


def test_an_index_of_another_model_is_refused(made: Path, tmp_path: Path, call: Call):
    place = tmp_path / "index"
    Index.create(place, dim=5, fingerprint="f" * 32)
    code, _, err = call("similar", "dark", "--run", model(made), "--index", place)
    assert code == 2
    assert "vectors of 5 values" in err
    assert "f" * 32 in err
    assert f"not of {DIM} values" in err
    code, _, err = call("index", made / "WAV", "--run", model(made), "--index", place)
    assert (code, "vectors of 5 values" in err) == (2, True)


def test_files_of_another_model_are_refused(home: Path, tmp_path: Path, call: Call):
    other = vector_run(tmp_path / "other") / workspace.EMBEDDINGS
    kept = (model(home) / workspace.EMBEDDINGS).read_bytes()
    shutil.copy(other, model(home))
    code, _, err = call("similar", "dark", "--run", model(home))
    assert code == 2
    assert f"{workspace.EMBEDDINGS} is of model {'e' * 32}" in err
    (model(home) / workspace.EMBEDDINGS).write_bytes(kept)
    seeded, backbone = torch.Generator().manual_seed(1), backbones.load("musicnn")
    encoder.save(Encoder(backbone, head=(), embedding_size=DIM, generator=seeded), model(home))
    write_wav(tmp_path / "new.wav", 8.0, 63)
    code, _, err = call("classify", tmp_path / "new.wav", "--run", model(home))
    assert code == 2
    assert "encoder.json is of model" in err


def test_similar_of_files_and_names(made: Path, tmp_path: Path, call: Call):
    stored = embeddings(model(made))
    copy = tmp_path / "copy.wav"
    shutil.copy(stored.paths[0], copy)
    hits = call("similar", copy, "-k", 3, "--plain", "--run", model(made))[1]["hits"]
    cosine = stored.vectors @ stored.vectors[0]
    order = [int(i) for i in np.argsort(-cosine) if i]
    assert [hit["id"] for hit in hits] == [stored.ids[i] for i in order[:3]]
    outside = tmp_path / "outside.wav"
    write_wav(outside, 5.0, 33)
    vector = ModelFolder.open(model(made)).embed([outside]).vectors[0]
    hits = call("similar", outside, "-k", 2, "--plain", "--run", model(made))[1]["hits"]
    assert hits[0]["cosine"] == pytest.approx(float((stored.vectors @ vector).max()), abs=1e-5)
    only = call("similar", copy, "--subgenre", "Emotional", "--run", model(made))[1]["hits"]
    assert {hit["subgenre"] for hit in only} == {"emotional"}
    for words, message in (
        (["dark, u 0"], "did you mean 'dark, ü 0'"),
        ([copy, "--subgenre", "drak"], "did you mean 'dark'"),
        ([copy, "--min-bpm", 130, "--max-bpm", 120], "swap them"),
        ([copy, "-k", 0], "more than 0"),
    ):
        code, _, err = call("similar", *words, "--run", model(made))
        assert (code, message in err) == (2, True), err
    (tmp_path / "text.mp3").write_text("no music")
    for command in ("similar", "playlist"):
        code, _, err = call(command, tmp_path / "text.mp3", "--run", model(made))
        refusal = f"{tmp_path / 'text.mp3'} can't be a seed: has no"
        assert (code, refusal in err) == (2, True)


def test_a_journey_reports_ends_that_are_not_in_the_index(made: Path, tmp_path: Path, call: Call):
    outside = [tmp_path / f"outside {n}.wav" for n in range(2)]
    for n, path in enumerate(outside):
        write_wav(path, 5.0, 33 + 4 * n)
    known, *_, other = embeddings(model(made)).paths
    words = ["--journey", "--tracks", 3, "--run", model(made)]
    for ends in ([known, outside[1]], [outside[0], known]):
        path = next(end for end in ends if end in outside)
        code, result, err = call("playlist", *ends, *words)
        assert (code, len(result["hits"])) == (0, 3)
        assert f"{path} is not in the index" in err
        assert f"{known} " not in err
    err = call("playlist", *outside, *words)[2]
    assert all(f"{path} is not in the index" in err for path in outside)
    copy = tmp_path / "copy.wav"  # a file elsewhere, whose sound the index knows
    shutil.copy(known, copy)
    assert "not in the index" not in call("playlist", copy, other, *words)[2]


def test_classify_sorts_without_touching_the_files(made: Path, tmp_path: Path, call: Call):
    new = tmp_path / "new"
    for seed in (2, 12):
        write_wav(new / f"file {seed}.wav", 7.0, seed)
    (new / "broken.mp3").write_text("no music")
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in new.iterdir()}
    out = tmp_path / "placements.csv"
    words = ["--copy-to", tmp_path / "copies", "--m3u-to", tmp_path / "lists", "--out", out]
    code, result, _ = call("classify", new, "--run", model(made), "--alpha", 0.01, *words)
    assert code == 1
    assert [Path(s["path"]).name for s in result["skipped"]] == ["broken.mp3"]
    run = ModelFolder.open(model(made))
    found = run.embed([new / "file 12.wav", new / "file 2.wav"])
    chances = run.classifier().probabilities(found.vectors)
    assert [p["fits"] for p in result["placements"]] == np.round(chances.max(1), 4).tolist()
    names = sorted(run.labels)
    assert [p["nearest_subgenre"] for p in result["placements"]] == [
        names[i][1] for i in chances.argmax(1)
    ]
    assert [p["second_subgenre"] for p in result["placements"]] == [
        names[i][1] for i in chances.argsort(axis=1)[:, -2]
    ]
    assert {p["chunk_start_s"] for p in result["placements"]} <= set(found.chunk_start_s.tolist())
    assert out.read_text().count("\n") == 3
    assert sorted(Path(c).name for c in result["copies"]) == ["file 12.wav", "file 2.wav"]
    listed = [p for name in result["playlists"] for p in formats.read_m3u(Path(name))]
    assert {p.resolve() for p in listed} == {new / "file 12.wav", new / "file 2.wav"}
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in new.iterdir()} == before
    assert call("classify", new, "--run", model(made), "--out", tmp_path / "x.txt")[0] == 2


def test_a_silent_file_is_placed_nowhere(home: Path, call: Call):
    new, run = home / "new", ("--run", model(home))
    write_wav(new / "sound.wav", 7.0, 2)
    audio_files.write(new / "silence.wav", np.zeros((2, 7 * RATE)), RATE)
    for words in (
        ["classify", new, "--copy-to", home / "copies"],
        ["index", new],
        ["embed", new, "--out", home / "x.parquet"],
    ):
        code, result, _ = call(*words, *run)
        assert code == 1
        reasons = {Path(s["path"]).name: s["reason"] for s in result["skipped"]}
        assert reasons == {"silence.wav": "is silent"}
    assert [p.name for p in (home / "copies").rglob("*.wav")] == ["sound.wav"]
    assert ModelFolder.open(model(home)).open_index().count == 9


def test_a_track_fits_a_playlist_by_one_number(
    home: Path, call: Call, capsys: pytest.CaptureFixture[str]
):
    """In classify, in an expansion, in the explorer and in the API."""
    new, run = home / "new/one.wav", ["--run", str(model(home))]
    write_wav(new, 7.0, 2)
    call("index", new.parent, *run)
    placed = call("classify", new, "--alpha", 0.001, *run)[1]["placements"][0]
    words = ("playlist", "--expand", placed["nearest_subgenre"], "--folder", new.parent)
    (hit,) = call(*words, *run)[1]["hits"]
    assert hit["fits"] == pytest.approx(placed["fits"], abs=1e-3)
    folder = ModelFolder.open(model(home))
    shown = View(explore.library(folder, playlists=home), 1).detail(placed["id"])
    assert shown["placement"]["chances"][0]["fits"] == pytest.approx(placed["fits"], abs=1e-3)
    found = api.load(model(home)).classify([placed["id"]])[0]
    assert found.fits == pytest.approx(placed["fits"], abs=1e-3)
    assert main(["classify", str(new), *run]) == 0
    head, body = [r.split("┃" if "┃" in r else "│") for r in table_rows(capsys.readouterr().out)]
    row = dict(zip([cell.strip() for cell in head], [cell.strip() for cell in body], strict=True))
    assert row["second choice"] == placed["second_subgenre"]
    assert row["genre"] in (placed["nearest_genre"], "-")


@pytest.mark.parametrize(("auroc", "warned"), [(0.62, True), (0.9, False)])
def test_classify_warns_where_none_of_these_is_near_chance(tmp_path, monkeypatch, auroc, warned):
    run = ModelFolder.open(vector_run(tmp_path / "run"))
    audit = {"auroc": {"value": auroc, "low": auroc - 0.05, "high": 1.0}, "none_right": 0.7}
    run.__dict__["figures"] = {"audits": {"open_set": {"gaussian": audit}}}
    assert run.classifier().none_right == 0.7
    track = Track("0" * 32, tmp_path / "a.wav")
    placed = Placement(track, "", "", ("a", "b"), 0.5, 0.01, (), none_right=0.7)
    monkeypatch.setattr(stage, "place", lambda *_: [placed])
    monkeypatch.setattr(ModelFolder, "embed", lambda *_, **__: SimpleNamespace(skipped=()))
    write_wav(track.path, 4.0, 0)
    console = RecordingConsole()
    stage.classify([track.path], run, console=console)
    assert any("62 % of the pairs" in text for text in console.messages) == warned


def test_lists_of_another_machine_are_translated_in_every_command(made, tmp_path, call):
    write_wav(tmp_path / "here" / "a.wav", 8.0, 1)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("D:\\Music\\a.wav\nD:\\Other\\b.wav\n", encoding="utf-8")
    words = [playlist, "--run", model(made), "--map", f"D:/Music={tmp_path}/here"]
    code, result, err = call("classify", *words)
    assert (code, [Path(p["path"]).name for p in result["placements"]]) == (1, ["a.wav"])
    assert "--map FROM=TO" in err
    assert call("embed", *words, "--out", tmp_path / "v.parquet")[1]["n_tracks"] == 1
    shutil.copytree(made, tmp_path / "copy")
    words[2] = model(tmp_path / "copy")
    code, result, err = call("index", *words)
    assert (code, result["embedded"]) == (1, 1)
    assert "--map FROM=TO" in err


def test_classify_refuses_where_no_file_can_be_read(made, tmp_path, call, capsys):
    for name in ("a.mp3", "b.mp3"):
        (tmp_path / name).write_text("no music")
    out, run = tmp_path / "out.csv", str(model(made))
    code, result, err = call("classify", tmp_path, "--run", run, "--out", out)
    assert (code, result, out.exists()) == (2, None, False)
    assert "none of 2 files could be classified" in err
    assert err.count("skipped ") == 2
    assert main(["classify", str(tmp_path / "a.mp3"), "--run", run]) == 2
    result = capsys.readouterr()
    assert (result.out, "none of 1 file could" in result.err) == ("", True)


def test_playlists_of_every_kind(tmp_path: Path, call: Call):
    run = vector_run(tmp_path / "fully_trained_models_1")
    first, last = "dark 0", "deep 1"

    def hits(*words: object) -> list[dict[str, Any]]:
        code, result, err = call("playlist", *words, "--run", run)
        assert code == 0, err
        return list(result["hits"])

    assert len(hits(first)) == TRACKS
    assert "dark 0.wav" not in [Path(hit["path"]).name for hit in hits(first)]
    both = hits("dark 0", "dark 1", "--tracks", 5)
    assert [hit["subgenre"] for hit in both] == ["dark"] * 5
    way = hits(first, last, "--journey", "--tracks", 6)
    assert [Path(way[0]["path"]).stem, Path(way[-1]["path"]).stem] == [first, last]
    axis = hits("--axis", "dark:deep", "--tracks", 6)
    assert [hit["score"] for hit in axis] == sorted(hit["score"] for hit in axis)
    assert [axis[0]["subgenre"], axis[-1]["subgenre"]] == ["dark", "deep"]
    middle = hits("--axis", "dark:deep", "--tracks", 3, "--between", 0.4, 0.6)
    assert abs(np.mean([hit["score"] for hit in middle]) - 0.5) < 0.3
    chances = [hit["score"] for hit in hits("--expand", "dark", "--until-fit", 0.05)]
    assert all(chance >= 0.05 for chance in chances)
    assert len(hits("--expand", "dark")) == TRACKS
    every = ["--expand", "dark", "--until-fit", 0, "--tracks", 30]
    chance = {h["id"]: h["score"] for h in hits(*every)}
    liked = {h["id"]: h["score"] for h in hits(*every, "--like", "deep 0", "--like", "deep 2")}
    unliked = {h["id"]: h["score"] for h in hits(*every, "--unlike", "deep 0")}
    deep = [i for i in liked if i.startswith("02")]
    emotional = [i for i in liked if i.startswith("01")]
    odds = [
        np.mean([c[i] for i in deep]) / np.mean([c[i] for i in emotional]) for c in (chance, liked)
    ]
    assert odds[1] > odds[0]
    assert set(chance) - set(liked) == {"02" + f"{0:030x}", "02" + f"{2:030x}"}
    assert set(chance) - set(unliked) == {"02" + f"{0:030x}"}
    smooth, plain = (hits(first, "--tracks", 9, *more) for more in (["--smooth"], []))
    assert {h["id"] for h in smooth} == {h["id"] for h in plain}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["similar", "dark 0"], "mutual proximity"),
        (["similar", "dark 0", "--plain"], "cosine"),
        (["playlist", "dark 0"], "mutual proximity"),
        (["playlist", "dark 0", "dark 1"], "agreement"),
        (["playlist", "dark 0", "dark 1", "--plain"], "agreement"),
        (["playlist", "dark 0", "--smooth"], "mutual proximity"),
        (["playlist", "dark 0", "deep 0", "--journey"], "journey"),
        (["playlist", "--axis", "dark:deep"], "axis"),
        (["playlist", "--expand", "dark"], "fits"),
    ],
)
def test_lists_are_ranked(
    tmp_path: Path,
    call: Call,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    name: str,
):
    run = ["--run", str(vector_run(tmp_path / "fully_trained_models_1"))]
    code, found, _ = call(*words, *run)
    assert (code, found["ranked_by"]) == (0, name)
    by = {"mutual proximity": "score", "cosine": "cosine", "fits": "score"}.get(name)
    if by and "--smooth" not in words:
        values = [hit[by] for hit in found["hits"]]
        assert values == sorted(values, reverse=True)
    assert main([*words, *run]) == 0
    out = capsys.readouterr().out
    if by and "--smooth" not in words:  # the figure is shown, in order
        head, *body = [r.split("┃" if "┃" in r else "│") for r in table_rows(out)]
        column = [cell.strip() for cell in head].index(
            {"mutual proximity": "proximity"}.get(name, name)
        )
        shown = [float(row[column]) for row in body]
        assert shown == sorted(shown, reverse=True)
        score = np.array([hit["score"] for hit in found["hits"]])
        real = np.exp(score) if name == "mutual proximity" else score
        np.testing.assert_allclose(shown, real, atol=0.001)


def test_a_damaged_model_expands_nothing(tmp_path: Path, call: Call):
    """Also where an index holds the vectors of the list; a deleted file is damage, too."""
    run = vector_run(tmp_path / "fully_trained_models_1", spread=0.5)
    score_file(run, 0.75)
    opened = ModelFolder.open(run)
    index = Index.create(opened.index_path, dim=DIM, fingerprint=opened.fingerprint)
    index.upsert(opened.tracks, opened.embeddings.vectors)
    words = ["playlist", "--expand", "dark", "--run", run]
    assert call(*words)[0] == 0
    for name in (workspace.EMBEDDINGS, workspace.METRICS):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole[: len(whole) // 2])
        code, _, err = call(*words)
        assert (code, name in err) == (2, True), err
        (run / name).write_bytes(whole)
    (run / workspace.EMBEDDINGS).unlink()
    assert f"{workspace.EMBEDDINGS}: " in call("check", run)[2]


def test_a_list_shows_what_like_and_unlike_changed(
    tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
):
    run = ["--run", str(vector_run(tmp_path / "fully_trained_models_1", spread=0.5))]
    words = ["playlist", "--expand", "dark", *run]
    plain = [hit["id"] for hit in call(*words)[1]["hits"]]
    like = ["--like", "deep 0"]
    hits = call(*words, *like)[1]["hits"]
    assert [hit["before"] for hit in hits] == [1 + plain.index(hit["id"]) for hit in hits]
    assert main([*words, *like]) == 0
    head, *body = [r.split("┃" if "┃" in r else "│") for r in table_rows(capsys.readouterr().out)]
    column = [cell.strip() for cell in head].index("before")
    assert [int(row[column]) for row in body] == [hit["before"] for hit in hits]


def test_a_name_of_two_tracks_is_not_called_missing(tmp_path: Path, call: Call):
    run = ModelFolder.open(vector_run(tmp_path / "fully_trained_models_1"))
    pair = [replace(t, path=tmp_path / f"{i}/same.wav") for i, t in enumerate(run.tracks[:2])]
    Index.create(tmp_path / "index", dim=run.dim, fingerprint=run.fingerprint).upsert(
        pair, run.embeddings.vectors[:2]
    )
    code, _, err = call("similar", "same", "--run", run.path, "--index", tmp_path / "index")
    assert (code, "names 2 tracks" in err, "no such" in err) == (2, True, False)


def test_a_filter_that_leaves_too_few_tracks_is_named(tmp_path: Path, call: Call):
    words = ["similar", "dark 0", "--run", vector_run(tmp_path / "fully_trained_models_1")]
    some = ["--subgenre", "deep", "-k"]
    found, err = call(*words, *some, 500)[1:]
    assert f"only {len(found['hits'])} of the 500 asked for pass the filter" in err
    assert "asked for" not in call(*words, *some, 2)[2]
    assert "asked for" not in call(*words, "-k", 500)[2]


def test_the_first_track_of_an_order_has_no_cosine_to_one_before(tmp_path, call, capsys):
    run = ["--run", str(vector_run(tmp_path / "fully_trained_models_1"))]
    for seeds in (["dark 0", "deep 0", "--journey"], ["dark 0", "--smooth"]):
        words = ["playlist", *seeds]
        first, *others = (hit["cosine"] for hit in call(*words, *run)[1]["hits"])
        assert (first, None in others) == (None, False)
        assert main([*words, *run]) == 0
        head, body, *_ = [
            [cell.strip() for cell in r.split("┃" if "┃" in r else "│")]
            for r in table_rows(capsys.readouterr().out)
        ]
        assert body[head.index("cosine")] == "-"


@pytest.mark.parametrize("down", [True, False])
def test_figures_near_one_are_shown_apart_and_in_order(down: bool):
    values = (1 - np.array([2e-6, 3e-6, 5e-5, 5e-5, 0.01])).tolist()
    shown = [float(text) for text in use._distinct(values, down=down)]
    assert shown == sorted(shown, reverse=True)
    assert len(set(shown)) == 4
    np.testing.assert_allclose(shown, values, atol=1e-6)
    assert not down or all(a <= b for a, b in zip(shown, values, strict=True))
    assert use._distinct([0.5, 0.25]) == ["0.500", "0.250"]


def test_few_tracks_are_ranked_by_cosine(tmp_path: Path, call: Call):
    run = vector_run(tmp_path / "fully_trained_models_1", each=4)
    found = call("similar", "dark 0", "--run", run)[1]
    assert found["ranked_by"] == "cosine"
    assert all(hit["score"] == hit["cosine"] for hit in found["hits"])


def test_commands_report_the_model_that_they_choose(home, call, capsys, monkeypatch):
    monkeypatch.chdir(home)
    shutil.copytree(model(home), home / "fully_trained_models_0")  # older by its name
    sound = next((home / "WAV/techno/dark").glob("*.wav"))
    given = {"similar": sound.stem, "playlist": sound.stem, "classify": sound, "embed": sound}
    for words in ({**given, "index": "WAV"}).items():
        code, result, err = call(*words)
        assert (code, result is None) == (0, False), err
        assert err.splitlines().count("model: fully_trained_models_1") == 1
        assert "model: " not in call(*words, "--run", model(home))[2]
    for words in (["evaluate"], ["embed"]):  # the features are gone: a model was chosen first
        assert "model: fully_trained_models_1\n" in call(*words)[2]
    assert main(["similar", sound.stem, "--quiet"]) == 0
    assert not capsys.readouterr().err


def test_an_axis_keeps_to_its_range(tmp_path: Path, call: Call):
    run = vector_run(tmp_path / "fully_trained_models_1")
    known = ModelFolder.open(run).collection()
    where = journeys.positions(known, journeys.axis(known, "dark:deep"))
    inside = sorted(at for at in where.tolist() if 0.3 <= at <= 0.6)
    assert 3 < len(inside) < TRACKS
    words = ["playlist", "--axis", "dark:deep", "--run", str(run)]
    code, result, err = call(*words, "--between", 0.3, 0.6)
    assert code == 0
    np.testing.assert_allclose([hit["score"] for hit in result["hits"]], inside, atol=1e-6)
    few = f"{len(inside)} tracks instead of {TRACKS}"
    assert f"{few}: no more lie between 0.3 and 0.6" in err
    result, err = call(*words, "--between", 0.6, 0.3, "--tracks", 3)[1:]
    some = [hit["score"] for hit in result["hits"]]
    assert (len(some), some == sorted(some), "asked for" in err) == (3, True, False)
    assert 0.3 <= some[0] < some[-1] <= 0.6
    # without a range from end to end, beyond the middles too
    ends = [hit["score"] for hit in call(*words)[1]["hits"]]
    assert ends[0] < 0.1 < 0.9 < ends[-1]
    assert max(ends) > 1 or min(ends) < 0
    # nothing there
    out = tmp_path / "none.m3u8"
    code, result, err = call(*words, "--between", 3, 4, "--out", out)
    assert (code, result["hits"], out.exists()) == (1, [], False)
    assert "no track is left between 3 and 4 on the axis" in err


def test_an_expansion_shows_the_fit_that_ends_it(tmp_path, call, capsys):
    run = ["--run", str(vector_run(tmp_path / "fully_trained_models_1", spread=0.5))]
    fits = [
        h["score"] for h in call("playlist", "--expand", "dark", "--until-fit", 0, *run)[1]["hits"]
    ]
    limit = f"{np.floor(fits[1] * 1000) / 1000:.3f}"
    words = ["playlist", "--expand", "dark", "--until-fit", limit, "--out"]
    out = tmp_path / "more.m3u8"
    assert main([*words, str(out), *run]) == 0
    head, *body = [r.split("┃" if "┃" in r else "│") for r in table_rows(capsys.readouterr().out)]
    column = [cell.strip() for cell in head].index("fits")
    shown = [float(row[column]) for row in body]
    assert shown == [np.floor(fit * 1000) / 1000 for fit in fits[:2]]
    assert len(formats.read_m3u(out)) == 2


def table_rows(out: str) -> list[str]:
    return [line for line in out.splitlines() if line[:1] in ("┃", "│")]


def test_no_track_fits(tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]):
    """The best fit is reported, nothing is written and the exit code is 1."""
    run = ["--run", str(vector_run(tmp_path / "fully_trained_models_1", spread=0.5))]
    expand = ["playlist", "--expand", "dark", *run, "--until-fit"]
    best = call(*expand, 0)[1]["hits"][0]
    out = tmp_path / "more.m3u8"
    code, result, err = call(*expand, best["score"] + 0.001, "--out", out)
    assert (code, result["hits"], result["out"]) == (1, [], None)
    shown = f"{np.floor(best['score'] * 1000) / 1000:.3f}"
    assert f"the best fit is {shown} ({Path(best['path']).stem})" in err
    assert not out.exists()
    assert "is not written" in err
    assert call(*expand, shown)[0] == 0  # the reported fit is enough
    assert main([*map(str, expand), "1"]) == 1
    assert not table_rows(capsys.readouterr().out)
    # a filter that leaves nothing
    for words in (["similar", "dark 0"], expand[:3], ["playlist", "dark 0"]):
        code, result, err = call(*words, *run, "--folder", tmp_path / "nowhere", "--out", out)
        assert (code, result["hits"], "no track is left" in err) == (1, [], True)
        assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--expand", "drak"], "did you mean 'dark'"),
        (["--expand", "dark", "--axis", "dark:deep"], "choose one"),
        (["dark 0", "--expand", "dark"], "takes no seeds"),
        (["dark 0", "--journey"], "two seeds"),
        (["dark 0", "--like", "deep 1"], "need a subgenre"),
        ([], "no seed"),
        (["dark 0", "--out", "list.txt"], "no extension of a playlist"),
        (["--axis", "dark"], "no colon"),
        (["--axis", "dark:deep", "--smooth"], "leave out --smooth"),
        (["dark 0", "deep 0", "--journey", "--smooth"], "leave out --smooth"),
        (["dark 0", "--until-fit", ".5"], "give --expand"),
        (["dark 0", "--between", "0", "1"], "give --axis"),
    ],
)
def test_bad_playlist_requests_are_refused(tmp_path, call, words, message):
    run = vector_run(tmp_path / "fully_trained_models_1")
    code, _, err = call("playlist", *words, "--run", run)
    assert code == 2
    assert message in err
    assert err.count("subgenre: ") == 1


@pytest.mark.parametrize("suffix", [".m3u8", ".xml"])
def test_written_playlists_are_read_as_labels(tmp_path: Path, call: Call, suffix: str):
    odd = ("plain", "comma, and; more", "line\nbreak", "ümläut 音楽", "  spaces  ", "#hash %20")
    names = [f"{name}.wav" for name in odd]
    rows = [
        Row(f"{i:032x}", tmp_path / "music" / f"n{i % 2}" / name, *LABELS[i % 2])
        for i, name in enumerate(names)
    ]
    for row in rows:
        row.path.parent.mkdir(parents=True, exist_ok=True)
        row.path.write_bytes(b"")
    values = np.eye(DIM)[:6] + 0.1
    run = write_run(tmp_path / "run", rows, values, ["train"] * 6, encoder="e" * 32)
    place = tmp_path / "lists" / "dark"
    out = place / f"mine{suffix}"
    code, result, err = call("playlist", rows[0].id, "--tracks", 9, "--out", out, "--run", run)
    assert (code, err.count("is gone")) == (0, 0)
    source = place.parent if suffix == ".m3u8" else out
    found = sources.find(source)
    assert not found.skipped
    genre = "dark" if suffix == ".m3u8" else "mine"
    assert {(e.genre, e.subgenre) for e in found.entries} == {(genre, "mine")}
    assert [e.path.resolve() for e in found.entries] == [Path(h["path"]) for h in result["hits"]]
    assert {e.path.name for e in found.entries} == set(names) - {names[0]}


def test_rekordbox_folders_are_genres(tmp_path: Path):
    source = tmp_path / "collection.xml"
    track = Track("1", tmp_path / "a.mp3")
    formats.write_rekordbox(source, {"deep": [track], "trash": [track]})
    text = source.read_text().replace(
        '<NODE Name="deep" Type="1"', '<NODE Name="house" Type="0"><NODE Name="deep" Type="1"'
    )
    source.write_text(text.replace("</NODE>", "</NODE></NODE>", 1))
    found = sources.find(source)
    labels = [(e.genre, e.subgenre, e.trash) for e in found.entries]
    assert labels == [("house", "deep", False), ("", "", True)]
    source.write_text("<html/>")
    with pytest.raises(LibraryError, match="no <DJ_PLAYLISTS>"):
        sources.find(source)


def score_file(run: Path, value: float) -> None:
    scores = {"value": value, "low": value - 0.1, "high": value + 0.1, "chance": 0.3}
    figures = {"format_version": 1, "n_train": 24, "n_test": 6}
    models = {"trained": {"centroid_accuracy": scores}}
    files.write_json(run / workspace.METRICS, {**figures, "models": models})


def test_runs_are_listed_with_their_figures(tmp_path, call, capsys):
    first, second = (vector_run(tmp_path / f"fully_trained_models_{n}") for n in (1, 2))
    score_file(first, 0.75)
    (tmp_path / "fully_trained_models_3").mkdir()
    (tmp_path / "fully_trained_models_3" / workspace.CONFIG).write_text("what = 1")
    code, result, err = call("runs", tmp_path)
    assert code == 0
    assert [Path(row["path"]).name[-1] for row in result["runs"]] == ["1", "2"]
    assert result["runs"][0]["scores"]["centroid_accuracy"]["value"] == 0.75
    assert result["runs"][1]["scores"] == {}
    assert "fully_trained_models_3" in err
    main(["runs", str(tmp_path)])
    out = capsys.readouterr().out
    assert "0.750" in out
    assert f"subgenre evaluate --run {second}" in " ".join(out.split())
    assert call("runs", tmp_path / "fully_trained_models_1")[0] == 2
    assert call("runs", tmp_path, "--quiet")[1] == result
    for words in (["runs", tmp_path], ["similar", "dark 0", "--run", first]):
        main([*map(str, words), "--quiet"])
        assert not capsys.readouterr().out


def test_compare_is_paired_by_track(tmp_path: Path, call: Call):
    sharp = vector_run(tmp_path / "fully_trained_models_1", each=40, spread=0.2)
    dull = vector_run(tmp_path / "fully_trained_models_2", each=40, spread=0.9)
    code, result, err = call("compare", dull, sharp)
    assert (code, result["n_tracks"]) == (0, 30)
    right = [naive_right(run) for run in (dull, sharp)]
    difference = np.array([right[1][i] - right[0][i] for i in right[0]])
    assert result["first"] == pytest.approx(np.mean(list(right[0].values())))
    assert result["difference"] == pytest.approx(difference.mean())
    assert result["second_only"] == int((difference == 1).sum())
    rng = np.random.default_rng(5)
    means = difference[rng.integers(0, 30, (20_000, 30))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    assert result["low"] == pytest.approx(low, abs=0.034)  # a step of one track of 30
    assert result["high"] == pytest.approx(high, abs=0.034)
    assert result["low"] > 0
    assert "fully_trained_models_1 assigns more tracks" in err
    same = call("compare", sharp, sharp)[1]
    assert (same["difference"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)


def naive_right(run: Path) -> dict[str, int]:
    """Per held-out track: is the nearest mean of a subgenre's training tracks its own?"""
    stored = embeddings(run)
    splits, subgenres = np.array(stored.splits), np.array(stored.subgenres)
    cosines = {}
    for _, subgenre in LABELS:
        mean = stored.vectors[(splits == "train") & (subgenres == subgenre)].mean(axis=0)
        cosines[subgenre] = stored.vectors @ mean / np.linalg.norm(mean)
    return {
        stored.ids[i]: int(max(cosines, key=lambda name: cosines[name][i]) == subgenres[i])
        for i in np.flatnonzero(splits == "test")
    }


def test_models_that_cannot_be_compared_are_refused(tmp_path: Path, call: Call):
    one = vector_run(tmp_path / "fully_trained_models_1")
    rows = [Row(f"{9 + i:x}" * 32, tmp_path / f"{i}.wav", *LABELS[i % 2]) for i in range(6)]
    split = ["train"] * 4 + ["test"] * 2
    two, bare = (
        write_run(tmp_path / name, rows, np.eye(DIM)[:6], split, encoder="x") for name in "bc"
    )
    (bare / workspace.EMBEDDINGS).unlink()
    for models, message in (
        ([], "two models"),
        ([one], "two models"),
        ([one, tmp_path / "gone"], f"{tmp_path / 'gone'} does not exist"),
        ([one, tmp_path], f"{tmp_path} holds no model"),
        ([one, two], "fewer than two subgenres are held out of both"),
        ([one, bare], f"run `subgenre evaluate --run {bare}`"),
    ):
        code, _, err = call("compare", *models)
        assert (code, message in err) == (2, True), err


def test_compare_names_the_model_that_is_not_evaluated(tmp_path, capsys):
    first, second = (vector_run(tmp_path / f"fully_trained_models_{n}") for n in (1, 2))
    score_file(first, 0.75)
    assert main(["compare", str(first), str(second)]) == 0
    err = capsys.readouterr().err
    assert f"subgenre evaluate --run {second}" in err
    assert f"subgenre evaluate --run {first}" not in err
    score_file(second, 0.5)
    assert main(["compare", str(first), str(second)]) == 0
    out, err = capsys.readouterr()
    assert "0.500 [0.400, 0.600]" in out
    assert "subgenre evaluate" not in err
    assert main(["runs", str(tmp_path)]) == 0
    out += capsys.readouterr().out
    assert out.count(METRICS["centroid_accuracy"].title) == 3  # by the names of the report
    assert not [name for name in METRICS if "_" in name and name in out]


def test_a_model_without_vectors_names_the_next_step(tmp_path: Path, call: Call):
    run = vector_run(tmp_path / "fully_trained_models_1")
    (run / workspace.EMBEDDINGS).unlink()
    for words in (["similar", "dark 0"], ["playlist", "dark 0"], ["explore"]):
        code, _, err = call(*words, "--run", run)
        assert (code, "run `subgenre index LIBRARY`" in err) == (2, True)
        assert "`subgenre evaluate`" in err
    code, _, err = call("classify", tmp_path, "--run", tmp_path)
    assert (code, "holds no model" in err) == (2, True)
    code, _, err = call("index", "--run", run)
    assert (code, "--root" in err) == (2, True)


def test_listing_takes_labels_from_folders_two_levels_deep(tmp_path: Path):
    for name in ("Genre/Sub/a.mp3", "Genre/b.mp3", "Genre/Sub/deep/c.mp3", "trash/d.mp3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = index.listing(tmp_path)
    named = {entry.path.name: (entry.genre, entry.subgenre) for entry in found.entries}
    assert named == {"a.mp3": ("Genre", "Sub"), "b.mp3": ("", ""), "c.mp3": ("Genre", "Sub")}
    assert not found.skipped
    lists_of = tmp_path / "lists"
    lists_of.mkdir()
    (lists_of / "mine.m3u8").write_text("../Genre/b.mp3\n")
    (entry,) = index.listing(lists_of).entries
    assert (entry.path.resolve(), entry.subgenre) == (tmp_path / "Genre/b.mp3", "mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LibraryError, match="holds no audio"):
        index.listing(tmp_path / "empty")


def test_outside_files_are_cut_by_the_settings_of_the_run(tmp_path: Path):
    run = ModelFolder.open(vector_run(tmp_path / "fully_trained_models_1"))
    assert run.preprocess.chunk_s == 3.0
    data = json.loads((run.path / workspace.DATA).read_text())
    del data["preprocess"]
    features = tmp_path / "features"
    features.mkdir()
    old = {"format_version": 1, "config": validation.to_dict(run.preprocess) | {"chunk_s": 5.0}}
    files.write_json(features / "dataset.json", old)
    files.write_json(run.path / workspace.DATA, data | {"features": str(features)})
    assert ModelFolder.open(run.path).preprocess.chunk_s == 5.0


@pytest.mark.parametrize("value", [None, 5, "x", [1], {"a": [2]}])
@pytest.mark.parametrize("key", ["features", "labels", "genres", "preprocess", "encoder", "root"])
def test_other_types_in_data_json_are_one_error(tmp_path: Path, key: str, value: Any):
    run = vector_run(tmp_path / "fully_trained_models_1")
    if isinstance(value, str) and key in ("features", "root"):
        return  # a text is what stands there
    data = json.loads((run / workspace.DATA).read_text())
    files.write_json(run / workspace.DATA, data | {key: value})
    with pytest.raises(SubgenreError, match=r"data\.json|of model eeee"):
        assert [(model := ModelFolder.open(run)).preprocess, model.embeddings]


@pytest.mark.parametrize(
    "figures",
    [
        {"models": []},
        {"models": {"trained": 5}},
        {"models": {"trained": {"map_at_r": "x"}}},
        {"models": {"trained": {"map_at_r": {"value": "x"}}}},
        {"audits": 3},
        {"audits": {"open_set": [1]}},
        {"n_test": "many"},
        {"encoder": "f" * 32},
    ],
)
def test_other_types_in_metrics_json_are_one_error(tmp_path: Path, figures: dict[str, Any]):
    run = vector_run(tmp_path / "fully_trained_models_1")
    files.write_json(run / workspace.METRICS, {"format_version": 1, **figures})
    with pytest.raises(RunError, match=r"metrics\.json .*subgenre evaluate --run"):
        assert ModelFolder.open(run).figures


def test_settings_that_are_cut_or_changed_are_refused(tmp_path: Path):
    run = vector_run(tmp_path / "fully_trained_models_1")
    whole = (run / workspace.CONFIG).read_text()
    sections = [
        at for at in range(len(whole)) if whole.startswith("[", at) and whole[at - 1] == "\n"
    ]
    for at in (0, *sections):
        (run / workspace.CONFIG).write_text(whole[:at])
        with pytest.raises(ConfigError, match=r"config\.toml is cut"):
            ModelFolder.open(run)
    data = json.loads((run / workspace.DATA).read_text())
    known = {workspace.CONFIG: files.checksum(whole.encode())}
    files.write_json(run / workspace.DATA, data | {"checksums": known})
    (run / workspace.CONFIG).write_text(whole)
    ModelFolder.open(run)
    (run / workspace.CONFIG).write_text(whole.replace("epochs = 2", "epochs = 3"))
    with pytest.raises(RunError, match=r"config\.toml is damaged or of another model"):
        ModelFolder.open(run)


def test_a_model_without_vectors_does_not_hide_the_one_in_use(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    used = vector_run(tmp_path / "fully_trained_models_1")
    trial = vector_run(tmp_path / "fully_trained_models_2")
    assert ModelFolder.open().path.name == trial.name
    (trial / workspace.EMBEDDINGS).unlink()
    assert ModelFolder.open().path.name == used.name
    assert workspace.find_run(None).name == trial.name  # evaluate gives it its vectors
    (used / workspace.EMBEDDINGS).unlink()
    assert ModelFolder.open().path.name == trial.name


def test_a_test_run_is_marked_and_used_only_without_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    vector_run(tmp_path / "fully_trained_models_1")
    trial = vector_run(tmp_path / "fully_trained_models_2")
    data = json.loads((trial / workspace.DATA).read_text())
    files.write_json(trial / workspace.DATA, data | {"test_run": True})
    assert workspace.find_run(None).name == "fully_trained_models_1"
    assert main(["runs", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert [row["test_run"] for row in rows] == [False, True]
    (tmp_path / "fully_trained_models_1" / workspace.CONFIG).unlink()
    assert workspace.find_run(None).name == "fully_trained_models_2"


def test_index_measures_tempo_and_key_once_and_lists_filter_by_them(
    home: Path, call: Call, monkeypatch: pytest.MonkeyPatch
):
    library, run = home / "mixed", ["--run", model(home)]
    sounds = {"a": (124, 9, True), "b": (87, 4, True), "c": (124, 1, False)}
    for name, (bpm, tonic, minor) in sounds.items():
        beats, chords = clicks(bpm, 16), np.tile(0.3 * cadence(tonic, minor), 4)
        tags = {"TBPM": "174"} if name == "b" else {}
        audio_files.write(library / f"{name}.mp3", (beats + chords)[None], RATE, tags=tags)
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, 16 * RATE))
    audio_files.write(library / "noise.wav", noise.astype(np.float32), RATE)
    assert call("index", library, *run)[0] == 0
    found = {Path(hit["path"]).stem: hit for hit in call("similar", "a", "-k", 50, *run)[1]["hits"]}
    assert found["b"]["tempo_bpm"] == pytest.approx(87, abs=0.1)
    assert found["b"]["tempo"] == pytest.approx(174, abs=0.2)
    assert [found["b"][name] for name in ("bpm", "key", "camelot")] == [174, "Em", "9A"]
    assert [found["noise"][name] for name in ("bpm", "tempo_bpm", "tempo", "key")] == [None] * 4

    def names(*words: object) -> set[str]:
        here = "--folder", library, "--tracks", 50
        hits = call("playlist", "noise", *here, *words, *run)[1]["hits"]
        return {Path(hit["path"]).stem for hit in hits}

    assert "b: 174.0 bpm, 9A (Em)" in call("similar", "b", *run)[2]
    assert names("--min-bpm", 120, "--max-bpm", 130) == {"a", "c"}
    assert names("--min-bpm", 170) == {"b"}
    assert names("--key", "A minor") == {"a"}
    assert names("--in-key", "8A") == {"a", "b"}
    assert names("--in-key", "Am", "--max-bpm", 130) == {"a"}
    assert "'H' is no key" in call("similar", "a", "--key", "H", *run)[2]
    decoded = replace_workers(monkeypatch)
    assert call("index", library, *run)[0] == 0
    assert decoded == []
    without_checksums(model(home) / "index", "measures")
    assert "no track has a known key" in call("similar", "a", "--key", "Am", *run)[2]
    result = call("index", library, *run)[1]
    assert {"a.mp3", "b.mp3", "c.mp3", "noise.wav"} <= set(decoded)
    assert len(decoded) == result["n_tracks"]
    assert names("--key", "Am") == {"a"}
    words = ("--key", "Am", "--out", home / "p.xml", *run, "--folder", library)
    assert "rekordbox ignores changes" in call("playlist", "noise", *words)[2]
    assert 'Tonality="Am"' in (home / "p.xml").read_text(encoding="utf-8")
    call("playlist", "noise", "--key", "Am", "--out", home / "p.m3u8", *run)
    assert "\n# 124.0 bpm, 8A (Am)\n" in (home / "p.m3u8").read_text(encoding="utf-8")


def test_a_terminal_shows_tempo_and_key(tmp_path: Path):
    tracks = [
        Track("1", tmp_path / "a.mp3", tempo_bpm=87.02, bpm=174.0, key="Em"),
        Track("2", tmp_path / "b.mp3", tempo_bpm=126.4, bpm=126.0),
        Track("3", tmp_path / "c.mp3"),
    ]
    columns, rows = use._hit_table([Hit(t, 0, 0.5, 0.5) for t in tracks], "cosine")
    at = [columns.index(name) for name in ("bpm", "key")]
    shown = [[row[i] for i in at] for row in rows]
    assert shown == [["174 (measured 87)", "9A Em"], ["126", "-"], ["-", "-"]]


def test_a_track_without_a_measurable_middle_is_listed_once(
    home: Path, call: Call, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path, _duration_s: float) -> tuple[None, None]:
        if path.stem == "new":
            raise AudioError("damaged at 2.0 s")
        return None, None

    write_wav(home / "other/new.wav", 5.0, 99)
    monkeypatch.setattr(tempo_key, "measure_file", refuse)
    code, result, _ = call("index", home / "other", "--run", model(home))
    assert (code, result["embedded"]) == (1, 1)
    (skipped,) = result["skipped"]
    assert Path(skipped["path"]).name == "new.wav"
    assert skipped["reason"] == "no tempo and key: damaged at 2.0 s"
    assert call("index", home / "other", "--run", model(home))[0] == 0
