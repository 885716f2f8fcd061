// Where in a recording there is sound, by the rule of rrtn's runtime/audio/sound.py: in frames of 10 ms whose
// power is within 60 dB of the loudest frame's.

const FRAME = 0.01; // s
const RANGE = 1e-6; // of power: 60 dB
const SILENCE_PEAK = 1e-7; // below the last bit of 24-bit audio

/** samples [N] at `rate` Hz -> {peak, begin, end, within}: the samples with sound, and a test of a part. */
export function soundOf(samples, rate) {
    const frame = Math.max(1, Math.round(FRAME * rate)), powers = new Float32Array(Math.ceil(samples.length / frame));
    let peak = 0;
    for (let f = 0; f < powers.length; f++) {
        const end = Math.min(samples.length, (f + 1) * frame);
        let sum = 0;
        for (let i = f * frame; i < end; i++) {
            const size = Math.abs(samples[i]);
            if (!(size <= peak)) peak = size; // NaN, too, stays
            sum += size * size;
        }
        powers[f] = sum / (end - f * frame);
    }
    const least = RANGE * powers.reduce((most, power) => Math.max(most, power), 0);
    const sounds = powers.map(power => peak >= SILENCE_PEAK && power > 0 && power >= least);
    const first = sounds.indexOf(1), last = sounds.lastIndexOf(1);
    return {
        peak,
        begin: first < 0 ? 0 : first * frame,
        end: first < 0 ? samples.length : Math.min(samples.length, (last + 1) * frame),
        within: (start, stop) => sounds.subarray(Math.floor(start / frame), Math.ceil(stop / frame)).includes(1),
    };
}
