"""Scores and truths that tests of figures and statistics share."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st


def prove(**strategies):
    """A property; without a deadline, since other work may share the machine."""
    return lambda test: settings(deadline=None)(given(**strategies)(test))


@st.composite
def judged(draw, least=1):
    """Scores with ties, and at least so many instances of either kind."""
    kinds = draw(st.lists(st.booleans(), max_size=30)) + least * [True, False]
    kinds = draw(st.permutations(kinds))
    scores = draw(st.lists(st.integers(-3, 3), min_size=len(kinds), max_size=len(kinds)))
    return np.array(scores) / 2, np.array(kinds)


def signal(seed=0, count=300, strength=1.0, share=0.3, columns=1):
    rng = np.random.default_rng(seed)
    is_nc = rng.random(count) < share
    scores = rng.normal(size=(columns, count)) + strength * is_nc
    return (*scores, is_nc)
