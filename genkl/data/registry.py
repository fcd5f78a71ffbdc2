"""Every data set by name: what it is, where its files are, and which function loads it.

Loaders are named in text and imported when they are called, so that the list is there at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genkl.data.sources import Download, Source

if TYPE_CHECKING:
    from genkl.data.base import NoisyDataset, Truth

DIGITS = Source(
    name="digits",
    title="Digits: 1,797 scans of 8x8 pixels",
    licence="CC BY 4.0",
    size="0.1 MB, comes with scikit-learn",
    url="https://archive.ics.uci.edu/dataset/80",
    how_to_get="pip install scikit-learn",
    package="sklearn",
)
SOLAR_CELLS = Source(
    name="solar-cells",
    title="ELPV: 2,624 solar cells, graded by an expert",
    licence="CC BY-NC-SA 4.0",
    size="90 MB, comes with the package elpv-dataset",
    url="https://github.com/zae-bayern/elpv-dataset",
    how_to_get="pip install elpv-dataset",
    package="elpv_dataset",
)
CLOTHING_DATASET = Source(
    name="clothing-dataset",
    title="Clothing dataset: 5,403 photographs with their senders' labels",
    licence="CC0 1.0",
    size="5,403 images",
    url="https://github.com/alexeygrigorev/clothing-dataset",
    how_to_get="git clone https://github.com/alexeygrigorev/clothing-dataset",
    folders=("clothing-dataset",),
    layouts=(("images.csv", "images"),),
)

CIFAR10_BINARY = (
    *(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
    "cifar-10-batches-bin/test_batch.bin",
)
CIFAR10 = Source(
    name="cifar10",
    title="CIFAR-10",
    licence="none stated; used for research by custom, please cite Krizhevsky 2009",
    size="170 MB, 60,000 images",
    url="https://www.cs.toronto.edu/~kriz/cifar.html",
    how_to_get=(
        "Get the binary version from its home page and unpack it, or the Parquet files of "
        "https://huggingface.co/datasets/uoft-cs/cifar10. The Python version is not read: it is a "
        "pickle."
    ),
    folders=("cifar10", "cifar-10", "CIFAR-10"),
    layouts=(
        CIFAR10_BINARY,
        ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
    ),
    downloads=(
        Download(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            checksum="md5:c32a1d4ab5d03f1284b67883e8d87530",
            path="cifar-10-binary.tar.gz",
            unpack=CIFAR10_BINARY,
        ),
    ),
)
CIFAR10N = Source(
    name="cifar10n",
    title="CIFAR-10N, human labels of CIFAR-10's training images",
    licence="CC BY-NC 4.0",
    size="2.4 MB, and CIFAR-10",
    url="https://github.com/UCSC-REAL/cifar-10-100n",
    how_to_get="Get data/CIFAR-10_human.pt from its home page, and CIFAR-10.",
    folders=("cifar10n", "cifar-10n", "CIFAR-10N"),
    layouts=(("CIFAR-10_human.pt",),),
    downloads=(
        Download(
            url="https://raw.githubusercontent.com/UCSC-REAL/cifar-10-100n/main/data/"
            "CIFAR-10_human.pt",
            checksum="sha256:873e69c39cb9b5e97fb6bae2d60bb59b38a5cbc31d2b868f7903dcb2b9dd2310",
            path="CIFAR-10_human.pt",
        ),
    ),
)
CIFAR10H = Source(
    name="cifar10h",
    title="CIFAR-10H, human votes on CIFAR-10's test images",
    licence="CC BY-NC-SA 4.0",
    size="0.8 MB, and CIFAR-10",
    url="https://github.com/jcpeterson/cifar-10h",
    how_to_get="Get data/cifar10h-counts.npy from its home page, and CIFAR-10.",
    folders=("cifar10h", "cifar-10h", "CIFAR-10H"),
    layouts=(("cifar10h-counts.npy",),),
    downloads=(
        Download(
            url="https://raw.githubusercontent.com/jcpeterson/cifar-10h/master/data/"
            "cifar10h-counts.npy",
            checksum="sha256:9b36b4550349af56c79083356312eb4af856cc5fd3caf1f669d40b9d0bbb69ff",
            path="cifar10h-counts.npy",
        ),
    ),
)

CLOTHING1M_LISTS = (
    "noisy_label_kv.txt",
    "clean_label_kv.txt",
    "noisy_train_key_list.txt",
    "clean_train_key_list.txt",
    "clean_val_key_list.txt",
    "clean_test_key_list.txt",
)
CLOTHING1M = Source(
    name="clothing1m",
    title="Clothing1M",
    licence="given by its authors on request, for research that is not commercial",
    size="1,072,409 images",
    url="https://github.com/Cysu/noisy_label",
    how_to_get=(
        "Ask its authors for it (the home page says how). Unpack the lists into one folder and "
        "the images into its folder images/."
    ),
    folders=("clothing1m", "clothing1M", "Clothing1M"),
    layouts=(CLOTHING1M_LISTS, tuple(f"annotations/{name}" for name in CLOTHING1M_LISTS)),
)
FOOD101N = Source(
    name="food101n",
    title="Food-101N",
    licence="see its home page; the photographs belong to whoever took them",
    size="310,009 images",
    url="https://kuanghuei.github.io/Food-101N/",
    how_to_get="Download it from its home page and unpack it. For testing, get Food-101, too.",
    folders=("Food-101N_release", "food-101n", "Food-101N", "food101n"),
    layouts=(
        (
            "meta/classes.txt",
            "meta/imagelist.tsv",
            "meta/verified_train.tsv",
            "meta/verified_val.tsv",
            "images",
        ),
    ),
)
FOOD101 = Source(
    name="food101",
    title="Food-101, the test set for Food-101N",
    licence="images from Foodspotting, for scientific fair use",
    size="5 GB",
    url="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    how_to_get=(
        "Download food-101.tar.gz from its home page and unpack it, or let torchvision do both: "
        "torchvision.datasets.Food101(folder, download=True)."
    ),
    folders=("food-101", "Food-101", "food101"),
    layouts=(("meta/test.txt", "images"),),
)
WEBVISION = Source(
    name="mini-webvision",
    title="WebVision 1.0",
    licence=(
        "for research that is not commercial, see its home page; the photographs belong to whoever "
        "took them"
    ),
    size="68,444 images are used: 65,944 of the Google half, 2,500 to test on",
    url="https://data.vision.ee.ethz.ch/cvl/webvision/dataset2017.html",
    how_to_get=(
        "Download the lists (info), the Google half of the resized training images, and the "
        "resized validation images from its home page; unpack them into one folder: info/, "
        "google/, val_images_256/."
    ),
    folders=("webvision", "WebVision", "webvision1.0", "mini-webvision"),
    layouts=(("info/train_filelist_google.txt", "info/val_filelist.txt"),),
)
ILSVRC12 = Source(
    name="ilsvrc12",
    title="The ILSVRC 2012 validation images, a second test set for mini WebVision",
    licence="ImageNet's terms of access, for research and teaching that are not commercial",
    size="50,000 images, of which 2,500 are used",
    url="https://image-net.org/challenges/LSVRC/2012/",
    how_to_get=(
        "Register with ImageNet, download the validation images and put them into one folder per "
        "synset, val/n01440764/*.JPEG, or into val/ with the list val.txt (file and class) beside."
    ),
    folders=("ilsvrc12", "ILSVRC2012", "imagenet", "ImageNet"),
    layouts=(("val",), ("val.txt",)),
)
FOLDER = Source(
    name="folder",
    title="Your own images",
    licence="yours",
    size="yours",
    url="https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html",
    how_to_get=(
        "Pass folder=, and labels= with a CSV file (columns image, label and, where you looked, "
        "verified); without labels= the images lie in one sub-folder for each class."
    ),
)


@dataclass(frozen=True)
class Entry:
    """A data set of this package.

    Attributes:
        loader: "module:function" of ``(seed, **options) -> (NoisyDataset, Truth)``.
        source: what it is, and how to get it.
        also_needs: further sources that its loader reads.
    """

    loader: str
    source: Source
    also_needs: tuple[Source, ...] = ()

    @property
    def function(self) -> Callable[..., tuple[NoisyDataset, Truth]]:
        """The loader, imported."""
        module, _, function = self.loader.partition(":")
        return getattr(importlib.import_module(module), function)

    def load(self, seed: int = 0, **options: Any) -> tuple[NoisyDataset, Truth]:
        """Import the loader and call it."""
        return self.function(seed, **options)


DATASETS: dict[str, Entry] = {
    entry.source.name: entry
    for entry in (
        Entry("genkl.data.digits:load_digits", DIGITS),
        Entry("genkl.data.solar_cells:load_solar_cells", SOLAR_CELLS),
        Entry("genkl.data.clothing_dataset:load_clothing_dataset", CLOTHING_DATASET),
        Entry("genkl.data.cifar10n:load_cifar10n", CIFAR10N, (CIFAR10,)),
        Entry("genkl.data.cifar10h:load_cifar10h", CIFAR10H, (CIFAR10,)),
        Entry("genkl.data.clothing1m:load_clothing1m", CLOTHING1M),
        Entry("genkl.data.food101n:load_food101n", FOOD101N, (FOOD101,)),
        Entry("genkl.data.webvision:load_mini_webvision", WEBVISION),
        Entry("genkl.data.folder:load_folder", FOLDER),
    )
}
"""Name -> loader and source. A new data set is one file, and its source and one line here."""


def load_dataset(name: str, seed: int = 0, **options: Any) -> tuple[NoisyDataset, Truth]:
    """Load a data set by name.

    Args:
        name: one of `DATASETS`.
        seed: decides splits and planted noise.
        options: passed on to the data set's own loader; ``data_root=`` where its files are, if
            they come with no package (default: ``$GENKL_DATA``, then the cache).

    Returns:
        The data set to learn from, and the truth to evaluate with.

    Raises:
        ValueError: unknown name (the message lists the known ones), or a bad option value.
        DataNotFoundError: its files are not on this machine; the message says what to get.

    Example:
        >>> dataset, truth = load_dataset("digits", seed=0)
        >>> dataset.num_classes, dataset.input_shape, len(dataset.noisy) == len(truth.kinds)
        (8, (1, 8, 8), True)
    """
    from genkl.checks import check_choice  # with it comes NumPy, which a list can do without

    check_choice("data set", name, DATASETS)
    return DATASETS[name].load(seed, **options)
