// WAV files, decoded at their own rate with the numbers that libsndfile gives.

const PCM = 1, FLOAT = 3, A_LAW = 6, MU_LAW = 7, EXTENSIBLE = 0xfffe;
const SLACK = 0.02; // s that may be missing: some recorders count bytes of the header as sound

/**
 * Bytes of a file -> {rate, channels: [Float32Array], flags}, or null where it is no WAV that this reads.
 * Throws an Error with a `code` for a WAV without samples, with several recordings, or one that is cut off.
 */
export function decodedWav(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (text(view, 0) !== "RIFF" || text(view, 8) !== "WAVE") return null;
    const { format, data } = chunks(view);
    const read = format && reader(format);
    if (!read || !data) return null;
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

function chunks(view) {
    let format = null;
    for (let place = 12; place + 8 <= view.byteLength;) {
        const name = text(view, place), size = view.getUint32(place + 4, true), begin = place + 8;
        if (name === "fmt " && begin + 16 <= view.byteLength) format = formatAt(view, begin, size);
        if (name === "data") {
            const present = view.byteLength - begin;
            const unfinished = present > 0 && (size === 0 || size >= 0xffff0000); // the recorder never wrote it
            if (!unfinished && hasMore(view, begin + size + size % 2))
                throw coded("unsupported_format", "several recordings in one file: rrtn score reads all of them");
            return { format, data: { begin, present, size: unfinished ? present : size, unfinished } };
        }
        place = begin + size + size % 2;
    }
    return { format, data: null };
}

/** Whether another chunk of sound, or another file, stands behind the first. */
function hasMore(view, place) {
    while (place + 8 <= view.byteLength) {
        if (["data", "RIFF"].includes(text(view, place))) return true;
        const size = view.getUint32(place + 4, true);
        place += 8 + size + size % 2;
    }
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
