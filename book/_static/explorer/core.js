/* The mathematics of the explorer: pure functions, named after those of the package `genkl`.

   A prediction q and a uniform-like vector p are arrays of k probabilities. Logarithms are natural
   and 0 log 0 = 0. tests/test_explorer.py holds every function against Python. */
(function () {
  "use strict";

  /* Rounding may put a D that is zero on either side of it; so near to zero it counts as zero. */
  const TIE = 1e-12;

  const MAX_CLASSES = 1000;
  const MAX_VECTORS = 200;
  const MAX_SEED = 2 ** 32 - 1;

  /* The settings of the paper's scripts, as in genkl.presets. */
  const PRESETS = {
    "Clothing1M": { k: 14, alpha: 1.05, beta: 0.03, sigma: 0.05, n: 20, seed: 0 },
    "Food-101N": { k: 101, alpha: 1.1, beta: 0.008, sigma: 0, n: 20, seed: 0 },
    "mini WebVision": { k: 50, alpha: 0.9, beta: 0.015, sigma: 0.05, n: 20, seed: 42 },
  };

  /* ---- The vectors that predictions are compared with ---------------------------------------- */

  /** NumPy's legacy generator, `numpy.random.RandomState(seed)`: a Mersenne twister (MT19937). */
  class RandomState {
    constructor(seed) {
      this.words = new Uint32Array(624);
      this.words[0] = seed;
      for (let i = 1; i < 624; i++) {
        const last = this.words[i - 1];
        this.words[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
      }
      this.used = 624;
      this.kept = null; // the second value of a Gaussian pair, for the next call
    }

    /** 32 random bits. */
    uint32() {
      if (this.used === 624) {
        this.twist();
        this.used = 0;
      }
      let word = this.words[this.used++];
      word ^= word >>> 11;
      word ^= (word << 7) & 0x9d2c5680;
      word ^= (word << 15) & 0xefc60000;
      word ^= word >>> 18;
      return word >>> 0;
    }

    twist() {
      const words = this.words;
      for (let i = 0; i < 624; i++) {
        const bits = (words[i] & 0x80000000) | (words[(i + 1) % 624] & 0x7fffffff);
        words[i] = words[(i + 397) % 624] ^ (bits >>> 1) ^ (bits & 1 ? 0x9908b0df : 0);
      }
    }

    /** Uniform in [0, 1), with 53 random bits. */
    double() {
      const high = this.uint32() >>> 5;
      const low = this.uint32() >>> 6;
      return (high * 67108864 + low) / 9007199254740992;
    }

    /** Standard normal, by the polar method; draws come in pairs. */
    gauss() {
      if (this.kept !== null) {
        const kept = this.kept;
        this.kept = null;
        return kept;
      }
      for (;;) {
        const x = 2 * this.double() - 1;
        const y = 2 * this.double() - 1;
        const square = x * x + y * y;
        if (square < 1 && square !== 0) {
          const factor = Math.sqrt((-2 * Math.log(square)) / square);
          this.kept = factor * x;
          return factor * y;
        }
      }
    }
  }

  /** n vectors scattered around the uniform one, as `genkl.uniform_like_vectors` draws them. */
  function uniformLikeVectors(k, n, sigma, seed) {
    const random = new RandomState(seed);
    const vectors = [];
    for (let i = 0; i < n; i++) {
      const p = new Float64Array(k);
      for (let j = 0; j < k; j++) {
        const draw = 1 / k + sigma * random.gauss();
        p[j] = draw < 0 ? 0.005 : draw > 1 ? 1 : draw;
      }
      const sum = p.reduce((total, entry) => total + entry, 0);
      vectors.push(p.map((entry) => entry / sum));
    }
    return vectors;
  }

  function meanVector(vectors) {
    return vectors[0].map((_, j) => vectors.reduce((sum, p) => sum + p[j], 0) / vectors.length);
  }

  const described = new WeakMap();

  /** What a vector's votes depend on: its entropy, and its entries in ascending order. Vectors don't
   *  change, so it is computed once for each. */
  function describe(p) {
    if (!described.has(p)) {
      described.set(p, { entropy: entropy(p), ascending: Float64Array.from(p).sort() });
    }
    return described.get(p);
  }

  /* ---- The divergence, the vote, the score ----------------------------------------------------- */

  /** tau = 1/k - beta: an entry at or above it is dominant. */
  function dominanceThreshold(k, beta) {
    return 1 / k - beta;
  }

  /** Indices of the dominant entries, S(q). */
  function dominantEntries(q, beta) {
    const tau = dominanceThreshold(q.length, beta);
    return [...q.keys()].filter((j) => q[j] >= tau);
  }

  /** Cost of each entry: -log q_j where it is dominant, 0 elsewhere. */
  function dominantCosts(q, beta) {
    const tau = dominanceThreshold(q.length, beta);
    return Float64Array.from(q, (entry) => (entry >= tau ? -Math.log(entry) : 0));
  }

  function entropy(p) {
    let sum = 0;
    for (let j = 0; j < p.length; j++) if (p[j] > 0) sum += p[j] * Math.log(p[j]);
    return -sum;
  }

  /** Entropy over its largest value, log k: the score of entropy maximisation. */
  function entropyScore(q) {
    return entropy(q) / Math.log(q.length);
  }

  /** sum_j p_j c_j; the largest such sum over all permutations of p, if p and c are both sorted. */
  function weigh(p, costs) {
    let sum = 0;
    for (let j = 0; j < p.length; j++) sum += p[j] * costs[j];
    return sum;
  }

  /** Hold a prediction against every vector:
   *
   *    D(p || q) = alpha sum_j p_j log p_j - sum over the dominant entries of p_j log q_j.
   *
   *  With `invariant`, each vector stands for all its permutations: the largest D pairs the largest
   *  entry of p with the largest cost, the second with the second, and so on.
   *
   *  Returns `divergences` (one for each vector), the `largest`, how many `votes` there are for
   *  non-conforming (D >= 0), whether it is `flagged` (any vote), and its `criticalAlpha`. */
  function judge(q, vectors, { alpha, beta, invariant = false }) {
    const costs = dominantCosts(q, beta);
    if (invariant) costs.sort();
    let criticalAlpha = 0;
    const divergences = vectors.map((vector) => {
      const { entropy: ownEntropy, ascending } = describe(vector);
      const cost = weigh(invariant ? ascending : vector, costs);
      criticalAlpha = Math.max(criticalAlpha, ownEntropy > 0 ? cost / ownEntropy : Infinity);
      return cost - alpha * ownEntropy;
    });
    const votes = divergences.filter(isVote).length;
    return { divergences, largest: Math.max(...divergences), votes, flagged: votes > 0, criticalAlpha };
  }

  function isVote(divergence) {
    return divergence >= -TIE;
  }

  /* ---- One peak m, the other k - 1 entries equal ----------------------------------------------- */

  function onePeak(m, k) {
    const q = new Float64Array(k).fill((1 - m) / (k - 1));
    q[0] = m;
    return q;
  }

  /** The peak up to which all other entries are dominant, too: 1/k + (k - 1) beta. */
  function cliff(k, beta) {
    return 1 - (k - 1) * dominanceThreshold(k, beta);
  }

  /** D of one-peak predictions against one vector, in closed form, on both sides of the cliff.
   *
   *  Of p only its entropy and the weight of the leading class matter. If p stands for all its
   *  permutations: while all entries count, the leader's cost is the smallest and meets the smallest
   *  entry of p; beyond the cliff it is the only cost and meets the largest. The functions take the
   *  logarithms of m and of the other entries, which many vectors can share. */
  function peakDivergence(p, { alpha, invariant = false }) {
    const { entropy: ownEntropy, ascending } = describe(p);
    const floor = alpha * ownEntropy;
    const amongAll = invariant ? ascending[0] : p[0];
    const alone = invariant ? ascending[p.length - 1] : p[0];
    return {
      lowest: amongAll, // the m at which `before` is smallest
      before: (logPeak, logOther) => -amongAll * logPeak - (1 - amongAll) * logOther - floor,
      after: (logPeak) => -alone * logPeak - floor,
    };
  }

  /** [log m, log of the other entries] */
  function peakLogs(m, k) {
    return [Math.log(m), Math.log((1 - m) / (k - 1))];
  }

  /** Normalised entropy of a one-peak prediction. */
  function peakEntropyScore(m, k) {
    const [logPeak, logOther] = peakLogs(m, k);
    return -(m * logPeak + (m < 1 ? (1 - m) * logOther : 0)) / Math.log(k);
  }

  /** Intervals [from, to] of m >= 1/k in which a one-peak prediction is flagged by any vector. */
  function onePeakIntervals(vectors, setting) {
    const k = vectors[0].length;
    const first = 1 / k;
    const edge = Math.max(first, cliff(k, setting.beta));
    const found = [];
    for (const p of vectors) {
      const divergence = peakDivergence(p, setting);
      const before = (m) => divergence.before(...peakLogs(m, k));
      const after = (m) => divergence.after(Math.log(m));
      // Before the cliff D falls, then rises: what is spared is one interval around the bottom.
      const bottom = Math.min(Math.max(divergence.lowest, first), edge);
      if (isVote(before(bottom))) {
        found.push([first, edge]);
      } else {
        if (isVote(before(first))) found.push([first, bisect(before, first, bottom)]);
        if (isVote(before(edge))) found.push([bisect(before, edge, bottom), edge]);
      }
      // Beyond it D only falls.
      if (isVote(after(edge))) found.push([edge, isVote(after(1)) ? 1 : bisect(after, edge, 1)]);
    }
    return mergeIntervals(found);
  }

  /** The m at which entropy stops flagging one-peak predictions. */
  function entropyInterval(k, threshold) {
    const excess = (m) => peakEntropyScore(m, k) - threshold;
    if (!isVote(excess(1 / k))) return [];
    return [[1 / k, threshold <= 0 ? 1 : bisect(excess, 1 / k, 1)]];
  }

  /** Where f changes from a vote (at `voting`) to none (at `sparing`). */
  function bisect(f, voting, sparing) {
    for (;;) {
      const middle = (voting + sparing) / 2;
      if (middle === voting || middle === sparing || Math.abs(voting - sparing) < 1e-14) return voting;
      if (isVote(f(middle))) voting = middle;
      else sparing = middle;
    }
  }

  function mergeIntervals(intervals) {
    const merged = [];
    for (const [from, to] of intervals.sort((a, b) => a[0] - b[0])) {
      const last = merged[merged.length - 1];
      if (last && from <= last[1] + TIE) last[1] = Math.max(last[1], to);
      else merged.push([from, to]);
    }
    return merged;
  }

  /* ---- Regions of the triangle (k = 3) ---------------------------------------------------------- */

  /** The triangle, cut along the lines q_j = tau into pieces on each of which S(q) is constant.
   *
   *  A piece is a quadrilateral (the middle one a triangle whose last two corners coincide) with the
   *  classes that are dominant on it and the number of grid steps along its two sides. */
  function simplexPieces(beta) {
    const tau = dominanceThreshold(3, beta);
    const point = (i, a, j, b) => {
      const q = [0, 0, 0];
      q[i] = a;
      q[j] = b;
      q[3 - i - j] = 1 - a - b;
      return q;
    };
    const all = [0, 1, 2].map((i) => point(i, 1 - 2 * tau, (i + 1) % 3, tau));
    const pieces = [
      { corners: [...all, all[2]], dominant: [true, true, true], steps: [56, 56] },
    ];
    for (const i of [0, 1, 2]) {
      const [j, l] = [(i + 1) % 3, (i + 2) % 3];
      pieces.push({
        corners: [
          point(i, 1 - tau, l, 0),
          point(i, tau, l, 0),
          point(i, tau, l, tau),
          point(i, 1 - 2 * tau, l, tau),
        ],
        dominant: [0, 1, 2].map((c) => c !== l),
        steps: [48, 12],
      });
      pieces.push({
        corners: [
          point(i, 1, j, 0),
          point(i, 1 - tau, j, tau),
          point(i, 1 - 2 * tau, j, tau),
          point(i, 1 - tau, j, 0),
        ],
        dominant: [0, 1, 2].map((c) => c === i),
        steps: [16, 16],
      });
    }
    return pieces;
  }

  /** The largest D over the vectors as a function of q, where S(q) is held fixed. */
  function largestDivergence(vectors, { alpha, invariant = false }, dominant) {
    // With sigma 0 all vectors are the same, and one is enough.
    const different = vectors.filter((p, i) => i === 0 || p.some((x, j) => x !== vectors[i - 1][j]));
    const entries = Float64Array.from(
      different.flatMap((p) => [...(invariant ? describe(p).ascending : p)]),
    );
    const floors = Float64Array.from(different, (p) => alpha * describe(p).entropy);
    const costs = new Float64Array(3);
    return (q) => {
      for (let j = 0; j < 3; j++) costs[j] = dominant[j] ? -Math.log(q[j]) : 0;
      if (invariant) costs.sort();
      const a = costs[0];
      const b = costs[1];
      const c = costs[2];
      let largest = -Infinity;
      for (let i = 0; i < floors.length; i++) {
        const at = 3 * i;
        const value = entries[at] * a + entries[at + 1] * b + entries[at + 2] * c - floors[i];
        if (value > largest) largest = value;
      }
      return largest;
    };
  }

  /** Plane coordinates of a prediction over three classes: class 1 at the top, 3 at the right. */
  function simplexXY(q) {
    return [q[2] + q[0] / 2, (Math.sqrt(3) / 2) * q[0]];
  }

  /** The prediction at a point of the plane; outside the triangle, the nearest one. */
  function simplexQ(x, y) {
    const first = y / (Math.sqrt(3) / 2);
    const third = x - first / 2;
    return nearestPrediction([first, 1 - first - third, third]);
  }

  /** Euclidean projection onto the simplex: subtract one number from all, clip at zero. */
  function nearestPrediction(point) {
    const sorted = [...point].sort((a, b) => b - a);
    let sum = 0;
    let shift = 0;
    sorted.forEach((value, i) => {
      sum += value;
      if (value > (sum - 1) / (i + 1)) shift = (sum - 1) / (i + 1);
    });
    return point.map((value) => Math.max(0, value - shift));
  }

  /** Where the divergence flags predictions over three classes, and its contour lines.
   *
   *  Returns `polygons` (lists of plane points) that tile the region, its `share` of the triangle's
   *  area, and `contours`: [level, x1, y1, x2, y2] segments of the largest D, `spacing` nats apart. */
  function divergenceRegion(vectors, setting, spacing = 0.2) {
    const polygons = [];
    const contours = [];
    for (const { corners, dominant, steps } of simplexPieces(setting.beta)) {
      const value = largestDivergence(vectors, setting, dominant);
      const grid = gridOf(corners, steps, value);
      for (let v = 0; v < steps[1]; v++) {
        let runStart = null; // cells that lie in the region as a whole are joined to one polygon
        for (let u = 0; u <= steps[0]; u++) {
          const cell = u < steps[0] && [grid[v][u], grid[v][u + 1], grid[v + 1][u + 1], grid[v + 1][u]];
          const whole = cell && cell.every((node) => node.value >= 0);
          if (whole && runStart === null) runStart = u;
          if (!whole && runStart !== null) {
            const run = [grid[v][runStart], grid[v][u], grid[v + 1][u], grid[v + 1][runStart]];
            polygons.push(run.map((node) => simplexXY(node.q)));
            runStart = null;
          }
          if (!cell) continue;
          for (const triangle of [cell.slice(0, 3), [cell[0], cell[2], cell[3]]]) {
            if (!whole && triangle.some((node) => node.value >= 0)) {
              const part = partAboveZero(triangle, value);
              polygons.push(part.map(simplexXY));
            }
            addContours(contours, triangle, spacing);
          }
        }
      }
    }
    const area = polygons.reduce((sum, polygon) => sum + polygonArea(polygon), 0);
    return { polygons, contours, share: area / (Math.sqrt(3) / 4) };
  }

  function gridOf([a, b, c, d], [columns, rows], value) {
    return Array.from({ length: rows + 1 }, (_, row) =>
      Array.from({ length: columns + 1 }, (_, column) => {
        const u = column / columns;
        const v = row / rows;
        const q = [0, 0, 0];
        for (let j = 0; j < 3; j++) {
          q[j] = (1 - v) * ((1 - u) * a[j] + u * b[j]) + v * ((1 - u) * d[j] + u * c[j]);
        }
        return { q, value: value(q) };
      }),
    );
  }

  /** The part of a small triangle where a function is at least zero; its border is bisected. */
  function partAboveZero(triangle, value) {
    const inside = triangle.map((node) => node.value >= 0);
    const part = [];
    triangle.forEach((node, i) => {
      const next = triangle[(i + 1) % 3];
      if (inside[i]) part.push(node.q);
      if (inside[i] === inside[(i + 1) % 3]) return;
      let [within, without] = inside[i] ? [node.q, next.q] : [next.q, node.q];
      for (let step = 0; step < 12; step++) {
        const middle = within.map((entry, j) => (entry + without[j]) / 2);
        if (value(middle) >= 0) within = middle;
        else without = middle;
      }
      part.push(within);
    });
    return part;
  }

  function addContours(contours, [a, b, c], spacing) {
    const highest = Math.floor(Math.max(a.value, b.value, c.value) / spacing);
    let step = Math.ceil(Math.min(a.value, b.value, c.value) / spacing);
    for (; step <= highest; step++) {
      const level = step * spacing;
      const ends = [];
      for (const [from, to] of [[a, b], [b, c], [c, a]]) {
        if (from.value < level === to.value < level) continue;
        const share = (level - from.value) / (to.value - from.value);
        ends.push(...simplexXY(from.q.map((entry, j) => entry + share * (to.q[j] - entry))));
      }
      if (ends.length === 4) contours.push([level, ...ends]);
    }
  }

  function polygonArea(polygon) {
    let twice = 0;
    polygon.forEach(([x, y], i) => {
      const [nextX, nextY] = polygon[(i + 1) % polygon.length];
      twice += x * nextY - nextX * y;
    });
    return Math.abs(twice) / 2;
  }

  /** Outline of the predictions over three classes whose normalised entropy reaches a threshold.
   *
   *  On every ray from the centre entropy falls, so one bisection a ray finds the border. */
  function entropyRegion(threshold, rays = 240) {
    const centre = [1 / 3, 1 / 3, 1 / 3];
    const outline = [];
    for (let ray = 0; ray < rays; ray++) {
      const angle = (2 * Math.PI * ray) / rays;
      const [x, y] = [Math.cos(angle), Math.sin(angle)];
      const first = y / (Math.sqrt(3) / 2);
      const third = x - first / 2;
      const direction = [first, -first - third, third];
      const at = (length) => centre.map((entry, j) => Math.max(0, entry + length * direction[j]));
      const rim = Math.min(...direction.filter((d) => d < 0).map((d) => -1 / (3 * d)));
      const excess = (length) => entropyScore(at(length)) - threshold;
      const length = isVote(excess(rim)) ? rim : isVote(excess(0)) ? bisect(excess, 0, rim) : 0;
      outline.push(simplexXY(at(length)));
    }
    return { outline, share: polygonArea(outline) / (Math.sqrt(3) / 4) };
  }

  /** The threshold, to three decimals, at which entropy flags a given share of the triangle. */
  function entropyThresholdForShare(share) {
    let [low, high] = [0, 1];
    for (let step = 0; step < 20; step++) {
      const middle = (low + high) / 2;
      if (entropyRegion(middle, 120).share > share) low = middle;
      else high = middle;
    }
    return Math.round(high * 1000) / 1000;
  }

  window.genklExplorer = {
    core: {
      MAX_CLASSES,
      MAX_VECTORS,
      MAX_SEED,
      PRESETS,
      RandomState,
      uniformLikeVectors,
      meanVector,
      dominanceThreshold,
      dominantEntries,
      entropyScore,
      judge,
      isVote,
      onePeak,
      cliff,
      peakDivergence,
      peakLogs,
      peakEntropyScore,
      onePeakIntervals,
      entropyInterval,
      simplexXY,
      simplexQ,
      nearestPrediction,
      divergenceRegion,
      entropyRegion,
      entropyThresholdForShare,
    },
  };
})();
