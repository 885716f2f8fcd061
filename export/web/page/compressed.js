// Files that the browser decodes. It is told the rate in the file's header, and so does not resample.

import { checkLayout, coded } from "./wav.js";

const MP3_RATES = { 3: [44100, 48000, 32000], 2: [22050, 24000, 16000], 0: [11025, 12000, 8000] };
const AAC_RATES = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350];
const MP4_BOXES = ["ftyp", "moov", "mdat", "wide", "free", "skip"]; // which may come first
const MP4_SOUNDS = ["mp4a", "Opus", "fLaC"]; // names of the boxes that describe them
const HEAD = 65536; // bytes that are looked through for a header
const USUAL = 48000; // Hz, to which the browser resamples where no rate is found
const OPUS_RATE = 48000; // Hz, of all Opus files

/** Bytes of a file -> {rate, channels: [Float32Array], flags}. Throws an Error with a `code`. */
export async function decodedByBrowser(bytes) {
    const context = contextAt(statedRate(bytes) || USUAL);
    const copy = bytes.slice().buffer; // decodeAudioData takes it away
    const audio = await context.decodeAudioData(copy).catch(() => {
        throw coded("unsupported_format", "this browser cannot decode it");
    });
    checkLayout(audio.numberOfChannels, audio.sampleRate);
    const channels = Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i));
    return { rate: audio.sampleRate, channels, flags: [] };
}

/** Every browser has 8 to 96 kHz, by the Web Audio API; some have more. */
function contextAt(rate) {
    try {
        return new OfflineAudioContext(1, 1, rate);
    } catch {
        throw coded("unsupported_layout", `this browser decodes nothing at ${rate} Hz`);
    }
}

/** The rate in Hz that the header of an Ogg, Opus, FLAC, MP4, AAC or MP3 file states; 0 where none is found. */
export function statedRate(bytes) {
    bytes = bytes.subarray(endOfTag(bytes));
    const head = bytes.subarray(0, HEAD), view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const at = (name, more) => {
        const place = find(head, name);
        return place >= 0 && place + more + 4 <= bytes.length ? place + more : -1;
    };
    if (MP4_BOXES.some(name => isAt(bytes, 4, name))) return mp4Rate(bytes, view);
    const opus = at("OpusHead", 8), vorbis = at("\x01vorbis", 12), flac = at("fLaC", 18);
    return opus >= 0 ? OPUS_RATE
        : vorbis >= 0 ? view.getUint32(vorbis, true)
        : flac >= 0 ? view.getUint32(flac) >>> 12
        : mpegRate(bytes);
}

/** Where the sound begins behind a tag of ID3, whose text and pictures may hold anything. */
function endOfTag(bytes) {
    return isAt(bytes, 0, "ID3") ? 10 + (bytes[6] << 21 | bytes[7] << 14 | bytes[8] << 7 | bytes[9]) : 0;
}

/** An MP4 file is boxes with a size and a name. The one that describes the sound may stand behind it. */
function mp4Rate(bytes, view) {
    for (let place = 0, size; place + 16 <= bytes.length; place += size) {
        size = view.getUint32(place);
        if (size === 1) size = Number(view.getBigUint64(place + 8));
        if (size < 8) return 0; // the last one
        if (!isAt(bytes, place + 4, "moov")) continue;
        const moov = bytes.subarray(place, place + size);
        const sounds = MP4_SOUNDS.map(name => find(moov, name)).filter(sound => sound >= 0);
        const rate = place + sounds[0] + 28;
        return sounds.length && rate + 2 <= bytes.length ? view.getUint16(rate) : 0;
    }
    return 0;
}

function mpegRate(bytes) {
    for (let place = 0, end = Math.min(bytes.length - 4, HEAD); place < end; place++) {
        if (bytes[place] !== 0xff || (bytes[place + 1] & 0xe0) !== 0xe0) continue;
        const version = bytes[place + 1] >> 3 & 3, layer = bytes[place + 1] >> 1 & 3;
        if (layer === 0 && version >= 2) return AAC_RATES[bytes[place + 2] >> 2 & 15] ?? 0; // ADTS
        const rate = MP3_RATES[version]?.[bytes[place + 2] >> 2 & 3];
        if (layer !== 0 && rate && bytes[place + 2] >> 4 !== 15) return rate;
    }
    return 0;
}

function isAt(bytes, place, text) {
    return find(bytes.subarray(place, place + text.length), text) === 0;
}

/** Where a text of Latin-1 begins in bytes; -1 where it does not. */
function find(bytes, text) {
    const codes = [...text].map(letter => letter.charCodeAt(0));
    return bytes.findIndex((_, i) => codes.every((code, j) => bytes[i + j] === code));
}
