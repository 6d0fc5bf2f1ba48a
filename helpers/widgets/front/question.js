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
  let before = null; // the map of the class asked about before, and the class

  const which = select("picture", { options: pictures, value: pictures[state().picture], change: (name) => { before = null; frame.set({ picture: pictures.indexOf(name) }); } });
  const target = select("class", { options: classes, value: classes[state().target], change: (name) => frame.set({ target: classes.indexOf(name) }) });
  const method = select("method", { options: METHODS, value: METHODS[state().method], change: (name) => { before = null; frame.set({ method: METHODS.indexOf(name) }); } });
  const steps = slider("steps", { min: 1, max: quadrature.length, step: 1, value: state().steps, change: (value) => { before = null; frame.set({ steps: value }); } });
  const moved = (row, column) => {
    const inside = (value) => Math.max(0, Math.min(side - state().patch, Math.round(value)));
    frame.set({ row: inside(row), column: inside(column) });
  };
  for (const node of [picture, result]) movable(node, {
    move: (x, y) => moved(y * side - state().patch / 2, x * side - state().patch / 2),
    nudge: (dx, dy) => moved(state().row + 2 * dy, state().column + 2 * dx),
  });

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
      sentence = `With ${now.patch} by ${now.patch} pixels covered at row ${now.row}, column ${now.column}, the score of ${classes[now.target]} goes from ${shown(score)} to ${shown(left[now.target])}.`;
      before = null;
    } else {
      const slopes = name === "integrated gradients" ? integrated(net, x, now.target, quadrature[now.steps - 1]) : backward(trace, oneHot(logits.length, now.target));
      const map = name === "gradient" ? largest(slopes) : total(name === "gradient × input" ? product(slopes, x) : slopes);
      const kind = name === "gradient" ? "magnitude" : "signed", [low, high] = limits(map.data, kind);
      el.result = { logits, map: map.data };
      draw(result, map, { kind, low: kind === "magnitude" ? 0 : low, high });
      (kind === "signed" ? bar : plain).set(kind === "magnitude" ? 0 : low, high);
      bar.node.hidden = kind !== "signed"; plain.node.hidden = kind === "signed";
      scores.set(chances, now.target);
      const moves = before && before.target !== now.target ? ` It correlates ${shown(correlation(map.data, before.map.data))} with the map for ${classes[before.target]}.` : "";
      const adds = name === "integrated gradients" ? ` The map adds up to ${shown(map.data.reduce((a, b) => a + b, 0))}.` : "";
      sentence = `The network says ${classes[best]} (${percent(chances[best])}). Asked about ${classes[now.target]}, whose score is ${shown(score)}, this is what would change it.${adds}${moves}`;
      if (!before || before.target !== now.target) before = { target: now.target, map };
    }
    picture.setAttribute("aria-label", `The picture: ${pictures[now.picture]}.`);
    result.setAttribute("aria-label", name === "occlusion" ? "The picture with the patch; arrow keys move it." : `The map by ${name}, for ${classes[now.target]}.`);
    return sentence;
  }

  el.append(
    make("div", { class: "explorable-controls" }, which.node, target.node, method.node, steps.node),
    make("div", { class: "explorable-stage" },
      make("figure", { class: "explorable-panel" }, picture),
      make("figure", { class: "explorable-panel" }, result, bar.node, plain.node),
      make("figure", { class: "explorable-panel" }, scores.node, make("figcaption", {}, "probabilities; the class asked about is marked"))),
    frame.words, frame.quiet);
  frame.show();
}
