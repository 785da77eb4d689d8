"""A registered audit runs, and its section is in the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from subgenre.commands import evaluate, train
from subgenre.core import workspace
from subgenre.evaluation.audits import registry
from subgenre.evaluation.audits.base import Audit, Context, Section, Table
from tests.folders import make_folder
from tests.training_runs import recipe


def count(context: Context) -> dict[str, int]:
    return {"n_tracks": len(context.tracks)}


def section(result: dict[str, int], _: Context) -> Section:
    table = Table(("What", "Number"), (("tracks", str(result["n_tracks"])),))
    return Section("toy", "A toy audit", "How many tracks are there?", "", (table,))


@pytest.mark.slow
def test_a_registered_audit_has_a_result_and_a_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = Audit("toy", count, section)
    never = Audit("never", count, section, applies=lambda _: False)
    monkeypatch.setattr(registry, "AUDITS", [toy, never])
    folder = make_folder(tmp_path / "features", labels=(("a", "one"), ("a", "two")), tracks=5)
    out = tmp_path / "model"
    train.train(folder.path, recipe(), out=out, checkpoints=tmp_path / "checkpoints")
    evaluate.evaluate(out, max_mb=0)
    figures = json.loads((out / workspace.METRICS).read_text())
    assert figures["audits"] == {"toy": {"n_tracks": 10}}
    assert "A toy audit" in (out / workspace.REPORT).read_text(encoding="utf-8")
