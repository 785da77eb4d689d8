"""The code of `docs/extending.md` runs, and what it registers goes through a training."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from subgenre import cli, config
from subgenre.commands import evaluate, train
from subgenre.core import workspace
from subgenre.evaluation.audits.registry import AUDITS
from subgenre.library import formats
from subgenre.metrics import METRICS
from subgenre.models import backbones, encoder
from subgenre.models.backbones.registry import KINDS
from tests.folders import make_folder
from tests.small_library import replace_workers, write_wav
from tests.training_runs import recipe

BACKBONE = "my_backbone:MeanBackbone"
PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
REGISTRIES = (config.LOSSES, METRICS, KINDS, formats.FORMATS)


@pytest.fixture
def extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Import each block of the page as a module; the registries are put back afterwards."""
    before, audits = [dict(registry) for registry in REGISTRIES], list(AUDITS)
    monkeypatch.syspath_prepend(tmp_path)
    blocks = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    for name, code in blocks:
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        importlib.import_module(name)
    backbones.import_factory(BACKBONE)
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)
    AUDITS[:] = audits
    for name, _ in blocks:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.usefixtures("extensions")
def test_a_model_of_the_pages_loss_and_backbone_is_scored_by_its_metric_and_audit(
    tmp_path: Path,
) -> None:
    folder = make_folder(tmp_path / "features", labels=(("a", "one"), ("a", "two")), tracks=5)
    batch = {"kind": "pk", "subgenres": 0, "tracks": 2, "chunks": 2}
    settings = recipe(model={"backbone": BACKBONE}, loss={"name": "contrastive"}, batch=batch)
    run = tmp_path / "model"
    train.train(folder.path, settings, out=run, checkpoints=tmp_path / "checkpoints")
    assert encoder.load(run).backbone.kind == BACKBONE
    evaluate.evaluate(run, max_mb=0)
    figures = json.loads((run / workspace.METRICS).read_text(encoding="utf-8"))
    assert 0 < figures["models"]["trained"]["reciprocal_rank"]["value"] <= 1
    assert figures["audits"]["sizes"] == {"n_tracks": [5, 5]}
    report = (run / workspace.REPORT).read_text(encoding="utf-8")
    assert "Reciprocal rank" in report
    assert "Are the subgenres of equal size?" in report


@pytest.mark.slow
@pytest.mark.usefixtures("extensions")
def test_the_pages_commands_for_a_backbone_train_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_workers(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for seed in range(12):
        subgenre = ("house/deep", "techno/dark")[seed % 2]
        write_wav(tmp_path / "WAV" / subgenre / f"{seed}.wav", 4.0, seed)
    page = PAGE.read_text()
    pattern = r"^subgenre (preprocess .*)\n(subgenre (train .*))\n.* (--trust .*)$"
    found = re.search(pattern, page, re.M)
    assert found
    assert cli.main(found[1].split()) == 0
    assert f"next: {found[2]}\n" in capsys.readouterr().err
    assert cli.main([*found[3].split(), "--epochs", "1", "--out", "model"]) == 0
    assert f"next: subgenre evaluate --run model {found[4]}\n" in capsys.readouterr().err


@pytest.mark.usefixtures("extensions")
def test_the_pages_playlist_format_reads_what_it_writes(tmp_path: Path) -> None:
    tracks = make_folder(tmp_path / "features", tracks=2).tracks
    formats.write_playlist(tmp_path / "mine.list", tracks)
    assert formats.read_playlist(tmp_path / "mine.list") == [track.path for track in tracks]
