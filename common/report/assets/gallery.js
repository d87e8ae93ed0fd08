// Gallery: a card for every image. Only cards near the window have a picture; all keep their size.

const views = [["image", isBox ? "boxes alone" : "image alone"]];
runs.forEach((run, index) => {
  const name = runs.length > 1 ? ` of ${run.title}` : "";
  if (isBox) { views.push([`cam:${index}`, `CAM and box${name}`], [`region:${index}`, `region above the threshold${name}`]); return; }
  views.unshift([`prediction:${index}`, (isSeed[index] ? "seed at the threshold" : "prediction") + name]);
  if (isSeed[index]) views.push([`cam:${index}`, `CAMs${name}`]);
  if (run.means) views.push([`errors:${index}`, `errors${name}`]);
});
if (runs[0].means && !isBox) views.push(["truth", "true mask"]);
views.sort((a, b) => (a[0] === "prediction:0" ? -1 : b[0] === "prediction:0" ? 1 : 0));
state.view = isBox ? "cam:0" : "prediction:0";
if (isBox) { state.opacity = 0.5; if (runs.length > 1) state.view = "image"; }

const cards = new Map();
const near = new Set(), visible = new Set();  // with a picture, before they come into sight; in sight: drawn at every change
const watch = (found, entered, left, rootMargin) => new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const index = Number(entry.target.dataset.index);
    if (entry.isIntersecting) { found.add(index); entered(index); } else if (found.delete(index)) left(index);
  }
}, { rootMargin });
let printing = false;
const watchers = [watch(near, (index) => show(index), (index) => { if (!printing) hide(index); }, "400px"), watch(visible, (index) => redraw(index), () => {}, "0px")];

const captionOf = (index) => (isBox ? boxCaption(images[index]) : maskCaption(images[index]));
function maskCaption(image) {
  const score = image.scores[0] || {};
  return score.iou === undefined ? "" : ` IoU ${percent(score.iou)}, missed ${percent(score.missed)}, extra ${percent(score.extra)}`;
}
function card(index) {
  if (cards.has(index)) return cards.get(index);
  const image = images[index];
  const stack = element("div", { class: "stack", style: `aspect-ratio:${image.width}/${image.height};width:min(100%, ${(16 * image.width / image.height).toFixed(2)}rem)` });
  const made = element("article", { class: "card", tabindex: "0", "data-index": index, onclick: () => openViewer(index),
    onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); openViewer(index); } } },
    stack, element("p", {}, element("b", { text: image.id }), element("span", { text: captionOf(index) })));
  stack.addEventListener("mousemove", (event) => hover(event, index));
  stack.addEventListener("mouseleave", () => { at("hover").textContent = ""; });
  cards.set(index, made);
  watchers.forEach((watcher) => watcher.observe(made));
  return made;
}
async function show(index) {
  const stack = cards.get(index).querySelector(".stack");
  try {
    const image = await load(index), photo = stack.childElementCount ? null : await photoOf(image, image.id, stack.clientWidth * devicePixelRatio);
    if (!near.has(index) && !printing) return;
    if (!stack.childElementCount) stack.append(photo, element("canvas", { class: "over" }));
    redraw(index);
  } catch (error) { stack.replaceChildren(element("p", { class: "warn", text: `⚠ ${error.message}` })); }
}
function hide(index) { dispose(cards.get(index).querySelector(".stack")); }
function redraw(index) {
  const image = images[index], own = cards.get(index), canvas = own && own.querySelector(".over");
  if (!image.ready || !canvas) return;
  const view = state.swapped && state.blink ? state.blink : state.view;
  canvas.style.opacity = isBox && view.startsWith("region") ? 1 : state.opacity;
  paint(canvas, image, view, Math.max(1, Math.floor(image.width / Math.max(canvas.clientWidth * devicePixelRatio, 1))));
  if (isBox) { drawBoxes(canvas.parentElement, image, view); own.querySelector("span").textContent = boxCaption(image); }
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
  const box = event.currentTarget.getBoundingClientRect(), width = image.side || image.width, height = image.side || image.height;
  const x = Math.floor(((event.clientX - box.left) / box.width) * width), y = Math.floor(((event.clientY - box.top) / box.height) * height);
  if (!(x >= 0 && x < width && y >= 0 && y < height)) return;
  const place = y * width + x;
  const parts = runs.map((run, number) => (runs.length > 1 ? `${run.title}: ` : "") + (isBox ? shareAt(image, number, place) : labels[labelAt(image, number, place)] ?? "ignored"));
  if (image.truthLabels) parts.push(`true: ${labels[image.truthLabels[place]] ?? "ignored"}`);
  (at("viewer").open ? at("viewer").querySelector(".under") : at("hover")).textContent = parts.join(" · ");
}
const labelAt = (image, run, place) => (isSeed[run] && image.runs[run].numbers[place] <= state.threshold ? 0 : image.runs[run].labels[place]);
const shareAt = (image, run, place) => `${Math.max(0, image.runs[run].numbers[place] - 1)} % of the map's largest value`;

const orders = { list: ["list order", () => 0] };
if (runs[0].means) {
  Object.assign(orders, { worst: ["worst IoU first", (a, b) => a.scores[0].iou - b.scores[0].iou], best: ["best IoU first", (a, b) => b.scores[0].iou - a.scores[0].iou] });
  if (!isBox) Object.assign(orders, {
    extra: ["most extra pixels first", (a, b) => b.scores[0].extra - a.scores[0].extra], missed: ["most missed pixels first", (a, b) => b.scores[0].missed - a.scores[0].missed],
  });
  const firstLabel = (image) => (image.scores[0].labels || [])[0] ?? labels.length;
  orders.class = ["by class", (a, b) => firstLabel(a) - firstLabel(b)];
  const change = (image) => Math.abs(image.scores[1].iou - image.scores[0].iou);
  if (runs.length > 1 && runs[1].means) orders.changed = ["most changed first", (a, b) => change(b) - change(a)];
}
let order = images.map((_, index) => index);
function arrange() {
  const compare = (orders[at("sort").value] || orders.list)[1], wanted = at("filter").value, text = at("find").value.trim().toLowerCase();
  order = images.map((_, index) => index).filter((index) => {
    const image = images[index], score = image.scores[0] || {}, has = score.labels || (image.runs ? image.runs[0].cams.map((cam) => cam.label) : []);
    return (!wanted || has.includes(Number(wanted)) || score.outcome === wanted) && image.id.toLowerCase().includes(text);
  });
  order.sort((a, b) => compare(images[a], images[b]) || a - b);
  at("grid").replaceChildren(...order.map(card));
  at("count").textContent = `${order.length} of the ${images.length} images on this page` + (data.total > images.length ? `; the list has ${data.total}` : "");
}
