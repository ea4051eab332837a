"""Large results in a bucket, by the API of S3."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from hopline_engine.blobs.bucket import BucketError, open_bucket
from hopline_engine.blobs.place import BlobGoneError, Folder, Place
from tests.scheduler.test_large_results import BIG, answer, passing
from tests.support.running_engine import running_engine
from tests.support.targets import target

pytestmark = pytest.mark.anyio

NAME = f"20200101/{'a' * 64}"


class S3(ThreadingHTTPServer):
    """As much of S3 as is needed to keep objects; whatever signs a request is let in."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.objects: dict[str, bytes] = {}


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class calls it
        """Say nothing."""

    def do_PUT(self) -> None:
        self._objects[self._key] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"", ETag='"1"')

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._answer(200, self._listed(query.get("prefix", [""])[0]))
        elif self._key in self._objects:
            self._answer(200, self._objects[self._key], ETag='"1"')
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Delete several objects."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        gone = [part.partition("</Key>")[0] for part in body.split("<Key>")[1:]]
        for key in gone:
            self._objects.pop(key, None)
        told = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in gone)
        self._answer(200, f"<DeleteResult>{told}</DeleteResult>".encode())

    def do_DELETE(self) -> None:
        self._objects.pop(self._key, None)
        self._answer(204, b"")

    @property
    def _objects(self) -> dict[str, bytes]:
        assert isinstance(self.server, S3)
        return self.server.objects

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/results/")

    def _listed(self, prefix: str) -> bytes:
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size><ETag>1</ETag>"
            "<LastModified>2026-11-21T00:00:00.000Z</LastModified></Contents>"
            for key, content in sorted(self._objects.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Last-Modified": "Sat, 21 Nov 2026 00:00:00 GMT", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URL of a part of an empty bucket."""
    pytest.importorskip("obstore")
    with S3() as s3:
        serving = threading.Thread(target=s3.serve_forever, args=(0.01,))
        serving.start()
        for name, value in (
            ("AWS_ENDPOINT", f"http://127.0.0.1:{s3.server_port}"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "key"),
            ("AWS_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        yield "s3://results/hopline"
        s3.shutdown()
        serving.join()


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Folder(tmp_path) if request.param == "folder" else open_bucket(request.getfixturevalue("bucket"))


def test_a_place_keeps_what_is_written_until_it_is_removed(place: Place) -> None:
    assert not place.has(NAME)
    with pytest.raises(BlobGoneError):
        place.read(NAME)
    for _ in range(2):
        place.write(NAME, b"content")
    place.write(NAME.replace("2020", "2021"), b"later")
    assert place.has(NAME)
    assert place.read(NAME) == b"content"
    assert list(place.names("20200102")) == [NAME]
    place.remove(NAME)
    assert list(place.names("99999999")) == [NAME.replace("2020", "2021")]
    place.remove(NAME)  # as another server does that sweeps at the same time


async def test_large_results_go_through_a_bucket(bucket: str, tmp_path: Path) -> None:
    async with (
        running_engine(tmp_path, blobs=bucket, result_inline_bytes=2_000) as engine,
        target(answer) as asked,
    ):
        await engine.register(passing)
        run = await engine.client.start("passing", {"url": asked.url})
        assert (await engine.client.ended(run))["result"] == len(BIG)
        (check,) = [c for c in (await engine.client.ask("GET", "/doctor"))["checks"] if c["name"] == "blobs"]
        assert check["state"] == "ok"
        assert check["text"].startswith(f"1 large results at {bucket}")


def test_a_url_that_names_no_bucket_is_refused() -> None:
    pytest.importorskip("obstore")
    with pytest.raises(BucketError, match="cannot be used") as refused:
        open_bucket("ftp://somewhere")
    assert "s3://BUCKET" in refused.value.hint
