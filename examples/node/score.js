/* Scores WAV files with model.samples.onnx of a bundle (rrtn export --samples):
 *
 *     npm install --ignore-scripts
 *     node score.js BUNDLE a.wav b.wav
 *
 * Prints CSV. Files have the model's sampling rate, one channel and 16 bits. All arithmetic is in the model.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

process.env.ORT_DISABLE_TELEMETRY ??= "1";
const { InferenceSession, Tensor } = await import("onnxruntime-node");

/** -> the samples of a WAV file of this rate (Hz) in [-1, 1) */
function samplesOfWav(path, rate) {
  const wanted = `${path}: is not ${rate} Hz, one channel, 16 bits`;
  const bytes = readFileSync(path);
  const word = (at) => bytes.toString("latin1", at, at + 4);
  if (word(0) !== "RIFF" || word(8) !== "WAVE") throw new Error(`${path}: no WAV file`);
  let format = null;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const length = bytes.readUInt32LE(at + 4), chunk = bytes.subarray(at + 8, at + 8 + length);
    if (chunk.length < length) throw new Error(`${path}: is cut off`);
    if (word(at) === "fmt ") {
      if (length < 16) throw new Error(wanted);
      format = [chunk.readUInt32LE(4), chunk.readUInt16LE(2), chunk.readUInt16LE(14)].join();
    }
    if (word(at) === "data") {
      if (format !== `${rate},1,16`) throw new Error(wanted);
      if (length < 2) throw new Error(`${path}: has no samples`);
      for (let next = at + 8 + length + (length & 1); next + 8 <= bytes.length; ) {
        if (["data", "RIFF"].includes(word(next))) throw new Error(`${path}: has several recordings`);
        const more = bytes.readUInt32LE(next + 4);
        next += 8 + more + (more & 1);
      }
      return Float32Array.from({ length: length >> 1 }, (_, i) => chunk.readInt16LE(2 * i) / 32768);
    }
    at += 8 + length + (length & 1);
  }
  throw new Error(`${path}: has no samples`);
}

const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

async function main([bundle, ...files]) {
  if (!files.length) throw new Error("usage: node score.js BUNDLE FILE.wav ...");
  const { labels, frontend } = JSON.parse(readFileSync(join(bundle, "bundle.json"), "utf8"));
  const session = await InferenceSession.create(join(bundle, "model.samples.onnx"));
  console.log(["file", ...labels].map(cell).join());
  for (const file of files) {
    const samples = samplesOfWav(file, frontend.sampling_rate);
    const { scores } = await session.run({ samples: new Tensor("float32", samples, [1, samples.length]) });
    console.log([cell(file), ...scores.data].join());
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
