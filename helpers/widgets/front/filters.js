// Silence filters: what a network still names without them, and the heat map of those that are left, cut, boxed and read.
import { forward, last, asMaps, maps, softmax, argmax, resized, weighed, someChannels, regions, boxAround } from "./nn.js";
import { arrays, network, live, make, canvas, draw, outline, MARKS, limits, colourBar, button, select, slider, checkbox, shown, percent } from "./ui.js";

const SIGNS = { "softmax of E − e (Ghosh et al.)": -1, "softmax of e − E": 1, "e − E, no softmax (their code)": 0 };
const CUTS = ["Otsu", "mean + 2 deviations", "half the maximum"];
const MIN_AREA = 12;

// Weights of the filters from how much is lost without each, e − E.
export function importance(lost, sign, temperature) {
  return sign ? softmax(Array.from(lost, (value) => (sign * value) / temperature)) : Array.from(lost);
}

// How many filters a set of weights makes use of.
export function effective(weights) {
  const sizes = weights.map(Math.abs), sum = sizes.reduce((a, b) => a + b, 0);
  return (sum * sum) / sizes.reduce((a, b) => a + b * b, 0);
}

// Where to cut a map: the values of the places, in double precision.
export function cutAt(values, rule) {
  let low = Infinity, high = -Infinity, sum = 0;
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); sum += value; }
  if (rule === "half the maximum") return high / 2;
  const mean = sum / values.length;
  if (rule === "mean + 2 deviations") {
    let squares = 0;
    for (const value of values) squares += (value - mean) ** 2;
    return mean + 2 * Math.sqrt(squares / Math.max(1, values.length - 1));
  }
  return high > low ? low + (high - low) * otsu(values, low, high) : low;
}

// Otsu's threshold of values brought to 0 .. 1, from a histogram of 256 bins, as scikit-image finds it.
function otsu(values, low, high, bins = 256) {
  const counts = new Float64Array(bins);
  for (const value of values) counts[Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins))]++;
  const middle = (i) => (i + 0.5) / bins;
  let all = 0, moment = 0;
  for (let i = 0; i < bins; i++) { all += counts[i]; moment += counts[i] * middle(i); }
  let best = 0, most = -1, below = 0, sum = 0;
  for (let i = 0; i < bins - 1; i++) {
    below += counts[i];
    sum += counts[i] * middle(i);
    const between = below * (all - below) * (sum / below - (moment - sum) / (all - below)) ** 2;
    if (between > most) { most = between; best = i; }
  }
  return middle(best);
}

// Boxes around the connected regions above a threshold, the hottest first.
export function hotspots({ data, h, w }, threshold) {
  const spots = regions(Uint8Array.from(data, (value) => value > threshold), h, w).filter((places) => places.length >= MIN_AREA);
  return spots
    .map((places) => ({ box: boxAround(places, w), heat: places.reduce((sum, at) => sum + data[at], 0) }))
    .sort((a, b) => b.heat - a.heat)
    .map((spot) => spot.box);
}

// A square cut out of a picture of one channel and scaled to side x side, each pixel the mean of a few samples (RoIAlign).
function cutOut({ data, h, w }, [x, y], half, side) {
  const patch = new Float32Array(side * side), bin = (2 * half) / side, fine = Math.ceil(bin);
  const at = (v, u) => {
    if (v < -1 || v > h || u < -1 || u > w) return 0;
    v = Math.max(0, v); u = Math.max(0, u);
    let top = Math.floor(v), left = Math.floor(u);
    if (top >= h - 1) v = top = h - 1;
    if (left >= w - 1) u = left = w - 1;
    const bottom = Math.min(top + 1, h - 1), right = Math.min(left + 1, w - 1), dv = v - top, du = u - left;
    return (data[top * w + left] * (1 - du) + data[top * w + right] * du) * (1 - dv) + (data[bottom * w + left] * (1 - du) + data[bottom * w + right] * du) * dv;
  };
  for (let i = 0; i < side; i++)
    for (let j = 0; j < side; j++) {
      let sum = 0;
      for (let v = 0; v < fine; v++)
        for (let u = 0; u < fine; u++)
          sum += at(y - half - 0.5 + (i + (v + 0.5) / fine) * bin, x - half - 0.5 + (j + (u + 0.5) / fine) * bin);
      patch[i * side + j] = sum / fine / fine;
    }
  return maps(patch, 1, side, side);
}

// A box as MNIST frames a digit: its longer side 20 of 28 pixels, the centre of what is bright in the middle.
export function framed(x, [x0, y0, x1, y1], side = 28, ink = 20) {
  const h = x.h + 2, w = x.w + 2, rim = new Float32Array(h * w);
  for (let v = 0; v < x.h; v++) rim.set(x.data.subarray(v * x.w, (v + 1) * x.w), (v + 1) * w + 1);
  const inside = { data: rim, h, w }, half = ((Math.max(x1 - x0, y1 - y0) * side) / ink / 2) * (1 - 1e-5);
  const middle = [(x0 + x1) / 2 + 1, (y0 + y1) / 2 + 1], first = cutOut(inside, middle, half, side).data;
  const low = first.reduce((a, b) => Math.min(a, b), Infinity);
  let total = 0, across = 0, down = 0;
  for (let i = 0; i < side; i++)
    for (let j = 0; j < side; j++) {
      const light = first[i * side + j] - low;
      total += light;
      across += light * (((j + 0.5) / side) * 2 - 1);
      down += light * (((i + 0.5) / side) * 2 - 1);
    }
  total = Math.max(total, Number.MIN_VALUE);
  return cutOut(inside, [middle[0] + (across / total) * half, middle[1] + (down / total) * half], half, side);
}

export function render({ model, el }) {
  const { front, head, layer, pictures, classes } = model.get("settings");
  const values = arrays(model), first = network(front, values), rest = network(head, values), lost = values.lost.data;
  const withoutPools = first.filter((step) => !step.type.endsWith("pool"));
  const filters = lost.length, labels = values.labels.data, exam = features(values.exam);
  const canvases = Object.fromEntries(pictures.map((name) => [name, asMaps(values[`picture ${name}`])]));
  const picture = canvas(288, 288, ""), result = canvas(288, 288, ""), bar = colourBar("signed");
  const frame = live(model, el, view), state = frame.state, order = Array.from(lost.keys()).sort((a, b) => lost[b] - lost[a]);
  const cached = {};

  const which = select("picture", { options: pictures, value: state().picture, change: (name) => frame.set({ picture: name }) });
  const sign = select("weights", { options: Object.keys(SIGNS), value: Object.keys(SIGNS)[0], change: (name) => frame.set({ sign: SIGNS[name] }) });
  const heat = slider("temperature T", { min: -4, max: 1, step: 0.25, value: state().exponent, words: (value) => String(Number((10 ** value).toPrecision(2))), change: (value) => frame.set({ exponent: value }) });
  const cut = select("cut", { options: CUTS, value: state().cut, change: (name) => frame.set({ cut: name }) });
  const pools = checkbox("coarse, with the network's poolings", { value: state().pools, change: (on) => frame.set({ pools: on }) });
  const some = (chosen) => () => frame.set({ on: Array.from(lost, (_, i) => (chosen.includes(i) ? 1 : 0)) });
  const half = Math.floor(filters / 2);
  const quick = [button("all on", some(order)), button(`the ${half} most missed`, some(order.slice(0, half))), button(`the ${filters - half} others`, some(order.slice(half)))];
  const switches = Array.from(lost, (_, i) => {
    const fill = make("span", { class: "explorable-fill" });
    const one = checkbox(String(i), { value: true, change: (on) => frame.set({ on: state().on.map((old, k) => (k === i ? Number(on) : old)) }) });
    one.node.append(make("span", { class: "explorable-track" }, fill));
    return { ...one, fill };
  });

  // The pooled maps of digits of one size, one after the other.
  function features({ data, shape: [count, c, h, w] }) {
    return Array.from({ length: count }, (_, i) => maps(data.subarray(i * c * h * w, (i + 1) * c * h * w), c, h, w));
  }

  function seen(name, keep) {
    return (cached[`${name} ${keep}`] ??= last(forward(keep ? first : withoutPools, canvases[name])));
  }

  function named(on) {
    const right = exam.filter((x, i) => argmax(last(forward(rest, someChannels(x, on))).data) === labels[i]);
    return right.length / exam.length;
  }

  function view(now) {
    const x = canvases[now.picture], all = importance(lost, now.sign, 10 ** now.exponent), weights = all.map((value, i) => value * now.on[i]);
    const map = resized(weighed(seen(now.picture, now.pools), weights), x.h, x.w), [low, high] = limits(map.data, "signed");
    const boxes = hotspots(map, cutAt(map.data, now.cut)), readings = boxes.map((box) => read(x, box, now.on));
    el.result = { map: map.data, weights, boxes, read: readings.map(({ best }) => best) };
    for (const node of [picture, result]) node.height = Math.round((288 * x.h) / x.w);
    draw(picture, x);
    draw(result, map, { kind: "signed", low, high });
    boxes.forEach((box, i) => {
      for (const node of [picture, result]) outline(node, box, x.w, MARKS.own);
      write(picture, classes[readings[i].best], box[0] * (288 / x.w), box[1] * (288 / x.w));
    });
    bar.set(low, high);
    which.set(now.picture); heat.set(now.exponent); cut.set(now.cut); pools.set(now.pools);
    sign.set(Object.keys(SIGNS).find((name) => SIGNS[name] === now.sign));
    heat.node.hidden = now.sign === 0;
    const most = Math.max(...all.map(Math.abs));
    switches.forEach(({ set, fill, input }, i) => {
      set(Boolean(now.on[i]));
      fill.style.width = `${now.on[i] ? (100 * Math.abs(all[i])) / most : 0}%`;
      input.setAttribute("aria-label", `filter ${i}, weight ${shown(all[i])}`);
    });
    const count = now.on.filter(Boolean).length;
    picture.setAttribute("aria-label", `The picture: ${now.picture}, with ${boxes.length} boxes.`);
    result.setAttribute("aria-label", "The heat map: the maps of the filters that are on, added up with their weights.");
    el.result.named = named(now.on);
    if (!count) return "All filters are silent: there is nothing to see and nothing to say.";
    const reads = boxes.length ? `It reads ${readings.map(({ best, chance }) => `${classes[best]} (${percent(chance)})`).join(", ")}` : "No region is hot enough for a box";
    const names = `With ${count === filters ? "all its filters" : `${count} of its ${filters} filters`} the network names ${percent(el.result.named)} of ${exam.length} digits.`;
    return `${names} In the heat map ${count} filters weigh as much as ${shown(effective(weights))} equal ones would. ${reads}.`;
  }

  function read(x, box, on) {
    const chances = softmax(last(forward([...first, ...rest], framed(x, box), { [layer]: (y) => someChannels(y, on) })).data), best = argmax(chances);
    return { best, chance: chances[best] };
  }

  function write(target, text, x, y) {
    const pen = target.getContext("2d");
    pen.font = "bold 20px sans-serif";
    pen.lineWidth = 4;
    pen.strokeStyle = "#222";
    pen.fillStyle = "white";
    const at = [Math.min(x + 2, target.width - 16), Math.max(y - 4, 18)];
    pen.strokeText(text, ...at);
    pen.fillText(text, ...at);
  }

  el.append(
    make("p", { class: "explorable-head" }, "Filters that are on, in the network and in the heat map; the bars are their weights there"),
    make("div", { class: "explorable-switches", role: "group", "aria-label": "filters that are on; the bars are their weights" }, ...switches.map((one) => one.node)),
    make("div", { class: "explorable-controls" }, ...quick),
    make("p", { class: "explorable-head" }, "The heat map alone; E is the error with all filters, e the one without a filter"),
    make("div", { class: "explorable-controls" }, which.node, sign.node, heat.node, cut.node, pools.node),
    frame.words,
    make("div", { class: "explorable-stage" },
      make("figure", { class: "explorable-panel" }, picture, make("figcaption", {}, "boxes around the hot spots, and what the network reads in them")),
      make("figure", { class: "explorable-panel" }, result, bar.node, make("figcaption", {}, "the heat map"))),
    frame.quiet);
  frame.show();
}
