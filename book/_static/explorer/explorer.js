/* The explorer itself: what is set, what is shown, and how mouse, touch and keyboard change it.

   One object `state` holds everything. An event changes it and calls `changed`, which draws once
   before the next frame. The address after # is the state in words, so that a view can be shared. */
(function () {
  "use strict";

  const { core, drawing } = window.genklExplorer;

  const COMMON = { sigma: 0.05, n: 20, seed: 0, invariant: false, entropy: 0.9 };
  const DEFAULTS = {
    triangle: { q: [0.2, 0.7, 0.1], alpha: 0.7, beta: 0.2, ...COMMON, contours: true },
    peak: { m: 0.4, ...core.PRESETS["Clothing1M"], invariant: false, entropy: 0.9 },
  };
  const REST_MS = 500; // without a change, before a screen reader is told and the address written

  /** What a setting may be, and how far its slider reaches. */
  function limits(name, settings) {
    const k = settings.k || 3;
    const betaStep = 10 ** (Math.floor(Math.log10(1 / k)) - 2);
    const betaMax = round((Math.ceil(1 / k / betaStep - 1e-9) - 1) * betaStep, 8);
    return {
      alpha: { min: 0.01, max: 10, step: 0.01, slider: [0.3, 1.6] },
      beta: { min: 0, max: betaMax, step: betaStep, slider: [0, betaMax] },
      sigma: { min: 0, max: 5, step: 0.005, slider: [0, 0.3] },
      n: { min: 1, max: core.MAX_VECTORS, step: 1, slider: [1, core.MAX_VECTORS] },
      seed: { min: 0, max: core.MAX_SEED, step: 1, slider: [0, 99] },
      entropy: { min: 0, max: 1, step: 0.005, slider: [0.4, 1] },
      k: { min: 2, max: core.MAX_CLASSES, step: 1, slider: [2, 200] },
      m: { min: 1 / k, max: 1, step: 0.001, slider: [0, 1] },
    }[name];
  }

  const WHOLE = new Set(["n", "seed", "k"]);

  /** The number that a text states, if the setting allows it; else null. */
  function parseNumber(name, text, settings) {
    const value = text.trim() === "" ? NaN : Number(text);
    const { min, max } = limits(name, settings);
    const allowed = value >= min && value <= max && (!WHOLE.has(name) || Number.isInteger(value));
    return allowed ? value : null;
  }

  function clamp(value, min, max) {
    return Math.min(Math.max(value, min), max);
  }

  function round(value, decimals) {
    return Number(value.toFixed(decimals));
  }

  /** A prediction over three classes with a few decimals, still adding up to one. */
  function snap(q, decimals) {
    const whole = 10 ** decimals;
    const first = Math.round(q[0] * whole);
    const second = Math.min(Math.round(q[1] * whole), whole - first);
    return [first, second, whole - first - second].map((part) => part / whole);
  }

  /** For reading: so many decimals, and a real minus sign. */
  function show(value, decimals = 3) {
    return value.toFixed(decimals).replace(/^-(?=0\.?0*$)/, "").replace("-", "−");
  }

  function showIntervals(intervals) {
    if (!intervals.length) return "none";
    return intervals.map(([from, to]) => `[${show(from)}, ${show(to)}]`).join(", ");
  }

  /* ---- The state as words ------------------------------------------------------------------------ */

  function writeAddress(view, settings) {
    const words = Object.entries(settings).map(([name, value]) => {
      if (typeof value === "boolean") return `${name}=${Number(value)}`;
      return `${name}=${Array.isArray(value) ? value.join() : value}`;
    });
    return `view=${view}&${words.join("&")}`;
  }

  /** View and settings that an address states; what it lacks or gets wrong keeps its default.
   *  Null if it is about something else. */
  function readAddress(address) {
    const words = new URLSearchParams(address.replace(/^#/, ""));
    const view = words.get("view");
    if (!Object.hasOwn(DEFAULTS, view)) return null;
    const settings = structuredClone(DEFAULTS[view]);
    // k comes first: it limits beta and m.
    for (const name of ["k", ...Object.keys(settings)]) {
      const text = words.get(name);
      if (text === null || !(name in settings)) continue;
      if (typeof settings[name] === "boolean") {
        settings[name] = text === "1";
      } else if (name === "q") {
        const q = text.split(",").map(Number);
        const sum = q.reduce((total, entry) => total + entry, 0);
        if (q.length === 3 && q.every((entry) => entry >= 0) && Math.abs(sum - 1) < 1e-3) {
          settings.q = q;
        }
      } else {
        settings[name] = parseNumber(name, text, settings) ?? settings[name];
      }
    }
    settings.beta = clamp(settings.beta, 0, limits("beta", settings).max);
    if (view === "peak") settings.m = clamp(settings.m, 1 / settings.k, 1);
    return { view, settings };
  }

  /* ---- The numbers of a view ---------------------------------------------------------------------- */

  /** All that is shown about the chosen prediction. */
  function evaluate(view, settings, vectors) {
    const q = view === "triangle" ? Float64Array.from(settings.q) : core.onePeak(settings.m, settings.k);
    const k = q.length;
    const against = (p) => core.judge(q, [p], settings).largest;
    const judged = core.judge(q, vectors, settings);
    const entropy = core.entropyScore(q);
    return {
      q,
      k,
      ...judged,
      mean: against(core.meanVector(vectors)),
      uniform: against(new Float64Array(k).fill(1 / k)),
      tau: core.dominanceThreshold(k, settings.beta),
      dominant: core.dominantEntries(q, settings.beta),
      entropy,
      entropyFlags: core.isVote(entropy - settings.entropy),
    };
  }

  function verdict({ flagged, entropyFlags }) {
    if (flagged && entropyFlags) return "Both rules flag it.";
    if (flagged) return "Only the divergence flags it.";
    return entropyFlags ? "Only entropy flags it." : "Neither rule flags it.";
  }

  function reason({ dominant, k, votes, divergences }) {
    const voting = `${votes} of ${divergences.length} vectors vote non-conforming`;
    if (dominant.length === k) return `${voting}; all ${k} classes are dominant.`;
    const names = dominant.map((j) => j + 1);
    if (k > 3 || names.length === 1) return `${voting}; only class ${names[0]} is dominant.`;
    return `${voting}; classes ${names.join(" and ")} are dominant.`;
  }

  /** The calls of `genkl` that give the same numbers. */
  function asPython(view, s) {
    const k = view === "triangle" ? 3 : s.k;
    const q =
      view === "triangle"
        ? `q = np.array([[${s.q.join(", ")}]])`
        : `q = np.full((1, ${k}), (1 - ${s.m}) / ${k - 1})\nq[0, 0] = ${s.m}`;
    const option = s.invariant ? ", permutation_invariant=True" : "";
    const votes = s.invariant
      ? `scores = [genkl.nc_score(q, ${s.beta}, p[None]${option})[0] for p in vectors]
votes = sum(score >= ${s.alpha} for score in scores)`
      : `D = genkl.generalized_kl(vectors, q, alpha=${s.alpha}, beta=${s.beta})
votes = (D >= 0).sum()
print("largest D", D.max())`;
    return `import numpy as np
import genkl

${q}
vectors = genkl.uniform_like_vectors(${k}, ${s.n}, ${s.sigma}, seed=${s.seed})
${votes}
print("votes", votes, "of", len(vectors))
print("flagged", genkl.identify_nc(q, ${s.alpha}, ${s.beta}, vectors${option})[0])
print("critical alpha", genkl.nc_score(q, ${s.beta}, vectors${option})[0])
print("normalised entropy", genkl.entropy_score(q)[0])
`;
  }

  /* ---- The explorer on the page --------------------------------------------------------------------- */

  function start(root) {
    const find = (name) => root.querySelector(`[data-ex="${name}"]`);
    const stage = find("stage");
    const canvas = find("canvas");
    const handle = find("handle");
    const strip = find("strip");
    const sheet = document.createElement("canvas");

    let view = "triangle";
    const all = structuredClone(DEFAULTS);
    let colors = readColors();
    let frame = null;
    let sheetKey = "";
    let regionsKey = "";
    let regions = null;
    let entropyRegion = { threshold: null };
    let vectorsKey = "";
    let vectors = [];
    let waiting = false;
    let restTimer = 0;

    function readColors() {
      const style = getComputedStyle(root);
      const named = (name) => style.getPropertyValue(`--ex-${name}`).trim();
      return {
        ink: named("ink"), muted: named("muted"), line: named("line"), paper: named("paper"),
        genkl: named("genkl"), entropy: named("entropy"), contour: named("contour"),
        contourInside: named("contour-inside"), voter: named("voter"), silent: named("silent"),
        dotRim: named("dot-rim"),
      };
    }

    /** Draw before the next frame, however many changes there are until then. */
    function changed({ byReader = true } = {}) {
      if (!waiting) {
        waiting = true;
        requestAnimationFrame(() => {
          waiting = false;
          render();
        });
      }
      clearTimeout(restTimer);
      restTimer = setTimeout(() => {
        const text = find("verdict").textContent;
        if (byReader && find("status").textContent !== text) find("status").textContent = text;
        if (byReader) history.replaceState(null, "", `#${writeAddress(view, all[view])}`);
      }, REST_MS);
    }

    function render() {
      const settings = all[view];
      const k = settings.k || 3;
      const drawn = [k, settings.n, settings.sigma, settings.seed].join();
      if (drawn !== vectorsKey) {
        vectors = core.uniformLikeVectors(k, settings.n, settings.sigma, settings.seed);
        vectorsKey = drawn;
      }
      const result = evaluate(view, settings, vectors);
      showPicture(settings, result);
      showNumbers(settings, result);
      showControls(settings);
    }

    /* -- pictures -- */

    function showPicture(settings, result) {
      const width = stage.clientWidth;
      if (!width) return;
      const { alpha, beta, invariant, entropy, contours } = settings;
      const key = [view, vectorsKey, alpha, beta, invariant, entropy].join();
      if (key !== regionsKey) {
        regions = view === "triangle" ? triangleRegions(settings) : peakRegions(settings);
        regionsKey = key;
      }
      const lookKey = [key, contours, width, devicePixelRatio, Object.values(colors)].join();
      if (lookKey !== sheetKey) {
        frame =
          view === "triangle"
            ? drawing.triangleFrame(width)
            : drawing.peakFrame(width, settings, regions.curves);
        const pen = drawing.fit(sheet, width, frame.height);
        if (view === "triangle") drawing.paintTriangle(pen, frame, settings, regions, colors);
        else drawing.paintPeak(pen, frame, settings, regions.curves, regions.intervals, colors);
        sheetKey = lookKey;
      }
      const pen = drawing.fit(canvas, width, frame.height);
      pen.drawImage(sheet, 0, 0, width, frame.height);
      if (view === "triangle") {
        drawing.paintVectors(pen, frame, vectors, result.divergences, colors);
        moveHandle(...frame.place(...core.simplexXY(settings.q)));
      } else {
        drawing.paintPeakMarker(pen, frame, settings.m, result.entropy, colors);
        moveHandle(frame.x(settings.m), frame.yD(result.largest));
      }
      const stripWidth = strip.clientWidth;
      if (stripWidth) {
        const stripPen = drawing.fit(strip, stripWidth, 62);
        drawing.paintStrip(stripPen, stripWidth, 62, result.divergences, colors);
      }
    }

    function triangleRegions(settings) {
      const divergence = core.divergenceRegion(vectors, settings);
      if (settings.entropy !== entropyRegion.threshold) {
        entropyRegion = { threshold: settings.entropy, ...core.entropyRegion(settings.entropy) };
      }
      return { divergence, entropy: entropyRegion };
    }

    function peakRegions(settings) {
      const uniform = [new Float64Array(settings.k).fill(1 / settings.k)];
      return {
        curves: drawing.peakCurves(vectors, settings),
        intervals: {
          sampled: core.onePeakIntervals(vectors, settings),
          uniform: core.onePeakIntervals(uniform, settings),
          entropy: core.entropyInterval(settings.k, settings.entropy),
        },
      };
    }

    function moveHandle(x, y) {
      handle.style.transform = `translate(${x}px, ${y}px)`;
    }

    /* -- numbers -- */

    function put(name, text, value) {
      const element = find(name);
      if (element.textContent !== text) element.textContent = text;
      if (value !== undefined) element.value = String(value);
    }

    function showNumbers(settings, result) {
      const { alpha, entropy } = settings;
      const sign = (yes) => (yes ? "≥" : "<");
      put("verdict", `${verdict(result)} ${reason(result)}`);
      find("genkl-chip").dataset.flags = result.flagged;
      find("entropy-chip").dataset.flags = result.entropyFlags;
      put("genkl-chip", `divergence: ${result.flagged ? "flagged" : "kept"}`);
      put("entropy-chip", `entropy: ${result.entropyFlags ? "flagged" : "kept"}`);
      put("votes", `${result.votes} of ${result.divergences.length}`, result.votes);
      put("largest", show(result.largest), result.largest);
      put("mean", show(result.mean), result.mean);
      put("uniform", show(result.uniform), result.uniform);
      put("critical", show(result.criticalAlpha), result.criticalAlpha);
      put("critical-sign", `${sign(result.flagged)} α = ${alpha}`);
      put("entropy-score", show(result.entropy), result.entropy);
      put("entropy-sign", `${sign(result.entropyFlags)} ${entropy}`);
      put("tau", show(result.tau, result.k > 30 ? 5 : 3), result.tau);
      put("dominant", dominantText(result));
      if (view === "triangle") {
        put("genkl-share", `${(100 * regions.divergence.share).toFixed(1)} %`);
        put("entropy-share", `${(100 * regions.entropy.share).toFixed(1)} %`);
      } else {
        put("sampled-intervals", showIntervals(regions.intervals.sampled));
        put("uniform-intervals", showIntervals(regions.intervals.uniform));
        put("entropy-intervals", showIntervals(regions.intervals.entropy));
      }
      handle.setAttribute("aria-valuenow", view === "triangle" ? settings.q[0] : settings.m);
      handle.setAttribute(
        "aria-valuetext",
        view === "triangle"
          ? `q is ${settings.q.map((entry) => show(entry)).join(", ")}. ${verdict(result)}`
          : `m is ${show(settings.m)}. ${verdict(result)}`,
      );
      put("python", asPython(view, settings));
    }

    function dominantText({ dominant, k }) {
      if (dominant.length === k && k > 3) return `all ${k} classes`;
      return `{${dominant.map((j) => j + 1).join(", ")}}`;
    }

    /* -- controls -- */

    function showControls(settings) {
      root.dataset.view = view;
      for (const input of root.querySelectorAll("[data-only]")) {
        input.hidden = input.dataset.only !== view;
      }
      for (const radio of root.querySelectorAll("[name=ex-view]")) radio.checked = radio.value === view;
      for (const input of root.querySelectorAll("[data-number], [data-range]")) {
        const name = input.dataset.number || input.dataset.range;
        if (!(name in settings)) continue;
        const { min, max, step, slider } = limits(name, settings);
        const isRange = "range" in input.dataset;
        input.min = isRange ? slider[0] : min;
        input.max = isRange ? slider[1] : max;
        input.step = isRange || WHOLE.has(name) ? step : "any";
        if (isRange || document.activeElement !== input) input.value = settings[name];
        if (!isRange && document.activeElement !== input) input.removeAttribute("aria-invalid");
      }
      for (const input of root.querySelectorAll("[data-entry]")) {
        if (view === "triangle" && document.activeElement !== input) {
          input.value = round(settings.q[input.dataset.entry], 4);
          input.removeAttribute("aria-invalid");
        }
      }
      for (const input of root.querySelectorAll("[data-switch]")) {
        input.checked = Boolean(settings[input.dataset.switch]);
      }
      for (const button of root.querySelectorAll("[data-preset]")) {
        const preset = core.PRESETS[button.dataset.preset];
        const chosen = Object.keys(preset).every((name) => preset[name] === settings[name]);
        button.setAttribute("aria-pressed", chosen && !settings.invariant);
      }
      handle.setAttribute("aria-label", view === "triangle" ? "Prediction q" : "Peak m");
      canvas.setAttribute(
        "aria-label",
        view === "triangle"
          ? "The triangle of predictions over three classes, with the regions that each rule flags"
          : "Divergence and entropy of one-peak predictions over the peak m",
      );
    }

    function set(name, value) {
      const settings = all[view];
      if (name === "k") {
        // Beta keeps its share of 1/k, so that the picture changes by k alone.
        const beta = (settings.beta * settings.k) / value;
        settings.k = value;
        const { max, step } = limits("beta", settings);
        settings.beta = clamp(round(Math.round(beta / step) * step, 8), 0, max);
        settings.m = Math.max(settings.m, 1 / value);
      } else {
        settings[name] = value;
      }
      changed();
    }

    root.addEventListener("input", ({ target }) => {
      const settings = all[view];
      if (target.name === "ex-view") {
        view = target.value;
        changed();
      } else if (target.dataset.range) {
        const name = target.dataset.range;
        const { min, max } = limits(name, settings);
        set(name, clamp(Number(target.value), min, max));
      } else if (target.dataset.number) {
        const value = parseNumber(target.dataset.number, target.value, settings);
        target.setAttribute("aria-invalid", value === null);
        if (value !== null) set(target.dataset.number, value);
      } else if (target.dataset.entry) {
        const value = target.value.trim() === "" ? NaN : Number(target.value);
        target.setAttribute("aria-invalid", !(value >= 0 && value <= 1));
        if (value >= 0 && value <= 1) set("q", withEntry(settings.q, Number(target.dataset.entry), value));
      } else if (target.dataset.switch) {
        set(target.dataset.switch, target.checked);
      }
    });
    // A field that was left shows what counts, not what could not be used.
    root.addEventListener("focusout", ({ target }) => {
      if (target.matches("[data-number], [data-entry]")) setTimeout(() => showControls(all[view]));
    });

    /** One entry is set; the two others share the rest as they did before. */
    function withEntry(q, index, value) {
      const rest = 1 - q[index];
      const others = [0, 1, 2].filter((j) => j !== index);
      const next = [0, 0, 0];
      next[index] = value;
      next[others[0]] = round((1 - value) * (rest > 0 ? q[others[0]] / rest : 0.5), 4);
      next[others[1]] = Math.max(0, round(1 - value - next[others[0]], 12));
      return next;
    }

    root.addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (!button) return;
      if (button.dataset.preset) {
        Object.assign(all.peak, core.PRESETS[button.dataset.preset], { invariant: false });
        all.peak.m = Math.max(all.peak.m, 1 / all.peak.k);
        changed();
      } else if (button.dataset.do) {
        actions[button.dataset.do](button);
      }
    });

    const actions = {
      reset() {
        all[view] = structuredClone(DEFAULTS[view]);
        changed();
      },
      centre() {
        if (view === "triangle") set("q", [1 / 3, 1 / 3, 1 / 3]);
        else set("m", 1 / all.peak.k);
      },
      "new-seed"() {
        set("seed", (all[view].seed + 1) % (core.MAX_SEED + 1));
      },
      "same-area"() {
        set("entropy", core.entropyThresholdForShare(regions.divergence.share));
      },
      "copy-link"(button) {
        history.replaceState(null, "", `#${writeAddress(view, all[view])}`);
        copy(location.href, button);
      },
      "copy-python"(button) {
        copy(asPython(view, all[view]), button);
      },
    };

    async function copy(text, button) {
      const label = button.dataset.label || button.textContent;
      button.dataset.label = label;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        button.textContent = "The browser refused: copy it by hand";
        find("code").open = true;
      }
      find("status").textContent = button.textContent;
      setTimeout(() => {
        button.textContent = label;
      }, 2000);
    }

    /* -- mouse and touch -- */

    let grip = null; // from the pointer to the handle's centre, while it is dragged
    let tapped = false;

    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !frame) return;
      const onHandle = event.target === handle;
      // A finger beside the handle may be about to scroll the page; if not, a click follows.
      tapped = event.pointerType === "touch" && !onHandle;
      if (tapped) return;
      event.preventDefault();
      stage.setPointerCapture(event.pointerId);
      const [x, y] = pointIn(event);
      const [handleX, handleY] = handlePlace();
      grip = onHandle ? [handleX - x, handleY - y] : [0, 0];
      handle.focus({ preventScroll: true });
      dragTo(event);
    });
    stage.addEventListener("pointermove", (event) => {
      if (grip) dragTo(event);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      stage.addEventListener(end, () => {
        grip = null;
      });
    }
    stage.addEventListener("click", (event) => {
      if (!tapped) return;
      tapped = false;
      grip = [0, 0];
      dragTo(event);
      grip = null;
    });

    function pointIn(event) {
      const box = stage.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    }

    function handlePlace() {
      const box = handle.getBoundingClientRect();
      return pointIn({ clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 });
    }

    function dragTo(event) {
      const [x, y] = pointIn(event);
      if (view === "triangle") {
        set("q", snap(core.simplexQ(...frame.unplace(x + grip[0], y + grip[1])), 3));
      } else {
        set("m", clamp(round(frame.m(x + grip[0]), 3), 1 / all.peak.k, 1));
      }
    }

    /* -- keyboard -- */

    handle.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.001 : 0.01;
      const jump = 10 * step;
      const { q, m, k } = all[view];
      let moved = null;
      if (view === "triangle") {
        const up = (d) => [q[0] + d, q[1] - d / 2, q[2] - d / 2];
        const right = (d) => [q[0], q[1] - d, q[2] + d];
        moved = {
          ArrowUp: () => up(step), ArrowDown: () => up(-step),
          ArrowRight: () => right(step), ArrowLeft: () => right(-step),
          PageUp: () => up(jump), PageDown: () => up(-jump),
          Home: () => [1 / 3, 1 / 3, 1 / 3],
        }[event.key];
        if (moved && event.key === "Home") set("q", moved());
        else if (moved) set("q", snap(core.nearestPrediction(moved()), 4));
      } else {
        moved = {
          ArrowUp: () => m + step, ArrowRight: () => m + step,
          ArrowDown: () => m - step, ArrowLeft: () => m - step,
          PageUp: () => m + jump, PageDown: () => m - jump,
          Home: () => 1 / k, End: () => 1,
        }[event.key];
        if (moved) set("m", event.key === "Home" ? 1 / k : clamp(round(moved(), 4), 1 / k, 1));
      }
      if (moved) event.preventDefault();
    });

    /* -- the world around -- */

    /** Show the state that a text describes; say whether it describes one. */
    function load(address, options) {
      const read = readAddress(address);
      if (!read) return false;
      view = read.view;
      all[view] = read.settings;
      changed(options);
      return true;
    }

    for (const button of document.querySelectorAll("button[data-explorer]")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        load(button.dataset.explorer);
        const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
        root.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
        handle.focus({ preventScroll: true });
      });
    }
    window.addEventListener("hashchange", () => load(location.hash));
    new ResizeObserver(() => changed({ byReader: false })).observe(stage);
    new MutationObserver(() => {
      colors = readColors();
      changed({ byReader: false });
    }).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });

    for (const text of document.querySelectorAll(".genkl-explorer-missing")) text.hidden = true;
    root.hidden = false;
    if (load(location.hash, { byReader: false })) root.scrollIntoView({ block: "start" });
    render();
  }

  for (const root of document.querySelectorAll(".genkl-explorer")) start(root);
  Object.assign(window.genklExplorer, { writeAddress, readAddress, evaluate, asPython });
})();
