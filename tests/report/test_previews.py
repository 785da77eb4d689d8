"""Previews: the right ten seconds, up to a size, whatever single files do."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from subgenre.errors import AudioError
from subgenre.report import previews
from tests.report.example import points


def test_previews_stop_at_the_size_limit(monkeypatch):
    monkeypatch.setattr(previews, "preview", lambda _path, _start: bytes(10_000))
    made = previews.collect(points(40), max_mb=0.1)
    assert list(made.audio) == [f"t{i:03d}" for i in range(7)]  # 7 x 13.3 kB of base64
    assert (made.left_out, made.unreadable) == (33, ())


def test_an_unreadable_file_loses_only_its_own_preview(monkeypatch):
    def make(path: Path, _start: float) -> bytes:
        if path.name == "1.mp3":
            raise AudioError("no audio in it")
        return b"x"

    monkeypatch.setattr(previews, "preview", make)
    broken = points(3)[1].path
    made = previews.collect(points(3), max_mb=1)
    assert list(made.audio) == ["t000", "t002"]
    assert (made.left_out, made.unreadable) == (0, (broken,))


@pytest.mark.parametrize("rate", [44_100, 22_050, 11_025])
def test_a_preview_holds_the_tone_at_its_start(tmp_path, rate):
    soundfile = pytest.importorskip("soundfile")
    t = np.arange(20 * rate) / rate
    tone = np.where(t < 8, np.sin(2 * np.pi * 440 * t), np.sin(2 * np.pi * 1000 * t)) * 0.5
    soundfile.write(tmp_path / "a.wav", np.stack([tone, tone], 1), rate)
    sound = previews.preview(tmp_path / "a.wav", 9.0)
    with av.open(io.BytesIO(sound)) as opened:
        stream = opened.streams.audio[0]
        assert (stream.codec_context.name, stream.channels) == ("mp3float", 1)
        frames = [frame.to_ndarray() for frame in opened.decode(stream)]
        out_rate = stream.rate
    samples = np.concatenate(frames, axis=1)[0]
    assert len(samples) / out_rate == pytest.approx(10, abs=0.1)
    assert len(sound) == pytest.approx(80_000, rel=0.03)  # 64 kbit/s
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * out_rate / len(samples) == pytest.approx(1000, abs=1)


def test_a_preview_beyond_the_end_is_refused(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    with pytest.raises(AudioError):
        previews.preview(tmp_path / "a.wav", 5.0)
