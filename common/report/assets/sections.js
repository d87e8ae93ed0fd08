// Summary, classes, training, comparison, about

// A click on a heading sorts the rows by their numbers or texts, the largest numbers first; a second click turns them round
function table(head, rows) {
  const body = element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) => (cell instanceof Node ? element("td", {}, cell) : element("td", { class: /^[-+–]?\d*\.?\d*( \[.*\])?$/.test(String(cell)) ? "n" : "", text: cell }))))));
  const valueOf = (row, column) => { const cell = row.children[column], text = cell.textContent || (cell.firstChild && cell.firstChild.title) || "", number = parseFloat(text); return Number.isNaN(number) ? text : number; };
  const heading = (text, column) => {
    const own = element("th", {}, rows.length > 2 && text ? element("button", { type: "button", class: "sort", title: "sort", text, onclick: () => sort(own, column) }) : text);
    return own;
  };
  const sort = (own, column) => {
    const sign = own.getAttribute("aria-sort") === "descending" ? 1 : -1;
    for (const other of own.parentElement.children) other.removeAttribute("aria-sort");
    own.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
    const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? sign * (a - b) : typeof a !== typeof b ? (typeof a === "number" ? -1 : 1) : -sign * String(a).localeCompare(String(b)));
    body.append(...[...body.children].sort((a, b) => compare(valueOf(a, column), valueOf(b, column))));
  };
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, element("tr", {}, ...head.map(heading))), body));
}
function summary() {
  const run = runs[0];
  document.title = `${run.title}: report`;
  const { data: set, model } = run.settings, arch = model && (model.arch || (model.deit && model.deit.arch)), origin = data.origin;
  const what = [run.method, arch, set && (set.dataset || set.root), `list ${run.list}`, origin.device, origin.commit && `page of commit ${origin.commit.slice(0, 10)}${origin.commit.endsWith("+") ? " with changes" : ""}`, origin.versions && `torch ${origin.versions.torch}`, origin.made];
  at("what").textContent = what.filter(Boolean).join(" · ");
  if (isBox) { boxSummary(); return; }
  at("title").textContent = `${run.title}${run.method ? ": " + run.method : ""}, ${isSeed[0] ? "seeds" : "masks"} of ${run.list}`;
  const boxes = runs.filter((own) => own.means).map((own) => [`mIoU${runs.length > 1 ? " of " + own.title : ""}, ${own.images} images${own.threshold === null || own.threshold === undefined ? "" : ", threshold " + own.threshold.toFixed(2)}`, own.means.mIoU]);
  const others = run.means ? Object.entries(run.means).filter(([name]) => !name.startsWith("mIoU")) : [];
  at("numbers").replaceChildren(
    ...boxes.map(([text, entry]) => element("div", { class: "number" }, element("b", { text: percent(entry.value) }), element("span", { text: `${text}; 95 % interval ${percent(entry.interval[0])} to ${percent(entry.interval[1])}` }))),
    ...(run.published || []).slice(0, 6).map((row) => element("div", { class: "number" }, element("b", { text: percent(row.value) }), element("span", { text: `published: ${row.what}` }))),
    ...Object.entries(run.trivial || {}).map(([name, value]) => element("div", { class: "number" }, element("b", { text: percent(value) }), element("span", { text: `mIoU of a trivial prediction: ${name}` }))),
    ...others.map(([name, entry]) => element("div", { class: "number" }, element("b", { text: percent(entry.value) }), element("span", { text: `${{ extra: "extra pixels", missed: "missed pixels" }[name] || name.replaceAll("_", " ")}${entry.interval && entry.interval[0] !== null ? `; 95 % interval ${percent(entry.interval[0])} to ${percent(entry.interval[1])}` : ""}` }))));
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
  if (isBox) { boxClasses(); return; }
  const rows = run.classes.map((row, label) => [row.name, bar(row.IoU, label), entryText(row.IoU), entryText(row.precision), entryText(row.recall), row.oracle === null || row.oracle === undefined ? "–" : row.oracle.toFixed(2)]);
  at("class-table").replaceChildren(table(["class", "IoU with its 95 % interval", "IoU", "precision", "recall", "best threshold by the masks"], rows));
  const pairs = (run.pairs || []).slice(0, 20).map((row) => [labels[row.truth], labels[row.predicted], percent(row.share, 2), percent(row.together)]);
  at("confusions").replaceChildren(element("h2", { text: "What a class is confused with" }), table(["pixels of", "predicted as", "share of its pixels (%)", "its images that hold both (%)"], pairs),
    matrix("Confusion: pixels of the row's label that are predicted as the column's", run.confusion, (row) => row.reduce((sum, value) => sum + value, 0), "of the pixels of"),
    matrix("Together: images of the row's label that hold the column's as well", run.together, (row, index) => row[index], "of the images with"));
}
// A square of shares in percent of each row's total; drawn when it is opened, as 80 classes have 6,561 of them
function matrix(title, rows, total, unit) {
  const made = element("details", { class: "matrix" }, element("summary", { text: title }));
  made.addEventListener("toggle", () => {
    if (made.childElementCount > 1) return;
    const numbers = labels.length <= 30;
    const head = element("tr", {}, element("th"), ...labels.map((name) => element("th", { class: "up" }, element("span", { text: name }))));
    const body = rows.map((row, index) => element("tr", {}, element("th", { text: labels[index] }), ...row.map((value, other) => {
      const share = total(row, index) ? (100 * value) / total(row, index) : 0, shade = Math.round(share);
      return element("td", { style: `background:color-mix(in srgb, var(--mark) ${shade}%, transparent)`, class: shade > 50 ? "full" : "", title: `${labels[other]}: ${share.toFixed(1)} % ${unit} ${labels[index]}`, text: numbers && share >= 0.5 ? Math.round(share) : "" });
    })));
    made.append(element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body))));
  });
  return made;
}
function chart(name, series) {
  const width = 360, height = 200, left = 52, bottom = 26, top = 8, points = series.flatMap((own) => own.points);
  const dashes = ["", "5 3", "2 2", "8 3 2 3", "1 3"], signs = ["—", "– –", "· ·", "–·", "·"], published = series.filter((own) => own.published).length;
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
    svg.append(drawing("polyline", { class: own.published ? "data published" : "data", points: own.points.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" "), "stroke-dasharray": dashes[index % 5] }));
    if (own.points.length < 30) own.points.forEach((p) => svg.append(drawing("circle", { class: own.published ? "point published" : "point", cx: x(p[0]), cy: y(p[1]), r: 2.2 })));
  });
  const legend = runs.length > 1 || published ? series.map((own, index) => `${signs[index % 5]} ${own.run}`).join("   ") : "";
  return element("div", { class: "chart" }, element("h3", { text: name }), svg, element("small", { text: legend }));
}
function training() {
  const found = new Map();
  runs.forEach((run) => run.training.forEach((curve) => {
    const name = (curve.kind === "validation" ? "validation: " : "") + curve.name.replaceAll("_", " ");
    if (!found.has(name)) found.set(name, []);
    found.get(name).push({ run: run.title, term: curve.name, points: curve.points });
  }));
  const histories = runs.flatMap((run) => run.histories.map((own) => pastOf(own, runs.length > 1 ? `${run.title}: ` : "")));
  if (!found.size && !histories.length) { at("training").hidden = true; return; }
  for (const series of found.values()) {  // published points as far as the runs go
    const end = Math.max(...series.flatMap((own) => own.points.map((point) => point[0])));
    for (const reference of data.references) {
      const points = (reference.curves[series[0].term] || []).filter((point) => point[0] <= end);
      if (points.length) series.push({ run: reference.title, points, published: true });
    }
  }
  at("charts").replaceChildren(...[...found].map(([name, series]) => chart(name, series)));
  at("histories").replaceChildren(...histories);
}
function pastOf({ title, pictures }, before) {
  const picture = element("img", { alt: title, onload: () => { picture.style.width = `${Math.max(picture.naturalWidth, 420)}px`; } }), caption = element("output"), last = pictures.length - 1;
  const uris = pictures.map((own) => URL.createObjectURL(blobOf(own.picture)));
  const choose = (index) => { picture.src = uris[index]; caption.textContent = `${pictures[index].name} (${index + 1} of ${last + 1})`; };
  const slider = element("input", { type: "range", min: 0, max: last, value: last, "aria-label": title, oninput: () => choose(Number(slider.value)) });
  choose(last);
  return element("figure", { class: "history" }, element("figcaption", {}, element("b", { text: before + title }), " ", caption, " ", slider), picture);
}
function comparison() {
  if (runs.length < 2) { at("compare").hidden = true; return; }
  const names = data.comparison.length ? Object.keys(data.comparison[0].means) : [];
  const signed = (value) => (value === null ? "–" : (value > 0 ? "+" : "") + value.toFixed(2));
  const rows = data.comparison.map((row) => [`${row.title} − ${runs[0].title}`, ...names.map((name) => { const [value, low, high] = row.means[name]; return `${signed(value)} [${signed(low)}, ${signed(high)}]`; })]);
  at("comparison").replaceChildren(...(rows.length ? [element("p", { text: "Differences in percent points with 95 % intervals over the same images. An interval that holds 0 is no difference." }), table(["", ...names.map((name) => (isBox ? SCORES[name] : name.replaceAll("_", " ")))], rows)] : [element("p", { text: "Without scores of all runs there is nothing to subtract." })]),
    element("p", { text: "In the gallery, “Show” and “Blink with” switch between the runs, “most changed first” sorts by the change of an image's IoU, and an enlarged image has all of them side by side." }));
}
function about() {
  const own = runs.flatMap((run) => [["run", run.folder], ["method", run.method || "not named"], ...run.log.map((line) => ["log", line])]);
  const origin = Object.entries(data.origin).map(([name, value]) => [name, typeof value === "object" ? Object.entries(value).map(([key, text]) => `${key} ${text}`).join(", ") : String(value)]);
  at("facts").replaceChildren(table(["", ""], [...own, ...origin]), ...runs.map((run) => element("details", {}, element("summary", { text: `settings of ${run.title}` }), element("pre", { text: JSON.stringify(run.settings, null, 2) }))));
}
