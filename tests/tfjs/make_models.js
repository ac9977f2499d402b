// Small layers models of every kind, as TensorFlow.js itself saves them, with what it computes.
//
//     npm install && node make_models.js FOLDER [NAME ...]
//
// makes FOLDER/NAME/model.json, model.weights.bin and cases.json for each model. Weights and inputs
// come from a seed, biases are never zero; the plain JavaScript back end computes. Runs with every
// version of TensorFlow.js since 0.15 for the models that the version knows.

const fs = require("node:fs");
const path = require("node:path");
const tf = require("@tensorflow/tfjs");

const L = tf.layers;

// --- numbers from a seed -------------------------------------------------------------------------

function seeded(text) {
  let a = 0;
  for (const letter of text) a = (Math.imul(a, 31) + letter.charCodeAt(0)) | 0;
  return () => { // mulberry32
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function uniform(random, shape, spread) {
  const size = shape.reduce((a, b) => a * b, 1);
  return Array.from({ length: size }, () => {
    const x = (2 * random() - 1) * spread;
    return Math.fround(x + 0.05 * Math.sign(x));
  });
}

// Every gate other numbers, every bias away from zero, every variance positive.
function fill(model, random) {
  for (const weight of model.weights) {
    const spread = weight.shape.length === 2 ? 1.2 / Math.sqrt(weight.shape[0]) : 0.6;
    let values = uniform(random, weight.shape, spread);
    if (/variance/.test(weight.originalName)) values = values.map((v) => Math.fround(v * v + 0.3));
    weight.write(tf.tensor(values, weight.shape));
  }
}

// --- models: what to build, and the free sizes of its two cases ----------------------------------

function chain(...layers) {
  return tf.sequential({ layers });
}

function branches(shape, layers) {
  const input = tf.input({ shape });
  return tf.model({ inputs: input, outputs: layers.flatMap((layer) => layer.apply(input)) });
}

const ACTIVATIONS = [
  "elu", "relu", "selu", "relu6", "softmax", "softplus", "softsign", "tanh", "sigmoid",
  "hardSigmoid", "linear", "logSoftmax", "swish", "mish", "gelu",
];
const GATES = ["hardSigmoid", "sigmoid", "tanh", "linear", "softsign", "relu", "softmax"];

const MODELS = {
  // The defaults of TensorFlow.js: gates are hardSigmoid.
  lstm: () => chain(L.lstm({ units: 5, inputShape: [6, 3] }), L.dense({ units: 2 })),

  lstm_stack: () => chain(
    L.lstm({ units: 6, returnSequences: true, recurrentActivation: "sigmoid",
             inputShape: [null, 3] }),
    L.dropout({ rate: 0.4 }),
    L.lstm({ units: 4, returnSequences: true, goBackwards: true, useBias: false }),
    L.lstm({ units: 3, activation: "softsign", recurrentDropout: 0.2, dropout: 0.1 }),
    L.dense({ units: 3, activation: "softmax" }),
  ),

  gru: () => chain(
    L.gru({ units: 5, returnSequences: true, inputShape: [null, 2] }),
    L.gru({ units: 4, useBias: false, recurrentActivation: "sigmoid", goBackwards: true,
            returnSequences: true }),
    L.gru({ units: 3, activation: "elu" }),
    L.dense({ units: 2, activation: "tanh", useBias: false }),
  ),

  simple_rnn: () => chain(
    L.simpleRNN({ units: 5, returnSequences: true, inputShape: [null, 3] }),
    L.simpleRNN({ units: 4, activation: "hardSigmoid", goBackwards: true, useBias: false,
                  returnSequences: true }),
    L.simpleRNN({ units: 3, activation: "softplus" }),
  ),

  stateful: () => chain(
    L.lstm({ units: 5, batchInputShape: [3, 4, 2], stateful: true, returnSequences: true }),
    L.gru({ units: 4, stateful: true, returnSequences: true }),
    L.simpleRNN({ units: 3, stateful: true }),
    L.dense({ units: 2 }),
  ),

  bidirectional: () => chain(
    L.bidirectional({ layer: L.lstm({ units: 3, returnSequences: true }), inputShape: [null, 2] }),
    L.bidirectional({ layer: L.gru({ units: 2, returnSequences: true }) }),
    L.bidirectional({ layer: L.simpleRNN({ units: 4 }) }),
    L.dense({ units: 2 }),
  ),

  bidirectional_sum: () => chain(L.bidirectional({
    layer: L.lstm({ units: 3, returnSequences: true }), mergeMode: "sum", inputShape: [null, 2],
  })),
  bidirectional_mul: () => chain(L.bidirectional({
    layer: L.gru({ units: 3 }), mergeMode: "mul", inputShape: [null, 2],
  })),
  bidirectional_ave: () => chain(L.bidirectional({
    layer: L.lstm({ units: 3 }), mergeMode: "ave", inputShape: [null, 2],
  })),
  bidirectional_pair: () => branches([null, 2], [L.bidirectional({
    layer: L.lstm({ units: 3, returnSequences: true }), mergeMode: null,
  })]),
  bidirectional_backwards: () => chain(L.bidirectional({
    layer: L.gru({ units: 2, goBackwards: true, returnSequences: true }), inputShape: [null, 2],
  })),
  bidirectional_state: () => branches([5, 2], [L.bidirectional({
    layer: L.lstm({ units: 3, returnState: true }), mergeMode: "concat",
  })]),

  time_distributed: () => chain(
    L.lstm({ units: 4, returnSequences: true, inputShape: [null, 3] }),
    L.timeDistributed({ layer: L.dense({ units: 5, activation: "relu" }) }),
    L.timeDistributed({ layer: L.dense({ units: 2 }) }),
  ),

  embedding: () => chain(
    L.embedding({ inputDim: 11, outputDim: 4, inputLength: 7 }),
    L.gru({ units: 5 }),
    L.dense({ units: 11, activation: "softmax" }),
  ),

  // Whole numbers in, as a decoder's tokens are.
  ids: () => {
    const tokens = tf.input({ shape: [null], dtype: "int32", name: "tokens" });
    const read = L.embedding({ inputDim: 11, outputDim: 3, name: "words" }).apply(tokens);
    return tf.model({ inputs: tokens, outputs: L.lstm({ units: 4, name: "reader" }).apply(read) });
  },

  two_inputs: () => {
    const series = tf.input({ shape: [null, 3], name: "theSeries" });
    const facts = tf.input({ shape: [4], name: "static_facts" });
    const read = L.lstm({ units: 5, name: "reader" }).apply(series);
    const wide = L.dense({ units: 3, activation: "relu", name: "wide" }).apply(facts);
    const both = L.concatenate({ name: "both" }).apply([read, wide]);
    return tf.model({
      inputs: [facts, series],
      outputs: [L.dense({ units: 2, name: "zScore" }).apply(both),
                L.dense({ units: 1, activation: "sigmoid", name: "alarm" }).apply(both)],
    });
  },

  shared: () => {
    const a = tf.input({ shape: [null, 2], name: "a" });
    const b = tf.input({ shape: [null, 2], name: "b" });
    const encoder = L.lstm({ units: 4, name: "encoder" });
    const score = L.dense({ units: 3, activation: "tanh", name: "score" });
    const [x, y] = [score.apply(encoder.apply(a)), score.apply(encoder.apply(b))];
    return tf.model({
      inputs: [a, b], outputs: [L.multiply().apply([x, y]), L.dot({ axes: 1 }).apply([y, x])],
    });
  },

  nested: () => {
    const inner = tf.sequential({ name: "innerChain", layers: [
      L.gru({ units: 4, returnSequences: true, inputShape: [null, 3], name: "innerGru" }),
      L.dense({ units: 3, name: "inner_dense" }),
    ] });
    const k = tf.input({ shape: [null, 3], name: "k" });
    const graph = tf.model({
      inputs: k, name: "innerGraph",
      outputs: [L.lstm({ units: 2, name: "l" }).apply(k), L.gru({ units: 2, name: "g" }).apply(k)],
    });
    const x = tf.input({ shape: [null, 3], name: "x" });
    const once = inner.apply(x), twice = inner.apply(inner.apply(x));
    const [p, q] = graph.apply(L.add().apply([once, twice]));
    return tf.model({ inputs: x, outputs: [L.add().apply([p, q]), q] });
  },

  seq2seq: () => {
    const source = tf.input({ shape: [null, 3], name: "source" });
    const target = tf.input({ shape: [null, 2], name: "target" });
    const [, h, c] = L.lstm({ units: 4, returnState: true, name: "enc" }).apply(source);
    const [y, h2, c2] = L.lstm({
      units: 4, returnSequences: true, returnState: true, name: "dec",
    }).apply(target, { initialState: [h, c] });
    const z = L.gru({ units: 4, returnSequences: true, name: "dec2" })
      .apply(y, { initialState: [c2] });
    return tf.model({
      inputs: [source, target], outputs: [L.dense({ units: 2, name: "out" }).apply(z), h2, c2],
    });
  },

  activations: () => branches([4], ACTIVATIONS.map(
    (activation) => L.dense({ units: 5, activation, name: `dense_${activation}` }))),

  activation_layers: () => branches([3, 4], [
    L.leakyReLU(), L.leakyReLU({ alpha: 0.1 }), L.elu(), L.reLU(), L.reLU({ maxValue: 0.5 }),
    L.thresholdedReLU(), L.thresholdedReLU({ theta: 0.25 }),
    L.softmax({ axis: -1 }), L.activation({ activation: "softmax" }),
    L.activation({ activation: "hardSigmoid" }),
  ]),

  prelu: () => branches([3, 4], [L.prelu(), L.prelu({ sharedAxes: [1] })]),

  // TensorFlow.js writes this one and cannot read it.
  gelu_new: () => chain(L.dense({ units: 5, activation: "gelu_new", inputShape: [4] })),

  // The default axis is 1, which TensorFlow.js can only compute where that is the last.
  softmax_layer: () => branches([4], [L.softmax()]),

  gates: () => branches([null, 2], [
    ...GATES.map((g) => L.lstm({ units: 3, recurrentActivation: g, name: `lstm_${g}` })),
    ...GATES.map((g) => L.gru({ units: 3, recurrentActivation: g, name: `gru_${g}` })),
    ...["relu", "sigmoid", "hardSigmoid", "selu"].map(
      (a) => L.lstm({ units: 3, activation: a, name: `cell_${a}` })),
  ]),

  normalised: () => chain(
    L.lstm({ units: 4, returnSequences: true, inputShape: [null, 3] }),
    L.batchNormalization(),
    L.gru({ units: 3 }),
    L.batchNormalization({ scale: false, epsilon: 0.01 }),
    L.dense({ units: 2 }),
  ),

  layer_normalised: () => chain(
    L.simpleRNN({ units: 4, returnSequences: true, inputShape: [null, 3] }),
    L.layerNormalization(),
    L.layerNormalization({ center: false, epsilon: 0.01 }),
  ),

  merges: () => {
    const x = tf.input({ shape: [3, 4], name: "x" });
    const a = L.dense({ units: 4 }).apply(x);
    const b = L.gru({ units: 4, returnSequences: true }).apply(x);
    const merge = [L.add(), L.multiply(), L.average(), L.maximum(), L.minimum(),
                   L.concatenate(), L.concatenate({ axis: 1 })];
    return tf.model({
      inputs: x, outputs: [...merge.map((layer) => layer.apply([a, b, x])),
                           L.dot({ axes: 2 }).apply([a, b]), L.dot({ axes: 1 }).apply([a, b]),
                           L.dot({ axes: -1, normalize: true }).apply([a, b])],
    });
  },

  shapes: () => chain(
    L.dense({ units: 6, inputShape: [4] }),
    L.repeatVector({ n: 5 }),
    L.lstm({ units: 4, returnSequences: true }),
    L.permute({ dims: [2, 1] }),
    L.reshape({ targetShape: [10, 2] }),
    L.simpleRNN({ units: 3, returnSequences: true }),
    L.flatten(),
    L.dense({ units: 2 }),
  ),

  cells: () => chain(
    L.rnn({ cell: [L.lstmCell({ units: 3 }), L.gruCell({ units: 2 })], returnSequences: true,
            inputShape: [null, 2] }),
    L.rnn({ cell: L.simpleRNNCell({ units: 3 }) }),
  ),

  masked: () => chain(
    L.embedding({ inputDim: 5, outputDim: 3, maskZero: true, inputLength: 7 }),
    L.lstm({ units: 3, returnSequences: true }),
  ),

  masking: () => chain(
    L.masking({ maskValue: 0, inputShape: [null, 2] }),
    L.gru({ units: 3, returnSequences: true }),
    L.lstm({ units: 2 }),
  ),

  // All that does nothing once a model is trained.
  noises: () => chain(
    L.dense({ units: 4, inputShape: [5, 3] }),
    L.dropout({ rate: 0.5, noiseShape: [null, 1, 4] }),
    L.gaussianNoise({ stddev: 2 }),
    L.gaussianDropout({ rate: 0.5 }),
    L.alphaDropout({ rate: 0.5 }),
    L.spatialDropout1d({ rate: 0.5 }),
    L.lstm({ units: 2 }),
  ),

  convolutional: () => chain(
    L.conv1d({ filters: 4, kernelSize: 3, padding: "same", activation: "relu",
               inputShape: [8, 2] }),
    L.maxPooling1d({ poolSize: 2 }),
    L.lstm({ units: 3, returnSequences: true }),
    L.globalAveragePooling1d(),
  ),

  // Names that look like other things.
  names: () => chain(
    L.lstm({ units: 3, returnSequences: true, name: "hardSigmoid", inputShape: [null, 2] }),
    L.gru({ units: 3, returnSequences: true, name: "recurrent_kernel" }),
    L.dense({ units: 3, name: "lstm_cell" }),
    L.dense({ units: 2, name: "last.one-2" }),
  ),

  slashes: () => chain(
    L.lstm({ units: 3, name: "reader/lstm", inputShape: [null, 2] }),
    L.dense({ units: 2, name: "reader/dense" }),
  ),

  trained: () => {
    const model = chain(
      L.lstm({ units: 4, inputShape: [5, 2] }), L.dense({ units: 2, name: "last" }));
    model.compile({ loss: "meanSquaredError", optimizer: "adam", metrics: ["mae"] });
    return model;
  },

  long: () => chain(
    L.lstm({ units: 8, returnSequences: true, inputShape: [null, 1] }),
    L.dense({ units: 1, activation: "linear" }),
  ),
};

// --- cases ---------------------------------------------------------------------------------------

const SIZES = { long: [[1, 120]], stateful: [[3, 4], [3, 4], [3, 4]] };

function makeInput(input, name, [batch, steps], random) {
  const shape = input.shape.map((n, axis) => n || (axis ? steps : batch));
  const ids = /embedding|masked|ids/.test(name);
  const highest = name === "masked" ? 5 : 11;
  let values = ids
    ? Array.from({ length: shape[0] * shape[1] }, () => Math.floor(random() * highest))
    : uniform(random, shape, 1.8);
  // Every third step is masked, the first among them.
  if (name === "masking") values = values.map((v, i) => ((i / shape[2] | 0) % 3 ? v : 0));
  return tf.tensor(values, shape, ids ? "int32" : "float32");
}

function plain(name, tensor) {
  const data = Array.from(tensor.dataSync(), (v) => Number(v.toPrecision(9)));
  return { name, shape: tensor.shape, dtype: tensor.dtype, data };
}

function record(model, name, random) {
  const sizes = SIZES[name] || [[4, 6], [1, 3]];
  return sizes.map((size, k) => {
    if (name === "stateful" && k === 2) model.resetStates();
    const inputs = model.inputs.map((input) => makeInput(input, name, size, random));
    const y = model.predict(inputs.length > 1 ? inputs : inputs[0], { batchSize: size[0] });
    return {
      inputs: inputs.map((x, i) => plain(model.inputs[i].name, x)),
      outputs: (Array.isArray(y) ? y : [y]).map((t, i) => plain(model.outputs[i].name, t)),
    };
  });
}

// --- files, as model.save lays them out in a browser ---------------------------------------------

function modelJson(artifacts, manifest) {
  const { modelTopology, format, generatedBy, convertedBy } = artifacts;
  const json = { modelTopology, format, generatedBy, convertedBy, weightsManifest: manifest };
  for (const key of ["signature", "userDefinedMetadata", "trainingConfig"]) {
    if (artifacts[key] != null) json[key] = artifacts[key];
  }
  return json;
}

async function save(model, folder, config) {
  await model.save(tf.io.withSaveHandler(async (artifacts) => {
    const manifest = [{ paths: ["./model.weights.bin"], weights: artifacts.weightSpecs }];
    const json = modelJson(artifacts, manifest);
    fs.writeFileSync(path.join(folder, "model.json"), JSON.stringify(json));
    fs.writeFileSync(path.join(folder, "model.weights.bin"), Buffer.from(artifacts.weightData));
    return { modelArtifactsInfo: { dateSaved: new Date(0), modelTopologyType: "JSON" } };
  }), config);
}

async function write(name, root) {
  const random = seeded(name);
  const model = MODELS[name]();
  fill(model, random);
  const config = {};
  if (name === "trained") {
    const [x, y] = [tf.tensor(uniform(random, [6, 5, 2], 1), [6, 5, 2]), tf.ones([6, 2])];
    await model.fit(x, y, { epochs: 2, batchSize: 6, shuffle: false, verbose: 0 });
    model.setUserDefinedMetadata({ scale: [1, 2.5], units: "mm", weightsManifest: [] });
    config.includeOptimizer = true;
  }
  const folder = path.join(root, name);
  fs.mkdirSync(folder, { recursive: true });
  const cases = record(model, name, random);
  await save(model, folder, config);
  const text = cases.map((c) => JSON.stringify(c)).join(",\n");
  fs.writeFileSync(path.join(folder, "cases.json"),
    `{"version": "${tf.version.tfjs}", "cases": [\n${text}\n]}\n`);
}

async function main([root, ...names]) {
  if (!root) throw new Error("usage: node make_models.js FOLDER [NAME ...]");
  await tf.setBackend("cpu");
  for (const name of names.length ? names : Object.keys(MODELS)) await write(name, root);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
