from __future__ import annotations

from pathlib import Path

import pytest
import torch

from subgenre.errors import CheckpointError
from subgenre.training import checkpoint

SAME = {"configuration": "a", "data": "b", "split": "c"}


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    state = {"epoch": 3, "weights": {"w": torch.arange(3.0)}, "best_weights": None}
    found = checkpoint.load(checkpoint.save(tmp_path / "run", state, SAME), SAME)
    assert found["epoch"] == 3
    assert found["best_weights"] is None
    assert torch.equal(found["weights"]["w"], torch.arange(3.0))


def test_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, {}, SAME)
    with pytest.raises(CheckpointError, match="another data and another split"):
        checkpoint.load(path, {**SAME, "data": "x", "split": "y"})
    path = checkpoint.save(tmp_path, {}, {**SAME, "optim.lr": "0.1", "optim.old": "1"})
    with pytest.raises(
        CheckpointError, match=r"optim\.lr 0\.1 \(now 0\.2\) and another optim\.old;"
    ):
        checkpoint.load(path, {**SAME, "optim.lr": "0.2"})
    many = {f"loss.{i}": "1" for i in range(9)}
    path = checkpoint.save(tmp_path, {}, many)
    with pytest.raises(CheckpointError, match=r"loss\.3 1 \(now 2\) and more;"):
        checkpoint.load(path, dict.fromkeys(many, "2"))


def test_a_checkpoint_with_code_or_damage_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"format_version": 1, "path": Path()}, path)
    for content in (path.read_bytes(), b"", b"no checkpoint at all"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt can't be read"):
            checkpoint.load(path, SAME)


def test_the_newest_checkpoint_of_this_very_run_is_found(tmp_path: Path) -> None:
    assert checkpoint.of_run(tmp_path, SAME) == []
    names = ("20260102_000000", "20251231_235959", "20260103_000000", "20260104_000000")
    for name, own in zip(names, (SAME, SAME, {**SAME, "data": "another"}, SAME), strict=True):
        checkpoint.save(tmp_path / name, {"weights": torch.ones(3)}, own)
    (tmp_path / names[3] / checkpoint.NAME).write_bytes(b"damaged")
    damaged: list[str] = []
    found = checkpoint.of_run(tmp_path, SAME, on_damaged=damaged.append)
    assert len(damaged) == 1
    assert f"{names[3]}/{checkpoint.NAME} can't be read" in damaged[0]
    assert [path.parent.name for path in found] == list(names[:2])
    assert checkpoint.of_run(tmp_path / names[1], SAME) == [tmp_path / names[1] / checkpoint.NAME]
    with pytest.raises(CheckpointError, match=f"{names[2]}.* belongs to a run with another data"):
        checkpoint.of_run(tmp_path / names[2], SAME)
