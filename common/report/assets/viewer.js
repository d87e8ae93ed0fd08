// One image, large

function openViewer(index) {
  state.open = index;
  history.replaceState(null, "", `#image=${encodeURIComponent(images[index].id)}`);
  const viewer = at("viewer");
  if (!viewer.open) viewer.showModal();
  fillViewer();
}
function panelsOf(image) {
  const of = (run) => (runs.length > 1 ? ` of ${runs[run].title}` : "");
  const shown = [["image", isBox ? "boxes" : "image"], ...(image.truthLabels ? [["truth", "true mask"]] : [])];
  runs.forEach((run, number) => {
    shown.push(...views.filter(([view]) => view.endsWith(`:${number}`) && (isBox || !view.startsWith("cam"))));
    if (isSeed[number]) image.runs[number].cams.forEach((cam) => shown.push([`cam:${number}:${cam.label}`, `CAM ${labels[cam.label]}${of(number)}`]));
    if (isBox && image.runs[number].firstBox) shown.push([`first:${number}`, `box of the first class, ${labels[image.scores[number].first]}${of(number)}`]);
  });
  return shown;
}
async function fillViewer() {
  const index = state.open, viewer = at("viewer");
  let image;
  try { image = await load(index); } catch (error) { dispose(viewer); viewer.append(closeButton(), element("p", { class: "warn", text: `⚠ ${images[index].id}: ${error.message}` })); return; }
  if (state.open !== index || !image.ready) return;
  if (viewer.dataset.index !== String(index) || !viewer.querySelector(".panels")) {
    dispose(viewer);
    viewer.dataset.index = index;
    const score = image.scores[0] || {}, names = (score.labels || []).map((label) => labels[label]).join(", ");
    viewer.append(
      element("p", {}, element("b", { text: image.id }), ` ${names}${isBox || score.iou === undefined ? "" : `, IoU ${percent(score.iou)}`} `,
        ...(data.thresholds ? [element("label", {}, "Threshold ", element("input", { id: "viewer-threshold", type: "range", min: 0, max: data.thresholds.length - 1, oninput: (event) => setThreshold(Number(event.target.value)) }), " ", element("output", { id: "viewer-note" })), " "] : []),
        element("button", { type: "button", text: "‹ previous", onclick: () => step(-1) }), " ", element("button", { type: "button", text: "next ›", onclick: () => step(1) }), " ", closeButton(), " ", element("output", { class: "under" })),
      element("div", { class: "panels" }, ...panelsOf(image).map(([view, title]) => {
        const stack = element("div", { class: "stack", style: `aspect-ratio:${image.width}/${image.height}` }, element("canvas", { class: "over" }));
        photoOf(image, image.id, image.width).then((photo) => { if (stack.isConnected) stack.prepend(photo); });
        stack.addEventListener("mousemove", (event) => hover(event, index));
        return element("figure", { "data-view": view }, stack, element("figcaption", { text: title }));
      })));
  }
  for (const figure of viewer.querySelectorAll("figure")) {
    const canvas = figure.querySelector(".over"), view = figure.dataset.view;
    canvas.style.opacity = isBox && view.startsWith("region") ? 1 : state.opacity;
    paint(canvas, image, view.startsWith("first") ? "image" : view);
    if (isBox) drawBoxes(canvas.parentElement, image, view);
  }
  if (!data.thresholds) return;
  at("viewer-threshold").value = state.threshold;
  at("viewer-note").textContent = `${data.thresholds[state.threshold].toFixed(2)}${isBox ? `: ${iouText(image)}` : ""}`;
}
const closeButton = () => element("button", { type: "button", text: "close", onclick: () => at("viewer").close() });
function step(by) {
  const place = order.indexOf(state.open) + by;
  if (place >= 0 && place < order.length) openViewer(order[place]);
}
at("viewer").addEventListener("close", () => {
  const left = state.open;
  state.open = -1;
  dispose(at("viewer"));
  history.replaceState(null, "", location.pathname + location.search);
  if (cards.has(left) && order.includes(left)) cards.get(left).focus({ preventScroll: near.has(left) });
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=search], select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (state.open >= 0 && (event.key === "ArrowRight" || event.key === "ArrowLeft") && !event.target.matches("input")) { event.preventDefault(); step(event.key === "ArrowRight" ? 1 : -1); }
  else if (event.key === "+" || event.key === "-") setThreshold(state.threshold + (event.key === "+" ? 1 : -1));
  else if (event.key === "b") { state.swapped = !state.swapped; redrawAll(); }
});
function followHash() {
  const match = /^#image=(.*)$/.exec(location.hash);
  let wanted;
  try { wanted = match && decodeURIComponent(match[1]); } catch { return; }
  const index = match ? images.findIndex((image) => image.id === wanted) : -1;
  if (index >= 0) openViewer(index);
  else if (match) at("hover").textContent = `There is no image ${wanted} on this page.`;
}
