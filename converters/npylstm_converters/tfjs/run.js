// Runs a layers model of TensorFlow.js for npylstm.
//
//     node run.js MODEL.json
//
// The first line that it writes describes the model. Then each line that it reads is one call, and
// each line that it writes the answer; arrays are {shape, dtype, data}, data in base64. The package
// @tensorflow/tfjs is found as Node finds packages: in NODE_PATH, or installed globally.

const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
for (const method of ["log", "warn", "info"]) console[method] = () => {};

function requirePackage() {
  const global = path.join(path.dirname(process.execPath), "..", "lib", "node_modules");
  const places = (process.env.NODE_PATH || "").split(path.delimiter).filter(Boolean);
  return require(require.resolve("@tensorflow/tfjs", { paths: [...places, global] }));
}

function readModel(file) {
  const document = JSON.parse(fs.readFileSync(file, "utf8").replace(/^\ufeff/, ""));
  const groups = document.weightsManifest || [];
  const shards = groups.flatMap((group) => group.paths.map((name) => path.join(path.dirname(file), name)));
  const bytes = Buffer.concat(shards.map((name) => fs.readFileSync(name)));
  return {
    modelTopology: document.modelTopology,
    weightSpecs: groups.flatMap((group) => group.weights),
    weightData: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
    format: document.format,
  };
}

function toTensor(tf, { shape, dtype, data }) {
  const bytes = Buffer.from(data, "base64");
  const Kind = dtype === "int32" ? Int32Array : Float32Array;
  const values = new Kind(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  return tf.tensor(values, shape, dtype);
}

function toArray(tensor) {
  const values = Float32Array.from(tensor.dataSync());
  return { shape: tensor.shape, data: Buffer.from(values.buffer).toString("base64") };
}

function compute(tf, model, inputs) {
  return tf.tidy(() => {
    model.resetStates();
    const tensors = inputs.map((array) => toTensor(tf, array));
    const y = model.predictOnBatch(tensors.length === 1 ? tensors[0] : tensors);
    return (Array.isArray(y) ? y : [y]).map(toArray);
  });
}

async function main() {
  const tf = requirePackage();
  await tf.setBackend("cpu");
  const model = await tf.loadLayersModel({ load: async () => readModel(process.argv[2]) });
  const shapes = model.inputs.map((tensor) => tensor.shape);
  answer({ version: tf.version.tfjs, shapes });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      answer({ outputs: compute(tf, model, JSON.parse(line)) });
    } catch (error) {
      answer({ error: String(error.message || error) });
    }
  }
}

main().catch((error) => {
  answer({ error: String(error.message || error) });
  process.exitCode = 1;
});
