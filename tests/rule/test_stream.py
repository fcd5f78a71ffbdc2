"""Predictions in files: the same numbers as in memory, bounded memory, nothing half-written."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import genkl.rule.stream
from genkl import identify_file, identify_nc, nc_score, score_file, uniform_like_vectors
from genkl.checks import TableError
from genkl.rule.evaluation import SampledRule, evaluate, strip_rows
from genkl.rule.stream import votes_from

ROOT = Path(__file__).parents[2]
K = 5
P = uniform_like_vectors(K)


@pytest.fixture
def probs():
    return np.random.default_rng(0).dirichlet(np.full(K, 0.5), 5000).astype(np.float32)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several chunks in a small file."""
    monkeypatch.setattr("genkl.rule.evaluation.BLOCK_ENTRIES", 320)
    monkeypatch.setattr("genkl.rule.evaluation.BLOCKS_PER_STRIP", 2)
    monkeypatch.setattr("genkl.rule.stream.STRIPS_PER_BATCH", 3)
    assert 8 * 3 * strip_rows(K) < 5000


def write_table(path, probs, row_group_size=701):
    columns = {f"class {c}": probs[:, c] for c in range(K)}
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)


def write_lists(path, probs):
    table = pa.table({"id": np.arange(len(probs)), "probs": list(probs)})
    pq.write_table(table, path, row_group_size=999)


def test_an_array_file_gives_what_memory_gives(tmp_path, probs):
    np.save(tmp_path / "probs.npy", probs)
    scores = score_file(tmp_path / "probs.npy", tmp_path / "scores.npy", 0.05, P, progress=False)
    assert (scores.rows, scores.flagged) == (5000, None)
    assert np.array_equal(np.load(scores.path), nc_score(probs, 0.05, P))
    votes = identify_file(
        tmp_path / "probs.npy", tmp_path / "new" / "nc.npy", 0.8, 0.05, P, progress=False
    )
    expected = identify_nc(probs, 0.8, 0.05, P)
    assert np.array_equal(np.load(votes.path), expected)
    assert votes.flagged == expected.mean()


def test_a_table_gives_what_memory_gives_whatever_its_row_groups(tmp_path, probs):
    expected = nc_score(probs, 0.05, P, permutation_invariant=True)
    write_table(tmp_path / "probs.parquet", probs)
    options = {"permutation_invariant": True, "progress": False, "overwrite": True}
    done = score_file(tmp_path / "probs.parquet", tmp_path / "scores.npy", 0.05, P, **options)
    assert np.array_equal(np.load(done.path), expected)
    write_lists(tmp_path / "lists.parquet", probs)
    done = score_file(
        tmp_path / "lists.parquet", tmp_path / "scores.npy", 0.05, P, columns=["probs"], **options
    )
    assert np.array_equal(np.load(done.path), expected)


def test_any_layout_gives_what_memory_gives(tmp_path, probs):
    np.save(tmp_path / "columns.npy", np.asfortranarray(probs))
    np.savetxt(tmp_path / "p.csv", probs, "%.9g", delimiter=",", header="a,b,c,d,e", comments="")
    read = np.loadtxt(tmp_path / "p.csv", delimiter=",", skiprows=1)
    for name, q in (("columns.npy", probs), ("p.csv", read)):
        done = identify_file(tmp_path / name, tmp_path / "nc.npy", 0.8, 0.05, P, progress=False,
                             overwrite=True)  # fmt: skip
        assert np.array_equal(np.load(done.path), identify_nc(q, 0.8, 0.05, P))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("invariant", [False, True])
def test_scores_give_the_votes_bit_for_bit_at_ties_too(probs, dtype, invariant):
    """Predictions whose critical alpha is the very alpha, or beside it, are among them."""
    q = probs.astype(dtype)
    q = q if dtype == np.float16 else q / q.sum(axis=1, keepdims=True)
    rule = SampledRule.of(P, 0.05, K, invariant)
    scores = evaluate(q, rule)
    for alpha in (*scores[:40], *np.nextafter(scores[40:60], 0), 0.8):
        votes = evaluate(q, rule, float(alpha))
        assert np.array_equal(votes_from(scores, q, rule, float(alpha)), votes)
    one_hot = SampledRule.of(np.eye(K), 0.05, K, False)
    assert votes_from(evaluate(q, one_hot), q, one_hot, 0.8).all()


def test_columns_are_taken_in_the_order_they_are_named(tmp_path, probs):
    write_table(tmp_path / "probs.parquet", probs)
    names = [f"class {c}" for c in (4, 2, 0, 1, 3)]
    done = score_file(
        tmp_path / "probs.parquet", tmp_path / "s.npy", 0.05, P, columns=names, progress=False
    )
    assert np.array_equal(np.load(done.path), nc_score(probs[:, [4, 2, 0, 1, 3]], 0.05, P))


def test_a_bad_row_is_named_and_nothing_is_left_behind(tmp_path, probs):
    probs[4321, 2] = np.nan
    np.save(tmp_path / "probs.npy", probs)
    write_table(tmp_path / "probs.parquet", probs)
    for source, said in (
        ("probs.npy", "probs.npy contains NaN in row 4321"),
        ("probs.parquet", "probs.parquet has no number in column 'class 2', row 4321"),
    ):
        with pytest.raises(TableError, match=said) as raised:
            score_file(tmp_path / source, tmp_path / "out.npy", 0.05, P, progress=False)
        assert raised.value.row == 4321
    assert sorted(p.name for p in tmp_path.iterdir()) == ["probs.npy", "probs.parquet"]


def test_an_interruption_leaves_the_old_result(tmp_path, probs, monkeypatch):
    np.save(tmp_path / "probs.npy", probs)
    np.save(tmp_path / "out.npy", np.arange(3))

    def interrupted(*arguments, first_row, **options):
        if first_row > 2000:
            raise KeyboardInterrupt
        return evaluate(*arguments, first_row=first_row, **options)

    evaluate = genkl.rule.stream.evaluate
    monkeypatch.setattr(genkl.rule.stream, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score_file(
            tmp_path / "probs.npy", tmp_path / "out.npy", 0.05, P, overwrite=True, progress=False
        )
    assert np.load(tmp_path / "out.npy").tolist() == [0, 1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npy", "probs.npy"]


def test_an_empty_file_gives_an_empty_result(tmp_path):
    np.save(tmp_path / "probs.npy", np.empty((0, K)))
    done = identify_file(tmp_path / "probs.npy", tmp_path / "nc.npy", 1.0, 0.05, P, progress=False)
    assert (done.rows, done.flagged) == (0, 0)
    assert np.load(done.path).shape == (0,)


def test_bad_arguments_are_named_before_anything_is_written(tmp_path, probs):
    source = tmp_path / "probs.npy"
    np.save(source, probs)
    np.save(tmp_path / "there.npy", np.arange(3))
    np.save(tmp_path / "flat.npy", probs[0])
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object))
    write_table(tmp_path / "t.parquet", probs)
    out = tmp_path / "out.npy"
    bad = [
        ((tmp_path / "no.npy", out, 0.05, P), {}, FileNotFoundError, "is not there"),
        ((source, tmp_path / "there.npy", 0.05, P), {}, FileExistsError, "overwrite=True"),
        ((source, tmp_path / "out.csv", 0.05, P), {}, ValueError, "must end in .npy"),
        ((source, source, 0.05, P), {"overwrite": True}, ValueError, "is the file to read from"),
        ((tmp_path / "p.pkl", out, 0.05, P), {}, ValueError, "must end in one of .npy, .csv"),
        ((source, out, 0.3, P), {}, ValueError, "beta is 0.3"),
        ((source, out, 0.05, P[:, :4]), {}, ValueError, "uniform_like"),
        ((source, out, 0.05, P), {"colour": 1}, TypeError, "unexpected keyword argument 'colour'"),
        ((tmp_path / "flat.npy", out, 0.05, P), {}, ValueError, "expected 2 axes"),
        ((tmp_path / "objects.npy", out, 0.05, P), {}, ValueError, "Python objects"),
        (
            (tmp_path / "t.parquet", out, 0.05, P),
            {"columns": ["klass"]},
            ValueError,
            "no column 'klass', which columns names; it has the columns 'class 0'",
        ),
    ]
    for arguments, options, error, message in bad:
        with pytest.raises(error, match=message):
            score_file(*arguments, progress=False, **options)
    with pytest.raises(ValueError, match="alpha is 0"):
        identify_file(source, out, 0, 0.05, P)
    assert not out.exists()
    assert np.load(tmp_path / "there.npy").tolist() == [0, 1, 2]


def test_memory_stays_bounded_however_long_the_file(tmp_path):
    """Twenty times the rows may cost no more than a few chunks of memory."""
    code = """
        import sys, numpy as np, genkl
        from benchmarks.identification import peak_mb
        rows, out = int(sys.argv[1]), sys.argv[2]
        one = np.random.default_rng(0).dirichlet(np.full(14, .5), 1000).astype(np.float32)
        with open(out + "/probs.npy", "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, 14)}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(rows // 1000):
                one.tofile(file)
        del one
        genkl.identify_file(out + "/probs.npy", out + "/nc.npy", .9, .03,
                            genkl.uniform_like_vectors(14), progress=False)
        print(peak_mb())
    """
    peaks = []
    for rows in (200_000, 4_000_000):  # 11 MB and 224 MB of predictions
        folder = tmp_path / str(rows)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(rows), str(folder)],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        peaks.append(float(done.stdout))
    assert peaks[1] - peaks[0] < 120, peaks  # MB: a chunk is 67 MB
