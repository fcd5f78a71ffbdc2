(() => {
  "use strict";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const $ = (id) => document.getElementById(id);
  const data = read("data");
  const names = read("names");
  const pictures = read("thumbnails");
  const { classes, kinds, noClass } = data;
  const [AMBIGUOUS, OOD, WRONG, FINE] = [0, 1, 2, 3];
  const N = names.length;

  // --- The columns ------------------------------------------------------------------------------

  const numbers = (Kind, text) => {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    return new Kind(bytes.buffer);
  };
  const column = Object.fromEntries(Object.entries(data.columns).map(([name, [kind, text]]) =>
    [name, numbers({ f8: Float64Array, f4: Float32Array, i4: Int32Array }[kind], text)]));
  const top = data.top;
  const pictureOf = new Map(pictures.rows.map((row, at) => [row, pictures.data[at]]));
  const predicted = (row) => column.topClasses[row * top];

  const className = (number) => (number < 0 ? "no label" : classes[number]);
  const percent = (share) => (Number.isFinite(share) ? `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}\u00a0%` : "–");
  const short = (value) => (Number.isFinite(value) ? value.toPrecision(3) : "∞");
  const counted = (count, one = "image", many = "images") => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // --- Kinds ------------------------------------------------------------------------------------

  const start = { alpha: data.thresholds.alpha, apart: data.thresholds.apart, gap: data.thresholds.min_gap };
  const at = { ...start };
  const kindOf = new Uint8Array(N);
  const decide = () => {
    const { score, gap, given, apart } = column;
    for (let row = 0; row < N; row += 1) {
      if (score[row] >= at.alpha) {
        const ambiguous = data.hasDistance ? apart[row] <= at.apart : apart[row] >= at.apart;
        kindOf[row] = ambiguous ? AMBIGUOUS : OOD;
      } else {
        const wrong = given[row] >= 0 && gap[row] >= at.gap && predicted(row) !== given[row];
        kindOf[row] = wrong ? WRONG : FINE;
      }
    }
  };

  const why = (row) => {
    const t = short(column.score[row]);
    const first = column.topClasses.subarray(row * top, row * top + top);
    const shares = [...first].map((one, i) => `${classes[one]} ${percent(column.topProbs[row * top + i])}`);
    if (kindOf[row] <= OOD) {
      const many = column.dominant[row];
      const flagged = `Its critical alpha ${t} reaches ${short(at.alpha)}: ` +
        (many === 1 ? "one class is dominant, and not by enough" : `${many} classes are dominant (${shares.join(", ")})`);
      const place = data.hasDistance
        ? `${short(column.apart[row])} from images that conform, ${kindOf[row] === AMBIGUOUS ? "within" : "beyond"} ${short(at.apart)}`
        : `two classes hold ${percent(column.apart[row])}, ${kindOf[row] === AMBIGUOUS ? "at least" : "less than"} ${percent(at.apart)}`;
      return `${flagged}. It lies ${place}.`.replace("It lies two classes", "Two classes");
    }
    if (kindOf[row] === WRONG) {
      return `It conforms (critical alpha ${t}), and other images with this look are labelled ` +
        `${classes[first[0]]} (${percent(column.topProbs[row * top])}), not ${className(column.given[row])} (${percent(column.givenProb[row])}).`;
    }
    return column.given[row] === first[0]
      ? `It conforms (critical alpha ${t}), and its label is the predicted class.`
      : `It conforms (critical alpha ${t}); what speaks against its label is below the threshold.`;
  };

  // --- What the reader decided, kept by the browser until the table is downloaded ---------------

  const decisions = new Map();
  const shelf = `genkl-report:${data.fingerprint}`;
  try {
    for (const [row, value] of JSON.parse(localStorage.getItem(shelf) ?? "[]")) {
      if (row < N && (value === -2 || value < classes.length)) decisions.set(row, value);
    }
  } catch { /* a browser that keeps nothing for files */ }
  const keep = () => {
    try {
      localStorage.setItem(shelf, JSON.stringify([...decisions]));
    } catch { /* the same */ }
  };
  const verified = (row) => {
    const value = decisions.get(row) ?? column.verified[row];
    return value === -2 ? noClass : value < 0 ? "" : classes[value];
  };

  // --- Order and filters ------------------------------------------------------------------------

  const sorts = [
    ["score", "critical alpha, highest first", column.score, -1],
    ["gap", "doubt about the label, highest first", column.gap, -1],
    ...(data.hasDistance ? [["apart", "distance, farthest first", column.apart, -1]] : []),
    ["entropy", "entropy, highest first", column.entropy, -1],
    ["sure", "most conforming first", column.score, 1],
    ["name", "order of the table", null, 1],
  ];
  const orders = new Map();
  const orderBy = (key) => {
    if (!orders.has(key)) {
      const [, , values, sign] = sorts.find(([one]) => one === key);
      const order = Uint32Array.from({ length: N }, (_, row) => row);
      if (values) order.sort((a, b) => (sign * (values[a] - values[b])) || a - b);
      orders.set(key, order);
    }
    return orders.get(key);
  };
  const filter = { kind: "flagged", class: "", sort: "score", search: "" };
  let shown = new Uint32Array(0);
  const select = () => {
    const wanted = filter.class === "" ? null : Number(filter.class);
    const text = filter.search.toLowerCase();
    const fits = {
      all: () => true,
      flagged: (row) => kindOf[row] !== FINE,
      decided: (row) => decisions.has(row) || column.verified[row] !== -1,
      undecided: (row) => kindOf[row] !== FINE && !decisions.has(row) && column.verified[row] === -1,
    }[filter.kind] ?? ((row) => kindOf[row] === Number(filter.kind));
    shown = orderBy(filter.sort).filter((row) =>
      fits(row) && (wanted === null || column.given[row] === wanted)
      && (!text || names[row].toLowerCase().includes(text)));
  };

  // --- The gallery: only what is in sight exists ------------------------------------------------

  const grid = $("grid");
  const tiles = new Map(); // position -> element
  let layout = { columns: 1, width: 160, height: 190 };
  const source = (row) => {
    const inside = pictureOf.get(row);
    if (inside) return `data:image/jpeg;base64,${inside}`;
    if (data.images === null) return null;
    return data.images + names[row].split("/").map(encodeURIComponent).join("/");
  };
  const picture = (row) => {
    const nothing = () => make("span", { className: "nothing", textContent: names[row] });
    const from = source(row);
    if (!from) return nothing();
    const image = make("img", { alt: "", loading: "lazy", decoding: "async" });
    image.onerror = () => image.replaceWith(nothing());
    image.onload = () => image.classList.toggle("tiny", image.naturalWidth < 48);
    image.src = from;
    return image;
  };
  const caption = (row) => {
    const given = column.given[row];
    if (kindOf[row] <= OOD) return `${className(given)} ?`;
    return given === predicted(row) ? className(given) : `${className(given)} → ${classes[predicted(row)]}`;
  };
  const inShort = (row) => {
    const strength = kindOf[row] <= OOD ? `α ${short(column.score[row])}` : `p ${percent(column.topProbs[row * top])}`;
    return `${["ambiguous", "out of distr.", "wrong?", "fine"][kindOf[row]]} · ${strength}`;
  };
  const tile = (position) => {
    const row = shown[position];
    const decided = decisions.has(row) || column.verified[row] !== -1;
    const button = make("button", { type: "button" },
      make("span", { className: "unseen", textContent: `${names[row]}, ${kinds[kindOf[row]]}: ` }),
      make("span", { className: "picture" }, picture(row)),
      make("span", { className: "labels", textContent: caption(row) }),
      make("span", { className: decided ? "numbers decided" : "numbers", textContent: decided
        ? `✓ ${verified(row)}` : inShort(row) }));
    button.addEventListener("click", () => openDetail(position));
    const item = make("div", { className: "tile" }, button);
    item.setAttribute("role", "listitem");
    item.setAttribute("aria-setsize", shown.length);
    item.setAttribute("aria-posinset", position + 1);
    item.style.setProperty("--kind", `var(--k${kindOf[row]})`);
    item.dataset.position = position;
    return item;
  };
  const place = (item, position) => {
    const { columns, width, height } = layout;
    item.style.cssText += `left:${(position % columns) * width}px;top:${Math.floor(position / columns) * height}px;width:${width}px;height:${height}px`;
  };
  const render = () => {
    const { columns, height } = layout;
    const above = grid.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-above / height) - 2) * columns;
    const last = Math.min(shown.length, (Math.ceil((innerHeight - above) / height) + 2) * columns);
    for (const [position, item] of tiles) {
      if ((position < first || position >= last) && !item.contains(document.activeElement)) {
        item.remove();
        tiles.delete(position);
      }
    }
    let before = null; // keep the order of the document that of the gallery
    for (let position = last - 1; position >= first; position -= 1) {
      let item = tiles.get(position);
      if (!item) {
        item = tile(position);
        place(item, position);
        tiles.set(position, item);
        grid.insertBefore(item, before);
      }
      before = item;
    }
  };
  const measure = () => {
    const wide = grid.clientWidth;
    const columns = Math.max(2, Math.floor(wide / 168));
    const width = wide / columns;
    layout = { columns, width, height: Math.round(width * 0.8) + 62 };
  };
  const refill = () => {
    tiles.forEach((item) => item.remove());
    tiles.clear();
    measure();
    grid.style.height = `${Math.ceil(shown.length / layout.columns) * layout.height}px`;
    render();
  };
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      render();
    });
  };
  addEventListener("scroll", soon, { passive: true });
  let known = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== known) refill();
    known = innerWidth;
    soon();
    drawAll();
  });

  // --- Words and tables above it ----------------------------------------------------------------

  const counts = () => {
    const found = Array.from({ length: classes.length + 1 }, () => [0, 0, 0, 0]);
    for (let row = 0; row < N; row += 1) found[column.given[row] < 0 ? classes.length : column.given[row]][kindOf[row]] += 1;
    return found;
  };
  const summarise = (found) => {
    const total = [0, 1, 2, 3].map((kind) => found.reduce((sum, one) => sum + one[kind], 0));
    const share = (kind) => `${total[kind].toLocaleString("en")} (${percent(total[kind] / N)})`;
    $("summary").textContent = `Of ${counted(N)} in ${classes.length} classes, ${share(AMBIGUOUS)} ` +
      `look ambiguous and ${share(OOD)} out of distribution; the label of ${share(WRONG)} is likely wrong.`;
    $("first-step").hidden = total[FINE] === N;
    $("begin").textContent = total[WRONG]
      ? `Look at the ${counted(total[WRONG], "label that is", "labels that are")} likely wrong`
      : `Look at the ${counted(N - total[FINE], "image that conforms", "images that conform")} to no class`;
    return total;
  };
  const startWith = () => {
    const wrong = kindOf.includes(WRONG);
    filter.kind = $("kind").value = wrong ? String(WRONG) : "flagged";
    filter.sort = $("sort").value = wrong ? "gap" : "score";
  };
  $("begin").addEventListener("click", () => {
    startWith();
    show(filter.kind, "");
    openDetail(0);
  });
  const show = (kind, wanted) => {
    filter.kind = $("kind").value = String(kind);
    filter.class = $("class").value = String(wanted);
    list();
    $("gallery").scrollIntoView();
    $("gallery-title").tabIndex = -1;
    $("gallery-title").focus({ preventScroll: true });
  };
  const tabulate = (found, total) => {
    const head = make("tr", {}, make("th", { scope: "col", textContent: "Given label" }),
      ...kinds.map((kind, i) => {
        const swatch = make("span", { className: "swatch" });
        swatch.style.background = `var(--k${i})`;
        return make("th", { scope: "col" }, swatch, kind);
      }), make("th", { scope: "col", textContent: "all" }));
    const line = (name, wanted, values) => {
      const cell = (count, kind) => {
        if (!count) return make("td", { textContent: "0" });
        const button = make("button", { type: "button", textContent: count.toLocaleString("en") });
        button.setAttribute("aria-label", `${counted(count)}: ${name}, ${kind === "all" ? "all kinds" : kinds[kind]}`);
        button.addEventListener("click", () => show(kind, wanted));
        return make("td", {}, button);
      };
      return make("tr", {}, make("th", { scope: "row", textContent: name }),
        ...values.map((count, kind) => cell(count, kind)), cell(values.reduce((a, b) => a + b, 0), "all"));
    };
    const rows = found.map((values, i) => (i < classes.length
      ? line(classes[i], i, values) : values.some(Boolean) ? line("no label", -1, values) : null)).filter(Boolean);
    $("overview").replaceChildren(make("table", {},
      make("thead", {}, head), make("tbody", {}, line("all", "", total), ...rows)));
  };

  const list = () => {
    select();
    $("shown").textContent = `${counted(shown.length)} of ${N.toLocaleString("en")}`;
    refill();
  };
  const refresh = () => {
    decide();
    const found = counts();
    tabulate(found, summarise(found));
    list();
  };

  // --- Thresholds -------------------------------------------------------------------------------

  const sliders = [
    { key: "alpha", values: column.score, name: "alpha",
      told: "Non-conforming from this critical alpha on. Further right flags fewer.", above: true },
    { key: "apart", values: column.apart, name: data.hasDistance ? "distance" : "probability of two classes",
      told: data.hasDistance ? "A non-conforming image is out of distribution beyond this distance, else ambiguous."
        : "A non-conforming image is ambiguous from this share on, else out of distribution.",
      above: data.hasDistance },
    ...(data.hasLabels ? [{ key: "gap", values: column.gap, name: "doubt about the label",
      told: "A label is likely wrong if the predicted class has this much more probability.", above: true }] : []),
  ];
  const drawn = [];
  const drawAll = () => drawn.forEach((draw) => draw());
  for (const { key, values, name, told, above } of sliders) {
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) {
      if (!Number.isFinite(value) || (key === "gap" && value < 0)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    if (key === "gap") [low, high] = [0, 1];
    low = Math.min(low, start[key]);
    high = Math.max(high, start[key], low + 1e-9);
    const id = `threshold-${key}`;
    const range = make("input", { type: "range", id, min: low, max: high, step: "any" });
    const number = make("input", { type: "number", step: "any" });
    number.setAttribute("aria-label", `${name}, as a number`);
    const canvas = make("canvas");
    canvas.setAttribute("aria-hidden", "true");
    const bins = new Uint32Array(80);
    for (const value of values) {
      if (value >= low && value <= high && !(key === "gap" && value <= 0)) {
        bins[Math.min(79, Math.floor(80 * (value - low) / (high - low)))] += 1;
      }
    }
    const most = Math.log1p(bins.reduce((a, b) => Math.max(a, b), 1));
    const draw = () => {
      const style = getComputedStyle(document.documentElement);
      const scale = devicePixelRatio || 1;
      canvas.width = canvas.clientWidth * scale;
      canvas.height = 56 * scale;
      const pen = canvas.getContext("2d");
      const [wide, tall] = [canvas.width, canvas.height];
      const limit = (at[key] - low) / (high - low) * wide;
      bins.forEach((count, i) => {
        const x = i * wide / 80;
        const on = above ? x >= limit - wide / 160 : x <= limit;
        pen.fillStyle = style.getPropertyValue(on ? "--accent" : "--line");
        const height = count ? Math.max(2, Math.log1p(count) / most * (tall - 4)) : 0;
        pen.fillRect(x, tall - height, wide / 80 - scale, height);
      });
      pen.fillStyle = style.getPropertyValue("--focus");
      pen.fillRect(limit - scale, 0, 2 * scale, tall);
    };
    const set = () => {
      range.value = at[key];
      number.value = Number(at[key].toPrecision(5));
      draw();
    };
    const moved = (value) => {
      if (!Number.isFinite(value)) return;
      at[key] = value;
      set();
      refresh();
    };
    range.addEventListener("input", () => moved(Number(range.value)));
    number.addEventListener("change", () => moved(number.value === "" ? NaN : Number(number.value)));
    $("thresholds").append(make("div", { className: "threshold" },
      make("div", { className: "name" }, make("label", { htmlFor: id, textContent: name }), number),
      make("p", { textContent: told }), canvas, range));
    drawn.push(set);
  }
  $("reset").addEventListener("click", () => {
    Object.assign(at, start);
    drawAll();
    refresh();
  });
  $("parting").addEventListener("toggle", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

  // --- Controls ---------------------------------------------------------------------------------

  const option = (value, textContent) => make("option", { value, textContent });
  $("kind").append(option("flagged", "whatever is to be looked at"), ...kinds.map((kind, i) => option(i, kind)),
    option("undecided", "to be looked at, undecided"), option("decided", "decided or verified"), option("all", "all"));
  $("class").append(option("", "all"), ...classes.map((name, i) => option(i, name)));
  if (column.given.some((one) => one < 0)) $("class").append(option(-1, "no label"));
  $("sort").append(...sorts.map(([key, name]) => option(key, name)));
  for (const key of ["kind", "class", "sort"]) {
    $(key).addEventListener("change", () => {
      filter[key] = $(key).value;
      list();
    });
  }
  let typing = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      filter.search = $("search").value;
      list();
    }, 150);
  });

  // --- The table --------------------------------------------------------------------------------

  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rounded = (value) => (Number.isNaN(value) ? "" : Number.isFinite(value) ? String(Number(value.toFixed(6))) : "inf");
  const csv = () => {
    const apart = data.hasDistance ? "distance" : "top_two_mass";
    const head = ["image", "label", "verified", "kind", "suggestion", "predicted", "dominant_entries",
      "predicted_prob", "given_prob", "score", "entropy", apart];
    const lines = [head.join(",")];
    for (let row = 0; row < N; row += 1) {
      const given = column.given[row] < 0 ? "" : classes[column.given[row]];
      const likely = classes[predicted(row)];
      const signs = { [FINE]: given, [WRONG]: likely, [OOD]: noClass, [AMBIGUOUS]: "" }[kindOf[row]];
      const suggestion = verified(row) || signs;
      lines.push([names[row], given || "-1", verified(row), kinds[kindOf[row]], suggestion, likely].map(quoted).join(",")
        + `,${column.dominant[row]},` + [column.topProbs[row * top], column.givenProb[row], column.score[row],
        column.entropy[row], column.apart[row]].map(rounded).join(","));
    }
    return `${lines.join("\n")}\n`;
  };
  $("download").addEventListener("click", () => {
    const link = make("a", { download: data.csv, href: URL.createObjectURL(new Blob([csv()], { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });

  // --- One image --------------------------------------------------------------------------------

  const dialog = $("detail");
  let position = 0;
  $("decide-other").append(option("", "choose"), ...classes.map((name, i) => option(i, name)));
  const detail = () => {
    const row = shown[position];
    const given = column.given[row];
    $("detail-place").textContent = `${position + 1} of ${shown.length.toLocaleString("en")}`;
    $("detail-name").textContent = names[row];
    $("detail-image").replaceChildren(picture(row));
    const image = $("detail-image").querySelector("img");
    if (image) image.alt = names[row];
    // The file itself is sharper than what the page holds, if it is still there.
    if (image && data.images !== null && pictureOf.has(row)) {
      const file = new Image();
      file.onload = () => { if (shown[position] === row) image.src = file.src; };
      file.src = data.images + names[row].split("/").map(encodeURIComponent).join("/");
    }
    $("detail-kind").textContent = kinds[kindOf[row]];
    $("detail-kind").style.setProperty("--kind", `var(--k${kindOf[row]})`);
    $("detail-why").textContent = why(row);
    $("detail-classes").tBodies[0].replaceChildren(...Array.from({ length: top }, (_, i) => {
      const share = column.topProbs[row * top + i];
      const name = classes[column.topClasses[row * top + i]];
      const meter = make("meter", { min: 0, max: 1, value: share });
      meter.setAttribute("aria-label", `probability of ${name}`);
      return make("tr", {}, make("th", { scope: "row", textContent: name }),
        make("td", { textContent: percent(share) }), make("td", {}, meter));
    }));
    const facts = [["given label", given < 0 ? "none" : `${classes[given]} (${percent(column.givenProb[row])})`],
      ["critical alpha", short(column.score[row])], ["entropy", `${short(column.entropy[row])} nats`],
      [data.hasDistance ? "distance" : "two classes hold", short(column.apart[row])]];
    $("detail-numbers").replaceChildren(...facts.flatMap(([name, value]) =>
      [make("dt", { textContent: name }), make("dd", { textContent: value })]));
    const now = decisions.get(row) ?? column.verified[row];
    for (const button of $("decide").querySelectorAll("button")) {
      const value = valueOf(button.dataset.decide, row);
      const named = { given: className(given), predicted: classes[predicted(row)] }[button.dataset.decide];
      if (named !== undefined) {
        button.replaceChildren(named, " ", make("kbd", { textContent: button.dataset.decide[0] }));
        button.hidden = button.dataset.decide === "given" ? given < 0 : predicted(row) === given;
      }
      if (button.dataset.decide !== "undo") button.setAttribute("aria-pressed", String(now !== -1 && now === value));
    }
    $("decide-other").value = "";
    $("decided").textContent = now === -1 ? "Undecided." : `Decided: ${verified(row)}. The table holds it as verified.`;
    $("previous").disabled = position === 0;
    $("next").disabled = position + 1 >= shown.length;
  };
  const valueOf = (what, row) => ({ given: column.given[row], predicted: predicted(row), none: -2, undo: -1 })[what];
  const decideOn = (value) => {
    const row = shown[position];
    if (value === -1) decisions.delete(row);
    else decisions.set(row, value);
    keep();
    const item = tiles.get(position);
    if (item) {
      const fresh = tile(position);
      place(fresh, position);
      item.replaceWith(fresh);
      tiles.set(position, fresh);
    }
    if (value !== -1 && position + 1 < shown.length) position += 1;
    detail();
  };
  const step = (by) => {
    if (position + by < 0 || position + by >= shown.length) return;
    position += by;
    detail();
  };
  function openDetail(one) {
    position = one;
    detail();
    dialog.showModal();
  }
  $("decide").addEventListener("click", (event) => {
    const what = event.target.closest("button")?.dataset.decide;
    if (what) decideOn(valueOf(what, shown[position]));
  });
  $("decide-other").addEventListener("change", (event) => {
    if (event.target.value !== "") decideOn(Number(event.target.value));
  });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  dialog.addEventListener("keydown", (event) => {
    if (event.target.closest("select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const row = shown[position];
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "g" && column.given[row] >= 0) decideOn(column.given[row]);
    else if (event.key === "p") decideOn(predicted(row));
    else if (event.key === "n") decideOn(-2);
    else if (event.key === "u") decideOn(-1);
  });
  dialog.addEventListener("close", () => {
    // Back to where the reader stopped, which may be elsewhere by now.
    const line = Math.floor(position / layout.columns) * layout.height;
    const from = grid.getBoundingClientRect().top + line;
    if (from < 0 || from + layout.height > innerHeight) scrollBy(0, from - innerHeight / 3);
    render();
    tiles.get(position)?.querySelector("button").focus({ preventScroll: true });
  });

  // --- How it was made --------------------------------------------------------------------------

  for (const [name, text] of Object.entries(data.facts)) {
    $("facts").append(make("dt", { textContent: name }), make("dd", { textContent: text }));
  }
  if (data.leftOut.length) {
    $("left-out").hidden = false;
    $("left-out").querySelector("summary").textContent = `${counted(data.leftOut.length)} could not be read`;
    $("left-out").querySelector("ul").append(...data.leftOut.map((name) => make("li", { textContent: name })));
  }

  drawAll();
  decide();
  startWith();
  refresh();
  // For tests, and for the curious.
  window.genklReport = { at, kindOf, csv, refresh, get shown() { return shown; }, decisions };
})();
