// The table as `rrtn score` writes it: file,start,end,<scores>,error,flags, safe for spreadsheets.

const NOT_IN_CELL = /[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|\\(?=x[0-9a-f]{2})/g;
const FORMULA = /^\s*[=+\-@'\uff1d\uff0b\uff0d\uff20]/;

/** `columns` are the K names of the scores; `rows` are {name, start, end, scores, error, flags}. */
export function csvOf(columns, rows) {
    const header = ["file", "start", "end", ...columns, "error", "flags"];
    const lines = rows.map(({ name, start, end, scores, error = "", flags = [] }) => [
        name,
        seconds(start),
        seconds(end),
        ...(scores?.map(sixDecimals) ?? columns.map(() => "")),
        error,
        flags.join(";"),
    ]);
    // Numbers may begin with a minus; only texts of others are made safe.
    const safe = (cells, texts) => cells.map((text, i) => quoted(texts(i) ? cellFromText(text) : text)).join(",");
    return [safe(header, () => true), ...lines.map(cells => safe(cells, i => i === 0)), ""].join("\n");
}

function seconds(time) {
    return time === undefined ? "" : rounded(time, 3);
}

function sixDecimals(score) {
    const text = rounded(score, 6);
    return Number(text) === 0 ? "0.000000" : text;
}

/** With so many decimals; a tie goes to the even digit, as in Python. toFixed rounds it away from zero. */
function rounded(number, decimals) {
    const text = number.toFixed(decimals), last = Number(text.slice(-1));
    const isTie = Math.abs(number * 2 ** (decimals + 1) % 2) === 1; // odd multiples of 2 ** -(decimals + 1)
    return isTie && last % 2 ? text.slice(0, -1) + (last - 1) : text;
}

/** rrtn's runtime/text.py: bytes of control characters, and backslashes that read as such, as \xNN; ' before a formula. */
function cellFromText(text) {
    const cell = text.replace(NOT_IN_CELL, letter =>
        [...new TextEncoder().encode(letter)].map(byte => `\\x${byte.toString(16).padStart(2, "0")}`).join(""));
    return FORMULA.test(cell) ? `'${cell}` : cell;
}

function quoted(cell) {
    return /[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}
