// What the explorables share: controls with labels, maps drawn in the book's colours, what is said in words, and what is
// done when something goes wrong. COLOURS (256 red, green and blue bytes a map) is put before this file by
// helpers/widgets/_explorable.py.

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

let count = 0;
const fresh = () => `explorable-${++count}`;

// A labelled slider; `words` says its value for those who do not see it, and stands beside it.
export function slider(label, { min, max, step, value, words = String, change }) {
  const id = fresh(), text = make("output", { for: id });
  const input = make("input", { type: "range", id, min, max, step });
  const say = () => {
    text.textContent = words(input.valueAsNumber);
    input.setAttribute("aria-valuetext", text.textContent);
  };
  input.addEventListener("input", () => { say(); change(input.valueAsNumber); });
  return field(label, id, input, text, (wanted) => { input.value = wanted; say(); }, value);
}

export function select(label, { options, value, change }) {
  const id = fresh();
  const input = make("select", { id }, ...options.map((name) => make("option", { value: name }, name)));
  input.addEventListener("change", () => change(input.value));
  return field(label, id, input, "", (wanted) => { input.value = wanted; }, value);
}

export function checkbox(label, { value, change }) {
  const id = fresh(), input = make("input", { type: "checkbox", id });
  input.addEventListener("change", () => change(input.checked));
  const node = make("span", { class: "explorable-field" }, input, make("label", { for: id }, label));
  const set = (wanted) => { input.checked = wanted; };
  set(value);
  return { node, input, set };
}

export function number(label, { step, value, change }) {
  const id = fresh(), input = make("input", { type: "number", id, step, "aria-label": label });
  input.addEventListener("input", () => change(input.value === "" ? NaN : Number(input.value)));
  const set = (wanted) => { if (Number(input.value) !== wanted || input.value === "") input.value = wanted; };
  set(value);
  return { node: input, input, set };
}

export function button(label, click) {
  return make("button", { type: "button", onclick: click }, label);
}

// A button that moves something by itself for some seconds, or until it is pressed again: step(t), t from 0 to 1. Those
// who asked for less motion do not get one.
export function player(label, seconds, step) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let start = null;
  const node = button(label, () => {
    start = start === null ? performance.now() : null;
    node.textContent = start === null ? label : "stop";
    if (start !== null) requestAnimationFrame(next);
  });
  const next = (now) => {
    if (start === null || !node.isConnected) return;
    const t = Math.min(1, Math.max(0, now - start) / seconds / 1000);
    step(t);
    if (t < 1) requestAnimationFrame(next);
    else { start = null; node.textContent = label; }
  };
  return still ? "" : node;
}

function field(label, id, input, text, set, value) {
  set(value);
  return { node: make("span", { class: "explorable-field" }, make("label", { for: id }, label), input, text), input, set };
}

// ---- pictures

const TABLES = {};
function table(name) {
  return (TABLES[name] ??= Uint8Array.from(atob(COLOURS[name]), (letter) => letter.charCodeAt(0)));
}

// The place of a value on a scale, 0 to 255.
const step = (value, low, high) => Math.max(0, Math.min(255, Math.round((255 * (value - low)) / (high - low || 1))));

// Red, green and blue for each value of a map: "grey" brightness, "signed" evidence around zero, "magnitude" sizes.
export function coloured(values, kind, low, high) {
  const colours = kind === "grey" ? null : table(kind), pixels = new Uint8ClampedArray(values.length * 4);
  for (let i = 0; i < values.length; i++) {
    const at = step(values[i], low, high);
    for (let k = 0; k < 3; k++) pixels[4 * i + k] = Number.isNaN(values[i]) ? 200 : colours ? colours[3 * at + k] : at;
    pixels[4 * i + 3] = 255;
  }
  return pixels;
}

// The limits of a map's scale: for "signed" the same to both sides of zero.
export function limits(values, kind) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
  if (low > high) return [0, 1];
  if (kind !== "signed") return [low, high];
  const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
  return [-most, most];
}

export function canvas(width, height, label, attributes = {}) {
  return make("canvas", { width, height, role: "img", "aria-label": label, ...attributes });
}

// Draws a map of one channel, or an image of one or three channels with values in [0, 1], over the whole canvas.
export function draw(target, { data, c, h, w }, { kind = "grey", low = 0, high = 1, smooth = false, alpha = 1 } = {}) {
  const pixels = c === 3 ? new Uint8ClampedArray(4 * h * w) : coloured(data, kind, low, high);
  if (c === 3) {
    for (let i = 0; i < h * w; i++) {
      for (let k = 0; k < 3; k++) pixels[4 * i + k] = 255 * data[k * h * w + i];
      pixels[4 * i + 3] = 255;
    }
  }
  const sheet = make("canvas", { width: w, height: h });
  sheet.getContext("2d").putImageData(new ImageData(pixels, w, h), 0, 0);
  const pen = target.getContext("2d");
  pen.imageSmoothingEnabled = smooth;
  pen.globalAlpha = alpha;
  pen.drawImage(sheet, 0, 0, target.width, target.height);
  pen.globalAlpha = 1;
}

// What is right, what was found, and where one looks: bright lines on dark edges, seen on every picture.
export const MARKS = { truth: "#56b4e9", own: "#d55e00", gaze: "#f0e442", other: "#56b4e9" };

// An image in grey, for maps to lie over.
export function greyed({ data, c, h, w }) {
  const y = new Float32Array(h * w), luma = c === 3 ? [0.299, 0.587, 0.114] : [1];
  for (let k = 0; k < c; k++) for (let i = 0; i < h * w; i++) y[i] += luma[k] * data[k * h * w + i];
  return { data: y, c: 1, h, w };
}

// Draws a line twice, dark and wide, then bright: `path(pen)` says where.
export function line(target, colour, path, dash = []) {
  const pen = target.getContext("2d");
  pen.setLineDash(dash);
  for (const [style, width] of [["#222", 5], [colour, 2.5]]) {
    pen.strokeStyle = style;
    pen.lineWidth = width;
    pen.beginPath();
    path(pen);
    pen.stroke();
  }
  pen.setLineDash([]);
}

// A box, in pixels of an image `wide` pixels wide.
export function outline(target, [x0, y0, x1, y1], wide, colour, dash = []) {
  const scale = target.width / wide;
  line(target, colour, (pen) => pen.rect(x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale), dash);
}

// A cross, at a place of the canvas.
export function cross(target, x, y, colour = MARKS.gaze, arm = 9) {
  line(target, colour, (pen) => { for (const [dx, dy] of [[arm, 0], [0, arm]]) { pen.moveTo(x - dx, y - dy); pen.lineTo(x + dx, y + dy); } });
}

// A curve over 0 .. 1, its height 0 .. 1, a line at `level`, and a mark at one place; the words go to aria-label.
export function curve(target, values, level, at, label) {
  const pen = target.getContext("2d"), { width, height } = target, y = (value) => height - 4 - value * (height - 8);
  pen.fillStyle = "white";
  pen.fillRect(0, 0, width, height);
  const path = (colour, dash, points) => {
    pen.setLineDash(dash);
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.beginPath();
    points.forEach(([u, v], i) => (i ? pen.lineTo(u * width, y(v)) : pen.moveTo(u * width, y(v))));
    pen.stroke();
    pen.setLineDash([]);
  };
  path("#777777", [4, 4], [[0, level], [1, level]]);
  path("#0072b2", [], values.map((value, i) => [i / (values.length - 1), value]));
  path("#d55e00", [2, 3], [[at, 0], [at, 1]]);
  target.setAttribute("aria-label", label);
}

export const panel = (node, ...below) => make("figure", { class: "explorable-panel" }, node, ...below);

// A colour bar with its two ends, and zero where it is signed.
export function colourBar(kind) {
  const strip = make("canvas", { width: 128, height: 1, "aria-hidden": "true" }), ends = make("span", { class: "explorable-ends" });
  const node = make("span", { class: "explorable-bar" }, strip, ends);
  const ramp = Float32Array.from({ length: 128 }, (_, i) => i);
  strip.getContext("2d").putImageData(new ImageData(coloured(ramp, kind, 0, 127), 128, 1), 0, 0);
  const set = (low, high) => ends.replaceChildren(...(kind === "signed" ? [low, 0, high] : [low, high]).map((v) => make("span", {}, shown(v))));
  return { node, set };
}

// A number with three figures.
export function shown(value) {
  if (!Number.isFinite(value)) return "not a number";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1000 ? Math.round(value).toString() : size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  return text.replace("-", "−");
}

// A probability in words.
export const percent = (value) => (value < 0.005 ? "< 1 %" : value > 0.995 && value < 1 ? "> 99 %" : `${Math.round(100 * value)} %`);

export function bars(names) {
  const rows = names.map((name) => {
    const bar = make("span", { class: "explorable-fill" }), text = make("span", { class: "explorable-value" });
    return { bar, text, node: make("div", { class: "explorable-row" }, make("span", {}, name), make("span", { class: "explorable-track" }, bar), text) };
  });
  const node = make("div", { class: "explorable-bars" }, ...rows.map((row) => row.node));
  const set = (values, marked = -1) => rows.forEach((row, i) => {
    row.bar.style.width = `${Math.max(0, Math.min(1, values[i])) * 100}%`;
    row.text.textContent = percent(values[i]);
    row.node.classList.toggle("explorable-marked", i === marked);
  });
  return { node, set };
}

// ---- moving something in a picture

// Calls move(x, y) with the place in the picture, 0 to 1, under mouse or finger, nudge(dx, dy) for the arrow keys, and
// press(), if there is one, when mouse or finger let go, and for the enter key and the space bar.
export function movable(node, { move, nudge, press = null }) {
  node.tabIndex = 0;
  node.classList.add("explorable-movable");
  const follow = (event) => {
    const box = node.getBoundingClientRect();
    move((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  };
  node.addEventListener("pointerdown", (event) => { node.setPointerCapture(event.pointerId); follow(event); });
  node.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
  if (press) node.addEventListener("pointerup", () => press());
  const steps = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
  node.addEventListener("keydown", (event) => {
    if (press && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); press(); }
    if (!steps[event.key]) return;
    event.preventDefault();
    nudge(...steps[event.key]);
  });
}

// ---- the frame of an explorable

// Shows what `view` makes of the state whenever it changes, at most once a frame, and says it in words a moment later.
// `view(state)` draws, leaves the numbers that it drew in `el.result`, for tests, and returns a sentence. What goes wrong
// leaves the last picture and one sentence.
export function live(model, el, view) {
  const words = make("p", { class: "explorable-words" }), quiet = make("p", { class: "explorable-quiet", "aria-live": "polite" });
  let waiting = 0, saying = 0;
  const show = () => {
    waiting = 0;
    const begin = performance.now();
    let sentence;
    try {
      sentence = view(model.get("state"));
      delete el.dataset.failed;
    } catch (error) {
      el.dataset.failed = "";
      sentence = `This cannot be computed: ${error.message}.`;
    }
    words.textContent = sentence;
    el.took = performance.now() - begin; // milliseconds: tools/page_speed.py reads it
    clearTimeout(saying);
    saying = setTimeout(() => { quiet.textContent = sentence; }, 400);
  };
  const soon = () => { waiting ||= requestAnimationFrame(show); };
  const set = (changes) => {
    model.set("state", { ...model.get("state"), ...changes });
    model.save_changes();
    soon();
  };
  model.on("change:state", soon);
  el.classList.add("explorable");
  return { set, show, soon, words, quiet, state: () => model.get("state") };
}

// The arrays that Python has handed over, decoded, by name.
export function arrays(model) {
  return Object.fromEntries(Object.entries(model.get("arrays")).map(([name, entry]) => [name, decoded(entry)]));
}

// A network as it was exported: its layers, with the weights among the arrays.
export function network(layers, values) {
  return layers.map((layer) => ({
    ...layer,
    weight: layer.weight && values[layer.weight].data,
    bias: layer.bias && values[layer.bias].data,
  }));
}
