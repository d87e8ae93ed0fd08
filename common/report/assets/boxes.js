// Localisation: boxes over an image and its map, scores of all weights, outcomes

const OUTCOMES = { right: "class and box right", class: "class wrong", part: "box a part of the object", more: "box larger than the object", multi: "box over several objects", wrong: "box elsewhere" };
const SCORES = { gt_known: "GT-known", loc_top1: "Top-1 localisation", loc_top5: "Top-5 localisation", cls_top1: "Top-1 class", cls_top5: "Top-5 class", max_box_acc: "MaxBoxAcc", max_box_acc_v2: "MaxBoxAccV2",
  box_acc: "box accuracy, threshold of another split", box_acc_v2: "the same over three IoUs", mean_iou: "mean IoU" };

// The evaluation's box at the present threshold: first index of a threshold, corners, IoU
const boxAt = (own) => own.boxes.findLast(([start]) => start <= state.threshold);
const iouText = (image) => `IoU\u00a0${(image.ready ? image.runs.map((own) => boxAt(own)[5]) : image.scores.map((own) => own.iou)).map((value) => percent(value)).join("\u00a0/\u00a0")}`;
function boxCaption(image) {
  const score = image.scores[0] || {}, name = (score.labels || []).map((label) => labels[label]).join(", ");
  const missed = score.first !== score.labels[0] ? `, taken for ${labels[score.first]}` : "";
  return ` ${name}${missed}; ${iouText(image)}`;
}
function drawBoxes(stack, image, view) {
  const [kind, own] = view.split(":"), shown = kind === "image" ? image.runs.map((_, run) => run) : [Number(own)];
  let svg = stack.querySelector("svg");
  if (!svg) { svg = drawing("svg", { class: "boxes", preserveAspectRatio: "none", viewBox: `0 0 ${image.side} ${image.side}` }); stack.append(svg); }
  const rect = (name, [x1, y1, x2, y2]) => drawing("rect", { class: name, x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0) });
  const found = (run) => (kind === "first" ? image.runs[run].firstBox : boxAt(image.runs[run]).slice(1, 5));
  const boxes = [["true", image.trueBox], ...shown.map((run) => [`found found-${run}`, found(run)])];
  svg.replaceChildren(...boxes.map(([, box]) => rect("halo", box)), ...boxes.map(([name, box]) => rect(name, box)));
}
function boxLegend() {
  const sample = (name) => { const svg = drawing("svg", { class: "boxes sample", viewBox: "0 0 28 14" }); svg.append(...["halo", name].map((part) => drawing("rect", { class: part, x: 2, y: 2, width: 24, height: 10 }))); return svg; };
  const notes = runs.map((run) => run.threshold).filter((value) => !data.thresholds.some((own) => Math.abs(own - value) < 1e-9)).map((value) => element("span", { class: "warn", text: `The evaluation's threshold ${value} is not one of the slider's; sorting and the summary go by it, boxes and IoU under the images by the slider.` }));
  at("legend").replaceChildren(element("span", {}, sample("true"), " true box"), ...runs.map((run, index) => element("span", {}, sample(`found found-${index}`), ` box found for the true class${runs.length > 1 ? `: ${run.title}` : ""}`)), ...notes);
}
function boxSummary() {
  const run = runs[0], number = ([value, text]) => element("div", { class: "number" }, element("b", { text: value }), element("span", { text }));
  at("title").textContent = `${run.title}${run.method ? ": " + run.method : ""}, boxes of ${run.list}`;
  const own = runs.flatMap((other) => Object.entries(other.means).filter(([name]) => runs.length === 1 || name === "gt_known" || name === "loc_top1").sort(([a], [b]) => (b === "gt_known") - (a === "gt_known")).map(([name, entry]) => {
    const ends = entry.interval[0] === null ? "" : `; 95 % interval ${percent(entry.interval[0])} to ${percent(entry.interval[1])}`;
    return [percent(entry.value), `${SCORES[name]}${runs.length > 1 ? ` of ${other.title}` : ""}${name === "gt_known" ? `, ${other.images} images, threshold ${other.threshold.toFixed(2)}, weights ${other.shownWeights}` : ""}${ends}`];
  }));
  at("numbers").replaceChildren(...[...own.slice(0, runs.length > 1 ? own.length : 1), ...run.published.slice(0, 6).map((row) => [percent(row.value), `published: ${row.what}`]), ...(runs.length > 1 ? [] : own.slice(1))].map(number));
  const names = Object.keys(run.means), rows = run.weights.map((row) => [row.name + (row.chosen ? ` (chosen on ${row.chosen})` : ""), ...names.map((name) => entryText(row.means[name]))]);
  at("strip").replaceChildren(element("h3", { text: `All weights of ${run.title}, percent with 95 % intervals` }), table(["weights", ...names.map((name) => SCORES[name])], rows));
  const chosen = run.weights.filter((row) => row.chosen === run.list).map((row) => row.name);
  const notes = chosen.length ? [`The weights ${chosen.join(" and ")} were chosen on the very images that they are scored on, and flatter.`] : [];
  const others = run.weights.map((row) => row.name).filter((name) => name !== run.shownWeights).map((name) => `${run.title.split(":")[0]}:eval_wsol:${name}`);
  if (runs.length === 1 && others.length) notes.push(`Other weights: --name NAME, or beside these --against NAME, with NAME ${others.join(" or ")}.`);
  at("notes").replaceChildren(...notes.map((text) => element("p", { text })));
}
function boxClasses() {
  const run = runs[0];
  const outcomes = run.outcomes.map((row) => [OUTCOMES[row.name] || row.name, bar({ value: row.share }, 1), percent(row.share)]);
  const rows = run.classes.map((row) => [row.name, row.images, bar(row.gt_known, row.label), entryText(row.gt_known), percent(row.loc_top1), percent(row.cls_top1), percent(row.mean_iou)]);
  const pairs = run.pairs.map((row) => [labels[row.truth], labels[row.predicted], row.images, percent(row.share)]);
  at("class-table").replaceChildren(table(["class", "images", "GT-known with its 95 % interval", "GT-known", "Top-1 localisation", "Top-1 class", "mean IoU"], rows));
  at("confusions").replaceChildren(element("h2", { text: "Outcomes of the first class and its box" }), table(["outcome", "share of the images", "%"], outcomes),
    ...(pairs.length ? [element("h2", { text: "What a class is taken for" }), table(["images of", "taken for", "images", "share of the class (%)"], pairs)] : []));
}
