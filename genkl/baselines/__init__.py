"""Baselines: the methods that GenKL is held against, on equal terms, and the search of settings.

Every method trains ``config.ensemble`` fresh models for ``config.train.steps`` steps on the clean
and the noisy split together, and fine-tunes them on the clean split as GenKL does. Methods differ
by what they make of the given labels before, and by the loss. What they need to know for that,
predictions and neighbours, is their `Groundwork`: all get the same.
"""

from genkl.baselines.groundwork import Groundwork
from genkl.baselines.method import Card, Method
from genkl.baselines.neighbors import nearest_neighbors, neighbor_labels
from genkl.baselines.run import METHODS, Search, run_method, search_settings
from genkl.baselines.selection import Selection, select_by_dsos, select_by_jo_src
from genkl.baselines.transitions import (
    anchor_transition,
    average_transition,
    forward_targets,
)

__all__ = [
    "METHODS",
    "Card",
    "Groundwork",
    "Method",
    "Search",
    "Selection",
    "anchor_transition",
    "average_transition",
    "forward_targets",
    "nearest_neighbors",
    "neighbor_labels",
    "run_method",
    "search_settings",
    "select_by_dsos",
    "select_by_jo_src",
]
