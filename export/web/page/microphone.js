// The last seconds that the microphone has heard.

import { moduleUrl } from "./assets.js";

export class Microphone {
    #context;
    #stream;
    #ring; // [N], the newest sample last
    #heard = 0; // samples in it

    /** Asks for the microphone; keeps the last `seconds`. Calls `onBlock(samples, rate)` for each block. */
    static async opened({ seconds, onBlock }) {
        if (!navigator.mediaDevices) throw new Error("The browser gives no microphone to this address: it needs https or localhost.");
        const microphone = new Microphone();
        const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
        microphone.#stream = await navigator.mediaDevices.getUserMedia({ audio: raw }).catch(error => {
            throw new Error(refusals[error.name] ?? error.message);
        });
        try {
            await microphone.#listen(seconds, onBlock);
        } catch (error) {
            microphone.close();
            throw error;
        }
        return microphone;
    }

    /** What was heard last: {rate, channels: [[N]]}, N at most the seconds that are kept. */
    recent() {
        return { rate: this.#context.sampleRate, channels: [this.#ring.slice(this.#ring.length - this.#heard)] };
    }

    close() {
        for (const track of this.#stream.getTracks()) track.stop();
        if (this.#context && this.#context.state !== "closed") this.#context.close();
    }

    async #listen(seconds, onBlock) {
        this.#context = new AudioContext();
        this.#ring = new Float32Array(Math.ceil(seconds * this.#context.sampleRate));
        await this.#context.audioWorklet.addModule(await moduleUrl("tap.js"));
        const tap = new AudioWorkletNode(this.#context, "tap", { numberOfOutputs: 0, channelCount: 1 });
        tap.port.onmessage = ({ data: [samples] }) => {
            this.#ring.copyWithin(0, samples.length);
            this.#ring.set(samples, this.#ring.length - samples.length);
            this.#heard = Math.min(this.#ring.length, this.#heard + samples.length);
            onBlock(samples, this.#context.sampleRate);
        };
        this.#context.createMediaStreamSource(this.#stream).connect(tap);
        await this.#context.resume();
    }
}

const refusals = {
    NotAllowedError: "The browser was not allowed to use the microphone.",
    NotFoundError: "This computer has no microphone.",
    NotReadableError: "Another program has the microphone.",
};
