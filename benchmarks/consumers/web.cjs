// One ONNX file through onnxruntime-web in a real headless Chromium: node web.cjs FOLDER NAME (see consume.py for the files).
const fs = require("fs");
const http = require("http");
const path = require("path");
const puppeteer = require("puppeteer-core");

const [folder, name] = process.argv.slice(2);
const dist = path.dirname(require.resolve("onnxruntime-web"));
const kinds = { ".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html", ".json": "application/json" };

function serve(request, response) {
  const url = decodeURIComponent(request.url.split("?")[0]);
  const file = url.startsWith("/ort/") ? path.join(dist, path.basename(url)) : path.join(folder, path.basename(url));
  if (url === "/") return response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>consumer</title>");
  if (!fs.existsSync(file)) return response.writeHead(404).end();
  response.writeHead(200, { "Content-Type": kinds[path.extname(file)] || "application/octet-stream" });
  fs.createReadStream(file).pipe(response);
}

// Runs in the page: nothing of node is there.
async function inPage(name) {
  const ort = await import("/ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = "/ort/";
  ort.env.wasm.numThreads = 1;
  const facts = await (await fetch(`/${name}.json`)).json();
  const bytes = await (await fetch(`/${name}.input.bin`)).arrayBuffer();
  const values = new { float32: Float32Array, uint8: Uint8Array }[facts.dtype](bytes);
  const session = await ort.InferenceSession.create(`/${name}.onnx`, { executionProviders: ["wasm"] });
  const row = facts.shape.reduce((a, b) => a * b, 1);
  const rows = [];
  let start = 0;
  for (const batch of facts.batches) {
    const data = values.slice(start * row, (start + batch) * row);
    const input = new ort.Tensor(facts.dtype, data, [batch, ...facts.shape]);
    const output = (await session.run({ [session.inputNames[0]]: input }))[session.outputNames[0]];
    if (output.dims[0] !== batch || output.dims[1] !== facts.classes) throw new Error(`output shape ${output.dims}`);
    rows.push(...output.data);
    start += batch;
  }
  return rows;
}

async function main() {
  const told = { version: require(path.join(dist, "..", "package.json")).version };
  const server = http.createServer(serve).listen(0, "127.0.0.1");
  await new Promise((done) => server.once("listening", done));
  const options = { executablePath: process.env.CHROMIUM || "/usr/bin/chromium", headless: true, args: ["--no-sandbox"] };
  const browser = await puppeteer.launch({ ...options, protocolTimeout: 600000 });
  try {
    told.version += `, ${await browser.version()}`;
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    const rows = await page.evaluate(inPage, name);
    fs.writeFileSync(path.join(folder, `${name}.onnxruntime-web.bin`), Buffer.from(Float32Array.from(rows).buffer));
  } catch (error) {
    told.error = String(error.message || error).replace(/\s+/g, " ").slice(0, 300);
  } finally {
    await browser.close();
    server.close();
  }
  console.log(JSON.stringify(told));
}

main();
