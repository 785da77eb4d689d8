"""Who may enter the explorer, and how long a client may keep it waiting: against a real server."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import anyio
import httpx
import pytest

from subgenre.errors import ConfigError
from subgenre.explorer import limits, server
from tests.explorer_library import make_library, served

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-the-tests"
CHANGE = {"x-subgenre": "1"}
UPLOAD = b"POST /api/place?name=a.mp3 HTTP/1.1\r\nhost: localhost\r\nx-subgenre: 1\r\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return make_library(tmp_path_factory.mktemp("limits"))


@pytest.fixture(scope="module")
def site(library):
    with served(library) as (url, _):
        yield httpx.URL(url)


@pytest.fixture(scope="module")
def locked(library):
    with served(library, TOKEN) as (url, _):
        yield url


@pytest.fixture
def connect(site):
    """Open a connection and send something."""
    with ExitStack() as stack:

        def send(data):
            line = stack.enter_context(
                closing(socket.create_connection((site.host, site.port), timeout=5))
            )
            line.sendall(data)
            return line

        yield send


@pytest.fixture
def logged(caplog):
    names = ("uvicorn.error", "asyncio")
    for name in names:
        logging.getLogger(name).addHandler(caplog.handler)
    yield caplog
    for name in names:
        logging.getLogger(name).removeHandler(caplog.handler)


def all_of(line):
    """Read until the server ends the connection."""
    return b"".join(iter(lambda: line.recv(65_536), b""))


# the token


def test_every_route_needs_the_token(locked, library):
    bearer = {"authorization": f"Bearer {TOKEN}"}
    one = library.collection.rows["id"].tolist()[0]
    with httpx.Client(base_url=locked, headers=CHANGE) as client:
        api = client.get("/api/openapi.json", headers=bearer).json()["paths"]
        asked = [(method, path) for path, methods in api.items() for method in methods]
        pages = ("/", "/docs", "/plotly.js", "/static/main.js", "/api/openapi.json", "/nothing")
        asked += [("get", path) for path in pages]
        assert len(asked) > 20
        for method, path in asked:
            address = path.replace("{track_id}", one)
            answer = client.request(method, address)
            assert answer.status_code == 401, path
            assert "token" in answer.json()["detail"]
            assert client.request(method, address, headers=bearer).status_code != 401, path


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/?token=", {}),
        ("/?token=b", {}),
        (f"/?token={TOKEN[:-1]}", {}),
        (f"/docs?token={TOKEN}", {}),
        (f"//evil.example?token={TOKEN}", {}),
        ("/", {"authorization": "Bearer"}),
        ("/", {"authorization": f"Basic {TOKEN}"}),
        ("/", {"authorization": "Bearer \xe4"}),
        ("/", {"cookie": f"token={TOKEN}"}),
        ("/", {"cookie": "subgenre-PORT="}),
    ],
)
def test_a_wrong_token_opens_nothing(locked, path, headers):
    url = httpx.URL(locked)
    sent = {k: v.replace("PORT", str(url.port)).encode("latin-1") for k, v in headers.items()}
    answer = httpx.get(f"{locked}{path}", headers=sent)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_the_printed_address_sets_a_cookie_and_loses_the_token(locked, library):
    one = library.collection.rows["id"].tolist()[0]
    with httpx.Client(base_url=locked) as client:
        opened = client.get(f"/?token={TOKEN}")
        assert (opened.status_code, opened.headers["location"]) == (303, "/")
        cookie = opened.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        for path in ("/", "/api/library", "/static/main.js", f"/api/tracks/{one}/audio"):
            assert client.get(path).status_code == 200
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(("host", "open_to_all"), [("0.0.0.0", True), ("localhost", False)])
def test_only_loopback_needs_no_token(library, monkeypatch, host, open_to_all):
    printed, made = [], []
    make = server.make_server
    monkeypatch.setattr(server, "make_server", lambda app: made.append(make(app)) or made[0])
    thread = threading.Thread(
        target=server.serve,
        args=(library,),
        kwargs={"host": host, "port": 0, "on_ready": printed.append},
        daemon=True,
    )
    thread.start()
    while not (made and made[0].started):
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        (url,) = printed
        assert ("token=" in url) == open_to_all
        bare = httpx.URL(url).join("/")
        assert httpx.get(bare).status_code == (401 if open_to_all else 200)
        with httpx.Client(follow_redirects=True) as client:  # keeps the cookie
            page = client.get(url)
        assert page.status_code == 200
        assert "token" not in str(page.url)
    finally:
        made[0].should_exit = True
        thread.join(10)


class Ended:
    """A server that ends at once."""

    def run(self, sockets):
        pass


@pytest.mark.parametrize(("host", "token"), [("0.0.0.0", "f" * 32), ("127.0.0.1", "")])
def test_the_token_of_the_environment_is_taken(library, monkeypatch, host, token):
    monkeypatch.setenv("SUBGENRE_TOKEN", "f" * 32)
    printed, given = [], []
    monkeypatch.setattr(server, "make_server", lambda app: Ended())
    monkeypatch.setattr(server, "create_app", lambda *arguments: given.append(arguments[2]))
    server.serve(library, host=host, port=0, on_ready=printed.append)
    assert given == [token]
    assert httpx.URL(printed[0]).params.get("token", "") == token


@pytest.mark.parametrize("token", ["", "secret", "f" * 31, "f" * 32 + "\n", "ü" * 40, "a b;" * 10])
def test_a_token_that_can_be_guessed_or_fits_no_address_is_refused(library, monkeypatch, token):
    monkeypatch.setenv("SUBGENRE_TOKEN", token)
    with pytest.raises(ConfigError, match="SUBGENRE_TOKEN must have 32 or more"):
        server.serve(library, host="0.0.0.0", port=0, on_ready=print)


def test_an_answer_is_sent_at_once():
    with (
        server.bind("127.0.0.1", 0) as bound,
        socket.create_connection(bound.getsockname()),
        bound.accept()[0] as line,
    ):
        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# time and number


def test_a_stalled_upload_is_ended(library, connect, monkeypatch):
    monkeypatch.setattr(limits, "SILENT_S", 0.3)
    line = connect(UPLOAD + b"content-length: 1000\r\n\r\nabc")
    assert line.recv(65_536).startswith(b"HTTP/1.1 408")
    assert not list((library.cache / "uploads").iterdir())


def test_an_upload_in_drops_is_ended(connect, monkeypatch):
    monkeypatch.setattr(limits, "BODY_S", 0.5)
    line = connect(UPLOAD + b"content-length: 1000\r\n\r\nabc")
    line.settimeout(0.1)
    for _ in range(30):
        line.sendall(b"a")
        try:
            assert line.recv(65_536).startswith(b"HTTP/1.1 408")
            return
        except TimeoutError:
            continue
    pytest.fail("the upload still runs after 3 s")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /api/library HTTP/1.1\r\nhost: loc",
        b"GET /nothing HTTP/1.1\r\nhost: localhost\r\n\r\nGET /nothing HTTP/1.1\r\nho",
        b"POST /api/refit HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 1000\r\n\r\nabc",
    ],
    ids=["nothing", "half a head", "a request and half a head", "half a body that is refused"],
)
def test_a_stalled_connection_is_ended(connect, monkeypatch, sent):
    monkeypatch.setattr(limits, "SILENT_S", 0.3)
    line = connect(sent)
    if b"\r\n\r\n" in sent:
        assert b"HTTP/1.1 40" in line.recv(65_536)
        line.sendall(b"a")
    start = time.monotonic()
    assert b"HTTP/1.1 2" not in all_of(line)
    assert time.monotonic() - start < 2


def test_a_client_that_reads_nothing_is_ended_and_a_slow_one_is_not(library, connect, monkeypatch):
    monkeypatch.setattr(limits, "UNREAD_S", 0.3)
    track = library.collection.track(0)
    before = track.path.read_bytes()
    size = 30 * 2**20
    with track.path.open("r+b") as file:
        file.truncate(size)
    try:
        request = f"GET /api/tracks/{track.id}/audio HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
        slow, silent = connect(request), connect(request)
        head, _, rest = slow.recv(65_536).partition(b"\r\n\r\n")
        assert f"content-length: {size}".encode() in head
        received, pause = len(rest), time.monotonic() + 1
        while received < size and (part := slow.recv(2**20)):
            received += len(part)
            if time.monotonic() < pause:
                time.sleep(0.1)
        assert received == size
        assert len(all_of(silent)) < size
    finally:
        track.path.write_bytes(before)


def test_uploads_at_once_are_limited(site, connect):
    lines = [connect(UPLOAD + b"content-length: 9\r\n\r\nabc") for _ in range(limits.MAX_UPLOADS)]
    place = f"{site}/api/place"
    refused = httpx.post(place, content=b"text", headers=CHANGE)
    assert refused.status_code == 429
    for line in lines:
        line.close()
    until = time.monotonic() + 5
    while httpx.post(place, content=b"text", headers=CHANGE).status_code == 429:
        assert time.monotonic() < until


def test_a_client_that_leaves_is_one_line_in_the_log(site, connect, logged):
    for path in (b"/api/place?name=a.mp3", b"/api/order", b"/api/%0aplaylists"):
        start = b"POST " + path + b" HTTP/1.1\r\nhost: localhost\r\nx-subgenre: 1\r\n"
        connect(start + b"content-type: application/json\r\ncontent-length: 9\r\n\r\n{").close()
    until = time.monotonic() + 5
    while len(logged.messages) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert httpx.get(f"{site}/api/library").status_code == 200
    assert len(logged.messages) == 2  # the third path has no route that reads the body
    for record in logged.records:
        assert record.exc_info is None
        assert "\n" not in record.getMessage()
        assert "127.0.0.1 left" in record.getMessage()


@pytest.mark.parametrize("part", [None, "bytes=0-", "bytes=500-90000", "bytes=0-9,500-90000"])
@pytest.mark.parametrize("size", [600, 70_000, 200_000])
def test_a_file_that_changes_its_size_while_it_is_sent(
    site, library, logged, monkeypatch, size, part
):
    track = library.collection.track(3)
    before = track.path.read_bytes()
    opened = anyio.open_file

    async def resized(path, *arguments, **options):
        os.truncate(path, size)
        return await opened(path, *arguments, **options)

    monkeypatch.setattr(anyio, "open_file", resized)
    headers = {"range": part} if part else {}
    with httpx.Client(base_url=site, headers=headers) as client:
        try:
            if size < len(before):
                with pytest.raises(httpx.RemoteProtocolError):
                    client.get(f"/api/tracks/{track.id}/audio")
            else:
                answer = client.get(f"/api/tracks/{track.id}/audio")
                assert len(answer.content) == int(answer.headers["content-length"])
        finally:
            track.path.write_bytes(before)
        assert client.head(f"/api/tracks/{track.id}").status_code in (200, 405)
    lines = [record.getMessage() for record in logged.records]
    assert lines == [f"{track.path.name} became shorter while it was sent"] * (size < len(before))
    assert all(record.exc_info is None for record in logged.records)


def test_the_server_stops_while_clients_keep_their_connections(library, logged, monkeypatch):
    monkeypatch.setattr(limits, "STOP_S", 0.1)
    with ExitStack() as stack:
        with served(library) as (url, _):
            at = httpx.URL(url)
            for data in (b"GET /", UPLOAD + b"content-length: 9\r\n\r\nabc"):
                line = stack.enter_context(socket.create_connection((at.host, at.port)))
                line.sendall(data)
            assert httpx.get(f"{url}/api/library").status_code == 200
            start = time.monotonic()
        assert time.monotonic() - start < 2
    assert all(record.exc_info is None for record in logged.records)


def interrupt_a_refit(folder):
    """Serve a library, press Ctrl-C while it is refitted, and check the end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begun, end = threading.Event(), threading.Event()

    def refit(_corrections, _console):
        begun.set()
        end.wait(20)
        return library

    def ask_and_interrupt(url):
        with closing(socket.create_connection((httpx.URL(url).host, httpx.URL(url).port))) as line:
            line.sendall(b"POST /api/refit HTTP/1.1\r\nhost: localhost\r\nx-subgenre: 1\r\n\r\n")
            begun.wait(20)
            started.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
            end.wait(20)

    started: list[float] = []
    library = make_library(folder)
    slow = dataclasses.replace(library, refit=refit)
    with ThreadPoolExecutor(1) as pool:
        try:
            with pytest.raises(KeyboardInterrupt):
                server.serve(
                    slow,
                    host="127.0.0.1",
                    port=0,
                    on_ready=lambda url: pool.submit(ask_and_interrupt, url),
                )
            assert begun.is_set()
            assert time.monotonic() - started[0] < 2
        finally:
            end.set()


def test_ctrl_c_waits_for_no_refit(tmp_path, capfd):
    process = multiprocessing.get_context("spawn").Process(
        target=interrupt_a_refit, args=(tmp_path,)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert "Traceback" not in capfd.readouterr().err
