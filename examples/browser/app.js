// Classifies a dropped image with a network and its pruned version, in the browser, and clocks both in turn.
import * as ort from "./ort/ort.wasm.min.mjs";

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = 1;
const LEAST = 20, SECONDS = 4, WARM_UP = 5, SHOWN = 5; // rounds at least, seconds to go on
const $ = (id) => document.getElementById(id);
const kib = (bytes) => (bytes > 2 ** 20 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${Math.round(bytes / 1024)} KiB`);
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

const about = await (await fetch("model.json")).json();
const sessions = {};
for (const name of ["base", "model"]) {
  sessions[name] = await ort.InferenceSession.create(`${name}.onnx`, { executionProviders: ["wasm"] });
  $(name).querySelector(".facts").textContent = kib(about.bytes[name]);
}
$("about").textContent = `${about.name}: ${about.classes.length} classes, ${about.size[1]} × ${about.size[0]} pixels`;
document.body.dataset.ready = "1";

// The picture as the network was trained to see it: short side to `resize`, centre crop; pixels as (c, h, w), normalised.
async function prepare(picture) {
  const [height, width] = about.size;
  const scale = about.resize ? about.resize / Math.min(picture.width, picture.height) : 0;
  const [w, h] = scale ? [Math.floor(picture.width * scale), Math.floor(picture.height * scale)] : [width, height];
  const canvas = $("preview");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  // createImageBitmap filters when it shrinks; drawImage alone would skip pixels.
  const small = await createImageBitmap(picture, { resizeWidth: w, resizeHeight: h, resizeQuality: "high" });
  context.drawImage(small, -Math.round((w - width) / 2), -Math.round((h - height) / 2));
  const rgba = context.getImageData(0, 0, width, height).data;
  const channels = about.mean.length, plane = width * height, values = new Float32Array(channels * plane);
  for (let i = 0; i < plane; i++) {
    const [r, g, b] = rgba.subarray(4 * i, 4 * i + 3);
    const pixel = channels === 1 ? [0.299 * r + 0.587 * g + 0.114 * b] : [r, g, b];
    for (let c = 0; c < channels; c++) values[c * plane + i] = (pixel[c] / 255 - about.mean[c]) / about.std[c];
  }
  return new ort.Tensor("float32", values, [1, channels, height, width]);
}

async function run(name, input) {
  const session = sessions[name];
  const started = performance.now();
  const output = await session.run({ [session.inputNames[0]]: input });
  return [performance.now() - started, output[session.outputNames[0]].data];
}

function show(name, logits, milliseconds) {
  const top = Math.max(...logits);
  const exponents = Array.from(logits, (value) => Math.exp(value - top));
  const total = exponents.reduce((a, b) => a + b, 0);
  const ranked = exponents.map((value, index) => [value / total, index]).sort((a, b) => b[0] - a[0]).slice(0, SHOWN);
  $(name).querySelector(".latency").textContent = milliseconds === null ? "…" : `${milliseconds.toFixed(2)} ms`;
  $(name).querySelector("ol").replaceChildren(...ranked.map(([share, index]) => {
    const row = document.createElement("li"), label = document.createElement("span"), bar = document.createElement("span");
    label.textContent = label.title = about.classes[index] ?? `class ${index}`;
    bar.className = "bar";
    bar.append(Object.assign(document.createElement("i"), { style: `width: ${100 * share}%` }));
    row.append(label, bar, Object.assign(document.createElement("span"), { textContent: `${(100 * share).toFixed(1)} %` }));
    return row;
  }));
  return ranked[0][1];
}

async function classify(file) {
  delete document.body.dataset.done;
  $("verdict").textContent = "measuring …";
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    $("verdict").textContent = `${file.name} is no image that this browser can read`;
    return;
  }
  const input = await prepare(picture);
  $("hint").innerHTML = "<strong></strong><br>what the network sees; drop another image";
  $("hint").querySelector("strong").textContent = file.name ?? "image";
  const answers = {}, times = { base: [], model: [] };
  const started = performance.now();
  for (let round = 0; round < WARM_UP + LEAST || performance.now() - started < 1000 * SECONDS; round++) {
    for (const name of round % 2 ? ["base", "model"] : ["model", "base"]) {
      const [milliseconds, logits] = await run(name, input);
      answers[name] = logits;
      if (round >= WARM_UP) times[name].push(milliseconds);
    }
    if (round === 0) for (const name of ["base", "model"]) show(name, answers[name], null);
    if (round % 10 === 0) await new Promise((done) => setTimeout(done)); // the page stays alive
  }
  const said = ["base", "model"].map((name) => show(name, answers[name], median(times[name])));
  const ratio = median(times.base.map((value, round) => value / times.model[round]));
  const same = said[0] === said[1] ? "the same answer" : "another answer";
  $("verdict").textContent = `${same}, ${ratio >= 1 ? `${ratio.toFixed(2)} × as fast` : `slower: ${ratio.toFixed(2)} ×`}`;
  document.body.dataset.done = "1";
}

const drop = $("drop");
$("file").addEventListener("change", (event) => event.target.files[0] && classify(event.target.files[0]));
for (const kind of ["dragover", "dragenter"]) {
  drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) classify(event.dataTransfer.files[0]);
});
