// From any rate to the model's. The browser's own resampling moves scores by up to 0.03.
//
// The filter has the passband, stopband and attenuation of soxr's HQ, which `rrtn score` uses: a sinc under
// Kaiser's window, one set of weights for each phase that an output sample can have between two input samples.

const PASSBAND = 0.9136; // of half the lower rate; the stopband begins at half the lower rate
const ATTENUATION = 133; // dB

/** samples [N] at rate `from` -> Float32Array [N * to / from, rounded] at rate `to`. */
export function resampled(samples, from, to) {
    if (from === to) return samples;
    const { weights, taps, before, up, down } = filterOf(from, to);
    const padded = new Float32Array(samples.length + 2 * taps);
    padded.set(samples, taps);
    const result = new Float32Array(Math.floor(samples.length * up / down + 0.5));
    for (let i = 0; i < result.length; i++) {
        const place = i * down, phase = place % up;
        const first = (place - phase) / up - before + taps, row = phase * taps;
        let sum = 0;
        for (let k = 0; k < taps; k++) sum += weights[row + k] * padded[first + k];
        result[i] = sum;
    }
    return result;
}

const filters = new Map();

/** The weights [up, taps]; output i lies at input i * down / up, and its first tap `before` it. */
function filterOf(from, to) {
    const key = `${from} ${to}`;
    if (!filters.has(key)) filters.set(key, newFilter(from, to));
    return filters.get(key);
}

function newFilter(from, to) {
    const common = divisor(from, to), up = to / common, down = from / common;
    const scale = Math.min(1, to / from), beta = 0.1102 * (ATTENUATION - 8.7);
    const half = (ATTENUATION - 7.95) / (2.285 * Math.PI * (1 - PASSBAND) * scale) / 2; // Kaiser 1974, samples
    const cutoff = (1 + PASSBAND) / 2 * scale; // of half the input rate
    const before = Math.ceil(half), taps = 2 * before + 1;
    const weights = new Float32Array(up * taps);
    for (let phase = 0; phase < up; phase++) {
        const row = weights.subarray(phase * taps, (phase + 1) * taps);
        let sum = 0;
        for (let k = 0; k < taps; k++) {
            const distance = k - before - phase / up, inside = 1 - (distance / half) ** 2;
            row[k] = inside > 0 ? sinc(cutoff * distance) * bessel(beta * Math.sqrt(inside)) : 0;
            sum += row[k];
        }
        for (let k = 0; k < taps; k++) row[k] /= sum; // a constant stays one
    }
    return { weights, taps, before, up, down };
}

function divisor(a, b) {
    return b === 0 ? a : divisor(b, a % b);
}

function sinc(x) {
    return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** The modified Bessel function I0, by its series. */
function bessel(x) {
    let sum = 1;
    for (let k = 1, term = 1; term > 1e-12 * sum; k++) sum += term *= (x / 2 / k) ** 2;
    return sum;
}
