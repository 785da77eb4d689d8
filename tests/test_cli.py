from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from subgenre import cli
from tests.conftest import REPOSITORY

COMMANDS = ("demo", "preprocess", "train", "evaluate", "embed")


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "subgenre", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
    )


@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_loads_no_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom subgenre import cli\n"
        f"assert cli.main({words!r}) == 0\n"
        "heavy = {'torch', 'transformers', 'numpy', 'sklearn', 'umap'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "Usage: subgenre" in found.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_and_the_common_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: subgenre {command}" in text
    assert "--json" in text
    assert "--quiet" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], 'Did you mean "train"'),
        (["train", "--recpe", "x"], "Did you mean --recipe"),
        (["train", "--epochs", "many"], "epochs"),
        (["train", "--recipe", "thesys"], "did you mean 'thesis'"),
        (["train", "--recipe", "thesis", "--tune", "heads"], "choose head, last:N"),
        (["train", "--recipe", "thesis", "--set", "optim.lrr=1"], "did you mean 'lr'"),
        (["train", "--recipe", "thesis", "--set", "optimm.lr=1"], "did you mean 'optim'"),
        (["train", "--recipe", "thesis", "--set", "lr"], "section.key=value"),
        (["train", "--recipe", "thesis", "--features", "nowhere"], "subgenre preprocess"),
        (["preprocess", "nowhere", "--backbone", "musicnn"], "nowhere"),
        (["preprocess", "--chunk-strategy", "spread"], "did you mean 'spaced'"),
        (["evaluate", "--run", "nowhere"], "nowhere does not exist"),
        (["evaluate"], "run `subgenre train`"),
        (["embed", "nowhere.mp3"], "subgenre train"),
    ],
)
def test_what_is_refused_is_one_line_and_exit_code_2(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_underscores_serve_as_dashes() -> None:
    from subgenre.cli import _dashed

    assert _dashed("--test_run") == "--test-run"
    assert _dashed("--set=loss.genre_margin=1") == "--set=loss.genre_margin=1"
    assert _dashed("my_file.mp3") == "my_file.mp3"


@pytest.mark.parametrize(
    "script",
    [
        "Preprocess_AST_features.py",
        "AST_Triplet_training.py",
        "evaluate_triplet_embeddings.py",
        "extract_test_embeddings.py",
    ],
)
def test_the_original_commands_stand_for_ours(script: str, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, str(REPOSITORY / script), "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert found.returncode == 0
    assert "Usage: subgenre" in found.stdout
    bad = subprocess.run(
        [sys.executable, str(REPOSITORY / script), "--no-such-option"], cwd=tmp_path, timeout=120
    )
    assert bad.returncode == 2


def test_an_option_beats_the_recipe_and_set_reaches_every_key() -> None:
    from subgenre.cli.options import Recipe

    settings = Recipe(
        recipe="thesis",
        epochs=3,
        tune="head",
        backbone="musicnn",
        set=("loss.margin=0.4", "model.head=[64, 32]", "batch.kind=pk", "run.seed=7"),
    ).settings("thesis")
    assert (settings.optim.epochs, settings.model.tune) == (3, "head")
    assert settings.loss.margin == 0.4
    assert settings.model.head == (64, 32)
    assert (settings.batch.kind, settings.run.seed) == ("pk", 7)


def test_json_on_standard_output_is_the_result_alone(tmp_path: Path) -> None:
    found = run("runs", "--json", cwd=tmp_path)
    assert found.returncode in (0, 2)
    if found.returncode == 0:
        json.loads(found.stdout)
