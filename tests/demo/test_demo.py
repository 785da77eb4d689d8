"""The demo's library: rhythm as written, every other cue drawn alike for all styles."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from subgenre.demo import STYLES, make_library, music_files
from subgenre.demo.instruments import RATE, draw_patch, play
from subgenre.demo.render import render
from subgenre.demo.score import compose
from subgenre.demo.styles import STEPS
from subgenre.errors import SubgenreError


def style(name: str):
    return next(style for style in STYLES if style.name == name)


def decode(path: Path) -> NDArray[np.float64]:
    with av.open(str(path)) as container:
        assert container.streams.audio[0].rate == RATE
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    joined = np.concatenate(frames, axis=1)[0]
    return joined / (32768 if joined.dtype == np.int16 else 1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "library"
    make_library(root, seed=3, tracks_per_subgenre=2, track_s=3, workers=2)
    return root


@pytest.mark.parametrize("each", STYLES, ids=lambda each: each.name)
def test_tempo_lies_in_the_range_of_the_style_and_differs_between_tracks(each) -> None:
    tempi = [compose(each, 10, np.random.default_rng(i)).tempo_bpm for i in range(20)]
    assert each.tempo[0] <= min(tempi) < max(tempi) <= each.tempo[1]


@pytest.mark.parametrize("each", STYLES, ids=lambda each: each.name)
def test_all_notes_lie_in_the_key_of_the_score(each) -> None:
    scores = [compose(each, 20, np.random.default_rng(i)) for i in range(8)]
    assert len({score.tonic for score in scores}) > 1
    for score in scores:
        scale = {(score.tonic + step) % 12 for step in score.scale}
        assert {note.pitch % 12 for note in score.notes} <= scale


@pytest.mark.parametrize("name", ["deep house", "acid house", "techno", "trance", "hardstyle"])
def test_four_on_the_floor_strikes_a_kick_on_every_beat(name: str) -> None:
    score = compose(style(name), 40, np.random.default_rng(5))
    beats = np.array([hit.start_s for hit in score.hits if hit.drum == "kick"])
    beats *= score.tempo_bpm / 60
    np.testing.assert_allclose(beats, np.round(beats), atol=1e-9)
    gaps = np.diff(np.round(beats))
    assert np.mean(gaps == 1) > 0.9  # all but the break


def test_the_break_of_drum_and_bass_has_its_snare_on_two_and_four() -> None:
    score = compose(style("drum and bass"), 40, np.random.default_rng(5))
    step = np.array([h.start_s for h in score.hits if h.drum == "snare" and h.level > 0.7])
    step = np.round(step * score.tempo_bpm / 15) % STEPS
    assert set(step.tolist()) == {4, 12}


def test_ambient_has_no_drums_and_swing_delays_only_odd_steps() -> None:
    assert compose(style("ambient"), 40, np.random.default_rng(0)).hits == ()
    score = compose(style("deep house"), 40, np.random.default_rng(0))
    step = np.array([hit.start_s for hit in score.hits]) * score.tempo_bpm / 15
    late = step - np.floor(step + 1e-6)
    odd = np.floor(step + 1e-6) % 2 == 1
    assert np.all(np.abs(late[~odd]) < 1e-6)
    low, high = style("deep house").swing
    assert np.all((late[odd] > low - 1e-6) & (late[odd] < high + 1e-6))


def test_the_samples_have_the_tempo_of_the_score() -> None:
    each = style("techno")
    rng = np.random.default_rng(11)
    score = compose(each, 20, rng)
    low = sosfilt(butter(2, 110, fs=RATE, output="sos"), render(score, each, 20, rng))
    hop = 105
    energy = np.square(low[: low.size // hop * hop]).reshape(-1, hop).mean(1)
    onset = np.maximum(np.diff(np.sqrt(energy)), 0)
    onset -= onset.mean()
    lags = np.arange(int(0.3 * RATE / hop), int(0.7 * RATE / hop))
    strength = [float(onset[lag:] @ onset[:-lag]) for lag in lags]
    found_bpm = 60 * RATE / hop / lags[int(np.argmax(strength))]
    assert found_bpm == pytest.approx(score.tempo_bpm, rel=0.015)


def test_a_note_has_its_pitch_and_does_not_alias() -> None:
    patch = draw_patch(np.random.default_rng(1))
    hz = 1244.5
    note = play(patch, hz, 1.0)[2000:18000]
    power = np.square(np.abs(np.fft.rfft(note * np.hanning(note.size))))
    at = np.arange(power.size) * RATE / note.size
    nearest = np.maximum(np.round(at / hz), 1) * hz
    assert power[np.abs(at - nearest) > 40].sum() < 1e-3 * power.sum()


def test_samples_are_finite_and_of_the_given_length() -> None:
    for each in STYLES:
        rng = np.random.default_rng(2)
        samples = render(compose(each, 4, rng), each, 4, rng)
        assert samples.shape == (4 * RATE,)
        assert np.isfinite(samples).all()
        assert 0.01 < np.abs(samples).max() <= 1


@pytest.mark.slow
def test_loudness_varies_within_a_style_more_than_between_styles() -> None:
    level = np.empty((len(STYLES), 5))
    for number, each in enumerate(STYLES):
        for track in range(5):
            rng = np.random.default_rng([7, number, track])
            samples = render(compose(each, 4, rng), each, 4, rng)
            level[number, track] = 10 * np.log10(np.mean(np.square(samples)))
    assert level.std(axis=1, ddof=1).min() > 1  # dB
    assert level.std(axis=1, ddof=1).mean() > level.mean(axis=1).std(ddof=1)


@pytest.mark.slow
def test_every_subgenre_has_mp3_and_wav_and_some_artist_tags(small: Path) -> None:
    for each in STYLES:
        paths = sorted((small / each.genre / each.name).iterdir())
        assert sorted(path.suffix for path in paths) == [".mp3", ".wav"]
        tags = []
        for path in paths:
            with av.open(str(path)) as container:
                tags.append(dict(container.metadata))
        assert all(tag["title"] in path.name for tag, path in zip(tags, paths, strict=True))
        assert 0 < sum("artist" in tag for tag in tags) < 2


@pytest.mark.slow
def test_files_have_the_given_length(small: Path) -> None:
    for path in sorted(small.rglob("0*")):
        samples = decode(path)
        assert 3 <= samples.size / RATE < 6.2
        assert np.abs(samples).max() > 0.01


def test_each_artist_has_one_subgenre() -> None:
    of: dict[str, set[int]] = {}
    for plan in music_files._plan(Path("x"), 0, 14, 42):
        if artist := dict(plan.tags).get("artist"):
            of.setdefault(artist, set()).add(plan.style)
    assert of
    assert all(len(styles) == 1 for styles in of.values())


def test_another_seed_gives_other_music() -> None:
    each = STYLES[0]
    one, other = (
        render(compose(each, 3, rng), each, 3, rng)
        for rng in (np.random.default_rng([seed, 0, 0]) for seed in (0, 1))
    )
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.5


@pytest.mark.slow
def test_an_incomplete_demo_is_completed_with_the_same_bytes_whatever_the_workers(
    small: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(small, tmp_path / "copy")
    paths = sorted(copy.rglob("0*"))
    lost, kept = paths[::3], {path: path.stat().st_mtime_ns for path in paths[1::3]}
    for path in lost:
        path.unlink()
    seen: list[tuple[int, int]] = []
    options = {"tracks_per_subgenre": 2, "track_s": 3, "workers": 1}
    make_library(copy, seed=3, **options, on_progress=lambda *at: seen.append(at))
    assert {path.suffix for path in lost} == {".mp3", ".wav"}
    for path in lost:
        assert path.read_bytes() == (small / path.relative_to(copy)).read_bytes()
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    assert (seen[0][0], seen[-1][0]) == (len(paths) - len(lost), len(paths))


@pytest.mark.slow
def test_a_folder_of_something_else_is_refused(small: Path, tmp_path: Path) -> None:
    (tmp_path / "my.mp3").write_bytes(b"music")
    with pytest.raises(SubgenreError, match="not made by the demo"):
        make_library(tmp_path, tracks_per_subgenre=1, track_s=3)
    with pytest.raises(SubgenreError, match="other settings"):
        make_library(small, seed=4, tracks_per_subgenre=2, track_s=3)
    with pytest.raises(SubgenreError, match="seed starts at 0"):
        make_library(tmp_path / "new", seed=-1)
    assert not (tmp_path / "new").exists()
