"""Loading of images: batches decoded by worker processes in a fixed order, and broken images."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from genkl.checks import check_choice, check_positive
from genkl.data.base import NoisyDataset, Split, Truth
from genkl.data.images import ImageError, Images, as_images, positions
from genkl.provenance import usable_cores

if TYPE_CHECKING:
    import pandas as pd

ON_ERROR = ("raise", "skip")
FEW_IMAGES = 256
"""Up to here starting worker processes takes longer than decoding does."""
MOST_WORKERS = 8
SHARED_MEMORY = "/dev/shm"
AMPLE_SHARED_MEMORY = 1 << 32

log = logging.getLogger(__name__)

Transform = Callable[[Tensor], Tensor]
"""Maps one image (3, H, W), uint8, to a tensor whose shape is the same for every image."""


@dataclass(frozen=True)
class BrokenImages:
    """What was found when images were decoded to see whether they can be.

    Attributes:
        checked: how many images were decoded.
        rows: positions of the broken ones, ascending.
        names: where they come from.
        reasons: why they can't be used.
    """

    checked: int
    rows: np.ndarray
    names: tuple[str, ...]
    reasons: tuple[str, ...]

    @staticmethod
    def of(errors: dict[int, ImageError], checked: int) -> BrokenImages:
        """From errors by position."""
        rows = sorted(errors)
        names = tuple(errors[row].name for row in rows)
        reasons = tuple(errors[row].reason for row in rows)
        return BrokenImages(checked, np.array(rows, dtype=np.int64), names, reasons)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        """One line: how many, and the first three."""
        if len(self) == 0:
            return f"all {self.checked} images can be used"
        shown = [f"{n}: {r}" for n, r in zip(self.names[:3], self.reasons[:3], strict=True)]
        count = f"{len(self)} of {self.checked} images can't be used"
        return f"{count}: {'; '.join(shown)}{'; ...' if len(self) > 3 else ''}"

    def table(self) -> pd.DataFrame:
        """One row for each broken image, with columns ``row``, ``name`` and ``reason``."""
        import pandas as pd

        return pd.DataFrame({"row": self.rows, "name": self.names, "reason": self.reasons})


def image_batches(
    images: Images,
    transform: Transform,
    *,
    batch_size: int,
    order: np.ndarray | None = None,
    num_workers: int | None = None,
    on_error: str = "raise",
    seed: int = 0,
    progress: str | None = None,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Images decoded and transformed by worker processes, batch by batch.

    What comes out doesn't depend on num_workers: batches come in order, and a random transform is
    seeded for each image by (seed, row). Workers end with the iterator, at Ctrl-C too.

    Args:
        images: N images.
        transform: of one image; its randomness must come from torch's generator.
        batch_size: images in a batch; the last one, and one with broken images, has fewer.
        order: rows in the order wanted, shape (M,); None is 0 to N-1.
        num_workers: processes; 0 decodes here, None decides by `default_workers`.
        on_error: "raise" stops at the first image that can't be decoded; "skip" leaves such images
            out and logs, at the end, how many and which.
        seed: of random transforms; pass another one for each epoch.
        progress: what a bar says; None shows no bar.

    Returns:
        Iterator over (rows, batch), positions in images, shape (B,), int64, and the transformed
        images, shape (B, ...).

    Raises:
        ValueError: unknown on_error, no batch_size; in iteration, a transform that gives images of
            several shapes.
        ImageError: in iteration, an image that can't be decoded; the message holds its path.
    """
    check_choice("on_error", on_error, ON_ERROR)
    check_positive("batch_size", batch_size)
    rows = np.arange(len(images)) if order is None else positions(order)
    options = {"num_workers": num_workers, "seed": seed, "progress": progress}
    decoded = _decoded(images, transform, _keys(rows, batch_size), count=len(rows), **options)
    return _sound(decoded, len(images), on_error)


def step_batches(
    images: Images,
    transform: Transform,
    batches: Iterable[tuple[int, np.ndarray]],
    *,
    num_workers: int | None = None,
    seed: int = 0,
    pin_memory: bool = False,
) -> Iterator[Tensor]:
    """Batches of rows, however many, decoded and transformed ahead of the one who asks for them.

    Args:
        images: N images.
        transform: of one image; its randomness must come from torch's generator.
        batches: pairs (step, rows), consumed in order and ahead of time. A random transform is
            seeded for each image by (seed, step, row).
        num_workers: processes; 0 decodes here, None decides by `default_workers`.
        seed: of random transforms.
        pin_memory: put batches where a GPU can fetch them from without waiting.

    Returns:
        Iterator over batches, shape (B, ...).

    Raises:
        ValueError: in iteration, a transform that gives images of several shapes.
        ImageError: in iteration, an image that can't be decoded; the message holds its path.
    """
    keys = ([(step, row) for row in rows.tolist()] for step, rows in batches)
    options = {"num_workers": num_workers, "seed": seed, "pin_memory": pin_memory}
    for _, batch, broken in _decoded(images, transform, keys, count=len(images), **options):
        if broken:
            raise next(iter(broken.values()))
        yield batch


def check_images(
    images: Images, *, num_workers: int | None = None, progress: bool = True
) -> BrokenImages:
    """Decode every image to find those that can't be.

    Args:
        images: N images.
        num_workers: processes; None decides by `default_workers`.
        progress: show a bar.

    Returns:
        All the broken ones, with the reasons.
    """
    keys, errors = _keys(np.arange(len(images)), 64), {}
    options = {"num_workers": num_workers, "progress": "checking" if progress else None}
    for _, _, broken in _decoded(images, _nothing, keys, count=len(images), **options):
        errors |= broken
    return BrokenImages.of(errors, len(images))


def drop_broken(
    dataset: NoisyDataset,
    truth: Truth | None = None,
    *,
    num_workers: int | None = None,
    progress: bool = True,
) -> tuple[NoisyDataset, Truth | None, dict[str, BrokenImages]]:
    """Leave out every instance whose image can't be decoded, before long work starts.

    Args:
        dataset: its inputs are images.
        truth: about its noisy split, with ids.
        num_workers: processes; None decides by `default_workers`.
        progress: show a bar for each split.

    Returns:
        The data set without those instances, the truth about those that stay (None if none was
        given), and what was found in each split (rows are positions in the split given).

    Raises:
        ValueError: a truth without ids, or no noisy instance is left.
    """
    if truth is not None and truth.ids is None:
        raise ValueError("this truth holds no ids; build it with ids= to match it to what stays")
    found: list[BrokenImages] = []

    def without_broken(split: Split) -> Split:
        images = as_images(split.inputs)
        found.append(check_images(images, num_workers=num_workers, progress=progress))
        return split.take(np.delete(np.arange(len(split)), found[-1].rows))

    kept = dataset.map_splits(without_broken)
    report = dict(zip([*dataset.splits(), *dataset.more_tests], found, strict=True))
    for name, broken in report.items():
        if len(broken):
            log.warning("%s, %s: %s; left out", dataset.name, name, broken)
    return kept, None if truth is None else truth.match(kept.noisy), report


def default_workers(images: Images, count: int | None = None) -> int:
    """How many processes decode: none for few images or images in memory, else one for each core.

    Args:
        images: the collection.
        count: how many of them will be read; None is all.
    """
    count = len(images) if count is None else count
    if count <= FEW_IMAGES or images.in_memory:
        return 0
    return min(MOST_WORKERS, usable_cores())


class _Decoded(Dataset):
    """(row,) or (step, row) -> the row, and the transformed image or the error with its path.

    A random transform is seeded by what is given: with a step, it differs from step to step.
    """

    def __init__(self, images: Images, transform: Transform, seed: int) -> None:
        self.images, self.transform, self.seed = images, transform, seed

    def __getitem__(self, key: tuple[int, ...]) -> tuple[int, Tensor | ImageError]:
        row = key[-1]
        try:
            image = self.images.read(row)
        except ImageError as error:
            return row, error
        with torch.random.fork_rng(devices=[]):
            own = np.random.SeedSequence((self.seed, *key)).generate_state(1, np.uint64)
            torch.default_generator.manual_seed(int(own[0]))
            return row, self.transform(image)


def _keys(rows: np.ndarray, batch_size: int) -> Iterator[list[tuple[int]]]:
    for at in range(0, len(rows), batch_size):
        yield [(row,) for row in rows[at : at + batch_size].tolist()]


def _decoded(
    images: Images,
    transform: Transform,
    keys: Iterable[list[tuple[int, ...]]],
    *,
    count: int,
    num_workers: int | None,
    seed: int = 0,
    pin_memory: bool = False,
    progress: str | None = None,
) -> Iterator[tuple[np.ndarray, Tensor | None, dict[int, ImageError]]]:
    """Batch by batch, the rows that could be decoded, their images, and the errors by row."""
    decoded = _Decoded(images, transform, seed)
    workers = default_workers(images, count) if num_workers is None else num_workers
    if workers and _free_shared_memory() < AMPLE_SHARED_MEMORY:
        first = [*islice(keys := iter(keys), 1)]
        workers, keys = _workers_with_room(decoded, first, workers), chain(first, keys)
    loader = DataLoader(
        decoded,
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_ignore_interrupts,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else it would draw from the caller's
    )
    with tqdm(total=count, desc=progress, unit="image", disable=progress is None) as bar:
        for rows, batch, broken in loader:
            yield rows, batch, broken
            bar.update(len(rows) + len(broken))


def _workers_with_room(decoded: _Decoded, first: list[list[tuple[int, ...]]], workers: int) -> int:
    """As many workers as shared memory has room for. Without it, the batches would never come."""
    free, image = _free_shared_memory(), decoded[first[0][0]][1] if first and first[0] else None
    if not isinstance(image, Tensor) or not image.nbytes:
        return workers
    room = min(workers, free // (3 * len(first[0]) * image.nbytes))  # two ahead, and one in use
    if room < workers:
        log.warning(
            "%s has %d MB free, too few for %d processes that decode images, so there are %d; with "
            "more of it (docker run --shm-size=4g) it is quicker",
            *(SHARED_MEMORY, free >> 20, workers, room),
        )
    return room


def _free_shared_memory() -> float:
    """Bytes that worker processes can hand batches over in; infinite where it is no folder."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(SHARED_MEMORY).free
    return math.inf


def _collate(
    items: list[tuple[int, Tensor | ImageError]],
) -> tuple[np.ndarray, Tensor | None, dict[int, ImageError]]:
    broken = {row: image for row, image in items if isinstance(image, ImageError)}
    rows = [row for row, _ in items if row not in broken]
    good = [image for row, image in items if row not in broken]
    shapes = sorted({tuple(image.shape) for image in good})
    if len(shapes) > 1:
        raise ValueError(
            f"the transform gives images of shapes {shapes[0]} and {shapes[1]}; end it with a "
            "crop, or a resize to (height, width)"
        )
    return np.array(rows, dtype=np.int64), torch.stack(good) if good else None, broken


def _sound(
    decoded: Iterator[tuple[np.ndarray, Tensor | None, dict[int, ImageError]]],
    count: int,
    on_error: str,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """The batches without broken images, which are an error or are reported at the end."""
    errors: dict[int, ImageError] = {}
    try:
        for rows, batch, broken in decoded:
            if broken and on_error == "raise":
                raise next(iter(broken.values()))
            errors |= broken
            if batch is not None:
                yield rows, batch
    finally:
        if errors:
            log.warning("%s; left out", BrokenImages.of(errors, count))


def _ignore_interrupts(_worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the parent answers it and ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _nothing(_image: Tensor) -> Tensor:
    return torch.empty(0)
