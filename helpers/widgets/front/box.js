// From evidence to a box: the class activation map of one of two networks, its threshold, its box, and how well that fits.
import { forward, last, asMaps, normalized, imageOf, regions, boxAround, softmax, argmax, resized, weighed } from "./nn.js";
import { arrays, network, live, make, canvas, draw, greyed, outline, curve, MARKS, limits, colourBar, bars, select, slider, shown, percent } from "./ui.js";

// x0, y0, x1, y1 around the largest connected region (diagonal neighbours touch) above a share of the map's maximum.
export function largestBox({ data, h, w }, threshold) {
  let top = -Infinity;
  for (const value of data) top = Math.max(top, value);
  const share = Math.fround(threshold) * top;
  const inside = Uint8Array.from(data, (value) => value > 0 && (value > share || value === top));
  let largest = [];
  for (const region of regions(inside, h, w)) if (region.length > largest.length) largest = region;
  return largest.length ? boxAround(largest, w) : null;
}

export function overlap(a, b) {
  const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
  const across = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), down = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const shared = Math.max(0, across) * Math.max(0, down);
  return shared / (area(a) + area(b) - shared);
}

export function render({ model, el }) {
  const { networks, pictures, classes, mean, std, boxes } = model.get("settings");
  const values = arrays(model), nets = Object.fromEntries(Object.entries(networks).map(([name, layers]) => [name, network(layers, values)]));
  const all = asMaps(values.pictures), colours = mean.length, side = all.w;
  const picture = canvas(288, 288, ""), result = canvas(288, 288, "");
  const bar = colourBar("signed"), scores = bars(classes);
  const frame = live(model, el, view), state = frame.state;

  const which = select("picture", { options: pictures, value: pictures[state().picture], change: (name) => frame.set({ picture: pictures.indexOf(name), target: said(pictures.indexOf(name)) }) });
  const net = select("network", { options: Object.keys(nets), value: state().network, change: (name) => frame.set({ network: name }) });
  const target = select("class", { options: classes, value: classes[state().target], change: (name) => frame.set({ target: classes.indexOf(name) }) });
  const threshold = slider("threshold, of the map's maximum", { min: 0, max: 0.95, step: 0.05, value: state().threshold, words: (value) => `${Math.round(100 * value)} %`, change: (value) => frame.set({ threshold: value }) });
  const shift = slider("added to all weights", { min: -0.3, max: 0.3, step: 0.02, value: state().shift, words: shown, change: (value) => frame.set({ shift: value }) });

  const said = (index) => argmax(last(forward(nets[state().network], normalized(imageOf(all, index, colours), mean, std))).data);
  const graph = canvas(200, 110, "");

  function view(now) {
    const seen = imageOf(all, now.picture, colours), x = normalized(seen, mean, std);
    const layers = nets[now.network], trace = forward(layers, x), head = layers[layers.length - 1];
    const features = trace[trace.length - 3].input, wide = features.c;
    const logits = Array.from(last(trace).data);
    // The same number added to a unit's weight for every class adds the same to every score.
    const pooled = trace[trace.length - 1].input.data;
    const more = pooled.reduce((a, b) => a + b, 0) * now.shift;
    const chances = softmax(logits.map((value) => value + more)), best = argmax(chances);
    const weights = Float32Array.from({ length: wide }, (_, k) => head.weight[now.target * wide + k] + now.shift);
    const map = resized(weighed(features, weights), side, side), [low, high] = limits(map.data, "signed");
    const box = largestBox(map, now.threshold), truth = boxes[now.picture], fits = box ? overlap(box, truth) : 0;
    draw(picture, seen);
    draw(result, greyed(seen));
    draw(result, map, { kind: "signed", low, high, alpha: 0.6, smooth: true });
    for (const node of [picture, result]) { outline(node, truth, side, MARKS.truth); if (box) outline(node, box, side, MARKS.own, [6, 4]); }
    bar.set(low, high);
    scores.set(chances, now.target);
    which.set(pictures[now.picture]); net.set(now.network); target.set(classes[now.target]); threshold.set(now.threshold); shift.set(now.shift);
    picture.setAttribute("aria-label", `The picture: ${pictures[now.picture]}, with the true box and that of the map.`);
    result.setAttribute("aria-label", `The class activation map for ${classes[now.target]}.`);
    el.result = { map: map.data, box, fits, chances };
    const shares = Array.from({ length: 20 }, (_, i) => { const one = largestBox(map, i / 20); return one ? overlap(one, truth) : 0; });
    curve(graph, shares, 0.5, now.threshold / 0.95, `Union shared at thresholds from 0 to 95 %: at most ${shown(100 * Math.max(...shares))} %.`);
    const found = box ? `The map's box and the true one share ${shown(100 * fits)} % of their union: ${fits >= 0.5 ? "found" : "not found"}, for which it takes half` : "No place speaks for the class, so there is no box";
    return `The network says ${classes[best]} (${percent(chances[best])}). ${now.target === best ? "" : `Asked about ${classes[now.target]}, which it does not say: `}${found}.${now.shift ? " The probabilities are those without the number that was added." : ""}`;
  }

  el.append(
    make("div", { class: "explorable-controls" }, which.node, net.node, target.node, threshold.node, shift.node),
    frame.words,
    make("div", { class: "explorable-stage" },
      make("figure", { class: "explorable-panel" }, picture, make("figcaption", {}, "blue: the true box; orange, dashed: the map's")),
      make("figure", { class: "explorable-panel" }, result, bar.node, make("figcaption", {}, "the class activation map"))),
    make("div", { class: "explorable-stage explorable-pairs" },
      make("figure", { class: "explorable-panel" }, graph, make("figcaption", {}, "union shared (0 to 1) over the threshold (0 to 95 %); dashed: a half")),
      make("figure", { class: "explorable-panel" }, scores.node, make("figcaption", {}, "probabilities; the class asked about is marked"))),
    frame.quiet);
  frame.show();
}
