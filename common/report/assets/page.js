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
async function load(index) {
  const image = images[index];
  if (!image.loading) image.loading = (async () => {
    if (!image.photo) Object.assign(image, await (await fetch(`image/${index}`)).json());
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
  return image;
}

// Labels of a run at the present threshold: foreground where more thresholds lie below the value than come before it
function labelsOf(image, run, threshold = state.threshold) {
  const own = image.runs[run];
  if (!isSeed[run]) return own.label;
  const found = new Uint8Array(own.label.length);
  for (let i = 0; i < found.length; i++) found[i] = own.number[i] > threshold ? own.label[i] : 0;
  return found;
}

function paint(canvas, image, view) {
  const [kind, text] = view.split(":"), run = Number(text || 0);
  const context = canvas.getContext("2d");
  if (kind === "image" || (kind === "truth" && !image.truthLabels)) { canvas.width = 1; canvas.height = 1; context.clearRect(0, 0, 1, 1); return; }
  if (kind === "cam") { paintCam(canvas, image, run); return; }
  if (canvas.width !== image.width || canvas.height !== image.height) { canvas.width = image.width; canvas.height = image.height; }
  const made = context.createImageData(image.width, image.height), out = new Uint32Array(made.data.buffer);
  const off = state.off;
  if (kind === "truth") {
    const truth = image.truthLabels;
    for (let i = 0; i < out.length; i++) out[i] = off.size && off.has(truth[i]) ? 0 : palette[truth[i]];
  } else if (kind === "errors") {
    const found = labelsOf(image, run), truth = image.truthLabels;
    const missed = packed(60, 120, 255, 235), extra = packed(255, 90, 40, 235), mixed = packed(255, 220, 0, 235), right = packed(0, 0, 0, 60);
    for (let i = 0; i < out.length && truth; i++) {
      if (truth[i] === 255) out[i] = 0;
      else if (truth[i] === found[i]) out[i] = right;
      else out[i] = found[i] === 0 ? missed : truth[i] === 0 ? extra : mixed;
    }
  } else {
    const own = image.runs[run], label = own.label, number = own.number, threshold = state.threshold, seed = isSeed[run];
    const colours = off.size ? palette.map((colour, index) => (off.has(index) ? 0 : colour)) : palette, none = colours[0];
    if (seed) for (let i = 0; i < out.length; i++) out[i] = number[i] > threshold ? colours[label[i]] : none;
    else for (let i = 0; i < out.length; i++) out[i] = colours[label[i]];
  }
  context.putImageData(made, 0, 0);
}
function paintCam(canvas, image, run) {
  const context = canvas.getContext("2d"), cams = image.runs[run].cams.filter((cam) => !state.off.has(cam.label));
  const size = cams.length ? cams[0].pixels : { width: 1, height: 1 };
  canvas.width = size.width; canvas.height = size.height;
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

// Gallery

const views = [["image", "image alone"]];
runs.forEach((run, index) => {
  const name = runs.length > 1 ? ` of ${run.title}` : "";
  views.unshift([`prediction:${index}`, (isSeed[index] ? "seed at the threshold" : "prediction") + name]);
  if (isSeed[index]) views.push([`cam:${index}`, `CAMs${name}`]);
  if (run.means) views.push([`errors:${index}`, `errors${name}`]);
});
if (runs[0].means) views.push(["truth", "true mask"]);
views.sort((a, b) => (a[0] === "prediction:0" ? -1 : b[0] === "prediction:0" ? 1 : 0));

const cards = new Map();
const visible = new Set();
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const index = Number(entry.target.dataset.index);
    if (entry.isIntersecting) { visible.add(index); show(index); } else visible.delete(index);
  }
}, { rootMargin: "200px" });

function card(index) {
  if (cards.has(index)) return cards.get(index);
  const image = images[index], score = image.scores[0] || {};
  const notes = score.iou === undefined ? "" : ` IoU ${percent(score.iou)}, missed ${percent(score.missed)}, extra ${percent(score.extra)}`;
  const stack = element("div", { class: "stack" }, element("img", { alt: image.id, loading: "lazy" }), element("canvas"));
  const made = element("article", { class: "card", tabindex: "0", "data-index": index, onclick: () => openViewer(index),
    onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); openViewer(index); } } },
    stack, element("p", {}, element("b", { text: image.id }), notes));
  stack.addEventListener("mousemove", (event) => hover(event, index));
  stack.addEventListener("mouseleave", () => { at("hover").textContent = ""; });
  cards.set(index, made);
  watcher.observe(made);
  return made;
}
async function show(index) {
  const own = cards.get(index);
  try {
    const image = await load(index);
    const picture = own.querySelector("img");
    if (!picture.src) { picture.width = image.width; picture.height = image.height; picture.src = image.photo; }
    redraw(index);
  } catch (error) { own.querySelector("p").textContent = `${images[index].id}: ${error.message}`; }
}
function redraw(index) {
  const image = images[index], own = cards.get(index);
  if (!image.ready || !own) return;
  const canvas = own.querySelector("canvas"), view = state.swapped && state.blink ? state.blink : state.view;
  canvas.style.opacity = state.opacity;
  paint(canvas, image, view);
}
let waiting = false;
function redrawAll() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; visible.forEach(redraw); if (state.open >= 0) fillViewer(); });
}
function hover(event, index) {
  const image = images[index];
  if (!image.ready) return;
  const box = event.currentTarget.getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * image.width), y = Math.floor(((event.clientY - box.top) / box.height) * image.height);
  const place = y * image.width + x;
  if (!(place >= 0 && place < image.width * image.height)) return;
  const parts = runs.map((run, number) => { const found = labelsAt(image, number, place); return `${runs.length > 1 ? run.title + ": " : ""}${labels[found] ?? "ignored"}`; });
  if (image.truthLabels) parts.push(`true: ${labels[image.truthLabels[place]] ?? "ignored"}`);
  at("hover").textContent = parts.join(" · ");
}
const labelsAt = (image, run, place) => (isSeed[run] && image.runs[run].number[place] <= state.threshold ? 0 : image.runs[run].label[place]);

const orders = { list: ["list order", () => 0] };
if (runs[0].means) {
  Object.assign(orders, {
    worst: ["worst IoU first", (a, b) => a.scores[0].iou - b.scores[0].iou], best: ["best IoU first", (a, b) => b.scores[0].iou - a.scores[0].iou],
    extra: ["most extra pixels first", (a, b) => b.scores[0].extra - a.scores[0].extra], missed: ["most missed pixels first", (a, b) => b.scores[0].missed - a.scores[0].missed],
  });
  const change = (image) => Math.abs(image.scores[1].iou - image.scores[0].iou);
  if (runs.length > 1 && runs[1].means) orders.changed = ["most changed first", (a, b) => change(b) - change(a)];
}
let order = images.map((_, index) => index);
function arrange() {
  const compare = (orders[at("sort").value] || orders.list)[1], wanted = at("filter").value, text = at("find").value.trim().toLowerCase();
  order = images.map((_, index) => index).filter((index) => {
    const image = images[index], has = (image.scores[0] || {}).labels || (image.runs ? image.runs[0].cams.map((cam) => cam.label) : []);
    return (!wanted || has.includes(Number(wanted))) && image.id.toLowerCase().includes(text);
  });
  order.sort((a, b) => compare(images[a], images[b]) || a - b);
  at("grid").replaceChildren(...order.map(card));
  at("count").textContent = `${order.length} of the ${images.length} images on this page` + (data.total > images.length ? `; the list has ${data.total}` : "");
}

// One image, large

function openViewer(index) {
  state.open = index;
  history.replaceState(null, "", `#image=${encodeURIComponent(images[index].id)}`);
  const viewer = at("viewer");
  if (!viewer.open) viewer.showModal();
  fillViewer();
}
async function fillViewer() {
  const index = state.open, viewer = at("viewer"), image = await load(index);
  if (state.open !== index) return;
  const shown = [["image", "image"], ...(image.truthLabels ? [["truth", "true mask"]] : [])];
  runs.forEach((run, number) => {
    shown.push(...views.filter(([view]) => view.endsWith(`:${number}`) && !view.startsWith("cam")));
    if (isSeed[number]) image.runs[number].cams.forEach((cam) => shown.push([`cam:${number}:${cam.label}`, `CAM ${labels[cam.label]}${runs.length > 1 ? " of " + run.title : ""}`]));
  });
  const score = image.scores[0] || {}, names = (score.labels || []).map((label) => labels[label]).join(", ");
  const figures = shown.map(([view, title]) => {
    const stack = element("div", { class: "stack" }, element("img", { src: image.photo, alt: "", width: image.width, height: image.height }), element("canvas"));
    stack.addEventListener("mousemove", (event) => hover(event, index));
    const canvas = stack.querySelector("canvas");
    canvas.style.opacity = state.opacity;
    const [kind, run, label] = view.split(":");
    if (kind === "cam") { const before = state.off; state.off = new Set(labels.map((_, other) => other).filter((other) => other !== Number(label))); paint(canvas, image, `cam:${run}`); state.off = before; }
    else paint(canvas, image, view);
    return element("figure", {}, stack, element("figcaption", { text: title }));
  });
  viewer.replaceChildren(
    element("p", {}, element("b", { text: image.id }), ` ${names}${score.iou === undefined ? "" : `, IoU ${percent(score.iou)}`} `,
      element("button", { type: "button", text: "‹ previous", onclick: () => step(-1) }), " ", element("button", { type: "button", text: "next ›", onclick: () => step(1) }), " ",
      element("button", { type: "button", text: "close", onclick: () => viewer.close() })),
    element("div", { class: "panels" }, ...figures));
}
function step(by) {
  const place = order.indexOf(state.open) + by;
  if (place >= 0 && place < order.length) openViewer(order[place]);
}
at("viewer").addEventListener("close", () => { state.open = -1; history.replaceState(null, "", location.pathname + location.search); });
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=search], select")) return;
  if (state.open >= 0 && (event.key === "ArrowRight" || event.key === "ArrowLeft") && !event.target.matches("input")) { event.preventDefault(); step(event.key === "ArrowRight" ? 1 : -1); }
  else if (event.key === "+" || event.key === "-") setThreshold(state.threshold + (event.key === "+" ? 1 : -1));
  else if (event.key === "b") { state.swapped = !state.swapped; redrawAll(); }
});
function followHash() {
  const match = /^#image=(.*)$/.exec(location.hash);
  const index = match ? images.findIndex((image) => image.id === decodeURIComponent(match[1])) : -1;
  if (index >= 0) openViewer(index);
}

// Tools

function setThreshold(index) {
  if (!data.thresholds) return;
  state.threshold = Math.max(0, Math.min(data.thresholds.length - 1, index));
  at("threshold").value = state.threshold;
  const curve = runs[0].curve, score = curve ? `, mIoU ${percent(curve[state.threshold], 2)}` : "";
  at("threshold-value").textContent = `${data.thresholds[state.threshold].toFixed(2)}${score}`;
  const mark = at("curve").querySelector(".here");
  if (mark) { const x = 4 + (state.threshold / (data.thresholds.length - 1)) * 172; mark.setAttribute("x1", x); mark.setAttribute("x2", x); }
  redrawAll();
}
function tools() {
  const fill = (id, pairs) => at(id).replaceChildren(...pairs.map(([value, text]) => element("option", { value, text })));
  fill("view", views);
  fill("blink", [["", "nothing"], ...views]);
  fill("sort", Object.entries(orders).map(([value, [text]]) => [value, text]));
  fill("filter", [["", "all"], ...labels.map((name, label) => [label, name]).slice(1)]);
  at("view").value = state.view;
  at("view").onchange = () => { state.view = at("view").value; redrawAll(); };
  at("blink").onchange = () => { state.blink = at("blink").value; state.swapped = false; redrawAll(); };
  setInterval(() => { if (state.blink) { state.swapped = !state.swapped; redrawAll(); } }, 700);
  at("opacity").oninput = () => { state.opacity = at("opacity").value / 100; redrawAll(); };
  for (const id of ["sort", "filter"]) at(id).onchange = arrange;
  at("find").oninput = arrange;
  at("legend").replaceChildren(...labels.map((name, label) => element("label", { title: name },
    element("input", { type: "checkbox", checked: true, onchange: (event) => { if (event.target.checked) state.off.delete(label); else state.off.add(label); redrawAll(); } }),
    element("span", { class: "swatch", style: `background:${pattern(label)}` }), name)));
  if (data.thresholds) {
    at("threshold").max = data.thresholds.length - 1;
    at("threshold").oninput = () => setThreshold(Number(at("threshold").value));
    if (runs[0].curve) drawCurve();
    const start = runs[0].threshold ?? 0.4;
    let nearest = 0;
    data.thresholds.forEach((value, index) => { if (Math.abs(value - start) < Math.abs(data.thresholds[nearest] - start)) nearest = index; });
    setThreshold(nearest);
  } else { at("threshold-tool").hidden = true; at("curve").style.display = "none"; }
  at("theme").onclick = () => {
    const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  };
}
function drawCurve() {
  const svg = at("curve"), values = runs[0].curve, top = Math.max(...values), low = Math.min(...values);
  svg.setAttribute("viewBox", "0 0 180 44");
  const points = values.map((value, index) => `${(4 + (index / (values.length - 1)) * 172).toFixed(1)},${(40 - ((value - low) / (top - low || 1)) * 36).toFixed(1)}`);
  svg.replaceChildren(drawing("polyline", { class: "data", points: points.join(" ") }), drawing("line", { class: "here", y1: 2, y2: 42 }));
}

// Summary, classes, training, comparison, about

function table(head, rows) {
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { text })))),
    element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) => (cell instanceof Node ? element("td", {}, cell) : element("td", { class: /^[-+–\d]/.test(String(cell)) ? "n" : "", text: cell }))))))));
}
function summary() {
  const run = runs[0];
  document.title = `${run.title}: report`;
  at("title").textContent = `${run.title}${run.method ? ": " + run.method : ""}, ${isSeed[0] ? "seeds" : "masks"} of ${run.list}`;
  const boxes = runs.filter((own) => own.means).map((own) => [`mIoU${runs.length > 1 ? " of " + own.title : ""}, ${own.images} images${own.threshold === null || own.threshold === undefined ? "" : ", threshold " + own.threshold.toFixed(2)}`, own.means.mIoU]);
  const others = run.means ? Object.entries(run.means).filter(([name]) => !name.startsWith("mIoU")) : [];
  at("numbers").replaceChildren(
    ...boxes.map(([text, entry]) => element("div", { class: "number" }, element("b", { text: percent(entry.value) }), element("span", { text: `${text}; 95 % interval ${percent(entry.interval[0])} to ${percent(entry.interval[1])}` }))),
    ...Object.entries(run.trivial || {}).map(([name, value]) => element("div", { class: "number" }, element("b", { text: percent(value) }), element("span", { text: `mIoU of a trivial prediction: ${name}` }))),
    ...others.map(([name, entry]) => element("div", { class: "number" }, element("b", { text: percent(entry.value) }), element("span", { text: name.replaceAll("_", " ") }))),
    ...(run.published || []).slice(0, 6).map((row) => element("div", { class: "number" }, element("b", { text: percent(row.value) }), element("span", { text: `published: ${row.what}` }))));
  at("strip").replaceChildren(...run.strip.map((strip) => element("div", { class: "strip" }, ...strip.stages.flatMap((stage, index) => [
    ...(index ? ["→"] : []), element("div", { text: `${stage.title} (${stage.list}): ${percent(stage.mIoU)}` })]))));
  const notes = (run.warnings || []).map((text) => element("p", { class: "warn", text: `⚠ ${text}` }));
  if (!run.means) notes.push(element("p", { text: "There are no true masks: the page shows images and predictions alone." }));
  at("notes").replaceChildren(...notes);
}
function bar(entry, label) {
  if (!entry || entry.value === null) return "–";
  const own = element("div", { class: "bar", title: entryText(entry) }, element("i", { style: `width:${entry.value}%;background:${pattern(label)}` }));
  if (entry.interval && entry.interval[0] !== null) own.append(element("u", { style: `left:${entry.interval[0]}%;width:${Math.max(entry.interval[1] - entry.interval[0], 0.5)}%` }));
  return own;
}
function classes() {
  const run = runs[0];
  if (!run.classes) { at("classes").hidden = true; return; }
  const rows = run.classes.map((row, label) => [row.name, bar(row.IoU, label), entryText(row.IoU), entryText(row.precision), entryText(row.recall), row.oracle === null || row.oracle === undefined ? "–" : row.oracle.toFixed(2)]);
  at("class-table").replaceChildren(table(["class", "IoU with its 95 % interval", "IoU", "precision", "recall", "best threshold by the masks"], rows));
  const pairs = (run.together || []).slice(0, 20).map((row) => [labels[row.truth], labels[row.predicted], percent(row.share, 2), percent(row.together)]);
  at("confusions").replaceChildren(element("h2", { text: "What a class is confused with" }), table(["pixels of", "predicted as", "share of its pixels (%)", "its images that hold both (%)"], pairs));
}
function chart(name, series) {
  const width = 360, height = 200, left = 52, bottom = 26, top = 8, points = series.flatMap((own) => own.points);
  let [x0, x1] = [Math.min(...points.map((p) => p[0])), Math.max(...points.map((p) => p[0]))], [y0, y1] = [Math.min(...points.map((p) => p[1])), Math.max(...points.map((p) => p[1]))];
  if (x0 === x1) x1 = x0 + 1;
  if (y0 === y1) { y0 -= 0.5; y1 += 0.5; }
  const x = (value) => left + ((value - x0) / (x1 - x0)) * (width - left - 8), y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - bottom - top);
  const svg = drawing("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name });
  const short = (value) => (Math.abs(value) >= 1000 || (Math.abs(value) < 0.01 && value !== 0) ? value.toExponential(1) : String(Number(value.toPrecision(3))));
  for (const part of [0, 0.5, 1]) {
    const vx = x0 + part * (x1 - x0), vy = y0 + part * (y1 - y0);
    svg.append(drawing("line", { class: "axis", x1: left, x2: width - 8, y1: y(vy), y2: y(vy) }), drawing("text", { x: left - 4, y: y(vy) + 4, "text-anchor": "end" }, short(vy)), drawing("text", { x: x(vx), y: height - 8, "text-anchor": part === 0 ? "start" : part === 1 ? "end" : "middle" }, part === 1 ? `step ${Math.round(vx)}` : Math.round(vx)));
  }
  series.forEach((own, index) => {
    svg.append(drawing("polyline", { class: "data", points: own.points.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" "), "stroke-dasharray": ["", "5 3", "2 2", "8 3 2 3", "1 3"][index % 5] }));
    if (own.points.length < 30) own.points.forEach((p) => svg.append(drawing("circle", { class: "point", cx: x(p[0]), cy: y(p[1]), r: 2.2 })));
  });
  const legend = runs.length > 1 ? series.map((own, index) => `${["—", "– –", "· ·", "–·", "·"][index % 5]} ${own.run}`).join("   ") : "";
  return element("div", { class: "chart" }, element("h3", { text: name }), svg, element("small", { text: legend }));
}
function training() {
  const found = new Map();
  runs.forEach((run) => run.training.forEach((curve) => {
    const name = (curve.kind === "validation" ? "validation: " : "") + curve.name.replaceAll("_", " ");
    if (!found.has(name)) found.set(name, []);
    found.get(name).push({ run: run.title, points: curve.points });
  }));
  if (!found.size) { at("training").hidden = true; return; }
  at("charts").replaceChildren(...[...found].map(([name, series]) => chart(name, series)));
}
function comparison() {
  if (runs.length < 2) { at("compare").hidden = true; return; }
  const names = data.comparison.length ? Object.keys(data.comparison[0].means) : [];
  const signed = (value) => (value === null ? "–" : (value > 0 ? "+" : "") + value.toFixed(2));
  const rows = data.comparison.map((row) => [`${row.title} − ${runs[0].title}`, ...names.map((name) => { const [value, low, high] = row.means[name]; return `${signed(value)} [${signed(low)}, ${signed(high)}]`; })]);
  at("comparison").replaceChildren(...(rows.length ? [element("p", { text: "Differences in percent points with 95 % intervals over the same images. An interval that holds 0 is no difference." }), table(["", ...names.map((name) => name.replaceAll("_", " "))], rows)] : [element("p", { text: "Without scores of all runs there is nothing to subtract." })]),
    element("p", { text: "In the gallery, “Show” and “Blink with” switch between the runs, “most changed first” sorts by the change of an image's IoU, and an enlarged image has all of them side by side." }));
}
function about() {
  const own = runs.flatMap((run) => [["run", run.folder], ["method", run.method || "not named"], ...run.log.map((line) => ["log", line])]);
  const origin = Object.entries(data.origin).map(([name, value]) => [name, typeof value === "object" ? Object.entries(value).map(([key, text]) => `${key} ${text}`).join(", ") : String(value)]);
  at("facts").replaceChildren(table(["", ""], [...own, ...origin]), ...runs.map((run) => element("details", {}, element("summary", { text: `settings of ${run.title}` }), element("pre", { text: JSON.stringify(run.settings, null, 2) }))));
}

summary(); tools(); arrange(); classes(); training(); comparison(); about(); followHash();
window.addEventListener("hashchange", followHash);
window.report = { load, labelsOf, setThreshold, state, images, data };  // for tests of the page
