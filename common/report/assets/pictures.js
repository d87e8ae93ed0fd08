"use strict";
// The page's program. Data and pictures are in the file; the server of --serve sends pictures when they are looked at.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const runs = data.runs, labels = data.labels, images = data.images;
const isSeed = runs.map((run) => run.task === "cam");
const state = { threshold: 0, view: "prediction:0", blink: "", opacity: 0.7, off: new Set(), open: -1, swapped: false };

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value; else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}
function drawing(tag, attributes = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
const rgb = (label) => `rgb(${data.colours[label].join(",")})`;
const percent = (value, digits = 1) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const entryText = (entry) => entry ? percent(entry.value) + (entry.interval && entry.interval[0] !== null ? ` [${percent(entry.interval[0])}, ${percent(entry.interval[1])}]` : "") : "–";
const pattern = (label) => {  // tells classes apart without colour
  const angle = [0, 45, 90, 135][label % 4], gap = 4 + 3 * (Math.floor(label / 4) % 3);
  return `repeating-linear-gradient(${angle}deg, #0006 0 1px, transparent 1px ${gap}px), ${rgb(label)}`;
};

// Colours of CAMs: viridis, whose lightness grows evenly with the value
const STOPS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
const HEAT = Array.from({ length: 256 }, (_, value) => {
  const place = (value / 255) * (STOPS.length - 1), low = Math.min(Math.floor(place), STOPS.length - 2), part = place - low;
  return STOPS[low].map((channel, index) => Math.round(channel + part * (STOPS[low + 1][index] - channel)));
});

// Pictures: decoded once, when an image is looked at for the first time

const little = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
const packed = (r, g, b, a) => (little ? ((a << 24) | (b << 16) | (g << 8) | r) >>> 0 : ((r << 24) | (g << 16) | (b << 8) | a) >>> 0);
const palette = Uint32Array.from(data.colours, ([r, g, b], label) => (label === 0 ? packed(0, 0, 0, 90) : packed(r, g, b, 255)));

function decode(uri) {
  return new Promise((resolve, reject) => {
    const picture = new Image();
    picture.onload = () => {
      const canvas = element("canvas", { width: picture.naturalWidth, height: picture.naturalHeight });
      const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
      context.drawImage(picture, 0, 0);
      resolve(context.getImageData(0, 0, canvas.width, canvas.height));
    };
    picture.onerror = () => reject(new Error("a picture of the page is damaged"));
    picture.src = uri;
  });
}
function plane(pixels, channel) {
  const values = new Uint8Array(pixels.width * pixels.height);
  for (let i = 0; i < values.length; i++) values[i] = pixels.data[4 * i + channel];
  return values;
}
const KEPT = 150;  // decoded images in memory; those that were looked at longest ago are decoded again when they are needed
const decoded = new Set();
async function load(index) {
  const image = images[index];
  decoded.delete(index);
  decoded.add(index);
  if (!image.loading) image.loading = (async () => {
    if (!image.photo) Object.assign(image, await (await fetch(`image/${index}`)).json(), { isFetched: true });
    if (image.error) throw new Error(image.error);
    image.truthLabels = image.truth ? plane(await decode(image.truth), 1) : null;
    for (const run of image.runs) {
      const pixels = await decode(run.map);
      run.number = plane(pixels, 0);
      run.label = plane(pixels, 1);
      for (const cam of run.cams) cam.pixels = await decode(cam.map);
    }
    image.ready = true;
  })();
  await image.loading;
  for (const other of decoded) {
    if (decoded.size <= KEPT) break;
    if (!near.has(other) && other !== state.open && images[other].ready) release(other);
  }
  return image;
}
function release(index) {
  const image = images[index], own = cards.get(index);
  decoded.delete(index);
  image.ready = false; image.loading = null; image.truthLabels = null;
  for (const run of image.runs) { run.number = run.label = run.small = null; for (const cam of run.cams) cam.pixels = null; }
  if (own) { const canvas = own.querySelector("canvas"); canvas.width = canvas.height = 1; canvas.made = null; }
  if (!image.isFetched) return;
  image.photo = image.truth = image.runs = null;
  if (own) own.querySelector("img").removeAttribute("src");
}

// Labels of a run at the present threshold: foreground where more thresholds lie below the value than come before it
function labelsOf(image, run, threshold = state.threshold) {
  const own = image.runs[run];
  if (!isSeed[run]) return own.label;
  const found = new Uint8Array(own.label.length);
  for (let i = 0; i < found.length; i++) found[i] = own.number[i] > threshold ? own.label[i] : 0;
  return found;
}

// Every step-th pixel of every step-th row, as much as a small card can show; a large image has them all
function sampled(values, image, step) {
  if (step === 1) return values;
  const width = Math.ceil(image.width / step), height = Math.ceil(image.height / step), found = new Uint8Array(width * height);
  for (let y = 0, place = 0; y < height; y++) for (let x = 0, from = y * step * image.width; x < width; x++, from += step) found[place++] = values[from];
  return found;
}
function seedOf(own, image, step) {
  if (!own.small || own.small.step !== step) own.small = { step, number: sampled(own.number, image, step), label: sampled(own.label, image, step) };
  return own.small;
}
function paint(canvas, image, view, step = 1) {
  const [kind, text] = view.split(":"), run = Number(text || 0);
  const context = canvas.getContext("2d");
  if (kind === "image" || (kind === "truth" && !image.truthLabels)) { canvas.width = 1; canvas.height = 1; canvas.made = null; context.clearRect(0, 0, 1, 1); return; }
  if (kind === "cam") { paintCam(canvas, image, run); return; }
  const width = Math.ceil(image.width / step), height = Math.ceil(image.height / step);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; canvas.made = null; }
  canvas.made ||= context.createImageData(width, height);
  const made = canvas.made, out = new Uint32Array(made.data.buffer);
  const off = state.off;
  if (kind === "truth") {
    const truth = sampled(image.truthLabels, image, step);
    for (let i = 0; i < out.length; i++) out[i] = off.size && off.has(truth[i]) ? 0 : palette[truth[i]];
  } else if (kind === "errors") {
    const found = sampled(labelsOf(image, run), image, step), truth = image.truthLabels && sampled(image.truthLabels, image, step);
    const missed = packed(60, 120, 255, 235), extra = packed(255, 90, 40, 235), mixed = packed(255, 220, 0, 235), right = packed(0, 0, 0, 60);
    if (!truth) out.fill(0);
    for (let i = 0; i < out.length && truth; i++) {
      if (truth[i] === 255) out[i] = 0;
      else if (truth[i] === found[i]) out[i] = right;
      else out[i] = found[i] === 0 ? missed : truth[i] === 0 ? extra : mixed;
    }
  } else {
    const { label, number } = seedOf(image.runs[run], image, step), threshold = state.threshold, seed = isSeed[run];
    const colours = off.size ? palette.map((colour, index) => (off.has(index) ? 0 : colour)) : palette, none = colours[0];
    if (seed) for (let i = 0; i < out.length; i++) out[i] = number[i] > threshold ? colours[label[i]] : none;
    else for (let i = 0; i < out.length; i++) out[i] = colours[label[i]];
  }
  context.putImageData(made, 0, 0);
}
function paintCam(canvas, image, run) {
  const context = canvas.getContext("2d"), cams = image.runs[run].cams.filter((cam) => !state.off.has(cam.label));
  const size = cams.length ? cams[0].pixels : { width: 1, height: 1 };
  canvas.width = size.width; canvas.height = size.height; canvas.made = null;
  if (!cams.length) return;
  const made = context.createImageData(size.width, size.height);
  for (let i = 0; i < size.width * size.height; i++) {
    let value = 0;
    for (const cam of cams) value = Math.max(value, cam.pixels.data[4 * i]);
    const [r, g, b] = HEAT[value];
    made.data.set([r, g, b, 255], 4 * i);
  }
  context.putImageData(made, 0, 0);
}
