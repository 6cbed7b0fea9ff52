// From the pixels of a photo to the tensor of the network, and from its logits to classes, with the numbers of edgeseg
// in Python. Needs no browser.

const BITS = 22; // of the fixed-point weights with which Pillow resizes

/** The integer nearest to a number; of two the even one, as Python rounds. */
function rounded(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}

/** Height and width that a photo has at the input of the network. */
export function inputSize([height, width], { size, keep_aspect }) {
  if (!keep_aspect) return size;
  const scale = Math.sqrt((size[0] * size[1]) / (height * width));
  return [height, width].map((length) => Math.max(rounded(length * scale), 1));
}

/** Per pixel of a resized line, the first pixel of the source that it is a mean of, and the weights from there on. */
function antialiased(source, length) {
  const scale = source / length;
  const reach = Math.max(scale, 1);
  return Array.from({ length }, (_, i) => {
    const center = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(center - reach + 0.5), 0);
    const end = Math.min(Math.trunc(center + reach + 0.5), source);
    const weights = [];
    for (let k = first; k < end; k++) weights.push(Math.max(1 - Math.abs((k - center + 0.5) * (1 / reach)), 0));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((weight) => Math.trunc(0.5 + (weight / sum) * (1 << BITS))) };
  });
}

/**
 * Resizes a photo, antialiased bilinear, as Pillow does: first along the width, then along the height.
 *
 * @param {Uint8ClampedArray} pixels RGBA, [height, width, 4]
 * @returns {Uint8ClampedArray} RGB, [h, w, 3]
 */
export function resized(pixels, [height, width], [h, w]) {
  const narrow = new Uint8ClampedArray(height * w * 3);
  const columns = antialiased(width, w);
  for (let y = 0, to = 0; y < height; y++) {
    for (const { first, weights } of columns) {
      let red = 1 << (BITS - 1);
      let green = red;
      let blue = red;
      for (let k = 0, from = (y * width + first) * 4; k < weights.length; k++, from += 4) {
        red += weights[k] * pixels[from];
        green += weights[k] * pixels[from + 1];
        blue += weights[k] * pixels[from + 2];
      }
      narrow[to++] = red >> BITS;
      narrow[to++] = green >> BITS;
      narrow[to++] = blue >> BITS;
    }
  }
  const small = new Uint8ClampedArray(h * w * 3);
  const sums = new Int32Array(w * 3);
  antialiased(height, h).forEach(({ first, weights }, y) => {
    sums.fill(1 << (BITS - 1));
    for (let k = 0; k < weights.length; k++) {
      for (let i = 0, from = (first + k) * sums.length; i < sums.length; i++) sums[i] += weights[k] * narrow[from + i];
    }
    for (let i = 0; i < sums.length; i++) small[y * sums.length + i] = sums[i] >> BITS;
  });
  return small;
}

/** Normalizes pixels RGB [h, w, 3] to a tensor float32 [1, 3, h, w] in the channel order of the weights. */
export function normalized(pixels, { mean, std, channel_order }) {
  const count = pixels.length / 3;
  const tensor = new Float32Array(pixels.length);
  for (let channel = 0; channel < 3; channel++) {
    const [m, s] = [mean, std].map((values) => Math.fround(values[values.length === 1 ? 0 : channel]));
    const steps = Float32Array.from({ length: 256 }, (_, pixel) => Math.fround(pixel - m) / s);
    const from = channel_order === "bgr" ? 2 - channel : channel;
    for (let i = 0; i < count; i++) tensor[channel * count + i] = steps[pixels[i * 3 + from]];
  }
  return tensor;
}

/** Per pixel of a line of this length, the source's pixels before and after it, and the weight of the latter. */
function between(length, source) {
  const line = { before: new Int32Array(length), after: new Int32Array(length), weight: new Float32Array(length) };
  for (let i = 0; i < length; i++) {
    const place = Math.fround(Math.fround((i + 0.5) * Math.fround(source / length)) - 0.5);
    const before = Math.floor(place);
    line.before[i] = Math.max(before, 0);
    line.after[i] = Math.min(before + 1, source - 1);
    line.weight[i] = place - before;
  }
  return line;
}

/**
 * The class of each pixel of a photo: the highest of the logits, resized bilinearly with half-pixel centres.
 *
 * @param {Float32Array} logits [classes, h, w]
 * @param {?number} limit the logit above which a pixel belongs to the class of interest, if there is one logit only
 * @returns {Uint8Array|Uint16Array} class ids [height, width]; of equal values the first class
 */
export function classesOf(logits, [count, h, w], [height, width], limit = null) {
  const classes = limit === null ? count : 2;
  const values = new Float32Array(h * w * classes); // [h, w, classes]
  const best = new Uint16Array(h * w);
  for (let i = 0; i < h * w; i++) {
    const start = i * classes;
    if (limit !== null) values[start + 1] = logits[i] - limit;
    else for (let k = 0; k < classes; k++) values[start + k] = logits[k * h * w + i];
    for (let k = 1; k < classes; k++) if (values[start + k] > values[start + best[i]]) best[i] = k;
  }
  const ids = new (classes > 256 ? Uint16Array : Uint8Array)(height * width);
  const [rows, columns] = [between(height, h), between(width, w)];
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to++) {
      const a = rows.before[y] * w + columns.before[x];
      const b = rows.before[y] * w + columns.after[x];
      const c = rows.after[y] * w + columns.before[x];
      const d = rows.after[y] * w + columns.after[x];
      // Where the corners agree, no mean of them has another class.
      ids[to] = best[a];
      if (best[a] !== best[b] || best[a] !== best[c] || best[a] !== best[d]) {
        ids[to] = highest(values, classes, a, b, c, d, columns.weight[x], rows.weight[y]);
      }
    }
  }
  return ids;
}

function highest(values, classes, a, b, c, d, across, down) {
  let id = 0;
  let top = -Infinity;
  for (let k = 0; k < classes; k++) {
    const upper = (1 - across) * values[a * classes + k] + across * values[b * classes + k];
    const lower = (1 - across) * values[c * classes + k] + across * values[d * classes + k];
    const value = (1 - down) * upper + down * lower;
    if (value > top) {
      top = value;
      id = k;
    }
  }
  return id;
}

/** The colours of class ids, RGBA. */
export function colored(ids, palette) {
  const whole = Uint32Array.from(palette, (color) => new Uint32Array(Uint8Array.of(...color, 255).buffer)[0]);
  const colors = new Uint32Array(ids.length);
  for (let i = 0; i < ids.length; i++) colors[i] = whole[ids[i]];
  return new Uint8ClampedArray(colors.buffer);
}

/** The classes that occur, with their share of the pixels, the largest first. */
export function shares(ids, classes) {
  const counts = new Array(classes).fill(0);
  for (const id of ids) counts[id]++;
  return counts
    .map((count, id) => ({ id, share: count / ids.length }))
    .filter(({ share }) => share > 0)
    .sort((a, b) => b.share - a.share);
}
