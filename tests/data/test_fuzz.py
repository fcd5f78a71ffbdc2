"""Images and tables as nobody would write them: a value, or one line that names the file.

``GENKL_FUZZ=20`` tries twenty times as many (the default takes seconds).
"""

import contextlib
import csv
import io
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from genkl.cli.files import read_labels
from genkl.data import lists
from genkl.data.folder import Columns, read_folder, read_labelled
from genkl.data.images import ImageError, ImageFiles, decode_image
from genkl.data.sources import DataNotFoundError
from genkl.data.tables import open_predictions, open_table, read_array, read_lines, read_texts
from genkl.report.page import _thumbnail
from teaching.handout import read_roster

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
TIMES = int(os.environ.get("GENKL_FUZZ", "1"))
SECONDS = 10


def tried(count: int) -> settings:
    """So many examples, each without a hang; always the same ones unless more are asked for."""
    return settings(
        max_examples=count * TIMES,
        deadline=1000 * SECONDS,
        derandomize=TIMES == 1,
        database=None,
        suppress_health_check=[*HealthCheck],
    )


@contextlib.contextmanager
def one_line(name: str, *kinds: type[Exception]):
    """What is raised within is of these kinds, and is one line with the name."""
    said = f"{name}: "
    try:
        yield
    except kinds as error:
        said = str(error)
    assert name in said
    assert "\n" not in said


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """Bytes as they are, cut, with some of them changed, or with more behind."""
    how = draw(st.sampled_from(["whole", "whole", "cut", "changed", "more"]))
    if how == "cut":
        return content[: draw(st.integers(0, len(content)))]
    if how == "more":
        return content + draw(st.binary(max_size=20))
    if how == "changed" and content:
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 6))):
            # Headers, where most of what can go wrong stands, are hit more often.
            last = draw(st.sampled_from([min(len(changed), 200), len(changed)])) - 1
            changed[draw(st.integers(0, last))] = draw(st.integers(0, 255))
        return bytes(changed)
    return content


# --- Images --------------------------------------------------------------------------------------

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "TGA", "ICO", "PCX")


@st.composite
def images(draw) -> bytes:
    mode = draw(st.sampled_from(Image.MODES))
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    source = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    with contextlib.suppress(ValueError):  # no such conversion: black
        source = source.convert(mode)
    image = source if source.mode == mode else Image.new(mode, size)
    options = {}
    if draw(st.booleans()):
        options["exif"] = draw(st.one_of(exif(), st.binary(max_size=60)))
    if draw(st.booleans()):
        options["transparency"] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        options["icc_profile"] = draw(st.binary(max_size=50))
    file = io.BytesIO()
    try:
        image.save(file, draw(st.sampled_from(FORMATS)), **options)
    except Exception:  # Pillow doesn't write that: as plain as can be
        file = io.BytesIO()
        Image.new("RGB", size).save(file, draw(st.sampled_from(FORMATS[:7])))
    return draw(damaged(file.getvalue()))


@st.composite
def exif(draw) -> bytes:
    """Tags with types and values that don't fit them."""
    tags = draw(
        st.lists(
            st.tuples(
                st.sampled_from([0x0112, 0x011A, 0x011B, 0x0128, 0x8769, 0x8825, 0x0201]),
                st.integers(0, 14),
                st.sampled_from([0, 1, 2, 1000, 2**31]),
                st.binary(min_size=4, max_size=4),
            ),
            max_size=5,
        )
    )
    table = b"".join(
        np.array([tag, kind], "<u2").tobytes() + np.array([count], "<u4").tobytes() + value
        for tag, kind, count, value in tags
    )
    length = np.array([len(tags)], "<u2").tobytes()
    return b"Exif\0\0II*\0\x08\0\0\0" + length + table + draw(st.binary(max_size=30))


@tried(500)
@given(content=images())
def test_any_image_is_read_or_named(content):
    with one_line("shelf/x.jpg", ImageError):
        image = decode_image(content, "shelf/x.jpg")
        assert (image.ndim, image.shape[0]) == (3, 3)
        assert image.is_contiguous()


@tried(100)
@given(content=images())
def test_any_image_has_a_thumbnail_or_is_named(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    (folder / "x.jpg").write_bytes(content)
    with one_line(str(folder / "x.jpg"), ImageError):
        assert _thumbnail(ImageFiles(folder, ["x.jpg"]), 0)


@tried(150)
@given(content=st.one_of(st.binary(max_size=200), images().map(lambda read: read[::-1])))
def test_what_is_no_image_is_named(content):
    with one_line("x.jpg", ImageError):
        decode_image(content, "x.jpg")


# --- Tables --------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.sampled_from(
        ["", "0", "1", "01", "-1", "2.0", "0.5", "0,5", "1e-3", "NaN", "nan", "inf", "-inf", "x",
         "X", "a.jpg", "./a.jpg", "a\\b.jpg", "None", "true", "é", "e\u0301", " x ", "\0", "\ufeff",
         "=1+1", '"', "'", "1_0", "١", "2024-01-01", "9" * 30, "x\ny", "x\r\ny", "a,b", "a;b"]
    ),
    st.text(max_size=6),
    st.floats().map(str),
)  # fmt: skip
HEADERS = st.lists(
    st.one_of(st.sampled_from(["image", "label", "student", "verified", "a", "b"]), CELLS),
    min_size=0,
    max_size=5,
)


@st.composite
def tables(draw) -> bytes:
    """Text with separators, quotation marks, line ends and encodings of any kind."""
    header = draw(st.sampled_from([["image", "label"], ["image", "label", "student"], None]))
    header = draw(HEADERS) if header is None else header
    width = st.just(len(header)) if draw(st.booleans()) else st.integers(0, 6)
    rows = draw(
        st.lists(width.flatmap(lambda n: st.lists(CELLS, min_size=n, max_size=n)), max_size=6)
    )
    text = io.StringIO()
    end, mark = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n"])), draw(st.sampled_from(",;\t|"))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE]))
    writer = csv.writer(text, delimiter=mark, quoting=quoting, lineterminator=end, escapechar="\\")
    with contextlib.suppress(csv.Error):
        writer.writerows([header, *rows])
    encoding = draw(
        st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "utf-32"])
    )
    return draw(damaged(text.getvalue().encode(encoding, "replace")))


def try_all(path) -> None:
    """All that reads a table, each with a value or one line with the file's name."""

    def predictions():
        found = open_predictions(path, "PRED_PROBS")
        with found.named():
            assert found.read().shape == (found.rows, found.num_classes)

    def folder_labels():
        table = Columns(no_label=["x"]).read(path)
        found = read_labelled(table, Columns(), None)
        assert len(found.given) == table.rows
        assert found.given.max() < len(found.class_names)

    def given_labels():
        arrays = path.with_name("q.npy")
        np.save(arrays, np.full((2, 2), 0.5))
        named = open_predictions(arrays, classes=["x", "1"])
        assert len(read_labels(path, "--labels", None, named, None)) == 2

    def texts():
        assert read_texts(path, ["image"], ["label"]).rows > 0

    readers = [predictions, folder_labels, given_labels, texts, lambda: read_roster(path)]
    readers += [lambda: open_table(path, "--labels", None), lambda: read_lines(path)]
    readers += [lambda: lists.read_labels(path, 3), lambda: read_folder(path.parent, path)]
    for reader in readers:
        with one_line(path.name, ValueError, DataNotFoundError):
            reader()


@tried(300)
@given(content=tables())
def test_any_text_is_read_or_named(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "table.csv"
    path.write_bytes(content)
    try_all(path)


@tried(150)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5),
    mark=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_that_is_well_written_is_read_as_it_is(tmp_path_factory, rows, mark, encoding, end):
    rows = [[" ".join(cell.splitlines()).strip() for cell in row] for row in rows]
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=mark, lineterminator=end).writerows([["image", "label"], *rows])
    table = read_texts(path, ["image", "label"])
    read = zip(*(table.texts(name).to_pylist() for name in ("image", "label")), strict=True)
    assert [[cell.strip() for cell in row] for row in read] == rows


COLUMNS = st.one_of(
    st.lists(CELLS, min_size=2, max_size=2),
    st.lists(st.floats(), min_size=2, max_size=2),
    st.lists(st.one_of(st.none(), st.integers(-2, 2)), min_size=2, max_size=2),
    st.sampled_from([[True, False], [[0.5, 0.5], [1.0]], [b"x", b"\xff"], [None, None]]),
    st.sampled_from([[{"x": 1}, {"x": 2}], [pd.Timestamp(0), pd.Timestamp(1)]]),
)


@tried(150)
@given(
    columns=st.dictionaries(st.sampled_from(["image", "label", "a", "b", "student"]), COLUMNS),
    dictionary=st.booleans(),
    data=st.data(),
)
def test_any_parquet_file_is_read_or_named(tmp_path_factory, columns, dictionary, data):
    path = tmp_path_factory.getbasetemp() / "table.parquet"
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    if dictionary and table.num_columns and pa.types.is_string(table.schema.types[0]):
        table = table.set_column(0, table.schema.names[0], table.column(0).dictionary_encode())
    pq.write_table(table, path)
    content = path.read_bytes()
    if data.draw(st.booleans()):  # cut: what is changed within is for Arrow to check
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    path.write_bytes(content)
    try_all(path)


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


ARRAYS = [np.eye(2), np.eye(2, dtype=int), np.array(["x", "1"]), np.array([1, None]), np.zeros(())]


@tried(60)
@given(content=st.sampled_from([*map(saved, ARRAYS)]).flatmap(damaged))
def test_any_array_is_read_or_named(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "table.npy"
    path.write_bytes(content)
    with one_line(path.name, ValueError):
        open_predictions(path, "PRED_PROBS").read()
    with one_line(path.name, ValueError):
        read_array(path, "--labels")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy", ".tsv"])
def test_an_empty_file_is_named(tmp_path, suffix):
    (tmp_path / f"table{suffix}").touch()
    with one_line("table", ValueError):
        open_predictions(tmp_path / f"table{suffix}", "PRED_PROBS")
        pytest.fail("read nothing")
