"""Shares, full disks and kills: nothing that was there is damaged, and the same command goes on.

Some moments are tried by default; ``GENKL_FAULTS=all`` tries each of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from faulty import Disk, contents, snapshots, some
from runs import numbers
from test_book_execution import built, command, instant, project, write  # noqa: F401
from torch import nn

from book.machine.profiles import read_overrides
from book.machine.project import Project
from book.machine.rendering import render
from genkl import GenKLConfig, Phase, load_dataset, run_genkl
from genkl.cli import main as genkl
from genkl.features import Backbone, extract_features
from genkl.networks import ByteConv2d
from genkl.storage import load_json, load_tensors
from teaching.__main__ import main as teaching

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

DIGITS = load_dataset("digits", seed=0, label_noise=0.3)[0]
CONFIG = GenKLConfig(
    first_ensemble=1,
    ensemble=1,
    max_rounds=1,
    max_flag_rate=0.2,
    pretrain=Phase(steps=2, learning_rate=0.05, batch_size=16, eval_every=2),
    train=Phase(steps=4, learning_rate=0.05, batch_size=16, eval_every=2),
    finetune=Phase(steps=2, learning_rate=0.05, batch_size=16, eval_every=2),
)


def network(input_shape, num_classes):
    sides = input_shape[1] * input_shape[2]
    convolution = ByteConv2d(input_shape[0], 2, 3, padding=1)
    return nn.Sequential(convolution, nn.Flatten(), nn.Linear(2 * sides, num_classes))


def go_on_in(folder: Path) -> None:
    """Start a run, or go on with it."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing is flagged after so few steps
        run_genkl(
            DIGITS,
            CONFIG,
            seed=1,
            make_model=network,
            backbone=None,
            run_dir=folder,
            resume=(folder / "run.json").exists(),
            checkpoint_every=1,
            engine="cpu",
            progress=False,
        )


def require_whole(folder: Path) -> None:
    """No file under a name of its own is half written."""
    for path in folder.rglob("[!.]*.json"):
        load_json(path)
    for path in folder.rglob("[!.]*.safetensors"):
        load_tensors(path)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    (tmp_path / "share").mkdir()
    return tmp_path / "share"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    go_on_in(folder)
    return numbers(folder)


def test_a_run_on_a_share_and_killed_at_any_moment_comes_to_the_same(
    share: Path, tmp_path: Path, undisturbed: dict
) -> None:
    """No links, no sync of a folder; and what a kill leaves at each moment is gone on with."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, share, at_each=snapshots(share, tmp_path / "killed"))
        go_on_in(share / "run")
    assert numbers(share / "run") == undisturbed
    assert disk.moments > 60
    for moment in some(disk.moments, 15):
        folder = tmp_path / "killed" / f"{moment:03}" / "run"
        require_whole(folder)
        go_on_in(folder)
        assert numbers(folder) == undisturbed, moment


def test_a_run_on_a_full_disk_stops_with_its_reason_and_goes_on(
    share: Path, tmp_path: Path, undisturbed: dict
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        moments = Disk(patch, share)
        go_on_in(share / "run")
    for moment in some(moments.moments, 15):
        shutil.rmtree(share / "run")
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, share, full_at=moment)
            with pytest.raises(OSError, match=r"can't be written \(No space left.* run it again"):
                go_on_in(share / "run")
        require_whole(share)
        assert not list(share.rglob("*.tmp"))
        go_on_in(share / "run")
        assert numbers(share / "run") == undisturbed, moment


def test_what_a_kill_before_the_first_file_leaves_is_no_other_run(
    share: Path, undisturbed: dict
) -> None:
    (share / ".run.json.123.tmp").write_text("{")
    go_on_in(share)
    assert numbers(share) == undisturbed


def test_computed_features_are_returned_where_they_cannot_be_kept(
    share: Path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("genkl.features.store.SHARD_ROWS", 2)
    calls = []

    class Means(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            calls.append(len(images))
            return images.mean(dim=(2, 3))

    images = torch.randint(0, 255, (9, 3, 8, 8), dtype=torch.uint8)
    options = {"cache_dir": share, "batch_size": 2, "progress": False, "device": "cpu"}
    wanted = extract_features(images, Backbone("means", Means, size=8), **options)
    shutil.rmtree(share)
    for full_at, kept in ((1, 0), (3, 2)):
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, share, full_at=full_at)
            found = extract_features(images, Backbone("means", Means, size=8), **options)
        assert torch.equal(found, wanted)
        assert caplog.text.count("No space left on device") == 1
        caplog.clear()
        calls.clear()
        assert torch.equal(
            extract_features(images, Backbone("means", Means, size=8), **options), wanted
        )
        assert sum(calls) == 9 - kept  # what was written before isn't computed again
        shutil.rmtree(share)


# --- Commands that replace what was there -----------------------------------------------------


def require_recovery(
    share: Path, tmp_path: Path, work: Callable[[], int], *, together: bool = True
) -> None:
    """A command fails at each moment. With a full disk what was there stays as a whole (together),
    or each file is old or new; so it is after a kill; and the same command leads to the same."""
    shutil.copytree(share, tmp_path / "before")
    old = contents(share)
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, share, at_each=snapshots(share, tmp_path / "killed"))
        assert work() == 0
    new = contents(share)
    assert new != old
    for moment in some(disk.moments, 12):
        for left in ("before", f"killed/{moment:03}"):
            shutil.rmtree(share)
            shutil.copytree(tmp_path / left, share)
            if left == "before":
                with pytest.MonkeyPatch.context() as patch:
                    Disk(patch, share, full_at=moment)
                    failed = work() != 0
                if together or not failed:  # renames need no space
                    assert contents(share) == (old if failed else new)
            found = contents(share)
            assert found.keys() >= old.keys()
            for name, data in found.items():
                assert data in (old.get(name), new.get(name)), (moment, left, name)
            assert work() == 0
            assert contents(share) == new


def test_a_report_is_there_as_a_whole_or_not_at_all(
    share: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probs = np.random.default_rng(0).dirichlet([0.5] * 3, 20)
    pd.DataFrame(probs, columns=["cat", "dog", "bird"]).to_csv(share / "p.csv", index=False)
    asked = ["report", str(share / "p.csv"), "--out", str(share / "r.html")]
    with pytest.MonkeyPatch.context() as patch:  # the first one: no half of it is in the way
        Disk(patch, share, full_at=2)
        assert genkl(asked) == 1
    assert list(contents(share)) == ["p.csv"]
    assert "r.csv can't be written (No space left on device)" in capsys.readouterr().err
    assert genkl(asked) == 0
    again = [*asked, "--overwrite", "--alpha", "1.1"]
    require_recovery(share, tmp_path, lambda: genkl(again))


def test_a_report_that_can_not_replace_its_page_leaves_no_table(share: Path, capsys) -> None:
    pd.DataFrame([[0.5, 0.5]], columns=["cat", "dog"]).to_csv(share / "p.csv", index=False)
    asked = ["report", str(share / "p.csv"), "--csv", str(share / "t.csv"), "--out"]
    page = share / "r.html"
    page.write_text("mine")
    with page.open(), pytest.MonkeyPatch.context() as patch:
        Disk(patch, share)
        assert genkl([*asked, str(page), "--overwrite"]) == 1
    said = capsys.readouterr().err
    assert "r.html can't be written (The file is open): look at the folder, close what has" in said
    assert contents(share).keys() == {"p.csv", "r.html"}
    assert page.read_text() == "mine"


def test_homework_is_replaced_as_a_whole_or_not_at_all(share: Path, tmp_path: Path) -> None:
    roster = tmp_path / "roster.csv"
    roster.write_text("student\nada\n")
    asked = ["homework", "--students", str(roster), "--out", str(share), "--term"]
    assert teaching([*asked, "1"]) == 0
    require_recovery(share, tmp_path, lambda: teaching([*asked, "2", "--overwrite"]))


def test_homework_replaces_neither_its_roster_nor_its_templates(share: Path, capsys) -> None:
    roster = share / "instructor" / "key.csv"
    roster.parent.mkdir()
    roster.write_text("student\nada\n")
    asked = ["homework", "--students", str(roster), "--out", str(share), "--term", "1"]
    assert teaching([*asked, "--overwrite"]) == 1
    assert "key.csv is a file to read from" in capsys.readouterr().err
    assert contents(share) == {"instructor/key.csv": b"student\nada\n"}
    (share / "lab_1.ipynb").symlink_to(Path(__file__).parents[2] / "teaching" / "lab_1.ipynb")
    assert teaching(["labs", "--out", str(share), "--overwrite"]) == 1
    assert "lab_1.ipynb is a file to read from" in capsys.readouterr().err


@pytest.fixture
def book(project: Project, share: Path) -> Project:  # noqa: F811
    """The miniature book, on the share."""
    for path in project.root.iterdir():
        if path != share:
            shutil.move(path, share)
    return Project(share)


@pytest.mark.usefixtures("instant")
def test_a_book_keeps_every_good_copy_and_goes_on(
    book: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(book, "execute") == 0
    write(book, "b", "import genkl", "genkl.to_left() - alpha")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("book.__main__.render", lambda project: "index.html")
        for number, asked in enumerate((["execute"], ["chapter", "a", "-p", "alpha", "2.0"])):
            (own := tmp_path / str(number)).mkdir()
            require_recovery(book.root, own, partial(command, book, *asked), together=False)
    assert read_overrides(book) == {"a": {"alpha": 2.0}}
    assert "can't be written (No space left on device): free" in capsys.readouterr().err


# --- Two commands at once ----------------------------------------------------------------------

HOLDING = """
import sys, time
from pathlib import Path
from genkl.storage import alone
with alone(Path(sys.argv[1]), lambda: None):
    print("holding", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def held(lock: Path) -> Iterator[subprocess.Popen]:
    """Another process is at work; SIGKILL ends it."""
    asked = [sys.executable, "-P", "-c", HOLDING, str(lock)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(asked, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"holding\n"
        yield process
        process.kill()


def test_a_run_in_a_folder_where_another_process_runs_is_refused(share: Path) -> None:
    go_on_in(share / "run")
    with held(share / "run" / ".lock"), pytest.raises(FileExistsError, match="another process"):
        go_on_in(share / "run")
    go_on_in(share / "run")


@pytest.mark.usefixtures("instant")
def test_two_commands_of_a_book_take_turns_and_a_killed_one_keeps_nobody_waiting(
    book: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(book, "execute") == 0
    with held(book.executed / ".lock") as other:
        threading.Timer(0.3, other.kill).start()
        assert command(book, "execute") == 0
        assert other.wait() == -signal.SIGKILL
    said = capsys.readouterr().out
    assert f"Another command is at work in {book.executed}; this one goes on when" in said
    assert command(book, "execute", "--profile", "long") == 0
    assert "Another command" not in capsys.readouterr().out


def test_a_rendering_waits_for_another_and_finds_its_work_done(
    book: Project,
    built: list[str],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    render(book)
    for lock in (book.executed / ".lock", book.html.parent / ".lock"):
        capsys.readouterr()
        with held(lock) as other:
            threading.Timer(0.3, other.kill).start()
            assert render(book).read_text() == "quick 1"
        assert "Another command is at work" in capsys.readouterr().out
    assert built == ["quick"]


CHAPTER = """
import shutil, sys, time
from book.machine import execution
from book.machine.project import Project
from book.machine.rendering import render

class Started:
    returncode = 0
    def poll(self):
        return 0

def copy_only(prepared, copy, log, **_):
    time.sleep(0.3)
    shutil.copy(prepared, copy)
    return Started()

execution.start_papermill = copy_only
from pathlib import Path
execution.change_chapter(Project(Path(sys.argv[1])), sys.argv[2], {"alpha": sys.argv[3]})
"""


def test_two_chapters_changed_at_once_keep_both_changes(book: Project) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    start = [sys.executable, "-P", "-c", CHAPTER, str(book.root)]
    both = [
        subprocess.Popen([*start, *change], env=environment, stdout=subprocess.PIPE)
        for change in (("a", "2.0"), ("b", "3.0"))
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert read_overrides(book) == {"a": {"alpha": 2.0}, "b": {"alpha": 3.0}}
    assert b"".join(said).count(b"Another command is at work") == 1
