"""Your own data: folders, tables and arrays become splits, and a bad line is named."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genkl.data.arrays import dataset_from_arrays
from genkl.data.base import Kind
from genkl.data.folder import load_folder, scan_images
from genkl.data.images import ImageFiles, ImageTensor
from genkl.data.sources import DataNotFoundError
from genkl.data.splitting import divide_by_shares, divide_groups
from tests.official_trees import grey_of, write_jpeg, write_lines

CLASSES = ("coat", "dress", "shirt")


def write_photos(folder: Path, rows: list[str], *, header: str = "image,label,verified", **how):
    """A table and the images that it lists."""
    write_lines(folder / "labels.csv", [header, *rows], **how)
    for row in rows:
        name = row.split(",")[0].strip()
        if Path(name).suffix and not name.startswith('"'):
            write_jpeg(folder / name, name)
    return folder


def example_rows(verified_of: int = 3) -> list[str]:
    """60 images of 5 shops; every so many are verified, one in four of them as another class."""
    rows = []
    for i in range(60):
        label = CLASSES[i % 3]
        verified = ""
        if i // 3 % verified_of == 0:
            verified = CLASSES[(i + 1) % 3] if i % 4 == 0 else label
        rows.append(f"shop{i % 5}/{i:02d}.jpg,{label},{verified}")
    return rows


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), example_rows())


def rows_of(folder: Path) -> list[list[str]]:
    return [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()[1:]]


def test_verified_images_are_divided_and_the_others_are_noisy(photos):
    dataset, truth = load_folder(folder=photos, labels="labels.csv")
    rows = rows_of(photos)
    assert dataset.class_names == CLASSES
    for split in (dataset.clean, dataset.validation, dataset.test):
        assert [CLASSES[i] for i in split.labels] == [rows[i][2] for i in split.ids.tolist()]
    noisy = dataset.noisy.ids.tolist()
    assert noisy == [i for i, row in enumerate(rows) if not row[2]]
    assert [CLASSES[i] for i in dataset.noisy.labels] == [rows[i][1] for i in noisy]
    assert (truth.kinds == Kind.UNKNOWN).all()
    assert (truth.labels == -1).all()
    assert truth.ids.tolist() == noisy
    assert sum(map(len, dataset.splits().values())) == 60
    for split in dataset.splits().values():
        image = split.inputs.read(0).float().mean()
        assert abs(image - grey_of(rows[int(split.ids[0])][0])) <= 2


def test_each_class_is_divided_by_the_same_shares(tmp_path):
    rows = [f"{i}.jpg,{CLASSES[i % 3]},{CLASSES[i % 3]}" for i in range(60)]
    write_photos(tmp_path, [*rows, "other.jpg,coat,"])
    dataset, _ = load_folder(
        folder=tmp_path, labels="labels.csv", clean_share=0.5, validation_share=0.2
    )
    for name, count in (("clean", 10), ("validation", 4), ("test", 6)):
        assert torch.bincount(getattr(dataset, name).labels).tolist() == [count] * 3
    other, _ = load_folder(1, folder=tmp_path, labels="labels.csv", clean_share=0.5,
                           validation_share=0.2)  # fmt: skip
    assert other.clean.ids.tolist() != dataset.clean.ids.tolist()


def test_verified_images_that_stay_in_the_noisy_split_are_known_to_the_truth(photos):
    dataset, truth = load_folder(
        folder=photos, labels="labels.csv", clean_share=0.2, validation_share=0.2, test_share=0.2
    )
    rows = rows_of(photos)
    known = np.flatnonzero(truth.is_known)
    assert len(known) == sum(bool(row[2]) for row in rows) - sum(
        len(getattr(dataset, name)) for name in ("clean", "validation", "test")
    )
    assert {Kind.CORRECT, Kind.MISLABELLED} == set(truth.kinds[known].tolist())
    for at in known.tolist():
        _, label, verified = rows[truth.ids[at]]
        assert CLASSES[dataset.noisy.labels[at]] == label
        assert CLASSES[truth.labels[at]] == verified
        assert (truth.kinds[at] == Kind.CORRECT) == (label == verified)


def test_images_of_no_class_are_in_the_noisy_split_as_non_conforming(tmp_path):
    rows = example_rows()
    rows[5] = rows[5].rpartition(",")[0] + ",none"
    rows[8] = rows[8].rpartition(",")[0] + ",none"
    write_photos(tmp_path, rows)
    dataset, truth = load_folder(folder=tmp_path, labels="labels.csv", non_conforming_name="none")
    assert truth.ids[truth.is_nc].tolist() == [5, 8]
    assert (truth.kinds[truth.is_nc] == Kind.NC).all()
    assert dataset.class_names == CLASSES
    with pytest.raises(ValueError, match=r"labels.csv:7: 'none' in the column 'verified' is none "
                       r"of the 3 classes .*non_conforming_name="):  # fmt: skip
        load_folder(folder=tmp_path, labels="labels.csv")
    with pytest.raises(ValueError, match="non_conforming_name is 'coat', which is a class"):
        load_folder(folder=tmp_path, labels="labels.csv", non_conforming_name="coat")


def test_without_any_verified_label_there_is_a_noisy_split_only(tmp_path):
    write_photos(tmp_path, ["a.jpg,x", "b.jpg,y"], header="image,label")
    dataset, truth = load_folder(folder=tmp_path, labels="labels.csv")
    assert {name: len(split) for name, split in dataset.splits().items()} == {
        "clean": 0, "noisy": 2, "validation": 0, "test": 0,
    }  # fmt: skip
    assert truth.source == "nobody verified it"
    with pytest.raises(ValueError, match="the clean split of folder is empty"):
        dataset.require("clean")


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_splits(tmp_path, seed, caplog):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, 60)
    groups = np.repeat(np.arange(60), sizes)
    rows = [
        f"{i}.jpg,{CLASSES[i % 3]},{CLASSES[i % 3] if group < 40 and i % 5 else ''},p{group}"
        for i, group in enumerate(groups)
    ]
    write_photos(tmp_path, rows, header="image,label,verified,person")
    with caplog.at_level(logging.INFO):
        dataset, truth = load_folder(
            seed, folder=tmp_path, labels="labels.csv", group_column="person", clean_share=0.3,
            validation_share=0.2, test_share=0.3,
        )  # fmt: skip
    owners = [set(groups[split.ids.numpy()].tolist()) for split in dataset.splits().values()]
    assert sum(map(len, owners)) == len(set.union(*owners))
    in_splits = sum(map(len, dataset.splits().values()))
    assert f"{len(rows) - in_splits} images left out" in caplog.text
    verified = sum(bool(row.split(",")[2]) for row in rows)
    wanted = {"clean": 0.3, "validation": 0.2, "test": 0.3}
    for name, share in wanted.items():
        counts = torch.bincount(getattr(dataset, name).labels, minlength=3).numpy()
        assert counts == pytest.approx(share * verified / 3, abs=4)
    assert truth.is_known.sum() == pytest.approx(0.2 * verified, abs=12)


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(0, 100))
def test_divided_counts_are_exact_up_to_rounding(labels, seed):
    labels, shares = np.array(labels, dtype=np.int64), (0.4, 0.3, 0.1)
    parts = divide_by_shares(labels, shares, np.random.default_rng(seed))
    for label in np.unique(labels):
        counts = np.bincount(parts[labels == label], minlength=4)
        assert (abs(counts - np.array([0.4, 0.3, 0.1, 0.2]) * (labels == label).sum()) < 1).all()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60))
def test_a_group_has_one_part_and_an_empty_share_gets_none(pairs):
    labels, groups = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    names, parts = divide_groups(labels, groups, (0.6, 0.0, 0.4), np.random.default_rng(0))
    assert names.tolist() == sorted(set(groups.tolist()))
    assert set(parts.tolist()) <= {0, 2}


def test_tables_of_every_kind_are_read(tmp_path):
    rows = ['"a,1.jpg",2, 10 ', "b.jpg,10,", "", " c.jpg ,2,", "d.jpg,10,2.0", "e.jpg,2,"]
    write_photos(tmp_path, rows, start="\ufeff", line_end="\r\n")
    for name in ("a,1.jpg", "c.jpg"):
        write_jpeg(tmp_path / name, name)
    dataset, truth = load_folder(
        folder=tmp_path, labels="labels.csv", clean_share=0, validation_share=0, test_share=0
    )
    assert dataset.class_names == ("2", "10")  # by number
    assert dataset.noisy.labels.tolist() == [0, 1, 0, 1, 0]
    assert truth.labels.tolist() == [1, -1, -1, 0, -1]
    text = (tmp_path / "labels.csv").read_text("utf-8-sig")
    (tmp_path / "labels.tsv").write_text(text.replace('"a,1.jpg"', "a;1.jpg").replace(",", "\t")
                                         .replace("a;1", "a,1"))  # fmt: skip
    again, _ = load_folder(folder=tmp_path, labels=str(tmp_path / "labels.tsv"))
    assert again.class_names == ("2", "10")
    numbered, truth = load_folder(
        folder=tmp_path, labels="labels.csv", class_names=[f"class {i}" for i in range(11)],
        clean_share=0, validation_share=0, test_share=0,
    )  # fmt: skip
    assert numbered.noisy.labels.tolist() == [2, 10, 2, 10, 2]
    assert truth.labels.tolist() == [10, -1, -1, 2, -1]


def test_columns_can_have_other_names(tmp_path):
    write_photos(tmp_path, ["a.jpg,x,z", "b.jpg,y,x"], header="file,found,checked")
    names = {"image_column": "file", "label_column": "found"}
    dataset, truth = load_folder(
        folder=tmp_path, labels="labels.csv", verified_column="checked", **names,
        class_names=("x", "y", "z"), clean_share=0, validation_share=0, test_share=0,
    )  # fmt: skip
    assert truth.labels.tolist() == [2, 0]
    dataset, _ = load_folder(folder=tmp_path, labels="labels.csv", **names)
    assert len(dataset.noisy) == 2
    with pytest.raises(ValueError, match=r"labels.csv:1: there is no column 'seen'; it has 'file'"):
        load_folder(folder=tmp_path, labels="labels.csv", verified_column="seen", **names)


def test_a_verified_image_needs_no_given_label_unless_it_stays_in_the_noisy_split(tmp_path, caplog):
    rows = ["a.jpg,,x", "b.jpg,x,", "c.jpg,y,", "d.jpg,,y"]
    write_photos(tmp_path, rows)
    dataset, _ = load_folder(folder=tmp_path, labels="labels.csv")
    assert sorted(dataset.clean.ids.tolist()) == [0, 3]
    dataset, _ = load_folder(
        folder=tmp_path, labels="labels.csv", clean_share=0, validation_share=0, test_share=0
    )
    assert dataset.noisy.ids.tolist() == [1, 2]
    assert "2 images have no given label; left out" in caplog.text


BAD_TABLES = {
    "unknown verified class": ("c.jpg,x,q", "'q' in the column 'verified' is none of the 2 cl"),
    "twice": ("a.jpg,x,", "'a.jpg' is already in line 2"),
    "no label": ("c.jpg,,", "the column 'label' is empty; give the image a label"),
    "no image": (",x,", "the column 'image' is empty"),
    "too many columns": ("c,1.jpg,x,", "4 columns instead of 3; put values that hold a comma"),
}


@pytest.mark.parametrize("what", BAD_TABLES)
def test_a_bad_line_is_named(tmp_path, what):
    line, message = BAD_TABLES[what]
    write_photos(tmp_path, ["a.jpg,x,", "", "b.jpg,y,x", "", line, "d.jpg,x,"], line_end="\r\n")
    with pytest.raises(ValueError, match=rf"labels.csv:6: .*{message}"):
        load_folder(folder=tmp_path, labels="labels.csv", missing="skip")


def test_a_label_that_is_no_class_is_named_where_the_classes_are_given(tmp_path):
    write_photos(tmp_path, ["a.jpg,0,", "b.jpg,2,", "c.jpg,1,"])
    with pytest.raises(ValueError, match=r"labels.csv:3: '2' in the column 'label' is none of the"):
        load_folder(folder=tmp_path, labels="labels.csv", class_names=("x", "y"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "labels.csv is empty"),
        (b"image,label\n", "labels.csv has a header and no lines"),
        (b"image,label\na.jpg,x\nb.jpg,\xff\n", "labels.csv:3: not UTF-8"),
        (b"image,label\na.jpg,x\nb.jpg,x\n", "labels.csv: the column 'label' holds 1 class names"),
        (b"image,label,label\na.jpg,x,y\n", "labels.csv:1: there are 2 columns 'label'"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, content, message):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_folder(folder=tmp_path, labels="labels.csv")


def test_missing_images_are_refused_with_their_count_or_left_out(tmp_path, caplog):
    write_photos(tmp_path, example_rows())
    for i in (0, 3, 10, 11):
        (tmp_path / f"shop{i % 5}/{i:02d}.jpg").unlink()
    with pytest.raises(DataNotFoundError, match=r"4 of 60 images .*00.jpg, .*03.jpg, .*10.jpg, \.\."
                       r"\.\).*missing=\"skip\""):  # fmt: skip
        load_folder(folder=tmp_path, labels="labels.csv")
    dataset, _ = load_folder(folder=tmp_path, labels="labels.csv", missing="skip")
    ids = {i for split in dataset.splits().values() for i in split.ids.tolist()}
    assert ids == set(range(60)) - {0, 3, 10, 11}
    assert caplog.text.count("4 of 60 images") == 1
    with pytest.raises(DataNotFoundError, match=r"60 of 60 .* paths are relative to folder="):
        load_folder(folder=tmp_path / "shop1", labels=tmp_path / "labels.csv", missing="skip")


def test_a_listed_file_counts_as_there_however_it_is_written(tmp_path):
    write_photos(tmp_path / "in", ["./a.jpg,x,", "../out/b.jpg,y,", "c.tif,y,", ".d.jpg,x,"])
    dataset, _ = load_folder(folder=tmp_path / "in", labels="labels.csv")
    assert len(dataset.noisy) == 4


@pytest.mark.parametrize(
    "other", ["./a.jpg", "in//a.jpg", r"in\a.jpg", r".\in\.\a.jpg", "x/../in/a.jpg"]
)
def test_an_image_under_two_names_counts_once(tmp_path, other):
    name = "a.jpg" if "in" not in other else "in/a.jpg"
    write_photos(tmp_path, [f"{name},x", "b.jpg,y"], header="image,label")
    with (tmp_path / "labels.csv").open("a") as table:
        table.write(f"{other},y\n")
    with pytest.raises(ValueError, match=rf"labels.csv:4: '{name}' is already in line 2; keep one"):
        load_folder(folder=tmp_path, labels="labels.csv")


def test_back_slashes_of_another_system_are_read(tmp_path):
    write_photos(tmp_path, ["in/a.jpg,x", "in/b.jpg,y"], header="image,label")
    write_lines(tmp_path / "labels.csv", ["image,label", r"in\a.jpg,x", r"in\b.jpg,y"])
    dataset, _ = load_folder(folder=tmp_path, labels="labels.csv")
    assert dataset.noisy.inputs.read(1).shape[0] == 3


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("NaN", "labels.csv: the column 'label' holds 'NaN', which says that there is no value"),
        ("N/A", "holds 'N/A'"),
        ("None", "holds 'None'"),
        ("Dress DRESS", "holds 'Dress' and 'DRESS', two classes or one; correct it, or pass class"),
        ("caf\u00e9 cafe\u0301", "two classes or one"),
        ("1 01", "holds '1' and '01', two"),
    ],
)
def test_labels_that_mean_nothing_or_the_same_are_no_classes(tmp_path, labels, said):
    labels = [*labels.split(), "coat"]
    rows = [f"{i}.jpg,{label}" for i, label in enumerate(labels)]
    write_photos(tmp_path, rows, header="image,label")
    with pytest.raises(ValueError, match=said):
        load_folder(folder=tmp_path, labels="labels.csv")
    both, _ = load_folder(folder=tmp_path, labels="labels.csv", class_names=labels)  # as it says
    assert len(both.class_names) == len(labels)


def test_folders_whose_names_differ_in_case_only_are_no_two_classes(tmp_path):
    for name in ("Dress/1.jpg", "DRESS/2.jpg"):
        write_jpeg(tmp_path / name, name)
    with pytest.raises(ValueError, match=r"sub-folders holds .*Dress"):
        load_folder(folder=tmp_path)


def test_minus_one_is_no_label(tmp_path, caplog):
    rows = ["a.jpg,0,", "b.jpg,-1,1", "c.jpg,-1,-1", "d.jpg,1,-1", "e.jpg,1,"]
    write_photos(tmp_path, rows)
    dataset, _ = load_folder(folder=tmp_path, labels="labels.csv")
    assert dataset.class_names == ("0", "1")
    assert dataset.noisy.ids.tolist() == [0, 3, 4]
    assert (
        dataset.clean.ids.tolist() + dataset.test.ids.tolist() + dataset.validation.ids.tolist()
        == [1]
    )
    assert "1 images have no given label" in caplog.text
    named, _ = load_folder(folder=tmp_path, labels="labels.csv", class_names=("-1", "0", "1"))
    assert 2 not in named.noisy.ids.tolist()  # verified to be of the class called so


def test_files_that_are_no_images_are_counted_and_named(tmp_path, caplog):
    for name in ("a/1.jpg", "b/1.jpg", "a/2.jpg"):
        write_jpeg(tmp_path / name, name)
    for name in ("a/3.HEIC", "a/4.tif", "b/without"):
        (tmp_path / name).touch()
    dataset, _ = load_folder(folder=tmp_path)
    assert len(dataset.noisy) == 3
    assert f"{tmp_path}: 3 other files, such as a/3.HEIC, a/4.tif, b/without" in caplog.text
    for name in ("a/1.jpg", "b/1.jpg", "a/2.jpg"):
        (tmp_path / name).unlink()
    with pytest.raises(
        DataNotFoundError, match=r"no images below .* among 3 files, such as a/3.HEIC"
    ):
        load_folder(folder=tmp_path)


def test_thumbnails_that_a_system_keeps_are_no_images(tmp_path):
    for name in ("a/1.jpg", "b/1.jpg", "a/@eaDir/1.jpg/SYNO_THUMB.jpg", "#recycle/2.jpg"):
        write_jpeg(tmp_path / name, name)
    assert list(scan_images(tmp_path)) == ["a/1.jpg", "b/1.jpg"]


def test_a_stray_name_that_is_not_utf_8_stops_nothing(tmp_path, caplog):
    write_photos(tmp_path, ["a/1.jpg,x", "b/2.jpg,y"], header="image,label")
    for name in (b"a/\xff.jpg", b"\xfe/3.jpg"):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_jpeg(Path(os.fsdecode(path)), "3")
    assert len(load_folder(folder=tmp_path, labels="labels.csv")[0].noisy) == 2
    assert caplog.text == ""
    (tmp_path / "labels.csv").unlink()
    assert len(load_folder(folder=tmp_path)[0].noisy) == 2
    assert r"2 other files, such as a/\udcff.jpg, \udcfe" in caplog.text


def test_a_name_that_no_file_can_have_is_one_that_is_not_there(tmp_path):
    write_photos(tmp_path, ["a.jpg,x", "b.jpg,y"], header="image,label")
    with (tmp_path / "labels.csv").open("a") as table:
        table.write(f"{'c' * 300}.jpg,x\n")
    with pytest.raises(DataNotFoundError, match="1 of 3 images are not there"):
        load_folder(folder=tmp_path, labels="labels.csv")
    dataset, _ = load_folder(folder=tmp_path, labels="labels.csv", missing="skip")
    assert len(dataset.noisy) == 2


def test_a_data_set_shows_itself_in_a_line(photos):
    dataset, truth = load_folder(folder=photos, labels="labels.csv")
    shown = [repr(part) for part in (dataset, dataset.clean, truth)]
    assert shown[0].startswith("NoisyDataset('folder', 3 classes; clean ")
    assert all(len(text) < 200 and "\n" not in text for text in shown)
    arrays, _ = dataset_from_arrays("mine", EMBEDDINGS, np.arange(10) % 2)
    assert repr(arrays.noisy) == "Split(10 instances, inputs (10, 4))"


def test_a_tree_of_folders_gives_each_image_the_name_of_its_folder(tmp_path):
    for name in ("b/2.JPG", "b/deep/1.png", "a/1.jpeg", "a/notes.txt", "a/._1.jpeg", ".git/x.jpg",
                 "__MACOSX/a/1.jpeg"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".txt"):
            (tmp_path / name).touch()
        else:
            write_jpeg(tmp_path / "image.jpeg", name)
            (tmp_path / "image.jpeg").rename(tmp_path / name)
    (tmp_path / "empty").mkdir()
    dataset, truth = load_folder(folder=tmp_path)
    assert list(scan_images(tmp_path)) == ["a/1.jpeg", "b/2.JPG", "b/deep/1.png"]
    assert dataset.class_names == ("a", "b")
    assert dataset.noisy.labels.tolist() == [0, 1, 1]
    assert dataset.noisy.ids.tolist() == truth.ids.tolist() == [0, 1, 2]
    assert (truth.kinds == Kind.UNKNOWN).all()
    reordered, _ = load_folder(folder=tmp_path, class_names=("b", "a"))
    assert reordered.noisy.labels.tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="sub-folder 'b', which is none of the 2 classes"):
        load_folder(folder=tmp_path, class_names=("a", "c"))
    (tmp_path / "a/1.jpeg").rename(tmp_path / "1.jpeg")
    with pytest.raises(ValueError, match=r"1.jpeg is in no sub-folder"):
        load_folder(folder=tmp_path)


def test_links_in_a_circle_end(tmp_path):
    write_jpeg(tmp_path / "a/1.jpg", "1")
    write_jpeg(tmp_path / "elsewhere/2.jpg", "2")
    (tmp_path / "a/up").symlink_to(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path / "elsewhere")
    assert list(scan_images(tmp_path)) == ["a/1.jpg", "b/2.jpg", "elsewhere/2.jpg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clean_share": 1.2}, "clean_share is 1.2"),
        ({"clean_share": 0.5}, "sum to 1.1; at most 1"),
        ({"missing": "warn"}, "unknown missing 'warn'"),
        ({"labels": None, "group_column": "person"}, "group_column needs a table"),
        ({"labels": "nothing.csv"}, "labels is 'nothing.csv'; there is no file"),
        ({"folder": "nowhere"}, "folder is 'nowhere', which is no folder"),
    ],
)
def test_bad_options_are_named(photos, options, message):
    with pytest.raises((ValueError, DataNotFoundError), match=message):
        load_folder(**{"folder": photos, "labels": "labels.csv", **options})


def test_a_table_that_is_verified_throughout_says_what_to_do(tmp_path):
    write_photos(tmp_path, ["a.jpg,x,x", "b.jpg,y,x"])
    with pytest.raises(ValueError, match="no image is left for the noisy split; leave images unv"):
        load_folder(folder=tmp_path, labels="labels.csv")


def test_an_empty_folder_has_no_images(tmp_path):
    with pytest.raises(DataNotFoundError, match="there are no images below"):
        load_folder(folder=tmp_path)


# -- Arrays --------------------------------------------------------------------------------------

EMBEDDINGS = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
GIVEN = [0, 1, 2, 0, 1, 2, 0, 1, 2, -1]


@pytest.mark.parametrize("kind", ["array", "float64", "tensor", "images", "files"])
def test_arrays_of_every_kind_become_a_data_set(tmp_path, kind):
    pixels = torch.arange(10 * 3 * 4, dtype=torch.uint8).reshape(10, 3, 2, 2)
    inputs = {
        "array": EMBEDDINGS,
        "float64": EMBEDDINGS.astype(np.float64),
        "tensor": torch.from_numpy(EMBEDDINGS),
        "images": ImageTensor(pixels),
        "files": ImageFiles(tmp_path, [f"{i}.jpg" for i in range(10)]),
    }[kind]
    dataset, truth = dataset_from_arrays(
        "mine", inputs, GIVEN, clean=([9, 0], [1, 2]), test=(torch.tensor([4]), torch.tensor([0]))
    )
    assert dataset.name == "mine"
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.clean.ids.tolist() == [9, 0]
    assert dataset.clean.labels.tolist() == [1, 2]
    assert dataset.test.labels.tolist() == [0]
    assert len(dataset.validation) == 0
    assert dataset.noisy.ids.tolist() == truth.ids.tolist() == [1, 2, 3, 5, 6, 7, 8]
    assert dataset.noisy.labels.tolist() == [1, 2, 0, 2, 0, 1, 2]
    assert (truth.kinds == Kind.UNKNOWN).all()
    if kind in ("array", "float64", "tensor"):
        assert dataset.clean.inputs.dtype == torch.float32
        assert np.array_equal(dataset.clean.inputs, EMBEDDINGS[[9, 0]])
        assert np.array_equal(dataset.noisy.inputs, EMBEDDINGS[dataset.noisy.ids])
    elif kind == "images":
        assert torch.equal(dataset.noisy.inputs.read(1), pixels[2])
    else:
        assert dataset.noisy.inputs.name(1) == str(tmp_path / "2.jpg")


def test_a_large_matrix_is_not_copied_where_nothing_is_taken_from_it():
    dataset, _ = dataset_from_arrays("mine", EMBEDDINGS, [0, 1] * 5)
    assert dataset.noisy.inputs.data_ptr() == EMBEDDINGS.ctypes.data


def test_a_boolean_mask_chooses_rows():
    mask = np.arange(10) > 7
    dataset, _ = dataset_from_arrays("mine", EMBEDDINGS, GIVEN, validation=(mask, [0, 1]))
    assert dataset.validation.ids.tolist() == [8, 9]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"given_labels": [0, 1]}, "10 inputs and 2 given_labels"),
        ({"given_labels": [0.5] * 10}, "given_labels has dtype float64"),
        ({"clean": None}, "given_labels of the noisy instances.*is -1, outside"),
        ({"clean": ([9, 0], [0])}, "clean has 2 rows and 1 labels"),
        ({"clean": ([9, 10], [0, 1])}, "rows of clean reach from 9 to 10; there are 10 inputs"),
        ({"clean": [1, 2, 3]}, "clean is no pair"),
        ({"test": ([4, 9], [0, 0])}, "row 9 is named 2 times in clean, validation and test"),
        ({"class_names": ("x", "y")}, "outside 0..1"),
        ({"inputs": np.where(np.eye(10, 4) * np.arange(10)[:, None] == 3, np.nan, 1.0)},
         "inputs has a NaN or infinite entry in row 3"),
        ({"inputs": np.zeros(10)}, r"inputs has shape \(10,\)"),
        ({"clean": (range(10), [0] * 10)}, "every instance is verified"),
        ({"given_labels": [0] * 10}, "class_names has 1 classes"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(changed, message):
    arrays = {"inputs": EMBEDDINGS, "given_labels": GIVEN, "clean": ([9], [0])}
    with pytest.raises((ValueError, TypeError), match=message):
        dataset_from_arrays("mine", **{**arrays, **changed})
