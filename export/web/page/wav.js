// WAV files, decoded at their own rate with the numbers that libsndfile gives.

const PCM = 1, FLOAT = 3, A_LAW = 6, MU_LAW = 7, EXTENSIBLE = 0xfffe;
const SLACK = 0.02; // s that may be missing: some recorders count bytes of the header as sound
const STREAMED = 0x7ffff000; // a writer that cannot seek back leaves this size, or a larger one
const MIN_RATE = 4000, MAX_RATE = 384000; // Hz
const MAX_CHANNELS = 8;

/**
 * Bytes of a file -> {rate, channels: [Float32Array], flags}, or null where it is no WAV that this reads.
 * Throws an Error with a `code` for a WAV that `rrtn score` refuses, too, or one with several recordings.
 */
export function decodedWav(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (text(view, 0) !== "RIFF" || text(view, 8) !== "WAVE") return null;
    const { format, data } = partsOf(view);
    const read = format && reader(format);
    if (!read || !data) return null;
    checkLayout(format.channels, format.rate);
    const frames = Math.floor(Math.min(data.size, data.present) / format.frameBytes);
    if (frames === 0) throw coded("empty", "no samples");
    const missing = (data.size - data.present) / format.frameBytes;
    if (!data.unfinished && missing > SLACK * format.rate) throw coded("truncated", "the file is cut off");
    const channels = [];
    for (let channel = 0; channel < format.channels; channel++) {
        const samples = new Float32Array(frames);
        let place = data.begin + channel * format.frameBytes / format.channels;
        for (let i = 0; i < frames; i++, place += format.frameBytes) samples[i] = read(view, place);
        channels.push(samples);
    }
    return { rate: format.rate, channels, flags: data.unfinished ? ["no_length"] : [] };
}

/** An Error with a code of the column `error` of `rrtn score`. */
export function coded(code, message) {
    return Object.assign(new Error(message), { code });
}

/** Throws for a layout that `rrtn score` refuses. `rate` in Hz. */
export function checkLayout(channels, rate) {
    if (channels > MAX_CHANNELS || rate < MIN_RATE || rate > MAX_RATE)
        throw coded("unsupported_layout", `${channels} ${channels === 1 ? "channel" : "channels"} at ${rate} Hz`);
}

function partsOf(view) {
    let format = null;
    for (const { name, begin, size } of chunksFrom(view, 12)) {
        if (name === "fmt " && begin + 16 <= view.byteLength) format = formatAt(view, begin, size);
        if (name === "data") return { format, data: soundAt(view, begin, size) };
    }
    return { format, data: null };
}

function* chunksFrom(view, place) {
    while (place + 8 <= view.byteLength) {
        const name = text(view, place), size = view.getUint32(place + 4, true), begin = place + 8;
        yield { name, begin, size };
        place = begin + size + size % 2;
    }
}

function soundAt(view, begin, size) {
    const present = view.byteLength - begin;
    // True where the recorder never wrote the size.
    const unfinished = size === 0 ? present > 0 && !areChunks(view, begin) : present < size && size >= STREAMED;
    if (!unfinished && hasMore(view, begin + size + size % 2))
        throw coded("unsupported_format", "several recordings in one file: rrtn score reads all of them");
    return { begin, present, size: unfinished ? present : size, unfinished };
}

/** Whether nothing but chunks lies from there to the end: an empty chunk in front of them is empty. */
function areChunks(view, place) {
    let end = place;
    for (const { name, begin, size } of chunksFrom(view, place)) {
        if (!/^[0-9A-Za-z]{4}$/.test(name)) return false;
        end = begin + size;
    }
    return Math.abs(view.byteLength - end) < 2;
}

/** Whether another chunk of sound, or another file, stands behind the first. */
function hasMore(view, place) {
    for (const { name } of chunksFrom(view, place)) if (["data", "RIFF"].includes(name)) return true;
    return false;
}

function formatAt(view, begin, size) {
    const tag = view.getUint16(begin, true), isExtensible = tag === EXTENSIBLE && size >= 26;
    return {
        tag: isExtensible && begin + 26 <= view.byteLength ? view.getUint16(begin + 24, true) : tag,
        channels: view.getUint16(begin + 2, true),
        rate: view.getUint32(begin + 4, true),
        frameBytes: view.getUint16(begin + 12, true),
        bits: view.getUint16(begin + 14, true),
    };
}

/** (view, place) -> one sample, by the format; null for what only the browser may know. */
function reader({ tag, channels, frameBytes, bits }) {
    if (channels < 1 || frameBytes !== channels * bits / 8) return null;
    const known = {
        [`${PCM} 8`]: (view, place) => (view.getUint8(place) - 128) / 128,
        [`${PCM} 16`]: (view, place) => view.getInt16(place, true) / 32768,
        [`${PCM} 24`]: (view, place) => (view.getUint16(place, true) + view.getInt8(place + 2) * 65536) / 8388608,
        [`${PCM} 32`]: (view, place) => view.getInt32(place, true) / 2147483648,
        [`${FLOAT} 32`]: (view, place) => view.getFloat32(place, true),
        [`${FLOAT} 64`]: (view, place) => view.getFloat64(place, true),
        [`${A_LAW} 8`]: (view, place) => aLaw(view.getUint8(place)) / 32768,
        [`${MU_LAW} 8`]: (view, place) => muLaw(view.getUint8(place)) / 32768,
    };
    return known[`${tag} ${bits}`] ?? null;
}

/** ITU-T G.711, a byte -> its 16 bits. */
function aLaw(byte) {
    const code = byte ^ 0x55, exponent = code >> 4 & 7, mantissa = code & 15;
    const size = exponent ? (mantissa * 16 + 264) << (exponent - 1) : mantissa * 16 + 8;
    return code & 0x80 ? size : -size;
}

function muLaw(byte) {
    const code = ~byte & 0xff, size = ((code & 15) * 8 + 132 << (code >> 4 & 7)) - 132;
    return code & 0x80 ? -size : size;
}

function text(view, place) {
    if (place + 4 > view.byteLength) return "";
    return String.fromCharCode(...[0, 1, 2, 3].map(i => view.getUint8(place + i)));
}
