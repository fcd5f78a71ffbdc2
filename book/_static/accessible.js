// What scrolls can be reached and scrolled with the keyboard; buttons are called what they show.
(() => {
  const scrolling = "table, pre, .math, .text_html, .pst-scrollable-table-container, mjx-container";
  const reach = () => {
    for (const element of document.querySelectorAll(`article :is(${scrolling})`)) {
      const style = getComputedStyle(element);
      const scrolls = element.scrollWidth > element.clientWidth + 1
        && /auto|scroll/.test(style.overflowX);
      if (scrolls && !element.hasAttribute("tabindex")) element.tabIndex = 0;
    }
  };
  reach();
  addEventListener("load", reach);
  addEventListener("resize", reach);

  // Formulas are set once the page stands: it can be read and scrolled until then. (This runs
  // before MathJax does, and is part of its configuration.)
  const stands = new Promise((done) => {
    if (document.readyState === "complete") done();
    else addEventListener("load", () => setTimeout(done));
  });
  let moved = false;
  for (const act of ["wheel", "touchmove", "keydown", "pointerdown"]) {
    addEventListener(act, () => { moved = true; }, { once: true, passive: true });
  }
  const arrive = () => { // formulas have moved what the address points at
    reach();
    for (const wait of [0, 300]) { // once more, when the browser's own way there has ended
      setTimeout(() => {
        if (!moved) document.querySelector(":target")?.scrollIntoView({ behavior: "instant" });
      }, wait);
    }
  };
  const startup = {
    ...window.MathJax?.startup,
    pageReady: () => stands.then(() => MathJax.startup.defaultPageReady()).then(arrive),
  };
  window.MathJax = { ...window.MathJax, startup };
  document.addEventListener("toggle", reach, true);

  // The theme's label "Search" leaves out the keys that the button shows.
  document.querySelectorAll(".search-button-field").forEach((one) => one.removeAttribute("aria-label"));

  // Drop-downs are open on paper.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("article details.sd-dropdown:not([open])")];
    opened.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));
})();
