"""Presets: settings for the embedded data sets, and for the paper's three.

`DIGITS`, `SOLAR_CELLS` and, for features of any photographs, `PHOTOGRAPHS` can be run from
beginning to end in minutes. `CLOTHING1M`, `FOOD101N` and
`MINI_WEBVISION` are what the paper's scripts set, as data.
"""

from genkl.presets.clothing1m import CLOTHING1M
from genkl.presets.embedded import DIGITS, PHOTOGRAPHS, SOLAR_CELLS
from genkl.presets.food101n import FOOD101N
from genkl.presets.mini_webvision import MINI_WEBVISION
from genkl.presets.paper import PaperPreset, Recipe

__all__ = [
    "DIGITS",
    "PHOTOGRAPHS",
    "SOLAR_CELLS",
    "PaperPreset",
    "Recipe",
    "CLOTHING1M",
    "FOOD101N",
    "MINI_WEBVISION",
]
