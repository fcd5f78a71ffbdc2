"""Methods whose loss remembers each example over training: ELR and SOP."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from genkl.baselines.groundwork import Groundwork
from genkl.baselines.method import TWO_RATES, Card, Method, Settings, everything, number
from genkl.learn import Lesson
from genkl.relabel import Role

CLAMP = 1e-4
"""Both sources keep probabilities so far from 0, and ELR from 1."""

Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(logits (B, k), targets (B, k), memory (B, w)) -> (costs (B,), the memory afterwards)``."""


class RememberingLoss:
    """A row loss with a memory: of every model in training, w numbers for each of N examples.

    A row loss is told logits and targets; which example a row is stands in one more column of the
    targets. Models that learn together come in blocks of a batch each, so that every one has a
    memory of its own; those that learn in turn begin with an empty one.

    Args:
        step: the loss of rows, and what is remembered of them afterwards.
        start: the empty memory, shape (N, w).
        batch_size: rows of a batch, of each model.
        steps: how many a phase has; the next one starts anew.
    """

    def __init__(self, step: Step, start: Tensor, batch_size: int, steps: int) -> None:
        self.step, self.start, self.steps = step, start, steps
        self.batch_size, self.calls = min(batch_size, len(start)), 0
        self.memory = start[None]

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        members = len(logits) // self.batch_size
        if self.calls % self.steps == 0:
            self.memory = self.start.to(logits.device).repeat(members, 1, 1)
        self.calls += 1
        member = torch.arange(members, device=logits.device).repeat_interleave(self.batch_size)
        place = member, targets[:, -1].long()
        costs, self.memory[place] = self.step(logits, targets[:, :-1], self.memory[place])
        return costs


def elr_step(
    logits: Tensor, targets: Tensor, memory: Tensor, *, strength: float = 3.0, momentum: float = 0.7
) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and agreement with what was believed before; see `early_learning`."""
    probs = logits.softmax(dim=1).clamp(CLAMP, 1 - CLAMP)
    seen = probs.detach()
    memory = momentum * memory + (1 - momentum) * seen / seen.sum(dim=1, keepdim=True)
    agreement = (memory * probs).sum(dim=1)
    plain = F.cross_entropy(logits, targets, reduction="none")
    return plain + strength * torch.log(1 - agreement), memory


def sop_step(
    logits: Tensor, targets: Tensor, memory: Tensor, *, rate: float = 10.0, batch_size: int = 1
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the prediction and a noise vector that is learned; see `over_parametrised`.

    The memory is u, one number, and v, k of them; its gradient is that of the batch's mean.
    """
    with torch.enable_grad():
        u, v = (part.detach().requires_grad_() for part in memory.split([1, targets.shape[1]], 1))
        raised = (u.square() * targets).clamp(0, 1 - CLAMP)
        lowered = (v.square() * (1 - targets)).clamp(0, 1 - CLAMP)

        def entropy(probs: Tensor, raised: Tensor) -> Tensor:
            mixed = (probs + raised - lowered.detach()).clamp(min=CLAMP)
            mixed = F.normalize(mixed, p=1, dim=1, eps=CLAMP).clamp(CLAMP, 1)
            return -(targets * mixed.log()).sum(dim=1)

        probs = logits.softmax(dim=1)
        hard = F.one_hot(logits.argmax(dim=1), targets.shape[1])
        gap = (hard + raised.detach() - lowered - targets).square().sum(dim=1)
        own = (entropy(probs.detach(), raised) + gap).sum() / batch_size
        slopes = torch.cat(torch.autograd.grad(own, (u, v)), dim=1)
    return entropy(probs, raised.detach()), memory - rate * slopes


def _remembering(work: Groundwork, step: Step, start: Tensor) -> Lesson:
    """All labels as they are, each with the number of its example."""
    phase, examples = work.setup.config.train, everything(work)
    numbered = torch.cat([examples.targets, torch.arange(len(examples))[:, None]], dim=1)
    size = phase.batch_size + (phase.clean_batch_size or 0)
    loss = RememberingLoss(step, start, size, max(1, phase.steps))
    return Lesson(replace(examples, targets=numbered), dict.fromkeys(Role, loss))


def early_learning(work: Groundwork, settings: Settings) -> Lesson:
    """All labels, and a pull towards what was believed of each example before."""
    own = {name: settings[name] for name in ("strength", "momentum")}
    count = len(work.dataset.clean) + len(work.dataset.noisy)
    start = torch.zeros(count, work.dataset.num_classes)
    return _remembering(work, partial(elr_step, **own), start)


def over_parametrised(work: Groundwork, settings: Settings) -> Lesson:
    """All labels, each with a noise vector of its own that is learned, too."""
    phase, k = work.setup.config.train, work.dataset.num_classes
    count = len(work.dataset.clean) + len(work.dataset.noisy)
    size = min(count, phase.batch_size + (phase.clean_batch_size or 0))
    drawn = torch.Generator().manual_seed(work.setup.seed_of(0, 0, 4))
    start = settings["start"] * torch.randn(count, 1 + k, generator=drawn)
    return _remembering(work, partial(sop_step, rate=settings["rate"], batch_size=size), start)


POSITIVE = number(lambda x: 0 < x < math.inf, "a positive number")
METHODS = (
    Method(
        "ELR",
        "loss",
        "liu2020early",
        {"strength": 3.0, "momentum": 0.7},
        {"strength": (3.0, 7.0), **TWO_RATES},
        early_learning,
        checks={
            "strength": number(lambda x: 0 <= x < math.inf, "a weight of at least 0; 0 is off"),
            "momentum": number(lambda x: 0 <= x < 1, "a share of at least 0 and below 1"),
        },
        card=Card(
            r"$-\log p_y + \lambda \log(1 - \langle t, p \rangle)$, and after each visit of an "
            r"example $t \leftarrow \beta t + (1 - \beta) p$",
            "hundreds of visits to each example, here a few: as many steps as all methods have",
        ),
    ),
    Method(
        "SOP",
        "loss",
        "liu2022robust",
        {"start": 1e-8, "rate": 10.0},
        {"start": (1e-8, 0.1), **TWO_RATES},
        over_parametrised,
        checks={"start": POSITIVE, "rate": POSITIVE},
        card=Card(
            r"cross-entropy of $p + s$, normalised, $s = a^2 y - b^2 (1 - y)$; $a$ learns from it, "
            r"too, $b$ from $\lVert e_{\arg\max p} + s - y \rVert^2$, at a rate of their own",
            "hundreds of visits: $a$ and $b$ hardly leave the source's start of 1e-8 in a few, so "
            "that it is a setting here; SOP+'s consistency and balance are left out",
        ),
    ),
)
