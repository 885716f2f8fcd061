// Runs the model beside the page, so that the page answers while the model is at work.
//
// In:  {start: {runtime, glue, bytes, threads, rate, clip, trim}}, then {id, rate, channels: [Float32Array]}
// Out: {}, then {id, scores, ...} as `scored` gives it; {id, code, message} where that fails

import * as ort from "./ort.wasm.min.mjs";
import { mixedDown } from "./mixdown.js";
import { resampled } from "./resample.js";
import { soundOf } from "./sound.js";
import { coded } from "./wav.js";

let session, model;

/** `rate` in Hz, `clip` in samples: what the model hears of a recording, from its first sound on with `trim`. */
async function start({ runtime, glue, bytes, threads, rate, clip, trim }) {
    model = { rate, clip, trim };
    const wasm = URL.createObjectURL(new Blob([runtime], { type: "application/wasm" }));
    ort.env.wasm.wasmPaths = { mjs: glue, wasm };
    ort.env.wasm.numThreads = threads;
    session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    await run(new Float32Array(1)); // the first run takes longer
    URL.revokeObjectURL(wasm);
}

/** channels [C][N] at `rate` Hz -> scores, and what `rrtn score` says of such a file beside them. */
async function scored({ rate, channels }) {
    const begun = performance.now();
    const { mono, flags } = mixedDown(channels, rate);
    const samples = resampled(mono, rate, model.rate);
    if (samples.length === 0) throw coded("empty", "no samples");
    const sound = soundOf(samples, model.rate);
    if (!Number.isFinite(sound.peak)) throw coded("non_finite", "NaN or infinity among the samples");
    const [begin, last] = model.trim ? [sound.begin, sound.end] : [0, samples.length];
    const end = Math.min(last, begin + model.clip);
    const ready = performance.now();
    const scores = await run(samples);
    if (!scores.every(Number.isFinite)) throw coded("invalid_score", "the model gave NaN or infinity");
    return {
        scores,
        flags: [
            ...(sound.within(begin, end) ? [] : ["silent"]),
            ...(end < last && sound.within(end, last) ? ["only_start"] : []),
            ...flags,
        ],
        start: begin / model.rate,
        end: end / model.rate,
        seconds: samples.length / model.rate,
        peak: sound.peak,
        heard: samples.slice(begin, end),
        milliseconds: { prepare: ready - begun, model: performance.now() - ready },
    };
}

async function run(samples) {
    const tensor = new ort.Tensor("float32", samples, [1, samples.length]);
    return [...(await session.run({ samples: tensor }, ["scores"])).scores.data];
}

self.onmessage = async ({ data }) => {
    try {
        self.postMessage(data.start ? (await start(data.start), {}) : { id: data.id, ...await scored(data) });
    } catch (error) {
        self.postMessage({ id: data.id, code: error.code ?? "crashed", message: error.message ?? String(error) });
    }
};
