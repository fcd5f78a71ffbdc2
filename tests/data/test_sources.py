"""Sources: data is found where it may be, explained where it isn't, fetched whole or not at all."""

import hashlib
import io
import os
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from genkl.data.sources import (
    DataNotFoundError,
    Download,
    Source,
    data_roots,
    download,
    fetch,
    find_data,
    is_present,
    unpack,
)

CHUNK_BYTES = 1 << 16
CONTENT = bytes(range(256)) * 9000  # more than two chunks
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
TOY = Source(
    name="toy",
    title="Toy photographs",
    licence="CC0",
    size="2 MB",
    url="https://example.org/toy",
    how_to_get="Ask Ada for toy.zip.",
    folders=("toy-1.0", "toy"),
    layouts=(("list.csv", "images"), ("list.parquet",)),
)


@pytest.fixture(autouse=True)
def nothing_of_mine(tmp_path, monkeypatch):
    """No data of this machine is found by accident."""
    monkeypatch.delenv("GENKL_DATA", raising=False)
    monkeypatch.setenv("GENKL_CACHE", str(tmp_path / "cache"))


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("here")
    return folder


def test_an_explicit_root_comes_before_the_environment_and_that_before_the_cache(
    tmp_path, monkeypatch
):
    in_cache = put(tmp_path / "cache" / "data" / "toy", "list.parquet")
    assert find_data(TOY) == in_cache
    in_environment = put(tmp_path / "mine" / "toy-1.0", "list.csv", "images/1.jpg")
    monkeypatch.setenv("GENKL_DATA", str(tmp_path / "mine"))
    assert find_data(TOY) == in_environment
    explicit = put(tmp_path / "other" / "toy", "list.parquet")
    assert find_data(TOY, tmp_path / "other") == explicit
    assert find_data(TOY, explicit) == explicit  # the folder itself will do


def test_several_data_roots_are_looked_at_in_turn(tmp_path, monkeypatch):
    monkeypatch.setenv("GENKL_DATA", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert data_roots()[:2] == [tmp_path / "a", tmp_path / "b"]
    assert find_data(TOY, None if put(tmp_path / "b/toy", "list.parquet") else "") == (
        tmp_path / "b" / "toy"
    )


def test_an_explicit_root_is_the_only_place_looked_at(tmp_path):
    put(tmp_path / "cache" / "data" / "toy", "list.parquet")
    with pytest.raises(DataNotFoundError, match="elsewhere"):
        find_data(TOY, tmp_path / "elsewhere")


def test_what_is_missing_is_said_with_what_to_do(tmp_path):
    put(tmp_path / "root" / "toy", "list.csv")
    with pytest.raises(DataNotFoundError) as caught:
        find_data(TOY, tmp_path / "root")
    message = str(caught.value)
    for needed in ("Toy photographs", "lacks images", "Ask Ada", "$GENKL_DATA/toy-1.0", "CC0"):
        assert needed in message
    assert not is_present(TOY, tmp_path / "root")


def test_a_source_without_downloads_is_not_fetched_but_explained():
    with pytest.raises(DataNotFoundError, match="Ask Ada"):
        fetch(TOY)


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT, by range if asked; the first answers break off, the next ones don't."""

    breaks = 0
    ranges: list[str | None] = []  # noqa: RUF012
    content = CONTENT
    knows_ranges = True

    def do_GET(self):
        asked = self.headers.get("Range")
        type(self).ranges.append(asked)
        start = int(asked.split("=")[1].rstrip("-")) if asked and self.knows_ranges else 0
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        end = len(self.content)
        if self.breaks:
            type(self).breaks -= 1
            end = start + (end - start) // 2
        self.wfile.write(self.content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    class Fresh(Server):
        ranges: list[str | None] = []  # noqa: RUF012

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    Fresh.url = f"http://127.0.0.1:{httpd.server_address[1]}/file.bin"
    yield Fresh
    httpd.shutdown()
    httpd.server_close()


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server, tmp_path):
    server.breaks = 2
    file = Download(server.url, CHECKSUM, "sub/file.bin")
    for _ in range(2):
        with pytest.raises(OSError, match="run this again to go on"):
            download(file, tmp_path, progress=False)
        assert not (tmp_path / "sub/file.bin").exists()
    assert download(file, tmp_path, progress=False).read_bytes() == CONTENT
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in server.ranges[1:]]
    half, quarter = len(CONTENT) // 2, len(CONTENT) // 4
    assert server.ranges[0] is None
    assert half - CHUNK_BYTES < starts[0] <= half
    assert half + quarter - 2 * CHUNK_BYTES < starts[1] <= half + quarter
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["file.bin"]
    download(file, tmp_path, progress=False)
    assert len(server.ranges) == 3  # it is there: nobody asks again


def test_a_whole_part_file_needs_nothing_more(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download(Download(server.url, CHECKSUM, "file.bin"), tmp_path, progress=False)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_that_knows_no_ranges_sends_it_all_again(server, tmp_path):
    server.knows_ranges, server.breaks = False, 1
    file = Download(server.url, CHECKSUM, "file.bin")
    with pytest.raises(OSError, match="bytes are kept"):
        download(file, tmp_path, progress=False)
    assert download(file, tmp_path, progress=False).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_behind(server, tmp_path):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(OSError, match="not the published file"):
        download(Download(server.url, CHECKSUM, "file.bin"), tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_users_is_never_overwritten(server, tmp_path):
    (tmp_path / "file.bin").write_text("mine")
    with pytest.raises(FileExistsError, match="move it away"):
        download(Download(server.url, CHECKSUM, "file.bin"), tmp_path, progress=False)
    assert (tmp_path / "file.bin").read_text() == "mine"
    assert server.ranges == []


def test_no_server_at_all_is_an_error_with_a_remedy(tmp_path):
    file = Download("http://127.0.0.1:9/file.bin", CHECKSUM, "file.bin")
    with pytest.raises(OSError, match="could not be fetched"):
        download(file, tmp_path, progress=False)


def test_fetching_unpacks_what_is_needed_and_makes_the_data_set_present(server, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("data/a.bin", "data/b.bin", "../evil", "readme"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"four"))
    server.content = packed.getvalue()
    source = Source(
        name="packed", title="Packed", licence="CC0", size="1 kB", url="https://example.org",
        how_to_get="Fetch it.", folders=("packed",), layouts=(("data/a.bin", "data/b.bin"),),
        downloads=(
            Download(
                server.url, "sha256:" + hashlib.sha256(server.content).hexdigest(),
                "packed.tar.gz", ("data/a.bin", "data/b.bin"),
            ),
        ),
    )  # fmt: skip
    assert not is_present(source)
    folder = fetch(source, progress=False)
    assert folder == tmp_path / "cache" / "data" / "packed" == find_data(source)
    assert (folder / "data/b.bin").read_bytes() == b"four"
    assert sorted(path.name for path in folder.iterdir()) == ["data", "packed.tar.gz"]
    (folder / "data/b.bin").write_text("mine")
    fetch(source, progress=False)
    assert (folder / "data/b.bin").read_text() == "mine"


def test_an_archive_without_the_file_says_so(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w"):
        pass
    with pytest.raises(OSError, match="holds no file x"):
        unpack(tmp_path / "a.tar", tmp_path, ("x",))
