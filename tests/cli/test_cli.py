from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from subgenre import cli
from subgenre.cli.console import Terminal
from subgenre.cli.options import Mapped, Recipe
from subgenre.core.files import TEMPORARY
from subgenre.errors import ConfigError
from subgenre.training import distributed
from tests.conftest import REPOSITORY
from tests.folders import make_folder
from tests.runs import vector_run

COMMANDS = ("demo", "preprocess", "train", "evaluate", "embed")


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


@pytest.mark.parametrize(
    ("words", "message"),
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
        (["train", "--recipe", "thesis", "--seed", "-1"], "seed is -1; it must lie between 0"),
        (["train", "--recipe", "thesis", "--set", "optim.clip_norm=-1"], "clip_norm is -1"),
        (["doctor", "--seed", "-1"], "seed is -1; it must lie between 0"),
        (["doctor", "--repeats", "0"], "repeats is 0; it must lie between 1"),
        (["doctor", "--out", "."], "out is ., a folder; give the name of a file"),
        (["demo", "--seed", "-1"], "seed is -1; it must lie between 0"),
        (["preprocess", "nowhere", "--backbone", "musicnn"], "nowhere"),
        (["preprocess", "--chunk_strategy", "spread"], "did you mean 'spaced'"),
        (["evaluate", "--run", "nowhere"], "nowhere does not exist"),
        (["evaluate"], "run `subgenre train`"),
        (["embed", "nowhere.mp3"], "subgenre train"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_2(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (NotADirectoryError(20, "Not a directory", "afile/x.toml"), "afile/x.toml: Not a direct"),
        (OSError(28, "No space left on device", f"out/{TEMPORARY}1"), "out: No space left on dev"),
        (IsADirectoryError(21, "Is a directory", f"{TEMPORARY}1", None, "made"), "made: Is a dir"),
        (PermissionError(13, "Permission denied", b"a\xff"), "a\\udcff: Permission denied"),
        (OSError("torn\nin two"), "torn in two"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError(), "OSError"),
    ],
)
def test_a_refusal_of_the_system_is_one_line(problem, message, monkeypatch, capsys) -> None:
    def refused(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr("subgenre.commands.runs.runs", refused)
    assert cli.main(["runs"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"subgenre: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--trials", "0"), "trials is 0; give 1 or more"),
        (("--trials", "-3"), "trials is -3; give 1 or more"),
        (("--out", "."), "out is ., a folder; give the name of a file"),
        (("--out", "afile/x.toml"), "but afile is no folder; choose another place"),
        (("--seed", "-1"), "seed is -1; it must lie between 0"),
    ],
)
def test_a_bad_search_is_refused_before_it_starts(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "subgenre.evaluation.cross_validation.train_all",
        lambda *_, **__: pytest.fail("it was trained"),
    )
    make_folder(tmp_path / "f", tracks=4, chunks=1)
    Path("afile").touch()
    assert cli.main(["tune", "--features", "f", "--recipe", "laptop", "--quiet", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["afile", "f"]


@pytest.mark.parametrize(
    ("script", "option", "code"),
    [
        ("Preprocess_AST_features.py", "--help", 0),
        ("AST_Triplet_training.py", "--help", 0),
        ("evaluate_triplet_embeddings.py", "--help", 0),
        ("extract_test_embeddings.py", "--help", 0),
        ("extract_test_embeddings.py", "--no-such-option", 2),
    ],
)
def test_the_original_scripts_run_the_commands(script, option, code, tmp_path) -> None:
    command = [sys.executable, str(REPOSITORY / script), option]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == code
    assert ("Usage: subgenre" in found.stdout) == (code == 0)


def test_set_reaches_every_option_and_its_values_are_toml_or_words() -> None:
    given = ("loss.margin=0.4", "model.head=[64, 32]", "batch.kind=pk", "run.seed=7")
    values = {"loss.margin": 0.4, "model.head": [64, 32], "batch.kind": "pk", "run.seed": 7}
    named = {"optim.epochs": 3, "model.tune": "head"}
    assert Recipe(epochs=3, tune="head", set=given).given() == named | values


NAMES = (
    "Boards of Canada - Everything You Do Is a Balloon (Extended Version)",
    "01_some_very_long_file_name_from_an_encoder_without_spaces_320kbps",
    "fully_trained_models_20261122_101500",
    "well-known tracks of genre/subgenre",
    "音楽家の長い名前 - とても長い曲の名前",
    "a",
)


def test_tables_keep_words_whole_at_80_columns(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [[str(n), name, "Emotional Techno", "-0.123", "100/26"] for n, name in enumerate(NAMES)]
    columns = ["", "track", "subgenre", "cosine", "train/test"]
    Terminal().table("Tracks of " + NAMES[0], columns, rows, caption="ranked by " * 20)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) == 80
    cells = [line.split("│") for line in lines if line.startswith("│")]
    shown: list[list[str]] = []
    for _, number, *rest, _ in cells:
        if number.strip():
            shown.append([""] * len(rest))
        shown[-1] = [
            f"{was} {now.strip()}".strip() for was, now in zip(shown[-1], rest, strict=True)
        ]
    whole = [n.replace("_ ", "_").replace("- k", "-k").replace("/ s", "/s") for n, *_ in shown]
    assert whole == list(NAMES)
    assert {tuple(row[1:]) for row in shown} == {("Emotional Techno", "-0.123", "100/26")}


def test_tables_in_files_are_not_folded(monkeypatch, capsys) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    Terminal().table("Tracks", ["track", "cosine"], [[2 * "name " + "Donau" * 40, "0.123"]])
    assert 2 * "name " + "Donau" * 40 in capsys.readouterr().out


def test_an_option_given_twice_must_have_one_value() -> None:
    same = Recipe(lr=1e-3, set=("optim.lr=1e-3",))
    assert same.given() == {"optim.lr": 1e-3}
    with pytest.raises(ConfigError, match=r"optim.lr is given twice, as 0.0001 and by --set as"):
        Recipe(lr=1e-4, set=("optim.lr=1e-2",)).given()
    assert Recipe(set=("optim.lr=1e-2", "optim.lr=2e-2")).given() == {"optim.lr": 2e-2}


@pytest.mark.parametrize(
    "words",
    [
        ("classify", "new.wav"),
        ("index", "new"),
        ("similar", "new.wav"),
        ("playlist", "--expand", "dark"),
        ("explore",),
        ("embed", "new.wav"),
    ],
)
def test_each_command_that_embeds_files_takes_an_engine(words, tmp_path, capsys) -> None:
    run = vector_run(tmp_path / "run")
    assert cli.main([*words, "--run", str(run), "--engine", "opnvino"]) == 2
    assert "engine is 'opnvino' (did you mean 'openvino'?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rank", "world", "shared", "printed"),
    [
        ("0", "2", True, True),
        ("1", "2", True, False),
        ("1", "2", False, True),  # a command that every process runs for itself
        ("1", "1", True, True),
        (None, "2", True, True),
    ],
)
def test_of_several_processes_the_first_prints_and_each_prints_its_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rank: str | None,
    world: str,
    shared: bool,
    printed: bool,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    if rank is not None:
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("RANK", rank)
    terminal = Terminal(as_json=True, first=not shared or distributed.is_first())
    terminal.info("said")
    terminal.warn("warned")
    with terminal.progress("bar") as bar:
        bar(1, 2)
    terminal.result({"a": 1})
    terminal.fail("failed")
    out, err = capsys.readouterr()
    assert bool(out) == printed
    assert ("said" in err, "warned" in err, "bar" in err) == (printed, printed, printed)
    assert "failed" in err


def test_ctrl_c_while_the_program_is_imported_prints_no_traceback() -> None:
    code = """if True:
        import runpy, sys
        class Pressed:
            def find_spec(name, *_):
                if name == "cyclopts":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Pressed)
        runpy.run_module("subgenre", run_name="__main__")
    """
    found = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (found.returncode, found.stderr) == (130, b"")


@pytest.mark.parametrize(
    ("words", "code", "torchrun"),
    [
        ("--version >&-", 0, {}),
        ("runs --run 2>&-", 2, {}),
        ("--version >/dev/full", 2, {}),
        ("--version >/dev/full", 2, {"TORCHELASTIC_RUN_ID": "a"}),
    ],
)
def test_only_a_full_stream_changes_the_exit_code(tmp_path, torchrun, words, code) -> None:
    command = ["sh", "-c", f"{sys.executable} -m subgenre {words}"]
    found = subprocess.run(command, cwd=tmp_path, env={**os.environ, **torchrun}, timeout=60)
    assert found.returncode == code


@pytest.mark.parametrize(
    ("words", "terminal"),
    [
        (["preprocess", "Łódź 音楽", "--json"], {"PYTHONIOENCODING": "cp1252"}),
        (["preprocess", "Łódź 音楽", "--json"], {"PYTHONIOENCODING": "ascii"}),
        (["preprocess", "Łódź 音楽", "--json"], {"LC_ALL": "C"}),
        (["preprocess", "--help"], {"PYTHONIOENCODING": "ascii"}),
    ],
)
def test_a_terminal_of_any_encoding_gets_output_and_the_exit_code(
    words: list[str], terminal: dict[str, str]
) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "subgenre", *words], capture_output=True, env=os.environ | terminal
    )
    assert found.returncode == (0 if "--help" in words else 2)
    assert b"Traceback" not in found.stderr
    assert b"--map" in found.stdout if "--help" in words else b"does not exist" in found.stderr


def test_map_is_from_and_to() -> None:
    assert Mapped(("D:/a=b=/c",)).maps() == [("D:/a=b", "/c")]
    for words in ("D:/a", "=x", "x="):
        with pytest.raises(ConfigError, match="FROM=TO"):
            Mapped((words,)).maps()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["preprocess", "run"])
def test_map_reaches_the_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command
) -> None:
    path = tmp_path / "here" / "a.mp3"
    path.parent.mkdir()
    path.touch()
    monkeypatch.chdir(tmp_path)
    Path("l.csv").write_text("path,genre,subgenre\nD:\\Music\\a.mp3,g,s\n")
    words = [command, "l.csv", "--backbone", "musicnn"]
    errors = []
    for more in ([], ["--map", f"D:/Music={tmp_path}/here"]):
        assert cli.main([*words, *more])
        errors.append(capsys.readouterr().err)
    assert "--map FROM=TO" in errors[0]
    assert "an empty file" in errors[1]
