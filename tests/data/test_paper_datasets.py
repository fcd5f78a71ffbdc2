"""The paper's data sets, in miniature: their layouts, their quirks, and their bad lines."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genkl.data.base import Kind
from genkl.data.clothing1m import CLASS_NAMES, load_clothing1m
from genkl.data.food101n import load_food101n
from genkl.data.lists import find_rows, read_keys, read_labels
from genkl.data.sources import DataNotFoundError
from genkl.data.splitting import draw_rows
from genkl.data.webvision import load_mini_webvision
from tests import official_trees
from tests.official_trees import FOODS, clothing_key, grey_of, write_lines

QUIRKS = {"plain": {}, "windows": {"line_end": "\r\n", "start": "\ufeff"}}
REAL_DATA = os.environ.get("GENKL_DATA", "")


@pytest.fixture(autouse=True)
def nothing_of_mine(tmp_path, monkeypatch):
    """No data of this machine is found by accident."""
    monkeypatch.delenv("GENKL_DATA", raising=False)
    monkeypatch.setenv("GENKL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def clothing(tmp_path) -> Path:
    return official_trees.write_clothing1m(tmp_path / "clothing1m")


@pytest.fixture
def food(tmp_path) -> Path:
    official_trees.write_food101(tmp_path / "food-101")
    return official_trees.write_food101n(tmp_path / "Food-101N_release")


@pytest.fixture
def webvision(tmp_path) -> Path:
    return official_trees.write_webvision(tmp_path / "webvision")


def keys_of(split) -> list[str]:
    """What an instance's file is called, relative to its image folder."""
    return [split.inputs.path(row).relative_to(split.inputs.root).as_posix() for row in
            range(len(split))]  # fmt: skip


def labels_of(split) -> dict[str, int]:
    return dict(zip(keys_of(split), split.labels.tolist(), strict=True))


def plain_read(path: Path, separator: str | None = " ") -> dict[str, int] | list[str]:
    """Read a list the slow way."""
    lines = path.read_text("utf-8-sig").split("\n")
    lines = [line.strip().removeprefix("images/") for line in lines if line.strip()]
    if separator is None:
        return lines
    pairs = [line.rsplit(separator, 1) for line in lines]
    return {key: int(label) for key, label in pairs if label.isdigit()}


def assert_every_split_shows_its_images(dataset) -> None:
    """Also: no instance is in two splits, by id and by file."""
    splits = [split for split in dataset.splits().values() if len(split)]
    for split in [*splits, *dataset.more_tests.values()]:
        for row in (0, len(split) - 1):
            image = split.inputs.read(row)
            assert image.shape == (3, 6, 8)
            # Greys were given by key; ILSVRC's folders are not a part of it.
            key = keys_of(split)[row]
            wanted = {grey_of(key), grey_of(key.rpartition("/")[2])}
            assert min(abs(int(image.float().mean().round()) - grey) for grey in wanted) <= 2
    ids = [i for split in splits for i in split.ids.tolist()]
    files = [split.inputs.name(row) for split in splits for row in range(len(split))]
    assert len(ids) == len(set(ids)) == len(set(files))


# -- Clothing1M ----------------------------------------------------------------------------------


@pytest.mark.parametrize("listed_prefix", ["images/", ""])
@pytest.mark.parametrize("image_folder", ["images", "."])
@pytest.mark.parametrize("quirks", QUIRKS)
def test_clothing1m_is_read_with_every_prefix_and_line_end(
    tmp_path, listed_prefix, image_folder, quirks
):
    folder = official_trees.write_clothing1m(
        tmp_path / "clothing1M", listed_prefix=listed_prefix, image_folder=image_folder,
        **QUIRKS[quirks],
    )  # fmt: skip
    dataset, truth = load_clothing1m(data_root=tmp_path)
    given = plain_read(folder / "noisy_label_kv.txt")
    verified = plain_read(folder / "clean_label_kv.txt")
    lists = {"clean": "clean_train", "validation": "clean_val", "test": "clean_test"}
    in_clean = set()
    for split, name in lists.items():
        keys = plain_read(folder / f"{name}_key_list.txt", None)
        assert labels_of(getattr(dataset, split)) == {key: verified[key] for key in keys}
        in_clean |= set(keys)
    noisy = plain_read(folder / "noisy_train_key_list.txt", None)
    assert set(noisy) & in_clean
    assert keys_of(dataset.noisy) == [key for key in noisy if key not in in_clean]
    assert all(given[key] == label for key, label in labels_of(dataset.noisy).items())
    assert_every_split_shows_its_images(dataset)
    assert len(truth) == len(dataset.noisy) == 42


def test_clothing1m_has_its_14_classes_in_the_official_order(clothing):
    dataset, _ = load_clothing1m(data_root=clothing)
    assert dataset.class_names == CLASS_NAMES
    assert [CLASS_NAMES[i] for i in (0, 3, 8, 10, 13)] == [
        "T-Shirt", "Chiffon", "Downcoat", "Shawl", "Underwear",
    ]  # fmt: skip


def test_clothing1m_knows_a_noisy_label_is_right_only_where_it_was_verified(clothing):
    dataset, truth = load_clothing1m(data_root=clothing)
    keys = keys_of(dataset.noisy)
    known = {key: (kind, label) for key, kind, label in
             zip(keys, truth.kinds, truth.labels, strict=True) if kind != Kind.UNKNOWN}  # fmt: skip
    assert known == {
        clothing_key(3): (Kind.CORRECT, 3), clothing_key(4): (Kind.MISLABELLED, 5)
    }  # fmt: skip
    assert (truth.labels[truth.kinds == Kind.UNKNOWN] == -1).all()
    assert np.array_equal(truth.match(dataset.noisy).kinds, truth.kinds)


@pytest.mark.parametrize("place", ["beside the lists", "in the neighbouring folder", "given"])
def test_clothing1m_takes_the_nc_list_from_wherever_it_is(tmp_path, place):
    official_trees.write_clothing1m(tmp_path / "Clothing1M")
    path = {
        "beside the lists": tmp_path / "Clothing1M/NC_instances.txt",
        "in the neighbouring folder": tmp_path / "clothing1m/NC_instances.txt",
        "given": tmp_path / "mine.txt",
    }[place]
    flagged = [clothing_key(number) for number in (2, 3, 40)]
    write_lines(path, [*flagged, flagged[0], ""], "\r\n")
    dataset, truth = load_clothing1m(
        data_root=tmp_path, nc_instances=path if place == "given" else None
    )
    nc = np.flatnonzero(truth.kinds == Kind.NC)
    assert sorted(keys_of(dataset.noisy.take(nc))) == sorted(flagged)
    assert (truth.labels[nc] == -1).all()
    assert truth.is_nc.sum() == 3


@pytest.mark.skipif(
    not REAL_DATA or not (Path(REAL_DATA) / "clothing1m/NC_instances.txt").is_file(),
    reason="the published list of NC instances is not in $GENKL_DATA/clothing1m",
)
def test_every_key_of_the_published_nc_list_is_matched(tmp_path):
    published = Path(REAL_DATA) / "clothing1m/NC_instances.txt"
    keys = plain_read(published, None)
    assert len(set(keys)) == 200
    official_trees.write_clothing1m(tmp_path / "clothing1m", more_noisy=keys)
    dataset, truth = load_clothing1m(data_root=tmp_path, nc_instances=published)
    nc = np.flatnonzero(truth.kinds == Kind.NC)
    assert sorted(keys_of(dataset.noisy.take(nc))) == sorted(keys)


def test_clothing1m_ids_are_lines_whatever_was_drawn(clothing):
    whole, _ = load_clothing1m(data_root=clothing)
    first, truth = load_clothing1m(1, data_root=clothing, noisy_limit=9, clean_limit=14)
    other, _ = load_clothing1m(2, data_root=clothing, noisy_limit=9, clean_limit=14)
    lines = [*plain_read(clothing / "noisy_label_kv.txt")]
    verified = plain_read(clothing / "clean_label_kv.txt")
    lines += [key for key in verified if key not in lines]
    for dataset in (whole, first, other):
        for split in dataset.splits().values():
            assert [lines[i] for i in split.ids.tolist()] == keys_of(split)
    assert len(first.noisy) == len(truth) == 9
    assert first.noisy.ids.tolist() == truth.ids.tolist() != other.noisy.ids.tolist()
    assert sorted(first.clean.labels.tolist()) == list(range(14))


def test_clothing1m_names_are_kept_once_for_all_splits(clothing):
    dataset, _ = load_clothing1m(data_root=clothing)
    names = [split.inputs.names for split in dataset.splits().values()]
    assert all(some is names[0] for some in names)


def test_lists_in_a_folder_of_their_own_are_found(tmp_path):
    official_trees.write_clothing1m(tmp_path / "clothing1m", list_folder="annotations")
    dataset, _ = load_clothing1m(data_root=tmp_path)
    assert len(dataset.noisy) == 42


BAD_CLOTHING_LINES = {
    "no integer": ("noisy_label_kv.txt", 5, "images/a.jpg five", "the label is 'five'; labels are"),
    "out of range": ("clean_label_kv.txt", 7, "images/a,b.jpg 14", "the label is '14'; .* 0 to 13"),
    "negative": ("noisy_label_kv.txt", 2, "images/a,b.jpg -1", "the label is '-1'"),
    "no label": ("noisy_label_kv.txt", 1, "images/a,b.jpg", "there is no label in .* a space"),
    "no such key": ("clean_val_key_list.txt", 3, "images/x.jpg", "x.jpg has no label in clean_l"),
    "no noisy label": ("noisy_train_key_list.txt", 4, "images/x.jpg", "no label in noisy_label_kv"),
    "not verified": (
        "clean_test_key_list.txt", 4, f"images/{clothing_key(0)}", "has no label in clean_label_kv",
    ),
    "two splits": (
        "clean_test_key_list.txt", 6, f"images/{clothing_key(42)}", "also in clean_train_key_list",
    ),
    "two labels": (
        "clean_label_kv.txt", 9, f"{clothing_key(42)} 3", "label 3 here and 5 in line 1; keep",
    ),
    "unknown NC": ("NC_instances.txt", 1, "0/99/x,y.jpg", "in no label list .1 of 1 .*nc_inst"),
    "not UTF-8": ("clean_label_kv.txt", 8, b"images/\xff.jpg 3", "not UTF-8"),
}  # fmt: skip


def spoil(path: Path, line: int, text: str | bytes) -> None:
    """Put a text in a line's place."""
    lines = path.read_bytes().split(b"\n") if path.exists() else [b"", b""]
    lines[line - 1] = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(b"\n".join(lines))


@pytest.mark.parametrize("what", BAD_CLOTHING_LINES)
def test_a_bad_line_of_clothing1m_is_named(clothing, what):
    file, line, text, message = BAD_CLOTHING_LINES[what]
    spoil(clothing / file, line, text)
    with pytest.raises(ValueError, match=rf"{file}:{line}: .*{message}"):
        load_clothing1m(data_root=clothing)


def test_the_same_line_twice_is_no_harm(clothing):
    before, _ = load_clothing1m(data_root=clothing)
    for file in ("clean_label_kv.txt", "clean_train_key_list.txt", "noisy_train_key_list.txt"):
        text = (clothing / file).read_text()
        (clothing / file).write_text(text + text.splitlines()[0] + "\n")
    after, _ = load_clothing1m(data_root=clothing)
    for name, split in before.splits().items():
        assert after.splits()[name].ids.tolist() == split.ids.tolist()


def test_images_that_are_elsewhere_are_missed_before_training(clothing):
    (clothing / "images").rename(clothing / "pictures")
    with pytest.raises(DataNotFoundError) as caught:
        load_clothing1m(data_root=clothing)
    first = clothing_key(0)
    assert str(clothing / "images" / first) in str(caught.value)
    assert f"{clothing / first}; unpack" in str(caught.value)


def test_images_of_one_split_that_are_missing_are_missed_before_training(clothing):
    for key in plain_read(clothing / "clean_test_key_list.txt", None):
        (clothing / "images" / key).unlink()
    with pytest.raises(DataNotFoundError, match=f"there is no .*images/{clothing_key(84)} and"):
        load_clothing1m(data_root=clothing)


def test_one_missing_image_is_found_when_it_is_read_and_not_before(clothing):
    (clothing / "images" / clothing_key(0)).unlink()
    dataset, _ = load_clothing1m(data_root=clothing)
    with pytest.raises(OSError, match="there is no such file"):
        dataset.noisy.inputs.read(0)


def test_without_the_data_set_it_is_said_how_to_get_it(tmp_path):
    for load, words in (
        (load_clothing1m, "Ask its authors"),
        (load_food101n, "Download it"),
        (load_mini_webvision, "Google half"),
    ):
        with pytest.raises(DataNotFoundError, match=words):
            load(data_root=tmp_path)


@pytest.mark.parametrize(
    ("load", "options", "message"),
    [
        (load_clothing1m, {"noisy_limit": 0}, "noisy_limit is 0; pass 1 or more"),
        (load_clothing1m, {"clean_limit": -2}, "clean_limit is -2"),
        (load_food101n, {"noisy_limit": 0}, "noisy_limit is 0"),
        (load_mini_webvision, {"num_classes": 1}, "num_classes is 1; .* 2 to 1000"),
        (load_mini_webvision, {"validation_per_class": -1}, "validation_per_class is -1"),
    ],
)
def test_bad_options_are_named_before_anything_is_read(load, options, message):
    with pytest.raises(ValueError, match=message):
        load(data_root="nowhere", **options)


# -- Food-101N -----------------------------------------------------------------------------------


@pytest.mark.parametrize("quirks", QUIRKS)
def test_food101n_verified_images_are_clean_where_right_and_noisy_where_wrong(tmp_path, quirks):
    official_trees.write_food101(tmp_path / "food-101")
    folder = official_trees.write_food101n(tmp_path / "Food-101N_release", **QUIRKS[quirks])
    dataset, truth = load_food101n(data_root=tmp_path)
    train, val = (plain_read(folder / f"meta/verified_{s}.tsv", "\t") for s in ("train", "val"))
    listed = plain_read(folder / "meta/imagelist.tsv", None)[1:]
    assert dataset.class_names == FOODS
    assert set(keys_of(dataset.clean)) == {key for key in listed if train.get(key) == 1}
    assert set(keys_of(dataset.validation)) == {key for key in listed if val.get(key) == 1}
    left = [key for key in listed if train.get(key) != 1 and val.get(key) != 1]
    assert keys_of(dataset.noisy) == left
    wrong = [train.get(key) == 0 or val.get(key) == 0 for key in left]
    assert (truth.kinds == np.where(wrong, Kind.WRONG, Kind.UNKNOWN)).all()
    assert sum(wrong) == 2 * len(FOODS)
    assert (truth.labels == -1).all()
    assert not truth.is_nc.any()
    for split in dataset.splits().values():
        assert [FOODS[label] for label in split.labels] == [
            key.split("/")[0] for key in keys_of(split)
        ]
    for name in ("clean", "noisy", "validation"):
        split = getattr(dataset, name)
        assert [listed[i] for i in split.ids.tolist()] == keys_of(split)
    assert_every_split_shows_its_images(dataset)


def test_food101_is_the_test_set_with_ids_above_those_of_food101n(food):
    dataset, _ = load_food101n(data_root=food.parent)
    listed = plain_read(food.parent / "food-101/meta/test.txt", None)
    assert keys_of(dataset.test) == [f"{name}.jpg" for name in listed]
    assert dataset.test.ids.tolist() == list(range(9 * len(FOODS), 11 * len(FOODS)))


def test_food101_is_found_beside_food101n_and_where_it_is_said_to_be(food, tmp_path):
    assert len(load_food101n(data_root=food)[0].test) == 10  # the folder itself, Food-101 beside it
    shutil.move(tmp_path / "food-101", tmp_path / "elsewhere" / "food-101")
    with pytest.raises(DataNotFoundError, match="torchvision"):
        load_food101n(data_root=tmp_path)
    dataset, _ = load_food101n(data_root=tmp_path, food101_root=tmp_path / "elsewhere")
    assert len(dataset.test) == 10


def test_food101n_limits_draw_fewer_and_the_truth_follows(food):
    dataset, truth = load_food101n(3, data_root=food, noisy_limit=7, clean_limit=5)
    assert len(dataset.noisy) == 7
    assert truth.ids.tolist() == dataset.noisy.ids.tolist()
    assert sorted(dataset.clean.labels.tolist()) == [0, 1, 2, 3, 4]


BAD_FOOD_LINES = {
    "class": ("meta/imagelist.tsv", 3, "pizza/a.jpg", "'pizza/a.jpg' is none of the 5 classes"),
    "verdict": ("meta/verified_val.tsv", 2, "waffles/a.jpg\t2", "label is '2'; .* 0 to 1"),
    "separator": ("meta/verified_train.tsv", 4, "waffles/a.jpg 1", "there is no label .* a tab"),
    "image": ("meta/verified_val.tsv", 5, "waffles/a.jpg\t1", "waffles/a.jpg is not in meta/im"),
}


@pytest.mark.parametrize("what", BAD_FOOD_LINES)
def test_a_bad_line_of_food101n_is_named(food, what):
    file, line, text, message = BAD_FOOD_LINES[what]
    spoil(food / file, line, text)
    with pytest.raises(ValueError, match=rf"{file}:{line}: .*{message}"):
        load_food101n(data_root=food)


def test_verdicts_that_contradict_each_other_are_named(food):
    listed = (food / "meta/verified_train.tsv").read_text().splitlines()
    key, label = listed[1].split("\t")
    spoil(food / "meta/verified_val.tsv", 3, f"{key}\t{1 - int(label)}")
    with pytest.raises(ValueError, match=r"verified_val.tsv:3: .* has another label in meta/ver"):
        load_food101n(data_root=food)
    spoil(food / "meta/verified_val.tsv", 3, f"{key}\t{label}")  # agreeing, it validates
    dataset, _ = load_food101n(data_root=food)
    assert key in keys_of(dataset.validation)
    assert key not in keys_of(dataset.clean)


def test_food101_must_have_the_same_classes(food):
    path = food.parent / "food-101/meta/test.txt"
    lines = path.read_text().splitlines()
    write_lines(path, [*lines, "pizza/1000"])
    with pytest.raises(ValueError, match=r"test.txt:11: the class of 'pizza/1000' is none of"):
        load_food101n(data_root=food)
    write_lines(path, lines[:-2])
    with pytest.raises(ValueError, match="no image of waffles"):
        load_food101n(data_root=food)


# -- mini WebVision ------------------------------------------------------------------------------


@pytest.mark.parametrize("quirks", QUIRKS)
@pytest.mark.parametrize("image_folder", [".", "train_images_256"])
def test_mini_webvision_takes_the_first_classes_by_label(tmp_path, quirks, image_folder):
    folder = official_trees.write_webvision(
        tmp_path / "webvision", image_folder=image_folder, **QUIRKS[quirks]
    )
    dataset, truth = load_mini_webvision(data_root=tmp_path, validation_per_class=1)
    listed = plain_read(folder / "info/train_filelist_google.txt")
    tests = plain_read(folder / "info/val_filelist.txt")
    assert labels_of(dataset.noisy) | labels_of(dataset.validation) == {
        key: label for key, label in listed.items() if label < 50
    }
    assert labels_of(dataset.test) == {key: label for key, label in tests.items() if label < 50}
    assert np.bincount(dataset.validation.labels).tolist() == [1] * 50
    assert len(dataset.clean) == 0
    assert dataset.class_names[:2] == ("thing 0", "thing 1")
    assert dataset.num_classes == 50
    assert (truth.kinds == Kind.UNKNOWN).all()
    lines = [*listed, *tests]
    for split in (dataset.noisy, dataset.validation, dataset.test):
        assert [lines[i] for i in split.ids.tolist()] == keys_of(split)
    assert truth.ids.tolist() == dataset.noisy.ids.tolist()
    assert_every_split_shows_its_images(dataset)


def test_mini_webvision_options(webvision):
    dataset, _ = load_mini_webvision(
        data_root=webvision, num_classes=3, validation_per_class=0, noisy_limit=5
    )
    assert (dataset.num_classes, len(dataset.validation), len(dataset.noisy)) == (3, 0, 5)
    with pytest.raises(ValueError, match="class 0 has 3 instances left and 20"):
        load_mini_webvision(data_root=webvision)


def test_mini_webvision_without_synsets_numbers_its_classes(tmp_path):
    official_trees.write_webvision(tmp_path / "webvision", synsets=False)
    dataset, _ = load_mini_webvision(data_root=tmp_path, validation_per_class=1)
    assert dataset.class_names[49] == "class 49"
    assert dataset.more_tests == {}


@pytest.mark.parametrize("with_list", [True, False])
@pytest.mark.parametrize("where", ["found", "given", "beside"])
def test_ilsvrc12_is_a_second_test_set(webvision, tmp_path, with_list, where):
    root = tmp_path / "other" if where == "given" else tmp_path
    official_trees.write_ilsvrc12(root / "imagenet", with_list=with_list)
    dataset, _ = load_mini_webvision(
        data_root=webvision if where == "beside" else tmp_path,
        ilsvrc12_root=root if where == "given" else None,
        validation_per_class=1,
    )
    second = dataset.more_tests["ilsvrc12"]
    expected = {i: i * 11 % 60 for i in range(120) if i * 11 % 60 < 50}
    assert dict(zip(second.ids.tolist(), second.labels.tolist(), strict=True)) == expected
    assert_every_split_shows_its_images(dataset)


def test_the_order_of_the_synsets_decides_which_ilsvrc12_folder_is_which_class(webvision, tmp_path):
    lines = (webvision / "info/synsets.txt").read_text().splitlines()
    write_lines(webvision / "info/synsets.txt", lines[::-1])
    expected = {i: 59 - i * 11 % 60 for i in range(120) if i * 11 % 60 >= 10}
    for with_list in (False, True):
        shutil.rmtree(tmp_path / "imagenet", ignore_errors=True)
        official_trees.write_ilsvrc12(tmp_path / "imagenet", with_list=with_list)
        dataset, _ = load_mini_webvision(data_root=tmp_path, validation_per_class=1)
        second = dataset.more_tests["ilsvrc12"]
        assert dict(zip(second.ids.tolist(), second.labels.tolist(), strict=True)) == expected


def test_ilsvrc12_folders_without_synsets_are_not_guessed(tmp_path):
    official_trees.write_webvision(tmp_path / "webvision", synsets=False)
    official_trees.write_ilsvrc12(tmp_path / "imagenet")
    with pytest.raises(ValueError, match=r"60 folders, so which is which .* info/synsets.txt"):
        load_mini_webvision(data_root=tmp_path, validation_per_class=1)


def test_a_folder_val_that_is_not_imagenets_is_left_alone(webvision):
    (webvision / "val").mkdir()
    (webvision.parent / "imagenet/val").mkdir(parents=True)
    for root in (webvision, webvision.parent):
        dataset, _ = load_mini_webvision(data_root=root, validation_per_class=1)
        assert dataset.more_tests == {}
    with pytest.raises(ValueError, match="there are no images of class 0"):
        load_mini_webvision(
            data_root=webvision, ilsvrc12_root=webvision.parent, validation_per_class=1
        )


BAD_WEBVISION_LINES = {
    "label": ("info/train_filelist_google.txt", 4, "google/q1/a.jpg 1000", "'1000'; .* 0 to 999"),
    "synset": ("info/synsets.txt", 2, "goldfish", "'goldfish' should begin with a synset"),
    "no label": ("info/val_filelist.txt", 3, "val000003.jpg", "there is no label in"),
}


@pytest.mark.parametrize("what", BAD_WEBVISION_LINES)
def test_a_bad_line_of_webvision_is_named(webvision, what):
    file, line, text, message = BAD_WEBVISION_LINES[what]
    spoil(webvision / file, line, text)
    with pytest.raises(ValueError, match=rf"{file}:{line}: .*{message}"):
        load_mini_webvision(data_root=webvision, validation_per_class=1)


# -- lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"b a\nc\n", b"b a\r\nc\r\n", b"\xef\xbb\xbfb a\nc", b"b a  \n\n \nc\n\n\n"]
)
def test_keys_are_lines_without_line_ends_marks_and_blanks(tmp_path, content):
    (tmp_path / "list").write_bytes(content)
    listed = read_keys(tmp_path / "list")
    assert listed.keys.to_pylist() == ["b a", "c"]
    assert listed.lines.tolist() == ([1, 4] if b"\n \n" in content else [1, 2])


def test_only_the_last_separator_counts_and_lines_keep_their_numbers(tmp_path):
    (tmp_path / "list").write_text("header\n\nimages/a b, c.jpg  7\nimages/ä.jpg 0\n")
    listed = read_labels(tmp_path / "list", 8, header="head", prefix="images/")
    assert listed.keys.to_pylist() == ["a b, c.jpg", "ä.jpg"]
    assert listed.labels.tolist() == [7, 0]
    assert listed.lines.tolist() == [3, 4]


def test_a_long_list_keeps_the_numbers_of_its_lines(tmp_path):
    lines = [f"images/{i}.jpg {i % 3}" for i in range(100_000)]
    write_lines(tmp_path / "list", lines)
    listed = read_labels(tmp_path / "list", 3, prefix="images/")
    assert listed.keys.to_pylist() == [f"{i}.jpg" for i in range(100_000)]
    assert listed.labels.tolist() == [i % 3 for i in range(100_000)]
    write_lines(tmp_path / "list", [*lines, "7.jpg 1", "8.jpg 3"])
    with pytest.raises(ValueError, match=r"list:100002: the label is '3'"):
        read_labels(tmp_path / "list", 3)


def test_a_prefix_is_taken_off_only_where_it_is(tmp_path):
    write_lines(tmp_path / "list", ["images/a.jpg", "b.jpg", "c/images/d.jpg"])
    keys = read_keys(tmp_path / "list", prefix="images/").keys
    assert keys.to_pylist() == ["a.jpg", "b.jpg", "c/images/d.jpg"]


def test_a_file_without_its_header_loses_no_line(tmp_path):
    (tmp_path / "list").write_text("apple_pie\nwaffles\n")
    assert len(read_keys(tmp_path / "list", header="class_name")) == 2


@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"class_name\n"])
def test_a_list_without_keys_is_refused(tmp_path, content):
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(ValueError, match="list:1: there are no keys"):
        read_keys(tmp_path / "list", header="class_name")


def test_rows_are_those_of_the_first_occurrence():
    keys, among = pa.array(["b", "x", "a"]), pa.array(["a", "b", "a", "b"])
    assert find_rows(keys, among).tolist() == [1, -1, 0]


def test_a_balanced_draw_takes_as_many_of_each_class_as_there_are():
    labels = np.repeat([0, 1, 2], [50, 30, 4])
    rows = np.arange(100, 184)
    drawn = draw_rows(rows, 34, 0, labels)
    assert np.bincount(labels[drawn - 100]).tolist() == [15, 15, 4]
    assert (np.diff(drawn) > 0).all()
    assert draw_rows(rows, 34, 1, labels).tolist() != drawn.tolist()
    assert draw_rows(rows, 1000, 0).tolist() == rows.tolist()
