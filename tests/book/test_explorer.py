"""The book's explorer in a real browser: its numbers are genkl's, and everybody can use it."""

from __future__ import annotations

import contextlib
import html
import io
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import genkl
from genkl import presets

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "book" / "_static" / "explorer"
PAGE = (ROOT / "book" / "explorer.md").read_text("utf-8")
PRESETS = {
    "Clothing1M": presets.CLOTHING1M,
    "Food-101N": presets.FOOD101N,
    "mini WebVision": presets.MINI_WEBVISION,
}
EXPERIMENTS = [
    (html.unescape(state), verdict)
    for state, verdict in re.findall(r'data-explorer="([^"]+)" data-verdict="([^"]+)"', PAGE)
]

# The lowest contrast between a text of the explorer and what is painted behind it, with the text.
CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3) return color;
    }
    return [255, 255, 255];
  };
  let lowest = [21, ''];
  for (const element of document.querySelectorAll('.genkl-explorer *')) {
    const own = [...element.childNodes].filter((node) => node.nodeType === 3);
    const text = own.map((node) => node.textContent).join('').trim() || element.value;
    if (!text || !element.checkVisibility() || element.matches('[type=range]')) continue;
    const pair = [parse(getComputedStyle(element).color), behind(element)].map(luminance);
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < lowest[0]) lowest = [ratio, text];
  }
  return lowest;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of nothing but the explorer and the buttons of the book's page, as a file."""
    folder = tmp_path_factory.mktemp("book")
    shutil.copytree(STATIC, folder / "_static" / "explorer")
    page = folder / "book" / "explorer.html"
    page.parent.mkdir()
    buttons = "".join(re.findall(r"<button.*</button>", PAGE))
    page.write_text(
        "<!doctype html><html lang=en data-theme=light><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width"><title>Explorer</title>'
        "<style>body { margin: 8px; } html[data-theme=dark] { background: #121212; }</style>"
        f"<article>{(STATIC / 'explorer.html').read_text('utf-8')}{buttons}</article></html>",
        "utf-8",
    )
    return page.as_uri()


class Explorer:
    """The explorer on a page, with what was asked for elsewhere and what went wrong."""

    def __init__(self, browser, address: str, **options) -> None:
        options = {"viewport": {"width": 900, "height": 900}} | options
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.address = address
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", self._asked)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _asked(self, request) -> None:
        if not request.url.startswith("file:"):
            self.elsewhere.append(request.url)

    def _said(self, message) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def open(self, state: str = "") -> Explorer:
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}#{state}" if state else self.address, wait_until="load")
        self.settle()
        return self

    def settle(self) -> None:
        """Two frames: whatever was changed has been drawn."""
        self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def core(self, body: str, argument: object) -> object:
        """Evaluate a function body over `core` and `given` in the page."""
        script = f"(given) => {{ const core = window.genklExplorer.core; {body} }}"
        return self.page.evaluate(script, argument)

    def part(self, name: str):
        return self.page.locator(f'[data-ex="{name}"]')

    def number(self, name: str) -> float:
        return float(self.part(name).get_attribute("value"))

    def text(self, name: str) -> str:
        return self.part(name).text_content()

    def entries(self) -> np.ndarray:
        return np.array([float(e.input_value()) for e in self.page.locator("[data-entry]").all()])

    def pixel(self, q: tuple[float, float, float]) -> tuple[int, ...]:
        """Colour of the triangle at a prediction."""
        return tuple(
            self.page.evaluate(
                """([x, y]) => {
                  const canvas = document.querySelector('[data-ex=canvas]');
                  const width = canvas.clientWidth, ratio = canvas.width / width;
                  const side = width - 60, left = (30 + x * side) * ratio;
                  const top = (34 + (Math.sqrt(3) / 2 - y) * side) * ratio;
                  const pen = new OffscreenCanvas(1, 1).getContext('2d');
                  pen.drawImage(canvas, -Math.round(left), -Math.round(top));
                  return [...pen.getImageData(0, 0, 1, 1).data];
                }""",
                [q[2] + q[0] / 2, np.sqrt(3) / 2 * q[0]],
            )
        )


@pytest.fixture(scope="module")
def shared(browser, address: str) -> Iterator[Explorer]:
    """One page for the tests that only compute in it."""
    explorer = Explorer(browser, address).open()
    yield explorer
    explorer.context.close()


@pytest.fixture
def explorer(browser, address: str) -> Iterator[Explorer]:
    """A fresh page; nothing may be loaded from elsewhere, and nothing may go wrong in it."""
    made = Explorer(browser, address)
    yield made
    made.context.close()
    assert made.elsewhere == []
    assert made.errors == []


# ---- The numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [(2, 200, 0.5, 123), (3, 20, 0.05, 0), (14, 20, 0.05, 1), (50, 20, 0.05, 42), (101, 20, 0, 0),
     (1000, 40, 0.3, 2**32 - 1), (7, 1, 2.0, 2**31)],
)  # fmt: skip
def test_vectors_are_those_of_the_seed(shared: Explorer, setting) -> None:
    drawn = shared.core("return core.uniformLikeVectors(...given).map((p) => [...p])", setting)
    np.testing.assert_allclose(drawn, genkl.uniform_like_vectors(*setting), rtol=0, atol=1e-14)


def test_the_generator_is_numpys_bit_for_bit(shared: Explorer) -> None:
    words = shared.core(
        """const random = new core.RandomState(given);
        return Array.from({length: 1300}, () => random.uint32())""",
        987654321,
    )
    numpy_words = np.random.RandomState(987654321).randint(0, 2**32, 1300, dtype=np.uint64)
    assert words == numpy_words.tolist()


JUDGE = """return given.map(({q, n, sigma, seed, ...setting}) => {
  const vectors = core.uniformLikeVectors(q.length, n, sigma, seed);
  const judged = core.judge(q, vectors, setting);
  return {...judged, entropy: core.entropyScore(q)};
})"""


def check_against_python(shared: Explorer, cases: list[dict]) -> None:
    """D of every vector, votes, critical alpha and entropy of each case."""
    found = shared.core(JUDGE, cases)
    for case, judged in zip(cases, found, strict=True):
        q, alpha, beta = np.array([case["q"]]), case["alpha"], case["beta"]
        vectors = genkl.uniform_like_vectors(q.size, case["n"], case["sigma"], case["seed"])
        rule = {"permutation_invariant": case["invariant"]}
        if case["invariant"]:
            each = [genkl.nc_score(q, beta, p[None], **rule)[0] for p in vectors]
            divergences = genkl.rule.divergence.entropy(vectors) * (np.array(each) - alpha)
        else:
            divergences = genkl.generalized_kl(vectors, q, alpha, beta)
        score = genkl.nc_score(q, beta, vectors, **rule)[0]
        np.testing.assert_allclose(judged["divergences"], divergences, rtol=0, atol=1e-9)
        assert judged["criticalAlpha"] == pytest.approx(score, abs=1e-9)
        assert judged["entropy"] == pytest.approx(genkl.entropy_score(q)[0], abs=1e-9)
        assert judged["votes"] == (divergences >= -1e-12).sum(), case
        assert judged["flagged"] == genkl.identify_nc(q, alpha, beta, vectors, **rule)[0], case


def test_three_classes_give_the_numbers_of_python(shared: Explorer) -> None:
    predictions = np.random.default_rng(0).dirichlet([1, 1, 1], 12).tolist()
    predictions += [[1, 0, 0], [0.5, 0.5, 0], [0.4, 0.4, 0.2], [0.72, 0.14, 0.14]]
    check_against_python(
        shared,
        [
            {"q": q, "alpha": alpha, "beta": beta, "sigma": sigma, "n": n, "seed": seed,
             "invariant": invariant}
            for q, alpha, beta, (sigma, n, seed), invariant in itertools.product(
                predictions, (0.5, 0.9, 1.1), (0.0, 0.1, 0.3),
                ((0.05, 20, 0), (0.3, 150, 7), (0.0, 5, 1)), (False, True),
            )
        ],
    )  # fmt: skip


@pytest.mark.parametrize("k", [2, 14, 50, 101, 1000])
def test_one_peak_gives_the_numbers_of_python(shared: Explorer, k: int) -> None:
    cases = []
    for m, alpha, share in itertools.product((1 / k, 0.3, 0.6, 1.0), (0.9, 1.1), (0.2, 0.8)):
        q = np.full(k, (1 - max(m, 1 / k)) / (k - 1))
        q[0] = max(m, 1 / k)
        setting = {"alpha": alpha, "beta": share / k, "sigma": 0.05, "n": 20, "seed": 3}
        cases += [{"q": q.tolist(), **setting, "invariant": yes} for yes in (False, True)]
    check_against_python(shared, cases)


INTERVALS = """const {k, n, sigma, seed} = given;
const vectors = core.uniformLikeVectors(k, n, sigma, seed);
return [
  core.onePeakIntervals(vectors, given),
  core.onePeakIntervals([new Float64Array(k).fill(1 / k)], given),
]"""


def flagged_peaks(m: np.ndarray, k: int, setting: dict, vectors: np.ndarray) -> np.ndarray:
    q = np.repeat(((1 - m) / (k - 1))[:, None], k, axis=1)
    q[:, 0] = m
    rule = {"permutation_invariant": setting["invariant"]}
    return genkl.identify_nc(q, setting["alpha"], setting["beta"], vectors, **rule)


@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize(
    ("k", "alpha", "beta", "sigma", "n", "seed"),
    [(14, 1.05, 0.03, 0.05, 20, 0), (101, 1.1, 0.008, 0.0, 20, 0), (50, 0.9, 0.015, 0.05, 20, 42),
     (3, 1.05, 0.2, 0.02, 20, 0), (5, 0.55, 0.05, 0.3, 8, 2), (2, 0.3, 0.1, 0.05, 20, 1),
     (10, 1.4, 0.02, 0.01, 3, 5)],
)  # fmt: skip
def test_intervals_of_the_peak_are_where_python_flags(
    shared: Explorer, k, alpha, beta, sigma, n, seed, invariant: bool
) -> None:
    setting = {"k": k, "alpha": alpha, "beta": beta, "sigma": sigma, "n": n, "seed": seed}
    setting["invariant"] = invariant
    m = np.linspace(1 / k, 1, 4001)
    drawn = genkl.uniform_like_vectors(k, n, sigma, seed)
    both = shared.core(INTERVALS, setting)
    for intervals, vectors in zip(both, (drawn, np.full((1, k), 1 / k)), strict=True):
        inside = np.zeros(len(m), dtype=bool)
        at_an_end = np.zeros(len(m), dtype=bool)
        for start, end in intervals:
            inside |= (m >= start) & (m <= end)
            at_an_end |= (abs(m - start) < 1e-6) | (abs(m - end) < 1e-6)
        flagged = flagged_peaks(m, k, setting, vectors)
        np.testing.assert_array_equal(inside[~at_an_end], flagged[~at_an_end])
        for start, end in intervals:
            around = np.array([start - 1e-6, start + 1e-6, end - 1e-6, end + 1e-6])
            expected = np.array([False, True, True, False]) | (around < 1 / k) | (around > 1)
            known = (around >= 1 / k) & (around <= 1) & (start < end)
            found = flagged_peaks(around.clip(1 / k, 1), k, setting, vectors)
            np.testing.assert_array_equal(found[known], expected[known])


@pytest.mark.parametrize("k", [2, 3, 14, 101, 1000])
def test_entropy_along_the_peak_is_that_of_python(shared: Explorer, k: int) -> None:
    m = np.linspace(1 / k, 1, 101)
    q = np.repeat(((1 - m) / (k - 1))[:, None], k, axis=1)
    q[:, 0] = m
    body = "return given.m.map((m) => core.peakEntropyScore(m, given.k))"
    scores = shared.core(body, {"k": k, "m": m.tolist()})
    np.testing.assert_allclose(scores, genkl.entropy_score(q), atol=1e-9)
    for threshold in (0.3, 0.9, 1.0):
        body = "return core.entropyInterval(given.k, given.threshold)"
        ((start, end),) = shared.core(body, {"k": k, "threshold": threshold})
        assert start == 1 / k
        around = np.clip([end - 1e-6, end + 1e-6], 1 / k, 1)
        rest = ((1 - around) / (k - 1))[:, None]
        rows = np.hstack([around[:, None], np.repeat(rest, k - 1, axis=1)])
        inside, outside = genkl.entropy_score(rows)
        assert inside >= threshold - 1e-9
        assert outside < threshold


def test_presets_are_those_of_the_package_and_their_intervals_known(shared: Explorer) -> None:
    stated = shared.core("return core.PRESETS", None)
    names = {"n": "num_vectors", "k": "num_classes"}
    for name, preset in PRESETS.items():
        seed = stated[name].pop("seed")
        assert seed == preset.seeds[0]
        for letter, value in stated[name].items():
            assert value == getattr(preset, names.get(letter, letter))
    assert stated.keys() == PRESETS.keys()
    published = {
        "Clothing1M": (0.274, 0.461),
        "Food-101N": (0.401, 0.810),
        "mini WebVision": (0.02, 0.755),
    }
    for name, ends in published.items():
        setting = {**stated[name], "seed": 0, "invariant": False}
        (interval,) = shared.core(INTERVALS, setting)[1]
        assert interval == pytest.approx(ends, abs=6e-4)


REGION = """const vectors = core.uniformLikeVectors(3, given.n, given.sigma, given.seed);
const {polygons, share} = core.divergenceRegion(vectors, given);
const path = new Path2D();
for (const polygon of polygons) {
  polygon.forEach(([x, y], i) => i ? path.lineTo(x, y) : path.moveTo(x, y));
  path.closePath();
}
const pen = document.createElement('canvas').getContext('2d');
const inside = given.points.map((q) => pen.isPointInPath(path, ...core.simplexXY(q)));
return {inside, share}"""


@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize(
    ("alpha", "beta", "sigma", "n"),
    [(0.7, 0.2, 0.05, 20), (1.05, 0.2, 0.0, 20), (0.8, 0.32, 0.1, 100), (0.5, 0.01, 0.2, 200)],
)
def test_the_drawn_region_is_where_python_flags(
    shared: Explorer, alpha, beta, sigma, n, invariant: bool
) -> None:
    points = np.random.default_rng(1).dirichlet([1, 1, 1], 4000)
    tau = 1 / 3 - beta
    vectors = genkl.uniform_like_vectors(3, n, sigma, 0)
    score = genkl.nc_score(points, beta, vectors, permutation_invariant=invariant)
    setting = {"alpha": alpha, "beta": beta, "sigma": sigma, "n": n, "seed": 0}
    setting["invariant"] = invariant
    drawn = shared.core(REGION, {**setting, "points": points.tolist()})
    clear = (abs(points - tau) > 1e-3).all(axis=1) & (abs(score - alpha) > 0.01)
    assert clear.sum() > 3000
    np.testing.assert_array_equal(np.array(drawn["inside"])[clear], (score >= alpha)[clear])
    assert drawn["share"] == pytest.approx((score >= alpha).mean(), abs=0.04)


def test_the_entropy_region_is_where_python_flags(shared: Explorer) -> None:
    points = np.random.default_rng(2).dirichlet([1, 1, 1], 20_000)
    scores = genkl.entropy_score(points)
    for threshold in (0.4, 0.63, 0.9, 0.99, 1.0):
        share = shared.core("return core.entropyRegion(given).share", threshold)
        assert share == pytest.approx((scores >= threshold).mean(), abs=0.012)
    for share in (0.05, 0.3, 0.9):
        threshold = shared.core("return core.entropyThresholdForShare(given)", share)
        assert (scores >= threshold).mean() == pytest.approx(share, abs=0.015)


STATES = [
    "view=triangle&q=0.2,0.7,0.1&alpha=0.7&beta=0.2",
    "view=triangle&q=0.5,0.3,0.2&alpha=0.95&beta=0.1&sigma=0.2&n=77&seed=4294967295",
    "view=triangle&q=0.1,0.7,0.2&alpha=0.7&beta=0.2&invariant=1",
    "view=peak&k=101&m=0.5&alpha=1.1&beta=0.008&sigma=0",
    "view=peak&k=14&m=0.3&alpha=1.05&beta=0.03&seed=3&invariant=1",
]


@pytest.mark.parametrize("state", STATES)
def test_the_python_it_shows_prints_the_numbers_it_shows(explorer: Explorer, state: str) -> None:
    explorer.open(state)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(explorer.text("python"), {})
    lines = dict(re.findall(r"^(.*?) ([-\d.e]+|True|False)\b", printed.getvalue(), re.MULTILINE))
    assert float(lines["votes"]) == explorer.number("votes")
    assert float(lines["critical alpha"]) == pytest.approx(explorer.number("critical"), abs=1e-9)
    entropy = explorer.number("entropy-score")
    assert float(lines["normalised entropy"]) == pytest.approx(entropy, abs=1e-9)
    flagged = explorer.part("genkl-chip").get_attribute("data-flags") == "true"
    assert (lines["flagged"] == "True") == flagged
    if "largest D" in lines:
        assert float(lines["largest D"]) == pytest.approx(explorer.number("largest"), abs=1e-9)


def test_mean_and_uniform_vector_are_those_of_python(explorer: Explorer) -> None:
    explorer.open(STATES[1])
    q, vectors = [0.5, 0.3, 0.2], genkl.uniform_like_vectors(3, 77, 0.2, 4294967295)
    for name, p in (("mean", vectors.mean(axis=0)), ("uniform", np.full(3, 1 / 3))):
        expected = genkl.generalized_kl(p, q, 0.95, 0.1)
        assert explorer.number(name) == pytest.approx(float(expected), abs=1e-9)
    assert explorer.number("tau") == pytest.approx(1 / 3 - 0.1)
    assert explorer.text("dominant") == "{1, 2}"


# ---- The page ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "verdict"), EXPERIMENTS)
def test_what_the_page_promises_is_seen(explorer: Explorer, state: str, verdict: str) -> None:
    explorer.open()
    button = explorer.page.locator(f'button[data-explorer="{state}"]').first
    button.click()
    explorer.settle()
    assert explorer.text("verdict").startswith(verdict)


def test_the_steps_that_the_page_describes() -> None:
    """Experiments 1, 2, 4 and 5, held against the package."""
    vectors = genkl.uniform_like_vectors(3)
    triangle = np.random.default_rng(0).dirichlet([1, 1, 1], 3000)
    low, high = (genkl.identify_nc(triangle, alpha, 0.2, vectors) for alpha in (0.7, 1.2))
    assert high.sum() < low.sum()
    assert (low | ~high).all()
    q = np.array([[0.72, 0.14, 0.14], [0.73, 0.135, 0.135], [0.74, 0.13, 0.13]])
    first, second, third = genkl.generalized_kl(vectors[:, None], q, 0.9, 0.2).T
    assert (first >= 0).all()
    assert second.max() > first.max() > 0
    assert (third < 0).all()
    entropies = genkl.entropy_score(q)
    assert entropies.max() - entropies.min() < 0.05
    uniform = np.full((1, 3), 1 / 3)
    flagged = [genkl.identify_nc(uniform, alpha, 0.2, uniform)[0] for alpha in (1.05, 1.0)]
    assert flagged == [False, True]
    drawn = [genkl.uniform_like_vectors(3, seed=seed) for seed in range(5)]
    votes = [(genkl.generalized_kl(p, [0.2, 0.7, 0.1], 0.7, 0.2) >= 0).sum() for p in drawn]
    assert votes == [2, 0, 1, 1, 0]  # "two votes, none, one, one, none"
    either = np.array([[0.2, 0.7, 0.1], [0.1, 0.7, 0.2]])
    for p in drawn:
        assert genkl.identify_nc(either, 0.7, 0.2, p, permutation_invariant=True).all()


def test_without_javascript_a_sentence_says_so(browser, address: str) -> None:
    explorer = Explorer(browser, address, java_script_enabled=False)
    explorer.page.goto(address)
    sentence = explorer.page.get_by_text("needs JavaScript")
    assert sentence.is_visible()
    assert not explorer.page.locator(".genkl-explorer").is_visible()
    assert explorer.page.locator("button:visible").count() == 0
    explorer.context.close()
    explorer = Explorer(browser, address).open()
    assert not explorer.page.get_by_text("needs JavaScript").is_visible()
    explorer.context.close()


# ---- Hands -------------------------------------------------------------------------------------


def test_arrow_keys_move_the_prediction(explorer: Explorer) -> None:
    explorer.open("view=triangle&q=0.4,0.4,0.2")
    handle = explorer.part("handle")
    handle.focus()
    for key, expected in [
        ("ArrowUp", [0.41, 0.395, 0.195]), ("ArrowRight", [0.41, 0.385, 0.205]),
        ("ArrowDown", [0.4, 0.39, 0.21]), ("ArrowLeft", [0.4, 0.4, 0.2]),
        ("Shift+ArrowRight", [0.4, 0.399, 0.201]), ("PageUp", [0.5, 0.349, 0.151]),
        ("Home", [0.3333, 0.3333, 0.3333]),
    ]:  # fmt: skip
        explorer.page.keyboard.press(key)
        explorer.settle()
        np.testing.assert_allclose(explorer.entries(), expected, atol=2e-4)
    for _ in range(12):
        explorer.page.keyboard.press("PageUp")
    explorer.settle()
    np.testing.assert_array_equal(explorer.entries(), [1, 0, 0])
    assert handle.get_attribute("aria-valuenow") == "1"
    assert handle.get_attribute("aria-valuetext").startswith("q is 1.000, 0.000, 0.000.")


def test_arrow_keys_move_the_peak(explorer: Explorer) -> None:
    explorer.open("view=peak&k=14&m=0.4")
    explorer.part("handle").focus()
    found = []
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowUp", "End", "Home"):
        explorer.page.keyboard.press(key)
        explorer.settle()
        found.append(float(explorer.page.locator("#ex-m").input_value()))
    assert found == pytest.approx([0.41, 0.4, 0.401, 1, 1 / 14])


def middle(explorer: Explorer) -> tuple[float, float]:
    box = explorer.part("handle").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_mouse_drags_the_prediction(explorer: Explorer) -> None:
    explorer.open("view=triangle&q=0.4,0.4,0.2")
    before = explorer.number("largest")
    x, y = middle(explorer)
    mouse = explorer.page.mouse
    mouse.move(x + 4, y + 3)  # off the centre: the ring must not jump to the pointer
    mouse.down()
    explorer.settle()
    np.testing.assert_allclose(explorer.entries(), [0.4, 0.4, 0.2], atol=2e-3)
    mouse.move(x + 4, y - 56, steps=4)
    explorer.settle()
    raised = explorer.entries()
    assert middle(explorer) == pytest.approx((x, y - 59), abs=1.5)
    assert raised[0] > 0.45
    assert raised.sum() == pytest.approx(1)
    assert explorer.number("largest") != before
    mouse.move(x, y - 3000)
    explorer.settle()
    assert explorer.entries()[0] == 1
    mouse.up()
    mouse.move(x, y)
    explorer.settle()
    assert explorer.entries()[0] == 1


def swipe(explorer: Explorer, *places: tuple[float, float]) -> None:
    """A finger goes down at the first place and up at the last."""
    session = explorer.context.new_cdp_session(explorer.page)
    for kind, (x, y) in zip(["touchStart"] + ["touchMove"] * len(places), places, strict=False):
        points = [{"x": x, "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    session.detach()


@pytest.fixture
def phone(browser, address: str) -> Iterator[Explorer]:
    size = {"width": 360, "height": 740}
    made = Explorer(browser, address, viewport=size, has_touch=True, is_mobile=True)
    yield made
    made.context.close()
    assert made.elsewhere == []
    assert made.errors == []


def test_a_finger_drags_the_prediction(phone: Explorer) -> None:
    phone.open("view=triangle&q=0.4,0.4,0.2")
    scrolled = phone.page.evaluate("scrollY")
    x, y = middle(phone)
    swipe(phone, *[(x + step, y - 8 * step) for step in range(6)])
    phone.settle()
    assert middle(phone) == pytest.approx((x + 5, y - 40), abs=1.5)
    assert phone.entries()[0] > 0.5
    assert phone.page.evaluate("scrollY") == scrolled


def test_a_tap_moves_the_prediction(phone: Explorer) -> None:
    phone.open("view=triangle&q=0.1,0.1,0.8")
    box = phone.part("canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 140
    phone.page.touchscreen.tap(x, y)
    phone.settle()
    assert middle(phone) == pytest.approx((x, y), abs=2)


def test_a_swipe_over_the_picture_scrolls_the_page(phone: Explorer) -> None:
    phone.open("view=triangle&q=0.1,0.1,0.8")
    before = phone.page.evaluate("scrollY")
    box = phone.part("canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 200
    swipe(phone, *[(x, y - 20 * step) for step in range(6)])
    phone.page.wait_for_function("(before) => scrollY > before", arg=before)
    np.testing.assert_allclose(phone.entries(), [0.1, 0.1, 0.8])


def test_sliders_and_fields_change_the_same_numbers(explorer: Explorer) -> None:
    explorer.open("view=triangle&q=0.4,0.4,0.2&alpha=0.9&beta=0.1")
    page = explorer.page
    page.locator("#ex-alpha").fill("0.75")
    explorer.settle()
    assert page.locator('[data-range="alpha"]').input_value() == "0.75"
    assert "α = 0.75" in explorer.text("critical-sign")
    page.locator('[data-range="beta"]').fill("0.2")
    explorer.settle()
    assert page.locator("#ex-beta").input_value() == "0.2"
    assert explorer.number("tau") == pytest.approx(1 / 3 - 0.2)
    page.locator('[data-entry="0"]').fill("0.7")
    explorer.settle()
    np.testing.assert_allclose(explorer.entries(), [0.7, 0.2, 0.1], atol=1e-4)


@pytest.mark.parametrize(
    ("field", "bad"),
    [("alpha", "0"), ("beta", "0.4"), ("sigma", "-1"), ("n", "2.5"), ("n", ""), ("seed", "-3"),
     ("entropy", "1.2")],
)  # fmt: skip
def test_a_bad_number_is_marked_and_not_used(explorer: Explorer, field: str, bad: str) -> None:
    explorer.open()
    before = explorer.text("python")
    given = explorer.page.locator(f"#ex-{field}")
    usual = given.input_value()
    given.fill(bad)
    explorer.settle()
    assert given.get_attribute("aria-invalid") == "true"
    assert explorer.text("python") == before
    given.blur()
    explorer.page.wait_for_timeout(50)
    assert given.input_value() == usual
    assert given.get_attribute("aria-invalid") is None


def test_another_number_of_classes_keeps_beta_below_its_reciprocal(explorer: Explorer) -> None:
    explorer.open("view=peak&k=14&m=0.08&beta=0.06")
    for k in (2, 3, 10, 100, 1000):
        explorer.page.locator("#ex-k").fill(str(k))
        explorer.settle()
        assert 0 <= float(explorer.page.locator("#ex-beta").input_value()) < 1 / k
        assert float(explorer.page.locator("#ex-m").input_value()) >= 1 / k
        assert explorer.number("tau") > 0


def test_presets_and_reset(explorer: Explorer) -> None:
    explorer.open("view=peak&k=5&m=0.5")
    button = explorer.page.get_by_role("button", name="mini WebVision").first
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    explorer.settle()
    assert button.get_attribute("aria-pressed") == "true"
    assert explorer.text("uniform-intervals") == "[0.020, 0.755]"
    explorer.page.get_by_role("button", name="Reset").click()
    explorer.settle()
    fresh = explorer.text("python")
    explorer.open("view=peak")
    assert explorer.text("python") == fresh


def test_same_area_gives_the_regions_the_same_area(explorer: Explorer) -> None:
    explorer.open("view=triangle&q=0.2,0.7,0.1&alpha=0.9&beta=0.2")
    explorer.page.get_by_role("button", name="Same area").click()
    explorer.settle()
    shares = [float(explorer.text(f"{rule}-share").split()[0]) for rule in ("genkl", "entropy")]
    assert shares[0] == pytest.approx(shares[1], abs=0.4)


# ---- Sharing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_an_address_brings_the_view_back(explorer: Explorer, state: str) -> None:
    explorer.open(state)
    explorer.part("handle").focus()
    explorer.page.keyboard.press("ArrowDown")
    explorer.settle()
    seen = explorer.text("python")
    explorer.page.wait_for_function("decodeURIComponent(location.hash).includes('alpha=')")
    explorer.page.wait_for_timeout(600)
    written = explorer.page.evaluate("location.hash.slice(1)")
    explorer.open(written)
    assert explorer.text("python") == seen
    assert (
        explorer.page.evaluate(
            """(words) => {
              const {view, settings} = genklExplorer.readAddress(words);
              return genklExplorer.writeAddress(view, settings);
            }""",
            written,
        )
        == written
    )


def test_copy_link_and_copy_as_python_copy(browser, address: str) -> None:
    granted = ["clipboard-read", "clipboard-write"]
    explorer = Explorer(browser, address, permissions=granted).open(STATES[0])
    explorer.page.get_by_role("button", name="Copy as Python").click()
    explorer.page.get_by_role("button", name="Copied").wait_for()
    copied = explorer.page.evaluate("navigator.clipboard.readText()")
    assert copied == explorer.text("python")
    explorer.page.get_by_role("button", name="Copy link").click()
    explorer.page.wait_for_timeout(100)
    link = explorer.page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(f"{address}#view=triangle&q=0.2,0.7,0.1&alpha=0.7&beta=0.2")
    explorer.context.close()


@pytest.mark.parametrize(
    "address_words",
    ["view=triangle&q=0.9,0.9,0.9&alpha=-1&beta=7&n=x&seed=1e99&sigma=", "view=nothing",
     "six-things-to-try", "view=peak&k=1&m=3&beta=0.5", "view=toString"],
)  # fmt: skip
def test_a_bad_address_does_no_harm(explorer: Explorer, address_words: str) -> None:
    view = "view=peak" if "peak" in address_words else ""
    explorer.open(view)
    usual = explorer.text("python")
    explorer.open(address_words)
    assert explorer.text("python") == usual


# ---- For everybody -----------------------------------------------------------------------------


def test_the_verdict_is_told_once_the_hand_rests(explorer: Explorer) -> None:
    explorer.open("view=triangle&q=0.72,0.14,0.14&alpha=0.9&beta=0.2")
    assert explorer.text("status") == ""
    explorer.part("handle").focus()
    explorer.page.keyboard.press("ArrowUp")
    explorer.page.keyboard.press("ArrowUp")
    status = explorer.page.locator('[data-ex="status"]:not(:empty)')
    status.wait_for(state="attached")
    assert status.text_content().startswith("Neither rule flags it. 0 of 20 vectors vote")


@pytest.mark.parametrize("state", [STATES[0], STATES[3]])
def test_everything_has_a_name(explorer: Explorer, state: str) -> None:
    explorer.open(state)
    nameless = explorer.page.evaluate(
        """() => [...document.querySelectorAll('.genkl-explorer *')]
          .filter((element) => element.matches('input, button, canvas, [role]'))
          .filter((element) => element.checkVisibility())
          .filter((element) => !element.matches('[role=status]') && !element.ariaLabel &&
            !element.textContent.trim() && ![...element.labels || []].length)
          .map((element) => element.outerHTML)"""
    )
    assert nameless == []
    handle = explorer.page.get_by_role("slider", name=re.compile("Prediction q|Peak m"))
    assert handle.count() == 1
    ids = explorer.page.eval_on_selector_all("[id]", "found => found.map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_the_focus_can_be_seen_on_every_control(explorer: Explorer) -> None:
    explorer.open()
    seen = set()
    for _ in range(30):
        explorer.page.keyboard.press("Tab")
        found = explorer.page.evaluate(
            """() => {
              const at = document.activeElement;
              if (!at.closest('.genkl-explorer')) return null;
              const part = at.matches('.ex-handle') ? '::before' : null;
              const style = getComputedStyle(at, part);
              return [at.outerHTML, style.outlineStyle, parseFloat(style.outlineWidth)];
            }"""
        )
        if found:
            seen.add(found[0])
            assert found[1] == "solid", found[0]
            assert found[2] >= 2, found[0]
    assert len(seen) >= 20


@pytest.mark.parametrize("state", [STATES[0], STATES[3]])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_in_both_themes(explorer: Explorer, theme: str, state: str) -> None:
    explorer.open(state)
    explorer.page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
    explorer.part("code").evaluate("(details) => { details.open = true; }")
    for flags in ("true", "false"):
        for chip in ("genkl-chip", "entropy-chip"):
            explorer.part(chip).evaluate("(e, flags) => { e.dataset.flags = flags; }", flags)
        ratio, text = explorer.page.evaluate(CONTRAST)
        assert ratio >= 4.5, text


def test_the_picture_follows_the_theme_while_it_is_looked_at(explorer: Explorer) -> None:
    explorer.open("view=triangle&q=0.2,0.7,0.1&alpha=0.9&beta=0.2&contours=0")
    kept, flagged = (0.9, 0.05, 0.05), (0.66, 0.17, 0.17)
    light = explorer.pixel(kept), explorer.pixel(flagged)
    assert light == ((0xF2, 0xF2, 0xF2, 255), (0x00, 0x72, 0xB2, 255))
    explorer.page.evaluate("() => { document.documentElement.dataset.theme = 'dark'; }")
    explorer.settle()
    dark = explorer.pixel(kept), explorer.pixel(flagged)
    assert max(dark[0][:3]) < 80
    assert dark[1] != light[1]
    explorer.page.evaluate("() => { document.documentElement.dataset.theme = 'light'; }")
    explorer.settle()
    assert (explorer.pixel(kept), explorer.pixel(flagged)) == light


def test_colours_are_those_of_the_books_figures() -> None:
    from genkl.plots import BLUE, ORANGE

    sheet = (STATIC / "explorer.css").read_text("utf-8")
    assert f"--ex-genkl: {BLUE.lower()};" in sheet
    assert f"--ex-entropy: {ORANGE.lower()};" in sheet


@pytest.mark.parametrize("width", [320, 360, 700, 701])
@pytest.mark.parametrize("state", [STATES[0], STATES[3]])
def test_nothing_is_wider_than_a_phone(explorer: Explorer, state: str, width: int) -> None:
    explorer.page.set_viewport_size({"width": width, "height": 740})
    explorer.open(state)
    explorer.part("code").evaluate("(details) => { details.open = true; }")
    assert explorer.page.evaluate("document.documentElement.scrollWidth") <= width
    canvas = explorer.part("canvas").bounding_box()
    assert canvas["width"] >= min(0.5 * width, 300)


def test_the_picture_is_as_sharp_as_the_screen(browser, address: str) -> None:
    explorer = Explorer(browser, address, device_scale_factor=2).open()
    columns, width = explorer.part("canvas").evaluate("(c) => [c.width, c.clientWidth]")
    assert columns == 2 * width
    explorer.context.close()


def test_only_the_explorers_own_page_loads_it() -> None:
    users = [path.name for path in (ROOT / "book").glob("*.md") if "explorer/" in path.read_text()]
    assert users == ["explorer.md"]
    assert "explorer" not in (ROOT / "_config.yml").read_text()
    fragment = (STATIC / "explorer.html").read_text("utf-8")
    assert re.findall(r'(?:src|href)="(?!\.\./_static/explorer/)', fragment) == []
    names = re.findall(r'(?:src|href)="\.\./_static/explorer/([^"]+)"', fragment)
    assert sorted([*names, "explorer.html"]) == sorted(path.name for path in STATIC.iterdir())
    assert not re.search(r"https?://", json.dumps([p.read_text("utf-8") for p in STATIC.iterdir()]))
