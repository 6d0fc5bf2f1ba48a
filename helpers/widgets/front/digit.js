// Draw a digit, move it, and see what every layer of a small network makes of it.
import { forward, last, after, asMaps, zeros, imageOf, stroke, softmax, argmax, linear, boxAround } from "./nn.js";
import { arrays, network, live, make, canvas, draw, cross, line, MARKS, limits, bars, button, checkbox, slider, movable, shown, percent, select } from "./ui.js";

// A sheet moved by whole pixels; what comes in from outside is black.
export function shifted(x, below, beside) {
  const y = zeros(1, x.h, x.w);
  for (let v = Math.max(0, below); v < Math.min(x.h, x.h + below); v++)
    for (let u = Math.max(0, beside); u < Math.min(x.w, x.w + beside); u++) y.data[v * x.w + u] = x.data[(v - below) * x.w + u - beside];
  return y;
}

// Row and column of the middle of what is bright; null where nothing is.
export function middle(x) {
  const bright = [...x.data.keys()].filter((at) => x.data[at] > 0.5);
  if (!bright.length) return null;
  const [x0, y0, x1, y1] = boxAround(bright, x.w);
  return [(y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2];
}

export function render({ model, el }) {
  const { layers, digits, shown: names, rule } = model.get("settings");
  const values = arrays(model), net = network(layers, values);
  const all = asMaps(values.digits), side = all.w, scale = Math.round(224 / side);
  const paper = canvas(side * scale, side * scale, "");
  const probabilities = bars(digits), what = make("figcaption");
  const sheets = names.map((name) => ({ name, node: make("canvas", { role: "img" }), text: make("figcaption") }));
  const frame = live(model, el, view);
  let ink = null, pen = [side / 2, side / 2]; // what was drawn by hand, in place of a digit; where the keys' pen is

  const reset = (drawn) => { ink = drawn; frame.set({ down: 0, right: 0 }); };
  const which = select("digit", { options: digits, value: digits[frame.state().digit], change: (name) => { reset(null); frame.set({ digit: digits.indexOf(name) }); } });
  const most = Math.floor(side / 2), inside = (value) => Math.max(-most, Math.min(most, value));
  const drag = (label, key) => slider(label, { min: -most, max: most, step: 1, value: frame.state()[key], change: (value) => frame.set({ [key]: value }) });
  const down = drag("down", "down"), right = drag("right", "right");
  const drawing = checkbox("draw instead of moving", { value: false, change: () => frame.soon() });
  const clear = button("a clean sheet", () => { drawing.set(true); reset(zeros(1, side, side)); });
  let held = null; // where the digit was taken hold of, and where it was then
  paper.addEventListener("pointerdown", () => { held = null; }, { capture: true });
  movable(paper, {
    move: (x, y) => {
      if (drawing.input.checked) return spot(x * side, y * side);
      held ??= { x, y, ...frame.state() };
      frame.set({ down: inside(held.down + Math.round((y - held.y) * side)), right: inside(held.right + Math.round((x - held.x) * side)) });
    },
    nudge: (dx, dy) => {
      if (drawing.input.checked) spot(pen[0] + dx, pen[1] + dy);
      else frame.set({ down: inside(frame.state().down + dy), right: inside(frame.state().right + dx) });
    },
  });

  function spot(x, y) {
    const { down, right } = frame.state();
    if (!ink || down || right) reset(seen(frame.state()));
    pen = [Math.max(0, Math.min(side, x)), Math.max(0, Math.min(side, y))];
    stroke(ink, ...pen);
    frame.soon();
  }

  const seen = ({ digit, down, right }) => shifted(ink ?? imageOf(all, digit, 1), down, right);

  function view(state) {
    const image = seen(state), trace = forward(net, image), chances = softmax(last(trace).data), best = argmax(chances);
    draw(paper, image);
    const place = linear(after(trace, rule), { out: 2, weight: values["rule.weight"].data, bias: values["rule.bias"].data }).data;
    el.result = { logits: last(trace).data, place };
    for (const { name, node, text } of sheets) tile(node, after(trace, name), text, name);
    probabilities.set(chances, best);
    down.set(state.down);
    right.set(state.right);
    which.set(digits[state.digit]);
    const truth = middle(image), says = `the network says ${digits[best]} (${percent(chances[best])})`;
    paper.setAttribute("aria-label", `A sheet of ${side} by ${side} pixels with ${ink ? "your drawing" : `the digit ${digits[state.digit]}`}; arrow keys ${drawing.input.checked ? "draw" : "move it"}: now ${state.down} down and ${state.right} to the right.`);
    what.textContent = drawing.input.checked ? "draw here" : "drag it, or use the arrow keys";
    if (!truth) return `The sheet is empty, and all the same ${says}.`;
    line(paper, MARKS.truth, (pen) => pen.arc((truth[1] + 0.5) * scale, (truth[0] + 0.5) * scale, 6, 0, 2 * Math.PI));
    cross(paper, (place[1] + 0.5) * scale, (place[0] + 0.5) * scale, MARKS.own);
    const off = Math.hypot(place[0] - truth[0], place[1] - truth[1]), way = [[state.down, "up", "down"], [state.right, "to the left", "to the right"]];
    const moves = way.filter(([by]) => by).map(([by, back, on]) => `${Math.abs(by)} ${by < 0 ? back : on}`).join(" and ");
    const verdict = ink ? "" : best === state.digit ? ": right" : ": wrong";
    return `${ink ? "Of what you drew" : `Of the ${digits[state.digit]}`}${moves ? `, moved ${moves},` : ""} ${says}${verdict}. The rule that reads the place from ${rule} is ${shown(off)} pixels off the middle of what can be seen.`;
  }

  // All maps of a layer, side by side on one scale.
  function tile(node, layer, text, name) {
    const columns = Math.ceil(Math.sqrt(layer.c * 1.6)), rows = Math.ceil(layer.c / columns), gap = 1;
    const sheet = zeros(1, rows * (layer.h + gap) - gap, columns * (layer.w + gap) - gap);
    sheet.data.fill(NaN);
    for (let c = 0; c < layer.c; c++)
      for (let v = 0; v < layer.h; v++)
        for (let u = 0; u < layer.w; u++) {
          const row = Math.floor(c / columns) * (layer.h + gap) + v, column = (c % columns) * (layer.w + gap) + u;
          sheet.data[row * sheet.w + column] = layer.data[(c * layer.h + v) * layer.w + u];
        }
    const [, high] = limits(layer.data, "magnitude");
    if (node.width !== sheet.w * 2) { node.width = sheet.w * 2; node.height = sheet.h * 2; }
    draw(node, sheet, { kind: "magnitude", low: 0, high });
    node.setAttribute("aria-label", `The ${layer.c} maps of ${name}, up to ${shown(high)}.`);
    text.textContent = `${name}: ${layer.c} maps of ${layer.h} × ${layer.w}, up to ${shown(high)}`;
  }

  el.append(
    make("div", { class: "explorable-controls" }, which.node, down.node, right.node, drawing.node, clear),
    frame.words,
    make("div", { class: "explorable-stage" },
      make("figure", { class: "explorable-panel explorable-large" }, paper, what, make("figcaption", {}, `blue ring: the middle; orange cross: where ${rule} says it is`)),
      make("figure", { class: "explorable-panel" }, probabilities.node, make("figcaption", {}, "what the network says"))),
    make("div", { class: "explorable-stage explorable-pairs" }, ...sheets.map(({ node, text }) => make("figure", { class: "explorable-panel" }, node, text))),
    frame.quiet);
  frame.show();
}
