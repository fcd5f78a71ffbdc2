"""What does it look like? The book's figures, drawn from arrays and records.

One colour per method and per kind of instance in the whole book, from a palette that colour-blind
readers can tell apart (Okabe and Ito). Every function draws into axes it is given and returns
them, or makes a figure and returns that.
"""

from figures.choosing import plot_alpha_paths, plot_flag_rates
from figures.data import plot_class_counts, plot_noise_matrix, plot_photographs
from figures.detection import (
    plot_condition,
    plot_losses_to_best,
    plot_over_base,
    plot_recall,
    plot_score_grid,
)
from figures.gradients import logit_gradients, plot_pushes
from figures.instances import (
    plot_flagged_by_threshold,
    plot_images,
    plot_roc,
    plot_scores_by_kind,
)
from figures.journey import Journeys, median_of_each_kind, plot_journeys
from figures.report import REPORT_COLORS, plot_looks
from figures.runs import (
    plot_level,
    plot_methods,
    plot_processes,
    plot_role_losses,
    plot_rounds,
    plot_sweep,
)
from figures.simplex import (
    loss_over,
    plot_simplex_members,
    plot_simplex_paths,
    plot_simplex_region,
    plot_simplex_values,
    simplex_points,
    simplex_xy,
)
from figures.speed import plot_growth
from figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    KIND_COLORS,
    KIND_NAMES,
    METHOD_COLORS,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    method_color,
    style_mean_and_std,
    use_book_style,
)
from figures.taxonomy import examples_by_kind, plot_taxonomy
from figures.theory import plot_by_count, plot_overlaps, plot_peak_band

__all__ = [
    "BLACK",
    "BLUE",
    "GREEN",
    "GREY",
    "Journeys",
    "KIND_COLORS",
    "KIND_NAMES",
    "METHOD_COLORS",
    "ORANGE",
    "PURPLE",
    "RED",
    "REPORT_COLORS",
    "SKY",
    "examples_by_kind",
    "logit_gradients",
    "loss_over",
    "median_of_each_kind",
    "method_color",
    "plot_alpha_paths",
    "plot_by_count",
    "plot_class_counts",
    "plot_condition",
    "plot_flag_rates",
    "plot_flagged_by_threshold",
    "plot_growth",
    "plot_images",
    "plot_journeys",
    "plot_level",
    "plot_looks",
    "plot_losses_to_best",
    "plot_methods",
    "plot_noise_matrix",
    "plot_over_base",
    "plot_overlaps",
    "plot_peak_band",
    "plot_photographs",
    "plot_processes",
    "plot_pushes",
    "plot_recall",
    "plot_roc",
    "plot_role_losses",
    "plot_rounds",
    "plot_score_grid",
    "plot_scores_by_kind",
    "plot_simplex_members",
    "plot_simplex_paths",
    "plot_simplex_region",
    "plot_simplex_values",
    "plot_sweep",
    "plot_taxonomy",
    "simplex_points",
    "simplex_xy",
    "style_mean_and_std",
    "use_book_style",
]
