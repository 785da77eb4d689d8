"""A library with hostile files among good ones: the good ones are as without them.

`make fuzz` takes all files, SUBGENRE_HOSTILE another number of them.
"""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from subgenre.audio import reading
from subgenre.cli.main import main
from subgenre.commands import index
from subgenre.core import csv_tables, parallel
from subgenre.dataset import folder as store
from subgenre.errors import AudioError
from subgenre.search.vector_index import Index
from tests import audio_files, hostile_audio
from tests.runs import sounding_run
from tests.small_library import replace_workers

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("SUBGENRE_HOSTILE", "40")) or None  # 0: all
GOOD = {"g/one/a.wav": 1, "g/one/b.flac": 2, "h/two/c.mp3": 3, "h/two/d.ogg": 4}
# where lost frames were depends on where the decoder started; what it decodes does not
DAMAGED_INSIDE = ("flipped 3", "mp3 bytes", "mp3 noise", "riff align")
# what a person can't use: the name of a class, of a system call, of nothing
NO_SENTENCE = re.compile(r"\w+(Error|Exception)\b|NoneType|permitted|Errno|[\r\n]|^\s*$")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "music"
    for name, seed in GOOD.items():
        audio_files.write(root / name, audio_files.music(4.0, 22_050, seed=seed), 22_050)
    return root


def features(root: Path, out: Path) -> Path:
    words = ["preprocess", str(root), "--backbone", "musicnn", "--out", str(out)]
    assert main([*words, "--workers", "1" if COUNT else "2", "--quiet"]) in (0, 1)
    return out


def of_good(out: Path) -> dict[str, tuple[dict, bytes]]:
    """Return the rows of the good tracks, and the bytes of their chunks, by name."""
    found = {}
    paths = {t["id"]: t["path"] for t in pq.read_table(out / store.TRACKS).to_pylist()}
    for row in pq.read_table(out / store.CHUNKS).to_pylist():
        if paths[row["track"]] in GOOD:
            found[paths[row["track"]]] = (row, (out / row["file"]).read_bytes())
    return found


def test_hostile_files_cost_no_other_file_anything(
    root: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        replace_workers(patch)
        alone = features(root, tmp_path / "alone")
        run = sounding_run(tmp_path, each=2)
    hostile = hostile_audio.write_all(root / "h" / "two", count=COUNT)
    out = features(root, tmp_path / "all")
    if COUNT:  # processes of its own would take longer than the rest
        replace_workers(monkeypatch)
    assert main(["index", str(root), "--run", str(run), "--quiet"]) in (0, 1)
    assert "Traceback" not in capfd.readouterr().err
    assert len(of_good(alone)) == len(GOOD)
    assert of_good(out) == of_good(alone)
    with (out / store.SKIPPED).open(newline="", encoding="utf-8") as file:
        skipped = {csv_tables.plain(row["path"]): row["reason"] for row in csv.DictReader(file)}
    tracks = {row["path"] for row in pq.read_table(out / store.TRACKS).to_pylist()}
    for path in hostile:
        text = store.path_to_text(path, root)
        assert (text in skipped) != (text in tracks) or path.is_dir(), text
    bad = {p: r for p, r in skipped.items() if NO_SENTENCE.search(r) or parallel.FAILED in r}
    assert not bad
    held = Index.open(run / "index").collection
    indexed = {path for paths in held.paths().values() for path in paths}
    assert {str(root / name) for name in GOOD} <= indexed
    assert np.isfinite(held.vectors(held.live)).all()


def test_a_window_of_a_hostile_file_is_that_part_of_the_whole(tmp_path: Path) -> None:
    compared = 0
    for path in hostile_audio.write_all(tmp_path / "music", count=COUNT):
        try:
            found = reading.probe(path)
            whole, rate, _ = reading.read_window(path, 0.0, found.duration_s)
            part, _, _ = reading.read_window(path, 1.0, 0.5)
        except AudioError:
            continue
        expected = whole[:, rate : rate + part.shape[1]]
        if path.name.startswith(DAMAGED_INSIDE):
            middle = part[0, part.shape[1] // 2 :][:500]
            near = whole[0, rate // 2 : 2 * rate]  # half a second before and after it
            places = np.lib.stride_tricks.sliding_window_view(near, len(middle))
            assert np.abs(places - middle).max(axis=1).min() < 2e-3, path.name
        elif part.shape == expected.shape:
            np.testing.assert_allclose(part, expected, atol=2e-3, err_msg=path.name)
            compared += 1
    assert compared > 5


def test_a_link_to_itself_and_a_name_that_is_no_text_stop_no_index(root: Path) -> None:
    loop, named = root / "h" / "two" / "loop.mp3", root / "h" / "two" / os.fsdecode(b"caf\xe9.wav")
    loop.symlink_to(loop.name)
    audio_files.write(named, audio_files.music(1.0))
    found = index.listing(root)
    assert {str(root / name) for name in GOOD} < {str(entry.path) for entry in found.entries}
    assert named in [skipped.path for skipped in found.skipped]
    assert named not in [entry.path for entry in found.entries]


def test_a_wav_of_an_unknown_codec_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = audio_files.write(tmp_path / "a.wav", audio_files.music(1.0))
    data = bytearray(path.read_bytes())
    data[20:22] = b"\xff\x7f"
    path.write_bytes(data)
    with pytest.raises(AudioError, match="unknown codec"):
        reading.probe(path)
