// On paper a fold cannot be opened and dark is unreadable: before printing, all folds but hints and solutions open and
// the page turns light; afterwards it is as it was.
(() => {
  const page = document.documentElement;
  let opened = [], theme;
  window.addEventListener("beforeprint", () => {
    theme = page.dataset.theme;
    page.dataset.theme = "light";
    opened = [...document.querySelectorAll("article details:not([open])")]
      .filter((fold) => !/^\s*(Hint|Solution)/.test(fold.querySelector("summary")?.textContent ?? ""));
    for (const fold of opened) fold.open = true;
  });
  window.addEventListener("afterprint", () => {
    page.dataset.theme = theme;
    for (const fold of opened) fold.open = false;
  });
})();
