// Move the gaze over a picture: what a retina samples, what the brain's map of it looks like, and what is left of it.
import { asMaps, zeros, normalized, denormalized, forward, last, softmax, argmax } from "./nn.js";
import { logPolar, inverse, between, rings } from "./retina.js";
import { arrays, network, live, make, canvas, draw, cross, bars, select, slider, checkbox, player, movable, shown, percent } from "./ui.js";

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
      const across = columns > w / 2 ? columns - w : columns; // of moves that do nearly as well the smallest
      const error = (sum / count) * (1 + 1e-3 * (Math.abs(rows) + Math.abs(across)));
      if (error < best) { best = error; found = [rows, across]; }
    }
  return found;
}

export function render({ model, el }) {
  const { pictures, retina, layers, classes, mean, std, labels } = model.get("settings");
  const loaded = arrays(model), all = Object.fromEntries(pictures.map((name) => [name, asMaps(loaded[name])]));
  const net = layers && network(layers, loaded), chances = net && bars(classes);
  const picture = canvas(288, 288, ""), view = canvas(retina.angles * 4, retina.radii * 4, ""), back = canvas(288, 288, "");
  const frame = live(model, el, show), state = frame.state;
  const which = select("picture", { options: pictures, value: state().picture, change: (name) => frame.set({ picture: name }) });
  const turn = slider("turn", { min: -180, max: 180, step: 5, value: state().turn, words: (value) => `${value}°`, change: (value) => frame.set({ turn: value }) });
  const zoom = slider("magnify", { min: 0.5, max: 2, step: 0.05, value: state().zoom, words: (value) => `${value}×`, change: (value) => frame.set({ zoom: value }) });
  const circles = checkbox("show the circles", { value: state().circles, change: (on) => frame.set({ circles: on }) });
  const to = (x, y) => frame.set({ x: Math.max(0, Math.min(1, x)), y: Math.max(0, Math.min(1, y)) });
  movable(picture, { move: to, nudge: (dx, dy) => to(state().x + 0.03 * dx, state().y + 0.03 * dy) });
  const wander = player("let the gaze wander", 8, (t) => to(0.5 + 0.36 * Math.sin(2 * Math.PI * t), 0.5 + 0.36 * Math.sin(4 * Math.PI * t)));
  let cached = {};

  function show(now) {
    const plain = all[now.picture], key = `${now.picture} ${now.turn} ${now.zoom}`;
    if (cached.key !== key) cached = { key, image: turned(plain, now.turn, now.zoom) };
    const { image } = cached, height = Math.round((288 * image.h) / image.w);
    for (const node of [picture, back]) if (node.height !== height) node.height = height;
    const gaze = [now.x * image.w, now.y * image.h];
    // A network sees the mean colour beyond the picture's edge, and without one it is dark there.
    const input = net ? logPolar(normalized(image, mean, std), gaze, retina) : logPolar(image, gaze, retina);
    const seen = net ? denormalized(input, mean, std) : input;
    el.result = { view: input.data };
    draw(picture, image, { smooth: true });
    if (now.circles) rings(picture, gaze, image, retina);
    cross(picture, now.x * picture.width, now.y * picture.height);
    draw(view, seen);
    draw(back, inverse(seen, gaze, retina, image.h, image.w), { smooth: true });
    which.set(now.picture); turn.set(now.turn); zoom.set(now.zoom); circles.set(now.circles);
    picture.setAttribute("aria-label", `The picture, with the gaze ${Math.round(100 * now.x)} % from the left and ${Math.round(100 * now.y)} % from the top.`);
    view.setAttribute("aria-label", "The retina's view: the periphery on top, the fovea at the bottom; angles from left to right.");
    back.setAttribute("aria-label", "The picture drawn back from the view: sharp at the gaze, coarse around it.");
    return net ? named(now, input) : measured(now, plain, image, seen);
  }

  function named(now, input) {
    const probabilities = softmax(last(forward(net, input)).data), best = argmax(probabilities);
    el.result.chances = probabilities;
    chances.set(probabilities, best);
    const truth = labels?.[pictures.indexOf(now.picture)], verdict = labels ? ` It is ${classes[truth]}: ${best === truth ? "right" : "wrong"}.` : "";
    return `From here the network says ${classes[best]} (${percent(probabilities[best])}).${verdict}`;
  }

  function measured(now, plain, image, seen) {
    const centred = Math.abs(now.x - 0.5) < 0.02 && Math.abs(now.y - 0.5) < 0.02, changed = now.turn || now.zoom !== 1;
    let what = `Turn or magnify the picture${centred ? "" : ", with the gaze in the middle,"} to see what becomes of the view.`;
    if (changed && centred) {
      const [rows, columns] = moved(logPolar(plain, [plain.w / 2, plain.h / 2], retina), seen);
      what = `The view has moved by ${shown(columns)} of its ${retina.angles} columns and ${shown(rows)} of its ${retina.radii} rows.`;
    } else if (changed) what = "Away from the middle, about which the picture turns, the view does more than move.";
    return `${retina.radii * retina.angles} samples of ${image.h * image.w} pixels. ${what}`;
  }

  el.append(
    make("div", { class: "explorable-controls" }, which.node, ...(net ? [] : [turn.node, zoom.node]), circles.node, wander),
    frame.words,
    make("div", { class: "explorable-stage" },
      make("figure", { class: "explorable-panel" }, picture, make("figcaption", {}, "drag the gaze")),
      make("figure", { class: "explorable-panel" }, view, make("figcaption", {}, "the view: periphery on top, fovea below")),
      make("figure", { class: "explorable-panel" }, back, make("figcaption", {}, "what the view still tells"))),
    ...(net ? [make("div", { class: "explorable-stage" }, make("figure", { class: "explorable-panel" }, chances.node, make("figcaption", {}, "what the network makes of the view")))] : []),
    frame.quiet);
  frame.show();
}
