"""A small run with everything in it that must survive: dropout, mixup, Adam, several rounds."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from genkl import GenKLConfig, Phase, load_dataset, run_genkl
from genkl.networks import ByteConv2d

CONFIG = GenKLConfig(
    first_ensemble=2,
    ensemble=2,
    max_rounds=2,
    max_flag_rate=0.2,
    pretrain=Phase(steps=40, learning_rate=0.05, batch_size=16, eval_every=15),
    train=Phase(
        steps=60, learning_rate=0.05, batch_size=32, eval_every=20, schedule="plateau", patience=0
    ),
    finetune=Phase(
        steps=20,
        learning_rate=1e-3,
        optimizer="adam",
        schedule="constant",
        batch_size=16,
        eval_every=10,
    ),
)


def network_with_dropout(input_shape, num_classes):
    """Its numbers depend on torch's own generator, too."""
    return nn.Sequential(
        ByteConv2d(input_shape[0], 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(8 * input_shape[1] * input_shape[2], num_classes),
    )


def run_in(folder, resume=False, seed=5, **options):
    """The run, or what is left of it."""
    torch.set_num_threads(1)
    dataset, _ = load_dataset("digits", seed=0, label_noise=0.3)
    return run_genkl(
        dataset,
        CONFIG,
        seed=seed,
        make_model=network_with_dropout,
        stop_early=False,
        run_dir=folder,
        resume=resume,
        checkpoint_every=7,
        engine="cpu",
        **{"progress": False, **options},
    )


def go_on_in(folder):
    """For a process that may be killed: start, or go on."""
    run_in(folder, resume=Path(folder, "run.json").exists())


def numbers(folder):
    """Everything that a run came to, but the time it took and where."""
    record = json.loads(Path(folder, "record.json").read_text())
    del record["provenance"]
    for one in record["rounds"]:
        del one["seconds"]
    return record
