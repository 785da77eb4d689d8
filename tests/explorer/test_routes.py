"""The explorer's API: what it returns, what it keeps, and what it refuses."""

from __future__ import annotations

import dataclasses
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import av
import httpx
import numpy as np
import psutil
import pytest

from subgenre import explorer
from subgenre.audio import decoder
from subgenre.commands.explore import explore
from subgenre.commands.model_folder import ModelFolder
from subgenre.errors import (
    ConfigError,
    IndexStoreError,
    LibraryError,
    MissingExtraError,
    SubgenreError,
)
from subgenre.explorer import Correction, limits, playback
from subgenre.explorer.security import Guard
from subgenre.explorer.server import address, bind
from subgenre.explorer.state import Corrections, Explorer
from subgenre.explorer.view import View
from subgenre.library.formats import read_m3u
from subgenre.search import journeys, playlists
from subgenre.search.collection import Collection
from subgenre.search.ranking import Limits
from subgenre.search.track_rows import Filter
from tests.explorer_library import EACH, EVIL, LENGTH_S, RATE, make_library, served, write_tone
from tests.runs import vector_run

CHANGE = {"x-subgenre": "1"}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return make_library(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def site(library):
    with served(library) as (url, app), httpx.Client(base_url=url, timeout=30) as client:
        yield client, app


@pytest.fixture
def client(site, library):
    library.corrections.unlink(missing_ok=True)
    site[1].state.explorer = Explorer(library)
    return site[0]


def ids(library):
    return library.collection.rows["id"].tolist()


# library and lists


def test_points_have_every_track_once(client, library):
    result = client.get("/api/points").json()
    assert result["ids"] == ids(library)
    assert np.allclose(np.c_[result["x"], result["y"]], library.coordinates, atol=1e-4)
    labels = client.get("/api/library").json()["labels"]
    names = [labels[i]["subgenre"] for i in result["label"]]
    assert names == library.collection.rows["subgenre"].tolist()
    assert [label["count"] for label in labels] == [EACH] * 4
    assert len({(label["colour"], label["symbol"]) for label in labels}) == 4


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("tone 1-0", ["Tone 1-0"]),
        ("TONE U 07 deep", ["Tone 2-7"]),  # path, accent and case folded
        ("artist 1 emotional 04", ["Tone 1-4"]),
        ("no such words", []),
        ("   ", []),
        ("onerror", [EVIL]),
    ],
)
def test_search_needs_all_words_of_title_artist_and_path(client, words, found):
    result = client.get("/api/search", params={"q": words}).json()["tracks"]
    assert [track["title"] for track in result] == found


def test_search_ranks_an_equal_title_first(library):
    names = ["track13", "track18", "A track1", "Track1", "track10", "Track1 (edit)", "track2"]
    tracks = [dataclasses.replace(library.collection.track(0), id=n, title=n) for n in names]
    named = Collection.of(tracks, library.collection.vectors([0] * len(names)))
    coordinates = np.zeros((len(names), 2))
    view = View(dataclasses.replace(library, collection=named, coordinates=coordinates), 1)
    found = ["Track1", "Track1 (edit)", "track10", "track13", "track18", "A track1"]
    assert [track["title"] for track in view.summaries(view.find("track1 ", 20))] == found
    assert [track["title"] for track in view.summaries(view.find("TRACK1", 1))] == ["Track1"]


def test_lists_are_filtered_by_tempo_and_key(client, library):
    asked = f"/api/tracks/{ids(library)[0]}/similar?k=100&bpm_min=122&bpm_max=126"
    found = client.get(f"{asked}&in_key=8A").json()["tracks"]
    tracks = [t for t in library.collection.tracks(library.collection.live) if t.tempo]
    expected = {t.id for t in tracks if 122 <= t.tempo <= 126 and t.key in ("Am", "Em")}
    assert {t["id"] for t in found} == expected - {ids(library)[0]} != set()
    assert {(t["key"], t["camelot"]) for t in found} == {("Am", "8A"), ("Em", "9A")}
    assert all(t["tempo"] == t["bpm"] == 2 * t["tempo_bpm"] for t in found)
    refused = client.get(f"{asked}&key=H")
    assert (refused.status_code, "no key" in refused.json()["detail"]) == (422, True)


def test_lists_are_those_of_the_search_functions(client, library):
    tracks, some = library.collection, ids(library)
    result = client.get(f"/api/tracks/{some[9]}/similar?k=6&per_artist=2&subgenre=Deep House")
    expected = playlists.similar(
        tracks, [some[9]], Limits(6, per_artist=2), Filter(subgenre=("Deep House",))
    )
    assert [t["id"] for t in result.json()["tracks"]] == [hit.track.id for hit in expected]
    for body, hits in (
        ({"kind": "agreement", "seeds": some[:3], "k": 5},
         playlists.similar(tracks, some[:3], Limits(5))),
        ({"kind": "journey", "seeds": [some[0], some[20]], "k": 5},
         journeys.journey(tracks, some[0], some[20], Limits(5))),
        ({"kind": "axis", "axis": "Dark Techno:Acid, House", "k": 4},
         journeys.along(tracks, journeys.axis(tracks, "Dark Techno:Acid, House"), Limits(4))),
        ({"kind": "expand", "subgenre_name": "Deep House", "until_fit": None, "k": 4},
         playlists.expand(tracks, "Deep House", Limits(4), until_fit=None)),
    ):  # fmt: skip
        answer = client.post("/api/playlist", json=body)
        assert answer.status_code == 200, answer.text
        assert [t["id"] for t in answer.json()["tracks"]] == [hit.track.id for hit in hits]


def centroids(tracks):
    means = [tracks.vectors(tracks.members(n)).mean(0) for n in ("Dark Techno", "Deep House")]
    return [mean / np.linalg.norm(mean) for mean in means]


def test_an_axis_gives_a_position_for_every_point(client, library):
    result = client.get("/api/axis", params={"name": "Dark Techno:Deep House"}).json()
    tracks = library.collection
    start, end = centroids(tracks)
    step = end - start
    expected = [(v - start) @ step / (step @ step) for v in tracks.vectors(tracks.live)]
    assert result["positions"] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("at", [-0.2, 0.0, 0.35, 0.5, 1.0, 1.2])
def test_tracks_near_a_point_of_an_axis_have_the_highest_cosine(client, library, at):
    tracks = library.collection
    start, end = centroids(tracks)
    point = (1 - at) * start + at * end
    cosine = tracks.vectors(tracks.live) @ (point / np.linalg.norm(point))
    by_id = dict(zip(ids(library), cosine.tolist(), strict=True))
    request = {"name": "Dark Techno:Deep House", "at": at, "k": 12}
    result = client.get("/api/axis/near", params=request).json()["tracks"]
    assert len(result) == 12
    cosines = [t["cosine"] for t in result]
    assert cosines == pytest.approx([by_id[t["id"]] for t in result], abs=1e-4)
    best = sorted(by_id, key=lambda one: -by_id[one])
    assert {t["id"] for t in result[:6]} <= set(best[:12])


def test_a_track_has_its_placement_findings_and_chunks(client, library):
    result = client.get(f"/api/tracks/{ids(library)[2]}").json()
    assert result["path"] == "Techno/Dark Techno/02 tone ü, 0.wav"
    assert result["windows_s"] == [0.0, 3.0]
    assert result["placement"]["chances"][0]["subgenre"] == "Dark Techno"
    (finding,) = result["doctor"]
    assert (finding["suggestion"], finding["fit"], finding["confidence"]) == (
        "Deep House",
        0.31,
        0.93,
    )
    assert [near["id"] for near in finding["nearest"]] == [ids(library)[3]]
    assert result["trained"] is True
    assert result["correction"] is None


# audio


def test_audio_is_the_file_and_ranges_are_its_bytes(client, library):
    path, url = library.collection.track(4).path, f"/api/tracks/{ids(library)[4]}/audio"
    assert client.get(url).content == path.read_bytes()
    part = client.get(url, headers={"range": "bytes=1000-1999"})
    assert part.status_code == 206
    assert part.content == path.read_bytes()[1000:2000]
    assert part.headers["content-range"] == f"bytes 1000-1999/{path.stat().st_size}"


def test_what_browsers_cannot_play_becomes_an_mp3(tmp_path):
    wav, aiff = tmp_path / "a.wav", tmp_path / "a.aiff"
    write_tone(wav, 440.0)
    with av.open(str(wav)) as source, av.open(str(aiff), "w") as made:
        stream = made.add_stream("pcm_s16be", rate=RATE, layout="mono")
        for frame in source.decode(audio=0):
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    file, kind = playback.playable(aiff, tmp_path / "cache", "id")
    assert kind == "audio/mpeg"
    with av.open(str(file)) as decoded:
        samples = np.concatenate([f.to_ndarray()[0] for f in decoded.decode(audio=0)])
    rate = 44_100
    assert len(samples) / rate == pytest.approx(LENGTH_S, abs=0.1)
    power = np.abs(np.fft.rfft(samples))
    assert np.argmax(power) * rate / len(samples) == pytest.approx(440.0, abs=1.0)
    assert playback.playable(wav, tmp_path / "cache", "id") == (wav, "audio/wav")


def test_peaks_follow_the_loudness(tmp_path, client, library):
    levels = playback.peaks(library.collection.track(0).path)
    swell = np.linspace(0.2, 1.0, playback.PEAKS) * 12_000 / 32_768 * 255
    assert np.abs(levels - swell).max() < 3
    result = client.get(f"/api/tracks/{ids(library)[0]}/peaks").json()
    assert result == {"count": playback.PEAKS, "peaks": playback.packed(levels)}
    path = tmp_path / "x.wav"
    write_tone(path, 300.0)
    first = playback.cached_peaks(path, tmp_path, "x")
    assert np.array_equal(playback.cached_peaks(path, tmp_path, "x"), first)
    path.write_bytes(path.read_bytes()[:44] + bytes(40_000))
    assert playback.cached_peaks(path, tmp_path, "x").max() == 0  # the file changed


# changes


def test_a_playlist_stays_in_its_folder_and_is_not_lost(client, library):
    some = [ids(library)[i] for i in (9, 3, 27)]
    body = {"name": "../../etc/passwd", "ids": some}
    saved = client.post("/api/playlists", json=body)
    assert saved.status_code == 200
    assert set(library.playlists.iterdir()) == {library.playlists / saved.json()["file"]}
    file = library.playlists / saved.json()["file"]
    expected = [library.collection.track(i).path.resolve() for i in (9, 3, 27)]
    assert [p.resolve() for p in read_m3u(file)] == expected
    refused = client.post("/api/playlists", json={**body, "ids": some[:1]})
    assert refused.status_code == 409
    assert len(read_m3u(file)) == 3
    assert client.post("/api/playlists", json={**body, "ids": some[:1], "replace": True}).is_success
    assert len(read_m3u(file)) == 1
    assert client.get(f"/api/playlists/{file.name}").content == file.read_bytes()
    for name in ("..%2fcorrections.json", "%2e%2e", "corrections.json", ".subgenre-tmp-x.m3u8"):
        assert client.get(f"/api/playlists/{name}").status_code == 404


def test_corrections_are_kept_and_used_by_a_refit(client, site, library):
    one, other = ids(library)[2], ids(library)[5]
    before = library.collection.track(2).path.read_bytes()
    assert client.put(f"/api/corrections/{one}", json={"subgenre": "deep house"}).is_success
    assert client.put(f"/api/corrections/{other}", json={"wrong": True}).is_success
    assert client.get("/api/corrections").json()["pending"]
    kept = Corrections(library.corrections).by_track
    assert kept[one] == Correction("House", "Deep House", False, kept[one].path)
    assert kept[other].wrong
    result = client.post("/api/refit", json={}).json()
    assert result == {"revision": 2, "corrections": 2}
    assert not client.get("/api/corrections").json()["pending"]
    points = client.get("/api/points").json()
    assert points["revision"] == 2
    assert points["y"][2] < 0 < library.coordinates[2, 1]  # it moved to the other half
    taken = client.delete(f"/api/corrections/{one}", headers=CHANGE)
    assert taken.json()["pending"]  # the map still shows what was taken back
    assert client.delete(f"/api/corrections/{one}", headers=CHANGE).status_code == 404
    assert set(Corrections(library.corrections).by_track) == {other}
    assert library.collection.track(2).path.read_bytes() == before


def test_a_second_refit_is_refused(library):
    begun, end = threading.Event(), threading.Event()

    def slow(_corrections, console):
        with console.progress("training") as bar:
            bar(3, 4)
        begun.set()
        end.wait(20)
        return library

    at_work = Explorer(dataclasses.replace(library, refit=slow))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(at_work.refit)
        begun.wait(20)
        with pytest.raises(SubgenreError, match="running already"):
            at_work.refit()
        assert vars(at_work.refitting) == {"stage": "training", "done": 3, "total": 4}
        end.set()
    assert first.result().revision == at_work.view.revision == 2


def test_a_request_reads_what_changed_on_disk_and_others_do_not_wait(library):
    begun, end = threading.Event(), threading.Event()
    less = Collection.of(library.collection.tracks([0, 1]), library.collection.vectors([0, 1]))
    after = dataclasses.replace(library, collection=less, coordinates=library.coordinates[:2])
    after = dataclasses.replace(after, reread=lambda: None)

    def reread():
        begun.set()
        end.wait(20)
        return after

    changed = dataclasses.replace(library, reread=reread)
    with served(changed) as (url, _), httpx.Client(base_url=url) as client:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(httpx.get, f"{url}/api/library")
            begun.wait(20)
            meanwhile = client.get("/api/library")
            end.set()
        assert meanwhile.headers["x-revision"] == "1"
        assert meanwhile.json()["tracks"] == len(library.collection)
        for answer in (first.result(), client.get("/api/library")):
            assert answer.headers["x-revision"] == "2"
            assert answer.json()["tracks"] == 2
        assert len(client.get("/api/points").json()["ids"]) == 2
        assert client.get(f"/api/tracks/{ids(library)[5]}").status_code == 404


def test_what_can_t_be_read_again_is_shown_as_it_was(library, caplog):
    calls = []

    def reread():
        calls.append(1)
        raise IndexStoreError("the index is damaged")

    with served(dataclasses.replace(library, reread=reread)) as (url, _):
        for _ in range(3):
            assert httpx.get(f"{url}/api/library").json()["tracks"] == len(library.collection)
    assert len(calls) == 1
    (record,) = caplog.records
    assert "the index is damaged" in record.getMessage()
    assert record.exc_info is None


def test_an_upload_is_placed_and_not_kept(client, library, tmp_path):
    write_tone(tmp_path / "x.wav", 603.0, 3.0)
    data = (tmp_path / "x.wav").read_bytes()
    result = client.post("/api/place?name=../../x.wav", content=data, headers=CHANGE).json()
    assert result["name"] == "x.wav"
    assert result["known_as"] == ""
    assert result["duration_s"] == 3.0
    assert [result["x"], result["y"]] == pytest.approx([-3, -2], abs=0.1)
    assert result["placement"]["chances"][0]["subgenre"] == "Deep House"
    assert {n["subgenre"] for n in result["neighbours"][:5]} == {"Deep House"}
    own = library.collection.track(0).path.read_bytes()
    again = client.post("/api/place?name=y.wav", content=own, headers=CHANGE).json()
    assert again["known_as"] == ids(library)[0]
    assert ids(library)[0] not in [n["id"] for n in again["neighbours"]]
    assert list((library.cache / "uploads").iterdir()) == []


# refusals


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/api/tracks/nothing", None, 404, "no track with id 'nothing'"),
        ("GET", "/api/tracks/nothing/audio", None, 404, "no track"),
        ("GET", "/api/axis?name=Dark Tecno:Deep House", None, 422, "did you mean 'Dark Techno'"),
        ("GET", "/api/axis/near?name=Dark Tecno:Deep House&at=0", None, 422, "mean 'Dark Techno'"),
        ("GET", "/api/axis/near?name=Dark Techno:Deep House&at=nan", None, 422, "at"),
        ("GET", "/api/axis/near?name=Dark Techno:Deep House&at=9", None, 422, "at"),
        ("GET", "/api/search?q=a&limit=100000", None, 422, "limit"),
        ("POST", "/api/playlists", {"name": "x", "ids": ["nothing"]}, 404, "no track"),
        ("POST", "/api/playlists", {"name": "x", "ids": []}, 422, "ids"),
        ("POST", "/api/playlists", {"name": "x", "ids": ["a"], "path": "/x"}, 422, "path"),
        ("POST", "/api/playlist", {"kind": "journey", "seeds": []}, 422, "two seeds"),
        ("POST", "/api/playlist", {"kind": "magic"}, 422, "kind"),
    ],
)
def test_a_wrong_request_gets_a_message(client, method, path, body, status, words):
    answer = client.request(method, path, json=body)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b"\xff\xfe{", b"[" * 100_000, b'{"ids": [NaN]}', b'{"k": 1e999}',
     b'{"name": "\\ud800", "ids": ["\\ud800"]}', b"9" * 5000, bytes(5 * 2**20)],
    ids=lambda body: f"{body[:12]!r}-{len(body)}",
)  # fmt: skip
def test_the_refusal_of_a_bad_body_is_described(client, body):
    for path, methods in client.get("/api/openapi.json").json()["paths"].items():
        for method in {"post", "put"} & methods.keys():
            if path == "/api/refit":
                continue
            answer = client.request(
                method,
                path.replace("{track_id}", "a"),
                content=body,
                headers={"content-type": "application/json"},
            )
            assert 400 <= answer.status_code < 500
            described = methods[method]["responses"][str(answer.status_code)]
            assert described["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
            assert list(answer.json()) == ["detail"]


def test_a_correction_to_an_unknown_subgenre_names_the_nearest(client, library):
    path = f"/api/corrections/{ids(library)[0]}"
    answer = client.put(path, json={"subgenre": "Deep Hose"})
    assert answer.status_code == 422
    assert "did you mean 'Deep House'" in answer.json()["detail"]
    assert client.put(path, json={"subgenre": "Deep House", "wrong": True}).status_code == 422
    assert not library.corrections.exists()


@pytest.mark.parametrize(
    "path",
    [
        "/api/tracks/..%2f..%2f..%2fetc%2fpasswd/audio",
        "/api/tracks/%2e%2e/%2e%2e/etc/passwd",
        "/static/..%2f..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/../../etc/passwd",
        "/api/playlists/..%2f..%2fetc%2fpasswd",
        "/static//etc/passwd",
    ],
)
def test_no_path_leads_out(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text
    assert "FastAPI" not in answer.text


def test_an_upload_that_is_no_audio_or_too_large_is_refused(
    client, library, monkeypatch
):  # fmt: skip
    def place(content, **headers):
        return client.post("/api/place?name=a.mp3", content=content, headers=CHANGE | headers)

    assert "'a.mp3' can't be placed" in place(b"text").json()["detail"]
    assert place(b"").status_code == 422
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as line:
        line.sendall(
            b"POST /api/place?name=a.mp3 HTTP/1.1\r\nhost: localhost\r\nx-subgenre: 1\r\n"
            b"content-length: %d\r\n\r\n" % (500 * 2**20)
        )
        answer = line.recv(65_536).decode()
    assert answer.startswith("HTTP/1.1 413")
    monkeypatch.setattr(limits, "MAX_UPLOAD_BYTES", 2**20)
    streamed = place(iter([bytes(2**19)] * 4))  # without its length
    assert streamed.status_code == 413
    assert "larger than 1 MB" in streamed.json()["detail"]
    assert list((library.cache / "uploads").iterdir()) == []


def test_a_file_that_takes_too_long_is_refused(client, library, monkeypatch):
    monkeypatch.setattr(decoder, "LIMIT_S", 0.0)
    data = library.collection.track(0).path.read_bytes()
    answer = client.post("/api/place?name=a.wav", content=data, headers=CHANGE)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "'a.wav' can't be placed: took longer than 0 s"


def test_a_missing_file_is_reported(tmp_path):
    library = make_library(tmp_path)
    library.collection.track(1).path.unlink()
    one = ids(library)[1]
    with served(library) as (url, _), httpx.Client(base_url=url) as client:
        assert client.get(f"/api/tracks/{one}").json()["there"] is False
        for rest in ("audio", "peaks"):
            answer = client.get(f"/api/tracks/{one}/{rest}")
            assert answer.status_code == 422
            assert "gone" in answer.json()["detail"]


@pytest.mark.parametrize("moment", ["stat", "open"])
def test_a_file_that_goes_away_while_it_is_asked_for_is_reported(
    client, library, monkeypatch, moment
):
    track = library.collection.track(1)
    away = track.path.with_suffix(".away")
    if moment == "stat":
        playable = playback.playable

        def removed(*arguments, **options):
            result = playable(*arguments, **options)
            track.path.rename(away)
            return result

        monkeypatch.setattr(playback, "playable", removed)
    else:
        opened = anyio.open_file

        async def removed(path, *arguments, **options):
            track.path.rename(away)
            return await opened(path, *arguments, **options)

        monkeypatch.setattr(anyio, "open_file", removed)
    try:
        answer = client.get(f"/api/tracks/{track.id}/audio", headers={"range": "bytes=10-20"})
    finally:
        away.rename(track.path)
    assert answer.status_code == 422
    assert f"{track.path.name} is gone" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "headers", "passes"),
    [
        ("GET", {"host": "127.0.0.1:80"}, True),
        ("GET", {"host": "[::1]:80"}, True),
        ("GET", {"host": "LOCALHOST"}, True),
        ("GET", {"host": "m.home:8000"}, True),  # named to the guard
        ("GET", {"host": "evil.example"}, False),
        ("GET", {"host": "127.0.0.1.evil.example"}, False),
        ("GET", {"host": "localhost:80@evil.example"}, False),
        ("GET", {"host": "127.0.0.1:80, evil.example"}, False),
        ("GET", {"host": "[fe80::1%evil.example]:80"}, False),
        ("GET", {}, False),
        ("GET", {"host": "localhost", "sec-fetch-site": "cross-site"}, False),
        ("GET", {"host": "localhost", "sec-fetch-site": "cross-site",
                 "sec-fetch-mode": "navigate"}, True),
        ("POST", {"host": "localhost"}, False),
        ("POST", {"host": "localhost", "content-type": "text/plain"}, False),
        ("POST", {"host": "localhost", "content-type": "application/json; charset=utf-8"}, True),
        ("POST", {"host": "localhost", "x-subgenre": "1", "content-type": "text/plain"}, True),
        ("POST", {"host": "m.home:80", "x-subgenre": "1", "origin": "http://m.home:80"}, True),
        ("POST", {"host": "m.home:80", "x-subgenre": "1", "origin": "http://evil.example"}, False),
        ("POST", {"host": "m.home:80", "x-subgenre": "1", "origin": "null"}, False),
        ("POST", {"host": "localhost", "x-subgenre": "1", "sec-fetch-site": "cross-site"}, False),
        ("DELETE", {"host": "localhost"}, False),
    ],
)  # fmt: skip
def test_only_the_page_itself_is_answered(method, headers, passes):
    assert (Guard(None, "m.home", "").refusal(method, headers) is None) == passes


def test_refusals_reach_the_client_and_headers_are_strict(client):
    assert client.get("/api/library", headers={"host": "evil.example"}).status_code == 400
    assert client.post("/api/refit").status_code == 403
    large = client.post("/api/order", content=bytes(5 * 2**20), headers=CHANGE)
    assert large.status_code == 413
    for path in ("/", "/api/library", "/static/main.js", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_the_page_names_no_other_site(client):
    root = Path(explorer.__file__).parent / "static"
    for file in root.iterdir():
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text, file.name
        assert "https:" not in text, file.name
        assert "innerHTML" not in text, file.name
    page = client.get("/").text
    assert "<style" not in page
    assert "style=" not in page
    assert "onclick=" not in page


def test_the_api_is_described(client):
    result = client.get("/api/openapi.json").json()
    assert "/api/tracks/{track_id}/similar" in result["paths"]
    for path, methods in result["paths"].items():
        for method in methods.values():
            assert method["description"], path
    assert client.get("/docs").status_code == 200
    assert "cdn" not in client.get("/docs").text


# the library that is given


def test_shapes_and_files_are_checked(library, tmp_path):
    with pytest.raises(LibraryError, match="coordinates have shape"):
        dataclasses.replace(library, coordinates=library.coordinates[1:])
    with pytest.raises(LibraryError, match="not finite"):
        dataclasses.replace(library, coordinates=library.coordinates * np.nan)
    damaged = tmp_path / "c.json"
    damaged.write_text('{"format_version": 1, "corrections": {"a": {"colour": 1}}}')
    with pytest.raises(LibraryError, match="no file of corrections"):
        Explorer(dataclasses.replace(library, corrections=damaged))


def test_a_library_without_encoder_and_refit(library):
    bare = dataclasses.replace(library, encode=None, refit=None, classifier=None)
    with served(bare) as (url, _), httpx.Client(base_url=url) as client:
        result = client.get("/api/library").json()
        assert (result["can_place"], result["can_refit"]) == (False, False)
        assert client.get(f"/api/tracks/{ids(library)[0]}").json()["placement"] is None
        assert "trained run" in client.post("/api/refit", json={}).json()["detail"]


@pytest.mark.parametrize("bare", [EACH + 1, 4 * EACH])
def test_tracks_without_a_label_are_shown_and_can_be_given_one(library, tmp_path, bare):
    known = library.collection
    result = [
        dataclasses.replace(track, genre="", subgenre="") if i < bare else track
        for i, track in enumerate(known.tracks(known.live))
    ]
    mixed = dataclasses.replace(
        library,
        collection=Collection.of(result, known.vectors(known.live)),
        corrections=tmp_path / "corrections.json",
    )
    first = f"/api/tracks/{result[0].id}"
    with served(mixed) as (url, _), httpx.Client(base_url=url, timeout=30) as client:
        labels = client.get("/api/library").json()["labels"]
        assert sum(label["count"] for label in labels) == 4 * EACH - bare
        assert client.get("/api/points").json()["label"].count(-1) == bare
        detail = client.get(first).json()
        assert detail["subgenre"] == ""
        assert detail["placement"]["chances"][0]["subgenre"] == "Dark Techno"
        assert client.get("/api/search", params={"q": "tone 0-0"}).json()["tracks"]
        name = "Deep House"
        answer = client.put(
            f"/api/corrections/{result[0].id}", json={"subgenre": name}, headers=CHANGE
        )
        assert answer.status_code == (200 if labels else 422), answer.text
        if labels:
            assert client.get(first).json()["correction"]["subgenre"] == name
        else:
            assert "no track has a subgenre" in answer.text


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    model = ModelFolder.open(vector_run(tmp_path / "fully_trained_models_1", each=3))
    monkeypatch.setitem(sys.modules, "subgenre.explorer.server", None)
    with pytest.raises(MissingExtraError, match=r"subgenre\[web\]"):
        explore(model, playlists=tmp_path, host="127.0.0.1", port=0, on_ready=print)


def test_the_server_knows_its_address_and_refuses_a_taken_port():
    with bind("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="--port"):
        bind("127.0.0.1", taken.getsockname()[1])
    own = {a.address for some in psutil.net_if_addrs().values() for a in some}
    assert httpx.URL(address("0.0.0.0", 80)).host in own
    assert address("::1", 80) == "http://[::1]:80/"


@pytest.mark.slow
def test_requests_at_once_get_their_own_answers(client, library):
    def ask(track_id):
        return client.get(f"/api/tracks/{track_id}/similar").json()

    alone = [ask(i) for i in ids(library)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, ids(library) * 4)) == alone * 4
