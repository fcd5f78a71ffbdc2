"""What each of several processes does; run by torchrun. The first writes what it saw."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from genkl import Checkpoint, Engine, Examples, Phase, Role, fit, load_dataset, run_genkl, small_cnn
from genkl.data.images import ImageTensor
from genkl.networks import seeded_model
from genkl.predict import predict_logits
from genkl.published import Published
from genkl.relabel import relabel_instances

torch.set_num_threads(1)
ENGINE = Engine(accelerator="cpu", num_workers=0)


def examples_of(dataset, on_disk=False, switches=Published.NONE):
    """All three roles, from predictions that are made up."""
    count, k = len(dataset.noisy), dataset.num_classes
    probs = np.random.default_rng(0).dirichlet(np.ones(k), count)
    given, is_nc = dataset.noisy.labels.numpy(), np.arange(count) % 5 == 0
    relabelled = relabel_instances(
        probs, given, is_nc, np.full(k, 1 / k), published_behaviour=switches
    )
    examples = Examples.clean(dataset.clean, k) + Examples.of(dataset.noisy.inputs, relabelled)
    given = torch.cat([dataset.clean.labels, dataset.noisy.labels])
    inputs = examples.inputs
    if on_disk:  # decoded as files are, by the process whose rows they are
        inputs = ImageTensor((inputs * 255).byte())
    return Examples(inputs, examples.targets, examples.roles, examples.kept_part, given)


def prepared(image):
    """A random transform: its randomness belongs to the image, not to the process."""
    return image.float() / 255 + 0.01 * torch.randn(())


def histories():
    """Loss curves of one fit in every way that processes share work."""
    dataset, _ = load_dataset("digits", seed=0, num_ambiguous=20, num_ood=40)
    phase = Phase(steps=12, learning_rate=0.05, batch_size=17, eval_every=4)
    ways = {
        "plain": {},
        "mixup": {"mixup_alpha": 0.5},
        "kept part": {"mixup_alpha": 0.5, "switches": Published.MIXUP_KEEPS_OWN_RATIO},
        "on disk": {"mixup_alpha": 0.5, "on_disk": True},
        "believed": {"mixup_alpha": 0.5, "clean_threshold": 0.3},
        "adam": {"optimizer": "adam"},
    }
    found = {}
    for name, way in ways.items():
        on_disk, switches = way.pop("on_disk", False), way.pop("switches", Published.NONE)
        optimizer = way.pop("optimizer", "sgd")
        rate = 0.05 if optimizer == "sgd" else 1e-3
        own = Phase(**{**phase.__dict__, "optimizer": optimizer, "learning_rate": rate})
        shape = (3, 8, 8) if on_disk else dataset.input_shape
        validation = dataset.validation
        if on_disk:
            grey = (validation.inputs * 255).byte()
            validation = type(validation)(ImageTensor(grey), validation.labels, validation.ids)
        model = seeded_model(small_cnn, shape, dataset.num_classes, 1)
        result = fit(
            model,
            examples_of(dataset, on_disk, switches),
            own,
            validation,
            seed=0,
            weights=(1.0, 0.5, 2.0),
            train_transform=prepared,
            test_transform=prepared if not on_disk else lambda image: image.float() / 255,
            engine=ENGINE,
            **way,
        )
        found[name] = result.history
    return found


def predictions():
    """Of 101 instances, which no number of processes divides, in order."""
    dataset, _ = load_dataset("digits", seed=0)
    model = seeded_model(small_cnn, dataset.input_shape, dataset.num_classes, 1)
    return predict_logits(model, dataset.noisy.inputs[:101], 7, engine=ENGINE).tolist()


def whole_run(folder):
    """A run with a folder, which only the first process writes to."""
    from runs import CONFIG

    dataset, _ = load_dataset("digits", seed=0)
    options = {"make_model": small_cnn, "engine": ENGINE, "progress": False, "run_dir": folder}
    first = run_genkl(dataset, CONFIG, checkpoint_every=10, **options)
    again = run_genkl(dataset, CONFIG, resume=True, checkpoint_every=10, **options)
    assert again.best.test_accuracy == first.best.test_accuracy
    return [[r.val_accuracy, r.test_accuracy, r.flagged, r.threshold] for r in first.rounds]


def interrupted(folder):
    """Training with dropout, cut off and gone on with by as many processes."""
    dataset, _ = load_dataset("digits", seed=0)
    phase = Phase(steps=12, learning_rate=0.05, batch_size=16, eval_every=5)

    def network(shape, k):
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, k))

    def train(checkpoint=None, watch=None):
        model = seeded_model(network, dataset.input_shape, dataset.num_classes, 1)
        examples = Examples.clean(dataset.clean, dataset.num_classes)
        result = fit(
            model, examples, phase, dataset.validation, seed=0, engine=ENGINE,
            checkpoint=checkpoint, watch=watch,
        )  # fmt: skip
        return repr(result.history), [p.tolist() for p in model.parameters()]

    def stop(event, facts, seen=[0]):  # noqa: B006
        seen[0] += event == "step"
        if seen[0] == 9:
            raise KeyboardInterrupt

    whole = train()
    checkpoint = Checkpoint(Path(folder) / "a.safetensors", every=4)
    try:
        train(checkpoint, stop)
    except KeyboardInterrupt:
        ENGINE.wait()
    return train(checkpoint) == whole


def main(folder):
    ENGINE.launch()
    found = {
        "processes": ENGINE.world_size,
        "histories": histories(),
        "predictions": predictions(),
        "run": whole_run(Path(folder) / "run"),
        "resumes": interrupted(folder),
        "roles": len(Role),
    }
    if ENGINE.is_first:
        Path(folder, "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
