"""What to look at: the kinds, the table, the page in a browser, and the command."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rendered_pages import AXE, RUN_AXE

from genkl import nc_score, threshold_for_budget, uniform_like_vectors
from genkl.cli import main
from genkl.data import Kind
from genkl.data.folder import load_folder
from genkl.data.images import ImageFiles, ImageTensor
from genkl.features import Backbone
from genkl.report import KINDS, assess, assess_folder, held_out_probs, write_page, write_table
from genkl.report.assessment import (
    AMBIGUOUS,
    FINE,
    OOD,
    WRONG,
    Thresholds,
    confidently_wrong,
)
from genkl.report.page import suspects
from genkl.report.table import no_class_name, to_frame
from genkl.rule.neighbors import near_copies

HOSTILE = [
    "</script><script>window.hacked = 1</script>", '<img src=x onerror="window.hacked = 2">',
    "{{data}} {{script}}", 'comma, "quoted"\nand a new line', "ünï/cödé ☂ #1?.png", "=1+1",
]  # fmt: skip


def predictions(count: int, k: int, seed: int = 0, sharpness: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, k)) * rng.uniform(0, 5, size=(count, 1)) * sharpness
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    return probs / probs.sum(axis=1, keepdims=True)


# --- What an instance looks like -----------------------------------------------------------------


def planted():
    """Two classes at two corners of a feature space, a blend of them, and something else.

    Returns predictions, given labels, features and the kind that was planted.
    """
    rng = np.random.default_rng(0)
    groups = {
        FINE: ([0.98, 0.01, 0.01], [1, 0, 0], 0),
        WRONG: ([0.98, 0.01, 0.01], [1, 0, 0], 1),
        AMBIGUOUS: ([0.48, 0.47, 0.05], [1, 0.05, 0], 0),
        OOD: ([0.36, 0.33, 0.31], [0, 0, 1], 0),
    }
    counts = {FINE: 80, WRONG: 5, AMBIGUOUS: 4, OOD: 6}
    kinds = np.repeat([*groups], [counts[kind] for kind in groups])
    probs = np.array([groups[kind][0] for kind in kinds])
    features = np.array([groups[kind][1] for kind in kinds], dtype=float)
    features += rng.normal(scale=0.03, size=features.shape)
    given_labels = np.array([groups[kind][2] for kind in kinds])
    return probs, given_labels, features, kinds


def test_planted_kinds_are_found():
    probs, given_labels, features, kinds = planted()
    found = assess(
        probs,
        given_labels,
        features=features,
        alpha=0.5,
        max_distance=0.3,
        class_names=["a", "b", "c"],
    )
    np.testing.assert_array_equal(found.kinds(), kinds)


def test_without_features_two_classes_decide():
    probs, given_labels, _, kinds = planted()
    found = assess(probs, given_labels, alpha=0.5)
    np.testing.assert_array_equal(found.kinds(), kinds)
    assert found.thresholds.max_distance is None
    everything = Thresholds(found.thresholds.alpha, None, min_top_two_mass=0.01)
    assert (found.kinds(everything) != OOD).all()


def test_without_labels_no_label_is_wrong():
    probs, _, features, kinds = planted()
    found = assess(probs, features=features, alpha=0.5, max_distance=0.3).kinds()
    np.testing.assert_array_equal(found, np.where(kinds == WRONG, FINE, kinds))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40), k=st.integers(2, 6), seed=st.integers(0, 99),
    rate=st.floats(0.01, 0.9), gap=st.floats(0, 1), mass=st.floats(0.05, 1),
)  # fmt: skip
def test_kinds_follow_their_definition(count, k, seed, rate, gap, mass):
    probs = predictions(count, k, seed)
    labels = np.random.default_rng(seed).integers(-1, k, count)
    found = assess(probs, labels, max_flag_rate=rate, min_gap=gap, min_top_two_mass=mass, seed=seed)
    kinds, at = found.kinds(), found.thresholds
    score = nc_score(probs, 0.5 / k, uniform_like_vectors(k, 20, 0.05, seed))
    assert ((kinds <= OOD) == (score >= at.alpha)).all()
    assert (kinds <= OOD).sum() <= max(1, math.floor(rate * count))
    top_two = np.sort(probs, axis=1)[:, -2:].sum(axis=1)
    flagged = kinds <= OOD
    assert ((kinds[flagged] == AMBIGUOUS) == (top_two[flagged] >= mass)).all()
    has_label = labels >= 0
    excess = np.where(has_label, probs.max(axis=1) - probs[np.arange(count), labels], -1)
    wrong = ~flagged & has_label & (excess >= gap) & (probs.argmax(axis=1) != labels)
    assert ((kinds == WRONG) == wrong).all()


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 60), k=st.integers(2, 5), seed=st.integers(0, 99))
def test_confidently_wrong_is_the_confident_joint(count, k, seed):
    probs = predictions(count, k, seed)
    labels = np.random.default_rng(seed).integers(-1, k, count)
    levels = [
        np.mean([p[j] for p, y in zip(probs, labels, strict=True) if y == j] or [math.inf])
        for j in range(k)
    ]
    for p, y, found in zip(probs, labels, confidently_wrong(probs, labels), strict=True):
        confident = [j for j in range(k) if p[j] >= levels[j]]
        expected = y >= 0 and bool(confident) and max(confident, key=lambda j: p[j]) != y
        assert found == expected


def test_as_many_labels_are_called_wrong_as_are_confidently_so():
    probs = predictions(500, 4, 2, sharpness=2)
    labels = probs.argmax(axis=1)
    labels[:60] = (labels[:60] + 1) % 4
    found = assess(probs, labels)
    confident = confidently_wrong(probs, labels) & (found.kinds() > OOD)
    assert (found.kinds() == WRONG).sum() == confident.sum() > 20
    nothing = assess(probs, probs.argmax(axis=1))  # no label is contradicted
    assert (nothing.kinds() != WRONG).all()
    assert nothing.thresholds.min_gap == 1


@pytest.mark.parametrize("k", [2, 3, 7])
@pytest.mark.parametrize("asked", [{}, {"min_gap": 0.0}])
def test_predictions_that_prefer_no_class_call_no_label_wrong(k, asked):
    labels = np.arange(40) % k
    noise = np.random.default_rng(0).uniform(-1, 1, (40, k)) * 1e-7
    for probs in (np.full((40, k), 1 / k), np.full((40, k), 1 / k) + noise):
        found = assess(probs, labels, alpha=1e9, **asked)
        assert (found.kinds() == FINE).all()
        assert (found.table["predicted"] == labels).all()
        assert not confidently_wrong(probs, labels).any()
    unlabelled = assess(probs, np.full(40, -1), alpha=1e9)
    assert (unlabelled.table["predicted"] == probs.argmax(axis=1)).all()


def test_saturated_predictions_are_not_all_flagged():
    found = assess(np.eye(3)[[0, 1, 2] * 10], np.array([0, 1, 2] * 10))
    assert (found.kinds() == FINE).all()


def test_verified_images_keep_the_budget():
    probs = predictions(400, 5, 3)
    verified = np.full(400, -1)
    verified[:100] = probs[:100].argmax(axis=1)
    found = assess(probs, probs.argmax(axis=1), verified_labels=verified, max_flag_rate=0.1)
    score = found.table["score"].to_numpy()
    assert found.thresholds.alpha == threshold_for_budget(score[:100], 0.1)
    assert "100 verified images" in found.facts["Non-conforming"]
    # Too few to promise anything: the share of all, and the page says what would help.
    verified[5:] = -1
    found = assess(probs, probs.argmax(axis=1), verified_labels=verified, max_flag_rate=0.1)
    assert (score >= found.thresholds.alpha).sum() == 40
    assert "verify 9 or more" in found.facts["Non-conforming"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("way", ["suspects", "by chance", "most conforming"])
def test_suspects_set_no_threshold(seed: int, way: str):
    probs = predictions(600, 5, seed)
    given = probs.argmax(axis=1)
    first = assess(probs, given)
    order = np.argsort(-first.table["score"].to_numpy())
    by_chance = np.random.default_rng(seed).permutation(600)
    rows = {"suspects": order, "by chance": by_chance, "most conforming": order[::-1]}[way][:60]
    verified, is_nc = np.full(600, -1), np.zeros(600, bool)
    verified[rows[:40]], is_nc[rows[40:]] = given[rows[:40]], True
    found = assess(probs, given, verified_labels=verified, is_nc=is_nc)
    told = found.facts["Non-conforming"]
    assert (found.thresholds.alpha == first.thresholds.alpha) == (way == "suspects")
    assert ("score like suspects" in told) == (way == "suspects")
    assert ("score lower than the others" in told) == (way == "most conforming")
    alone = assess(probs, given, is_nc=is_nc)  # nothing that conforms: nothing to warn of
    assert alone.facts == first.facts


def test_a_reference_image_is_no_neighbour_of_itself():
    for count in (2, 8):
        probs, labels = np.full((count, 2), [0.99, 0.01]), np.zeros(count, int)
        found = assess(probs, labels, features=np.eye(count), alpha=0.5)
        np.testing.assert_allclose(found.table["distance"], 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pred_probs": np.ones((4, 3))}, "softmax"),
        ({"given_labels": np.array([0, 1, 2, 3])}, "given_labels"),
        ({"given_labels": np.zeros(3, int)}, "given_labels has shape"),
        ({"names": ["a", "b", "b", "c"]}, "'b' more than once"),
        ({"names": ["a"]}, "names has 1 names; there must be 4"),
        ({"class_names": ["x", "y"]}, "class_names has 2 names; there must be 3"),
        ({"alpha": 0.0}, "alpha is 0"),
        ({"max_flag_rate": 1.0}, "max_flag_rate is 1"),
        ({"beta": 0.5}, "beta is 0.5"),
        ({"min_gap": 2.0}, "min_gap is 2"),
        ({"min_top_two_mass": 0.0}, "min_top_two_mass is 0"),
        ({"max_distance": 0.5}, "no features"),
        ({"features": np.zeros((3, 2))}, "features has 3 rows"),
        ({"is_nc": np.zeros(3, bool)}, "is_nc has shape"),
        ({"conforming_probs": np.ones((4, 3))}, "conforming_probs"),
    ],
)
def test_what_assess_refuses(wrong, message):
    usual = {"pred_probs": predictions(4, 3), "given_labels": np.zeros(4, int)}
    with pytest.raises(ValueError, match=message):
        assess(**usual | wrong)


# --- Predictions that know no label of their own ------------------------------------------------


def test_no_prediction_saw_its_own_label():
    labels = np.random.default_rng(0).integers(0, 3, 90)
    by_heart = np.eye(90)  # whoever saw a row's label knows it, and nobody else does
    probs = held_out_probs(by_heart, labels, 3)
    np.testing.assert_allclose(probs.sum(axis=1), 1)
    assert (probs.argmax(axis=1) == labels).mean() < 0.6


def test_a_label_planted_wrong_is_found():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(3), 40)
    features = np.eye(3)[labels] * 3 + rng.normal(scale=0.4, size=(120, 3))
    taught = labels.copy()
    taught[::15] = (taught[::15] + 1) % 3
    probs = held_out_probs(features, taught, 3)
    assert (probs.argmax(axis=1) == labels).all()


def blobs(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Forty features, a third of the rows about each of three corners; and the corners."""
    labels = np.arange(count) % 3
    return np.eye(40)[labels] * 3 + rng.normal(scale=0.4, size=(count, 40)), labels


def test_a_copy_does_not_speak_for_its_wrong_label():
    rng = np.random.default_rng(2)
    features, labels = blobs(rng, 300)
    wrong = np.arange(0, 300, 10)
    taught = labels.copy()
    taught[wrong] = (taught[wrong] + 1) % 3
    saved_again = features[wrong] + rng.normal(scale=0.02, size=(len(wrong), 40))
    features, taught = np.vstack([features, saved_again]), np.append(taught, taught[wrong])
    copies = near_copies(features)
    assert (copies[:300] == np.arange(300)).all()
    assert (copies[300:] == wrong).all()
    apart, parted = (
        held_out_probs(features, taught, 3, groups=groups)[wrong, taught[wrong]]
        for groups in (copies, None)
    )
    assert apart.mean() < 0.15
    assert apart.mean() < parted.mean() / 2  # a copy that is learned from knows the wrong label


@given(seed=st.integers(0, 10_000), closeness=st.floats(0, 0.3))
def test_groups_of_copies_are_led_by_their_first(seed: int, closeness: float):
    rng = np.random.default_rng(seed)
    features, _ = blobs(rng, int(rng.integers(1, 60)))
    features = features[rng.integers(0, len(features), len(features))]
    found = near_copies(features, closeness)
    assert (found <= np.arange(len(found))).all()
    assert (found[found] == found).all()
    for row, leader in enumerate(found):
        equal = (features == features[row]).all(axis=1)
        assert len(set(found[equal])) == 1
        if closeness == 0:
            assert leader == np.flatnonzero(equal)[0]


def test_rows_without_a_label_are_predicted_too():
    labels = np.repeat(np.arange(2), 10)
    features = np.eye(2)[labels] + np.random.default_rng(0).normal(scale=0.1, size=(20, 2))
    labels[[0, 19]] = -1
    probs = held_out_probs(features, labels, 2)
    assert probs[0].argmax() == 0
    assert probs[19].argmax() == 1


def test_classes_that_cannot_be_held_out_are_refused():
    with pytest.raises(ValueError, match="labels has 1 of 'b'"):
        held_out_probs(np.zeros((4, 2)), np.array([0, 0, 0, 1]), 2, class_names=["a", "b"])
    with pytest.raises(ValueError, match="class_names has 1 class"):
        held_out_probs(np.zeros((4, 2)), np.zeros(4, int), 1)
    with pytest.raises(ValueError, match="folds is 1"):
        held_out_probs(np.zeros((4, 2)), np.array([0, 0, 1, 1]), 2, folds=1)
    few = held_out_probs(np.random.default_rng(0).normal(size=(4, 2)), np.array([0, 0, 1, 1]), 2)
    np.testing.assert_allclose(few.sum(axis=1), 1)


# --- A folder ------------------------------------------------------------------------------------


class Means(torch.nn.Module):
    """Three features: the mean of each colour."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


EYES = Backbone("means of colours", Means, size=8)
COLORS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 220)}


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """Images of three colours in three folders; some in the wrong one, some purple, one broken."""
    rng = np.random.default_rng(0)
    root = tmp_path / "colours"

    def paint(label: str, name: str, color: tuple[int, int, int]) -> None:
        (root / label).mkdir(parents=True, exist_ok=True)
        pixels = np.clip(np.array(color) + rng.normal(scale=12, size=(20, 24, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(root / label / name)

    for label, color in COLORS.items():
        for number in range(25):
            paint(label, f"{number:02}.png", color)
    paint("green", "wrong-0.jpg", COLORS["red"])
    paint("blue", "wrong-1.jpg", COLORS["green"])
    paint("red", "between.jpg", (130, 40, 130))
    (root / "red" / "broken.png").write_bytes(b"no image")
    return root


def test_a_folder_is_assessed(colors: Path, tmp_path: Path):
    found, images = assess_folder(
        colors, backbone=EYES, cache_dir=tmp_path / "cache", progress=False, max_flag_rate=0.02,
        min_gap=0.2,
    )  # fmt: skip
    kind_of = dict(zip(found.table["image"], found.kinds(), strict=True))
    assert found.class_names == ("blue", "green", "red")
    assert kind_of["red/between.jpg"] in (AMBIGUOUS, OOD)
    assert kind_of["green/wrong-0.jpg"] == kind_of["blue/wrong-1.jpg"] == WRONG
    assert sum(kind == FINE for kind in kind_of.values()) == 75
    assert len(found.left_out) == 1
    assert found.left_out[0].endswith("broken.png")
    assert [Path(images.name(row)) for row in range(len(images))] == [
        colors / name for name in found.table["image"]
    ]
    rows = to_frame(found).set_index("image")
    assert rows.loc["green/wrong-0.jpg", "suggestion"] == "red"


def test_a_table_with_what_is_no_label(colors: Path, tmp_path: Path):
    table = tmp_path / "labels.csv"
    lines = ["image,label,verified"]
    for label in COLORS:
        for number in range(25):
            known = {0: label, 1: "none"}.get(number, "")
            said = "not sure" if number == 2 else label
            lines.append(f"{label}/{number:02},{said},{known}")
    table.write_text("\n".join(lines) + "\n")
    found, _ = assess_folder(
        colors, table, image_suffix=".png", no_label=["not sure"], non_conforming_name="none",
        backbone=EYES, cache_dir=tmp_path / "cache", progress=False,
    )  # fmt: skip
    assert found.class_names == ("blue", "green", "red")
    assert (found.table["given"] == -1).sum() == 3
    assert (found.table["verified"] >= 0).sum() == found.table["is_nc"].sum() == 3
    with pytest.raises(ValueError, match="no_label names 'unsure', which no line"):
        assess_folder(colors, table, image_suffix=".png", no_label=["unsure"], backbone=EYES)


def test_errors_come_before_the_work(colors: Path, tmp_path: Path):
    def work():
        raise AssertionError("features were extracted")

    never = Backbone("never", work, size=8)
    for wrong, message in (
        ({"beta": 0.5}, "beta is 0.5"),
        ({"alpha": -1}, "alpha is -1"),
        ({"sigma": -1.0}, "sigma"),
        ({"num_vectors": 0}, "num_vectors"),
        ({"no_label": ["x"]}, "no_label needs a table"),
        ({"image_suffix": ".png"}, "image_suffix needs a table"),
        ({"colour": "red"}, "colour"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            assess_folder(colors, backbone=never, progress=False, **wrong)
    (colors / "alone").mkdir()
    (colors / "red" / "00.png").rename(colors / "alone" / "00.png")
    with pytest.raises(ValueError, match="labels has 1 of 'alone'"):
        assess_folder(colors, backbone=never, progress=False)


# --- The table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_a_folder_whose_name_is_not_utf_8_is_reported_on(tmp_path: Path, encoding: str):
    """Its name stands on the page and on the terminal as far as they can show it."""
    rng, root = np.random.default_rng(0), Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff ph"))
    for label, grey in (("a", 40000), ("ü", 9000)):
        (root / label).mkdir(parents=True)
        for number in range(3):
            pixels = np.clip(grey + rng.normal(0, 900, (20, 20)), 0, 65535).astype(np.uint16)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    found, images = assess_folder(root, backbone=EYES, cache_dir=tmp_path, progress=False)
    assert found.table["predicted"].tolist() == [0, 0, 0, 1, 1, 1]  # 16 bits are not all white
    page = write_page(found, tmp_path / "page.html", images, title=root.name)
    assert r"\udcff ph" in page.read_text("utf-8")
    command = [sys.executable, "-P", "-m", "genkl", "data", "check", "folder", "-o", "folder", root]
    (root / "a" / "0.png").write_bytes(b"")
    told = subprocess.run(
        command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}
    )
    assert b"udcff ph/a/0.png: the file is empty" in told.stdout
    assert told.returncode == 1


def test_the_advice_about_a_class_with_a_single_image_can_be_taken(colors: Path, tmp_path: Path):
    """Neither a tree nor a table goes round in a circle; see also the words for no image at all."""
    names = sorted(str(path.relative_to(colors)) for path in colors.rglob("*.png"))
    rows = [f"{name},{Path(name).parts[0]}" for name in names]
    rows[0] = f"{names[0]},Skirt"
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *rows]))
    table = {"labels": tmp_path / "labels.csv", "backbone": EYES, "progress": False}
    with pytest.raises(ValueError, match=r"1 of 'Skirt'.*take it out: no_label= for a table"):
        assess_folder(colors, **table)
    found, _ = assess_folder(colors, no_label=["Skirt"], cache_dir=tmp_path, **table)
    assert "Skirt" not in found.class_names
    classes = [*found.class_names, "Hat"]
    with pytest.raises(ValueError, match=r"0 of 'Hat'.*leave the class out of class_names"):
        assess_folder(colors, no_label=["Skirt"], class_names=classes, **table)


def test_no_class_is_called_as_no_class():
    assert no_class_name(["a", "b"]) == "none"
    assert no_class_name(["none", "b"]) == "no class"
    every = ["none", "no class", "no class fits", "none of the classes"]
    assert no_class_name(every) not in every


def test_the_table_is_one_that_load_folder_reads(colors: Path, tmp_path: Path):
    found, _ = assess_folder(colors, backbone=EYES, cache_dir=tmp_path / "c", progress=False)
    write_table(found, tmp_path / "acted.csv")
    table = pd.read_csv(tmp_path / "acted.csv", dtype=str, keep_default_na=False)
    table.loc[table["image"] == "green/wrong-0.jpg", "verified"] = "red"
    table.loc[table["image"] == "red/between.jpg", "verified"] = "none"
    table.loc[table["image"] == "blue/03.png", "verified"] = "blue"
    table.to_csv(tmp_path / "acted.csv", index=False)
    dataset, truth = load_folder(
        folder=colors, labels=tmp_path / "acted.csv", non_conforming_name="none",
        clean_share=0, validation_share=0, test_share=0,
    )  # fmt: skip
    kinds = {
        Path(dataset.noisy.inputs.name(row)).name: Kind(truth.kinds[row])
        for row in range(len(dataset.noisy.labels))
    }
    assert kinds["wrong-0.jpg"] == Kind.MISLABELLED
    assert kinds["between.jpg"] == Kind.NC


# --- The page ------------------------------------------------------------------------------------


def sample(count: int = 60, k: int = 4, features: bool = True, hostile: bool = True):
    """An assessment with hostile names, some verified labels, some without a label."""
    probs = predictions(count, k, 5, sharpness=2)
    rng = np.random.default_rng(6)
    labels = rng.integers(-1, k, count)
    verified = np.where(rng.random(count) < 0.05, labels, -1)
    is_nc = np.zeros(count, bool)
    is_nc[3] = True
    verified[3] = -1
    names = [f"{row:05}.png" for row in range(count)]
    if hostile:
        names[: len(HOSTILE)] = HOSTILE
    return assess(
        probs, labels, names=names, verified_labels=verified, is_nc=is_nc, max_flag_rate=0.3,
        class_names=["<b>bold</b>", "T-Shirt", '"quotes", commas', *map(str, range(k - 3))],
        features=rng.normal(size=(count, 6)) if features else None,
    )  # fmt: skip


class Page:
    """A report in a browser, with what it asked for and what went wrong."""

    def __init__(self, browser, path: Path, **options) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}} | options)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text))
        self.page.goto(path.as_uri(), wait_until="load")

    def kinds(self) -> np.ndarray:
        # As text: the way from the browser is slow for long lists of numbers.
        digits = self.page.evaluate("genklReport.kindOf.join('')")
        return np.frombuffer(digits.encode(), np.uint8) - ord("0")

    def table(self) -> list[list[str]]:
        return [*csv.reader(io.StringIO(self.page.evaluate("genklReport.csv()")))]

    def move(self, **thresholds: float) -> None:
        script = "(to) => { Object.assign(genklReport.at, to); genklReport.refresh(); }"
        self.page.evaluate(script, thresholds)


@pytest.fixture
def opened(browser, tmp_path: Path):
    """Opens an assessment; in the end nothing came from elsewhere and nothing went wrong."""
    pages: list[Page] = []

    def open_page(found, images=None, *, written: Path | None = None, **options) -> Page:
        path = written or write_page(found, tmp_path / "a page.html", images, title="A <title>")
        pages.append(Page(browser, path, **options))
        return pages[-1]

    yield open_page
    for one in pages:
        one.context.close()
        assert [url for url in one.asked if not url.startswith(("file:", "data:", "blob:"))] == []
        assert one.errors == []


@pytest.mark.parametrize("features", [True, False])
def test_the_page_finds_what_python_finds(opened, features: bool, tmp_path: Path):
    found = sample(features=features)
    page = opened(found)
    np.testing.assert_array_equal(page.kinds(), found.kinds())
    score = found.table["score"].to_numpy()
    apart = found.table["distance" if features else "top_two_mass"].to_numpy()
    for row in range(0, len(found), 7):  # exactly at values that occur
        alpha, edge, gap = score[row], apart[-row], abs(found.table["gap"].to_numpy()[row])
        at = (
            Thresholds(alpha, edge, min_gap=gap)
            if features
            else Thresholds(alpha, None, min_top_two_mass=edge, min_gap=gap)
        )
        page.move(alpha=alpha, apart=edge, gap=gap)
        np.testing.assert_array_equal(page.kinds(), found.kinds(at))


def test_the_page_saves_the_table_that_python_writes(opened, tmp_path: Path):
    found = sample()
    write_table(found, tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        ours = [*csv.reader(file)]
    page = opened(found)
    theirs = page.table()
    head = theirs[0]
    assert set(head) <= set(ours[0])
    for name in head:
        a, b = ([line[lines[0].index(name)] for line in lines[1:]] for lines in (ours, theirs))
        if name in ("predicted_prob", "given_prob", "score", "entropy", "distance"):
            numbers = [[float(one or "nan") for one in column] for column in (a, b)]
            np.testing.assert_allclose(*numbers, atol=2e-6, err_msg=name)
        else:
            assert a == b, name
    with page.page.expect_download() as download:
        page.page.click("#download")
    saved = Path(download.value.path()).read_text("utf-8")
    assert [*csv.reader(io.StringIO(saved))] == theirs
    assert download.value.suggested_filename == "report.csv"


def test_hostile_names_stay_text(opened):
    found = sample()
    page = opened(found)
    page.page.select_option("#kind", "all")
    page.page.select_option("#sort", "name")
    page.page.locator("#grid button").first.click()
    assert page.page.locator("#detail-name").text_content() == HOSTILE[0]
    assert page.page.evaluate("window.hacked") is None
    assert page.page.title() == page.page.locator("h1").text_content() == "A <title>"


def test_decisions_by_keyboard_are_in_the_table_and_stay(opened, tmp_path: Path):
    found = sample(hostile=False)
    path = write_page(found, tmp_path / "page.html")
    page = opened(found, written=path)
    first = page.page.locator("#grid button").first
    first.focus()
    page.page.keyboard.press("Enter")
    dialog = page.page.locator("#detail")
    assert dialog.is_visible()
    rows = page.page.evaluate("[...genklReport.shown]")
    predicted = found.table["predicted"].to_numpy()
    page.page.keyboard.press("p")  # and on to the next
    page.page.keyboard.press("n")
    page.page.keyboard.press("ArrowLeft")
    assert "Decided: none" in page.page.locator("#decided").text_content()
    page.page.keyboard.press("u")
    page.page.keyboard.press("Escape")
    assert not dialog.is_visible()
    head, *lines = page.table()
    verified = [line[head.index("verified")] for line in lines]
    assert verified[rows[0]] == found.class_names[predicted[rows[0]]]
    before = to_frame(found)["verified"].tolist()
    assert verified[rows[1]] == before[rows[1]]
    # Somebody who comes back finds what was decided.
    page.page.reload()
    head, *lines = page.table()
    assert lines[rows[0]][head.index("verified")] == verified[rows[0]]


@pytest.mark.parametrize("width", [1100, 360])
def test_the_page_begins_with_labels_that_are_likely_wrong(opened, width: int):
    found = sample(hostile=False)
    page = opened(found, viewport={"width": width, "height": 700})
    wrong, gap = np.flatnonzero(found.kinds() == WRONG), found.table["gap"].to_numpy()
    shown = page.page.evaluate("[...genklReport.shown]")
    assert shown == wrong[np.argsort(-gap[wrong], kind="stable")].tolist()
    button = page.page.locator("#begin")
    assert str(len(wrong)) in button.text_content()
    button.click()
    first = page.page.locator("#detail-name").text_content()
    assert first == found.table["image"][shown[0]]
    box = page.page.locator("#decide button:visible").first.bounding_box()
    assert 0 <= box["y"] < 700 - box["height"]  # in sight, on a phone, too


def test_what_was_verified_is_suggested():
    found = sample(hostile=False)
    frame = to_frame(found)
    known = frame["verified"] != ""
    assert known.any()
    assert (frame["suggestion"] == frame["verified"])[known].all()


def test_what_is_decided_on_the_page_becomes_a_cleaned_table(opened, colors: Path, tmp_path: Path):
    names = sorted(f"{p.parent.name}/{p.name}" for p in colors.glob("*/*") if p.stem != "broken")
    lines = ["image,label,shop", *(f"{name},{name.split('/')[0]},s1" for name in names)]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    options = {"backbone": EYES, "cache_dir": tmp_path / "c", "progress": False, "min_gap": 0.2}
    found, images = assess_folder(colors, tmp_path / "labels.csv", **options)
    page = opened(found, written=write_page(found, tmp_path / "page.html", images))
    page.page.click("#begin")
    for _ in range(page.page.evaluate("genklReport.shown.length")):
        page.page.keyboard.press("p")
    page.page.keyboard.press("Escape")
    with page.page.expect_download() as download:
        page.page.click("#download")
    download.value.save_as(tmp_path / "anna.csv")
    out = tmp_path / "cleaned.csv"
    asked = ["apply", str(tmp_path / "anna.csv"), "--labels", str(tmp_path / "labels.csv")]
    assert main([*asked, "--out", str(out)]) == 0
    cleaned = pd.read_csv(out, dtype=str).set_index("image")
    assert cleaned.loc["green/wrong-0.jpg", ["label", "given", "by"]].tolist() == [
        "red", "green", "anna",
    ]  # fmt: skip
    assert cleaned.loc["blue/wrong-1.jpg", "label"] == "green"
    assert (cleaned["shop"] == "s1").all()
    again, _ = assess_folder(colors, out, **options)
    kinds = dict(zip(again.table["image"], again.kinds(), strict=True))
    assert kinds["green/wrong-0.jpg"] == kinds["blue/wrong-1.jpg"] == FINE


def test_filters_and_orders(opened):
    found = sample(hostile=False)
    page = opened(found)
    kinds, score = found.kinds(), found.table["score"].to_numpy()
    page.page.select_option("#sort", "score")
    for kind in range(len(KINDS)):
        page.page.select_option("#kind", str(kind))
        shown = page.page.evaluate("[...genklReport.shown]")
        assert sorted(shown) == np.flatnonzero(kinds == kind).tolist()
        assert (np.diff(score[shown]) <= 0).all()
    page.page.select_option("#kind", "all")
    page.page.select_option("#class", "1")
    shown = page.page.evaluate("[...genklReport.shown]")
    assert sorted(shown) == np.flatnonzero(found.table["given"] == 1).tolist()
    page.page.select_option("#class", "")
    page.page.fill("#search", "0001")
    page.page.wait_for_function("genklReport.shown.length === 11")
    # A number of the overview leads to its images.
    page.page.fill("#search", "")
    page.page.wait_for_function(f"genklReport.shown.length === {len(found)}")
    line = page.page.locator("#overview tbody tr").nth(2)  # the second class
    line.locator("td").nth(4).locator("button").click()
    shown = page.page.evaluate("[...genklReport.shown]")
    assert sorted(shown) == np.flatnonzero(found.table["given"] == 1).tolist()


def test_thresholds_move(opened):
    found = sample()
    page = opened(found)
    page.page.click("#parting summary")
    number = page.page.get_by_label("alpha, as a number")
    number.fill("1000")
    number.press("Enter")
    assert (page.kinds() > OOD).all()
    page.page.click("#reset")
    np.testing.assert_array_equal(page.kinds(), found.kinds())
    page.page.locator("#threshold-gap").focus()
    page.page.keyboard.press("End")
    at = page.page.evaluate("genklReport.at.gap")
    assert at == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_axe_finds_nothing_and_nothing_scrolls_sideways(opened, scheme: str, width: int):
    images = ImageTensor(torch.rand(60, 3, 40, 30))
    page = opened(sample(), images, color_scheme=scheme, viewport={"width": width, "height": 780})
    page.page.evaluate(AXE)
    assert page.page.evaluate(RUN_AXE) == []
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    page.page.locator("#gallery").scroll_into_view_if_needed()
    page.page.evaluate("document.getElementById('gallery').scrollIntoView()")
    page.page.locator("#grid button").first.click()
    assert page.page.evaluate(RUN_AXE) == []
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width


def test_thumbnails_are_in_the_page_and_the_others_beside_it(opened, colors: Path, tmp_path: Path):
    found, images = assess_folder(colors, backbone=EYES, cache_dir=tmp_path / "c", progress=False)
    path = tmp_path / "out" / "page.html"
    write_page(found, path, images, max_thumbnails=5)
    page = opened(found, written=path)
    held = page.page.evaluate("JSON.parse(document.getElementById('thumbnails').textContent).rows")
    assert held == suspects(found)[:5].tolist()
    page.page.select_option("#kind", "all")
    page.page.wait_for_function(
        "[...document.querySelectorAll('#grid img')].length > 8 && "
        "[...document.querySelectorAll('#grid img')].every((one) => one.naturalWidth > 0)"
    )
    sources = page.page.eval_on_selector_all("#grid img", "all => all.map((one) => one.src)")
    assert any(one.startswith("file:") for one in sources)
    assert any(one.startswith("data:") for one in sources)


def test_the_first_to_look_at_are_of_every_kind():
    found = sample(200)
    kinds = found.kinds()
    first = kinds[suspects(found)]
    assert sorted(suspects(found)) == list(range(200))
    assert set(first[:3]) == {AMBIGUOUS, OOD, WRONG} & set(kinds)
    assert (np.diff((first == FINE).astype(int)) >= 0).all()


def test_a_hundred_thousand_images_stay_usable(opened):
    count, k = 100_000, 14
    found = sample(count, k, features=False, hostile=False)
    page = opened(found)
    assert page.page.evaluate("genklReport.kindOf.length") == count
    page.page.select_option("#kind", "all")
    for _ in range(3):  # only what is in sight exists, wherever that is
        assert page.page.locator("#grid .tile").count() < 200
        page.page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
        page.page.wait_for_timeout(200)
    times = page.page.evaluate(
        """() => [0.3, 0.5, 0.7].map((alpha) => {
          const start = performance.now();
          genklReport.at.alpha = alpha;
          genklReport.refresh();
          return performance.now() - start;
        })"""
    )
    assert len(times) == 3  # how long: python -m benchmarks.report
    at = Thresholds(0.7, found.thresholds.max_distance, min_gap=found.thresholds.min_gap)
    np.testing.assert_array_equal(page.kinds(), found.kinds(at))


def test_what_write_page_refuses(tmp_path: Path):
    found = sample()
    with pytest.raises(ValueError, match="images holds 3 images and the assessment 60"):
        write_page(found, tmp_path / "a.html", ImageTensor(torch.rand(3, 3, 4, 4)))
    with pytest.raises(ValueError, match="max_thumbnails is -1"):
        write_page(found, tmp_path / "a.html", max_thumbnails=-1)
    assert not (tmp_path / "a.html").exists()


def test_an_image_that_is_gone_leaves_its_name(opened, tmp_path: Path):
    found = sample(hostile=False)
    images = ImageFiles(tmp_path, found.table["image"].tolist())
    path = write_page(found, tmp_path / "page.html", images)
    page = opened(found, written=path)
    page.page.wait_for_function("document.querySelectorAll('#grid .nothing').length > 3")
    page.errors.clear()  # the browser says that files are not there


# --- The command ---------------------------------------------------------------------------------


def test_the_command_reports_on_a_folder(colors: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("genkl.features.EFFICIENTNET_LITE0", EYES)
    monkeypatch.setenv("GENKL_CACHE", str(tmp_path / "cache"))
    page = tmp_path / "look.html"
    assert main(["report", str(colors), "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert "label likely wrong" in said
    assert "1 could not be read" in said
    assert page.is_file()
    assert pd.read_csv(page.with_suffix(".csv"))["image"].is_unique
    before = page.read_bytes()
    assert main(["report", str(colors), "--out", str(page)]) == 1
    assert "exists; pass --overwrite" in capsys.readouterr().err
    assert page.read_bytes() == before
    assert main(["report", str(colors), "--out", str(page), "--overwrite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 78
    assert set(told["kinds"]) == set(KINDS)
    assert main(["report", str(colors), "--out", str(tmp_path / "b.html"), "--dry-run"]) == 0
    assert "blue, green, red" in capsys.readouterr().out
    assert not (tmp_path / "b.html").exists()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    probs = predictions(50, 3, 1)
    frame = pd.DataFrame(probs, columns=["cat", "dog", "bird"])
    frame.insert(0, "image", [f"{row}.png" for row in range(50)])
    frame["given"] = np.array(["cat", "dog", "bird"])[probs.argmax(axis=1)]
    frame.to_csv(tmp_path / "predictions.csv", index=False)
    return tmp_path / "predictions.csv"


def test_a_table_of_rounded_probabilities_with_some_labels_is_reported_on(table, tmp_path, capsys):
    frame = pd.read_csv(table)
    frame[["cat", "dog", "bird"]] = frame[["cat", "dog", "bird"]].round(1)
    frame["given"] = np.where(np.arange(50) < 5, "-1", frame["given"])
    frame.to_csv(table, index=False, sep=";")
    usual = ["report", str(table), "--id", "image", "--label-column", "given"]
    usual += ["--out", str(tmp_path / "report.html")]
    assert main(usual) == 1
    assert "--normalize if they were rounded" in capsys.readouterr().err
    assert main([*usual, "--normalize"]) == 0
    told = pd.read_csv(tmp_path / "report.csv", keep_default_na=False)
    assert (told["label"] == "-1").tolist() == [row < 5 for row in range(50)]


def test_the_command_reports_on_a_table(table: Path, tmp_path: Path, capsys):
    (tmp_path / "images").mkdir()
    for row in range(50):
        Image.new("RGB", (30, 20), (row, 0, 0)).save(tmp_path / "images" / f"{row}.png")
    np.save(tmp_path / "features.npy", np.random.default_rng(0).normal(size=(50, 4)))
    usual = ["report", str(table), "--id", "image", "--label-column", "given", "--json"]
    page = tmp_path / "report.html"
    given = ["--images", str(tmp_path / "images"), "--features", str(tmp_path / "features.npy")]
    assert main([*usual, *given, "--out", str(page)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["thresholds"]["max_distance"] is not None
    acted = pd.read_csv(told["table"], keep_default_na=False)
    assert acted["image"].tolist() == [f"{row}.png" for row in range(50)]
    assert (acted["label"] == acted["predicted"]).all()
    # The same as an array: numbers, no names.
    probs = pd.read_csv(table)[["cat", "dog", "bird"]].to_numpy()
    np.save(tmp_path / "probs.npy", np.log(probs))
    array = [
        "report",
        str(tmp_path / "probs.npy"),
        "--from-logits",
        "--out",
        str(tmp_path / "b.html"),
    ]
    assert main(array) == 0
    again = pd.read_csv(tmp_path / "b.csv")
    np.testing.assert_allclose(again["score"], acted["score"], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "64"], "--size is given and"),
        (["--images", "."], "--images is given and no --id"),
        (["--id", "image", "--images", "nowhere"], "--images is nowhere, which is no folder"),
        (
            ["--id", "image", "--label-column", "given", "--images", "."],
            "holds none of the first files",
        ),
        (["--features", "x.csv"], "--features is x.csv; its name must end in .npy"),
        (["--features", "x.npy"], "--features x.npy is not there"),
        (["--out", "page.txt"], "--out is page.txt"),
        (["--csv", "table.tsv"], "--csv is table.tsv"),
        (["--alpha", "0"], "alpha is 0"),
        (["--max-thumbnails", "-1"], "--max-thumbnails is -1"),
        (["--id", "name"], "no column 'name', which --id names"),
        ([], "is no probability"),
    ],
)
def test_what_the_command_refuses(
    table: Path, options, message: str, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["report", "predictions.csv", *options]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.html"))


def test_the_table_to_read_is_not_the_one_to_write(table: Path, tmp_path: Path, capsys):
    before = table.read_bytes()
    asked = ["report", str(table), "--id", "image", "--label-column", "given", "--overwrite"]
    assert main([*asked, "--out", str(tmp_path / "predictions.html")]) == 1
    assert "is a file to read from" in capsys.readouterr().err
    assert table.read_bytes() == before


def test_a_folder_has_no_use_for_options_of_a_table(colors: Path, tmp_path: Path, capsys):
    for option in (["--id", "x"], ["--from-logits"], ["--conforming", "x.npy"]):
        assert main(["report", str(colors), *option, "--out", str(tmp_path / "a.html")]) == 1
        assert "which has no use for it" in capsys.readouterr().err
    for option in (["--label-column", "x"], ["--image-column", "x"]):
        assert main(["report", str(colors), *option, "--out", str(tmp_path / "a.html")]) == 1
        assert "and no --labels" in capsys.readouterr().err
    assert (
        main(["report", str(colors), "--weights", "random", "--out", str(tmp_path / "a.html")]) == 1
    )
    assert "no --backbone" in capsys.readouterr().err


@pytest.mark.parametrize(
    "named",
    [
        ["ph", "--labels", "labels.csv", "--out", "ph/labels.html"],  # lies in the folder
        ["ph", "--labels", "ph/../ph/labels.csv", "--csv", "ph/labels.csv"],
        ["ph", "--labels", "labels.csv", "--csv", "link.csv"],
        ["ph", "--labels", "labels.csv", "--csv", "hard.csv"],
        ["p.csv", "--conforming", "c.csv", "--csv", "c.csv"],
        ["p.csv", "--labels", "ph/labels.csv", "--csv", "ph/labels.csv"],
        ["p.csv", "--labels", "page.html", "--out", "page.html"],  # before it is refused
    ],
)
def test_no_file_that_is_read_is_written_to(named, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ph").mkdir()
    for name in ("ph/labels.csv", "p.csv", "c.csv", "page.html"):
        (tmp_path / name).write_text(f"the {name} of a user")
    (tmp_path / "link.csv").symlink_to("ph/labels.csv")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "ph/labels.csv")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    for dry in ([], ["--dry-run"]):
        assert main(["report", *named, "--overwrite", *dry]) == 1
        assert "is a file to read from; choose another name" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_names_that_are_no_files_protect_nothing(table: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["report", str(table), "--id", "image", "--label-column", "given", "--dry-run"]
    for title in ("~nobody", "long" * 100, "nul\0"):
        assert main([*asked, "--title", title]) == 0
