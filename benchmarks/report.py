"""The benchmark of the report: what it finds, what acting on it is worth, large pages.

    GENKL_DATA=/path/to/data python -m benchmarks.report

A folder of clothing photographs gets 30 % planted wrong labels; doubtful photographs and foreign
garments stand in it under some label, as on the web. The report sees photographs and labels only.
Then somebody acts on it in several ways, each with at most 250 labels looked at by hand (the truth
stands in for the hand), and a classifier learns from the outcome. It is tested on photographs of
other senders. The page is opened in a browser (chromium), where there is one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import genkl
from benchmarks.pages import open_browser
from genkl.data import Kind, NoisyDataset, Truth
from genkl.report import KINDS, Assessment, assess, assess_folder, write_page, write_table
from genkl.report.assessment import WRONG
from genkl.report.folder import REGULARISATION
from genkl.report.page import suspects

NOISE = 0.3
BUDGET = 250
PIXELS = 160
PAGE_SIZES = (1_000, 10_000, 100_000)
MODULES = ("genkl.report.assessment", "genkl.report.folder", "benchmarks.report")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="of splits and noise (default 5)")
    parser.add_argument("--out", type=Path, default=Path("results/report/clothing.json"))
    options = parser.parse_args()
    tables: dict[str, list[dict]] = {"found": [], "learned": [], "kinds": []}
    tables["page"] = measure_page()
    for seed in range(options.seeds):
        for name, rows in measure_folder(seed).items():
            tables[name] += [{"seed": seed, **row} for row in rows]
        print(pd.DataFrame(tables["learned"]).query("seed == @seed").to_string(index=False))
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    for name, by in (("found", "what"), ("learned", "way"), ("kinds", "truth")):
        print(frames[name].groupby(by, sort=False).mean(numeric_only=True).round(3).to_string())
    print(frames["page"].round(2).to_string(index=False))
    settings = {"label_noise": NOISE, "budget": BUDGET, "pixels": PIXELS}
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


def measure_folder(seed: int) -> dict[str, list[dict]]:
    """The report on one folder, and a classifier for each way to act on it."""
    dataset, truth = genkl.load_dataset("clothing-dataset", seed=seed, label_noise=NOISE)
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.csv"
        names = write_labels(labels, dataset)
        start = time.perf_counter()
        options = {"class_names": dataset.class_names, "size": PIXELS, "progress": False}
        root = dataset.noisy.inputs.root
        found, images = assess_folder(root, labels, seed=seed, **options)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        page = write_page(found, Path(folder) / "report.html", images)
        written = time.perf_counter() - start
        megabytes = page.stat().st_size / 1e6
    assert found.table["image"].tolist() == names
    inputs = genkl.extract_features(images, size=PIXELS, progress=False).numpy()
    hand = np.where(truth.labels >= 0, truth.labels, -2)  # what a person says: a class, or none
    learned = []
    for way, count, labels in ways(found, inputs, hand, seed):
        kept = labels >= 0
        row = {"way": way, "labels": int(kept.sum()), "by hand": count}
        row["wrong"] = float((labels != hand)[kept].mean())
        learned.append(row | {"test_accuracy": accuracy(inputs, labels, dataset)})
    learned += genkl_rows(dataset, seed)
    return {
        "found": what_is_found(found, truth, seconds, written, megabytes),
        "kinds": by_truth(found, truth),
        "learned": learned,
    }


def write_labels(path: Path, dataset: NoisyDataset) -> list[str]:
    """The table that somebody with a folder has: image, label."""
    images = dataset.noisy.inputs
    names = [str(images.path(row).relative_to(images.root)) for row in range(len(images))]
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


def accuracy(features: np.ndarray, labels: np.ndarray, dataset: NoisyDataset) -> float:
    """Of logistic regression that learns from these labels, on photographs of other senders."""
    kept = labels >= 0
    strength = REGULARISATION / features.shape[1]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
    model.fit(features[kept], labels[kept])
    test = genkl.extract_features(dataset.test.inputs, size=PIXELS, progress=False).numpy()
    return float(model.score(test, dataset.test.labels.numpy()))


def genkl_rows(dataset: NoisyDataset, seed: int) -> list[dict]:
    """The whole method on the same folder, with 250 clean photographs of further senders."""
    features = genkl.featurize(dataset, size=PIXELS, progress=False)
    config = replace(genkl.PHOTOGRAPHS, max_rounds=1)
    options = {"seed": seed, "progress": False}
    runs = {"GenKL, 250 clean ones besides": genkl.run_genkl(features, config, **options)}
    for name, method in (
        ("given labels + fine-tuning, 250 clean ones besides", "given labels + fine-tuning"),
        ("250 clean ones alone", "clean set alone"),
    ):
        runs[name] = genkl.run_baseline(features, config, method, **options)
    row = {"labels": len(dataset.noisy), "by hand": len(dataset.clean), "wrong": None}
    return [
        {"way": name, **row, "test_accuracy": run.best.test_accuracy} for name, run in runs.items()
    ]


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
