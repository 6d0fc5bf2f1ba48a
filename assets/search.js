// The search: a list of sections under the field of the dialog, and on the page of the search. The index was written by
// _ext/site_search.py; Pagefind reads it piece by piece, from this site alone, and only once somebody searches.
(() => {
  const root = new URL("../", document.currentScript.src);
  const SHOWN = 10, BEFORE = 6, WORDS = 30;
  // Long sections are not worse than short ones; a word that stands in a title counts, in an address it does not.
  const ranking = { pageLength: 0, termFrequency: 0.3, metaWeights: { title: 1, page: 0, url: 0 } };
  let pagefind;

  const load = () => (pagefind ??= import(new URL("pagefind/pagefind.js", root)).then(async (module) => {
    await module.options({ ranking });
    await module.init();
    return module;
  }));

  const element = (name, className, ...children) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };

  // Some words around the first that was found, after those of the title; what was found is marked.
  const excerpt = ({ content, locations, meta }) => {
    const words = content.split(/\s+/), title = meta.title.split(/\s+/).length;
    const found = new Set(locations);
    const first = Math.min(...locations.filter((place) => place >= title), words.length);
    const start = first === words.length ? title : Math.max(title, first - BEFORE);
    const shown = words.slice(start, start + WORDS).flatMap((word, i) =>
      [found.has(start + i) ? element("mark", "", word) : word, " "]);
    return element("p", "", start > title ? "… " : "", ...shown, start + WORDS < words.length ? "…" : "");
  };

  // Pagefind shortens a word that is nowhere until something begins like it: that is no result.
  const fits = (asked) => {
    const beginnings = asked.toLowerCase().split(/\s+/).map((word) => word.slice(0, 3));
    return ({ content, locations }) => {
      const words = content.toLowerCase().split(/\s+/);
      return locations.some((place) => beginnings.some((letters) => words[place].includes(letters)));
    };
  };

  const entry = (data) => {
    const link = element("a", "", data.meta.title);
    link.href = new URL(data.meta.url, root);
    const page = data.meta.page === data.meta.title ? "" : element("span", "found-page", data.meta.page);
    return element("li", "", link, page, excerpt(data));
  };

  const search = async (words, status, list) => {
    const asked = (list.dataset.asked = words.trim());
    let found = [], said = "";
    try {
      const { results } = asked ? await (await load()).search(asked) : { results: [] };
      found = (await Promise.all(results.slice(0, SHOWN).map((result) => result.data()))).filter(fits(asked));
      if (asked) said = found.length ? `${results.length} ${results.length === 1 ? "place" : "places"}` : "Nothing found";
    } catch {
      pagefind = undefined;
      said = "The search cannot be read. Opened from a folder, the site needs a server: python -m http.server";
    }
    if (list.dataset.asked !== asked) return; // meanwhile something else was asked
    status.textContent = said;
    list.replaceChildren(...found.map(entry));
  };

  const attach = (form, place) => {
    const input = form.querySelector("input[name=q]");
    const status = element("p", "found-status"), list = element("ol", "found");
    status.setAttribute("role", "status");
    place.append(status, list);
    let wait;
    input.addEventListener("focus", () => load().catch(() => { pagefind = undefined; }), { once: true });
    input.addEventListener("input", () => {
      clearTimeout(wait);
      wait = setTimeout(() => search(input.value, status, list), 150);
    });
    return (words) => { input.value = words; return search(words, status, list); };
  };

  // Before version 0.16 the theme's dialog is a box, which Escape closes only while one types.
  const box = document.querySelector(".search-button__search-container");
  const dialog = document.getElementById("pst-search-dialog") ?? box;
  attach(dialog.querySelector("form"), dialog);
  box?.addEventListener("keydown", ({ key }) => key === "Escape" && box.parentElement.classList.remove("show"));

  const results = document.getElementById("search-results");
  if (results) {
    const form = results.parentElement.querySelector("form");
    const show = attach(form, results);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const words = form.querySelector("input").value;
      history.replaceState(null, "", `?q=${encodeURIComponent(words)}`);
      show(words);
    });
    show(new URLSearchParams(location.search).get("q") ?? "");
    form.querySelector("input").focus();
  }
})();
