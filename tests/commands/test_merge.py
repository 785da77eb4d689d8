"""Shards of preprocess and embed: joined, they are what one process writes, byte for byte."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest

from subgenre import cli
from subgenre.core.shards import Shard
from subgenre.dataset import building
from subgenre.dataset.journal import Journal
from subgenre.errors import ConfigError
from tests.conftest import REPOSITORY
from tests.runs import sounding_run
from tests.small_library import replace_workers, same_folders, write_wav

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="no fork, no SIGKILL"),
]

OPTIONS = ("--backbone", "musicnn", "--chunk-s", "3", "--max-chunks", "2", "--quiet")


def make_library(root: Path) -> None:
    """Write copies that lie in different shards, and files that are left out."""
    names = [f"techno/dark/track {i}" for i in range(6)]
    names += ["house/dark/one", "house/dark/two", "house/deep/one", "house/deep/three"]
    for seed, name in enumerate(names):
        write_wav(root / f"{name}.wav", 4.0 + seed % 4, seed)
    copies = {
        "techno/dark/zz last.wav": "techno/dark/track 0.wav",
        "techno/dark/a album/track 5.wav": "techno/dark/track 5.wav",  # one name for its chunks
        "house/deep/copy.wav": "house/dark/two.wav",  # of two subgenres
        "techno/dark/copy.wav": "house/deep/three.wav",
        "trash/old.wav": "techno/dark/track 3.wav",
    }
    for copy, original in copies.items():
        (root / copy).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / original, root / copy)
    write_wav(root / "techno/dark/short.wav", 1.0, 50)
    write_wav(root / "trash/noise.wav", 5.0, 51)
    (root / "acid/deep").mkdir(parents=True)
    (root / "acid/deep/broken.mp3").write_text("no music")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A library, its features by one process in `whole`, and a model; workers run in here."""
    patch = pytest.MonkeyPatch()
    replace_workers(patch)
    folder = tmp_path_factory.mktemp("made")
    make_library(folder / "WAV")
    patch.chdir(folder)
    assert cli.main(["preprocess", "WAV", "--out", "whole", *OPTIONS]) == 1
    (folder / "model").mkdir()
    sounding_run(folder / "model")
    yield folder
    patch.undo()


@pytest.fixture
def out(made: Path, request: pytest.FixtureRequest) -> Path:
    """A new feature folder beside the library."""
    return made / re.sub(r"\W", "_", request.node.name)


def preprocess(out: Path, shard: str, *more: str, root: str = "WAV") -> int:
    return cli.main(["preprocess", root, "--out", str(out), *OPTIONS, "--shard", shard, *more])


def started(run: Callable[[], Any]) -> ForkProcess:
    process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(run()))
    process.start()
    return process


def kill_after(lines: int) -> None:
    """Kill this process when it has written so many lines of a journal."""
    append, count = Journal.append, itertools.count(1)

    def append_and_count(self: Journal, entry: Any) -> None:
        append(self, entry)
        if next(count) == lines:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = append_and_count  # type: ignore[method-assign]


@pytest.mark.parametrize("count", [2, 3])
def test_shards_equal_one_process(made: Path, out: Path, count: int) -> None:
    for number in reversed(range(1, count + 1)):
        assert preprocess(out, f"{number}/{count}") == 0
        assert not (out / "dataset.json").exists()
    assert cli.main(["merge", str(out), "--quiet"]) == 1
    same_folders(out, made / "whole")


def test_more_shards_than_files(tmp_path: Path, made: Path) -> None:
    shutil.copytree(made / "model/WAV/techno", tmp_path / "WAV/techno")
    for path in tmp_path.glob("WAV/*/*/*[!0].wav"):
        path.unlink()
    assert (
        cli.main(["preprocess", str(tmp_path / "WAV"), *OPTIONS, "--out", str(tmp_path / "whole")])
        == 0
    )
    for shard in ("1/3", "2/3", "3/3"):
        assert preprocess(tmp_path / "out", shard, root=str(tmp_path / "WAV")) == 0
    assert cli.main(["merge", str(tmp_path / "out"), "--quiet"]) == 0
    same_folders(tmp_path / "out", tmp_path / "whole")


def test_the_merge_reads_no_audio_again(
    made: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = replace_workers(monkeypatch)
    for number in (1, 2):
        preprocess(out, f"{number}/2")
    assert sorted(set(read)) == sorted({path.name for path in made.glob("WAV/**/*.*")})
    read.clear()
    monkeypatch.chdir(out)  # a merge may run anywhere
    assert cli.main(["merge", ".", "--quiet"]) == 1
    assert read == ["broken.mp3"]
    same_folders(out, made / "whole")


def test_a_killed_shard_goes_on(made: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed() -> int:
        kill_after(3)  # the header and two tracks
        return preprocess(out, "2/2")

    preprocess(out, "1/2")
    process = started(killed)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    read = replace_workers(monkeypatch)
    preprocess(out, "2/2")
    assert "track 0.wav" not in read
    n_tracks = len((out / ".shards/2-of-2" / building.JOURNAL).read_bytes().splitlines()) - 1
    assert len([name for name in read if name != "broken.mp3"]) == n_tracks - 2
    assert cli.main(["merge", str(out), "--quiet"]) == 1
    same_folders(out, made / "whole")


def test_shards_at_the_same_time(made: Path, out: Path) -> None:
    """Three shards, one of them started twice."""
    running = [started(lambda s=s: preprocess(out, s)) for s in ("1/3", "2/3", "2/3", "3/3")]
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * 4
    assert cli.main(["merge", str(out), "--quiet"]) == 1
    same_folders(out, made / "whole")


@pytest.mark.usefixtures("made")
def test_a_missing_shard_is_named(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preprocess(out, "1/3")
    capsys.readouterr()
    assert cli.main(["merge", str(out)]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert "2 of 3 shards" in message
    assert "not finished: 2, 3;" in message
    assert "--shard 2/3" in message
    assert cli.main(["train", "--features", str(out)]) == 2
    assert f"run `subgenre merge {out}` after all" in capsys.readouterr().err
    assert not (out / "dataset.json").exists()


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("2/2", "--seed", "5"), "seed is 0 there, 5 here"),
        (("2/3",), "shards is 2 there, 3 here"),
        (("2/2", "--overwrite"), "would delete the chunks of the other shards"),
    ],
)
def test_a_shard_of_another_job_is_refused(
    out: Path, words: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    preprocess(out, "1/2")
    assert preprocess(out, *words) == 2
    assert reason in capsys.readouterr().err
    assert not (out / ".shards/2-of-2").exists()


def test_a_shard_of_another_library_is_refused(
    made: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preprocess(out, "1/2")
    assert preprocess(out, "2/2", root=str(made / "model" / "WAV")) == 2
    assert "source is '../WAV' there, '../model/WAV' here" in capsys.readouterr().err


def test_missing_and_damaged_chunks_are_made_again(
    made: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        preprocess(out, f"{number}/2")
    first, second, *_ = sorted(out.glob("*/track*.pt"))
    first.unlink()
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 1
    second.write_bytes(data)
    assert cli.main(["merge", str(out), "--quiet"]) == 1
    assert "1 damaged chunk in" in capsys.readouterr().err
    same_folders(out, made / "whole")


def test_one_process_completes_what_shards_have_begun(made: Path, out: Path) -> None:
    preprocess(out, "2/3")
    assert cli.main(["preprocess", "WAV", "--out", str(out), *OPTIONS]) == 1
    same_folders(out, made / "whole")


def test_overwriting_removes_the_chunks_of_shards(made: Path, out: Path) -> None:
    preprocess(out, "1/2")
    preprocess(out, "2/2")
    again = ["preprocess", "WAV", "--out", str(out), *OPTIONS, "--overwrite"]
    assert cli.main([*again, "--seed", "5"]) == 1
    assert cli.main(again) == 1
    same_folders(out, made / "whole")


@pytest.mark.parametrize("count", [2, 7])
def test_shards_of_embed_equal_one_process(
    made: Path, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made / "model", tmp_path / "model", ignore=lambda *_: [".vectors"])
    monkeypatch.chdir(tmp_path)
    run = next(Path("model").glob("fully_trained_models_*"))
    words = ["embed", str(made / "WAV/house"), str(made / "WAV/acid"), "gone.wav"]
    words += ["--run", str(run), "--quiet"]
    assert cli.main([*words, "--out", "whole.parquet"]) == 1
    shutil.rmtree(run / ".vectors")
    for number in range(1, count + 1):
        assert cli.main(["merge", "x.parquet"]) == 2
        assert cli.main([*words, "--out", "x.parquet", "--shard", f"{number}/{count}"]) == 0
    assert not Path("x.parquet").exists()
    assert cli.main(["merge", "x.parquet", "--quiet"]) == 1
    assert Path("x.parquet").read_bytes() == Path("whole.parquet").read_bytes()
    assert not Path("x.parquet.shards").exists()


def test_a_shard_of_other_files_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next((made / "model").glob("fully_trained_models_*"))
    words = ["--run", str(run), "--out", str(tmp_path / "x.parquet"), "--quiet"]
    cli.main(["embed", str(made / "WAV/house"), *words, "--shard", "1/2"])
    assert cli.main(["embed", str(made / "WAV"), *words, "--shard", "2/2"]) == 2
    assert "files is " in capsys.readouterr().err
    assert cli.main(["embed", *words, "--shard", "2/2"]) == 2
    assert "--shard divides audio files" in capsys.readouterr().err


@pytest.mark.usefixtures("made")
def test_what_an_earlier_job_has_left_is_no_part_of_a_new_one(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preprocess(out, "1/2", "--seed", "5")
    (out / ".shards/job.json").unlink()  # a merge was killed while it removed the records
    assert cli.main(["merge", str(out)]) == 2
    assert "job.json does not exist" in capsys.readouterr().err
    shutil.rmtree(out / "techno_dark", ignore_errors=True)
    (out / ".shards/1-of-2/preprocess.journal").unlink()
    assert preprocess(out, "2/2") == 0
    assert cli.main(["merge", str(out)]) == 2
    assert "run each of them, as --shard 1/2" in capsys.readouterr().err


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("shards", ["", ',"shards": "x"', ',"shards": 0', f',"shards": {10**12}'])
def test_a_damaged_record_of_the_job_is_named(
    out: Path, shards: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / ".shards").mkdir(parents=True)
    (out / ".shards/job.json").write_text(f'{{"format_version": 1{shards}}}')
    for words in (["merge", str(out)], ["preprocess", "WAV", "--out", str(out), *OPTIONS]):
        assert cli.main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "job.json names" in line
        assert "run all shards again" in line


@pytest.mark.parametrize(
    "text",
    ["0/3", "4/3", "1/0", "2", "2/", "a/b", "-1/3", "1/3/5", "", "1/100000", "1/" + "9" * 5000],
)
def test_a_shard_is_one_of_its_number(text: str) -> None:
    with pytest.raises(ConfigError, match="give I/N"):
        Shard.parse(text)


@pytest.mark.parametrize("words", [["preprocess", "WAV"], ["embed", "WAV"]])
def test_an_empty_shard_is_not_the_whole_job(
    made: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert (made / words[1]).is_dir()
    assert cli.main([*words, "--shard", ""]) == 2
    assert "shard is ''" in capsys.readouterr().err


def test_a_folder_without_shards_has_nothing_to_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["merge", "."]) == 2
    assert "has no shards" in capsys.readouterr().err


def test_the_script_of_the_array_job(made: Path) -> None:
    """Its command, and those of its comment, with the variables of the scheduler set by hand."""
    script = REPOSITORY / "examples/slurm-array.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    preprocess_words, merge_words = (
        re.search(pattern, script.read_text())[1].split()  # type: ignore[index]
        for pattern in (
            r"slurm-array\.sbatch (preprocess .*)\)",
            r"--wrap 'python -m subgenre (.*)'",
        )
    )
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": "2",
        "SHARDS": "2",
    }
    words = [*preprocess_words, *OPTIONS[2:]]
    subprocess.run(["bash", script, *words], env=os.environ | environment, check=True)
    assert cli.main([*words, "--shard", "1/2"]) == 0
    assert cli.main([*merge_words, "--quiet"]) == 1
    same_folders(made / "preprocessed_features", made / "whole")
