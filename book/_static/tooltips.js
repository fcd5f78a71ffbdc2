// Words of the glossary and symbols of the notation explain themselves: rest on one, tab to it,
// or tap it. Escape closes. The definitions come from the two pages (definitions.js).
(() => {
  const { terms, symbols } = window.GENKL_DEFINITIONS ?? { terms: [], symbols: [] };
  const article = document.querySelector("article.bd-article");
  if (!article) return;
  const root = document.documentElement.dataset.content_root ?? "./";
  const glossary = `${root}book/glossary.html`;
  const notation = `${root}book/notation.html`;

  // --- Words: the first time that a page uses one --------------------------------------------

  const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/ /g, "\\s+");
  const isAcronym = (name) => name === name.toUpperCase();
  const key = (name) => (isAcronym(name) ? name : name.toLowerCase().replace(/\s+/g, " "));
  const spoken = terms.filter((term) => !term.everyday);
  const byName = new Map(spoken.flatMap((term) => term.names.map((name) => [key(name), term])));
  const names = [...byName.keys()].sort((a, b) => b.length - a.length);
  const pattern = new RegExp(`(?<![\\w-])(?:${names.map(escaped).join("|")})(?:s|es)?(?![\\w-])`, "i");

  const lookUp = (text) => {
    const tidy = text.replace(/\s+/g, " ");
    for (const form of [tidy, tidy.replace(/s$/, ""), tidy.replace(/es$/, "")]) {
      if (byName.has(form)) return byName.get(form);
      const lower = form.toLowerCase();
      if (byName.has(lower)) return byName.get(lower);
    }
    return undefined;
  };

  const skipped = "a, code, pre, h1, h2, h3, h4, h5, h6, .math, .exercise, .admonition-title, table, " +
    "figure, button, summary, .rerun, .gloss";
  const explained = new Set();

  const markWords = (text) => {
    let node = text;
    let from = 0;
    while (node) {
      const found = pattern.exec(node.data.slice(from));
      if (!found) return;
      const at = from + found.index;
      const term = lookUp(found[0]);
      if (!term || explained.has(term)) {
        from = at + found[0].length;
        continue;
      }
      explained.add(term);
      const word = node.splitText(at);
      const rest = word.splitText(found[0].length);
      const link = document.createElement("a");
      link.className = "gloss";
      link.href = `${glossary}#${term.anchor}`;
      link.dataset.meaning = term.meaning;
      word.replaceWith(link);
      link.append(word);
      node = rest;
      from = 0;
    }
  };

  // What a page marks as a term is explained there, everyday word or not.
  for (const link of article.querySelectorAll("a:has(> .std-term)")) {
    const term = terms.find(({ anchor }) => link.hash === `#${anchor}`);
    if (!term) continue;
    link.classList.add("gloss");
    link.dataset.meaning = term.meaning;
    explained.add(term);
  }

  if (names.length) {
    const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT, {
      acceptNode: (node) =>
        node.parentElement.closest("p, li, dd") && !node.parentElement.closest(skipped)
          ? NodeFilter.FILTER_ACCEPT : NodeFilter.FILTER_REJECT,
    });
    const texts = [];
    while (walker.nextNode()) texts.push(walker.currentNode);
    texts.forEach(markWords);
  }

  // --- Symbols: formulas that consist of one --------------------------------------------------

  const plain = (tex) => tex.replace(/^\s*\\\(|\\\)\s*$/g, "").replace(/\s+/g, "");
  const bySymbol = new Map(symbols.map(({ tex, meaning }) => [plain(tex), meaning]));
  const markSymbol = (span, tex) => {
    if (!span || !bySymbol.has(plain(tex)) || span.closest("a, h1, h2, h3")) return;
    span.classList.add("gloss");
    span.dataset.meaning = bySymbol.get(plain(tex));
  };
  article.querySelectorAll("span.math").forEach((span) => markSymbol(span, span.textContent));
  // MathJax may have been here already; then it knows what it has set.
  window.MathJax?.startup?.promise?.then(() => {
    for (const { math, typesetRoot } of MathJax.startup.document.math) {
      markSymbol(typesetRoot?.closest("article span.math"), math);
    }
  });

  // --- The tip ----------------------------------------------------------------------------------

  const tip = document.createElement("div");
  tip.id = "gloss-tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  let owner = null;
  let leaving = 0;

  const close = () => {
    owner?.removeAttribute("aria-describedby");
    owner = null;
    tip.hidden = true;
  };

  const place = () => {
    const box = owner.getBoundingClientRect();
    const width = Math.min(352, document.documentElement.clientWidth - 24);
    tip.style.maxWidth = `${width}px`;
    const own = tip.getBoundingClientRect();
    const most = document.documentElement.clientWidth - own.width - 12;
    const below = box.bottom + own.height + 12 < innerHeight || box.top < own.height + 12;
    tip.style.left = `${scrollX + Math.max(12, Math.min(most, box.left))}px`;
    tip.style.top = `${scrollY + (below ? box.bottom + 6 : box.top - own.height - 6)}px`;
  };

  const open = (element) => {
    clearTimeout(leaving);
    if (owner === element) return;
    close();
    owner = element;
    const link = document.createElement("a");
    link.href = element.href ?? notation;
    link.textContent = element.href ? "Glossary" : "Notation";
    const words = document.createElement("span");
    words.textContent = `${element.dataset.meaning} `;
    tip.replaceChildren(words, link);
    tip.hidden = false;
    element.setAttribute("aria-describedby", tip.id);
    place();
    if (element.dataset.meaning.includes("\\(")) {
      window.MathJax?.typesetPromise?.([words]).then(() => owner === element && place());
    }
  };

  const marked = (event) => event.target.closest?.("article .gloss");
  const leave = () => { leaving = setTimeout(close, 200); };
  article.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "touch" && marked(event)) open(marked(event));
  });
  article.addEventListener("pointerout", (event) => {
    if (event.pointerType !== "touch" && marked(event)) leave();
  });
  tip.addEventListener("pointerenter", () => clearTimeout(leaving));
  tip.addEventListener("pointerleave", leave);
  article.addEventListener("focusin", (event) => marked(event) && open(marked(event)));
  article.addEventListener("focusout", (event) => {
    if (marked(event) && !tip.contains(event.relatedTarget)) leave();
  });

  // A first tap explains; the link in the tip leads on.
  let byTouch = false;
  article.addEventListener("pointerdown", (event) => { byTouch = event.pointerType === "touch"; });
  document.addEventListener("click", (event) => {
    const element = marked(event);
    if (element && byTouch) {
      event.preventDefault();
      open(element);
    } else if (!tip.contains(event.target) && !element) {
      close();
    }
  });
  addEventListener("keydown", (event) => event.key === "Escape" && close());
})();
