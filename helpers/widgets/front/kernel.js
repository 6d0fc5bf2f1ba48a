// Slide a kernel over a digit: the nine products, their sum, and the map that grows out of the sums.
import { conv2d, relu, maps, asMaps, stroke } from "./nn.js";
import { arrays, live, make, canvas, draw, limits, colourBar, select, checkbox, slider, number, button, movable, shown } from "./ui.js";

export function render({ model, el }) {
  const { presets } = model.get("settings");
  const digit = asMaps(arrays(model).image);
  let image = maps(digit.data.slice(), 1, digit.h, digit.w), drawing = false;
  const scale = 10;
  const picture = canvas(image.w * scale, image.h * scale, "");
  const result = canvas(280, 280, "");
  const bar = colourBar("signed");
  const sum = make("figcaption", { class: "explorable-lines" }), size = make("figcaption"), what = make("figcaption");
  const frame = live(model, el, view);
  const state = frame.state;

  const choice = select("start from", {
    options: Object.keys(presets), value: state().preset,
    change: (preset) => frame.set({ preset, weights: presets[preset].flat() }),
  });
  const weights = state().weights.map((value, i) => number(`row ${Math.floor(i / 3) + 1}, column ${(i % 3) + 1}`, {
    step: 0.5, value,
    change: (value) => frame.set({ weights: state().weights.map((old, k) => (k === i ? value : old)) }),
  }));
  const rectify = checkbox("ReLU", { value: state().relu, change: (on) => frame.set({ relu: on }) });
  const stride = slider("stride", { min: 1, max: 3, step: 1, value: state().stride, change: (value) => frame.set({ stride: value }) });
  const padding = slider("padding", { min: 0, max: 2, step: 1, value: state().padding, change: (value) => frame.set({ padding: value }) });
  const whole = checkbox("fill the map", { value: state().whole, change: (on) => frame.set({ whole: on }) });
  const own = button("draw your own", () => {
    drawing = !drawing;
    if (drawing) image = maps(new Float32Array(image.data.length), 1, image.h, image.w);
    else image = maps(digit.data.slice(), 1, digit.h, digit.w);
    own.textContent = drawing ? "the digit again" : "draw your own";
    frame.show();
  });

  const moved = (row, column) => {
    const { rows, columns } = places();
    const inside = (value, most) => Math.max(0, Math.min(most - 1, Math.round(value)));
    frame.set({ row: inside(row, rows), column: inside(column, columns) });
  };
  movable(picture, {
    move: (x, y) => {
      if (drawing) { stroke(image, x * image.w, y * image.h); return frame.soon(); }
      const { stride, padding } = state();
      moved((y * image.h - 1.5 + padding) / stride, (x * image.w - 1.5 + padding) / stride);
    },
    nudge: (dx, dy) => moved(state().row + dy, state().column + dx),
  });
  movable(result, {
    move: (x, y) => { const { rows, columns } = places(); moved(y * rows - 0.5, x * columns - 0.5); },
    nudge: (dx, dy) => moved(state().row + dy, state().column + dx),
  });

  function places() {
    const { stride, padding } = state();
    const along = (length) => Math.floor((length + 2 * padding - 3) / stride) + 1;
    return { rows: along(image.h), columns: along(image.w) };
  }

  function view({ weights: w, relu: rectified, stride: step, padding: around, row, column, preset, whole: filled }) {
    if (w.some((value) => !Number.isFinite(value))) throw new Error("every weight must be a number");
    const layer = { kernel: [3, 3], out: 1, weight: Float32Array.from(w), bias: null, stride: step, padding: [around, around], dilation: 1 };
    const sums = conv2d(image, layer), map = rectified ? relu(sums) : sums;
    const top = Math.min(row, sums.h - 1), left = Math.min(column, sums.w - 1);
    el.result = { map: map.data };
    const [low, high] = limits(sums.data, "signed");
    const grown = map.data.map((value, i) => (filled || i <= top * map.w + left ? value : NaN));
    draw(picture, image);
    box(picture, (left * step - around) * scale, (top * step - around) * scale, 3 * scale);
    draw(result, maps(grown, 1, map.h, map.w), { kind: "signed", low, high });
    box(result, (left * result.width) / map.w, (top * result.height) / map.h, result.width / map.w);
    bar.set(low, high);
    const seen = [...Array(9).keys()].map((k) => {
      const y = top * step - around + Math.floor(k / 3), x = left * step - around + (k % 3);
      return y >= 0 && y < image.h && x >= 0 && x < image.w ? image.data[y * image.w + x] : 0;
    });
    const at = top * sums.w + left, answer = sums.data[at];
    const products = seen.map((value, k) => `${Number(value.toFixed(2))} × ${shown(w[k])}`);
    sum.textContent = [0, 3, 6].map((k) => products.slice(k, k + 3).join(" + ")).join("\n+ ");
    sum.append(`\n= ${shown(answer)}${rectified && answer < 0 ? ", which the ReLU makes 0" : ""}`);
    size.textContent = `the map: ${map.h} × ${map.w}`;
    what.textContent = drawing ? "draw here; the kernel moves on the map" : "the picture: move the kernel";
    choice.set(preset);
    whole.set(filled);
    weights.forEach((field, i) => field.set(w[i]));
    rectify.set(rectified);
    stride.set(step);
    padding.set(around);
    picture.setAttribute("aria-label", `The image, ${image.h} by ${image.w} pixels, and the kernel at row ${top + 1}, column ${left + 1}.`);
    result.setAttribute("aria-label", `The map up to row ${top + 1}, column ${left + 1}; arrow keys move the kernel.`);
    return `At row ${top + 1}, column ${left + 1} the kernel answers ${shown(map.data[at])}; over the whole image its answers run from ${shown(limits(map.data, "magnitude")[0])} to ${shown(limits(map.data, "magnitude")[1])}.`;
  }

  function box(target, x, y, side) {
    const pen = target.getContext("2d");
    pen.lineWidth = 3;
    pen.strokeStyle = "white";
    pen.strokeRect(x, y, side, side);
    pen.lineWidth = 1.5;
    pen.strokeStyle = "#d55e00";
    pen.strokeRect(x, y, side, side);
  }

  el.append(
    make("div", { class: "explorable-controls" }, choice.node, rectify.node, stride.node, padding.node, whole.node, own),
    frame.words,
    make("div", { class: "explorable-stage" },
      make("figure", { class: "explorable-panel" }, picture, what, make("figcaption", {}, "pixel × weight, nine times:"), sum),
      make("figure", { class: "explorable-panel" }, make("div", { class: "explorable-grid", role: "group", "aria-label": "the nine weights" }, ...weights.map((field) => field.node)), make("figcaption", {}, "the kernel: change its weights")),
      make("figure", { class: "explorable-panel" }, result, bar.node, size)),
    frame.quiet);
  frame.show();
}
