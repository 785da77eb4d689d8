"""Damaged files: each gives the same answers as before, or one clear error; never other answers.

One bit flipped, the end cut off, emptied, deleted, or another folder's file of that name in its
place, in each file of a small feature, model and index folder. SUBGENRE_DAMAGE sets the number of
states; `make damage` tries 2000.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from subgenre.audio import tempo_key
from subgenre.cli.main import main
from subgenre.commands.check import check
from subgenre.commands.index import index
from subgenre.commands.model_folder import ModelFolder
from subgenre.commands.playlist import playlist
from subgenre.commands.train import train
from subgenre.core import files, workspace
from subgenre.dataset import folder as store
from subgenre.dataset.folder import FeatureFolder
from subgenre.errors import SubgenreError
from subgenre.models import embedding
from subgenre.models.cache import CACHE
from subgenre.search.requests import PlaylistRequest
from tests import small_library
from tests.training_runs import recipe

pytestmark = pytest.mark.slow

MANY = os.environ.get("SUBGENRE_DAMAGE")
STATES = int(MANY or 100)
FEATURES, RUN = "preprocessed_features", "fully_trained_models_1"
UNREAD = {"skipped.csv"}  # a list for a person
CACHED = (CACHE, "proximity.npz")  # computed again where it is damaged
Answer = Callable[[Path], object]


def make(work: Path, seed: int) -> None:
    """Make a library, its features, a model of them and an index, as the commands do."""
    small_library.make_library(work / "WAV")
    if seed:  # another library of the same shape
        small_library.write_wav(work / "WAV" / "house" / "deep" / "c.wav", 9.5, 99)
    config = small_library.CONFIG
    small_library.run(work / "WAV", work / FEATURES, config)
    settings = recipe(optim={"epochs": 1}, run={"seed": seed, "device": "cpu", "test_share": 0.4})
    train(work / FEATURES, settings, out=work / RUN, checkpoints=work / "checkpoints")
    model = ModelFolder.open(work / RUN)
    score = {"value": 0.5 + seed, "low": 0.4, "high": 0.6, "chance": 0.3}
    figures = {"format_version": 1, "models": {"trained": {"map_at_r": score}}}
    files.write_json(work / RUN / workspace.METRICS, {**figures, "encoder": model.fingerprint})
    index(work / "WAV", model, workers=1)


def of_features(work: Path) -> object:
    opened = FeatureFolder.open(work / FEATURES)
    chunks = opened.load(np.arange(len(opened.chunks)))
    pooled = embedding.pooled_vectors(
        ModelFolder.open(work / RUN).frozen_encoder,
        opened,
        np.arange(len(chunks)),
        cache=work / FEATURES / CACHE,
    )  # what is computed again, in another batch, is rounded differently
    tags = ModelFolder.open(work / RUN).tracks
    content = (opened.fingerprint, opened.tracks, opened.trash, opened.labels, opened.genres)
    return (
        *content,
        opened.root,
        opened.backbone,
        chunks.numpy().tobytes(),
        tags,
        pooled.round(2).tolist(),
    )


def of_list(work: Path) -> object:
    """A list that the index and the model's own vectors answer together."""
    model = ModelFolder.open(work / RUN)
    hits = playlist(model, model.collection(), PlaylistRequest(expand="dark"))
    return [(hit.track.id, round(hit.score, 4)) for hit in hits]


def of_model(work: Path) -> object:
    model = ModelFolder.open(work / RUN)
    vectors = model.encoder(torch.ones(1, 250, 96)).detach().numpy().tobytes()
    stored = model.embeddings
    content = (stored.ids, stored.paths, stored.labels, stored.splits, stored.vectors.tobytes())
    placed = [str(p) for p in model.classifier().place(list(stored.ids), stored.vectors)]
    plain = {k: v for k, v in model.data.items() if k != "checksums"}
    more = (plain, model.split, model.figures, str(model.history), model.settings, placed)
    return vectors, content, more


def of_index(work: Path) -> object:
    found = ModelFolder.open(work / RUN).collection()
    moments, spread = found.proximity
    rows = {track.id: (track, i) for i, track in enumerate(found.tracks(found.live))}
    near = np.round(spread.mean, 4).tolist(), np.round(moments.mean, 4).tolist()
    return rows, found.vectors(found.live).tobytes(), found.copies, near


ANSWERS: dict[str, tuple[Answer, ...]] = {
    FEATURES: (of_features,),
    RUN: (of_model, of_list),
    f"{RUN}/index": (of_index, of_list),
}
# files that a model lacks before it is evaluated; a list says so then
NOT_YET = (workspace.METRICS, workspace.EMBEDDINGS)


def damaged(data: bytes, kind: str, other: bytes, rng: np.random.Generator) -> bytes | None:
    """Return the file's new bytes; None: it is deleted."""
    if kind == "flip" and data:
        at = int(rng.integers(len(data)))
        return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
    if kind == "cut" and data:
        return data[: int(rng.integers(len(data)))]
    return {"swap": other, "delete": None}.get(kind, b"")


def owner(path: Path, work: Path) -> str:
    """Return the folder whose answers depend on a file."""
    inside = path.relative_to(work)
    return max((name for name in ANSWERS if inside.is_relative_to(name)), key=len)


def listing(work: Path) -> list[Path]:
    """Every file that is read again, those of the caches included."""
    found = [p for name in (FEATURES, RUN) for p in sorted((work / name).rglob("*"))]
    return [p for p in found if p.is_file() and p.name not in UNREAD and p.suffix != ".lock"]


def twin(path: Path, work: Path, other: Path) -> bytes:
    """Return the file of that name in the other folder, or the next of its kind in its own."""
    same = other / path.relative_to(work)
    if same.is_file() and same.read_bytes() != path.read_bytes():
        return same.read_bytes()
    beside = sorted(p for p in path.parent.iterdir() if p.suffix == path.suffix and p != path)
    return beside[0].read_bytes() if beside else b""


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    patch = pytest.MonkeyPatch()
    small_library.replace_workers(patch)
    patch.setattr(tempo_key, "measure_file", lambda *_: (120.0, "Am"))  # it takes seconds
    both = tmp_path_factory.mktemp("damage")
    for seed, name in enumerate(("one", "other")):
        make(both / name, seed)
    patch.undo()
    return both / "one", both / "other"


def test_damage_is_noticed_or_changes_nothing(works: tuple[Path, Path], capsys) -> None:
    work, other = works
    expected = {answer: repr(answer(work)) for every in ANSWERS.values() for answer in every}
    rng, outcome = np.random.default_rng(STATES), Counter[str]()
    paths, kinds, faults = listing(work), ("flip", "cut", "empty", "delete", "swap"), []
    for state in range(STATES):
        path, kind = paths[int(rng.integers(len(paths)))], kinds[state % len(kinds)]
        name, data = owner(path, work), path.read_bytes()
        changed = damaged(data, kind, twin(path, work, other), rng)
        path.unlink() if changed is None else path.write_bytes(changed)
        is_absent = changed is None and path.name in NOT_YET
        for answer in ANSWERS[name]:
            try:
                same = repr(answer(work)) == expected[answer]
                outcome["same" if same else "absent" if is_absent else "another answer"] += 1
                if not same and not is_absent:
                    faults.append((path.relative_to(work), kind, answer.__name__))
            except SubgenreError as problem:
                outcome["refused"] += 1
                if "\n" in str(problem) or len(str(problem)) > 1000:
                    faults.append((path.relative_to(work), kind, str(problem)))
            except Exception as problem:  # noqa: BLE001 - a traceback is what is looked for
                faults.append((path.relative_to(work), kind, repr(problem)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with capsys.disabled():
        sys.stdout.write(f"\n{STATES} damaged states: {dict(outcome)}\n" if MANY else "")
    assert not faults, f"{len(faults)}: {faults[:20]}"
    assert outcome["refused"] > STATES / 2


def test_check_finds_each_damaged_file(works: tuple[Path, Path], capsys) -> None:
    work, other = works
    whole = [check(work / name) for name in ANSWERS]
    assert not any(checked.bad for checked in whole)
    assert whole[0].n_files == len(list((work / FEATURES).rglob("*.pt"))) + 3
    for path in listing(work):
        if path.name == workspace.DATASET or any(part in CACHED for part in path.parts):
            continue
        data = path.read_bytes()
        path.write_bytes(twin(path, work, other) or data[:-1])
        name = owner(path, work)
        bad = check(work / name).bad
        assert [one.path.name for one in bad] or path.name == "config.toml", path
        if path.suffix == ".pt":
            assert [one.path for one in bad] == [path]
            assert "subgenre preprocess" in bad[0].command
        path.write_bytes(data)
    chunk = next((work / FEATURES).rglob("*.pt"))
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1])
    capsys.readouterr()
    assert main(["check", str(work / FEATURES)]) == 1
    assert str(chunk) in capsys.readouterr().err.replace("\n", "")
    chunk.write_bytes(data)
    assert main(["check", str(work / FEATURES)]) == 0
    assert main(["check", str(work / "WAV")]) == 2


def test_a_moved_work_folder_is_the_same(works: tuple[Path, Path], tmp_path: Path) -> None:
    work = works[0]
    shutil.copytree(work, tmp_path / "moved")
    model = ModelFolder.open(tmp_path / "moved" / RUN)
    assert model.features_path == tmp_path / "moved" / FEATURES
    assert model.root == model.features.root == tmp_path / "moved" / "WAV"
    assert model.features.fingerprint == FeatureFolder.open(work / FEATURES).fingerprint
    tracks = model.collection().tracks(model.collection().live)
    assert all(track.path.is_relative_to(tmp_path / "moved" / "WAV") for track in tracks)
    assert store.read_dataset(tmp_path / "moved" / FEATURES)["root"] == "../WAV"
