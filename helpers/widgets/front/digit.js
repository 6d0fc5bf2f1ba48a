// Draw a digit, move it, and see what every layer of a small network makes of it.
import { forward, last, after, asMaps, maps, zeros, softmax, argmax, linear } from "./nn.js";
import { arrays, network, live, make, canvas, draw, limits, bars, button, slider, movable, shown, percent, select } from "./ui.js";

export function render({ model, el }) {
  const { layers, digits, shown: names, probe } = model.get("settings");
  const values = arrays(model), net = network(layers, values);
  const all = asMaps(values.digits), side = all.w, scale = Math.round(224 / side);
  const paper = canvas(side * scale, side * scale, "");
  const probabilities = bars(digits);
  const sheets = names.map((name) => ({ name, node: make("canvas", { role: "img" }), text: make("figcaption") }));
  const frame = live(model, el, view);
  let ink = null; // what was drawn by hand, in place of a digit

  const which = select("digit", { options: digits, value: digits[frame.state().digit], change: (name) => { ink = null; frame.set({ digit: digits.indexOf(name), down: 0, right: 0 }); } });
  const most = Math.floor(side / 2);
  const down = slider("down", { min: -most, max: most, step: 1, value: frame.state().down, change: (value) => frame.set({ down: value }) });
  const right = slider("right", { min: -most, max: most, step: 1, value: frame.state().right, change: (value) => frame.set({ right: value }) });
  const clear = button("a clean sheet", () => { ink = zeros(1, side, side); frame.set({ down: 0, right: 0 }); frame.show(); });
  movable(paper, {
    move: (x, y) => {
      ink ??= seen(frame.state());
      if (frame.state().down || frame.state().right) { ink = seen(frame.state()); frame.set({ down: 0, right: 0 }); }
      stroke(x * side, y * side);
      frame.show();
    },
    nudge: (dx, dy) => {
      const inside = (value) => Math.max(-most, Math.min(most, value));
      frame.set({ down: inside(frame.state().down + dy), right: inside(frame.state().right + dx) });
    },
  });

  function stroke(x, y) {
    for (let v = 0; v < side; v++)
      for (let u = 0; u < side; u++) {
        const dark = 1.7 - Math.hypot(u + 0.5 - x, v + 0.5 - y);
        ink.data[v * side + u] = Math.max(ink.data[v * side + u], Math.min(1, Math.max(0, dark)));
      }
  }

  // The digit, or what was drawn, moved by whole pixels.
  function seen({ digit, down: below, right: beside }) {
    const from = ink ?? maps(all.data.subarray(digit * side * side, (digit + 1) * side * side), 1, side, side);
    const moved = zeros(1, side, side);
    for (let v = 0; v < side; v++)
      for (let u = 0; u < side; u++) {
        const row = v - below, column = u - beside;
        if (row >= 0 && row < side && column >= 0 && column < side) moved.data[v * side + u] = from.data[row * side + column];
      }
    return moved;
  }

  function view(state) {
    const image = seen(state), trace = forward(net, image), chances = softmax(last(trace).data), best = argmax(chances);
    draw(paper, image);
    if (probe) {
      const place = linear(after(trace, probe.layer), { out: 2, weight: values[probe.weight].data, bias: values[probe.bias].data });
      cross(paper, place.data[0] * scale, place.data[1] * scale);
    }
    for (const { name, node, text } of sheets) tile(node, after(trace, name), text, name);
    probabilities.set(chances, best);
    down.set(state.down);
    right.set(state.right);
    which.set(digits[state.digit]);
    paper.setAttribute("aria-label", `A sheet of ${side} by ${side} pixels. Draw on it, or move what is drawn by the arrow keys: now ${state.down} down and ${state.right} to the right.`);
    return `The network says ${digits[best]}, with probability ${percent(chances[best])}.`;
  }

  function cross(target, x, y) {
    const pen = target.getContext("2d");
    pen.strokeStyle = "#d55e00";
    pen.lineWidth = 2;
    pen.beginPath();
    for (const [dx, dy] of [[8, 0], [0, 8]]) { pen.moveTo(x - dx, y - dy); pen.lineTo(x + dx, y + dy); }
    pen.stroke();
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
    make("div", { class: "explorable-controls" }, which.node, down.node, right.node, clear),
    make("div", { class: "explorable-stage" },
      make("figure", { class: "explorable-panel" }, paper, make("figcaption", {}, probe ? "draw, or move it; the cross is where a probe says it is" : "draw, or move it")),
      ...sheets.map(({ node, text }) => make("figure", { class: "explorable-panel" }, node, text)),
      make("figure", { class: "explorable-panel" }, probabilities.node)),
    frame.words, frame.quiet);
  frame.show();
}
