// Search yourself: look where you think it pays, watch the beliefs, and compare with what each policy would have done.
import { asMaps, maps, zeros, normalized, denormalized, imageOf, argmax } from "./nn.js";
import { logPolar, inverse } from "./retina.js";
import { arrays, live, make, canvas, draw, line, outline, MARKS, button, select, checkbox, movable, shown, percent } from "./ui.js";

const logSum = (values) => { const top = Math.max(...values); return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0)); };
const mean = (logWeights, values) => logWeights.reduce((sum, log, i) => { const weight = Math.exp(log); return weight ? sum + weight * values[i] : sum; }, 0);

// Two views put together, all labels being alike before: log-probabilities, and log Z, how much the views say the same.
export function fused(belief, view) {
  const joint = belief.map((value, i) => value + view[i] + Math.log(belief.length)), logZ = logSum(joint);
  return { belief: joint.map((value) => value - logZ), logZ };
}

export function informationGain(belief, view) {
  const after = fused(belief, view).belief;
  return Math.max(0, mean(after, after.map((value, i) => value - belief[i])));
}

export function informationGainBound(belief, view) {
  return mean(fused(belief, view).belief, view) + Math.log(belief.length);
}

// The rules that rank the candidates: score(belief, view, fixation, label), the greatest is looked at.
export const POLICIES = {
  "information gain": (belief, view) => informationGain(belief, view),
  "the bound on it, IGUB": (belief, view) => informationGainBound(belief, view),
  "confidence": (belief, view) => Math.max(...view),
  "fused confidence": (belief, view) => Math.max(...fused(belief, view).belief),
  "a search that is told the label": (belief, view, at, label) => view[label],
  "the middle first": (belief, view, [x, y]) => -(x * x) - y * y,
};

// The first candidate of the greatest score among those not looked at yet.
export function next(scores, visited) {
  let best = -1;
  scores.forEach((score, i) => { if (!visited.has(i) && (best < 0 || score > scores[best])) best = i; });
  return best;
}

// What a policy does from the first glance on: its choices and what it believes after each.
export function run(name, { glance, views, fixations, label }, saccades) {
  const visited = new Set(atStart(fixations)), choices = [], beliefs = [];
  let belief = glance;
  for (let s = 0; s < saccades; s++) {
    const choice = next(views.map((view, i) => POLICIES[name](belief, view, fixations[i], label)), visited);
    visited.add(choice);
    belief = fused(belief, views[choice]).belief;
    choices.push(choice);
    beliefs.push(belief);
  }
  return { choices, beliefs };
}

const atStart = (fixations) => [...fixations.keys()].filter((i) => Math.max(Math.abs(fixations[i][0]), Math.abs(fixations[i][1])) < 1e-6);

export function render({ model, el }) {
  const { classes, means, stds, retina, fixations, labels, boxes, saccades } = model.get("settings");
  const values = arrays(model), pictures = asMaps(values.pictures), side = pictures.w, count = classes.length, across = Math.round(Math.sqrt(fixations.length));
  const rows = ({ data }, from, many) => Array.from({ length: many }, (_, i) => Array.from(data.subarray((from + i) * count, (from + i + 1) * count)));
  const scenes = labels.map((label, s) => ({ label, fixations, glance: rows(values.glance, s, 1)[0], views: rows(values.views, s * fixations.length, fixations.length) }));
  const picture = canvas(320, 320, ""), view = canvas(retina.angles * 4, retina.radii * 4, "");
  const frame = live(model, el, show), state = frame.state, prior = Array(count).fill(-Math.log(count)), cached = {};
  const advice = ["nobody", ...Object.keys(POLICIES)];

  const whose = select("show the choice of", { options: advice, value: advice[0], change: (name) => frame.set({ advice: advice.indexOf(name) }) });
  const reveal = checkbox("show the whole picture", { value: state().reveal, change: (on) => frame.set({ reveal: on }) });
  const look = button("look here", () => press()), again = button("start again", () => frame.set({ looks: [] }));
  const following = button("next scene", () => frame.set({ scene: (state().scene + 1) % scenes.length, looks: [], cursor: Math.floor(fixations.length / 2) }));
  const beliefs = table(["prior", "before", "this view", "now"]), board = make("table", { class: "explorable-table" });
  movable(picture, {
    move: (x, y) => frame.set({ cursor: nearest(x * 2 - 1, y * 2 - 1) }),
    nudge: (dx, dy) => {
      const row = Math.floor(state().cursor / across) + dy, column = (state().cursor % across) + dx;
      if (row >= 0 && row < across && column >= 0 && column < across) frame.set({ cursor: row * across + column });
    },
    press,
  });

  function nearest(x, y) {
    const away = fixations.map(([u, v]) => (u - x) ** 2 + (v - y) ** 2);
    return away.indexOf(Math.min(...away));
  }

  const free = ({ looks, cursor }) => looks.length < saccades && !looks.includes(cursor) && !atStart(fixations).includes(cursor);

  function press() {
    const now = state();
    if (!free(now)) return frame.show();
    const looks = [...now.looks, now.cursor], scene = scenes[now.scene], results = { ...now.results };
    if (looks.length === saccades && !(now.scene in results)) results[now.scene] = argmax(believed(scene, looks).belief) === scene.label;
    frame.set({ looks, results });
  }

  // What is believed after some looks, and before the last of them.
  function believed(scene, looks) {
    let before = prior, belief = scene.glance, last = scene.glance, logZ = 0;
    for (const at of looks) {
      before = belief;
      last = scene.views[at];
      ({ belief, logZ } = fused(belief, last));
    }
    return { before, last, belief, logZ };
  }

  const pixelsOf = ([x, y]) => [((x + 1) / 2) * side, ((y + 1) / 2) * side];
  const colours = means.length;

  // What a look shows: the view, and the picture drawn back from it.
  function seen(scene, fixation) {
    const key = `${scene} ${fixation}`;
    if (!cached[key]) {
      const x = normalized(imageOf(pictures, scene, colours), means, stds), sample = logPolar(x, pixelsOf(fixation), retina);
      cached[key] = { view: denormalized(sample, means, stds), back: denormalized(inverse(sample, pixelsOf(fixation), retina, side, side), means, stds) };
    }
    return cached[key];
  }

  // The picture as far as it was seen: at every pixel from the look that was nearest, grey where no look has reached.
  function remembered(scene, looked) {
    const y = zeros(colours, side, side), reach = (retina.rMax * side) / 2;
    y.data.fill(0.5);
    const nearestYet = new Float32Array(side * side).fill(reach);
    for (const fixation of looked) {
      const { back } = seen(scene, fixation), [fx, fy] = pixelsOf(fixation);
      for (let u = 0; u < side * side; u++) {
        const away = Math.hypot((u % side) + 0.5 - fx, Math.floor(u / side) + 0.5 - fy);
        if (away > nearestYet[u]) continue;
        nearestYet[u] = away;
        for (let c = 0; c < colours; c++) y.data[c * side * side + u] = back.data[c * side * side + u];
      }
    }
    return y;
  }

  function show(now) {
    const scene = scenes[now.scene], looked = [[0, 0], ...now.looks.map((at) => fixations[at])], over = now.looks.length === saccades;
    const { before, last, belief, logZ } = believed(scene, now.looks);
    el.result = { belief, z: Math.exp(logZ) };
    draw(picture, now.reveal || over ? imageOf(pictures, now.scene, colours) : remembered(now.scene, looked));
    if (over) outline(picture, boxes[now.scene], side, MARKS.truth);
    const chosen = advice[now.advice], advised = chosen !== "nobody" && !over;
    const visited = new Set([...atStart(fixations), ...now.looks]);
    let suggestion = "";
    if (advised) {
      const scores = scene.views.map((logP, i) => POLICIES[chosen](belief, logP, fixations[i], scene.label)), best = next(scores, visited);
      const map = maps(Float32Array.from(scores), 1, across, across), inGrid = [Math.min(...scores), Math.max(...scores)];
      el.result.scores = scores;
      el.result.best = best;
      overGrid(map, inGrid);
      ring(fixations[best], "#56b4e9");
      suggestion = ` The next look of ${chosen} would go to ${where(best)}.`;
    }
    if (over && chosen !== "nobody") {
      const { choices, beliefs: after } = (cached[`${chosen} ${now.scene}`] ??= run(chosen, scene, saccades)), final = after[saccades - 1], says = argmax(final);
      choices.forEach((at, i) => number(fixations[at], String(i + 1), MARKS.other, 14));
      suggestion = ` ${chosen[0].toUpperCase()}${chosen.slice(1)}, in blue, ends with ${classes[says]} (${percent(Math.exp(final[says]))}).`;
    }
    fixations.forEach((at) => dot(at));
    looked.forEach((at, i) => number(at, String(i)));
    if (!over) ring(fixations[now.cursor], MARKS.gaze, true);
    draw(view, seen(now.scene, looked[looked.length - 1]).view);
    beliefs.set([prior, before, last, belief], argmax(belief));
    score(now);
    whose.set(chosen); reveal.set(now.reveal);
    look.disabled = !free(now); again.disabled = !now.looks.length;
    picture.setAttribute("aria-label", `Scene ${now.scene + 1} of ${scenes.length}. The gaze would go to ${where(now.cursor)}; arrow keys move it, the enter key looks.`);
    view.setAttribute("aria-label", "What the last look shows the network: the periphery on top, the fovea at the bottom.");
    const left = saccades - now.looks.length, best = argmax(belief), sure = `${classes[best]}, ${percent(Math.exp(belief[best]))}`;
    const z = now.looks.length ? ` Z is ${shown(Math.exp(logZ))}, ${logZ > 0 ? "above 1: the view agrees with what was believed, be that right or wrong" : "below 1: the view contradicts what was believed"}.` : "";
    if (over) return `Scene ${now.scene + 1}: after ${saccades} looks the belief is ${sure}. It is ${classes[scene.label]}: ${best === scene.label ? "right" : "wrong"}.${z}${suggestion}`;
    return `Scene ${now.scene + 1}, ${now.looks.length ? `look ${now.looks.length}` : "first glance, at the middle"}: ${sure}. ${left === 1 ? "One look is" : `${left} looks are`} left.${z}${suggestion}`;
  }

  const where = (at) => `row ${Math.floor(at / across) + 1}, column ${(at % across) + 1}`;
  const onCanvas = ([x, y]) => [((x + 1) / 2) * picture.width, ((y + 1) / 2) * picture.height];

  function dot(at) {
    const pen = picture.getContext("2d"), [x, y] = onCanvas(at);
    pen.fillStyle = "rgba(255, 255, 255, 0.8)";
    pen.beginPath();
    pen.arc(x, y, 1.6, 0, 2 * Math.PI);
    pen.fill();
  }

  function ring(at, colour, reach = false) {
    const [x, y] = onCanvas(at);
    line(picture, colour, (pen) => pen.arc(x, y, 7, 0, 2 * Math.PI));
    if (reach) line(picture, colour, (pen) => pen.arc(x, y, (retina.rMax * picture.width) / 2, 0, 2 * Math.PI), [3, 6]);
  }

  function number(at, text, colour = "white", below = 0) {
    const pen = picture.getContext("2d"), [x, y] = onCanvas(at);
    pen.font = "bold 16px sans-serif";
    pen.textAlign = "center";
    pen.lineWidth = 4;
    pen.strokeStyle = "#222";
    pen.fillStyle = colour;
    pen.strokeText(text, x, y + 6 + below);
    pen.fillText(text, x, y + 6 + below);
  }

  // A policy's scores, a square a candidate.
  function overGrid(map, [low, high]) {
    const sheet = canvas(map.w, map.h, ""), pen = picture.getContext("2d");
    draw(sheet, map, { kind: "magnitude", low, high });
    const [x0, y0] = onCanvas(fixations[0]), [x1] = onCanvas(fixations[1]), cell = x1 - x0;
    pen.imageSmoothingEnabled = false;
    pen.globalAlpha = 0.5;
    pen.drawImage(sheet, x0 - cell / 2, y0 - cell / 2, cell * map.w, cell * map.h);
    pen.globalAlpha = 1;
  }

  function table(columns) {
    const cells = classes.map(() => columns.map(() => ({ fill: make("span", { class: "explorable-fill" }), text: make("span", { class: "explorable-value" }) })));
    const lines = classes.map((name, i) => make("tr", {}, make("th", { scope: "row" }, name), ...cells[i].map(({ fill, text }) => make("td", {}, make("span", { class: "explorable-track" }, fill), text))));
    const node = make("table", { class: "explorable-table" },
      make("thead", {}, make("tr", {}, make("td"), ...columns.map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, ...lines));
    const set = (columns, marked) => cells.forEach((line, i) => {
      line.forEach(({ fill, text }, c) => {
        const share = Math.exp(columns[c][i]);
        fill.style.width = `${100 * share}%`;
        text.textContent = percent(share);
      });
      lines[i].classList.toggle("explorable-marked", i === marked);
    });
    return { node, set };
  }

  // How many of the scenes played so far are named rightly: by the reader, and by each policy after as many looks.
  function score({ results }) {
    const played = Object.keys(results).map(Number);
    const right = (name) => played.filter((s) => {
      const { beliefs } = (cached[`${name} ${s}`] ??= run(name, scenes[s], saccades));
      return argmax(beliefs[saccades - 1]) === scenes[s].label;
    }).length;
    const line = (name, hits, own = false) => make("tr", { class: own ? "explorable-marked" : "" }, make("th", { scope: "row" }, name), make("td", {}, played.length ? `${hits} of ${played.length}` : "–"));
    board.replaceChildren(
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "who looks"), make("th", { scope: "col" }, `named after ${saccades} looks, first tries`))),
      make("tbody", {}, line("you", played.filter((s) => results[s]).length, true), ...Object.keys(POLICIES).map((name) => line(name, right(name)))));
  }

  el.append(
    make("div", { class: "explorable-controls" }, look, again, following, whose.node, reveal.node),
    frame.words,
    make("div", { class: "explorable-stage" },
      make("figure", { class: "explorable-panel explorable-large" }, picture, make("figcaption", {}, "click a dot to look there, each once; the digits are the looks so far")),
      make("figure", { class: "explorable-panel" }, view, make("figcaption", {}, "what the network saw last"))),
    make("div", { class: "explorable-stage" },
      make("figure", { class: "explorable-panel explorable-broad" }, beliefs.node, make("figcaption", {}, "what is believed: the look is fused with what was believed before")),
      make("figure", { class: "explorable-panel" }, board)),
    frame.quiet);
  frame.show();
}
