"""The whole evaluation of a tagged library with trash: artist gap and open set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from subgenre.commands import evaluate as stage
from subgenre.core import tables, workspace
from subgenre.dataset import folder as store
from subgenre.dataset.folder import FeatureFolder
from tests.evaluation.test_baselines import write
from tests.folders import make_folder
from tests.training_runs import recipe

pytestmark = pytest.mark.slow  # each trains or evaluates a model

LABELS = (("a", "one"), ("a", "two"), ("b", "three"))
ARTISTS = 4  # a subgenre, of three tracks each


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> FeatureFolder:
    """Each artist has a band of their own, louder than that of the subgenre."""
    path = tmp_path_factory.mktemp("tagged") / "features"
    folder = make_folder(path, labels=LABELS, tracks=12, trash=4, level=0.5)
    generator = torch.Generator().manual_seed(3)
    n = folder.spec.n_mels
    bands = [(torch.rand(n, generator=generator) < 0.2).float() for _ in range(3 * ARTISTS)]
    for number, track in enumerate(folder.tracks):
        for row in folder.rows([track.id]):
            chunk = folder.load([row])[0] + 2 * bands[number // 3]
            write(folder, int(row), chunk, track.id)
    table = pq.read_table(path / store.TRACKS)
    names = [f"artist {n // 3}" for n in range(36)]
    names += [f"nobody {n}" for n in range(len(table) - 36)]
    column = table.column_names.index("artist")
    tables.write(path / store.TRACKS, table.set_column(column, "artist", pa.array(names)))
    return FeatureFolder.open(path)


@pytest.fixture(scope="module")
def out(library: FeatureFolder) -> Path:
    return library.path.parent / "evaluation"


@pytest.fixture(scope="module")
def found(library: FeatureFolder, out: Path) -> dict[str, Any]:
    settings = recipe(optim={"epochs": 2})
    return stage.evaluate(
        features=library.path,
        settings=settings,
        folds=2,
        workers=1,
        max_mb=0,
        out=out,
        open_set="full",
    ).metrics


def test_the_artist_gap_of_a_tagged_library_is_measured_and_reported(
    found: dict[str, Any], out: Path
) -> None:
    assert "artist" in found["grouped_by"]
    rows = {row["kind"]: row for row in found["audits"]["leakage"]["comparisons"]}
    artist = rows["artist"]
    assert (artist["n_tracks"], artist["n_groups"]) == (36, 3 * ARTISTS)
    chance = artist["knn_loose"]["chance"]
    assert artist["knn_loose"]["low"] > chance  # by the artist's bands, and by those alone:
    assert artist["knn_strict"]["low"] <= chance
    assert artist["knn_gap"]["low"] > 0.2
    assert "whole artists held out" in (out / workspace.REPORT).read_text(encoding="utf-8")


def test_a_model_is_trained_without_each_subgenre(found: dict[str, Any], out: Path) -> None:
    rows = found["audits"]["open_set_trained"]
    assert set(rows) == {"trained without it", "trained without it, with trash"}
    for row in rows.values():
        assert len(row["rows"]) == len(LABELS)
        assert [one["n_tracks"] for one in row["rows"]] == [12] * len(LABELS)
        each = [one["auroc"]["value"] for one in row["rows"]]
        assert row["auroc"]["value"] == pytest.approx(sum(each) / len(each))
        assert max(each) > 0.5  # at least one of the three is no neighbour of the other two
    for way in ("0", "1"):
        trained = sorted(p.name for p in (out / "open_set" / way).glob("*.npz"))
        assert trained == ["0.npz", "1.npz", "2.npz"]
    report = (out / workspace.REPORT).read_text(encoding="utf-8")
    assert "trained without it, with trash" in report
