// LICNN in seven steps: back from a class, inhibition, forth again with masks, the sum; then blur, and what is said then.
import { forward, last, asMaps, maps, zeros, normalized, denormalized, imageOf, slopes, softmax, argmax, oneHot, resized, somePlaces } from "./nn.js";
import { arrays, network, live, make, canvas, draw, greyed, limits, colourBar, bars, select, slider, shown, percent } from "./ui.js";

const RULES = ["lateral inhibition", "root mean square", "nothing is inhibited"];
const SCORES = { "before the softmax": "logit", "after it": "log-odds" };
const BLURS = ["outside", "inside"];
const REGION = 0.2; // of the map's range: what lies above belongs to the object

// The gradient of a class's score at the logits: of its logit, or of its log-odds.
export function scoreSlope(logits, target, score) {
  const slope = oneHot(logits.length, target);
  if (score === "logit") return slope;
  const rivals = Array.from(logits, (value, i) => (i === target ? -Infinity : value));
  softmax(rivals).forEach((share, i) => { slope.data[i] -= share; });
  return slope;
}

// At each place the largest value over the channels.
export function maxChannel({ data, c, h, w }) {
  const y = zeros(1, h, w);
  for (let u = 0; u < h * w; u++) {
    let most = -Infinity;
    for (let k = 0; k < c; k++) most = Math.max(most, data[k * h * w + u]);
    y.data[u] = most;
  }
  return y;
}

export function unitNorm(x) {
  const norm = Math.sqrt(x.data.reduce((sum, value) => sum + value * value, 0));
  return maps(x.data.map((value) => value / (norm || 1)), x.c, x.h, x.w);
}

// How strongly the neighbours of each place inhibit it: the average term, the differential term, and both together.
export function inhibition({ data, h, w }, k, a, b) {
  const average = zeros(1, h, w), difference = zeros(1, h, w), both = zeros(1, h, w), reach = (k - 1) / 2;
  const taps = [];
  for (let v = -reach; v <= reach; v++)
    for (let u = -reach; u <= reach; u++) { const d = Math.hypot(u, v) / k; taps.push([v, u, d * Math.exp(-d)]); }
  for (let v = 0; v < h; v++)
    for (let u = 0; u < w; u++) {
      const own = data[v * w + u];
      let total = 0, larger = 0;
      for (const [dv, du, weight] of taps) {
        const row = v + dv, column = u + du;
        const other = row >= 0 && row < h && column >= 0 && column < w ? data[row * w + column] : 0;
        total += other;
        if (other > own) larger += weight * (other - own);
      }
      average.data[v * w + u] = a * Math.exp(-total / (k * k));
      difference.data[v * w + u] = b * larger;
      both.data[v * w + u] = average.data[v * w + u] + difference.data[v * w + u];
    }
  return { average, difference, both };
}

// The places of a Max-C map that are kept, 1 or 0.
export function kept(x, rule, { k, a, b }) {
  if (rule === "nothing is inhibited") return new Uint8Array(x.data.length).fill(1);
  if (rule === "root mean square") {
    const rms = Math.sqrt(x.data.reduce((sum, value) => sum + value * value, 0) / x.data.length);
    return Uint8Array.from(x.data, (value) => value > rms);
  }
  const unit = unitNorm(x), against = unitNorm(inhibition(unit, k, a, b).both);
  return Uint8Array.from(unit.data, (value, i) => value > against.data[i]);
}

const sumChannel = ({ data, c, h, w }) => {
  const y = zeros(1, h, w);
  for (let i = 0; i < data.length; i++) y.data[i % (h * w)] += data[i];
  return y;
};

// The second pass: what is left of every layer's maps, added up over channels; the last layer is not masked.
export function left(net, x, masks) {
  const names = Object.keys(masks), change = {};
  for (const name of names.slice(0, -1)) change[name] = (y) => somePlaces(y, masks[name]);
  const trace = forward(net, x, change);
  return Object.fromEntries(names.map((name) => [name, sumChannel(trace.find((step) => step.layer.name === name).output)]));
}

export function combined(sums, h, w) {
  const total = zeros(1, h, w);
  for (const sum of Object.values(sums)) resized(unitNorm(sum), h, w).data.forEach((value, i) => { total.data[i] += value; });
  return unitNorm(total);
}

// What belongs to the object: above a share of the map's range.
export function region({ data }) {
  const [low, high] = limits(data, "magnitude");
  return Uint8Array.from(data, (value) => value - low >= REGION * (high - low));
}

const halfToEven = (value) => (value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value)); // as Python rounds

// A Gaussian blur, mirrored at the border, reaching three standard deviations.
export function blurred(x, radius) {
  const once = (image, length, stride, lines) => {
    const reach = halfToEven(Math.min(3 * radius, length - 1)), y = new Float32Array(image.length);
    const weights = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-0.5 * ((i - reach) / radius) ** 2));
    const sum = weights.reduce((a, b) => a + b, 0);
    for (const start of lines)
      for (let i = 0; i < length; i++) {
        let value = 0;
        for (let t = -reach; t <= reach; t++) {
          let at = Math.abs(i + t);
          if (at >= length) at = 2 * (length - 1) - at;
          value += (weights[t + reach] / sum) * image[start + at * stride];
        }
        y[start + i * stride] = value;
      }
    return y;
  };
  if (!radius) return x;
  const rows = Array.from({ length: x.c * x.h }, (_, i) => i * x.w);
  const columns = Array.from({ length: x.c * x.w }, (_, i) => Math.floor(i / x.w) * x.h * x.w + (i % x.w));
  return maps(once(once(x.data, x.w, 1, rows), x.h, x.w, columns), x.c, x.h, x.w);
}

export function blurredWhere(x, mask, radius, inside) {
  const soft = blurred(x, radius), places = x.h * x.w;
  return maps(x.data.map((value, i) => (Boolean(mask[i % places]) === inside ? soft.data[i] : value)), x.c, x.h, x.w);
}

export function render({ model, el }) {
  const { layers, relus, pictures, classes, mean, std } = model.get("settings");
  const values = arrays(model), net = network(layers, values), all = asMaps(values.pictures), colours = mean.length, side = all.w;
  const first = net.findIndex((layer) => layer.name === relus[0]);
  const panel = (caption, kind = null) => {
    const node = canvas(192, 192, ""), bar = kind && colourBar(kind), text = make("figcaption", {}, caption);
    return { node, bar, text, figure: make("figure", { class: "explorable-panel" }, node, ...(bar ? [bar.node] : []), text) };
  };
  const scene = panel("the picture"), maxC = panel("Max-C", "signed"), average = panel("", "magnitude"), difference = panel("", "magnitude");
  const mask = panel("kept"), sum = panel("Sum-C", "magnitude"), attention = panel("attention"), soft = panel("blurred");
  const before = bars(classes), after = bars(classes);
  const frame = live(model, el, view), state = frame.state;
  const choose = (label, options, key) => select(label, { options, value: options[0], change: (name) => frame.set({ [key]: options.indexOf(name) }) });
  const which = select("picture", { options: pictures, value: pictures[0], change: (name) => frame.set({ picture: pictures.indexOf(name), target: said(pictures.indexOf(name)) }) }), target = choose("class", classes, "target"), rule = choose("rule", RULES, "rule");
  const score = choose("score", Object.keys(SCORES), "score"), shownLayer = choose("layer shown", relus, "layer"), where = choose("blurred", BLURS, "blurred");
  const drag = (label, key, max, step, min = 0) => slider(label, { min, max, step, value: state()[key], words: shown, change: (value) => frame.set({ [key]: value }) });
  const a = drag("a", "a", 1, 0.05), b = drag("b", "b", 2, 0.05), k = drag("k", "k", 15, 2, 1), radius = drag("blur radius", "radius", 10, 0.5);
  const said = (index) => argmax(last(forward(net, normalized(imageOf(all, index, colours), mean, std))).data);
  const kept_ = {}; // what the last picture and class gave: they are computed anew only for another one

  function fresh(key, compute) {
    const [name, value] = key;
    if (kept_[name]?.value !== value) kept_[name] = { value, result: compute() };
    return kept_[name].result;
  }

  function view(now) {
    const x = fresh(["x", now.picture], () => normalized(imageOf(all, now.picture, colours), mean, std));
    const trace = fresh(["trace", now.picture], () => forward(net, x)), logits = last(trace).data, chances = softmax(logits);
    const kind = Object.values(SCORES)[now.score];
    const maxima = fresh(["maxima", `${now.picture} ${now.target} ${kind}`], () => {
      const all = slopes(trace.slice(first), scoreSlope(logits, now.target, kind));
      return Object.fromEntries(relus.map((name) => [name, maxChannel(all[net.findIndex((layer) => layer.name === name) - first])]));
    });
    const setting = `${now.picture} ${now.target} ${kind} ${now.rule} ${now.a} ${now.b} ${now.k}`;
    const masks = fresh(["masks", setting], () => Object.fromEntries(relus.map((name) => [name, kept(maxima[name], RULES[now.rule], now)])));
    const sums = fresh(["sums", setting], () => left(net, x, masks));
    const map = fresh(["map", setting], () => combined(sums, side, side));
    el.result = { maxima: maxima[relus[now.layer]].data, sum: sums[relus[now.layer]].data, map: map.data };
    const object = region(map), inside = BLURS[now.blurred] === "inside";
    const hazy = fresh(["hazy", `${setting} ${now.radius} ${inside}`], () => normalized(blurredWhere(imageOf(all, now.picture, colours), object, now.radius, inside), mean, std));
    const then = softmax(fresh(["then", `${setting} ${now.radius} ${inside}`], () => last(forward(net, hazy))).data);

    el.result.then = then;
    const name = relus[now.layer], final = now.layer === relus.length - 1, terms = inhibition(unitNorm(maxima[name]), now.k, now.a, now.b);
    draw(scene.node, imageOf(all, now.picture, colours));
    show(maxC, maxima[name], "signed", `Max-C, ${name}: the largest slope of its channels`);
    show(average, terms.average, "magnitude", "average term: a exp(−mean of the zone)");
    show(difference, terms.difference, "magnitude", "differential term: b times how much the neighbours exceed it");
    average.figure.hidden = difference.figure.hidden = RULES[now.rule] !== "lateral inhibition";
    draw(mask.node, maps(Float32Array.from(masks[name]), 1, maxima[name].h, maxima[name].w));
    const share = masks[name].reduce((sum, one) => sum + one, 0) / masks[name].length;
    mask.text.textContent = final ? `${percent(share)} would be kept; the last layer is not masked` : `kept: ${percent(share)}`;
    show(sum, sums[name], "magnitude", `Sum-C, ${name}: what is left in the second pass, channels added up`);
    const grey = greyed(imageOf(all, now.picture, colours)), [low, high] = limits(map.data, "magnitude");
    draw(attention.node, grey);
    draw(attention.node, map, { kind: "magnitude", low, high, alpha: 0.65, smooth: true });
    attention.text.textContent = `attention for ${classes[now.target]}: all layers`;
    draw(soft.node, denormalized(hazy, mean, std));
    soft.node.setAttribute("aria-label", `The picture, blurred ${BLURS[now.blurred]} of the region.`);
    mask.node.setAttribute("aria-label", `The places of ${name} that are kept: white.`);
    soft.text.textContent = `blurred ${BLURS[now.blurred]} of where the attention exceeds a fifth of its range`;
    before.set(chances, now.target);
    after.set(then, now.target);
    which.set(pictures[now.picture]); target.set(classes[now.target]); rule.set(RULES[now.rule]); score.set(Object.keys(SCORES)[now.score]);
    shownLayer.set(name); where.set(BLURS[now.blurred]); a.set(now.a); b.set(now.b); k.set(now.k); radius.set(now.radius);
    for (const control of [a, b, k]) control.node.hidden = RULES[now.rule] !== "lateral inhibition";
    scene.node.setAttribute("aria-label", `The picture: ${pictures[now.picture]}.`);
    attention.node.setAttribute("aria-label", `The attention map for ${classes[now.target]}, over the picture.`);
    const best = argmax(chances), later = argmax(then), sharp = object.reduce((sum, one) => sum + one, 0) / object.length;
    const nothing = high > low ? "" : " Nothing is left of the map, so all of it counts as the object.";
    return `The network says ${classes[best]} (${percent(chances[best])}). The map marks ${percent(sharp)} of the picture; with everything ${BLURS[now.blurred]} that region blurred it says ${classes[later]} (${percent(then[later])}).${nothing}`;
  }

  function show({ node, bar, text }, x, kind, caption) {
    const [low, high] = limits(x.data, kind), from = kind === "magnitude" ? Math.min(0, low) : low;
    draw(node, x, { kind, low: from, high });
    bar.set(from, high);
    text.textContent = caption;
    node.setAttribute("aria-label", `${caption}, ${x.h} by ${x.w} places, up to ${shown(high)}.`);
  }

  el.append(
    make("div", { class: "explorable-controls" }, which.node, target.node, score.node, rule.node, a.node, b.node, k.node, shownLayer.node),
    frame.words,
    make("div", { class: "explorable-stage explorable-small" }, scene.figure, maxC.figure, average.figure, difference.figure, mask.figure, sum.figure),
    make("div", { class: "explorable-controls" }, where.node, radius.node),
    make("div", { class: "explorable-stage explorable-pairs" }, attention.figure, soft.figure,
      make("figure", { class: "explorable-panel" }, before.node, make("figcaption", {}, "the picture as it is")),
      make("figure", { class: "explorable-panel" }, after.node, make("figcaption", {}, "and blurred"))),
    frame.quiet);
  frame.show();
}
