"""Sweeps: cached by settings and code, in parallel as in turn, and hard to lose."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sweep_runs
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.sweep import (
    Cell,
    WorkerError,
    compare_cell,
    exit_status,
    gather,
    parse_setting,
    read_cell,
    run_sweep,
    select,
    status,
)
from genkl.provenance import code_fingerprint
from genkl.storage import load_json, save_json

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
names = st.text("abcdefgh_", min_size=1, max_size=6).filter(str.isidentifier)
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
leaves = leaves | st.text() | st.sampled_from(["NaN", "3", "true", "", " ", "-1", '"', "a=b", "\n"])
values = st.recursive(
    leaves, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(), one, max_size=3)
)
mappings = st.dictionaries(names, values, min_size=1, max_size=4)


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def cells_of(log, seeds=3, **more):
    return [Cell({"log": str(log), "seed": seed, **more}) for seed in range(seeds)]


def sweep(cells, folder, function=sweep_runs.FUNCTION, **options):
    return run_sweep(cells, function, folder, **{"jobs": 1, "progress": None, **options})


# -- cells ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(mappings, st.randoms())
def test_a_key_does_not_depend_on_the_order_of_names(one, random):
    shuffled = list(one.items())
    random.shuffle(shuffled)
    first, second = Cell(one), Cell(dict(shuffled))
    assert (first.key, hash(first)) == (second.key, hash(second))
    assert first == second


@settings(deadline=None)
@given(mappings, names, values, values)
def test_a_key_tells_values_apart(one, name, first, second):
    keys = {Cell({**one, name: value}).key for value in (first, second)}
    assert (len(keys) == 1) == (
        json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    )


def test_a_key_is_the_same_in_every_version():
    """Else every result that anybody kept is lost."""
    cell = Cell({"study": "main", "data": "digits", "settings": {"q": 0.7}, "seed": 3})
    assert cell.key == "27f8daee7ee6"


def test_numbers_of_different_types_are_different_settings():
    assert len({Cell({"x": value}) for value in (1, 1.0, True, "1")}) == 4


def test_a_cell_holds_what_json_gives_back():
    cell = Cell({"a": (1, 2), "b": np.float64(0.5), "c": {"d": np.int64(3)}})
    assert dict(cell) == {"a": [1, 2], "b": 0.5, "c": {"d": 3}}
    assert cell == Cell({"a": [1, 2], "b": 0.5, "c": {"d": 3}})


def test_a_cell_can_not_be_changed():
    inner = {"q": 1}
    cell = Cell({"settings": inner})
    inner["q"] = 2
    cell["settings"]["q"] = 3
    assert cell["settings"] == {"q": 1}
    with pytest.raises(TypeError):
        cell["settings"] = {}
    with pytest.raises(AttributeError):
        cell.text = "{}"


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ({}, ValueError, "names no run"),
        ({"a": float("nan")}, ValueError, "a is nan"),
        ({"a": [0, {"b": float("inf")}]}, ValueError, r"a\.1\.b is inf"),
        ({"a": {1: 2}}, TypeError, "a has the name 1"),
        ({"a": {1, 2}}, TypeError, "a is a set"),
        ({"a b": 1}, TypeError, "'a b' is no name"),
        ({"key": 1}, ValueError, "can't be called 'key'"),
    ],
)
def test_bad_settings_are_named(bad, error, words):
    with pytest.raises(error, match=words):
        Cell(bad)


@settings(deadline=None)
@given(mappings)
def test_the_command_line_gives_back_the_cell(one):
    cell = Cell(one)
    words = shlex.split(cell.as_options())
    assert Cell(dict(parse_setting(word) for word in words)) == cell


def test_plain_text_needs_no_quotes_on_the_command_line():
    cell = Cell({"method": "GCE", "q": 0.7, "seed": 3, "fold": "3", "name": "two words"})
    assert cell.as_options() == """method=GCE q=0.7 seed=3 'fold="3"' 'name=two words'"""


def test_the_shell_gives_back_odd_text(tmp_path):
    odd = Cell({"a": "$HOME `id` 'x' \"y\" \\ * ; # ~", "b": "é\n\t\x00", "c": {"d": [None, "|"]}})
    code = "import sys; print('\\0\\0'.join(sys.argv[1:]), end='')"
    line = f"{shlex.join([sys.executable, '-c', code])} {odd.as_options()}"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
    assert Cell(dict(map(parse_setting, done.stdout.split("\0\0")))) == odd


# -- selection ------------------------------------------------------------------------------------

GRID = [Cell({"method": m, "seed": s, "on": s == 1}) for m in ("GCE", "CE") for s in (0, 1, 2)]


def test_cells_are_selected_by_settings():
    assert [dict(c) for c in select(GRID, {"method": "CE", "seed": 2})] == [dict(GRID[5])]
    assert select(GRID, {}) == GRID
    assert len(select(GRID, {"seed": (0, 2)})) == 4
    assert select(GRID, {"seed": 1.0}) == [GRID[1], GRID[4]]
    assert [c["seed"] for c in select(GRID, {"on": True})] == [1, 1]
    with pytest.raises(ValueError, match="on is one of false, true"):
        select(GRID, {"on": 1})


def test_a_selection_of_nothing_says_what_there_is():
    with pytest.raises(ValueError, match="seed is one of 0, 1, 2"):
        select(GRID, {"seed": 9})
    with pytest.raises(ValueError, match="no cell has a setting 'sed'; there are method"):
        select(GRID, {"sed": 1})
    with pytest.raises(ValueError, match="write name=value"):
        parse_setting("seed")


# -- what is kept ---------------------------------------------------------------------------------


def test_finished_cells_are_not_run_again(tmp_path, log):
    cells = cells_of(log)
    first = sweep(cells[:2], tmp_path / "kept")
    assert (first.ran, sweep_runs.begun(log)) == (2, 2)
    second = sweep(cells, tmp_path / "kept")
    assert (second.ran, sweep_runs.begun(log)) == (1, 3)
    assert second.table()["seed"].tolist() == [0, 1, 2]
    assert not second.failed
    assert sweep(cells, tmp_path / "kept", rerun="all").ran == 3


def test_a_file_says_what_ran_where(tmp_path, log):
    (cell,) = cells_of(log, 1)
    sweep([cell], tmp_path / "kept", code=["genkl.storage"])
    found = load_json(tmp_path / "kept" / f"{cell.key}.json")
    assert found["settings"] == dict(cell)
    assert found["function"] == "sweep_runs:run"
    assert found["code"] == {"genkl.storage": code_fingerprint("genkl.storage")}
    assert found["provenance"]["packages"]["torch"]
    assert found["seconds"] > 0
    assert found["result"]["count"] == 400_000


def test_every_run_has_one_thread(tmp_path, log):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        table = sweep(cells_of(log, 1), tmp_path / "kept").table()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert table["threads"].tolist() == [1]


def test_a_result_of_another_function_is_stale(tmp_path):
    cells = [Cell({"seed": 4})]
    sweep(cells, tmp_path, "sweep_runs:rows")
    path = tmp_path / f"{cells[0].key}.json"
    save_json(path, {**load_json(path), "function": "elsewhere:rows"})
    assert sweep(cells, tmp_path, "sweep_runs:rows").ran == 1


def test_several_rows_of_a_cell_are_several_rows_of_the_table(tmp_path):
    table = sweep([Cell({"seed": 4}), Cell({"seed": 7})], tmp_path, "sweep_runs:rows").table()
    assert table[["seed", "step", "value"]].to_numpy().tolist() == [
        [4, 0, 4],
        [4, 1, 5],
        [7, 0, 7],
        [7, 1, 8],
    ]


TOY = """
from pathlib import Path
from benchmarks.sweep import Cell, run_sweep, status, gather

def double(x): return {{"y": {factor} * x}}

def go(rerun="stale"):
    cells = [Cell({{"x": 1}}), Cell({{"x": 2}})]
    done = run_sweep(cells, double, "kept", jobs=1, code=["toy"], rerun=rerun, progress=None)
    return done.ran, done.table()["y"].tolist()
"""


def test_results_of_other_code_are_stale(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(TOY.format(factor=2))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    import toy

    assert toy.go() == (2, [2, 4])
    assert toy.go() == (0, [2, 4])
    (tmp_path / "toy.py").write_text(TOY.format(factor=3))
    cells = [Cell({"x": 1}), Cell({"x": 3})]
    assert list(status("kept", cells).values()) == ["stale", "missing"]
    with pytest.warns(UserWarning, match="1 of 2 results are of other code"):
        assert gather("kept", cells)["y"].tolist() == [2]
    # This process still has the old source: it must not pass its results off as the new one's.
    with pytest.raises(WorkerError, match="another toy than this sweep"):
        toy.go()
    sys.modules.pop("toy")
    fresh = subprocess.run(
        [sys.executable, "-c", "import toy; print(toy.go('never'), toy.go(), toy.go())"],
        env={**ENVIRONMENT, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert fresh.stdout.strip() == "(0, [2, 4]) (2, [3, 6]) (0, [3, 6])", fresh.stderr
    assert "2 of 2 results are of other code" in fresh.stderr


def test_a_damaged_file_is_run_again_with_a_warning(tmp_path, log):
    cells = cells_of(log, 4)
    kept = tmp_path / "kept"
    whole = sweep(cells, kept).table()
    paths = [kept / f"{cell.key}.json" for cell in cells]
    paths[0].write_bytes(paths[0].read_bytes()[:100])
    paths[1].write_text(re.sub(r'("mean": )-?\d', r"\g<1>7", paths[1].read_text()))
    paths[2].write_bytes(paths[3].read_bytes())
    with pytest.warns(UserWarning, match="is ignored, and the cell run again") as warned:
        again = sweep(cells, kept)
    reasons = [str(one.message) for one in warned]
    for path, words in zip(paths, ("is damaged or", "checksum", "another cell"), strict=False):
        assert any(str(path) in reason and words in reason for reason in reasons)
    assert (again.ran, sweep_runs.begun(log)) == (3, 7)
    columns = ["mean", "trace"]
    assert again.table()[columns].equals(whole[columns])


# -- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("raises", "ArithmeticError: seed 1 does not converge"),
        ("exits", "SystemExit: 3"),
        ("gives NaN", "ValueError: mean is nan, which JSON hasn't; use None or text"),
        ("repeats a setting", "ValueError: a result can't be called 'seed'"),
    ],
)
def test_a_failure_is_kept_and_stops_nobody(tmp_path, log, capsys, fault, why):
    good = cells_of(log)
    cells = [good[0], Cell({**good[1], "fault": fault}), good[2]]
    done = sweep(cells, tmp_path / "kept")
    assert list(done.failed) == [cells[1]]
    assert done.failed[cells[1]].startswith(why)
    assert done.table()["seed"].tolist() == [0, 2]
    assert "Traceback" in read_cell(tmp_path / "kept", cells[1])["error"]
    assert Counter(status(tmp_path / "kept", cells).values()) == {"current": 2, "failed": 1}
    assert exit_status(done) == 1
    assert f"failed: {cells[1].as_options()}: {why}" in capsys.readouterr().out
    # It is tried again, and only it.
    assert sweep(cells, tmp_path / "kept", rerun="never").ran == 1


def test_bad_calls_are_refused_before_anything_runs(tmp_path, log):
    cells = cells_of(log)
    for bad, error, words in [
        ({"jobs": 0}, ValueError, "jobs is 0"),
        ({"rerun": True}, ValueError, "rerun is True"),
        ({"cells": cells + cells[:1]}, ValueError, "is there 2 times"),
        ({"function": "sweep_runs:nothing"}, ValueError, "has no 'nothing'"),
        ({"function": "no_such_module:run"}, ModuleNotFoundError, "no_such_module"),
        ({"code": ["genkl.nothing"]}, ValueError, "no module 'genkl.nothing'"),
    ]:
        with pytest.raises(error, match=words):
            sweep(**{"cells": cells, "folder": tmp_path / "kept", **bad})
    assert sweep_runs.begun(log) == 0
    assert not (tmp_path / "kept").exists()


# -- processes ------------------------------------------------------------------------------------


def test_processes_give_what_one_process_gives_and_survive_their_deaths(tmp_path, log):
    cells = cells_of(log, 5)
    serial = sweep(cells, tmp_path / "serial").table()
    killed = Cell({"log": str(log), "seed": 90, "fault": "is killed"})
    other_log = tmp_path / "other_log"
    other_log.mkdir()
    company = Cell({"log": str(other_log), "seed": 91, "fault": "is killed in company"})
    slow = Cell({"log": str(other_log), "seed": 92, "fault": "waits for company"})
    done = sweep([*cells[:2], killed, *cells[2:]], tmp_path / "parallel", jobs=2)
    assert list(done.failed) == [killed]
    assert "its process died" in done.failed[killed]
    columns = ["seed", "mean", "trace", "count", "threads"]
    assert done.table()[columns].equals(serial[columns])
    # What dies only beside another (for want of memory, say) is finished when it runs alone.
    together = sweep([slow, company], tmp_path / "parallel", jobs=2)
    assert not together.failed
    assert sorted(together.table()["seed"]) == [91, 92]
    assert sweep_runs.begun(other_log, 91) == 2


def start(folder, *options, **more):
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "sweep_runs", str(folder), *options],
        env=ENVIRONMENT,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)


def kept_in(folder):
    return {path.name: path.read_bytes() for path in folder.glob("kept/*.json")}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_loses_at_most_what_was_running(tmp_path, how):
    jobs, count = (2, 8) if how == signal.SIGKILL else (1, 5)
    options = ("--count", str(count), "--sleep", "0.4", "--jobs", str(jobs))
    process = start(tmp_path, *options)
    wait_until(lambda: len(kept_in(tmp_path)) >= 3, process)
    (os.killpg if how == signal.SIGKILL else os.kill)(process.pid, how)
    words = process.communicate()[1]
    before, begun = kept_in(tmp_path), sweep_runs.begun(tmp_path / "log")
    assert 3 <= len(before) < count
    assert begun - len(before) <= jobs
    if how != signal.SIGKILL:
        assert "interrupted: finished cells are kept in" in words
    again = sweep(cells_of(tmp_path / "log", count, sleep=0.4), tmp_path / "kept")
    assert (again.ran, again.failed) == (count - len(before), {})
    after = kept_in(tmp_path)
    assert len(after) == count
    assert before.items() <= after.items()
    assert sweep_runs.begun(tmp_path / "log") == begun + count - len(before)


def test_two_sweeps_in_one_folder_do_no_harm(tmp_path):
    process = start(tmp_path, "--count", "4", "--sleep", "0.3", "--jobs", "1")
    wait_until(lambda: (tmp_path / "log").exists() and sweep_runs.begun(tmp_path / "log"), process)
    cells = cells_of(tmp_path / "log", 4, sleep=0.3)
    assert not sweep(cells, tmp_path / "kept").failed
    assert process.wait() == 0
    assert sweep_runs.begun(tmp_path / "log") > 4
    states = status(tmp_path / "kept", cells)
    assert list(states.values()) == ["current"] * 4
    assert len(list((tmp_path / "kept").iterdir())) == 4


# -- the command line -----------------------------------------------------------------------------


def command(capsys, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["sweep_runs", *map(str, words)])
    status = sweep_runs.main()
    return status, capsys.readouterr().out


def test_the_options_of_a_sweep(tmp_path, capsys, monkeypatch):
    run = lambda *words: command(capsys, monkeypatch, tmp_path, "--jobs", "1", *words)  # noqa: E731
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run("--only", "seed=1", "seed=4")[0] == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    _, lines = run("--list")
    assert "6 cells: 4 missing, 2 current" in lines
    key, shown = re.search(r"current  (\w+)  (.*seed=4.*)", lines).groups()
    assert Cell(dict(map(parse_setting, shlex.split(shown)))).key == key
    _, table = run("--cell", key)
    assert re.search(r"mean +(\S+) +\1 +0\.0", table)
    with pytest.raises(SystemExit, match="2"):
        run("--only", "seed")
    assert "--only: 'seed' is no setting; write name=value" in capsys.readouterr().err


def test_a_run_made_again_is_put_beside_its_record(log):
    (cell,) = cells_of(log, 1)
    recorded = {"mean": 0.25, "count": 400_000, "parts": [{"first": 1.0}], "seed": 0}
    table = compare_cell(cell, sweep_runs.run, recorded)
    assert table.loc["count"].tolist() == [400_000, 400_000, 0]
    assert table.loc["mean", "difference"] == pytest.approx(table.loc["mean", "now"] - 0.25)
    assert set(table.index) == {"mean", "trace", "count", "threads", "parts.0.first"}
    assert "parts.0.first" not in compare_cell(cell, sweep_runs.run, {"mean": 1.0}).index
    assert compare_cell(cell, sweep_runs.run, None)["recorded"].isna().all()


# -- a cluster ------------------------------------------------------------------------------------


def test_a_cluster_without_dask_names_the_remedy(tmp_path, log, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'genkl\[cluster\]'"):
        sweep(cells_of(log), tmp_path / "kept", cluster="tcp://127.0.0.1:8786")


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory):
    """The file of a scheduler's address, and two workers, each a process with a nurse."""
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("dask")
    address_file, started = folder / "scheduler.json", []
    environment = {**ENVIRONMENT, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}

    def begin(*words):
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dask",
                *words,
                "--scheduler-file",
                str(address_file),
                "--no-dashboard",
            ],
            cwd=folder,
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        return process

    address = ("--host", "127.0.0.1", "--port", "0", "--idle-timeout", "10 minutes")
    wait_until(address_file.exists, begin("scheduler", *address))
    yield address_file, [begin("worker", "--nthreads", "1") for _ in range(2)]
    for process in reversed(started):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_cluster_gives_what_one_process_gives_though_a_worker_dies(tmp_path, log, dask_cluster):
    address_file, workers = dask_cluster
    process = start(tmp_path, "--count", "8", "--sleep", "1", "--cluster", str(address_file))
    wait_until(lambda: len(kept_in(tmp_path)) >= 2, process)
    os.killpg(workers[0].pid, signal.SIGKILL)
    assert process.wait() == 0, process.stderr.read()
    cells = cells_of(tmp_path / "log", 8, sleep=1.0)
    table = gather(tmp_path / "kept", cells)
    serial = sweep(cells_of(log, 8), tmp_path / "serial").table()
    columns = ["seed", "mean", "trace", "count", "threads"]
    assert table[columns].equals(serial[columns])


def test_a_run_that_kills_its_workers_is_a_failure_and_no_endless_wait(tmp_path, log, dask_cluster):
    cluster = str(dask_cluster[0])
    killer = Cell({"log": str(log), "seed": 90, "fault": "is killed"})
    done = sweep([killer], tmp_path / "kept", cluster=cluster)
    assert "its process died" in done.failed[killer]
    assert not sweep(cells_of(log, 1), tmp_path / "kept", cluster=cluster).failed


def test_workers_that_would_give_other_numbers_are_refused(tmp_path, log):
    distributed = pytest.importorskip("distributed")
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 2}
    with (
        distributed.LocalCluster(dashboard_address=":0", **options) as cluster,
        pytest.raises(WorkerError, match="2 threads; start it with --nthreads 1"),
    ):
        sweep(cells_of(log), tmp_path / "kept", cluster=cluster)
    assert sweep_runs.begun(log) == 0


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, log):
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ConnectionError, match="no Dask scheduler answers at tcp:"),
    ):
        sweep(cells_of(log), tmp_path / "kept", cluster="tcp://127.0.0.1:9")
