// One ONNX file through onnxruntime-node: node node.cjs FOLDER NAME (see consume.py for the files).
const fs = require("fs");
const path = require("path");
const ort = require("onnxruntime-node");

async function main() {
  const [folder, name] = process.argv.slice(2);
  const facts = JSON.parse(fs.readFileSync(path.join(folder, `${name}.json`)));
  const told = { version: require("onnxruntime-node/package.json").version };
  try {
    const session = await ort.InferenceSession.create(path.join(folder, `${name}.onnx`), { intraOpNumThreads: 1 });
    const bytes = fs.readFileSync(path.join(folder, `${name}.input.bin`));
    const Kind = { float32: Float32Array, uint8: Uint8Array }[facts.dtype];
    const values = new Kind(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    const row = facts.shape.reduce((a, b) => a * b, 1);
    const parts = [];
    let start = 0;
    for (const batch of facts.batches) {
      const data = values.slice(start * row, (start + batch) * row);
      const input = new ort.Tensor(facts.dtype, data, [batch, ...facts.shape]);
      const output = (await session.run({ [session.inputNames[0]]: input }))[session.outputNames[0]];
      if (output.dims[0] !== batch || output.dims[1] !== facts.classes) throw new Error(`output shape ${output.dims}`);
      parts.push(Buffer.from(Float32Array.from(output.data).buffer));
      start += batch;
    }
    fs.writeFileSync(path.join(folder, `${name}.onnxruntime-node.bin`), Buffer.concat(parts));
  } catch (error) {
    told.error = String(error.message || error).slice(0, 300);
  }
  console.log(JSON.stringify(told));
}

main();
