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
  window.MathJax?.startup?.promise?.then(reach);
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
