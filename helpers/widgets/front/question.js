// Ask a network about a class: which pixels would change its score? The map at once, by the method of one's choice.
import { forward, backward, last, asMaps, maps, zeros, normalized, denormalized, imageOf, softmax, argmax, oneHot } from "./nn.js";
import { arrays, network, live, make, canvas, draw, limits, colourBar, bars, select, slider, movable, shown, percent } from "./ui.js";

const METHODS = ["gradient", "gradient × input", "integrated gradients", "occlusion"];

// The largest slope over the colours, the map of the saliency papers.
export const largest = (slopes) => perPlace(slopes, (values) => Math.max(...values.map(Math.abs)));
const total = (slopes) => perPlace(slopes, (values) => values.reduce((a, b) => a + b, 0));

function perPlace({ data, c, h, w }, make) {
  const y = zeros(1, h, w);
  for (let i = 0; i < h * w; i++) y.data[i] = make(Array.from({ length: c }, (_, k) => data[k * h * w + i]));
  return y;
}

export function slopesOf(net, x, target) {
  const trace = forward(net, x);
  return backward(trace, oneHot(last(trace).data.length, target));
}

// The mean slope on the straight way from the mean colour (zero, for a normalised input), times the way; `points` holds
// where to look on it, from 0 to 1, and what each place counts (numpy's Gauss-Legendre quadrature).
export function integrated(net, x, target, points) {
  const sum = zeros(x.c, x.h, x.w);
  for (const [along, weight] of points) {
    const slopes = slopesOf(net, maps(x.data.map((value) => value * along), x.c, x.h, x.w), target);
    for (let k = 0; k < sum.data.length; k++) sum.data[k] += slopes.data[k] * weight;
  }
  return product(sum, x);
}

const product = (slopes, x) => maps(slopes.data.map((value, k) => value * x.data[k]), x.c, x.h, x.w);

export function correlation(a, b) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length, ma = mean(a), mb = mean(b);
  let ab = 0, aa = 0, bb = 0;
  for (let i = 0; i < a.length; i++) { ab += (a[i] - ma) * (b[i] - mb); aa += (a[i] - ma) ** 2; bb += (b[i] - mb) ** 2; }
  return aa && bb ? ab / Math.sqrt(aa * bb) : 0;
}

export function render({ model, el }) {
  const { layers, pictures, classes, mean, std, quadrature } = model.get("settings");
  const values = arrays(model), net = network(layers, values), all = asMaps(values.pictures);
  const colours = mean.length, side = all.w;
  const picture = canvas(256, 256, ""), result = canvas(256, 256, "");
  const bar = colourBar("signed"), plain = colourBar("magnitude"), scores = bars(classes);
  const frame = live(model, el, view), state = frame.state;
  const names = { picture: make("figcaption", {}, "the picture"), result: make("figcaption") };
  const blank = last(forward(net, zeros(colours, side, side))).data; // the scores of an even picture of the mean colour
  let other = {}; // the map of the class that this one is compared with, and of what it is

  const which = select("picture", { options: pictures, value: pictures[state().picture], change: (name) => frame.set({ picture: pictures.indexOf(name), target: said(pictures.indexOf(name)) }) });
  const target = select("class", { options: classes, value: classes[state().target], change: (name) => frame.set({ target: classes.indexOf(name) }) });
  const method = select("method", { options: METHODS, value: METHODS[state().method], change: (name) => frame.set({ method: METHODS.indexOf(name) }) });
  const steps = slider("steps", { min: 1, max: quadrature.length, step: 1, value: state().steps, change: (value) => frame.set({ steps: value }) });
  const moved = (row, column) => {
    const inside = (value) => Math.max(0, Math.min(side - state().patch, Math.round(value)));
    frame.set({ row: inside(row), column: inside(column) });
  };
  for (const node of [picture, result]) movable(node, {
    move: (x, y) => moved(y * side - state().patch / 2, x * side - state().patch / 2),
    nudge: (dx, dy) => moved(state().row + 2 * dy, state().column + 2 * dx),
  });

  // What the network says of a picture.
  const said = (index) => argmax(last(forward(net, normalized(imageOf(all, index, colours), mean, std))).data);

  // The map of a class by one of the methods, of whose attributions the colours are added up.
  function mapFor(x, trace, target, { method, steps }) {
    const name = METHODS[method], slopes = name === "integrated gradients" ? integrated(net, x, target, quadrature[steps - 1]) : backward(trace, oneHot(classes.length, target));
    return name === "gradient" ? largest(slopes) : total(name === "gradient × input" ? product(slopes, x) : slopes);
  }

  // How much a map is like that of the network's own answer, or, if that was asked about, of the next best.
  function likeness(map, x, trace, now) {
    const logits = last(trace).data, best = argmax(logits), rival = best === now.target ? argmax(logits.map((value, i) => (i === best ? -Infinity : value))) : best;
    const key = `${now.picture} ${now.method} ${now.steps} ${rival}`;
    if (other.key !== key) other = { key, map: mapFor(x, trace, rival, now) };
    return ` It correlates ${shown(correlation(map.data, other.map.data))} with the map for ${classes[rival]}.`;
  }

  function covered(x, { row, column, patch }) {
    const y = maps(x.data.slice(), x.c, x.h, x.w);
    for (let c = 0; c < x.c; c++) for (let v = row; v < row + patch; v++) y.data.fill(0, (c * side + v) * side + column, (c * side + v) * side + column + patch);
    return y;
  }

  function view(now) {
    const shownPicture = imageOf(all, now.picture, colours), x = normalized(shownPicture, mean, std), name = METHODS[now.method];
    const trace = forward(net, x), logits = last(trace).data, chances = softmax(logits), best = argmax(chances);
    draw(picture, shownPicture);
    which.set(pictures[now.picture]); target.set(classes[now.target]); method.set(name); steps.set(now.steps);
    steps.node.hidden = name !== "integrated gradients";
    const score = logits[now.target];
    let sentence;
    if (name === "occlusion") {
      const hidden = covered(x, now), left = last(forward(net, hidden)).data;
      draw(result, denormalized(hidden, mean, std));
      el.result = { logits: left };
      scores.set(softmax(left), now.target);
      bar.node.hidden = plain.node.hidden = true;
      sentence = `The network says ${classes[best]} (${percent(chances[best])}). With ${now.patch} by ${now.patch} pixels covered from row ${now.row + 1}, column ${now.column + 1} on, the score of ${classes[now.target]} goes from ${shown(score)} to ${shown(left[now.target])}.`;
    } else {
      const map = mapFor(x, trace, now.target, now);
      const kind = name === "gradient" ? "magnitude" : "signed", [low, high] = limits(map.data, kind);
      el.result = { logits, map: map.data };
      draw(result, map, { kind, low: kind === "magnitude" ? 0 : low, high });
      (kind === "signed" ? bar : plain).set(kind === "magnitude" ? 0 : low, high);
      bar.node.hidden = kind !== "signed"; plain.node.hidden = kind === "signed";
      scores.set(chances, now.target);
      const sum = map.data.reduce((a, b) => a + b, 0), rise = score - blank[now.target];
      const what = {
        gradient: `bright pixels would change the score of ${classes[now.target]} (${shown(score)}) most`,
        "gradient × input": `red pixels put something into the score of ${classes[now.target]} (${shown(score)}), as far as the slope tells; together ${shown(sum)}`,
        "integrated gradients": `the score of ${classes[now.target]} is ${shown(rise)} above that of an even picture, and the map shares that out: together ${shown(sum)} with ${now.steps} step${now.steps > 1 ? "s" : ""}`,
      }[name];
      sentence = `The network says ${classes[best]} (${percent(chances[best])}). By ${name}, ${what}.${likeness(map, x, trace, now)}`;
    }
    names.result.textContent = name === "occlusion" ? "drag the patch, or use the arrow keys" : `${name}, for ${classes[now.target]}`;
    picture.setAttribute("aria-label", `The picture: ${pictures[now.picture]}.`);
    result.setAttribute("aria-label", name === "occlusion" ? "The picture with the patch; arrow keys move it." : `The map by ${name}, for ${classes[now.target]}.`);
    return sentence;
  }

  el.append(
    make("div", { class: "explorable-controls" }, which.node, target.node, method.node, steps.node),
    frame.words,
    make("div", { class: "explorable-stage" },
      make("figure", { class: "explorable-panel" }, picture, names.picture),
      make("figure", { class: "explorable-panel" }, result, bar.node, plain.node, names.result),
      make("figure", { class: "explorable-panel" }, scores.node, make("figcaption", {}, "probabilities; the class asked about is marked"))),
    frame.quiet);
  frame.show();
}
