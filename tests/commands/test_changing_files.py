"""A file that is replaced while it is read is not indexed under the old id."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from subgenre.audio import reading, tempo_key
from subgenre.commands import index as indexing
from subgenre.commands.model_folder import ModelFolder
from subgenre.dataset import chunking
from subgenre.library import scan
from tests.runs import sounding_run
from tests.small_library import replace_workers, write_wav

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("phase", [(chunking, "transform"), (tempo_key, "measure_file")])
def test_a_file_that_is_replaced_while_it_is_read_is_indexed_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: tuple[Any, str]
) -> None:
    replace_workers(monkeypatch)
    run = sounding_run(tmp_path)
    new, saved = tmp_path / "more" / "new.wav", tmp_path / "saved.wav"
    write_wav(new, 5.0, 30)
    shutil.copy2(new, saved)
    track_id = reading.probe(new).id
    real: Callable[..., Any] = getattr(*phase)

    def replaced(*given: Any, **named: Any) -> Any:
        write_wav(new, 6.0, 31)
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(*phase, replaced)
        first = indexing.index(new.parent, ModelFolder.open(run))
    assert (new, scan.CHANGED) in {(s.path, s.reason) for s in first.skipped}
    shutil.copy2(saved, new)
    os.utime(new, ns=(saved.stat().st_atime_ns, saved.stat().st_mtime_ns))
    found = []
    for path in (run / "index", tmp_path / "undisturbed"):
        model = ModelFolder.open(run)
        indexing.index(new.parent, model, path=path)
        held = model.open_index(path).collection
        vector = held.vectors([held.row_of_id(track_id)])
        found.append((held.measured[track_id], vector.tobytes()))
    assert found[0] == found[1]
