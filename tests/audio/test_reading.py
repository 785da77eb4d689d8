"""Identity, length and windows of every format, against whole decodes and known samples."""

from __future__ import annotations

import functools
import itertools
import socket
import struct
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from subgenre.audio import decoder, reading
from subgenre.audio.reading import MARGIN_S, mono_window, probe, read_window, resample
from subgenre.errors import AudioError
from tests import audio_files as files

# position of the window, seconds: the beginning, inside the first pre-roll, odd places, the end
OFFSETS_S = (0.0, 0.04, 0.3, 1.5, 7.77, 11.123)
SECONDS = 15.0
EXACT = (".mp3", ".wav", ".flac", ".ogg", ".aiff")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("formats")
    for extension in files.FORMATS:
        rate = 48_000 if extension == ".opus" else files.RATE
        # tones only for AAC: ffmpeg's decoder makes noise bands up anew each time
        samples = tones(rate) if extension == ".m4a" else files.music(SECONDS, rate)
        files.write(made / f"a{extension}", samples)
    files.write_vbr_without_header(made / "vbr.mp3", SECONDS)
    return made


def tones(rate: int) -> np.ndarray:
    t = np.arange(round(SECONDS * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (300 * t + 60 * np.sin(2 * np.pi * t / 5)))
    return np.stack([tone, 0.5 * tone]).astype(np.float32)


@functools.cache
def whole(path: Path) -> np.ndarray:
    return read_window(path, 0, 100)[0]


@pytest.mark.slow
@pytest.mark.parametrize("extension", files.FORMATS)
def test_probe_finds_what_was_written(folder, extension):
    found = probe(folder / f"a{extension}")
    assert found.duration_s == pytest.approx(SECONDS, abs=0.03)
    assert found.rate == (48_000 if extension == ".opus" else files.RATE)
    assert found.channels == 2
    assert len(found.id) == 32
    # the container's own bytes (tables, tags) are no part of it; those of wma are many
    size = (folder / f"a{extension}").stat().st_size
    assert found.bit_rate == pytest.approx(8 * size / SECONDS, rel=0.1)
    assert 8 * size > found.bit_rate * SECONDS


@pytest.mark.parametrize("name", [*(f"a{extension}" for extension in files.FORMATS), "vbr.mp3"])
def test_a_window_equals_that_part_of_the_whole(folder, name):
    path, margin_s = folder / name, MARGIN_S
    everything = whole(path)
    for start_s in OFFSETS_S:
        window, rate, lead = read_window(path, start_s, 3, margin_s=margin_s)
        first = round(start_s * rate) - lead
        assert lead == min(round(margin_s * rate), round(start_s * rate))
        assert window.shape == (2, lead + round((3 + margin_s) * rate))
        expected = everything[:, first : first + window.shape[1]]
        if path.suffix in EXACT:
            np.testing.assert_array_equal(window, expected)
        elif path.suffix == ".wma":
            # its time stamps are whole milliseconds, so a seek may come down some samples off
            assert_shifted(window[0], everything[0], first, at_most=rate // 1000)
        else:
            np.testing.assert_allclose(window, expected, atol=2e-3)


def assert_shifted(window: np.ndarray, everything: np.ndarray, first: int, at_most: int) -> None:
    length = len(window)
    errors = [
        np.abs(everything[first + shift : first + shift + length] - window).max()
        for shift in range(-at_most, at_most + 1)
        if first + shift >= 0
    ]
    assert min(errors) < 1e-3


@pytest.mark.parametrize("extension", [e for e in files.FORMATS if e != ".wma"])
def test_a_window_is_where_the_writer_put_it(tmp_path, extension):
    """A click at a known sample, through the encoder, is found at that sample of the window."""
    rate = 48_000 if extension == ".opus" else files.RATE
    click_s = 5.25
    samples = np.zeros((1, 9 * rate), np.float32)
    at = round(click_s * rate)
    samples[0, at - 40 : at + 41] = 0.9 * np.hanning(81) * np.cos(np.arange(-40, 41) * 0.2)
    path = files.write(tmp_path / f"click{extension}", samples)
    start_s = 3.5
    window, found_rate, lead = read_window(path, start_s, 4, margin_s=MARGIN_S)
    assert found_rate == rate
    peak = int(np.abs(window[0]).argmax())
    assert abs(peak - lead - round((click_s - start_s) * rate)) <= 1
    mono = mono_window(window, rate, lead, 4, 16_000)
    assert abs(int(np.abs(mono).argmax()) - round((click_s - start_s) * 16_000)) <= 1


@pytest.mark.parametrize("extension", [".mp3", ".flac", ".ogg", ".wav"])
def test_the_whole_equals_soundfile(folder, extension):
    ours = whole(folder / f"a{extension}")
    theirs, _ = soundfile.read(folder / f"a{extension}", dtype="float32", always_2d=True)
    assert ours.shape[1] == pytest.approx(len(theirs), abs=2500)
    n = min(ours.shape[1], len(theirs))
    np.testing.assert_allclose(ours[:, :n], theirs.T[:, :n], atol=2e-4)


def decoded(path: Path) -> np.ndarray:
    """All frames in order, without any position: [C, n]."""
    with av.open(str(path)) as container:
        blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
        planar = container.streams.audio[0].format.is_planar
        channels = container.streams.audio[0].channels
    joined = np.concatenate(blocks, axis=1)
    joined = joined if planar else joined.reshape(-1, channels).T
    unit = 1 if joined.dtype.kind == "f" else -float(np.iinfo(joined.dtype).min)
    return (joined / unit).astype(np.float32)


def assert_windows_of(path: Path, everything: np.ndarray, atol: float = 0.0) -> None:
    """Length, and windows at odd places, are those of the full decode."""
    rate = probe(path).rate
    seconds = everything.shape[1] / rate
    assert probe(path).duration_s == pytest.approx(seconds, abs=0.05)
    for start_s in (0.0, 0.3, seconds / 2 - 0.7, seconds / 2 + 0.0123, seconds - 2):
        window, found, lead = read_window(path, start_s, 1.5, margin_s=MARGIN_S)
        assert found == rate
        first = round(start_s * rate) - lead
        expected = everything[:, first : first + window.shape[1]]
        np.testing.assert_allclose(window, expected, atol=atol, err_msg=f"{path.name} {start_s}")


@pytest.mark.parametrize("extension", [*files.CONTAINERS, ".dsf"])
def test_a_window_of_every_container_equals_the_full_decode_to_the_sample(tmp_path, extension):
    path = tmp_path / f"a{extension}"
    encoder = files.CONTAINERS.get(extension, ("", ""))[0]
    if extension == ".dsf":
        files.write_dsf(path, 5)
    else:
        files.write(
            path, tones(48_000 if encoder == "libopus" else files.RATE)[:, : 8 * files.RATE]
        )
    # after a seek lossy decoders start up anew, and that of mp2 dithers by one step of 16 bits
    atol = {"aac": 2e-3, "libopus": 2e-3, "mp2": 2**-14}.get(encoder, 0)
    assert_windows_of(path, decoded(path), atol)


def test_a_film_with_sound_is_read(tmp_path):
    for extension in (".mp4", ".mkv"):
        path = files.write_film(tmp_path / f"a{extension}", tones(files.RATE)[:, : 6 * files.RATE])
        assert_windows_of(path, decoded(path), 2e-3)


def test_silence_in_monkeys_audio_has_its_length(tmp_path):
    path = files.write_silent_ape(tmp_path / "a.ape", 7.3)
    assert probe(path).duration_s == pytest.approx(7.3, abs=1 / files.RATE)
    everything = decoded(path)
    assert everything.shape == (2, round(7.3 * files.RATE))
    assert_windows_of(path, everything)


@pytest.mark.parametrize("extension", [".ogg", ".opus"])
def test_chained_streams_are_read_one_after_the_other(tmp_path, extension):
    rate = 48_000 if extension == ".opus" else files.RATE
    parts = [
        files.write(tmp_path / f"{i}{extension}", files.music(s, rate, seed=i), rate)
        for i, s in enumerate((5.0, 4.0, 3.0))
    ]
    path = tmp_path / f"chained{extension}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert_windows_of(path, decoded(path), 1e-6)
    assert probe(path).duration_s == pytest.approx(12, abs=0.05)


def test_an_ogg_file_is_searched_for_chains_once(tmp_path, monkeypatch):
    path = files.write(tmp_path / "a.ogg", files.music(5))
    opened, map_file = [], decoder.mmap.mmap
    monkeypatch.setattr(decoder.mmap, "mmap", lambda *a, **k: opened.append(a) or map_file(*a, **k))
    for at_s in (0.0, 2.0):
        read_window(path, at_s, 1.0)
    assert len(opened) == 1
    path.write_bytes(path.read_bytes() * 2)  # another file of this name
    assert_windows_of(path, decoded(path), 1e-6)


@pytest.mark.parametrize("factor", [0.5, 3, 0])
def test_a_wrong_byte_rate_in_the_header_moves_no_window(tmp_path, factor):
    path = files.write(tmp_path / "a.wav", files.music(8))
    samples = decoded(path)
    data = bytearray(path.read_bytes())
    data[28:32] = struct.pack("<I", round(struct.unpack("<I", data[28:32])[0] * factor))
    path.write_bytes(data)
    assert_windows_of(path, samples)


@pytest.mark.parametrize("extension", [".wma", ".mp3", ".mkv"])
def test_packets_without_a_length_are_decoded_to_measure_it(tmp_path, monkeypatch, extension):
    """As those of WMA Pro and Lossless, which PyAV can't encode."""
    path = files.write(tmp_path / f"a{extension}", tones(files.RATE)[:, : 5 * files.RATE])
    packets = decoder.packets

    def without_length(container, stream):
        for packet in packets(container, stream):
            packet.duration = 0
            yield packet

    monkeypatch.setattr(decoder, "packets", without_length)
    assert probe(path).duration_s == pytest.approx(decoded(path).shape[1] / files.RATE, abs=0.05)


def test_the_end_of_a_file_gives_fewer_samples(folder):
    window, rate, lead = read_window(folder / "a.wav", 12.0, 10, margin_s=MARGIN_S)
    assert window.shape[1] == lead + 3 * rate
    assert len(mono_window(window, rate, lead, 10, 16_000)) == 3 * 16_000


@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.flac", "a.ogg", "vbr.mp3"])
def test_beyond_the_end_is_refused(folder, name):
    with pytest.raises(AudioError, match=r"no samples at 40\.0 s"):
        read_window(folder / name, 40, 10, margin_s=MARGIN_S)


@pytest.mark.parametrize("bits", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_format_is_scaled_alike(tmp_path, bits):
    samples = files.music(3)
    soundfile.write(tmp_path / "a.wav", samples.T, files.RATE, subtype=bits)
    step = {"PCM_U8": 2**-7, "PCM_16": 2**-15}.get(bits, 1e-6)
    np.testing.assert_allclose(whole(tmp_path / "a.wav"), samples, atol=1.01 * step)


# identity


@pytest.mark.parametrize("extension", [".mp3", ".flac", ".m4a", ".ogg", ".opus", ".wav"])
def test_retagging_and_renaming_keep_the_id(folder, tmp_path, extension):
    source = folder / f"a{extension}"
    first = files.remux(source, tmp_path / f"first{extension}", {"title": "One", "artist": "A"})
    cover = extension in (".mp3", ".flac", ".m4a")
    again = files.remux(first, tmp_path / "else.mp3", {"title": "Other " * 500}, cover=cover)
    assert first.read_bytes() != again.read_bytes()
    assert probe(source).id == probe(first).id == probe(again).id
    assert probe(again).duration_s == pytest.approx(SECONDS, abs=0.03)


def test_id3_around_an_mp3_keeps_the_id(folder, tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes((folder / "a.mp3").read_bytes())
    files.add_id3(path)
    assert probe(path) == probe(folder / "a.mp3")


def test_other_audio_has_another_id(tmp_path):
    ids = {probe(files.write(tmp_path / f"{i}.mp3", files.music(2, seed=i))).id for i in range(3)}
    assert len(ids) == 3


# odd and bad files


@pytest.mark.parametrize("left_s", [7, 15])
def test_a_truncated_mp3_is_as_long_as_what_is_left(tmp_path, left_s):
    path = files.write_truncated_mp3(tmp_path / "a.mp3", whole_s=20, left_s=left_s)
    assert probe(path).duration_s == pytest.approx(left_s, abs=0.2)
    window, rate, lead = read_window(path, left_s - 6, 5, margin_s=MARGIN_S)
    assert window.shape[1] >= lead + 5 * rate


def test_a_vbr_mp3_without_xing_is_as_long_as_its_packets(folder):
    path = folder / "vbr.mp3"
    assert b"Xing" not in path.read_bytes()[:4000]
    assert b"Info" not in path.read_bytes()[:4000]
    assert probe(path).duration_s == pytest.approx(SECONDS, abs=0.08)


@pytest.mark.slow
def test_odd_files_are_read(tmp_path):
    for path in files.write_odd_but_good(tmp_path, 7):
        found = probe(path)
        window, rate, lead = read_window(path, 1, 5, margin_s=MARGIN_S)
        assert window.shape == (found.channels, lead + round((5 + MARGIN_S) * rate))
        assert np.abs(window).max() > 0.1


def test_bad_files_are_refused_with_a_reason(tmp_path):
    for name, word in files.write_bad(tmp_path).items():
        for read in (probe, lambda path: read_window(path, 0, 5)):
            with pytest.raises(AudioError) as problem:
                read(tmp_path / name)
            assert word in str(problem.value) or read is not probe, name
            assert "\n" not in str(problem.value)


def test_samples_that_are_not_finite_are_refused(tmp_path):
    samples = files.music(3.0).T.astype(np.float64)
    samples[-files.RATE, 1] = 1e300  # finite in 64 bits
    soundfile.write(tmp_path / "double.wav", samples, files.RATE, subtype="DOUBLE")
    with pytest.raises(AudioError, match="not finite"):
        read_window(tmp_path / "double.wav", 0, 3)
    files.write_bad_inside(tmp_path)
    for name in ("nan.wav", "infinite.wav"):
        with pytest.raises(AudioError, match="NaN or infinite"):
            read_window(tmp_path / name, 2, 5)


@pytest.mark.parametrize(("peak", "kept"), [(1e38, False), (2.0**15, False), (4.0, True)])
def test_samples_far_above_full_scale_are_refused(tmp_path, peak, kept):
    samples = files.music(3.0, channels=1)[0]
    samples[files.RATE] = -peak
    soundfile.write(tmp_path / "float.wav", samples, files.RATE, subtype="FLOAT")
    if kept:
        np.testing.assert_array_equal(read_window(tmp_path / "float.wav", 0, 3)[0][0], samples)
    else:
        with pytest.raises(AudioError, match="full scale is 1"):
            read_window(tmp_path / "float.wav", 0, 3)


def test_a_socket_is_refused(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(tmp_path)  # a socket's name may have 107 bytes
        listening.bind("s.mp3")
        with pytest.raises(AudioError, match="a socket"):
            probe(Path("s.mp3"))


def endless(path: Path, seconds: float) -> Path:
    """Write a WAV of 2 kHz and 8 bits, of unknown length, whose sound takes no space on disk."""
    form = struct.pack("<IHHIIHH", 16, 1, 1, 2000, 2000, 1, 8)
    size = b"\xff" * 4
    path.write_bytes(b"RIFF" + size + b"WAVEfmt " + form + b"data" + size)
    with path.open("r+b") as file:
        file.truncate(round(2000 * seconds))
    return path


def test_a_file_that_is_longer_than_music_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "MAX_HOURS", 1)
    assert probe(endless(tmp_path / "a.wav", 3599)).duration_s == pytest.approx(3599, abs=1)
    with pytest.raises(AudioError, match="longer than 1 hour"):
        probe(endless(tmp_path / "a.wav", 3601))


@pytest.mark.parametrize("extension", [".wav", ".aac"])
def test_a_file_without_end_ends_at_the_limit_of_time(tmp_path, extension, monkeypatch):
    monkeypatch.setattr(decoder, "LIMIT_S", 0.2)
    path = endless(tmp_path / "a.wav", 2**29)
    if extension == ".aac":  # its reader searches the whole file for a second frame
        path.write_bytes(files.write(tmp_path / "b.aac", files.music(1)).read_bytes())
        with path.open("r+b") as file:
            file.truncate(2**40)
    began = time.monotonic()
    with pytest.raises(AudioError, match="too long"):
        probe(path)
    assert time.monotonic() - began < 2


def test_time_stamps_that_stand_still_are_refused(tmp_path):
    path = files.write(tmp_path / "a.m4a", files.music(120, 8000, channels=1), 8000)
    data = path.read_bytes().replace(b"edts", b"free")  # no edit list
    at = data.index(b"stts") + 8
    count = struct.unpack_from(">I", data, at)[0]
    entries = b"".join(data[at + 4 + 8 * i :][:4] + struct.pack(">I", 1) for i in range(count))
    path.write_bytes(data[: at + 4] + entries + data[at + 4 + 8 * count :])
    with pytest.raises(AudioError, match="do not advance"):
        read_window(path, 0, 3)


def test_a_decoder_without_end_ends_after_a_day_of_sound(folder, monkeypatch):
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 2**20), np.float32), "fltp", "mono")
    frame.sample_rate = 2000
    monkeypatch.setattr(decoder, "decode", lambda packet: itertools.repeat(frame))
    with (
        pytest.raises(AudioError, match="longer than 24 hours"),
        decoder.opened(folder / "a.mp3") as opened,
    ):
        list(decoder.frames(*opened))


def test_a_file_of_very_many_channels_is_not_said_to_have_none(tmp_path):
    path = files.write(tmp_path / "a.wav", files.music(1.0, channels=1))
    data = bytearray(path.read_bytes())
    data[22:24], data[32:34] = struct.pack("<H", 1024), struct.pack("<H", 2048)
    path.write_bytes(data)
    with pytest.raises(AudioError, match="too many; 1 to 64 are supported"):
        probe(path)


def test_a_playlist_named_as_music_opens_no_other_file(folder, tmp_path):
    target = (folder / "a.mp3").resolve()
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:30\n#EXTINF:30,\n{target}\n#EXT-X-ENDLIST\n"
    (tmp_path / "a.mp3").write_text(text)
    (tmp_path / "b.mp3").write_text(f"ffconcat version 1.0\nfile '{target}'\n")
    for name in ("a.mp3", "b.mp3"):
        with pytest.raises(AudioError):
            probe(tmp_path / name)


@pytest.mark.parametrize("extension", [".mp3", ".flac", ".ogg"])
def test_damage_in_the_middle_affects_its_place_only(folder, tmp_path, extension):
    data = bytearray((folder / f"a{extension}").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = np.random.default_rng(3).bytes(6000)
    path = tmp_path / f"damaged{extension}"
    path.write_bytes(data)
    assert probe(path).duration_s == pytest.approx(SECONDS, abs=1.5)
    healthy = whole(folder / f"a{extension}")
    for start_s in (0.5, 3.0):
        window, rate, _ = read_window(path, start_s, 3)
        first = round(start_s * rate)
        np.testing.assert_array_equal(window, healthy[:, first : first + 3 * rate])
    across, rate, _ = read_window(path, 5.0, 5)
    assert across.shape == (2, 5 * rate)
    assert np.isfinite(across).all()
    after, rate, _ = read_window(path, 11.5, 3)
    assert after.shape == (2, 3 * rate)


def test_only_holes_separate_frames():
    lengths = [256, 512, 512, 384, 512, 512]
    places = np.array([1000.0, 1256, 1768 + 448, 2280, 2664, 3176])  # one stamp is off
    found = reading._lay_out(places, lengths, hole=2000)
    np.testing.assert_array_equal(found, [1000, 1256, 1768, 2280, 2664, 3176])
    places[3:] += 5000  # and samples are missing
    found = reading._lay_out(places, lengths, hole=2000)
    np.testing.assert_array_equal(found, [1000, 1256, 1768, 7280, 7664, 8176])


@pytest.mark.corpus
def test_windows_of_recordings_equal_the_whole(corpus):
    """Real Ogg files stamp whole pages wrongly, and their last packet is shorter than nothing."""
    for path in sorted(corpus.rglob("*.ogg"))[::6]:
        everything, rate = soundfile.read(path, dtype="float32", always_2d=True)
        duration_s = probe(path).duration_s
        # an Ogg's first page may take back up to one block
        assert duration_s == pytest.approx(len(everything) / rate, abs=0.03)
        ours = read_window(path, 0, 100)[0]
        for start_s in (0.5, 3.3, 17.123, duration_s - 10):
            window, _, lead = read_window(path, start_s, 10, margin_s=MARGIN_S)
            first = round(start_s * rate) - lead
            expected = ours[:, first : first + window.shape[1]]
            np.testing.assert_array_equal(window, expected, err_msg=path.name)


# resampling


def test_resampling_keeps_a_tone_and_removes_what_lies_above():
    t = np.arange(44_100) / 44_100
    tone = np.sin(2 * np.pi * 1000 * t).astype(np.float32)
    found = resample(tone, 44_100, 16_000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(found[1000:-1000], expected[1000:-1000], atol=1e-4)
    above = resample(np.sin(2 * np.pi * 9000 * t).astype(np.float32), 44_100, 16_000)
    assert np.abs(above[1000:-1000]).max() < 1e-5


def test_a_window_with_margins_equals_resampling_the_whole(folder):
    everything = resample(whole(folder / "a.wav").mean(axis=0), files.RATE, 16_000)
    window, rate, lead = read_window(folder / "a.wav", 9, 5, margin_s=MARGIN_S)
    found = mono_window(window, rate, lead, 5, 16_000)
    assert len(found) == 80_000
    np.testing.assert_allclose(found, everything[144_000:224_000], atol=1e-4)


@pytest.mark.parametrize(
    ("left", "right", "heard"),
    [(1.0, -1.0, 1.0), (0.5, -0.52, 0.52), (1.0, 0.0, 0.5), (1.0, 1.0, 1.0), (0.8, 0.4, 0.6)],
)
def test_channels_that_cancel_are_read_by_the_louder_one(left, right, heard):
    tone = np.sin(np.arange(8000) * 0.3).astype(np.float32)
    found = mono_window(np.stack([left * tone, right * tone]), 8000, 0, 1.0, 8000)
    np.testing.assert_allclose(np.abs(found), heard * np.abs(tone), atol=1e-6)


def test_independent_channels_are_averaged():
    noise = np.random.default_rng(0).normal(size=(6, 8000)).astype(np.float32)
    np.testing.assert_allclose(mono_window(noise, 8000, 0, 1.0, 8000), noise.mean(0), atol=1e-6)
