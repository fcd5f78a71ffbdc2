"""A run that is cut off goes on, and comes to the same numbers as if nothing had happened."""

import json
import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from runs import CONFIG, go_on_in, network_with_dropout, numbers, run_in

from genkl import Checkpoint, Examples, Phase, fit, load_dataset, run_method
from genkl.learn import read_log
from genkl.learn.checkpoint import pack_optimizer, unpack_optimizer
from genkl.networks import seeded_model
from genkl.storage import DamagedFileError, load_tensors

DATASET = load_dataset("digits", seed=0)[0]
EXAMPLES = Examples.clean(DATASET.clean, 8)
KILLS = 10


def phase(**options):
    usual = {"steps": 30, "learning_rate": 0.05, "batch_size": 16, "eval_every": 8}
    return Phase(**usual | options)


def train(checkpoint=None, stop_at=None, **options):
    """Train a network with dropout; optionally press Ctrl-C after a step."""
    model = seeded_model(network_with_dropout, DATASET.input_shape, 8, 1)
    taken = 0

    def watch(event, facts):
        nonlocal taken
        if event == "step" and facts["steps"] == 1:
            taken += 1
            if taken == stop_at:
                raise KeyboardInterrupt

    result = fit(
        model,
        EXAMPLES,
        phase(**options),
        DATASET.validation,
        seed=3,
        mixup_alpha=0.5,
        checkpoint=checkpoint,
        watch=watch,
        engine="cpu",
    )
    return result, model.state_dict(), taken


def assert_same(first, second):
    assert repr(first[0].history) == repr(second[0].history)  # NaN is not equal to itself
    assert first[0].best_step == second[0].best_step
    for name, tensor in first[1].items():
        assert torch.equal(tensor, second[1][name]), name


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
@pytest.mark.parametrize("stop_at", [3, 8, 17, 29])
def test_a_phase_goes_on_to_the_same_weights(tmp_path, schedule, optimizer, stop_at):
    options = {"schedule": schedule, "optimizer": optimizer, "patience": 0}
    whole = train(**options)
    checkpoint = Checkpoint(tmp_path / "a.safetensors", every=4)
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint, stop_at=stop_at, **options)
    rest = train(checkpoint, **options)
    assert rest[2] == 30 - (stop_at - 1) // 4 * 4  # it did go on, and did not start anew
    assert_same(whole, rest)


def test_keeping_checkpoints_changes_no_number(tmp_path):
    assert_same(train(), train(Checkpoint(tmp_path / "a.safetensors", every=3)))


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(tmp_path, caplog):
    checkpoint = Checkpoint(tmp_path / "a.safetensors", every=5)
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint, stop_at=12)  # written after 5 and 10
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-10])
    rest = train(checkpoint)
    assert rest[2] == 25
    assert "is damaged" in caplog.text
    assert "going on from" in caplog.text
    assert "step 5" in caplog.text
    assert_same(train(), rest)


def test_if_both_are_damaged_it_says_what_to_do(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.safetensors", every=5)
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint, stop_at=12)
    for path in (checkpoint.path, checkpoint.previous):
        path.write_bytes(b"?")
    with pytest.raises(DamagedFileError, match="or delete it if what it holds can be made again"):
        train(checkpoint)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.safetensors", every=5, identity={"seed": 3})
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint, stop_at=6)
    with pytest.raises(ValueError, match=r"a\.safetensors was made with seed = 3, and now it is 4"):
        train(Checkpoint(checkpoint.path, every=5, identity={"seed": 4}))
    with pytest.raises(ValueError, match="another phase"):
        train(Checkpoint(checkpoint.path, every=5, identity={"seed": 3}), learning_rate=0.1)


def test_a_loss_that_is_not_finite_leaves_the_last_good_state(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a.safetensors", every=1)
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+.*the last good state is"):
        train(checkpoint, learning_rate=1e6, schedule="constant", steps=200, weight_decay=10.0)
    tensors, values = load_tensors(checkpoint.path)
    assert values["step"] >= 1
    assert np.isfinite(tensors["meter.sums"].numpy()).all()


def test_a_full_disk_stops_with_the_last_good_state_in_place(tmp_path, monkeypatch):
    import errno

    from genkl import storage

    checkpoint = Checkpoint(tmp_path / "a.safetensors", every=5)
    synced, writes = os.fsync, 0

    def full_at_the_third(handle):
        nonlocal writes
        writes += 1
        if writes > 4:  # a file and its folder are synchronised each time
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(handle)

    monkeypatch.setattr(storage.os, "fsync", full_at_the_third)
    with pytest.raises(OSError, match="No space left on device"):
        train(checkpoint)
    monkeypatch.undo()
    assert load_tensors(checkpoint.path)[1]["step"] == 10
    rest = train(checkpoint)
    assert rest[2] == 20
    assert_same(train(), rest)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_an_optimiser_is_packed_without_loss(name):
    from genkl.learn.phase import make_optimizer

    model = torch.nn.Linear(3, 2)
    optimizer = make_optimizer(model, phase(optimizer=name))
    for _ in range(3):
        model(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
    tensors, values = pack_optimizer(optimizer)
    other = make_optimizer(model, phase(optimizer=name, learning_rate=9.0))
    unpack_optimizer(other, tensors, json.loads(json.dumps(values)))
    assert repr(other.state_dict()) == repr(optimizer.state_dict())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_in(folder)
    return folder


def test_a_folder_changes_no_number_of_a_run(whole):
    record, run = numbers(whole), run_in(None)
    assert [one["val_accuracy"] for one in record["rounds"]] == [r.val_accuracy for r in run.rounds]
    assert [one["threshold"] for one in record["rounds"]] == [r.threshold for r in run.rounds]


def test_killed_ten_times_it_comes_to_the_same_numbers(whole, tmp_path):
    """SIGKILL at random moments: nothing can be tidied up, and nothing needs to be."""
    expected = numbers(whole)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["genkl.learn", "genkl.data.registry", "lightning_fabric"])
    rng = np.random.default_rng(0)
    kills = attempt = 0
    while kills < KILLS:
        attempt += 1
        assert attempt <= KILLS, "a run finishes before it can be killed"
        folder = tmp_path / f"run-{attempt}"
        while kills < KILLS and not (folder / "record.json").exists():
            process = context.Process(target=go_on_in, args=(folder,))
            process.start()
            kills += kill_after(process, folder, int(rng.integers(1, 6)), rng.uniform(0, 0.03))
        go_on_in(folder)
        assert numbers(folder) == expected
        for file in (whole / "models").iterdir():
            kept = load_tensors(folder / "models" / file.name)[0]
            for name, tensor in load_tensors(file)[0].items():
                assert torch.equal(kept[name], tensor)


def kill_after(process, folder, evaluations, seconds):
    """SIGKILL some time after a process has logged so many evaluations; whether it still lived."""
    started = None
    while process.is_alive():
        logged = len(read_log(folder / "log.jsonl"))
        started = logged if started is None else min(started, logged)
        if logged >= started + evaluations:
            time.sleep(seconds)
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_the_log_has_every_evaluation_once_also_after_a_kill(whole, tmp_path):
    reference = read_log(whole / "log.jsonl")
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_in(folder, identify=_interrupting(at=2))
    run_in_again = run_in(folder, resume=True, identify=_interrupting(at=99))
    assert len(run_in_again.rounds) == 2
    rows = read_log(folder / "log.jsonl")
    key = ["unit", "step"]
    assert sorted([r[k] for k in key] for r in rows) == sorted(
        [r[k] for k in key] for r in reference
    )
    assert len((folder / "log.csv").read_text().splitlines()) == len(reference) + 1


def _interrupting(at):
    """The usual rule, and Ctrl-C at the n-th call."""
    from genkl import divergence_rule

    rule, calls = divergence_rule(CONFIG), 0

    def interrupting(pred_probs, validation_probs):
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return rule(pred_probs, validation_probs)

    return interrupting


def test_a_finished_run_is_read_and_not_trained_again(whole, monkeypatch):
    monkeypatch.setattr("genkl.learn.iteration.fit_together", None)
    run = run_in(whole, resume=True)
    assert [one.val_accuracy for one in run.rounds] == [
        one["val_accuracy"] for one in numbers(whole)["rounds"]
    ]


def test_a_folder_in_use_is_never_overwritten(whole, tmp_path):
    with pytest.raises(FileExistsError, match="resume=True"):
        run_in(whole)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds files that are no run"):
        run_in(tmp_path)
    with pytest.raises(ValueError, match="resume needs the run_dir"):
        run_in(None, resume=True)


def test_another_run_in_the_folder_is_named(whole):
    with pytest.raises(ValueError, match="a run with seed = 5, and now it is 6"):
        run_in(whole, resume=True, seed=6)
    with pytest.raises(ValueError, match="with method = 'GenKL', and now it is 'given labels'"):
        run_method(
            "given labels", DATASET, CONFIG, seed=5, run_dir=whole, resume=True, engine="cpu"
        )


def test_what_a_run_leaves_behind(whole):
    folder = whole
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    boards = {name for name in names if name.startswith("tensorboard/")}
    assert boards
    models = {f"models/pretrain-model-{m}.safetensors" for m in (0, 1)} | {
        f"models/round-{r}-model-{m}-finetune.safetensors" for r in (1, 2) for m in (0, 1)
    }
    rounds = {kind for r in (1, 2) for kind in (f"rounds/round-{r}.json",
              f"predictions/round-{r}.safetensors")}  # fmt: skip
    own = {".lock", "run.json", "log.jsonl", "log.csv", "record.json"}
    assert names - boards == models | rounds | own
    record = json.loads((folder / "rounds" / "round-1.json").read_text())
    assert record["provenance"]["packages"]["torch"]
    assert record["provenance"]["machine"]["cores"]
    assert 0 < record["flagged"] < 1


def test_tensorboard_can_read_the_events(whole):
    from tensorboardX.proto.event_pb2 import Event

    tags = set()
    for path in (whole / "tensorboard").iterdir():
        data, at = path.read_bytes(), 0
        while at < len(data):  # length (8), its checksum (4), the event, its checksum (4)
            length = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + length])
            tags |= {value.tag for value in event.summary.value}
            at += 16 + length
    assert "round-1-model-0-train/nc_loss" in tags
    assert "round-2-model-1-finetune/val_accuracy" in tags


@pytest.mark.parametrize("left", [b"", b"{", b"null"])
@pytest.mark.parametrize(
    ("name", "can_be_made_again"),
    [
        ("run.json", False),
        ("record.json", True),
        ("rounds/round-2.json", True),
        ("predictions/round-2.safetensors", True),
        ("models/round-2-model-0-finetune.safetensors", True),
    ],
)
def test_a_cut_file_of_a_run_is_named_and_can_be_made_again(
    whole, tmp_path, name, can_be_made_again, left
):
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / name).write_bytes(left)
    with pytest.raises(DamagedFileError, match=f"{name} is damaged .*put a copy of it back, or"):
        go_on_in(folder)
    if can_be_made_again and not left:
        (folder / name).unlink()
        go_on_in(folder)
        assert numbers(folder) == numbers(whole)
