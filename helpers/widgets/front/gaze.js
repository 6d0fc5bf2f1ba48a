// Move the gaze over a picture: what a retina samples, what the brain's map of it looks like, and what is left of it.
import { asMaps, maps, zeros } from "./nn.js";
import { arrays, live, make, canvas, draw, select, slider, checkbox, movable, shown } from "./ui.js";

// The value of an image between its pixels; zero where it ends. x and y count pixels from the left and upper edge.
function between({ data, h, w }, c, x, y) {
  const u = x - 0.5, v = y - 0.5, left = Math.floor(u), top = Math.floor(v), du = u - left, dv = v - top;
  const at = (row, column) => (row >= 0 && row < h && column >= 0 && column < w ? data[(c * h + row) * w + column] : 0);
  return (at(top, left) * (1 - du) + at(top, left + 1) * du) * (1 - dv) + (at(top + 1, left) * (1 - du) + at(top + 1, left + 1) * du) * dv;
}

// The samples of a retina: row 0 is the outermost circle, column 0 lies to the right of the fixation, then downwards.
export function logPolar(x, [fx, fy], { radii, angles, rMin }) {
  const y = zeros(x.c, radii, angles), half = Math.min(x.h, x.w) / 2;
  for (let i = 0; i < radii; i++) {
    const radius = half * rMin ** (i / (radii - 1));
    for (let j = 0; j < angles; j++) {
      const angle = (j * 2 * Math.PI) / angles, px = fx + radius * Math.cos(angle), py = fy + radius * Math.sin(angle);
      for (let c = 0; c < x.c; c++) y.data[(c * radii + i) * angles + j] = between(x, c, px, py);
    }
  }
  return y;
}

// The picture drawn back from a view: zero outside of the outermost circle, the innermost circle's value inside of it.
export function inverse(view, [fx, fy], { radii, angles, rMin }, h, w) {
  const y = zeros(view.c, h, w), half = Math.min(h, w) / 2, span = Math.log(1 / rMin);
  for (let v = 0; v < h; v++)
    for (let u = 0; u < w; u++) {
      const dx = (u + 0.5 - fx) / half, dy = (v + 0.5 - fy) / half, radius = Math.hypot(dx, dy);
      if (radius > 1) continue;
      const row = Math.max(0, (Math.log(1 / Math.max(radius, rMin)) / span) * (radii - 1));
      const turn = Math.atan2(dy, dx) / (2 * Math.PI), column = (turn - Math.floor(turn)) * angles;
      const top = Math.min(Math.floor(row), radii - 2), left = Math.floor(column), dv = row - top, du = column - left;
      for (let c = 0; c < view.c; c++) {
        const at = (i, j) => view.data[(c * radii + i) * angles + (j % angles)];
        y.data[(c * h + v) * w + u] = (at(top, left) * (1 - du) + at(top, left + 1) * du) * (1 - dv) + (at(top + 1, left) * (1 - du) + at(top + 1, left + 1) * du) * dv;
      }
    }
  return y;
}

// The picture turned about its middle, anticlockwise by so many degrees as torchvision counts them, and magnified.
export function turned(x, degrees, zoom) {
  if (degrees === 0 && zoom === 1) return x;
  const y = zeros(x.c, x.h, x.w), a = (degrees * Math.PI) / 180, cos = Math.cos(a) / zoom, sin = Math.sin(a) / zoom;
  for (let v = 0; v < x.h; v++)
    for (let u = 0; u < x.w; u++) {
      const dx = u + 0.5 - x.w / 2, dy = v + 0.5 - x.h / 2;
      for (let c = 0; c < x.c; c++) y.data[(c * x.h + v) * x.w + u] = between(x, c, cos * dx - sin * dy + x.w / 2, sin * dx + cos * dy + x.h / 2);
    }
  return y;
}

// By how many rows and columns one view must be moved to be most like another: [rows, columns].
export function moved(before, after, most = 8) {
  const { h, w } = before, grey = ({ data, c }) => Float32Array.from({ length: h * w }, (_, i) => { let s = 0; for (let k = 0; k < c; k++) s += data[k * h * w + i]; return s; });
  const a = grey(before), b = grey(after);
  let best = Infinity, found = [0, 0];
  for (let rows = -most; rows <= most; rows++)
    for (let columns = 0; columns < w; columns++) {
      let sum = 0, count = 0;
      for (let i = Math.max(0, rows); i < Math.min(h, h + rows); i += 2)
        for (let j = 0; j < w; j += 2) { const d = b[i * w + ((j + columns) % w)] - a[(i - rows) * w + j]; sum += d * d; count++; }
      if (sum / count < best) { best = sum / count; found = [rows, columns > w / 2 ? columns - w : columns]; }
    }
  return found;
}

export function render({ model, el }) {
  const { pictures, radii, angles, rMin } = model.get("settings"), retina = { radii, angles, rMin };
  const loaded = arrays(model), all = Object.fromEntries(pictures.map((name) => [name, asMaps(loaded[name])]));
  const picture = canvas(288, 288, ""), view = canvas(angles * 4, radii * 4, ""), back = canvas(288, 288, "");
  const frame = live(model, el, show), state = frame.state;
  const which = select("picture", { options: pictures, value: state().picture, change: (name) => frame.set({ picture: name }) });
  const turn = slider("turn", { min: -180, max: 180, step: 5, value: state().turn, words: (value) => `${value}°`, change: (value) => frame.set({ turn: value }) });
  const zoom = slider("magnify", { min: 0.5, max: 2, step: 0.05, value: state().zoom, words: (value) => `${value}×`, change: (value) => frame.set({ zoom: value }) });
  const circles = checkbox("show the circles", { value: state().circles, change: (on) => frame.set({ circles: on }) });
  const to = (x, y) => frame.set({ x: Math.max(0, Math.min(1, x)), y: Math.max(0, Math.min(1, y)) });
  movable(picture, { move: to, nudge: (dx, dy) => to(state().x + 0.03 * dx, state().y + 0.03 * dy) });
  let cached = {};

  function show(now) {
    const plain = all[now.picture], key = `${now.picture} ${now.turn} ${now.zoom}`;
    if (cached.key !== key) cached = { key, image: turned(plain, now.turn, now.zoom) };
    const { image } = cached, height = Math.round((288 * image.h) / image.w);
    for (const node of [picture, back]) if (node.height !== height) node.height = height;
    const gaze = [now.x * image.w, now.y * image.h];
    const seen = logPolar(image, gaze, retina);
    draw(picture, image, { smooth: true });
    if (now.circles) rings(gaze, image);
    mark(picture, now.x * picture.width, now.y * picture.height);
    draw(view, seen);
    draw(back, inverse(seen, gaze, retina, image.h, image.w), { smooth: true });
    which.set(now.picture); turn.set(now.turn); zoom.set(now.zoom); circles.set(now.circles);
    picture.setAttribute("aria-label", `The picture, with the gaze ${Math.round(100 * now.x)} % from the left and ${Math.round(100 * now.y)} % from the top.`);
    view.setAttribute("aria-label", "The retina's view: the periphery on top, the fovea at the bottom; angles from left to right.");
    back.setAttribute("aria-label", "The picture drawn back from the view: sharp at the gaze, coarse around it.");
    const centred = Math.abs(now.x - 0.5) < 0.02 && Math.abs(now.y - 0.5) < 0.02, changed = now.turn || now.zoom !== 1;
    let measured = "Turn or magnify the picture to see what becomes of the view.";
    if (changed && centred) {
      const [rows, columns] = moved(logPolar(plain, [plain.w / 2, plain.h / 2], retina), seen);
      measured = `The view has moved by ${shown(columns)} columns and ${shown(rows)} rows.`;
    } else if (changed) measured = "Away from the middle, about which the picture turns, the view does more than move.";
    return `${radii * angles} samples of ${image.h * image.w} pixels. ${measured}`;
  }

  function rings([x, y], image) {
    const pen = picture.getContext("2d"), scale = picture.width / image.w, half = Math.min(image.h, image.w) / 2;
    pen.strokeStyle = "rgba(255, 255, 255, 0.75)";
    pen.lineWidth = 1;
    for (let i = 0; i < radii; i += 6) {
      pen.beginPath();
      pen.arc(x * scale, y * (picture.height / image.h), half * rMin ** (i / (radii - 1)) * scale, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  function mark(target, x, y) {
    const pen = target.getContext("2d");
    for (const [style, width] of [["#222", 5], ["#f0e442", 2.5]]) {
      pen.strokeStyle = style;
      pen.lineWidth = width;
      pen.beginPath();
      for (const [dx, dy] of [[9, 0], [0, 9]]) { pen.moveTo(x - dx, y - dy); pen.lineTo(x + dx, y + dy); }
      pen.stroke();
    }
  }

  el.append(
    make("div", { class: "explorable-controls" }, which.node, turn.node, zoom.node, circles.node),
    make("div", { class: "explorable-stage" },
      make("figure", { class: "explorable-panel" }, picture, make("figcaption", {}, "drag the gaze")),
      make("figure", { class: "explorable-panel" }, view, make("figcaption", {}, "the view: periphery on top, fovea below")),
      make("figure", { class: "explorable-panel" }, back, make("figcaption", {}, "what the view still tells"))),
    frame.words, frame.quiet);
  frame.show();
}
