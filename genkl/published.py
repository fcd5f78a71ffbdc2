"""Switches back to the published scripts, where these depart from the text of the paper.

The scripts behind the paper depart from its text in places that change results. This package
follows the text; a function with the argument ``published_behaviour`` follows the scripts where
it is asked to. Chapter :doc:`/notebooks/9_paper_and_code` shows every departure, measures these,
and states in a table where the scripts differ from this package without a switch.
"""

from __future__ import annotations

import enum


class Published(enum.Flag):
    """Behaviour of the published scripts, to be combined with ``|``; `NONE` follows the paper.

    ``CLOTHING1M``, ``FOOD101N`` and ``MINI_WEBVISION`` are the combinations that the three scripts
    have.

    Example:
        >>> [switch.name for switch in Published.MINI_WEBVISION]
        ['RATIO_OVER_ROW', 'SELECTION_ON_TEST', 'MIXUP_KEEPS_OWN_RATIO']
    """

    NONE = 0
    """Follow the paper everywhere."""

    NC_KEEPS_PREDICTION = 1
    """The target of an NC instance is its averaged prediction, not the uniform vector.

    Clothing1M's loader looks up keys without the folder among keys with it and finds none, so no
    target is ever replaced. The instances still enter the NC loss."""

    RATIO_OVER_ROW = 2
    """A double-hot target has w_y in every entry, not only in that of the given label y.

    Mini WebVision's ratio file has one number a line, and the number is broadcast over the row.
    The loss becomes -log(w_y + m p_c): the given label only changes a constant."""

    FROZEN_FINETUNING = 4
    """Fine-tuning runs at the learning rate 0.

    Food-101N's fine-tuning goes on with an optimiser whose cosine schedule has ended at 0. No
    weight moves; only batch-normalisation statistics do."""

    SELECTION_ON_TEST = 8
    """The test split, not the validation split, chooses the step and the round.

    Mini WebVision's script evaluates on the test set after every epoch and keeps the maximum."""

    EVAL_MODE_PRETRAINING = 16
    """Pre-training stays in evaluation mode from the first evaluation on.

    The Clothing1M script that trains the first predictor never returns to training mode: batch
    normalisation keeps the statistics of the first epoch."""

    MIXUP_KEEPS_OWN_RATIO = 32
    """A mixup partner lends its predicted class but not its given label.

    The scripts permute the predictions only; the second target of row i, mixed with row j, is
    m_j e_{c_j} + w_{y_i} e_{y_i} instead of m_j e_{c_j} + w_{y_j} e_{y_j}."""

    CLOTHING1M = NC_KEEPS_PREDICTION | EVAL_MODE_PRETRAINING | MIXUP_KEEPS_OWN_RATIO
    FOOD101N = FROZEN_FINETUNING
    MINI_WEBVISION = RATIO_OVER_ROW | SELECTION_ON_TEST | MIXUP_KEEPS_OWN_RATIO


def check_published(function: str, asked: Published, implemented: Published) -> None:
    """Refuse a switch that a function does not have, rather than ignore it.

    Args:
        function: its name, for the message.
        asked: what the caller wants.
        implemented: what the function has.

    Raises:
        TypeError: asked is not a `Published`.
        ValueError: asked has a switch that implemented lacks; the message names both.
    """
    if not isinstance(asked, Published):
        raise TypeError(
            f"published_behaviour is {asked!r}; pass switches such as Published.RATIO_OVER_ROW, "
            "combined with |"
        )
    missing = asked & ~implemented
    if missing:
        known = ", ".join(switch.name or "" for switch in implemented)
        lacking = ", ".join(switch.name or "" for switch in missing)
        raise ValueError(
            f"{function} does not implement published_behaviour {lacking}; it implements {known}: "
            "leave the others out, or pass them to run_genkl, which implements them all"
        )
