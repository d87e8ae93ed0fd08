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
const near = new Set(), visible = new Set();  // loaded before they come into sight; in sight: drawn at every change
const watch = (found, entered, rootMargin) => new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const index = Number(entry.target.dataset.index);
    if (entry.isIntersecting) { found.add(index); entered(index); } else found.delete(index);
  }
}, { rootMargin });
const watchers = [watch(near, (index) => show(index), "200px"), watch(visible, (index) => redraw(index), "0px")];

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
  watchers.forEach((watcher) => watcher.observe(made));
  return made;
}
async function show(index) {
  const own = cards.get(index);
  try {
    const image = await load(index);
    const picture = own.querySelector("img");
    if (!picture.hasAttribute("src")) { picture.width = image.width; picture.height = image.height; picture.src = image.photo; }
    redraw(index);
  } catch (error) { own.querySelector("p").textContent = `${images[index].id}: ${error.message}`; }
}
function redraw(index) {
  const image = images[index], own = cards.get(index);
  if (!image.ready || !own) return;
  const canvas = own.querySelector("canvas"), view = state.swapped && state.blink ? state.blink : state.view;
  canvas.style.opacity = state.opacity;
  paint(canvas, image, view, Math.max(1, Math.floor(image.width / Math.max(own.clientWidth * devicePixelRatio, 1))));
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
