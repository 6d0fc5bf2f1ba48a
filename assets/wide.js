// What is wider than its column scrolls inside itself. Where that is so, and only there, it can be reached by the
// keyboard and says what it is: code on a phone, a wide table, a long formula.
(() => {
  const NAMES = { PRE: "Code", "MJX-CONTAINER": "Formula", SPAN: "Formula" };
  const boxes = "pre, .scrolls, .cell_output > .output, span.math, mjx-container[display]";

  const mark = (box) => {
    const scrolls = box.scrollWidth > box.clientWidth + 1;
    if (scrolls === box.hasAttribute("data-wide")) return;
    box.toggleAttribute("data-wide", scrolls);
    if (scrolls) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", `${NAMES[box.tagName] ?? (box.querySelector("table") ? "Table" : "Output")}, wider than the page`);
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
    }
  };
  const observer = new ResizeObserver((entries) => entries
    .flatMap(({ target }) => [target, ...target.querySelectorAll("mjx-container[display]")])
    .filter((box) => box.matches(boxes)).forEach(mark));
  // Formulas stand in their boxes only once MathJax has set them, which changes the boxes' size.
  document.querySelectorAll(`${boxes}, div.math`).forEach((box) => observer.observe(box));
})();
