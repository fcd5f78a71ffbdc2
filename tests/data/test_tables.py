"""Tables and predictions in files: what is read, in which order, and what an error knows."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genkl.checks import TableError, check_probabilities
from genkl.data import tables
from genkl.data.tables import (
    Remedies,
    open_predictions,
    open_table,
    read_array,
    read_lines,
    read_texts,
)

K, COUNT = 4, 50
NAMES = ["a.b", "b", "ä", "d"]


@pytest.fixture
def probs(tmp_path, monkeypatch):
    """The same predictions in every format, in files of several batches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "BATCH_ENTRIES", 7 * K)
    monkeypatch.setattr(tables, "ROWS_LOOKED_AT", 16)
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.ones(K), COUNT).astype(np.float32)
    np.save("p.npy", q)
    np.save("columns.npy", np.asfortranarray(q))
    table = pd.DataFrame(q, columns=NAMES)
    table.insert(2, "id", [f"{row:03}" for row in range(COUNT)])
    table.to_csv("p.csv", index=False)
    table.to_parquet("p.parquet", index=False, row_group_size=11)
    lists = pa.table({"id": table["id"].to_numpy(), "q": list(q)})
    pq.write_table(lists, "lists.parquet", row_group_size=11)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(q.ravel()), K)
    pq.write_table(pa.table({"q": fixed}), "fixed.parquet")
    return q


LAYOUTS = {
    "p.npy": {},
    "columns.npy": {},
    "p.csv": {"text": {"id": "--id"}},
    "p.parquet": {"text": {"id": "--id"}},
    "lists.parquet": {"classes": ["q"]},
    "fixed.parquet": {},
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("height", [None, 16, 1000])
def test_every_format_has_the_same_rows_in_batches_of_one_height(probs, name, height):
    found = open_predictions(name, **LAYOUTS[name])
    batches = list(found.batches(height))
    full = min(-(-(height or 7) // 16) * 16, COUNT)
    assert [len(batch) for batch in batches[:-1]] == [full] * (len(batches) - 1)
    assert len(batches) == -(-COUNT // full)
    assert {batch.dtype for batch in batches} == {found.dtype}
    read = found.read()
    assert np.array_equal(np.concatenate(batches), read)
    assert np.array_equal(read.astype(np.float32), probs)
    assert (found.rows, found.num_classes) == probs.shape


def test_columns_are_taken_by_name_and_in_order(probs):
    order = [2, 0, 3]
    for name in ("p.csv", "p.parquet"):
        found = open_predictions(name, classes=[NAMES[i] for i in order])
        assert found.classes == ("ä", "a.b", "d")
        assert np.array_equal(found.read().astype(np.float32), probs[:, order])
        assert found.table.column("id")[:2].tolist() == (
            [0, 1] if name == "p.csv" else ["000", "001"]
        )
    as_written = open_predictions("p.csv", text={"id": "--id"})
    assert as_written.table.column("id")[:2].tolist() == ["000", "001"]


def test_integers_with_gaps_are_double_precision_and_not_garbage(probs):
    table = pa.table({"x": pa.array([1, None, 0]), "y": pa.array([0, 1, 1])})
    pq.write_table(table, "gaps.parquet")
    read = open_predictions("gaps.parquet").read()
    assert read.dtype == np.float64
    assert np.isnan(read[1, 0])


def test_an_error_about_a_row_names_file_row_and_column(probs):
    wrong = {"nan": np.nan, "large": 7.5, "negative": -0.5}
    for kind, value in wrong.items():
        q = probs.copy()
        q[23, 1] = value
        np.save(f"{kind}.npy", q)
        table = pd.DataFrame(q, columns=NAMES)
        table.to_parquet(f"{kind}.parquet", index=False)
        for name, column in ((f"{kind}.npy", None), (f"{kind}.parquet", "b")):
            found = open_predictions(name, "P", remedies=Remedies("--classes", "use -c", "use -l"))
            with pytest.raises(TableError) as raised, found.named():
                check_probabilities("pred_probs", q)
            error = raised.value
            assert (error.argument, error.row, error.column) == (f"P {name}", 23, column)
            assert np.isnan(error.value) == np.isnan(value)
            assert ("use -l" in error.remedy) == (kind != "nan")
            assert ("use -c" in error.remedy) == (kind != "nan" and column is not None)
            assert "row 23" in str(error)
            assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(TableError, match=r"^others contains NaN"), found.named():
        check_probabilities("others", np.full((1, 2), np.nan))


def test_lists_of_another_length_are_named(probs):
    pd.DataFrame({"q": [[0.5, 0.5]] * 8 + [[1.0]]}).to_parquet("uneven.parquet")
    found = open_predictions("uneven.parquet")
    with pytest.raises(
        TableError, match="has a list of 1 and not one of 2 as in row 0, in column 'q', row 8"
    ) as raised:
        list(found.batches(3))
    assert (raised.value.row, raised.value.column) == (8, "q")
    pd.DataFrame({"q": [[0.5, 0.5], None]}).to_parquet("none.parquet")
    with pytest.raises(TableError, match=r"has no list and .* in column 'q', row 1"):
        open_predictions("none.parquet").read()


def test_a_table_tells_what_it_has_and_what_it_lacks(probs):
    for name in ("p.csv", "p.parquet"):
        table = open_table(name, "--table")
        assert table.names == ["a.b", "b", "id", "ä", "d"]
        assert table.rows == COUNT
        assert table.unit_bytes > 0
        with pytest.raises(TableError, match=f"--table {name} has no column 'x', which --id names"):
            table.require(["x"], "--id")


def test_an_array_that_is_none_is_refused(probs):
    with open("archive.npy", "wb") as file:
        np.savez(file, probs=probs)
    with open("pickle.npy", "wb") as file:
        np.save(file, np.array([{}, []], dtype=object), allow_pickle=True)
    for name in ("archive.npy", "pickle.npy"):
        with pytest.raises(TableError, match=f"X {name} can't be read as .npy .*numpy.save"):
            read_array(name, "X")


# Text files that people write


def write(text: bytes, name="t.csv"):
    with open(name, "wb") as file:
        file.write(text)
    return name


def test_texts_are_as_written_without_spaces_around(probs):
    write(b'\xef\xbb\xbfimage,label,more\r\n"a,1.jpg", 007 ,\r\n\r\nb.jpg,NA,"x"\r\n')
    table = read_texts("t.csv", ["image", "label"], ["verified", "more"])
    assert table.names == ["image", "label", "more"]
    assert [table.texts(name).to_pylist() for name in table.names] == [
        ["a,1.jpg", "b.jpg"], ["007", "NA"], ["", "x"],
    ]  # fmt: skip
    assert str(table.error("'NA' is no class", "correct it", 1)) == (
        "t.csv:4: 'NA' is no class; correct it"
    )
    error = table.error("'NA' is no class", "correct it", 1, "label", "NA")
    assert (error.row, error.line, error.column, error.value) == (1, 4, "label", "NA")
    write(b"image\tlabel\na\tb,c\n", "t.tsv")
    assert read_texts("t.tsv", ["label"]).texts("label").to_pylist() == ["b,c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "t.csv is empty; it needs a header"),
        (b"image,label\n", "t.csv has a header and no lines; add"),
        (b"image,label\na,x\n\nb,\xff\n", "t.csv:4: not UTF-8; convert it"),
        (b"image,label,label\na,x,y\n", "t.csv:1: there are 2 columns 'label'; keep one"),
        (b"image,name\na,x\n", "t.csv:1: there is no column 'label'; it has 'image', 'name'"),
        (b"image,label\na,x\n\nb,c,x\n", "t.csv:4: 3 columns instead of 2; put values"),
    ],
)
def test_a_text_file_that_cannot_be_used_names_its_line(probs, text, message):
    write(text)
    with pytest.raises(TableError) as raised:
        read_texts("t.csv", ["image", "label"])
    assert str(raised.value).startswith(message)


ROWS = "image{0}label\r\na.jpg{0}Zoë\r\n\r\nb.jpg{0}02\r\n"


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_texts_are_read_as_spreadsheets_save_them(probs, mark, encoding):
    start = "\ufeff" if encoding == "utf-16-be" else ""
    write((start + ROWS.format(mark)).encode(encoding))
    table = read_texts("t.csv", ["image", "label"])
    assert table.texts("label").to_pylist() == ["Zoë", "02"]
    assert table.error("", "", 1).line == 4
    write((start + ROWS.format(mark) + mark.join("abc")).encode(encoding))
    with pytest.raises(
        TableError, match=r"^t.csv:5: 3 columns instead of 2; put values that hold a"
    ):
        read_texts("t.csv", ["image", "label"])


def test_texts_of_a_parquet_file_are_read(probs):
    labels = pd.Series(["x", None, "y"], dtype="category")
    pd.DataFrame({"image": list("abc"), "label": labels, "n": [1, 2, 3]}).to_parquet("t.parquet")
    table = read_texts("t.parquet", ["image", "label"], ["n", "verified"])
    assert table.texts("label").to_pylist() == ["x", "", "y"]
    assert table.texts("n").to_pylist() == ["1", "2", "3"]
    assert str(table.error("'y' is no class", "correct it", 2)) == (
        "t.parquet 'y' is no class in row 2; correct it"
    )
    with pytest.raises(TableError, match=r"^t.parquet there is no column 'seen'; it has 'image'"):
        read_texts("t.parquet", ["seen"])
    pq.write_table(pa.table({"image": [[1], [2]]}), "lists.parquet")
    with pytest.raises(TableError, match=r"^lists.parquet can't be read"):
        read_texts("lists.parquet", ["image"])


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"])
def test_a_workbook_is_refused_by_name_with_the_remedy(probs, start):
    for name in ("t.xlsx", "t.csv"):
        write(start + bytes(500), name)
        with pytest.raises(TableError, match=rf"^{name} is a workbook .*save it as CSV \(UTF-8\)"):
            read_texts(name, ["image"])
    with pytest.raises(TableError, match=r"^--labels t\.csv is a workbook"):
        open_table("t.csv", "--labels")


def test_decimal_commas_are_read_where_semicolons_are_between(probs):
    write(b"id;a;b\n1;0,25;0,75\n2;1;0\n")
    found = open_predictions("t.csv", text={"id": "--id"})
    assert found.read().tolist() == [[0.25, 0.75], [1, 0]]
    write(b"id;a;b\nx, y;0.25;0.75\n")
    assert open_predictions("t.csv", text={"id": "--id"}).read().tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize("how", [{"delimiter": ","}, {"delimiter": ",", "fmt": "%.3f"}, {}])
def test_the_first_prediction_of_a_file_without_header_is_not_lost(probs, how):
    np.savetxt("t.csv", [[0.25, 0.75], [0.5, 0.5], [1, 0]], **how)
    with pytest.raises(TableError, match=r"^source t\.csv has no header, its first line holds num"):
        open_predictions("t.csv")
    np.savetxt("t.csv", [[0.25, 0.75], [0.5, 0.5]], delimiter=",", header="0,1", comments="")
    assert open_predictions("t.csv").rows == 2


def test_rounded_predictions_are_normalised_where_that_is_asked_for(probs):
    rounded = np.array([[0.333, 0.333, 0.333, 0], [25, 25, 50, 0], [0, 0, 0, 0], [-1, 1, 1, 0]])
    np.save("r.npy", rounded)
    found = open_predictions("r.npy", normalize=True)
    read = found.read()
    assert np.allclose(read[:2], [[1 / 3, 1 / 3, 1 / 3, 0], [0.25, 0.25, 0.5, 0]])
    assert np.array_equal(read[2:], rounded[2:])  # and are refused
    assert np.array_equal(np.concatenate([*found.batches(16)]), read)
    assert np.array_equal(np.load("r.npy"), rounded)


def test_lines_are_there_as_they_are(probs):
    write(b'\xef\xbb\xbfa.jpg 1\r\n\r\n  "b, c.jpg\t2\n\n', "list.txt")
    assert read_lines("list.txt").to_pylist() == ["a.jpg 1", "", '  "b, c.jpg\t2', ""]
    write(b"a,b\nc\nd\xff\n", "list.txt")
    with pytest.raises(TableError, match=r"list.txt:3: not UTF-8"):
        read_lines("list.txt")


def test_the_module_is_quick_to_import():
    code = (
        "import sys, genkl.data.tables\n"
        "print(sorted({'torch', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
