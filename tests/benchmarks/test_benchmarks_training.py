"""The training benchmark compares equal work: same rows, same mixing, same loss, same weights."""

import numpy as np
import pytest
import torch

from benchmarks.training import (
    BATCH,
    MIXUP,
    WEIGHTS,
    Case,
    HeldUp,
    PublishedTraining,
    make_examples,
    measure_heads,
    measure_steps,
    phase_of,
)
from genkl import Engine, Role, fit, small_cnn, three_term_loss
from genkl.data.base import make_split
from genkl.learn import draw_batches
from genkl.networks import seeded_model

K, SHAPE = 5, (1, 8, 8)
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(200, *SHAPE, generator=GENERATOR)
EXAMPLES = make_examples(IMAGES[:50], IMAGES[50:], K)
VALIDATION = make_split(IMAGES[:4], np.arange(4), np.arange(4))
ENGINE = Engine(accelerator="cpu")


def network():
    return seeded_model(small_cnn, SHAPE, K, 0)


def test_the_published_step_has_the_same_loss_and_gradient():
    model, ours = network(), network()
    published = PublishedTraining(model, EXAMPLES, phase_of(BATCH), seed=1)
    draws = draw_batches(EXAMPLES.roles.numpy(), phase_of(BATCH), 1, mixup_alpha=MIXUP)
    for _ in range(5):
        draw = next(draws)
        roles = EXAMPLES.roles[draw.rows]
        assert len(roles) == 2 * BATCH
        assert (roles == Role.CLEAN).sum() == BATCH
        assert (roles == Role.NC).any()
        loss, _ = three_term_loss(
            ours(draw.mixing.blend(EXAMPLES.inputs[draw.rows])),
            EXAMPLES.targets[draw.rows],
            roles,
            WEIGHTS,
            mixing=draw.mixing,
        )
        theirs = published.loss(draw)
        assert theirs.item() == pytest.approx(loss.item(), rel=1e-5)
        gradients = [
            torch.autograd.grad(one, [*m.parameters()])
            for one, m in ((theirs, model), (loss, ours))
        ]
        for one, other in zip(*gradients, strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


def test_the_published_steps_lead_where_fit_leads():
    model, ours = network(), network()
    published = PublishedTraining(model, EXAMPLES, phase_of(8), seed=3)
    held = HeldUp(
        lambda watch: fit(
            ours,
            EXAMPLES,
            phase_of(8),
            VALIDATION,
            seed=3,
            weights=WEIGHTS,
            mixup_alpha=MIXUP,
            engine=ENGINE,
            watch=watch,
        )
    )
    for count in (1, 3, 2):
        held.steps(count)
        for _ in range(count):
            published.step()
        for one, other in zip(model.parameters(), ours.parameters(), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    held.end()
    assert not held.thread.is_alive()


def test_a_call_that_fails_says_so():
    def broken(watch):
        watch("step", {"steps": 1})
        raise RuntimeError("no compiler")

    held = HeldUp(broken)
    held.steps(1)
    with pytest.raises(RuntimeError, match="no compiler"):
        held.steps(1)
    held.end()
    assert not held.thread.is_alive()


def test_rows_tell_seconds_images_and_ratios(capsys):
    engines = {"comes": ENGINE, "last": Engine(accelerator="cpu", channels_last=True)}
    case = Case("tiny", small_cnn, EXAMPLES, VALIDATION, 4, block=2, turns=2, engines=engines)
    rows = measure_steps(case, "cpu")
    assert [row["step"] for row in rows] == ["published", *engines]
    for row in rows:
        assert row["images_per_second"] == pytest.approx(8 / row["seconds"])
        assert row["times_faster_low"] <= row["times_faster"] <= row["times_faster_high"]
    assert rows[0]["times_faster"] == 1
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_way_that_does_not_work_here_is_left_out_and_named(capsys):
    class NoGPU(Engine):
        def place(self, model, **options):
            raise RuntimeError("no such device")

    case = Case(
        "tiny",
        small_cnn,
        EXAMPLES,
        VALIDATION,
        4,
        block=1,
        turns=1,
        engines={"elsewhere": NoGPU(accelerator="cpu")},
    )
    assert [row["step"] for row in measure_steps(case, "cpu")] == ["published"]
    assert "doesn't work here: RuntimeError: no such device" in capsys.readouterr().out


def test_heads_are_measured_both_ways(monkeypatch):
    monkeypatch.setattr("benchmarks.training.HEADS_ROWS", 600)
    threads = torch.get_num_threads()
    rows = measure_heads(2, 1, steps=3, turns=1)
    assert [row["way"] for row in rows] == ["in turn", "together"]
    assert all(row["seconds"] > 0 for row in rows)
    assert torch.get_num_threads() == threads
