// Pictures: read when an image comes near the window, let go when it has left it

// The bytes of a picture: in the file a place [first character, number of characters], from the server base64
const packed = at("pictures").textContent;
const BYTE = new Uint8Array(65536);  // of each character of windows-1252
Array.from(new TextDecoder("windows-1252").decode(Uint8Array.from({ length: 256 }, (_, byte) => byte)), (character, byte) => { BYTE[character.charCodeAt(0)] = byte; });
function bytesOf(place) {
  if (typeof place === "string") return Uint8Array.from(atob(place), (character) => character.charCodeAt(0));
  const found = new Uint8Array(place[1]), end = place[0] + place[1];
  let size = 0;
  for (let i = place[0]; i < end; i++) {
    const byte = BYTE[packed.charCodeAt(i)];
    found[size++] = byte === 61 ? BYTE[packed.charCodeAt(++i)] - 64 : byte;  // "=" and a letter
  }
  return found.subarray(0, size);
}
const blobOf = (place) => new Blob([bytesOf(place)], { type: "image/webp" });

const scratch = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
async function bitmapOf(place) {
  try { return await createImageBitmap(blobOf(place), { colorSpaceConversion: "none" }); } catch { throw new Error("a picture of the page is damaged"); }
}
async function decode(place) {  // one channel of a picture
  const picture = await bitmapOf(place), { width, height } = picture;
  if (scratch.canvas.width < width || scratch.canvas.height < height) { scratch.canvas.width = Math.max(width, scratch.canvas.width); scratch.canvas.height = Math.max(height, scratch.canvas.height); }
  scratch.clearRect(0, 0, width, height);
  scratch.drawImage(picture, 0, 0);
  picture.close();
  const pixels = scratch.getImageData(0, 0, width, height).data, values = new Uint8Array(width * height);
  for (let i = 0; i < values.length; i++) values[i] = pixels[4 * i + 1];
  return { width, height, values };
}
function summed({ width, height, values }) {  // numbers from the differences that are stored
  for (let y = 0, place = 0; y < height; y++) {
    for (let x = 0, sum = 0; x < width; x++, place++) {
      sum += values[place];
      values[place] = y ? sum + values[place - width] : sum;
    }
  }
  return values;
}

const KEPT = 60;  // decoded images; those that were looked at longest ago are read again when they are needed
const decoded = new Set();
async function load(index) {
  const image = images[index];
  decoded.delete(index);
  decoded.add(index);
  if (!image.loading) image.loading = read(image, index).catch((error) => { image.loading = null; decoded.delete(index); throw error; });
  await image.loading;
  for (const other of decoded) {
    if (decoded.size <= KEPT) break;
    if (!near.has(other) && other !== state.open && images[other].ready) release(other);
  }
  return image;
}
async function read(image, index) {
  if (!image.photo) {
    const answer = await fetch(`image/${index}`);
    Object.assign(image, await answer.json(), { isFetched: true });
    if (image.error) throw new Error(image.error);
  }
  image.truthLabels = image.truth ? (await decode(image.truth)).values : null;
  for (const run of image.runs) {
    run.numbers = run.number ? summed(await decode(run.number)) : null;
    run.labels = run.label ? (await decode(run.label)).values : null;
    for (const cam of run.cams || []) cam.pixels = await decode(cam.map);
  }
  image.ready = true;
}
function release(index) {
  const image = images[index];
  decoded.delete(index);
  image.ready = false; image.loading = null; image.truthLabels = null;
  for (const run of image.runs) { run.numbers = run.labels = run.small = null; for (const cam of run.cams || []) cam.pixels = null; }
  if (image.isFetched) image.photo = image.truth = image.runs = null;
}

// A photograph as a canvas, whose memory, unlike that of an image element, can be let go at once
async function photoOf(image, alt, width) {
  const picture = await bitmapOf(image.photo), scale = Math.min(1, width / picture.width);
  const canvas = element("canvas", { class: "photo", role: "img", "aria-label": alt, width: Math.round(picture.width * scale), height: Math.round(picture.height * scale) });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close();
  return canvas;
}
function dispose(root) {
  for (const canvas of root.querySelectorAll("canvas")) { canvas.width = canvas.height = 0; canvas.made = null; }
  root.replaceChildren();
}
