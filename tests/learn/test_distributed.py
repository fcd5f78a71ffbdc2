"""Two processes come to the numbers of one: the loss curve, the predictions, the whole run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from genkl import Engine, Examples, Phase, fit, load_dataset, small_cnn
from genkl.networks import seeded_model

WORKER = Path(__file__).with_name("distributed_worker.py")


def started(processes, folder):
    """What so many processes, started by torchrun, found."""
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), str(WORKER), str(folder)]
    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    return {number: started(number, folder / str(number)) for number in (1, 2)}


def test_there_were_two(found):
    assert [found[number]["processes"] for number in (1, 2)] == [1, 2]


@pytest.mark.parametrize("way", ["plain", "mixup", "kept part", "on disk", "believed", "adam"])
def test_the_loss_curve_does_not_depend_on_the_number_of_processes(found, way):
    one, two = (found[number]["histories"][way] for number in (1, 2))
    assert len(one) == 3
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            if name != "val_accuracy":  # a tie may fall the other way
                np.testing.assert_allclose(value, second[name], rtol=2e-4, err_msg=f"{way} {name}")
    losses = [one[-1][f"{role}_loss"] for role in ("clean", "non_nc", "nc")]
    assert np.isfinite(losses).all()


def test_predictions_are_divided_and_come_back_in_order(found):
    np.testing.assert_allclose(found[1]["predictions"], found[2]["predictions"], atol=1e-5)
    assert len(found[2]["predictions"]) == 101


def test_a_whole_run_comes_to_the_same(found):
    one, two = (np.array(found[number]["run"]) for number in (1, 2))
    np.testing.assert_allclose(one, two, atol=0.02)


def test_two_processes_go_on_where_they_were_cut_off(found):
    assert found[2]["resumes"] is True
    assert found[1]["resumes"] is True


def test_a_batch_smaller_than_the_processes_is_refused(monkeypatch):
    monkeypatch.setattr(Engine, "world_size", 4)
    dataset, _ = load_dataset("digits")
    model = seeded_model(small_cnn, dataset.input_shape, 8, 0)
    with pytest.raises(ValueError, match="batch_size is 3 and there are 4 processes"):
        fit(
            model,
            Examples.clean(dataset.clean, 8),
            Phase(steps=1, learning_rate=0.1, batch_size=3),
            dataset.validation,
            seed=0,
            engine="cpu",
        )


def test_an_engine_says_what_is_wrong_with_it():
    with pytest.raises(ValueError, match="unknown precision 'fp8'"):
        Engine(precision="fp8")
    with pytest.raises(ValueError, match="devices is 0"):
        Engine(devices=0)
    with pytest.raises(ValueError, match="num_workers is -1"):
        Engine(num_workers=-1)
    with pytest.raises(ValueError, match="unknown accelerator 'tpu'"):
        Engine(accelerator="tpu")


@pytest.mark.parametrize(
    "engine",
    [
        Engine(accelerator="cpu", precision="bf16-mixed"),
        Engine(accelerator="cpu", channels_last=True),
    ],
)
def test_precision_and_layout_are_switches_that_change_little(engine):
    dataset, _ = load_dataset("digits")
    phase = Phase(steps=60, learning_rate=0.05, batch_size=32)
    examples = Examples.clean(dataset.clean, 8)
    losses = []
    for one in (Engine(accelerator="cpu"), engine):
        model = seeded_model(small_cnn, dataset.input_shape, 8, 0)
        result = fit(model, examples, phase, dataset.validation, seed=0, engine=one)
        losses.append([entry["clean_loss"] for entry in result.history])
        assert next(model.parameters()).dtype == torch.float32
    assert losses[0] != losses[1] or engine.channels_last
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
