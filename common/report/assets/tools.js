// Tools

function setThreshold(index) {
  if (!data.thresholds) return;
  state.threshold = Math.max(0, Math.min(data.thresholds.length - 1, index));
  at("threshold").value = state.threshold;
  const curve = runs[0].curve, score = curve ? `, ${isBox ? "GT-known" : "mIoU"} ${percent(curve[state.threshold], 2)}` : "";
  at("threshold-value").textContent = `${data.thresholds[state.threshold].toFixed(2)}${score}`;
  const mark = at("curve").querySelector(".here");
  if (mark) { const x = 4 + (state.threshold / Math.max(data.thresholds.length - 1, 1)) * 172; mark.setAttribute("x1", x); mark.setAttribute("x2", x); }
  redrawAll();
}
function tools() {
  const fill = (id, pairs) => at(id).replaceChildren(...pairs.map(([value, text]) => element("option", { value, text })));
  fill("view", views);
  fill("blink", [["", "nothing"], ...views]);
  fill("sort", Object.entries(orders).map(([value, [text]]) => [value, text]));
  fill("filter", [["", "all"], ...(isBox ? runs[0].outcomes.map(({ name }) => [name, OUTCOMES[name] || name]) : []), ...labels.map((name, label) => [label, name]).slice(1)]);
  at("view").value = state.view;
  at("view").onchange = () => { state.view = at("view").value; showKey(); redrawAll(); };
  at("blink").onchange = () => { state.blink = at("blink").value; state.swapped = false; showKey(); redrawAll(); };
  showKey();
  setInterval(() => { if (state.blink) { state.swapped = !state.swapped; redrawAll(); } }, 700);
  at("opacity").value = 100 * state.opacity;
  at("opacity").oninput = () => { state.opacity = at("opacity").value / 100; redrawAll(); };
  for (const id of ["sort", "filter"]) at(id).onchange = arrange;
  at("find").oninput = arrange;
  if (isBox) boxLegend(); else classLegend();
  if (data.thresholds) {
    at("threshold").max = data.thresholds.length - 1;
    at("threshold").oninput = () => setThreshold(Number(at("threshold").value));
    if (runs[0].curve) drawCurve(); else at("curve").style.display = "none";
    const start = runs[0].threshold ?? 0.4;
    let nearest = 0;
    data.thresholds.forEach((value, index) => { if (Math.abs(value - start) < Math.abs(data.thresholds[nearest] - start)) nearest = index; });
    setThreshold(nearest);
  } else { at("threshold-tool").hidden = true; at("curve").style.display = "none"; }
  at("theme").onclick = () => {
    const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  };
  at("print").onclick = print_;
  addEventListener("beforeprint", () => {  // the tools are not on paper
    const view = views.find(([name]) => name === state.view)[1];
    at("shown").textContent = `Shown: ${view}${data.thresholds ? `; threshold ${at("threshold-value").textContent}` : ""}; ${orders[at("sort").value][0]}`;
  });
}
// Colours of the errors, or values of the CAMs, while they are shown
function showKey() {
  const shown = [state.view, state.blink].map((view) => view.split(":")[0]), parts = [];
  if (shown.includes("errors")) parts.push(...Object.entries(ERRORS).map(([name, colour]) => element("span", {}, element("i", { class: "swatch", style: `background:rgb(${colour})` }), ` ${name}`)));
  if (shown.includes("cam")) parts.push(element("span", {}, "CAM: 0 ", element("i", { class: "ramp", style: `background:linear-gradient(to right, ${STOPS.map((colour) => `rgb(${colour})`)})` }), isBox ? " largest value" : " 1"));
  at("key").replaceChildren(...parts);
}
function classLegend() {
  const boxes = labels.map((name, label) => element("input", { type: "checkbox", checked: true, onchange: (event) => { if (event.target.checked) state.off.delete(label); else state.off.add(label); redrawAll(); } }));
  const all = (on) => () => { boxes.forEach((box, label) => { box.checked = on; if (on) state.off.delete(label); else state.off.add(label); }); redrawAll(); };
  const buttons = labels.length > 8 ? [element("button", { type: "button", text: "all", onclick: all(true) }), element("button", { type: "button", text: "none", onclick: all(false) })] : [];
  const entries = [...buttons, ...labels.map((name, label) => element("label", { title: name }, boxes[label], element("span", { class: "swatch", style: `background:${pattern(label)}` }), name))];
  if (labels.length <= 30) at("legend").replaceChildren(...entries);
  else at("legend").replaceChildren(element("details", {}, element("summary", { text: `${labels.length} classes and their colours` }), ...entries));
}
function drawCurve() {
  const svg = at("curve"), values = runs[0].curve, top = Math.max(...values), low = Math.min(...values);
  svg.setAttribute("viewBox", "0 0 180 44");
  const points = values.map((value, index) => `${(4 + (index / Math.max(values.length - 1, 1)) * 172).toFixed(1)},${(40 - ((value - low) / (top - low || 1)) * 36).toFixed(1)}`);
  svg.setAttribute("aria-label", `${isBox ? "GT-known" : "mIoU"} over the threshold, ${percent(low)} to ${percent(top)}`);
  svg.replaceChildren(drawing("polyline", { class: "data", points: points.join(" ") }), drawing("line", { class: "here", y1: 2, y2: 42 }));
}
// Prints the arranged images, at most a hundred, which otherwise have pictures only near the window
const PRINTED = 100;
async function print_() {
  printing = true;
  const shown = order.slice(0, PRINTED);
  at("print").disabled = true;
  for (const index of shown) { near.add(index); await show(index); }
  window.print();
  printing = false;
  at("print").disabled = false;
  for (const index of shown) if (!inSight(cards.get(index))) { near.delete(index); hide(index); }
}
const inSight = (own) => { const box = own.getBoundingClientRect(); return box.bottom > -400 && box.top < innerHeight + 400; };
