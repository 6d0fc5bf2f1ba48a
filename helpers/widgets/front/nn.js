// Networks in the reader's browser: layers forwards and backwards, one image at a time, in single precision.
//
// Maps are { data: Float32Array, c, h, w }, channel by channel and row by row, as torch lays them out. A layer is what
// helpers/widgets/_export.py writes: { name, type, ... } with its weights as Float32Arrays.

export const maps = (data, c, h, w) => ({ data, c, h, w });
export const zeros = (c, h, w) => maps(new Float32Array(c * h * w), c, h, w);

// Half-precision numbers, as they are shipped, in single precision.
export function fromHalf(bits) {
  const numbers = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const sign = bits[i] & 0x8000 ? -1 : 1, exponent = (bits[i] >> 10) & 31, fraction = bits[i] & 1023;
    if (exponent === 0) numbers[i] = sign * fraction * 2 ** -24;
    else if (exponent === 31) numbers[i] = fraction ? NaN : sign * Infinity;
    else numbers[i] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return numbers;
}

const KINDS = { float32: Float32Array, float16: Uint16Array, uint8: Uint8Array, int8: Int8Array, int32: Int32Array };

// An array as Python hands it over: { dtype, shape, data }, of int8 also { unit }: what one is worth; data as bytes (in a notebook) or as base64 (in a page).
export function decoded({ dtype, shape, data, unit }) {
  let bytes;
  if (typeof data === "string") bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  else bytes = new Uint8Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
  const values = new KINDS[dtype](bytes.buffer);
  if (dtype === "int8") return { data: Float32Array.from(values, (value) => value * unit), shape };
  return { data: dtype === "float16" ? fromHalf(values) : values, shape };
}

// Maps of an array; bytes are brightness, 255 of them white.
export function asMaps({ data, shape }) {
  const [h, w] = shape.slice(-2), scale = data instanceof Uint8Array ? 255 : 1;
  return maps(data instanceof Float32Array ? data : Float32Array.from(data, (v) => v / scale), data.length / h / w, h, w);
}

// ---- layers, forwards

const side = (length, kernel, { stride, padding, dilation }, axis) =>
  Math.floor((length + 2 * padding[axis] - dilation * (kernel - 1) - 1) / stride) + 1;

// The places of one tap of a kernel that fall on the image: from where to where in the output, along one axis.
function reach(length, out, tap, { stride, padding, dilation }, axis) {
  const start = tap * dilation - padding[axis];
  const first = Math.max(0, Math.ceil(-start / stride));
  const last = Math.min(out - 1, Math.floor((length - 1 - start) / stride));
  return [start, first, last];
}

// Calls visit(weight index, input offset, output offset, number of places, step in the input) for every run of places.
function everyTap(layer, x, h, w, visit) {
  const [kh, kw] = layer.kernel;
  for (let v = 0; v < kh; v++) {
    const [top, y0, y1] = reach(x.h, h, v, layer, 0);
    for (let u = 0; u < kw; u++) {
      const [left, x0, x1] = reach(x.w, w, u, layer, 1);
      if (x1 < x0) continue;
      for (let y = y0; y <= y1; y++)
        visit(v * kw + u, (y * layer.stride + top) * x.w + x0 * layer.stride + left, y * w + x0, x1 - x0 + 1);
    }
  }
}

// Kernels of 3 x 3 that move by one place are most of the work: all nine products at once, on an image with its rim.
const isPlain = ({ kernel: [kh, kw], stride, dilation }) => kh === 3 && kw === 3 && stride === 1 && dilation === 1;

// Of a kernel five wide that moves by one place, five products at once: a row of it on a row of the image.
function fiveProducts(weight, k, p, from, plane, to, count) {
  const k0 = weight[k], k1 = weight[k + 1], k2 = weight[k + 2], k3 = weight[k + 3], k4 = weight[k + 4];
  let a0 = p[from], a1 = p[from + 1], a2 = p[from + 2], a3 = p[from + 3];
  for (let u = 0; u < count; u++) {
    const a4 = p[from + u + 4];
    plane[to + u] += k0 * a0 + k1 * a1 + k2 * a2 + k3 * a3 + k4 * a4;
    a0 = a1; a1 = a2; a2 = a3; a3 = a4;
  }
}

function fiveWideConv(x, { weight, bias, out, kernel: [kh], padding: [above, beside] }) {
  const ph = x.h + 2 * above, pw = x.w + 2 * beside, h = ph - kh + 1, w = pw - 4, y = zeros(out, h, w);
  const p = pad(x, [beside, beside, above, above]).data;
  for (let o = 0; o < out; o++) {
    const plane = y.data.subarray(o * h * w, (o + 1) * h * w);
    if (bias) plane.fill(bias[o]);
    for (let i = 0; i < x.c; i++)
      for (let v = 0; v < h; v++)
        for (let t = 0; t < kh; t++) fiveProducts(weight, ((o * x.c + i) * kh + t) * 5, p, (i * ph + v + t) * pw, plane, v * w, w);
  }
  return y;
}

function plainConv(x, weight, bias, out, [above, beside]) {
  const ph = x.h + 2 * above, pw = x.w + 2 * beside, h = ph - 2, w = pw - 2, y = zeros(out, h, w);
  const p = pad(x, [beside, beside, above, above]).data;
  for (let o = 0; o < out; o++) {
    const plane = y.data.subarray(o * h * w, (o + 1) * h * w);
    if (bias) plane.fill(bias[o]);
    for (let i = 0; i < x.c; i++) {
      const k = (o * x.c + i) * 9, k0 = weight[k], k1 = weight[k + 1], k2 = weight[k + 2], k3 = weight[k + 3], k4 = weight[k + 4];
      const k5 = weight[k + 5], k6 = weight[k + 6], k7 = weight[k + 7], k8 = weight[k + 8];
      for (let v = 0; v < h; v++) {
        const a = (i * ph + v) * pw, b = a + pw, c = b + pw, to = v * w;
        let a0 = p[a], a1 = p[a + 1], b0 = p[b], b1 = p[b + 1], c0 = p[c], c1 = p[c + 1];
        for (let u = 0; u < w; u++) {
          const a2 = p[a + u + 2], b2 = p[b + u + 2], c2 = p[c + u + 2];
          plane[to + u] += k0 * a0 + k1 * a1 + k2 * a2 + k3 * b0 + k4 * b1 + k5 * b2 + k6 * c0 + k7 * c1 + k8 * c2;
          a0 = a1; a1 = a2; b0 = b1; b1 = b2; c0 = c1; c1 = c2;
        }
      }
    }
  }
  return y;
}

export function conv2d(x, layer) {
  if (isPlain(layer)) return plainConv(x, layer.weight, layer.bias, layer.out, layer.padding);
  if (layer.kernel[1] === 5 && layer.stride === 1 && layer.dilation === 1) return fiveWideConv(x, layer);
  const { kernel: [kh, kw], out, weight, bias, stride } = layer, taps = kh * kw;
  const h = side(x.h, kh, layer, 0), w = side(x.w, kw, layer, 1), y = zeros(out, h, w);
  const runs = [];
  everyTap(layer, x, h, w, (tap, from, to, count) => runs.push(tap, from, to, count));
  for (let o = 0; o < out; o++) {
    const plane = y.data.subarray(o * h * w, (o + 1) * h * w);
    if (bias) plane.fill(bias[o]);
    for (let i = 0; i < x.c; i++) {
      const base = (o * x.c + i) * taps, image = x.data.subarray(i * x.h * x.w, (i + 1) * x.h * x.w);
      for (let r = 0; r < runs.length; r += 4) {
        const k = weight[base + runs[r]], from = runs[r + 1], to = runs[r + 2], count = runs[r + 3];
        if (stride === 1) for (let j = 0; j < count; j++) plane[to + j] += k * image[from + j];
        else for (let j = 0; j < count; j++) plane[to + j] += k * image[from + j * stride];
      }
    }
  }
  return y;
}

export function pad(x, [left, right, top, bottom], circular = false) {
  const h = x.h + top + bottom, w = x.w + left + right, y = zeros(x.c, h, w);
  for (let c = 0; c < x.c; c++)
    for (let v = 0; v < x.h; v++)
      for (let u = 0; u < w; u++) {
        const from = circular ? (u - left + x.w) % x.w : u - left;
        if (from >= 0 && from < x.w) y.data[(c * h + v + top) * w + u] = x.data[(c * x.h + v) * x.w + from];
      }
  return y;
}

export function relu(x) {
  return maps(x.data.map((value) => (value > 0 ? value : 0 * value)), x.c, x.h, x.w); // 0 * NaN stays NaN
}

// Windows beside each other; the places of the greatest values are kept for the way back.
export function maxPool(x, size) {
  const h = Math.floor(x.h / size), w = Math.floor(x.w / size), y = zeros(x.c, h, w);
  y.from = new Int32Array(y.data.length);
  for (let c = 0, k = 0; c < x.c; c++)
    for (let v = 0; v < h; v++)
      for (let u = 0; u < w; u++, k++) {
        let best = (c * x.h + v * size) * x.w + u * size;
        for (let dv = 0; dv < size; dv++)
          for (let du = 0; du < size; du++) {
            const at = (c * x.h + v * size + dv) * x.w + u * size + du;
            if (x.data[at] > x.data[best] || Number.isNaN(x.data[at])) best = at;
          }
        y.data[k] = x.data[best];
        y.from[k] = best;
      }
  return y;
}

export function avgPool(x, size) {
  const h = Math.floor(x.h / size), w = Math.floor(x.w / size), y = zeros(x.c, h, w);
  for (let c = 0, k = 0; c < x.c; c++)
    for (let v = 0; v < h; v++)
      for (let u = 0; u < w; u++, k++) {
        let sum = 0;
        for (let dv = 0; dv < size; dv++)
          for (let du = 0; du < size; du++) sum += x.data[(c * x.h + v * size + dv) * x.w + u * size + du];
        y.data[k] = sum / size / size;
      }
  return y;
}

export function globalAverage(x) {
  const y = zeros(x.c, 1, 1), places = x.h * x.w;
  for (let c = 0; c < x.c; c++) {
    let sum = 0;
    for (let u = 0; u < places; u++) sum += x.data[c * places + u];
    y.data[c] = sum / places;
  }
  return y;
}

export function globalMax(x) {
  const y = zeros(x.c, 1, 1), places = x.h * x.w;
  y.from = new Int32Array(x.c);
  for (let c = 0; c < x.c; c++) {
    let best = c * places;
    for (let u = best; u < (c + 1) * places; u++) if (x.data[u] > x.data[best]) best = u;
    y.data[c] = x.data[best];
    y.from[c] = best;
  }
  return y;
}

export function linear(x, { out, weight, bias }) {
  const wide = x.data.length, y = zeros(out, 1, 1);
  for (let o = 0; o < out; o++) {
    let sum = bias ? bias[o] : 0;
    for (let i = 0; i < wide; i++) sum += weight[o * wide + i] * x.data[i];
    y.data[o] = sum;
  }
  return y;
}

const FORWARD = {
  conv: conv2d,
  wrap: (x, layer) => pad(x, [layer.pad, layer.pad, 0, 0], true),
  relu,
  maxpool: (x, layer) => maxPool(x, layer.size),
  avgpool: (x, layer) => avgPool(x, layer.size),
  gap: globalAverage,
  gmp: globalMax,
  flatten: (x) => maps(x.data, x.data.length, 1, 1),
  linear,
};

// What every layer makes of an image: a list of { layer, input, output }. `change[name]`, where there is one, is a
// function of what the layer called `name` gives; the layers behind it see what it returns.
export function forward(layers, x, change = {}) {
  const trace = [];
  for (const layer of layers) {
    let output = FORWARD[layer.type](x, layer);
    if (change[layer.name]) output = change[layer.name](output);
    trace.push({ layer, input: x, output });
    x = output;
  }
  return trace;
}

export const last = (trace) => trace[trace.length - 1].output;
export const after = (trace, name) => trace.find((step) => step.layer.name === name).output;

// ---- layers, backwards: the gradient at the input, from that at the output

function conv2dBack({ layer, input, output }, slope) {
  if (isPlain(layer) && Math.max(...layer.padding) < 3) {
    // The way back is a convolution too, with every kernel turned by 180 degrees and the channels exchanged.
    const { out, weight, padding: [above, beside] } = layer, turned = new Float32Array(weight.length);
    for (let o = 0; o < out; o++)
      for (let i = 0; i < input.c; i++)
        for (let t = 0; t < 9; t++) turned[(i * out + o) * 9 + 8 - t] = weight[(o * input.c + i) * 9 + t];
    return plainConv(slope, turned, null, input.c, [2 - above, 2 - beside]);
  }
  const { kernel: [kh, kw], out, weight, stride } = layer, taps = kh * kw, back = zeros(input.c, input.h, input.w);
  const runs = [];
  everyTap(layer, input, output.h, output.w, (tap, from, to, count) => runs.push(tap, from, to, count));
  for (let i = 0; i < input.c; i++) {
    const image = back.data.subarray(i * input.h * input.w, (i + 1) * input.h * input.w);
    for (let o = 0; o < out; o++) {
      const base = (o * input.c + i) * taps, plane = slope.data.subarray(o * output.h * output.w, (o + 1) * output.h * output.w);
      for (let r = 0; r < runs.length; r += 4) {
        const k = weight[base + runs[r]], from = runs[r + 1], to = runs[r + 2], count = runs[r + 3];
        for (let j = 0; j < count; j++) image[from + j * stride] += k * plane[to + j];
      }
    }
  }
  return back;
}

function wrapBack({ layer, input, output }, slope) {
  const back = zeros(input.c, input.h, input.w);
  for (let row = 0; row < input.c * input.h; row++)
    for (let u = 0; u < output.w; u++)
      back.data[row * input.w + ((u - layer.pad + input.w) % input.w)] += slope.data[row * output.w + u];
  return back;
}

function toWhereItCameFrom({ input, output }, slope) {
  const back = zeros(input.c, input.h, input.w);
  for (let k = 0; k < output.from.length; k++) back.data[output.from[k]] += slope.data[k];
  return back;
}

function avgPoolBack({ layer: { size }, input, output }, slope) {
  const back = zeros(input.c, input.h, input.w);
  for (let c = 0; c < input.c; c++)
    for (let v = 0; v < output.h * size; v++)
      for (let u = 0; u < output.w * size; u++)
        back.data[(c * input.h + v) * input.w + u] =
          slope.data[(c * output.h + Math.floor(v / size)) * output.w + Math.floor(u / size)] / size / size;
  return back;
}

function globalAverageBack({ input }, slope) {
  const places = input.h * input.w, back = zeros(input.c, input.h, input.w);
  for (let c = 0; c < input.c; c++) back.data.fill(slope.data[c] / places, c * places, (c + 1) * places);
  return back;
}

function linearBack({ layer, input }, slope) {
  const wide = input.data.length, back = zeros(input.c, input.h, input.w);
  for (let o = 0; o < layer.out; o++)
    for (let i = 0; i < wide; i++) back.data[i] += layer.weight[o * wide + i] * slope.data[o];
  return back;
}

const BACKWARD = {
  conv: conv2dBack,
  wrap: wrapBack,
  relu: ({ input }, slope) => maps(slope.data.map((value, i) => (input.data[i] > 0 ? value : 0)), input.c, input.h, input.w),
  maxpool: toWhereItCameFrom,
  avgpool: avgPoolBack,
  gap: globalAverageBack,
  gmp: toWhereItCameFrom,
  flatten: ({ input }, slope) => maps(slope.data, input.c, input.h, input.w),
  linear: linearBack,
};

// The gradients of sum(slope * output) at what every layer gives, a list as long as the trace.
export function slopes(trace, slope) {
  const all = Array(trace.length);
  for (let i = trace.length - 1; i >= 0; i--) {
    all[i] = slope;
    if (i) slope = BACKWARD[trace[i].layer.type](trace[i], slope);
  }
  return all;
}

// The same at the image.
export function backward(trace, slope) {
  return BACKWARD[trace[0].layer.type](trace[0], slopes(trace, slope)[0]);
}

export function oneHot(length, index) {
  const y = zeros(length, 1, 1);
  y.data[index] = 1;
  return y;
}

// ---- what is made of them

export function softmax(logits) {
  const top = Math.max(...logits), powers = Array.from(logits, (value) => Math.exp(value - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  if (!Number.isFinite(sum)) throw new Error("the network's scores are not numbers");
  return powers.map((value) => value / sum);
}

export const argmax = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

// A map at another size, bilinear, by the pixels' middles, as torch does it with align_corners=False.
export function resized(x, h, w) {
  const y = zeros(x.c, h, w);
  const taps = (length, wanted) => Array.from({ length: wanted }, (_, i) => {
    const at = Math.max(0, ((i + 0.5) * length) / wanted - 0.5), low = Math.min(Math.floor(at), length - 1);
    return [low, Math.min(low + 1, length - 1), at - low];
  });
  const rows = taps(x.h, h), columns = taps(x.w, w);
  for (let c = 0; c < x.c; c++)
    rows.forEach(([top, bottom, dv], v) => columns.forEach(([left, right, du], u) => {
      const at = (row, column) => x.data[(c * x.h + row) * x.w + column];
      const upper = at(top, left) * (1 - du) + at(top, right) * du;
      const lower = at(bottom, left) * (1 - du) + at(bottom, right) * du;
      y.data[(c * h + v) * w + u] = upper * (1 - dv) + lower * dv;
    }));
  return y;
}

// Channels added up with weights: the class activation map of the last feature maps.
export function weighed(x, weights) {
  const y = zeros(1, x.h, x.w), places = x.h * x.w;
  for (let c = 0; c < x.c; c++) for (let u = 0; u < places; u++) y.data[u] += weights[c] * x.data[c * places + u];
  return y;
}

// Maps without some of their channels: where `on` is 0.
export function someChannels(x, on) {
  const places = x.h * x.w;
  return maps(x.data.map((value, i) => value * on[Math.floor(i / places)]), x.c, x.h, x.w);
}

// Maps without some of their places: where `mask`, one number a place, is 0; all channels alike.
export function somePlaces(x, mask) {
  const places = x.h * x.w;
  return maps(x.data.map((value, i) => value * mask[i % places]), x.c, x.h, x.w);
}

// The connected regions of a mask, diagonal neighbours touching: lists of places, in the order of their first ones.
export function regions(mask, h, w) {
  const seen = new Uint8Array(mask.length), all = [];
  for (let start = 0; start < mask.length; start++) {
    if (seen[start] || !mask[start]) continue;
    const queue = [start];
    seen[start] = 1;
    for (let k = 0; k < queue.length; k++) {
      const y = Math.floor(queue[k] / w), x = queue[k] % w;
      for (let v = Math.max(0, y - 1); v <= Math.min(h - 1, y + 1); v++)
        for (let u = Math.max(0, x - 1); u <= Math.min(w - 1, x + 1); u++) {
          const at = v * w + u;
          if (!seen[at] && mask[at]) { seen[at] = 1; queue.push(at); }
        }
    }
    all.push(queue);
  }
  return all;
}

// x0, y0, x1, y1 around places, in pixel edges.
export function boxAround(places, w) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const at of places) {
    const y = Math.floor(at / w), x = at % w;
    box[0] = Math.min(box[0], x); box[1] = Math.min(box[1], y); box[2] = Math.max(box[2], x + 1); box[3] = Math.max(box[3], y + 1);
  }
  return box;
}

// An image as its network expects it, and back.
export const normalized = (x, mean, std) => perChannel(x, (value, c) => (value - mean[c]) / std[c]);
export const denormalized = (x, mean, std) => perChannel(x, (value, c) => value * std[c] + mean[c]);

function perChannel(x, change) {
  const places = x.h * x.w;
  return maps(x.data.map((value, i) => change(value, Math.floor(i / places))), x.c, x.h, x.w);
}

// One of several images of one size that were handed over in one array.
export function imageOf(all, index, colours) {
  const size = colours * all.h * all.w;
  return maps(all.data.subarray(index * size, (index + 1) * size), colours, all.h, all.w);
}

// A round spot of a pen in a sheet of one channel, in place; x and y in pixels.
export function stroke(ink, x, y, radius = 1.7) {
  for (let v = 0; v < ink.h; v++)
    for (let u = 0; u < ink.w; u++) {
      const dark = radius - Math.hypot(u + 0.5 - x, v + 0.5 - y), at = v * ink.w + u;
      ink.data[at] = Math.max(ink.data[at], Math.min(1, Math.max(0, dark)));
    }
}
