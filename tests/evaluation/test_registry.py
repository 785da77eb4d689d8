"""A registered audit runs where it applies; `tests/test_extending.py` has one in a report."""

from __future__ import annotations

import numpy as np
import pytest

from subgenre.evaluation.audits import registry
from subgenre.evaluation.audits.base import Audit, Context, Section
from tests.evaluation.audit_context import context


def count(context: Context) -> dict[str, int]:
    return {"n_tracks": len(context.tracks)}


def section(result: dict[str, int], _: Context) -> Section:
    return Section("toy", "A toy audit", "How many tracks are there?", str(result["n_tracks"]), ())


def test_the_audits_that_apply_have_a_result_and_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Audit("toy", count, section)
    never = Audit("never", count, section, applies=lambda _: False)
    monkeypatch.setattr(registry, "AUDITS", [toy, never])
    labels = np.repeat([0, 1], 6)
    found = registry.run_all(context(np.random.default_rng(0).normal(size=(12, 4)), labels))
    assert found.results == {"toy": {"n_tracks": 12}}
    assert [(one.title, one.finding) for one in found.sections] == [("A toy audit", "12")]
