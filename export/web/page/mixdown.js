// Many channels to one, by the rules of rrtn's runtime/audio/mixdown.py:
// the mean of all; the loudest where they cancel each other; without an offset of more than 15% of the peak.

const SILENCE_PEAK = 1e-7; // below the last bit of 24-bit audio
const CANCELLED = 0.1; // of the power that the mean of unrelated channels has
const EQUAL = 0.99; // of the power of the loudest
const OFFSET = 0.15; // of the peak
const SHORTEST = 0.1; // s: a click has a mean, too

/** channels [C][N] at `rate` Hz -> {mono: Float32Array [N], flags}. */
export function mixedDown(channels, rate) {
    const flags = [];
    let mono = mean(channels);
    if (channels.length > 1) {
        const powers = channels.map(power), loudest = Math.max(...powers);
        const unrelated = powers.reduce((sum, one) => sum + one, 0) / channels.length ** 2;
        if (loudest > SILENCE_PEAK ** 2 && power(mono) < CANCELLED * unrelated) {
            mono = channels[powers.findIndex(one => one >= EQUAL * loudest)];
            flags.push("one_channel");
        }
    }
    const offset = average(mono);
    if (mono.length >= SHORTEST * rate && Math.abs(offset) > Math.max(OFFSET * peakAround(mono, offset), SILENCE_PEAK)) {
        mono = mono.map(sample => sample - Math.fround(offset));
        flags.push("dc");
    }
    return { mono, flags };
}

function mean(channels) {
    if (channels.length === 1) return channels[0];
    return channels[0].map((_, i) => {
        let sum = 0;
        for (const channel of channels) sum = Math.fround(sum + channel[i]);
        return sum / channels.length;
    });
}

function average(samples) {
    let sum = 0;
    for (const sample of samples) sum += sample;
    return sum / samples.length;
}

/** Mean square without the mean. */
function power(samples) {
    const centre = average(samples);
    let sum = 0;
    for (const sample of samples) sum += (sample - centre) ** 2;
    return sum / samples.length;
}

function peakAround(samples, centre) {
    let peak = 0;
    for (const sample of samples) peak = Math.max(peak, Math.abs(sample - centre));
    return peak;
}
