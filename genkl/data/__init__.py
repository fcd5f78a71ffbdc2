"""Which data? One file per data set, one interface for all of them.

`genkl.data.registry` loads any of them by name.
"""

from genkl.data.base import Kind, NoisyDataset, Split, Truth, make_split
from genkl.data.images import ImageError, ImageFiles, Images

__all__ = [
    "ImageError",
    "ImageFiles",
    "Images",
    "Kind",
    "NoisyDataset",
    "Split",
    "Truth",
    "make_split",
]
