"""The open data sets: read from miniature copies in their layouts, and from the real ones."""

import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from genkl.data import cifar10, clothing_dataset
from genkl.data.base import Kind
from genkl.data.cifar10 import read_cifar10, read_cifar10_labels
from genkl.data.cifar10h import draw_votes, load_cifar10h, read_cifar10h
from genkl.data.cifar10n import LABELS as N_LABELS
from genkl.data.cifar10n import load_cifar10n, read_cifar10n
from genkl.data.clothing_dataset import CLASS_NAMES, KIND_OF, NOT_RELEASED, load_clothing_dataset
from genkl.data.images import ImageError
from genkl.data.registry import CIFAR10, CIFAR10H, CIFAR10N, CLOTHING_DATASET
from genkl.data.sources import DataNotFoundError, find_data, is_present, unpack
from tests.official_trees import grey_of, write_jpeg, write_lines

REAL_DATA = os.environ.get("GENKL_DATA", "")


def needs_real(source):
    present = bool(REAL_DATA) and is_present(source, REAL_DATA)
    return pytest.mark.skipif(not present, reason=f"{source.title} is not in $GENKL_DATA")


@pytest.fixture(autouse=True)
def nothing_of_mine(tmp_path, monkeypatch):
    """No data of this machine is found by accident."""
    monkeypatch.delenv("GENKL_DATA", raising=False)
    monkeypatch.setenv("GENKL_CACHE", str(tmp_path / "cache"))


def ids_of(dataset) -> list[int]:
    return [i for split in dataset.splits().values() for i in split.ids.tolist()]


# -- Clothing dataset ----------------------------------------------------------------------------

NEEDS = {"clean_per_class": 3, "validation_per_class": 2, "test_per_class": 2}
LABELS = list(KIND_OF)


def write_clothing(folder: Path, line_end: str = "\n") -> Path:
    """40 senders of 12 images each, one of 80, and an image that was never published."""
    rng = np.random.default_rng(5)
    senders = np.concatenate([np.repeat(np.arange(40), 12), np.full(80, 99)])
    frequent = np.tile(np.arange(10), 56)
    labels = np.where(rng.random(560) < 0.7, frequent, rng.integers(10, 20, 560))
    order = rng.permutation(560)
    rows = [f"im-{i:03d},{senders[i]},{LABELS[labels[i]]},{i % 7 == 0}" for i in order]
    rows.insert(100, f"{NOT_RELEASED[0]},3,Skip,False")
    write_lines(folder / "images.csv", ["image,sender_id,label,kids", *rows], line_end)
    for i in order:
        write_jpeg(folder / f"images/im-{i:03d}.jpg", f"im-{i:03d}")
    return folder


def clothing_rows(folder: Path) -> list[list[str]]:
    return [line.split(",") for line in (folder / "images.csv").read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory) -> Path:
    return write_clothing(tmp_path_factory.mktemp("data") / "clothing-dataset")


@pytest.mark.parametrize("seed", range(5))
def test_no_sender_is_in_two_splits_and_every_split_has_enough_of_each_class(wardrobe, seed):
    dataset, truth = load_clothing_dataset(seed, data_root=wardrobe.parent, **NEEDS)
    rows = clothing_rows(wardrobe)
    senders = [{rows[i][1] for i in s.ids.tolist()} for s in dataset.splits().values()]
    assert sum(map(len, senders)) == len(set.union(*senders))
    assert "99" in {rows[i][1] for i in dataset.noisy.ids.tolist()}  # who sent most
    assert torch.bincount(dataset.clean.labels).tolist() == [3] * 10
    for split in (dataset.validation, dataset.test):
        assert torch.bincount(split.labels).min() >= 2
        mine = {rows[i][1] for i in split.ids.tolist()}
        theirs = [i for i, row in enumerate(rows) if row[1] in mine and row[2] in CLASS_NAMES]
        assert sorted(split.ids.tolist()) == theirs  # nothing of theirs is wasted
    for split in (dataset.clean, dataset.validation, dataset.test):
        assert [CLASS_NAMES[i] for i in split.labels] == [rows[i][2] for i in split.ids.tolist()]
    assert truth.ids.tolist() == dataset.noisy.ids.tolist()


def test_what_people_said_is_the_truth_about_clothes(wardrobe):
    dataset, truth = load_clothing_dataset(1, data_root=wardrobe, **NEEDS)
    said = {
        "Not sure": Kind.AMBIGUOUS, "Other": Kind.OOD, "Skip": Kind.NC, "Polo": Kind.OOD,
        "Blouse": Kind.OOD, "Hat": Kind.CORRECT,
    }  # fmt: skip
    labels = np.array([clothing_rows(wardrobe)[i][2] for i in truth.ids])
    for label, kind in said.items():
        assert (truth.kinds[labels == label] == kind).all()
        assert (labels == label).any()
    right = truth.kinds == Kind.CORRECT
    assert [CLASS_NAMES[i] for i in dataset.noisy.labels[right]] == labels[right].tolist()
    assert (truth.labels[truth.is_nc] == -1).all()
    assert (truth.labels[right] == dataset.noisy.labels[right].numpy()).all()


def test_clothes_show_their_own_image(wardrobe):
    dataset, _ = load_clothing_dataset(data_root=wardrobe, **NEEDS)
    rows = clothing_rows(wardrobe)
    for split in dataset.splits().values():
        for at in (0, len(split) - 1):
            image = split.inputs.read(at).float().mean()
            assert abs(image - grey_of(rows[int(split.ids[at])][0])) <= 2


def test_planted_noise_changes_labels_of_conforming_clothes_only(wardrobe):
    plain, before = load_clothing_dataset(2, data_root=wardrobe, **NEEDS)
    _, after = load_clothing_dataset(2, data_root=wardrobe, label_noise=0.3, **NEEDS)
    conforming = (before.kinds == Kind.CORRECT).sum()
    assert (after.kinds == Kind.MISLABELLED).sum() == round(0.3 * conforming)
    assert after.is_nc.sum() == before.is_nc.sum()
    after = after.match(plain.noisy)
    assert np.array_equal(after.labels, before.labels)


@pytest.mark.parametrize(
    ("groups", "kinds"),
    [("doubt", {0, 2, 3, 4}), (["garments"], {0, 3}), ((), {0})],
)
def test_groups_of_non_conforming_clothes_can_be_left_out(wardrobe, groups, kinds):
    _, truth = load_clothing_dataset(data_root=wardrobe, non_conforming=groups, **NEEDS)
    assert set(truth.kinds.tolist()) == kinds


def test_missing_images_of_clothes_are_refused_or_left_out_and_counted(tmp_path, caplog):
    folder = write_clothing(tmp_path / "clothing-dataset", line_end="\r\n")
    gone = [f"im-{i:03d}" for i in range(0, 560, 50)]
    for name in gone:
        (folder / f"images/{name}.jpg").unlink()
    with pytest.raises(DataNotFoundError, match=r"images.csv: 12 of 560 images are not there"):
        load_clothing_dataset(data_root=folder, **NEEDS)
    dataset, _ = load_clothing_dataset(data_root=folder, missing="skip", **NEEDS)
    assert caplog.text.count("12 of 560 images") == 1
    rows = clothing_rows(folder)
    assert not {rows[i][0] for i in ids_of(dataset)} & {*gone, NOT_RELEASED[0]}


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (4, "x,7,Sock,False", "'Sock' in the column 'label' is none of the 20 classes"),
        (9, "x,seven,Hat,False", "the column 'sender_id' has 'seven', not a number"),
        (3, "x,7", "2 columns instead of 4"),
        (2, "x,7,,False", "the column 'label' is empty"),
        (6, f"{NOT_RELEASED[0]},7,Hat,False", "is already in line"),
    ],
)
def test_a_bad_line_about_clothes_is_named(tmp_path, line, text, message):
    lines = ["image,sender_id,label,kids", *(f"i{i},{i},Hat,False" for i in range(9))]
    lines.append(f"{NOT_RELEASED[0]},1,Skip,False")
    lines[line - 1] = text
    write_lines(tmp_path / "images.csv", lines)
    (tmp_path / "images").mkdir()
    at = 11 if "already" in message else line
    with pytest.raises(ValueError, match=rf"images.csv:{at}: .*{message}"):
        load_clothing_dataset(data_root=tmp_path, missing="skip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_noise": 2}, "label_noise is 2"),
        ({"noise_kind": "flip"}, "unknown noise_kind 'flip'"),
        ({"test_per_class": -1}, "test_per_class is -1"),
        ({"test_per_class": 300}, "test_per_class is 300, but too few senders of up to 60"),
        ({"non_conforming": "doubts"}, "unknown group in non_conforming 'doubts'"),
        ({"missing": "warn"}, "unknown missing 'warn'"),
    ],
)
def test_bad_options_about_clothes_are_named(wardrobe, options, message):
    with pytest.raises(ValueError, match=message):
        load_clothing_dataset(data_root=wardrobe, **{**NEEDS, **options})


@needs_real(CLOTHING_DATASET)
def test_the_real_clothes_are_those_that_were_published():
    root = find_data(CLOTHING_DATASET, REAL_DATA)
    names, labels, senders = clothing_dataset.read_clothing_dataset(root)
    assert len(names) == 5403
    counts = dict(zip(LABELS, np.bincount(labels, minlength=20).tolist(), strict=True))
    assert counts["T-Shirt"] == 1011
    assert (counts["Not sure"], counts["Other"], counts["Skip"]) == (228, 67, 12)
    assert counts["Skirt"] == 155
    assert len(clothing_dataset.find_released(root, names, "raise")) == 5398
    for seed in range(20):
        dataset, truth = load_clothing_dataset(seed, data_root=REAL_DATA, label_noise=0.3)
        owners = [set(senders[split.ids.numpy()].tolist()) for split in dataset.splits().values()]
        assert sum(map(len, owners)) == len(set.union(*owners))
        assert len(dataset.noisy) > 3900
        assert torch.bincount(dataset.clean.labels).tolist() == [25] * 10
        assert torch.bincount(dataset.validation.labels).min() >= 15
        assert torch.bincount(dataset.test.labels).min() >= 25
        assert (truth.kinds == Kind.AMBIGUOUS).sum() > 150


# -- CIFAR-10 ------------------------------------------------------------------------------------

TRAIN, TEST = 120, 60
SIZES = {"train": TRAIN, "test": TEST}
SMALL = {"clean_per_class": 2, "validation_per_class": 2}


def cifar_pixels(part: str) -> np.ndarray:
    """(N, 32, 32, 3): a gradient and a noisy patch, another one for each image."""
    rng = np.random.default_rng(len(part))
    pixels = np.repeat(rng.integers(0, 255, (SIZES[part], 4, 4, 3)), 8, axis=1).repeat(8, axis=2)
    return pixels.astype(np.uint8)


def cifar_labels(part: str) -> np.ndarray:
    return np.random.default_rng(SIZES[part]).permutation(np.arange(SIZES[part]) % 10)


def write_parquet(folder: Path, kind: str = "PNG", size: int = 32) -> Path:
    for part in SIZES:
        files = []
        for pixels in cifar_pixels(part)[:, :size, :size]:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, kind, **({} if kind == "PNG" else {"quality": 95}))
            files.append({"bytes": file.getvalue(), "path": None})
        table = pa.table({"img": files, "label": cifar_labels(part)})
        path = folder / f"plain_text/{part}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    return folder


def write_binary(folder: Path) -> Path:
    for part, files in cifar10.BINARY_FILES.items():
        planes = cifar_pixels(part).transpose(0, 3, 1, 2).reshape(SIZES[part], -1)
        rows = np.concatenate([cifar_labels(part)[:, None].astype(np.uint8), planes], axis=1)
        for name, some in zip(files, np.array_split(rows, len(files)), strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            some.tofile(folder / name)
    return folder


def human_labels() -> dict[str, np.ndarray]:
    """As in CIFAR-10N: "worse" is wrong for 48 of 120, the aggregate for 12."""
    true = cifar_labels("train")
    wrong = np.random.default_rng(0).permutation(TRAIN)
    labels = {name: true.copy() for name in ("clean_label", *N_LABELS.values())}
    labels["worse_label"][wrong[:48]] = (true[wrong[:48]] + 1) % 10
    labels["aggre_label"][wrong[:12]] = (true[wrong[:12]] + 1) % 10
    return labels


def human_votes() -> np.ndarray:
    """50 votes each: 6 images are contested, and on 2 most people contradict CIFAR-10."""
    label = cifar_labels("test")
    votes = np.zeros((TEST, 10), np.int64)
    votes[np.arange(TEST), label] = 45
    votes[np.arange(TEST), (label + 1) % 10] = 5
    votes[:6] = 0
    votes[np.arange(6), label[:6]] = 30
    votes[np.arange(6), (label[:6] + 3) % 10] = 20
    votes[6:8] = 0
    votes[[6, 7], (label[6:8] + 5) % 10] = 50
    return votes


def save_human(path: Path, labels: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(labels, path)


@pytest.fixture
def root(tmp_path) -> Path:
    """CIFAR-10 and both sets of human labels, as `python -m genkl data get` puts them."""
    write_binary(tmp_path / "cifar10")
    save_human(tmp_path / "cifar10n/CIFAR-10_human.pt", human_labels())
    (tmp_path / "cifar10h").mkdir()
    np.save(tmp_path / "cifar10h/cifar10h-counts.npy", human_votes())
    return tmp_path


@pytest.mark.parametrize("part", SIZES)
@pytest.mark.parametrize("layout", ["binary", "PNG", "JPEG"])
def test_cifar10_is_the_same_in_every_layout(tmp_path, part, layout):
    folder = tmp_path / "cifar10"
    write_binary(folder) if layout == "binary" else write_parquet(folder, layout)
    images, labels = read_cifar10(part, data_root=tmp_path)
    assert images.shape == (SIZES[part], 3, 32, 32)
    assert images.dtype == torch.uint8
    assert labels.tolist() == cifar_labels(part).tolist()
    off = images.permute(0, 2, 3, 1).numpy().astype(int) - cifar_pixels(part)
    assert abs(off).mean() < (8 if layout == "JPEG" else 1e-9)
    rows = np.array([17, 3, 3, 59])
    some, theirs = read_cifar10(part, rows, data_root=tmp_path)
    assert torch.equal(some, images[rows])
    assert theirs.tolist() == labels[rows].tolist()


def test_what_is_unpacked_from_the_published_archive_is_enough(tmp_path):
    write_binary(tmp_path / "made")
    (tmp_path / "cifar10").mkdir()
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "made/cifar-10-batches-bin", "cifar-10-batches-bin")
    unpack(tmp_path / "archive.tar.gz", tmp_path / "cifar10", CIFAR10.downloads[0].unpack)
    images, _ = read_cifar10("test", [59], data_root=tmp_path)
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), cifar_pixels("test")[59])


def test_the_pickled_version_of_cifar10_is_not_taken(tmp_path):
    pickled = tmp_path / "cifar10/cifar-10-batches-py"
    pickled.mkdir(parents=True)
    for name in ("data_batch_1", "test_batch"):
        (pickled / name).write_bytes(pickle.dumps({b"data": 0}))
    with pytest.raises(DataNotFoundError, match="Python version is not read"):
        read_cifar10("train", data_root=tmp_path)


def test_damaged_files_of_cifar10_are_named(tmp_path):
    binary = write_binary(tmp_path / "a/cifar10")
    path = binary / "cifar-10-batches-bin/test_batch.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"test_batch.bin: 184379 bytes, which is no multiple"):
        read_cifar10("test", data_root=tmp_path / "a")
    path.write_bytes(whole[: 3073 * 2] + b"\x0b" + whole[3073 * 2 + 1 :])
    with pytest.raises(ValueError, match=r"test image 2 has label 11, outside 0..9"):
        read_cifar10_labels("test", tmp_path / "a")
    write_parquet(tmp_path / "b/cifar10", size=16)
    with pytest.raises(ImageError, match="train image 5: 16x16 pixels instead of 32x32"):
        read_cifar10("train", [5], data_root=tmp_path / "b")
    (tmp_path / "b/cifar10/plain_text/test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"test-00000-of-00001.parquet: .*get the file again"):
        read_cifar10("test", data_root=tmp_path / "b")
    path = tmp_path / "b/cifar10/plain_text/train-00000-of-00001.parquet"
    table = pa.table({"img": [{"bytes": b"\x89PNG no", "path": None}], "label": [0]})
    pq.write_table(table, path)
    with pytest.raises(ImageError, match="train image 0: this is not an image"):
        read_cifar10("train", data_root=tmp_path / "b")


def test_a_damaged_image_that_nobody_asked_for_does_no_harm(tmp_path):
    write_parquet(tmp_path / "cifar10")
    path = tmp_path / "cifar10/plain_text/train-00000-of-00001.parquet"
    table = pq.read_table(path).to_pylist()
    table[7]["img"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(table), path)
    read_cifar10("train", [6, 8], data_root=tmp_path)
    with pytest.raises(ImageError, match="image 7"):
        read_cifar10("train", [6, 7], data_root=tmp_path)


# -- CIFAR-10N -----------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["worst", "aggregate", "random2"])
def test_cifar10n_is_noisy_where_people_were_wrong(root, labels):
    dataset, truth = load_cifar10n(1, data_root=root, labels=labels, **SMALL)
    human = human_labels()
    ids = dataset.noisy.ids.numpy()
    assert sorted(ids_of(dataset)) == list(range(TRAIN + TEST))
    assert (dataset.noisy.labels.numpy() == human[N_LABELS[labels]][ids]).all()
    assert (truth.labels == human["clean_label"][ids]).all()
    wrong = dataset.noisy.labels.numpy() != truth.labels
    assert np.array_equal(wrong, truth.kinds == Kind.MISLABELLED)
    assert wrong.any() == (labels != "random2")
    for split in (dataset.clean, dataset.validation):
        assert torch.bincount(split.labels).tolist() == [2] * 10
        assert (split.labels.numpy() == human["clean_label"][split.ids.numpy()]).all()


def test_cifar10_ids_lead_back_to_the_image(root):
    for load in (load_cifar10n, load_cifar10h):
        dataset, _ = load(3, data_root=root, test_per_class=3, noisy_limit=20, **SMALL)
        every = np.concatenate([cifar_pixels("train"), cifar_pixels("test")])
        label = np.concatenate([cifar_labels("train"), cifar_labels("test")])
        for name, split in dataset.splits().items():
            there = split.inputs.permute(0, 2, 3, 1).numpy()
            assert np.array_equal(there, every[split.ids.numpy()])
            if name != "noisy":
                assert np.array_equal(split.labels.numpy(), label[split.ids.numpy()])
        assert len(dataset.noisy) == 20
        assert torch.bincount(dataset.test.labels).tolist() == [3] * 10


def test_a_limit_changes_no_images_label(root):
    options = {"data_root": root, "held_out": ("cat", "frog"), **SMALL}
    whole, _ = load_cifar10n(4, **options)
    fewer, truth = load_cifar10n(4, noisy_limit=30, **options)
    given = dict(zip(whole.noisy.ids.tolist(), whole.noisy.labels.tolist(), strict=True))
    assert [given[i] for i in fewer.noisy.ids.tolist()] == fewer.noisy.labels.tolist()
    assert len(fewer.noisy) == len(truth) == 30


def test_held_out_classes_are_ood_in_the_noisy_split_and_nowhere_else(root):
    dataset, truth = load_cifar10n(data_root=root, held_out=("cat", "frog"), **SMALL)
    assert dataset.class_names == (
        "airplane", "automobile", "bird", "deer", "dog", "horse", "ship", "truck",
    )  # fmt: skip
    true = np.concatenate([cifar_labels("train"), cifar_labels("test")])
    names = {
        name: [cifar10.CLASS_NAMES[label] for label in true[split.ids.numpy()]]
        for name, split in dataset.splits().items()
    }
    assert np.array_equal(truth.kinds == Kind.OOD, np.isin(names["noisy"], ("cat", "frog")))
    assert (truth.labels[truth.is_nc] == -1).all()
    for name in ("clean", "validation", "test"):
        labels = getattr(dataset, name).labels
        assert [dataset.class_names[label] for label in labels] == names[name]
    # "worse" labels are the next class: a bird's said "cat", which is no class any more.
    human = human_labels()["worse_label"][dataset.noisy.ids.numpy()]
    redrawn = np.isin(human, (3, 6)) & ~truth.is_nc
    assert redrawn.any()
    assert (truth.kinds[redrawn] == Kind.MISLABELLED).all()
    wrong = dataset.noisy.labels.numpy() != truth.labels
    assert np.array_equal(wrong & ~truth.is_nc, truth.kinds == Kind.MISLABELLED)


def test_held_out_images_can_keep_the_known_label_that_somebody_gave(root):
    options = {"data_root": root, "held_out": ("cat", "frog"), **SMALL}
    drawn, before = load_cifar10n(3, **options)
    people, told = load_cifar10n(3, held_out_labels="human", **options)
    assert before.source.endswith("; strangers' labels: random")
    assert told.source.endswith("; strangers' labels: human")
    # The chosen label is the next class where it is wrong, the single ones are all right, so that
    # a known label was given to a cat or a frog where "worse" is wrong, and only there.
    ids = people.noisy.ids.numpy()[told.kinds == Kind.OOD]
    worse, true = human_labels()["worse_label"], cifar_labels("train")
    every = drawn.noisy.ids.numpy()[before.kinds == Kind.OOD]
    assert set(ids) == {i for i in every if worse[i] != true[i]}
    assert 0 < len(ids) < len(every)
    names = [people.class_names[label] for label in people.noisy.labels[told.kinds == Kind.OOD]]
    assert names == [cifar10.CLASS_NAMES[worse[i]] for i in ids]
    given = dict(zip(drawn.noisy.ids.tolist(), drawn.noisy.labels.tolist(), strict=True))
    plain = told.kinds != Kind.OOD
    assert people.noisy.labels[plain].tolist() == [given[i] for i in told.ids[plain]]
    single = {**human_labels(), "random_label2": np.zeros(TRAIN, int)}
    save_human(root / "cifar10n/CIFAR-10_human.pt", single)
    all_, _ = load_cifar10n(3, held_out_labels="human", labels="random1", **options)
    assert set(all_.noisy.ids.tolist()) == set(drawn.noisy.ids.tolist())  # a second person did


def test_labels_for_images_in_another_order_are_refused(root):
    labels = human_labels()
    true = labels["clean_label"]
    other = next(i for i in range(8, TRAIN) if true[i] != true[7])
    true[[7, other]] = true[[other, 7]]
    save_human(root / "cifar10n/CIFAR-10_human.pt", labels)
    with pytest.raises(ValueError, match=rf"clean_label\[7\] is {true[7]}, but .* 7 has label"):
        load_cifar10n(data_root=root)
    save_human(root / "cifar10n/CIFAR-10_human.pt", {k: v[:-1] for k, v in human_labels().items()})
    with pytest.raises(ValueError, match="119 labels for CIFAR-10's 120 training images"):
        load_cifar10n(data_root=root)


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_cifar10n_is_read_whichever_numpy_wrote_it(tmp_path, module):
    path = tmp_path / "CIFAR-10_human.pt"
    save_human(tmp_path / "new.pt", human_labels())
    with zipfile.ZipFile(tmp_path / "new.pt") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            changed = data.replace(b"numpy._core.multi", f"{module}.multi".encode())
            assert (changed != data) == (module == "numpy.core" and name.endswith("data.pkl"))
            new.writestr(name, changed)
    found = read_cifar10n(tmp_path)
    assert found["worst"].tolist() == human_labels()["worse_label"].tolist()


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"echo got you > {self.marker}",)


def test_a_malicious_file_is_refused_and_nothing_in_it_runs(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "CIFAR-10_human.pt"
    save_human(path, {**human_labels(), "worse_label": Evil(marker)})
    with pytest.raises(ValueError, match=r"system\); nothing in it was run. Delete it and get the"):
        read_cifar10n(tmp_path)
    path.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(ValueError, match=r"no file of PyTorch's, .* get the official file"):
        read_cifar10n(tmp_path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()  # what an ordinary reader would have done


def test_reading_cifar10n_leaves_pytorchs_own_list_of_what_is_safe_alone(root):
    before = set(torch.serialization.get_safe_globals())
    read_cifar10n(root)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"worse_label": np.zeros((2, 2), int)}, "no array of integers 'worse_label'"),
        ({"worse_label": np.zeros(TRAIN)}, "more in it than arrays of integers"),
        ({"worse_label": None}, "no array of integers 'worse_label'"),
        ({"random_label3": np.full(TRAIN, 10)}, "random_label3 is empty or has a label outside"),
        ({"aggre_label": np.zeros(3, int)}, "arrays of different lengths"),
        ({"clean_label": [1, 2]}, "no array of integers 'clean_label'"),
    ],
)
def test_arrays_that_cannot_be_labels_are_refused(root, change, message):
    save_human(root / "cifar10n/CIFAR-10_human.pt", {**human_labels(), **change})
    with pytest.raises(ValueError, match=message):
        read_cifar10n(root)


@pytest.mark.parametrize("content", [b"", b"404: Not Found", b"PK\x03\x04"])
def test_what_is_no_file_of_labels_is_refused_with_a_remedy(tmp_path, content):
    (tmp_path / "CIFAR-10_human.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"CIFAR-10_human.pt: .* get the official file again"):
        read_cifar10n(tmp_path)


# -- CIFAR-10H -----------------------------------------------------------------------------------


def test_cifar10h_is_ambiguous_where_people_disagree(root):
    dataset, truth = load_cifar10h(data_root=root, test_per_class=2, **SMALL)
    assert truth.ids.tolist() == dataset.noisy.ids.tolist() == list(range(TRAIN, TRAIN + TEST))
    assert (truth.kinds[:6] == Kind.AMBIGUOUS).all()
    assert (truth.kinds[6:8] == Kind.UNKNOWN).all()
    assert (truth.labels[:8] == -1).all()
    given, label = dataset.noisy.labels.numpy(), cifar_labels("test")
    assert (truth.labels[8:] == label[8:]).all()
    assert np.array_equal(given[8:] == label[8:], truth.kinds[8:] == Kind.CORRECT)
    assert set(truth.kinds[8:].tolist()) == {Kind.CORRECT, Kind.MISLABELLED}
    _, lenient = load_cifar10h(data_root=root, test_per_class=2, ambiguous_below=0.5, **SMALL)
    assert not lenient.is_nc.any()
    _, strict = load_cifar10h(data_root=root, test_per_class=2, ambiguous_below=0.95, **SMALL)
    assert strict.is_nc.sum() == TEST - 2


def test_a_given_label_is_a_vote_in_proportion():
    counts = np.tile([0, 30, 0, 20, 1], (20_000, 1))
    drawn = draw_votes(counts, np.random.default_rng(0))
    shares = np.bincount(drawn, minlength=5) / len(drawn)
    assert shares == pytest.approx([0, 30 / 51, 0, 20 / 51, 1 / 51], abs=0.01)
    assert shares[0] == shares[2] == 0


def test_votes_that_do_not_fit_are_refused(root):
    np.save(root / "cifar10h/cifar10h-counts.npy", np.roll(human_votes(), 1, axis=1))
    with pytest.raises(ValueError, match="60 images don't fit CIFAR-10's 60 test images"):
        load_cifar10h(data_root=root)
    np.save(root / "cifar10h/cifar10h-counts.npy", human_votes() * 0)
    with pytest.raises(ValueError, match="image 0 has no votes"):
        read_cifar10h(root)
    np.save(root / "cifar10h/cifar10h-counts.npy", human_votes() / 50)
    with pytest.raises(ValueError, match=r"float64; expected integers \(N, 10\)"):
        read_cifar10h(root)


def test_votes_are_never_unpickled(root, tmp_path):
    marker = tmp_path / "marker"
    np.save(root / "cifar10h/cifar10h-counts.npy", np.array([Evil(marker)]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"no plain NumPy array .* get the official file"):
        read_cifar10h(root)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("load", "options", "message"),
    [
        (load_cifar10n, {"labels": "worse"}, "unknown labels 'worse'; choose one of: worst"),
        (load_cifar10n, {"held_out_labels": "cat"}, "unknown held_out_labels 'cat'"),
        (load_cifar10n, {"held_out": ("cat", "sock")}, "unknown class in held_out 'sock'"),
        (load_cifar10n, {"held_out": cifar10.CLASS_NAMES[1:]}, "held_out leaves 1 classes"),
        (load_cifar10n, {"noisy_limit": 0}, "noisy_limit is 0"),
        (load_cifar10n, {"clean_per_class": -1}, "clean_per_class is -1"),
        (load_cifar10h, {"ambiguous_below": 80}, "ambiguous_below is 80"),
        (load_cifar10h, {"test_per_class": -3}, "test_per_class is -3"),
    ],
)
def test_bad_options_are_named_before_anything_is_read(load, options, message):
    with pytest.raises(ValueError, match=message):
        load(data_root="nowhere", **options)


def test_human_labels_without_cifar10_say_what_is_missing(root):
    for file in (root / "cifar10/cifar-10-batches-bin").iterdir():
        file.unlink()
    for load in (load_cifar10n, load_cifar10h):
        with pytest.raises(DataNotFoundError, match=r"CIFAR-10 is not on this machine"):
            load(data_root=root)


@needs_real(CIFAR10)
@needs_real(CIFAR10N)
def test_the_real_cifar10n_has_its_published_noise_rates():
    human = read_cifar10n(REAL_DATA)
    rates = {name: (labels != human["true"]).mean() for name, labels in human.items()}
    assert rates["worst"] == pytest.approx(0.4021, abs=1e-4)
    assert rates["aggregate"] == pytest.approx(0.0901, abs=1e-4)
    for name in ("random1", "random2", "random3"):
        assert 0.17 < rates[name] < 0.185
    options = {"data_root": REAL_DATA, "test_per_class": 10, "noisy_limit": 500}
    dataset, truth = load_cifar10n(0, **options)
    assert len(human["true"]) == 50_000
    assert np.array_equal(truth.labels, human["true"][dataset.noisy.ids.numpy()])
    assert 0.3 < (truth.kinds == Kind.MISLABELLED).mean() < 0.5


@needs_real(CIFAR10)
@needs_real(CIFAR10H)
def test_the_real_cifar10h_has_its_published_ambiguity():
    counts, shares = read_cifar10h(REAL_DATA)
    assert counts.shape == (10_000, 10)
    assert 47 <= counts.sum(axis=1).min() <= counts.sum(axis=1).max() <= 63
    assert [(shares.max(axis=1) < share).sum() for share in (0.8, 0.6)] == [603, 172]
    label = read_cifar10_labels("test", REAL_DATA)
    assert (counts.argmax(axis=1) != label).sum() == 79
    _, truth = load_cifar10h(data_root=REAL_DATA, test_per_class=5, **SMALL)
    assert (truth.kinds == Kind.AMBIGUOUS).sum() == 603
    assert (truth.kinds == Kind.UNKNOWN).sum() == 6


@needs_real(CIFAR10)
def test_a_real_image_is_what_pillow_makes_of_it():
    folder = find_data(CIFAR10, REAL_DATA)
    path = folder / cifar10.PARQUET_FILES["test"]
    if not path.is_file():
        pytest.skip("not the Parquet files")
    rows = [0, 4321, 9999]
    images, _ = read_cifar10("test", rows, data_root=folder)
    column = pq.read_table(path)["img"]
    for image, row in zip(images, rows, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(column[row].as_py()["bytes"])).convert("RGB"))
        assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)
