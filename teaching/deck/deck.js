// Slides: arrows, space, Home and End, swipes, buttons; #7 in the address is the seventh.
(() => {
  const slides = [...document.querySelectorAll(".slide")];
  const where = document.getElementById("where");
  const back = document.getElementById("back");
  const on = document.getElementById("on");
  let shown = 0;

  // What is too long for its slide is set smaller, down to a legible size; a few words, larger.
  const fit = (slide) => {
    if (innerWidth <= 700) return slide.style.removeProperty("--fit");
    const most = slide.querySelector("figure") ? 1 : 1.36;
    for (let size = most; size >= 0.6; size -= 0.04) {
      slide.style.setProperty("--fit", size.toFixed(2));
      if (slide.scrollHeight <= slide.clientHeight + 1) return;
    }
  };

  const show = (number) => {
    shown = Math.max(0, Math.min(slides.length - 1, number));
    slides.forEach((slide, at) => slide.classList.toggle("shown", at === shown));
    where.textContent = `${shown + 1} / ${slides.length}`;
    back.disabled = shown === 0;
    on.disabled = shown === slides.length - 1;
    if (location.hash !== `#${shown + 1}`) history.replaceState(null, "", `#${shown + 1}`);
    fit(slides[shown]);
  };

  const keys = {
    ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1,
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.closest("button")) return;
    if (event.key in keys) show(shown + keys[event.key]);
    else if (event.key === "Home") show(0);
    else if (event.key === "End") show(slides.length - 1);
    else return;
    event.preventDefault();
  });
  back.addEventListener("click", () => show(shown - 1));
  on.addEventListener("click", () => show(shown + 1));

  let start = null;
  addEventListener("touchstart", (event) => { start = event.changedTouches[0]; }, { passive: true });
  addEventListener("touchend", (event) => {
    const end = event.changedTouches[0];
    const [x, y] = [end.clientX - start.clientX, end.clientY - start.clientY];
    if (Math.abs(x) > 60 && Math.abs(x) > 2 * Math.abs(y)) show(shown + (x < 0 ? 1 : -1));
  }, { passive: true });

  addEventListener("hashchange", () => show(Number(location.hash.slice(1)) - 1));
  addEventListener("resize", () => show(shown));
  // On paper every slide is on a page of its own, and every one has to fit.
  const fitAll = () => slides.forEach((slide) => {
    const hidden = !slide.classList.contains("shown");
    if (hidden) slide.classList.add("shown");
    fit(slide);
    if (hidden) slide.classList.remove("shown");
  });
  window.fitSlides = () => { fitAll(); show(shown); };
  addEventListener("beforeprint", fitAll);
  show((Number(location.hash.slice(1)) || 1) - 1);
})();
