// Train the stateful sine model in TensorFlow.js and record what it computes.
//
// Network, batches and training are those of an article on stateful LSTMs in TensorFlow.js: four
// cycles of a sine wave scaled to [0, 1], 25 values in, the next one out; all 175 windows are one
// batch, never shuffled, and the state is reset before every epoch.
//
// TensorFlow.js writes model.json and model.weights.bin; recorded.json holds its own outputs.
//
//     npm install && node train.js

import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import * as tf from "@tensorflow/tfjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const STEPS = 25, WINDOWS = 175, CYCLE = 50, AHEAD = 4 * CYCLE;
const MAX_EPOCHS = 2000, SATURATED = 1e-8;

// The weights are set once, from a seed, so that training runs the same way every time.
function network(batch) {
  const kernel = (seed) => tf.initializers.glorotUniform({ seed });
  const model = tf.sequential({ name: "stateful_sine" });
  model.add(tf.layers.lstm({
    units: 32, returnSequences: false, batchInputShape: [batch, STEPS, 1], stateful: true,
    kernelInitializer: kernel(1), recurrentInitializer: tf.initializers.orthogonal({ seed: 2 }),
    name: "lstm",
  }));
  model.add(tf.layers.dense({
    units: 128, activation: "relu", kernelInitializer: kernel(3), name: "dense",
  }));
  model.add(tf.layers.dense({
    units: 1, activation: "linear", useBias: true, kernelInitializer: kernel(4), name: "output",
  }));
  return model;
}

function windows() {
  const wave = Array.from({ length: WINDOWS + STEPS }, (_, t) =>
    Math.fround(0.5 + 0.5 * Math.sin((2 * Math.PI * t) / CYCLE)));
  const rows = Array.from({ length: WINDOWS }, (_, k) => wave.slice(k, k + STEPS));
  return { wave, rows, next: wave.slice(STEPS) };
}

async function train(rows, next) {
  const model = network(WINDOWS);
  model.compile({ optimizer: tf.train.adam(3e-4), loss: tf.losses.meanSquaredError });
  const x = tf.tensor2d(rows).reshape([WINDOWS, STEPS, 1]);
  const y = tf.tensor2d(next, [WINDOWS, 1]);
  let before = NaN;
  for (let epoch = 0; epoch < MAX_EPOCHS; epoch++) {
    model.resetStates();
    const { history } = await model.fit(x, y, {
      epochs: 1, batchSize: WINDOWS, shuffle: false, verbose: 0,
    });
    const loss = history.loss[0];
    if (epoch % 50 === 0) console.log(`epoch ${epoch}: loss ${loss.toExponential(3)}`);
    if (Math.abs(loss - before) < SATURATED) break;
    before = loss;
  }
  return model;
}

// A model of the same weights that takes one window at a time.
function single(model) {
  const copy = network(1);
  copy.setWeights(model.getWeights());
  return copy;
}

function predict(model, rows, batch = 1) {
  return tf.tidy(() => Array.from(
    model.predict(tf.tensor2d(rows).reshape([batch, STEPS, 1]), { batchSize: batch }).dataSync()));
}

function states(model) {
  return model.layers[0].states.map((s) => Array.from(s.dataSync()));
}

// TensorFlow.js in a browser or in plain Node writes files by posting them: take them in here.
async function save(model) {
  const server = createServer(async (request, response) => {
    const body = new Response(Readable.toWeb(request), { headers: request.headers });
    for (const file of (await body.formData()).values()) {
      writeFileSync(join(HERE, file.name), Buffer.from(await file.arrayBuffer()));
    }
    response.end();
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  await model.save(`http://127.0.0.1:${server.address().port}/`);
  server.close();
}

function record(model, { wave, rows }) {
  // The whole batch, from a state of zeros and once more from the state that this left behind.
  model.resetStates();
  const batch = [{ state: null, y: predict(model, rows, WINDOWS) }];
  batch.push({ state: states(model), y: predict(model, rows, WINDOWS) });
  // One window after the other, the state carried from each to the next.
  const one = single(model);
  one.resetStates();
  const oneByOne = rows.map((row) => predict(one, [row])[0]);
  // On from the last window, each output the next input's last value, the state carried on.
  let window = wave.slice(-STEPS);
  const ahead = [];
  for (let k = 0; k < AHEAD; k++) {
    const [y] = predict(one, [window]);
    ahead.push(y);
    window = [...window.slice(1), y];
  }
  // Each window for itself.
  const fresh = rows.map((row) => {
    one.resetStates();
    return predict(one, [row])[0];
  });
  return { version: tf.version.tfjs, wave, batch, one_by_one: oneByOne, ahead, fresh };
}

await tf.setBackend("cpu");
const data = windows();
const started = Date.now();
const model = await train(data.rows, data.next);
console.log(`trained in ${((Date.now() - started) / 1000).toFixed(0)} s`);
await save(model);
writeFileSync(join(HERE, "recorded.json"), JSON.stringify(record(model, data)) + "\n");
