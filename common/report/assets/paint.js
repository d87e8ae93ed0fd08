// Labels, errors and CAMs on a canvas over the photograph

// Colours of CAMs: viridis, whose lightness grows evenly with the value
const STOPS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
const little = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
const pixel = (r, g, b, a) => (little ? ((a << 24) | (b << 16) | (g << 8) | r) >>> 0 : ((r << 24) | (g << 16) | (b << 8) | a) >>> 0);
const HEAT = Uint32Array.from({ length: 256 }, (_, value) => {
  const place = (value / 255) * (STOPS.length - 1), low = Math.min(Math.floor(place), STOPS.length - 2), part = place - low;
  return pixel(...STOPS[low].map((channel, index) => Math.round(channel + part * (STOPS[low + 1][index] - channel))), 255);
});
const palette = Uint32Array.from(data.colours, ([r, g, b], label) => (label === 0 ? pixel(0, 0, 0, 90) : pixel(r, g, b, 255)));
const ERRORS = { missed: [60, 120, 255], extra: [255, 90, 40], "another class": [255, 220, 0] };
const [MISSED, EXTRA, MIXED] = Object.values(ERRORS).map((colour) => pixel(...colour, 235)), RIGHT = pixel(0, 0, 0, 60), OUTSIDE = pixel(0, 0, 0, 150);

// Labels of a run at the present threshold: foreground where more thresholds lie below the value than come before it
function labelsOf(image, run, threshold = state.threshold) {
  const { numbers, labels: found } = image.runs[run];
  return isSeed[run] ? found.map((label, i) => (numbers[i] > threshold ? label : 0)) : found;
}

// Every step-th pixel of every step-th row, as much as a small card can show; a large image has them all
function sampled(values, image, step) {
  if (step === 1) return values;
  const width = Math.ceil(image.width / step), height = Math.ceil(image.height / step), found = new Uint8Array(width * height);
  for (let y = 0, place = 0; y < height; y++) for (let x = 0, from = y * step * image.width; x < width; x++, from += step) found[place++] = values[from];
  return found;
}
function seedOf(own, image, step) {
  if (!own.small || own.small.step !== step) own.small = { step, numbers: own.numbers && sampled(own.numbers, image, step), labels: sampled(own.labels, image, step) };
  return own.small;
}
function prepared(canvas, width, height) {
  const context = canvas.getContext("2d");
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; canvas.made = null; }
  canvas.made ||= context.createImageData(width, height);
  return { out: new Uint32Array(canvas.made.data.buffer), done: () => context.putImageData(canvas.made, 0, 0) };
}

// A view is a kind, and, after colons, a run and a class: "image", "truth", "prediction:0", "cam:0", "cam:0:3", "region:1"
function paint(canvas, image, view, step = 1) {
  const [kind, run = 0, label] = view.split(":").map((part, place) => (place ? Number(part) : part));
  if (kind === "image" || (kind === "truth" && !image.truthLabels)) { canvas.width = canvas.height = 0; canvas.made = null; return; }
  if (isBox) { paintMap(canvas, image, kind, image.runs[run]); return; }
  if (kind === "cam") { paintCams(canvas, image.runs[run].cams.filter((cam) => (label === undefined ? !state.off.has(cam.label) : cam.label === label))); return; }
  const { out, done } = prepared(canvas, Math.ceil(image.width / step), Math.ceil(image.height / step));
  const colours = state.off.size ? palette.map((colour, index) => (state.off.has(index) ? 0 : colour)) : palette, none = colours[0];
  if (kind === "truth") {
    const truth = sampled(image.truthLabels, image, step);
    for (let i = 0; i < out.length; i++) out[i] = colours[truth[i]];
  } else if (kind === "errors") {
    const found = sampled(labelsOf(image, run), image, step), truth = image.truthLabels && sampled(image.truthLabels, image, step);
    for (let i = 0; i < out.length; i++) {
      if (!truth || truth[i] === 255) out[i] = 0;
      else if (truth[i] === found[i]) out[i] = RIGHT;
      else out[i] = found[i] === 0 ? MISSED : truth[i] === 0 ? EXTRA : MIXED;
    }
  } else {
    const { labels: found, numbers } = seedOf(image.runs[run], image, step), threshold = state.threshold;
    if (isSeed[run]) for (let i = 0; i < out.length; i++) out[i] = numbers[i] > threshold ? colours[found[i]] : none;
    else for (let i = 0; i < out.length; i++) out[i] = colours[found[i]];
  }
  done();
}
function paintCams(canvas, cams) {
  if (!cams.length) { canvas.width = canvas.height = 0; canvas.made = null; return; }
  const { width, height } = cams[0].pixels, { out, done } = prepared(canvas, width, height);
  for (let i = 0; i < out.length; i++) {
    let value = 0;
    for (const cam of cams) value = Math.max(value, cam.pixels.values[i]);
    out[i] = HEAT[value];
  }
  done();
}
// The map of a localisation: all values, or what lies outside darkened
function paintMap(canvas, image, kind, { numbers }) {
  const { out, done } = prepared(canvas, image.side, image.side), scale = 255 / data.thresholds.length;
  for (let i = 0; i < out.length; i++) out[i] = kind === "cam" ? HEAT[Math.round(numbers[i] * scale)] : numbers[i] > state.threshold ? 0 : OUTSIDE;
  done();
}
