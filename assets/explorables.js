// Brings the page's explorables to life without a kernel, each when it comes into view. Its code and its arrays are
// scripts of the site (_ext/site_explorables.py), so that this works from a folder too; arrays that several share are
// loaded once. What goes wrong leaves the figure and one sentence.
window.explorables = { modules: {}, arrays: {} };

(() => {
  const base = new URL(".", document.currentScript.src);
  const loading = {};
  const load = (file) => (loading[file] ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = new URL(`explorables/${file}.js`, base);
    script.onload = done;
    script.onerror = () => failed(new Error(`${file} was not found`));
    document.head.append(script);
  }));

  // What anywidget calls a model, without anyone at the other end.
  function model(values) {
    const heard = {};
    return {
      get: (name) => values[name],
      set: (name, value) => {
        values[name] = value;
        for (const tell of heard[`change:${name}`] ?? []) tell();
      },
      save_changes: () => {},
      on: (event, tell) => { (heard[event] ??= []).push(tell); },
      off: (event, tell) => { heard[event] = (heard[event] ?? []).filter((other) => other !== tell); },
    };
  }

  async function wake(home) {
    const name = home.dataset.explorable, figure = [...home.children].filter((node) => node.tagName !== "SCRIPT");
    try {
      const given = JSON.parse(home.querySelector("script").textContent);
      await Promise.all([load(name), ...new Set(Object.values(given.arrays).map((entry) => entry.file))].map((file) => (typeof file === "string" ? load(file) : file)));
      for (const entry of Object.values(given.arrays)) entry.data = window.explorables.arrays[entry.file];
      const el = document.createElement("div");
      window.explorables.modules[name].render({ model: model(given), el });
      if ("failed" in el.dataset) throw new Error(el.querySelector(".explorable-words").textContent.replace(/\.$/, ""));
      figure.forEach((node) => node.remove());
      home.append(el);
      home.dataset.alive = "";
    } catch (error) {
      const sentence = document.createElement("p");
      sentence.textContent = `This figure cannot be made to move here: ${error.message}.`;
      home.append(sentence);
    }
  }

  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      wake(target);
    }
  }, { rootMargin: "200px" });
  document.querySelectorAll(".explorable-home").forEach((home) => seen.observe(home));
})();
