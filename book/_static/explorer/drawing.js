/* The drawings of the explorer. Each function paints one picture from numbers it is given; what
   takes long is painted once on a sheet of its own and kept until its settings change. */
(function () {
  "use strict";

  const { core } = window.genklExplorer;

  const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
  const HEIGHT = Math.sqrt(3) / 2; // of the triangle, over its side

  /** A canvas whose unit is the CSS pixel, as sharp as the screen is. */
  function fit(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== columns || canvas.height !== rows) {
      canvas.width = columns;
      canvas.height = rows;
      canvas.style.height = `${height}px`;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.lineJoin = pen.lineCap = "round";
    return pen;
  }

  function trace(pen, points, place) {
    points.forEach(([x, y], i) => {
      if (i === 0) pen.moveTo(...place(x, y));
      else pen.lineTo(...place(x, y));
    });
    pen.closePath();
  }

  function line(pen, x1, y1, x2, y2) {
    pen.beginPath();
    pen.moveTo(x1, y1);
    pen.lineTo(x2, y2);
    pen.stroke();
  }

  function dot(pen, x, y, radius) {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
  }

  function write(pen, text, x, y, { align = "center", base = "middle", size = 13, weight = 400 }) {
    pen.font = `${weight} ${size}px ${FONT}`;
    pen.textAlign = align;
    pen.textBaseline = base;
    pen.fillText(text, x, y);
  }

  /** Diagonal hatching inside the current clip. */
  function hatch(pen, width, height, gap) {
    pen.beginPath();
    for (let at = -height; at < width; at += gap) {
      pen.moveTo(at, height);
      pen.lineTo(at + height, 0);
    }
    pen.stroke();
  }

  /* ---- Three classes --------------------------------------------------------------------------- */

  /** Where the triangle stands on a stage of a given width. */
  function triangleFrame(width) {
    const margin = { side: 30, top: 34, bottom: 30 };
    const side = width - 2 * margin.side;
    const height = margin.top + side * HEIGHT + margin.bottom;
    return {
      width,
      height,
      place: (x, y) => [margin.side + x * side, margin.top + (HEIGHT - y) * side],
      unplace: (left, top) => [(left - margin.side) / side, HEIGHT - (top - margin.top) / side],
    };
  }

  /** The part that does not depend on the prediction: regions, contours, lines, names. */
  function paintTriangle(pen, frame, setting, regions, colors) {
    const { place, width, height } = frame;
    const corners = [[0, 0], [1, 0], [0.5, HEIGHT]];

    pen.fillStyle = colors.paper;
    pen.beginPath();
    trace(pen, corners, place);
    pen.fill();
    if (setting.contours) paintContours(pen, place, regions.divergence.contours, colors.contour);

    const flagged = new Path2D();
    for (const polygon of regions.divergence.polygons) trace(flagged, polygon, place);
    pen.fillStyle = colors.genkl;
    pen.fill(flagged);
    if (setting.contours) {
      pen.save();
      pen.clip(flagged);
      paintContours(pen, place, regions.divergence.contours, colors.contourInside);
      pen.restore();
    }

    paintTauLines(pen, place, core.dominanceThreshold(3, setting.beta), colors);
    if (regions.entropy.share > 0) {
      pen.save();
      pen.beginPath();
      trace(pen, regions.entropy.outline, place);
      pen.strokeStyle = colors.entropy;
      pen.lineWidth = 2.5;
      pen.stroke();
      pen.clip();
      pen.lineWidth = 1.2;
      hatch(pen, width, height, 9);
      pen.restore();
    }

    pen.strokeStyle = colors.ink;
    pen.lineWidth = 1.5;
    pen.beginPath();
    trace(pen, corners, place);
    pen.stroke();
    const [x, y] = place(0.5, HEIGHT / 3);
    line(pen, x - 5, y, x + 5, y);
    line(pen, x, y - 5, x, y + 5);
    pen.fillStyle = colors.ink;
    const [topX, topY] = place(0.5, HEIGHT);
    const [leftX, leftY] = place(0, 0);
    const [rightX] = place(1, 0);
    write(pen, "class 1", topX, topY - 10, { base: "bottom", weight: 600 });
    write(pen, "class 2", leftX - 18, leftY + 10, { base: "top", align: "left", weight: 600 });
    write(pen, "class 3", rightX + 18, leftY + 10, { base: "top", align: "right", weight: 600 });
  }

  function paintContours(pen, place, contours, color) {
    pen.strokeStyle = color;
    pen.lineWidth = 1;
    pen.beginPath();
    for (const [, x1, y1, x2, y2] of contours) {
      pen.moveTo(...place(x1, y1));
      pen.lineTo(...place(x2, y2));
    }
    pen.stroke();
  }

  /** Beyond each dashed line one class is no longer dominant. */
  function paintTauLines(pen, place, tau, colors) {
    pen.save();
    pen.strokeStyle = colors.ink;
    pen.fillStyle = colors.ink;
    pen.lineWidth = 1;
    pen.setLineDash([3, 4]);
    const at = (q) => place(...core.simplexXY(q));
    line(pen, ...at([tau, 1 - tau, 0]), ...at([tau, 0, 1 - tau]));
    line(pen, ...at([1 - tau, tau, 0]), ...at([0, tau, 1 - tau]));
    line(pen, ...at([1 - tau, 0, tau]), ...at([0, 1 - tau, tau]));
    pen.restore();
    const [leftX, leftY] = at([tau, 1 - tau, 0]);
    if (leftX < 44) return; // the lines hug the edges: there is no room for names
    const [rightX, rightY] = at([1 - tau, 0, tau]);
    const [secondX, secondY] = at([1 - tau, tau, 0]);
    pen.fillStyle = colors.muted;
    write(pen, "q₁ = τ", leftX - 6, leftY, { align: "right", size: 11.5 });
    write(pen, "q₂ = τ", secondX - 6, secondY, { align: "right", size: 11.5 });
    write(pen, "q₃ = τ", rightX + 6, rightY, { align: "left", size: 11.5 });
  }

  /** The uniform-like vectors: filled where they vote for non-conforming, hollow elsewhere. */
  function paintVectors(pen, frame, vectors, divergences, colors) {
    pen.lineWidth = 1.2;
    pen.strokeStyle = colors.dotRim;
    const radius = vectors.length > 60 ? 2.2 : 3;
    vectors.forEach((p, i) => {
      dot(pen, ...frame.place(...core.simplexXY(p)), radius);
      pen.fillStyle = core.isVote(divergences[i]) ? colors.voter : colors.silent;
      pen.fill();
      pen.stroke();
    });
  }

  /* ---- One peak ---------------------------------------------------------------------------------- */

  /** Two plots above each other with a common axis of m: D, and entropy. */
  function peakFrame(width, setting, curves) {
    const left = 44;
    const right = width - 14;
    const top = 22;
    const height = Math.round(Math.min(500, Math.max(300, width * 0.98)));
    const split = Math.round(top + (height - top) * 0.57);
    const lower = split + 46;
    const bottom = height - 42;
    const highest = Math.max(curves.highest, 0);
    const low = curves.lowest - 0.06 * (highest - curves.lowest);
    const high = highest + 0.12 * (highest - curves.lowest);
    return {
      width,
      height,
      box: { left, right, top, split, lower, bottom },
      range: [low, high],
      x: (m) => left + m * (right - left),
      m: (x) => (x - left) / (right - left),
      yD: (d) => split - ((d - low) / (high - low)) * (split - top),
      yH: (h) => bottom - h * (bottom - lower),
    };
  }

  /** Largest D over the vectors, and D of the uniform one, along m; a curve is two pieces. */
  function peakCurves(vectors, setting, points = 240) {
    const k = setting.k;
    const edge = core.cliff(k, setting.beta);
    const uniform = [new Float64Array(k).fill(1 / k)];
    const grid = (from, to) =>
      Array.from({ length: points + 1 }, (_, i) => from + ((to - from) * i) / points);
    const pieces = (many) => {
      const all = many.map((p) => core.peakDivergence(p, setting));
      const along = (side, ms) =>
        ms.map((m) => {
          const logs = core.peakLogs(m, k);
          return [m, Math.max(...all.map((one) => one[side](...logs)))];
        });
      return [along("before", grid(1 / k, edge)), along("after", grid(edge, 1))];
    };
    const curves = { uniform: pieces(uniform), sampled: pieces(vectors), edge };
    const heights = [...curves.uniform, ...curves.sampled].flat().map(([, d]) => d);
    return { ...curves, lowest: Math.min(...heights), highest: Math.max(...heights) };
  }

  function paintPeak(pen, frame, setting, curves, intervals, colors) {
    const { box, range, x, yD, yH, width } = frame;
    const [from, to] = [x(1 / setting.k), x(1)];
    for (const [a, b] of [[box.top, box.split], [box.lower, box.bottom]]) {
      pen.fillStyle = colors.paper;
      pen.fillRect(from, a, to - from, b - a);
    }
    pen.save();
    pen.globalAlpha = 0.22;
    pen.fillStyle = colors.genkl;
    for (const [a, b] of intervals.sampled) {
      pen.fillRect(x(a), box.top, Math.max(2, x(b) - x(a)), box.split - box.top);
    }
    pen.restore();
    for (const [a, b] of intervals.entropy) {
      pen.save();
      pen.beginPath();
      pen.rect(x(a), box.lower, Math.max(2, x(b) - x(a)), box.bottom - box.lower);
      pen.clip();
      pen.strokeStyle = colors.entropy;
      pen.globalAlpha = 0.55;
      pen.lineWidth = 1.2;
      hatch(pen, frame.width, frame.height, 9);
      pen.restore();
    }

    paintAxes(pen, frame, colors);
    pen.fillStyle = colors.ink;
    write(pen, "divergence D (nats)", box.left - 34, 10, { align: "left", size: 12.5, weight: 600 });
    write(pen, "normalised entropy", box.left - 34, box.lower - 13, {
      align: "left", size: 12.5, weight: 600,
    });
    write(pen, "m, probability of the leading class", (box.left + box.right) / 2, frame.height - 11, {
      size: 12.5,
    });

    pen.save();
    pen.beginPath();
    pen.rect(box.left, box.top - 4, width, box.split - box.top + 8);
    pen.clip();
    pen.strokeStyle = colors.genkl;
    pen.lineWidth = 2.5;
    paintCurve(pen, frame, curves.sampled);
    pen.strokeStyle = colors.ink;
    pen.lineWidth = 1.4;
    pen.setLineDash([5, 4]);
    paintCurve(pen, frame, curves.uniform);
    pen.restore();

    paintCliff(pen, frame, curves.edge, colors);

    // The two sets of intervals as bars beneath the curves.
    pen.fillStyle = colors.genkl;
    for (const [a, b] of intervals.sampled) {
      pen.fillRect(x(a), box.split, Math.max(2, x(b) - x(a)), 6);
    }
    pen.fillStyle = colors.ink;
    for (const [a, b] of intervals.uniform) {
      pen.fillRect(x(a), box.split + 7, Math.max(2, x(b) - x(a)), 3);
    }

    pen.strokeStyle = colors.entropy;
    pen.lineWidth = 2.5;
    pen.beginPath();
    for (let i = 0; i <= 200; i++) {
      const m = 1 / setting.k + ((1 - 1 / setting.k) * i) / 200;
      pen.lineTo(x(m), yH(core.peakEntropyScore(m, setting.k)));
    }
    pen.stroke();
    pen.strokeStyle = colors.ink;
    pen.lineWidth = 1;
    pen.setLineDash([5, 4]);
    line(pen, box.left, yH(setting.entropy), box.right, yH(setting.entropy));
    pen.setLineDash([]);
    if (range[1] > 0) line(pen, box.left, yD(0), box.right, yD(0));
  }

  /** Where all classes but the leading one sink below tau. */
  function paintCliff(pen, { box, x, width }, edge, colors) {
    pen.save();
    pen.strokeStyle = colors.muted;
    pen.fillStyle = colors.muted;
    pen.lineWidth = 1;
    pen.setLineDash([2, 3]);
    line(pen, x(edge), box.top, x(edge), box.split);
    pen.restore();
    pen.fillStyle = colors.muted;
    const text = width < 420 ? "others sink below τ" : "here the others sink below τ";
    const fitsRight = x(edge) + 170 < box.right;
    // Before the cliff the curves are high and beyond it low: the other half is free.
    if (fitsRight) write(pen, text, x(edge) + 6, box.top + 12, { align: "left", size: 11.5 });
    else write(pen, text, x(edge) - 6, box.split - 12, { align: "right", size: 11.5 });
  }

  function paintCurve(pen, frame, pieces) {
    pen.beginPath();
    for (const piece of pieces) {
      piece.forEach(([m, d], i) => {
        if (i === 0) pen.moveTo(frame.x(m), frame.yD(d));
        else pen.lineTo(frame.x(m), frame.yD(d));
      });
    }
    pen.stroke();
  }

  function paintAxes(pen, { box, range, x, yD, yH, width }, colors) {
    pen.strokeStyle = colors.line;
    pen.fillStyle = colors.muted;
    pen.lineWidth = 1;
    const spacing = [0.1, 0.2, 0.5, 1, 2].find((s) => (range[1] - range[0]) / s <= 6) || 5;
    for (let i = Math.ceil(range[0] / spacing); i * spacing <= range[1]; i++) {
      line(pen, box.left, yD(i * spacing), box.right, yD(i * spacing));
      const text = (i * spacing).toFixed(spacing < 1 ? 1 : 0).replace("-", "−");
      write(pen, text, box.left - 7, yD(i * spacing), { align: "right", size: 11.5 });
    }
    for (const h of [0, 0.5, 1]) {
      line(pen, box.left, yH(h), box.right, yH(h));
      write(pen, h === 0.5 ? "0.5" : `${h}`, box.left - 7, yH(h), { align: "right", size: 11.5 });
    }
    const tenths = width < 420 ? 2 : 1;
    for (let i = 0; i <= 10; i += tenths) {
      line(pen, x(i / 10), box.bottom, x(i / 10), box.bottom + 4);
      write(pen, (i / 10).toString(), x(i / 10), box.bottom + 7, { base: "top", size: 11.5 });
    }
  }

  /** The chosen m: a line through both plots, and where it meets entropy. */
  function paintPeakMarker(pen, frame, m, score, colors) {
    const { box, x, yH } = frame;
    pen.strokeStyle = colors.ink;
    pen.lineWidth = 1.2;
    line(pen, x(m), box.top, x(m), box.split);
    line(pen, x(m), box.lower, x(m), box.bottom);
    dot(pen, x(m), yH(score), 4.5);
    pen.fillStyle = colors.entropy;
    pen.fill();
    pen.stroke();
  }

  /* ---- D of every vector ------------------------------------------------------------------------- */

  /** A dot for each vector along an axis of D, with zero marked. */
  function paintStrip(pen, width, height, divergences, colors) {
    const lowest = Math.min(0, ...divergences);
    const highest = Math.max(0, ...divergences);
    const padding = 0.08 * (highest - lowest) || 0.1;
    const left = 10;
    const right = width - 10;
    const middle = height / 2 - 7;
    const x = (d) =>
      left + ((d - lowest + padding) / (highest - lowest + 2 * padding)) * (right - left);
    pen.fillStyle = colors.genkl;
    pen.globalAlpha = 0.22;
    pen.fillRect(x(0), 2, right - x(0), 2 * middle - 4);
    pen.globalAlpha = 1;
    pen.strokeStyle = colors.line;
    line(pen, left, middle, right, middle);
    pen.strokeStyle = colors.ink;
    line(pen, x(0), 2, x(0), 2 * middle);
    pen.lineWidth = 1.2;
    pen.strokeStyle = colors.dotRim;
    divergences.forEach((d, i) => {
      // Spread over the height by the golden ratio, so that equal values stay apart.
      const shift = (((i * 0.618034) % 1) - 0.5) * (2 * middle - 16);
      dot(pen, x(d), middle + shift, divergences.length > 60 ? 2.2 : 3);
      pen.fillStyle = core.isVote(d) ? colors.voter : colors.silent;
      pen.fill();
      pen.stroke();
    });
    pen.fillStyle = colors.muted;
    const base = { base: "bottom", size: 11.5 };
    const zero = Math.min(Math.max(x(0), left + 16), right - 16);
    write(pen, "0", zero, height, base);
    const text = (d) => d.toFixed(2).replace("-", "−");
    if (x(lowest) < zero - 34) write(pen, text(lowest), left, height, { ...base, align: "left" });
    if (x(highest) > zero + 34) write(pen, text(highest), right, height, { ...base, align: "right" });
  }

  window.genklExplorer.drawing = {
    fit,
    triangleFrame,
    paintTriangle,
    paintVectors,
    peakFrame,
    peakCurves,
    paintPeak,
    paintPeakMarker,
    paintStrip,
  };
})();
