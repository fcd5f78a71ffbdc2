"""The report on a folder beside the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from genkl.plots import BLACK, GREEN, GREY, ORANGE, RED, SKY

REPORT_COLORS = {
    "looks ambiguous": ORANGE,
    "looks out of distribution": RED,
    "label likely wrong": SKY,
    "looks fine": GREEN,
}
"""What an instance looks like -> colour, as on the report's page."""


def plot_looks(ax: Axes, shares: pd.DataFrame) -> Axes:
    """A bar for each truth, divided by what its instances look like to the report.

    Args:
        ax: where to draw.
        shares: one row per truth, in `REPORT_COLORS`' columns; rows sum to 1. Shares of 4 % and
            more are written into the bars.
    """
    left = np.zeros(len(shares))
    places = np.arange(len(shares))
    for name in shares.columns:
        width = 100 * shares[name].to_numpy(dtype=float)
        ax.barh(places, width, left=left, color=REPORT_COLORS.get(name, GREY), label=name)
        for place, (start, share) in enumerate(zip(left, width, strict=True)):
            if share >= 4:
                middle = {"ha": "center", "va": "center", "fontsize": 12, "color": BLACK}
                ax.text(start + share / 2, place, f"{share:.0f}", **middle)
        left = left + width
    ax.set_yticks(places, [str(name) for name in shares.index])
    ax.invert_yaxis()
    ax.set(xlabel="share of the images (%)", xlim=(0, 100))
    ax.grid(axis="y", visible=False)
    ax.legend(
        fontsize=11, loc="lower center", bbox_to_anchor=(0.42, 1.0), ncols=4, columnspacing=1.2
    )
    return ax
