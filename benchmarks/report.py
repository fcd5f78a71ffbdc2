"""The benchmark of the report: what it finds, what acting on it is worth, large pages.

    GENKL_DATA=/path/to/data python -m benchmarks.report

A folder of clothing photographs gets 30 % planted wrong labels; doubtful photographs and foreign
garments stand in it under the label of the nearest garment that conforms, as on the web; or, beside
that, under one at random. The report sees photographs and labels only. Then somebody acts on it in
several ways, each with at most 250 labels looked at by hand (the truth stands in for the hand), and
a classifier learns from the outcome. The methods of `benchmarks.learning` are run as they come, and
with the settings that its search chose for these photographs. All are tested on the photographs of
the same other senders, which that search has never seen. The page is opened in a browser
(chromium), where there is one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import genkl
from benchmarks import splits, studies
from benchmarks.pages import open_browser
from genkl.data import Kind, NoisyDataset, Truth
from genkl.data.clothing_dataset import read_clothing_dataset
from genkl.data.planting import label_strangers
from genkl.data.registry import CLOTHING_DATASET
from genkl.data.sources import find_data
from genkl.report import KINDS, Assessment, assess, assess_folder, write_page, write_table
from genkl.report.assessment import WRONG
from genkl.report.folder import REGULARISATION
from genkl.report.page import suspects

CASE = studies.CASES["clothing"]
WAYS = ("nearest class", "random")
"""Of strangers to get a label, the main one first."""
METHODS = ("GenKL", "given labels + fine-tuning", "clean set alone", "gold loss correction")
RECORD = Path("results/learning/main/clothing.json")
"""Where the settings are that the search chose."""
BUDGET = 250
PAGE_SIZES = (1_000, 10_000, 100_000)
MODULES = ("genkl.report.assessment", "genkl.report.folder", "genkl.baselines", "genkl.learn")
MODULES += ("benchmarks.report", "benchmarks.splits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="of splits and noise (default 5)")
    parser.add_argument("--out", type=Path, default=Path("results/report/clothing.json"))
    options = parser.parse_args()
    tables: dict[str, list[dict]] = {"found": [], "learned": [], "kinds": []}
    tables["page"] = measure_page()
    for seed in range(options.seeds):
        for way in WAYS:
            for name, rows in measure_folder(seed, way).items():
                tables[name] += [{"seed": seed, "labels": way, **row} for row in rows]
        print(pd.DataFrame(tables["learned"]).query("seed == @seed").to_string(index=False))
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    for name, by in (("found", "what"), ("learned", "way"), ("kinds", "truth")):
        print(
            frames[name]
            .groupby(["labels", by], sort=False)
            .mean(numeric_only=True)
            .round(3)
            .to_string()
        )
    print(frames["page"].round(2).to_string(index=False))
    settings = {"label_noise": CASE.options["label_noise"], "budget": BUDGET}
    settings |= {"pixels": CASE.pixels, "ood_labels": list(WAYS)}
    path = genkl.save_record(
        options.out,
        title="The report on a folder of photographs: what it finds, what acting on it is worth",
        tables=frames,
        settings=settings | {"seeds": options.seeds},
        code=MODULES,
        overwrite=True,
    )
    print(f"written: {path}")


# --- What it finds, and what that is worth -------------------------------------------------------


def draw_folder(seed: int, labels: str) -> tuple[NoisyDataset, Truth]:
    """The photographs as features, and the truth; strangers labelled in that way."""
    images, truth = splits.draw(CASE.dataset, seed, **CASE.options)
    features = genkl.featurize(images, size=CASE.pixels, progress=False)
    return label_strangers(features, truth, labels, truth.labels < 0, seed)


def measure_folder(seed: int, labelled: str) -> dict[str, list[dict]]:
    """The report on one folder, and a classifier for each way to act on it."""
    dataset, truth = draw_folder(seed, labelled)
    root = find_data(CLOTHING_DATASET)
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.csv"
        names = write_labels(labels, dataset, read_clothing_dataset(root)[0])
        start = time.perf_counter()
        options = {"class_names": dataset.class_names, "size": CASE.pixels, "progress": False}
        found, images = assess_folder(root, labels, seed=seed, **options)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        page = write_page(found, Path(folder) / "report.html", images)
        written = time.perf_counter() - start
        megabytes = page.stat().st_size / 1e6
    assert found.table["image"].tolist() == names
    inputs = dataset.noisy.inputs.numpy()
    hand = np.where(truth.labels >= 0, truth.labels, -2)  # what a person says: a class, or none
    learned = []
    for way, count, labels in ways(found, inputs, hand, seed):
        kept = labels >= 0
        row = {"way": way, "learned from": int(kept.sum()), "by hand": count}
        row["wrong"] = float((labels != hand)[kept].mean())
        learned.append(row | {"test_accuracy": accuracy(inputs, labels, dataset)})
    learned += method_rows(dataset, seed)
    return {
        "found": what_is_found(found, truth, seconds, written, megabytes),
        "kinds": by_truth(found, truth),
        "learned": learned,
    }


def write_labels(path: Path, dataset: NoisyDataset, listed: pa.StringArray) -> list[str]:
    """The table that somebody with a folder has: image, label."""
    names = [f"images/{listed[row]}.jpg" for row in dataset.noisy.ids.tolist()]
    given = np.array(dataset.class_names)[dataset.noisy.labels.numpy()]
    pd.DataFrame({"image": names, "label": given}).to_csv(path, index=False)
    return names


def ways(found: Assessment, features: np.ndarray, hand: np.ndarray, seed: int):
    """Ways to act on a report: name, labels looked at, labels to learn from (-1: left out)."""
    given = found.table["given"].to_numpy()
    first = suspects(found)[:BUDGET]
    random = np.random.default_rng(seed).choice(len(given), BUDGET, replace=False)

    def with_hand(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        labels = labels.copy()
        labels[rows] = hand[rows]
        return np.where(labels == -2, -1, labels)

    def again(rows: np.ndarray) -> np.ndarray:
        """The suggestions of a second report, which has learned from what was looked at."""
        verified = np.full(len(given), -1)
        verified[rows] = hand[rows]
        is_nc = verified == -2
        verified[is_nc] = -1
        taught = np.where(verified >= 0, verified, given)
        taught[is_nc] = -1
        probs = genkl.report.held_out_probs(features, taught, len(found.class_names), seed=seed)
        known = {"features": features, "verified_labels": verified, "is_nc": is_nc}
        second = assess(probs, given, alpha=found.thresholds.alpha, seed=seed, **known)
        return suggested(second)

    yield "given labels", 0, given
    yield "leave out what is flagged or likely wrong", 0, left_out(found)
    yield "take the suggestions", 0, suggested(found)
    yield "250 at random by hand, the rest as given", BUDGET, with_hand(given, random)
    yield "250 first by hand, the rest as given", BUDGET, with_hand(given, first)
    own = suggested(found)
    yield "250 at random by hand, the rest as suggested", BUDGET, with_hand(own, random)
    yield "250 first by hand, the rest as suggested", BUDGET, with_hand(own, first)
    yield "250 first by hand, a second report, suggestions", BUDGET, with_hand(again(first), first)
    yield "the truth", len(given), np.where(hand == -2, -1, hand)


def suggested(found: Assessment) -> np.ndarray:
    """The column ``suggestion``: the given label, another one, or none (-1)."""
    kinds, table = found.kinds(), found.table
    labels = np.where(kinds == WRONG, table["predicted"], table["given"])
    return np.where(kinds < WRONG, -1, labels)


def left_out(found: Assessment) -> np.ndarray:
    """Only what looks fine, under its given label."""
    return np.where(found.kinds() <= WRONG, -1, found.table["given"])


def accuracy(inputs: np.ndarray, labels: np.ndarray, dataset: NoisyDataset) -> float:
    """Of logistic regression that learns from these labels, on photographs of other senders."""
    kept = labels >= 0
    strength = REGULARISATION / inputs.shape[1]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
    model.fit(inputs[kept], labels[kept])
    return float(model.score(dataset.test.inputs.numpy(), dataset.test.labels.numpy()))


def method_rows(features: NoisyDataset, seed: int) -> list[dict]:
    """Methods on the same folder, with 250 clean photographs of further senders."""
    chosen = studies.as_chosen(pd.DataFrame(genkl.load_record(RECORD)["tables"]["chosen"]))
    config, rows = studies.config_of("clothing"), []
    for method in METHODS:
        tried = {"as it comes": None, "tuned": chosen["clothing", method]}
        for tuning, settings in tried.items():
            options = {"seed": seed, "settings": settings, "progress": False, "engine": "cpu"}
            run = genkl.run_method(method, features, config, **options)
            row = {"way": f"{method}, {len(features.clean)} clean ones besides", "tuning": tuning}
            row |= {"learned from": len(features.noisy), "by hand": len(features.clean)}
            rows.append(row | {"test_accuracy": run.best.test_accuracy})
    return rows


def what_is_found(
    found: Assessment, truth: Truth, seconds: float, written: float, megabytes: float
) -> list[dict]:
    """How good the signs are, as shares."""
    kinds, given = found.kinds(), found.table["given"].to_numpy()
    planted = truth.kinds == Kind.MISLABELLED
    nc, flagged, wrong = truth.is_nc, kinds < WRONG, kinds == WRONG
    first = suspects(found)[:BUDGET]
    conforming = ~nc
    doubt = found.table["gap"].to_numpy()
    doubts = planted[conforming], doubt[conforming]
    right = found.table["predicted"].to_numpy() == truth.labels
    values = {
        "planted wrong labels": planted.mean(),
        "non-conforming": nc.mean(),
        "called wrong: planted wrong or non-conforming": (planted | nc)[wrong].mean(),
        "planted wrong labels called wrong": wrong[planted].mean(),
        "right labels called wrong": wrong[conforming & ~planted].mean(),
        "suggestions that are the true class": right[wrong].mean(),
        "flagged: non-conforming": nc[flagged].mean(),
        "non-conforming flagged": flagged[nc].mean(),
        "conforming flagged": flagged[conforming].mean(),
        "the first 250: wrong or non-conforming": (planted | nc)[first].mean(),
        "AUROC of the doubt for planted wrong labels": roc_auc_score(*doubts),
        "AUROC of critical alpha for non-conforming": roc_auc_score(nc, found.table["score"]),
        "seconds: features and predictions": seconds,
        "seconds: page": written,
        "megabytes: page": megabytes,
        "images": len(given),
    }
    return [{"what": name, "value": float(value)} for name, value in values.items()]


def by_truth(found: Assessment, truth: Truth) -> list[dict]:
    """What each kind of truth looks like to the report."""
    kinds = found.kinds()
    names = {
        Kind.CORRECT: "right label",
        Kind.MISLABELLED: "planted wrong label",
        Kind.AMBIGUOUS: "people weren't sure",
        Kind.OOD: "no such garment among the classes",
        Kind.NC: "skipped by people",
    }
    rows = []
    for kind, name in names.items():
        of_kind = truth.kinds == kind
        shares = np.bincount(kinds[of_kind], minlength=len(KINDS)) / max(of_kind.sum(), 1)
        row = {"truth": name, "images": int(of_kind.sum())}
        rows.append(row | dict(zip(KINDS, shares.tolist(), strict=True)))
    return rows


# --- The page ------------------------------------------------------------------------------------


def measure_page() -> list[dict]:
    """Loading, moving a threshold, sorting and scrolling in a browser, for several sizes."""
    rows = []
    with open_browser() as browser, tempfile.TemporaryDirectory() as folder:
        if browser is None:
            print("no browser: the page was not measured")
            return []
        for count in PAGE_SIZES:
            rng = np.random.default_rng(0)
            logits = rng.normal(size=(count, 14)) * rng.uniform(0, 5, size=(count, 1))
            probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            names = [f"some/folder/{row:012}.jpg" for row in range(count)]
            found = assess(probs, rng.integers(0, 14, count), names=names)
            path = write_page(found, Path(folder) / f"{count}.html")
            start = time.perf_counter()
            write_table(found, Path(folder) / "table.csv")
            row = {"images": count, "megabytes": path.stat().st_size / 1e6}
            row["csv seconds"] = time.perf_counter() - start
            rows.append(row | in_browser(browser, path))
    return rows


def in_browser(browser, path: Path) -> dict:
    """Seconds until the page is there, and until it has answered (medians of five)."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    start = time.perf_counter()
    page.goto(path.as_uri(), wait_until="load")
    loading = time.perf_counter() - start
    measured = page.evaluate(
        """async () => {
          const frame = () => new Promise((done) =>
            requestAnimationFrame(() => requestAnimationFrame(done)));
          const median = async (act) => {
            const times = [];
            for (let i = 0; i < 5; i += 1) {
              const start = performance.now();
              act(i);
              await frame();
              times.push((performance.now() - start) / 1000);
            }
            return times.sort((a, b) => a - b)[2];
          };
          const choose = (name, value) => {
            const field = document.getElementById(name);
            field.value = value;
            field.dispatchEvent(new Event('change'));
          };
          return {
            'a threshold moves': await median((i) => {
              genklReport.at.alpha = 0.3 + 0.1 * i;
              genklReport.refresh();
            }),
            'another order': await median((i) => choose('sort', ['gap', 'score'][i % 2])),
            'another class': await median((i) => choose('class', String(i))),
            'all, scrolled': (choose('class', ''), choose('kind', 'all'),
              await median((i) => scrollTo(0, document.body.scrollHeight * (0.1 + 0.15 * i)))),
            'tiles in the page': document.querySelectorAll('.tile').length,
          };
        }"""
    )
    page.close()
    return {"loading": loading, **measured}


if __name__ == "__main__":
    main()
