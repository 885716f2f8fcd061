// The worker with the model, seen from the page.

import { assetBytes, moduleUrl, workerUrl } from "./assets.js";

const MOST_THREADS = 4;

export class Scorer {
    #worker;
    #waiting = new Map(); // id -> {resolve, reject}
    #count = 0;

    /** Loads the model. `description` is model.json. Threads need a page that is cross-origin isolated. */
    static async loaded({ rate, clip, trim }) {
        const scorer = new Scorer();
        scorer.#worker = new Worker(await workerUrl("worker.js"), { type: "module" });
        scorer.threads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
        const [runtime, bytes, glue] = await Promise.all([
            assetBytes("ort-wasm-simd-threaded.wasm.gz"),
            assetBytes("model.onnx.gz"),
            moduleUrl("ort-wasm-simd-threaded.mjs"),
        ]);
        const start = { runtime, glue, bytes, threads: scorer.threads, rate, clip, trim };
        await scorer.#ask({ start }, [runtime.buffer, bytes.buffer]);
        return scorer;
    }

    /** channels [C][N] at `rate` Hz, which are given away -> what the worker's `scored` gives. */
    score({ rate, channels }) {
        return this.#ask({ rate, channels }, channels.map(channel => channel.buffer));
    }

    #ask(message, transferred) {
        return new Promise((resolve, reject) => {
            const id = message.start ? undefined : this.#count++;
            this.#waiting.set(id, { resolve, reject });
            this.#worker.onmessage = ({ data }) => this.#answer(data);
            this.#worker.onerror = event => reject(new Error(event.message || "the worker did not start"));
            this.#worker.postMessage({ id, ...message }, transferred);
        });
    }

    #answer({ id, ...answer }) {
        const { resolve, reject } = this.#waiting.get(id);
        this.#waiting.delete(id);
        if (answer.message) reject(Object.assign(new Error(answer.message), { code: answer.code }));
        else resolve(answer);
    }
}
