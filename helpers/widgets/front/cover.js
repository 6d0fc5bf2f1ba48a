// Two networks, one picture: a shape that can be moved over a ground, and the class activation maps of what each says.
import { forward, last, asMaps, maps, normalized, softmax, argmax, resized, weighed } from "./nn.js";
import { arrays, network, live, make, canvas, draw, greyed, limits, movable, panel, select, percent } from "./ui.js";

// The shape on the ground, its upper left corner at so many pixels.
export function placed(ground, shape, mask, top, left) {
  const y = maps(ground.data.slice(), ground.c, ground.h, ground.w);
  for (let v = 0; v < shape.h; v++)
    for (let u = 0; u < shape.w; u++)
      if (mask[v * shape.w + u])
        for (let c = 0; c < y.c; c++) y.data[(c * y.h + v + top) * y.w + u + left] = shape.data[(c * shape.h + v) * shape.w + u];
  return y;
}

// What a network says of a picture, how surely, and the evidence for it at every pixel.
export function evidence(layers, picture, mean, std) {
  const trace = forward(layers, normalized(picture, mean, std)), chances = softmax(last(trace).data), best = argmax(chances);
  const features = trace[trace.length - 3].input, head = layers[layers.length - 1].weight.subarray(best * features.c, (best + 1) * features.c);
  return { best, chance: chances[best], map: resized(weighed(features, head), picture.h, picture.w) };
}

export function render({ model, el }) {
  const { networks, classes, mean, std, grounds } = model.get("settings");
  const values = arrays(model), all = grounds.map((name) => asMaps(values[`ground ${name}`])), ground = all[0], shape = asMaps(values.shape), mask = values.mask.data;
  const nets = Object.entries(networks).map(([name, layers]) => ({ name, layers: network(layers, values), node: canvas(256, 256, ""), text: make("figcaption") }));
  const picture = canvas(256, 256, ""), frame = live(model, el, view), state = frame.state;
  const which = select("ground", { options: grounds, value: grounds[0], change: (name) => frame.set({ ground: grounds.indexOf(name) }) });
  const down = ground.h - shape.h, across = ground.w - shape.w;
  const inside = (value, most) => Math.max(0, Math.min(most, Math.round(value)));
  const to = (top, left) => frame.set({ top: inside(top, down), left: inside(left, across) });
  for (const node of [picture, ...nets.map((net) => net.node)]) {
    movable(node, {
      move: (x, y) => to(y * ground.h - shape.h / 2, x * ground.w - shape.w / 2),
      nudge: (dx, dy) => to(state().top + 3 * dy, state().left + 3 * dx),
    });
    if (node !== picture) node.tabIndex = -1; // one stop for the tab key is enough
  }

  function view({ top, left, ground: number }) {
    which.set(grounds[number]);
    const seen = placed(all[number], shape, mask, top, left), said = [];
    el.result = { maps: [], best: [] };
    draw(picture, seen);
    for (const { name, layers, node, text } of nets) {
      const { best, chance, map } = evidence(layers, seen, mean, std), [low, high] = limits(map.data, "signed");
      el.result.maps.push(map.data);
      el.result.best.push(best);
      draw(node, greyed(seen));
      draw(node, map, { kind: "signed", low, high, alpha: 0.6, smooth: true });
      said.push(`${name} says “${classes[best]}” (${percent(chance)})`);
      text.textContent = `${said[said.length - 1]}: red speaks for it, blue against`;
      node.setAttribute("aria-label", `Where the score that ${name} gives to ${classes[best]} comes from.`);
    }
    picture.setAttribute("aria-label", `A shape on a ground, ${top} pixels from the top and ${left} from the left; arrow keys move it.`);
    return `${said.join(", ")}.`;
  }

  frame.words.classList.add("explorable-quiet"); // the captions say it
  el.append(
    make("div", { class: "explorable-controls" }, which.node),
    make("div", { class: "explorable-stage explorable-three" }, panel(picture, make("figcaption", {}, "the picture: move the square")), ...nets.map(({ node, text }) => panel(node, text))),
    frame.words, frame.quiet);
  frame.show();
}
