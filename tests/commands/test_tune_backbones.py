"""Frozen backbones and layers side by side, by a probe on folds of the training side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from subgenre import cli, config
from subgenre.commands import tune_backbones
from subgenre.dataset import splits
from subgenre.dataset.folder import FeatureFolder
from subgenre.evaluation import baselines
from tests.models.hub_folders import CASES, save
from tests.small_library import replace_workers, write_wav

COMMON = ["--quiet", "--json", "--folds", "2", "--workers", "1"]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureFolder:
    """Low and high tones, and features for the built-in backbone."""
    replace_workers(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for number, label in enumerate(("tone/low", "tone/high")):
        for i in range(7):
            write_wav(tmp_path / "WAV" / label / f"{i}.wav", 4.0, seed=20 * number + i)
    words = ["preprocess", "--backbone", "musicnn", "--chunk-s", "1", "--max-chunks", "2"]
    assert cli.main([*words, "--quiet"]) == 0
    return FeatureFolder.open(tmp_path / "preprocessed_features")


@pytest.mark.slow  # it computes features twice
def test_backbones_and_their_layers_are_judged_on_the_same_training_tracks(
    library: FeatureFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    wave = str(save(CASES["hubert"], tmp_path / "hubert"))
    seen: list[np.ndarray] = []
    real = baselines.probe_vectors

    def note(frozen, labels, train, test, *, seed):
        seen.extend((train, test))
        return real(frozen, labels, train, test, seed=seed)

    monkeypatch.setattr(tune_backbones, "probe_vectors", note)
    names = ["musicnn", wave, str(tmp_path / "gone")]
    assert cli.main(["tune", *COMMON, "--layers", "--backbones", *names]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in result["tried"]}
    layers = [f"{wave}, layer {layer}" for layer in (-3, -2, -1)]
    assert set(rows) == {"musicnn", *layers, names[2]}
    assert rows[names[2]]["failed"]
    side = splits.split(library.tracks, seed=0, test_share=0.2)
    places = {i for i, track in enumerate(library.tracks) if track.id in set(side.test)}
    assert places
    assert not places & set(np.concatenate(seen).tolist())
    values = {
        name: row["scores"]["map_at_r"]["value"] for name, row in rows.items() if row["scores"]
    }
    best = max(values, key=values.__getitem__)
    assert values[result["winner"]] == values[best]
    winner = config.load_recipe("tuned.toml").model
    assert winner.backbone == result["winner"].split(",")[0]
    # the same audio, cut at the same places, for the other front end
    other = FeatureFolder.open(next((tmp_path / "tuning").glob("features_*")))
    assert {t.id for t in other.tracks} == {t.id for t in library.tracks}
    assert other.chunks["start_s"].to_pylist() == library.chunks["start_s"].to_pylist()


@pytest.mark.slow  # it computes features three times
def test_features_of_other_backbones_and_chunks_are_kept_apart(
    library: FeatureFolder, tmp_path: Path, capsys
) -> None:
    place = tmp_path / ("long name " * 9)  # longer than what a file name keeps of it
    names = [str(save(CASES[name], place / name)) for name in ("hubert", "whisper")]
    assert cli.main(["tune", *COMMON, "--backbones", *names, names[0]]) == 0
    tried = json.loads(capsys.readouterr().out)["tried"]
    assert {row["name"]: row["failed"] for row in tried} == dict.fromkeys(names, "")
    words = ["--backbone", "musicnn", "--chunk-s", "2", "--max-chunks", "1", "--overwrite"]
    assert cli.main(["preprocess", *words, "--quiet"]) == 0
    assert cli.main(["tune", *COMMON, "--backbones", names[0]]) == 0
    (row,) = json.loads(capsys.readouterr().out)["tried"]
    assert not row["failed"]


def test_options_of_the_other_search_are_refused(library: FeatureFolder, capsys) -> None:
    for words in (["--layers"], ["--backbones", "musicnn", "--vary", "optim.lr=1,2"]):
        assert cli.main(["tune", *words, "--quiet"]) == 2
        assert "--backbones" in capsys.readouterr().err
