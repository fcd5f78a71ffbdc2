"""Loading: the same batches whatever decodes them, and broken images named, not passed over."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genkl.data.base import Kind, NoisyDataset, Truth, make_split
from genkl.data.images import (
    BlendedImages,
    ImageError,
    ImageFiles,
    ImageTensor,
    JoinedImages,
    as_images,
)
from genkl.data.loading import (
    check_images,
    default_workers,
    drop_broken,
    image_batches,
)
from genkl.data.transforms import build_transform
from genkl.provenance import usable_cores

CROP = build_transform((("random crop", 4), ("random flip", None)), (0, 0, 0), (1, 1, 1))


@pytest.fixture
def files(tmp_path) -> ImageFiles:
    """20 images of noise, of several sizes."""
    rng = np.random.default_rng(0)
    for i in range(20):
        pixels = rng.integers(0, 256, (6 + i % 3, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return ImageFiles(tmp_path, [f"{i}.png" for i in range(20)])


@pytest.fixture
def broken_files(files) -> ImageFiles:
    """The same, but 3 is missing, 8 is cut off, 9 is a text, 15 is empty."""
    (files.root / "3.png").unlink()
    (files.root / "8.png").write_bytes((files.root / "8.png").read_bytes()[:60])
    (files.root / "9.png").write_text("<html>not found</html>")
    (files.root / "15.png").write_bytes(b"")
    return files


BROKEN = [3, 8, 9, 15]


def collect(images, **options):
    batches = list(image_batches(images, CROP, **{"batch_size": 3, "num_workers": 0, **options}))
    return np.concatenate([rows for rows, _ in batches]), torch.cat([batch for _, batch in batches])


def test_images_come_in_order_and_in_batches(files):
    order = np.array([4, 4, 0, 19, 7])
    batches = list(image_batches(files, torch.clone, batch_size=1, order=order, num_workers=0))
    assert [int(rows[0]) for rows, _ in batches] == order.tolist()
    assert all(torch.equal(batch[0], files.read(int(rows[0]))) for rows, batch in batches)
    sizes = [len(rows) for rows, _ in image_batches(files, CROP, batch_size=8, num_workers=0)]
    assert sizes == [8, 8, 4]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_random_transforms_do_not_depend_on_workers_or_batches(files, num_workers):
    rows, images = collect(files)
    again, same = collect(files, num_workers=num_workers, batch_size=5)
    assert np.array_equal(rows, again)
    assert torch.equal(images, same)


def test_another_seed_gives_other_crops_and_another_order_the_same(files):
    _, images = collect(files)
    assert not torch.equal(images, collect(files, seed=1)[1])
    backwards = np.arange(20)[::-1]
    assert torch.equal(images, collect(files, order=backwards)[1].flip(0))
    same = ImageTensor(torch.stack([files.read(0)] * 10))
    assert len({tuple(crop.flatten().tolist()) for crop in collect(same)[1]}) > 3


def test_the_callers_generator_is_left_alone(files):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    collect(files)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_image_is_an_error_with_its_path(broken_files, num_workers):
    with pytest.raises(ImageError, match=r"3\.png: there is no such file") as caught:
        collect(broken_files, num_workers=num_workers)
    assert caught.value.name == str(broken_files.root / "3.png")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_images_can_be_left_out_and_are_counted(broken_files, num_workers, caplog):
    with caplog.at_level(logging.WARNING, "genkl"):
        rows, images = collect(broken_files, on_error="skip", num_workers=num_workers)
    assert rows.tolist() == [row for row in range(20) if row not in BROKEN]
    assert len(images) == 16
    (line,) = caplog.messages
    assert line.startswith("4 of 20 images can't be used: ")
    assert all(f"{row}.png" in line for row in (3, 8, 9))
    assert "15.png" not in line


def test_a_batch_without_a_good_image_does_not_come(broken_files):
    given = list(
        image_batches(
            broken_files, CROP, batch_size=2, order=[8, 9, 1, 2], on_error="skip", num_workers=0
        )
    )
    assert [rows.tolist() for rows, _ in given] == [[1, 2]]


def test_a_transform_must_give_one_shape(files):
    with pytest.raises(ValueError, match="shapes"):
        list(image_batches(files, torch.clone, batch_size=3, num_workers=0))


def test_unknown_options_are_refused_at_once(files):
    with pytest.raises(ValueError, match="on_error 'ignore'"):
        image_batches(files, CROP, batch_size=3, on_error="ignore")
    with pytest.raises(ValueError, match="batch_size is 0"):
        image_batches(files, CROP, batch_size=0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_broken_image_is_found_beforehand(broken_files, num_workers):
    report = check_images(broken_files, num_workers=num_workers, progress=False)
    assert report.checked == 20
    assert report.rows.tolist() == BROKEN
    table = report.table()
    assert table.columns.tolist() == ["row", "name", "reason"]
    assert [Path(name).name for name in table["name"]] == [f"{row}.png" for row in BROKEN]
    assert table["reason"][3] == "the file is empty"
    assert table["reason"][2] == "this is not an image"


def test_sound_images_give_an_empty_report(files):
    report = check_images(files, num_workers=0, progress=False)
    assert len(report) == 0
    assert str(report) == "all 20 images can be used"
    assert len(report.table()) == 0


def dataset_of(images) -> tuple[NoisyDataset, Truth]:
    def split(rows):
        rows = np.array(rows)
        return make_split(images.take(rows), rows % 2, rows + 100)

    noisy = split(range(12))
    truth = Truth(np.arange(12) % 2, np.arange(12), "counted", ids=np.arange(100, 112))
    parts = {"clean": split([12, 13]), "validation": split([14, 15]), "test": split([16, 17])}
    more = {"another": split([18, 19])}
    return NoisyDataset("made", ("a", "b"), noisy=noisy, **parts, more_tests=more), truth


def test_instances_with_broken_images_are_dropped_with_their_truth(broken_files, caplog):
    dataset, truth = dataset_of(broken_files)
    kept, known, report = drop_broken(dataset, truth, num_workers=0, progress=False)
    assert kept.noisy.ids.tolist() == [100, 101, 102, 104, 105, 106, 107, 110, 111]
    assert known.ids.tolist() == kept.noisy.ids.tolist()
    assert known.labels.tolist() == [0, 1, 2, 4, 5, 6, 7, 10, 11]
    assert known.kinds[3] == Kind.CORRECT
    assert kept.validation.ids.tolist() == [114]
    assert len(kept.clean) == len(kept.test) == len(kept.more_tests["another"]) == 2
    counts = dict.fromkeys(("clean", "noisy", "validation", "test", "another"), 0)
    assert {n: len(b) for n, b in report.items()} == counts | {"noisy": 3, "validation": 1}
    assert len([m for m in caplog.messages if "made, noisy: 3 of 12" in m]) == 1
    assert check_images(kept.noisy.inputs, num_workers=0, progress=False).checked == 9


def test_dropping_works_without_truth_and_refuses_one_without_ids(broken_files):
    dataset, truth = dataset_of(broken_files)
    kept, known, _ = drop_broken(dataset, num_workers=0, progress=False)
    assert known is None
    assert len(kept.noisy) == 9
    with pytest.raises(ValueError, match="holds no ids"):
        drop_broken(dataset, Truth(truth.kinds, truth.labels, "counted"))


def test_processes_decode_only_where_it_is_worth_it(tmp_path):
    many = ImageFiles(tmp_path, [f"{i}.jpg" for i in range(5000)])
    memory = as_images(torch.zeros(5000, 1, 2, 2, dtype=torch.uint8))
    assert 1 <= default_workers(many) <= usable_cores()
    assert default_workers(many, 100) == default_workers(many.take(np.arange(100))) == 0
    assert default_workers(JoinedImages([memory, memory.take([1])])) == 0
    assert default_workers(JoinedImages([memory, many])) > 0
    assert default_workers(BlendedImages(many, many)) > 0


SLOW = """
import io, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
import numpy as np, torch
from genkl.data.images import ImageFiles
from genkl.data.loading import image_batches

def slow(image):
    time.sleep(0.05)
    return image

images = ImageFiles(sys.argv[1], ["0.png"] * 2000)
for rows, _ in image_batches(images, slow, batch_size=2, num_workers=2):
    print(rows[0], flush=True)
"""


def children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in text.split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_ctrl_c_leaves_no_process_behind(files):
    run = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(files.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        assert run.stdout.readline().strip() == "0"
        workers = children(run.pid)
        assert len(workers) >= 2
        os.killpg(run.pid, signal.SIGINT)  # what a terminal does
        _, errors = run.communicate(timeout=20)
    finally:
        run.kill()
    assert errors.count("KeyboardInterrupt") == 1  # the parent's alone
    deadline = time.monotonic() + 5
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def test_workers_end_when_the_batches_are_not_wanted_any_more(files):
    others = set(torch.multiprocessing.active_children())
    batches = image_batches(files, CROP, batch_size=2, num_workers=2)
    next(batches)
    workers = set(torch.multiprocessing.active_children()) - others
    assert workers
    batches.close()
    assert not [worker for worker in workers if worker.is_alive()]


@pytest.mark.skipif("GENKL_DATA" not in os.environ, reason="needs the clothing data set")
def test_the_photographs_of_the_clothing_data_set_decode():
    folder = Path(os.environ["GENKL_DATA"], "clothing-dataset", "images")
    images = ImageFiles(folder, sorted(path.name for path in folder.iterdir())[:300])
    assert len(check_images(images, num_workers=2, progress=False)) == 0


SMALL = """
import sys
from pathlib import Path
from genkl.data.images import ImageFiles
from genkl.data.loading import image_batches

if __name__ == "__main__":
    files = ImageFiles(Path(sys.argv[1]), [f"{i}.png" for i in range(20)])
    large = lambda image: image[:, :6, :8].float().repeat(1, 60, 60)
    batches = image_batches(files, large, batch_size=5, num_workers=2)
    print(sum(len(rows) for rows, _ in batches))
"""


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a file system")
def test_14_16_small_shared_memory_costs_time_and_no_image(files):
    program = (sys.executable, "-c", SMALL, str(files.root))
    mount = 'mount -t tmpfs -o size=2m tmpfs /dev/shm || exit 77; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *program],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.stderr.startswith(("unshare:", "mount:")):
        pytest.skip(done.stderr)
    assert done.stdout.strip() == "20", done.stderr
    assert "/dev/shm has 2 MB free" in done.stderr
    assert "so there are 0" in done.stderr
