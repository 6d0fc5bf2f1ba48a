// A retina in the reader's browser: its view of a picture from a fixation, and the picture drawn back from a view.
import { zeros } from "./nn.js";

// The value of an image between its pixels; zero where it ends. x and y count pixels from the left and upper edge.
export function between({ data, h, w }, c, x, y) {
  const u = x - 0.5, v = y - 0.5, left = Math.floor(u), top = Math.floor(v), du = u - left, dv = v - top;
  const at = (row, column) => (row >= 0 && row < h && column >= 0 && column < w ? data[(c * h + row) * w + column] : 0);
  return (at(top, left) * (1 - du) + at(top, left + 1) * du) * (1 - dv) + (at(top + 1, left) * (1 - du) + at(top + 1, left + 1) * du) * dv;
}

// The samples of a retina from a fixation in pixels: row 0 is the outermost circle, column 0 lies to the right of the fixation, then downwards.
export function logPolar(x, [fx, fy], { radii, angles, rMin, rMax }) {
  const y = zeros(x.c, radii, angles), half = Math.min(x.h, x.w) / 2;
  for (let i = 0; i < radii; i++) {
    const radius = half * rMax * (rMin / rMax) ** (i / (radii - 1));
    for (let j = 0; j < angles; j++) {
      const angle = (j * 2 * Math.PI) / angles, px = fx + radius * Math.cos(angle), py = fy + radius * Math.sin(angle);
      for (let c = 0; c < x.c; c++) y.data[(c * radii + i) * angles + j] = between(x, c, px, py);
    }
  }
  return y;
}

// The picture drawn back from a view: zero outside of the outermost circle, the innermost circle's value inside of it.
export function inverse(view, [fx, fy], { radii, angles, rMin, rMax }, h, w) {
  const y = zeros(view.c, h, w), half = Math.min(h, w) / 2, span = Math.log(rMax / rMin);
  for (let v = 0; v < h; v++)
    for (let u = 0; u < w; u++) {
      const dx = (u + 0.5 - fx) / half, dy = (v + 0.5 - fy) / half, radius = Math.hypot(dx, dy);
      if (radius > rMax) continue;
      const row = Math.max(0, (Math.log(rMax / Math.max(radius, rMin)) / span) * (radii - 1));
      const turn = Math.atan2(dy, dx) / (2 * Math.PI), column = (turn - Math.floor(turn)) * angles;
      const top = Math.min(Math.floor(row), radii - 2), left = Math.floor(column), dv = row - top, du = column - left;
      for (let c = 0; c < view.c; c++) {
        const at = (i, j) => view.data[(c * radii + i) * angles + (j % angles)];
        y.data[(c * h + v) * w + u] = (at(top, left) * (1 - du) + at(top, left + 1) * du) * (1 - dv) + (at(top + 1, left) * (1 - du) + at(top + 1, left + 1) * du) * dv;
      }
    }
  return y;
}

// Circles of the retina over a picture, every sixth of them, and a cross where it looks; the fixation is in pixels of the image.
export function rings(target, [x, y], image, { radii, rMin, rMax }, every = 6) {
  const pen = target.getContext("2d"), scale = target.width / image.w, half = Math.min(image.h, image.w) / 2;
  pen.strokeStyle = "rgba(255, 255, 255, 0.75)";
  pen.lineWidth = 1;
  for (let i = 0; i < radii; i += every) {
    pen.beginPath();
    pen.arc(x * scale, y * (target.height / image.h), half * rMax * (rMin / rMax) ** (i / (radii - 1)) * scale, 0, 2 * Math.PI);
    pen.stroke();
  }
}
