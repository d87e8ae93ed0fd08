"use strict";
// The page's program. Data and pictures are in the file; the server of --serve sends pictures when they are looked at.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const runs = data.runs, labels = data.labels, images = data.images;
const isSeed = runs.map((run) => run.task === "cam"), isBox = runs[0].task === "box";
const state = { threshold: 0, view: "", blink: "", opacity: 0.7, off: new Set(), open: -1, swapped: false };

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
