// In the audio thread: gives what the microphone hears to the page.

registerProcessor("tap", class extends AudioWorkletProcessor {
    process([input]) {
        if (input.length) this.port.postMessage(input.map(channel => channel.slice()));
        return true;
    }
});
