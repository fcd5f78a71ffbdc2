"""Predictions of a folder: nobody vouches for its own label, copies and groups included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from genkl.cli import main
from genkl.report import assess_folder, held_out_probs, predict_folder

CLASSES = ("bag", "hat", "shoe")
SENDERS = 12
"""Each sends five images of one class; the first sender's all say the next class."""


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Sixty images with a table of labels and senders, and features that show class and sender."""
    root = tmp_path / "photographs"
    root.mkdir()
    sender = np.repeat(np.arange(SENDERS), 5)
    true = sender % 3
    rng = np.random.default_rng(0)
    features = np.hstack([3 * np.eye(3)[true], 8 * np.eye(SENDERS)[sender]])
    features = np.hstack([features, rng.normal(scale=3, size=(len(true), 6))])
    given = np.where(sender == 0, 1, true)
    lines = ["image,label,sender"]
    for row in range(len(given)):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(root / f"{row:02}.png")
        lines.append(f"{row:02}.png,{CLASSES[given[row]]},s{sender[row]}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root, features


def test_labels_of_one_group_do_not_vouch_for_each_other(folder):
    root, features = folder
    told = {"features": features, "progress": False}
    alone = predict_folder(root, "labels.csv", **told).probs
    grouped = predict_folder(root, "labels.csv", group_column="sender", **told).probs
    assert alone[:5, 1].min() > 0.5  # the sender's other images say so
    assert grouped[:5].argmax(axis=1).tolist() == [0] * 5
    right = grouped[5:].argmax(axis=1) == np.repeat(np.arange(1, SENDERS) % 3, 5)
    assert right.mean() > 0.8


def test_copies_join_the_groups_that_they_are_in(folder):
    root, features = folder
    features[5] = features[0]  # the second sender shows the first one's image, under that label
    told = {"features": features, "progress": False, "group_column": "sender"}
    made = predict_folder(root, "labels.csv", **told)
    assert made.copies[5] == 0
    np.testing.assert_array_equal(made.probs[0], made.probs[5])
    # Without the second sender's images nothing else says hat of this look.
    assert made.probs[0, 1] < 0.3


def test_a_report_is_of_these_predictions(folder):
    root, features = folder
    told = {"features": features, "progress": False, "seed": 3}
    made = predict_folder(root, "labels.csv", **told)
    found, _ = assess_folder(root, "labels.csv", **told)
    np.testing.assert_array_equal(found.table["predicted"], made.probs.argmax(axis=1))
    np.testing.assert_array_equal(found.table["predicted_prob"], made.probs.max(axis=1))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_predict_writes_others_read(folder, kind: str, tmp_path: Path, capsys):
    root, features = folder
    np.save(tmp_path / "features.npy", features)
    out = tmp_path / f"probs.{kind}"
    asked = ["predict", str(root), "--labels", "labels.csv", "--group-column", "sender"]
    asked += ["--features", str(tmp_path / "features.npy"), "--out", str(out)]
    assert main(asked) == 0, capsys.readouterr().err
    assert main(asked) == 1  # what is there is not replaced
    table = pd.read_csv(out) if kind == "csv" else pd.read_parquet(out)
    assert list(table) == ["image", "label", *CLASSES]
    made = predict_folder(
        root, "labels.csv", features=features, group_column="sender", progress=False
    )
    np.testing.assert_allclose(table[[*CLASSES]], made.probs, rtol=1e-12)
    named = [str(out), "--id", "image", "--label-column", "label"]
    flagged = tmp_path / "flagged.csv"
    assert main(["identify", *named, "--alpha", "0.9", "--out", str(flagged)]) == 0
    assert pd.read_csv(flagged)["given_label"].tolist() == table["label"].tolist()
    page = ["--images", str(root), "--out", str(tmp_path / "look.html")]
    assert main(["report", *named, *page]) == 0, capsys.readouterr().err
    kinds = pd.read_csv(tmp_path / "look.csv").set_index("image")["kind"]
    assert (kinds[[f"{row:02}.png" for row in range(5)]] == "label likely wrong").all()


def test_cleanlab_finds_the_wrong_labels_in_the_table(folder):
    filters = pytest.importorskip("cleanlab.filter")
    root, features = folder
    told = {"features": features, "group_column": "sender", "progress": False}
    table = predict_folder(root, "labels.csv", **told).to_frame()
    probs, labels = table[[*CLASSES]].to_numpy(), table["label"].map(CLASSES.index).to_numpy()
    assert np.flatnonzero(filters.find_label_issues(labels, probs)).tolist() == [0, 1, 2, 3, 4]


def test_what_is_refused_before_any_work(folder, tmp_path: Path, capsys):
    root, features = folder
    never = {"progress": False, "backbone": None}
    with pytest.raises(ValueError, match=r"features has shape \(59, 21\) and 60 images are listed"):
        predict_folder(root, "labels.csv", features=features[:-1], **never)
    one = "image,label,sender\n" + "".join(
        f"{row:02}.png,{CLASSES[row % 2]},{'s' if row % 2 else row}\n" for row in range(8)
    )
    (root / "one.csv").write_text(one)
    with pytest.raises(ValueError, match="all images of 'hat' are in one group"):
        predict_folder(root, "one.csv", group_column="sender", **never)
    (root / "named.csv").write_text(one.replace("hat", "label"))
    np.save(tmp_path / "features.npy", features)
    asked = ["predict", str(root), "--labels", "labels.csv", "--out"]
    eyes = ["--features", str(tmp_path / "features.npy")]
    for wrong, message in (
        ([str(tmp_path / "probs.npy")], "the table's name must end in .parquet or .csv"),
        ([str(tmp_path / "p.csv"), *eyes, "--size", "32"], "--size is given and --features, too"),
        ([str(tmp_path / "p.csv"), "--labels", "named.csv"], "a class is called 'label'"),
        ([str(root / "labels.csv"), "--overwrite"], "is a file to read from"),
    ):
        assert main([*asked, *wrong]) == 1
        told = capsys.readouterr().err
        assert message in told
    assert not list(tmp_path.glob("p*.csv"))


def test_the_plan_says_what_would_be_done(folder, tmp_path: Path, capsys):
    root, _ = folder
    out = tmp_path / "probs.csv"
    asked = ["predict", str(root), "--labels", "labels.csv", "--out", str(out), "--dry-run"]
    assert main(asked) == 0
    told = capsys.readouterr().out
    for text in ("60", "bag, hat, shoe", "EfficientNet-Lite0", str(out)):
        assert text.lower() in told.lower()
    assert not out.exists()


def leads(labels: list[int], groups: list[int]) -> np.ndarray:
    """Predictions from features that show group and label, so that only a leak knows the label."""
    labels, groups = np.array(labels), np.array(groups)
    shown = np.eye(groups.max() + 1)[groups][:, :, None] * np.eye(3)[labels][:, None, :]
    noise = np.random.default_rng(0).normal(scale=0.1, size=(len(labels), 4))
    features = np.hstack([shown.reshape(len(labels), -1), noise])
    return held_out_probs(features, labels, labels.max() + 1, groups=groups)


@pytest.mark.parametrize("first", [[0, 1, 2], [0, 0, 2]])
def test_few_groups_are_kept_whole_whoever_leads_them(first: list[int]):
    labels = [label for lead in first for label in [lead, *range(3), *range(3), *range(3)]]
    probs = leads(labels, np.repeat([0, 1, 2], 10).tolist())
    # What a label looks like in a group is learned in that group alone.
    assert (probs.argmax(axis=1) == labels).mean() < 0.6


def test_a_class_in_one_group_is_predicted_from_its_own_rows():
    labels = [0] * 12 + [1] * 12 + [2] * 4
    probs = leads(labels, [*np.repeat(range(6), 4), 6, 6, 6, 6])
    assert (probs[-4:, 2] > 0.1).all()


def test_every_class_is_learned_in_every_fold():
    # Two of twelve groups have class 1, and none is led by it.
    labels, groups = np.zeros(60, int), np.repeat(np.arange(12), 5)
    labels[[2, 7]] = 1
    features = np.random.default_rng(0).normal(size=(60, 4))
    for seed in range(20):
        probs = held_out_probs(features, labels, 2, groups=groups, seed=seed)
        assert (probs[:, 1] > 0).all()
