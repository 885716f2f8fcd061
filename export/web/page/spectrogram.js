// The log-Mel that the model hears, drawn. For the eye alone: the model's own is inside its graph.

const RANGE = 70; // dB below the loudest that are shown
const LINEAR_HERTZ_PER_MEL = 200 / 3, BREAK_HERTZ = 1000, BREAK_MEL = 15, LOG_STEP = Math.log(6.4) / 27; // Slaney
const INK = [[0, 0, 8], [60, 15, 110], [160, 40, 120], [235, 95, 75], [253, 190, 90], [252, 250, 210]];

/** Draws samples [N] into a canvas; none leave it empty. `shape` is model.json's frontend. */
export function drawSpectrogram(canvas, samples, shape) {
    const { frames, n_mels: mels, hop } = shape;
    canvas.width = frames;
    canvas.height = mels;
    if (!samples.length) return;
    const powers = melPowers(samples, Math.min(frames, Math.ceil(samples.length / hop)), shape);
    const top = powers.reduce((most, power) => Math.max(most, power), 1e-10);
    const context = canvas.getContext("2d"), image = context.createImageData(frames, mels);
    for (let x = 0; x < frames; x++)
        for (let y = 0; y < mels; y++) {
            const level = 1 + 10 * Math.log10((powers[x * mels + y] || 0) / top + 1e-20) / RANGE;
            image.data.set([...colour(level), 255], ((mels - 1 - y) * frames + x) * 4);
        }
    context.putImageData(image, 0, 0);
}

/** Where a frequency lies on the picture's height: 0 at its foot, 1 at its top. */
export function heightOf(hertz, { f_min, f_max }) {
    return (mel(hertz) - mel(f_min)) / (mel(f_max) - mel(f_min));
}

/** Samples [N] -> power in each mel band of each frame [frames, mels]. */
function melPowers(samples, frames, { n_fft, hop, n_mels, f_min, f_max, sampling_rate }) {
    const size = 2 ** Math.ceil(Math.log2(n_fft)), spectrum = spectrumOf(size), result = new Float32Array(frames * n_mels);
    const edges = Array.from({ length: n_mels + 2 }, (_, i) =>
        hertz(mel(f_min) + i / (n_mels + 1) * (mel(f_max) - mel(f_min))) * size / sampling_rate);
    const window = Float64Array.from({ length: n_fft }, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * i / n_fft));
    const frame = new Float64Array(size);
    for (let t = 0; t < frames; t++) {
        window.forEach((weight, i) => { frame[i] = weight * (samples[t * hop - n_fft / 2 + i] ?? 0); });
        const power = spectrum(frame);
        for (let m = 0; m < n_mels; m++) result[t * n_mels + m] = bandPower(power, edges[m], edges[m + 1], edges[m + 2]);
    }
    return result;
}

/** Under a triangle of unit area from `low` over `centre` to `high`, in bins. */
function bandPower(power, low, centre, high) {
    let sum = 0;
    for (let k = Math.ceil(low); k < Math.min(high, power.length); k++)
        sum += power[k] * (k < centre ? (k - low) / (centre - low) : (high - k) / (high - centre));
    return sum / (high - low);
}

/** For n, a power of two: a function from a real frame [n] to its power spectrum [n / 2 + 1]. */
function spectrumOf(n) {
    const bits = Math.log2(n), real = new Float64Array(n), imaginary = new Float64Array(n);
    const cosine = Float64Array.from({ length: n / 2 }, (_, k) => Math.cos(2 * Math.PI * k / n));
    const sine = Float64Array.from({ length: n / 2 }, (_, k) => -Math.sin(2 * Math.PI * k / n));
    const reversed = Array.from({ length: n }, (_, i) =>
        Number.parseInt(i.toString(2).padStart(bits, "0").split("").reverse().join(""), 2));
    return frame => {
        reversed.forEach((from, to) => { real[to] = frame[from]; });
        imaginary.fill(0);
        for (let size = 2; size <= n; size *= 2)
            for (let begin = 0; begin < n; begin += size)
                for (let k = 0; k < size / 2; k++) {
                    const a = begin + k, b = a + size / 2, turn = k * n / size;
                    const re = real[b] * cosine[turn] - imaginary[b] * sine[turn];
                    const im = real[b] * sine[turn] + imaginary[b] * cosine[turn];
                    real[b] = real[a] - re;
                    imaginary[b] = imaginary[a] - im;
                    real[a] += re;
                    imaginary[a] += im;
                }
        return Float64Array.from({ length: n / 2 + 1 }, (_, k) => real[k] ** 2 + imaginary[k] ** 2);
    };
}

function mel(hertz) {
    return hertz < BREAK_HERTZ ? hertz / LINEAR_HERTZ_PER_MEL : BREAK_MEL + Math.log(hertz / BREAK_HERTZ) / LOG_STEP;
}

function hertz(mel) {
    return mel < BREAK_MEL ? mel * LINEAR_HERTZ_PER_MEL : BREAK_HERTZ * Math.exp(LOG_STEP * (mel - BREAK_MEL));
}

/** A level of 0 to 1 -> [red, green, blue]. */
function colour(level) {
    const place = Math.min(1, Math.max(0, level)) * (INK.length - 1), i = Math.min(INK.length - 2, Math.floor(place));
    return INK[i].map((value, c) => value + (place - i) * (INK[i + 1][c] - value));
}
