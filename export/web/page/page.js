// What the user does, and what the page shows.

import { assetText, textUrl } from "./assets.js";
import { Bars, element, groupsOf } from "./bars.js";
import { decodedByBrowser } from "./compressed.js";
import { csvOf } from "./csv.js";
import { Microphone } from "./microphone.js";
import { Scorer } from "./scorer.js";
import { drawSpectrogram, heightOf } from "./spectrogram.js";
import { ResultTable } from "./table.js";
import { coded, decodedWav } from "./wav.js";

const HOP = 0.25; // s between two looks at the microphone; a slow computer takes fewer
const FIRST = 0.5; // s that are heard before the first
const QUIET = -50; // dBFS
const HERTZ = [125, 500, 1000, 2000, 4000, 8000, 16000], SECONDS = 0.5;

const $ = id => document.getElementById(id);
const description = JSON.parse(await assetText("model.json")), { frontend } = description;
const clipSeconds = (frontend.frames - 1) * frontend.hop / frontend.sampling_rate;
const groups = groupsOf(description);
const bars = new Bars($("bars"), groups), table = new ResultTable($("table"), groups, choose);
const entries = [], queue = [];
let scorer, microphone = null, isWorking = false;
let clearings = 0; // what began before the last one is shown no more

describe();
bars.show(null);
drawSpectrogram($("spectrogram"), new Float32Array(0), frontend);
start().catch(error => say(`The model did not load. ${error.message}`, true));

async function start() {
    const clip = (frontend.frames - 1) * frontend.hop;
    scorer = await Scorer.loaded({ rate: frontend.sampling_rate, clip, trim: frontend.trim ?? false });
    $("files").disabled = $("microphone").disabled = false;
    document.body.dataset.state = "ready";
    say("Ready.");
    $("files").onchange = () => { add([...$("files").files]); $("files").value = ""; };
    $("microphone").onclick = () => (microphone ? stopListening() : listen());
    $("download").onclick = download;
    $("clear").onclick = clear;
    document.ondragover = event => { event.preventDefault(); $("drop").classList.add("over"); };
    document.ondragleave = event => { if (!event.relatedTarget) $("drop").classList.remove("over"); };
    document.ondrop = event => {
        event.preventDefault();
        $("drop").classList.remove("over");
        add([...event.dataTransfer.files]);
    };
}

// Files

function add(files) {
    if (!files.length) return;
    if (microphone) stopListening();
    queue.push(...files);
    if (!isWorking) work();
}

async function work() {
    isWorking = true;
    const begun = performance.now(), first = entries.length, before = clearings;
    say(queue.length === 1 ? `Scoring ${queue[0].name}.` : `Scoring ${queue.length} files.`);
    for (let done = 0; queue.length; done++) {
        progress(done, done + queue.length);
        const entry = await entryOf(queue.shift());
        if (clearings !== before) return;
        entries.push(entry);
        table.add(entry);
        $("results").hidden = false;
        if (!entry.error) show(entry);
    }
    isWorking = false;
    progress(0, 0);
    say(summary(entries.slice(first), (performance.now() - begun) / 1000));
}

/** What a file gives: {name, file, scores, flags, start, end} or {name, file, error, message}. */
async function entryOf(file) {
    try {
        return { name: file.name, file, ...await resultOf(file) };
    } catch (error) {
        const known = typeof error.code === "string"; // a DOMException has a number
        return { name: file.name, file, error: known ? error.code : "crashed", message: error.message };
    }
}

async function resultOf(file) {
    const content = await file.arrayBuffer().catch(() => { throw coded("missing", "it can no longer be read"); });
    const bytes = new Uint8Array(content);
    if (!bytes.length) throw coded("empty", "an empty file");
    const sound = decodedWav(bytes) ?? await decodedByBrowser(bytes);
    const result = await scorer.score(sound);
    return { ...result, flags: [...result.flags, ...sound.flags] };
}

/** Shows an entry. Only that one keeps its samples: the others are read again when they are chosen. */
function show(entry) {
    table.mark(entry);
    present(entry, entry.name);
    URL.revokeObjectURL($("player").src);
    $("player").src = URL.createObjectURL(entry.file);
    $("player").hidden = entry.error !== undefined;
    delete entry.heard;
}

/** Shows an entry again. One whose file is gone keeps the scores that it has. */
async function choose(entry) {
    if (microphone) stopListening();
    const before = clearings, again = entry.error ? entry : await entryOf(entry.file);
    if (clearings !== before) return;
    if (entry.error || !again.error) show(Object.assign(entry, again));
    say(again.error ? `${entry.name}: ${again.message}` : `Showing ${entry.name}.`);
}

function summary(made, seconds) {
    const failed = made.filter(entry => entry.error).length, scored = made.length - failed;
    const files = count => `${count} ${count === 1 ? "file" : "files"}`;
    const text = `${files(scored)} scored in ${seconds.toFixed(1)} s.`;
    return failed ? `${text} ${files(failed)} could not be scored: the notes say why.` : text;
}

function clear() {
    queue.length = entries.length = 0;
    isWorking = false;
    clearings++;
    table.clear();
    progress(0, 0);
    $("results").hidden = true;
    $("player").hidden = true;
    present(null, "");
    say("The table is empty.");
    $("files").focus();
}

function download() {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([csvOf(description.columns, entries)], { type: "text/csv" }));
    link.download = "scores.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// The microphone

async function listen() {
    $("microphone").disabled = true;
    say("Waiting for the microphone.");
    let heard = 0, next = FIRST, busy = false;
    try {
        microphone = await Microphone.opened({
            seconds: clipSeconds,
            onBlock: async (samples, rate) => {
                heard += samples.length / rate;
                if (busy || !microphone || heard < next) return;
                busy = true;
                next = heard + HOP;
                await scoreRecent(microphone);
                busy = false;
            },
        });
    } catch (error) {
        say(error.message, true);
        $("microphone").disabled = false;
        return;
    }
    table.mark(null);
    $("player").hidden = true;
    $("microphone").disabled = false;
    $("microphone").textContent = "Stop listening";
    $("microphone").setAttribute("aria-pressed", "true");
    document.body.dataset.state = "listening";
    say("Listening.");
}

/** Scores what `listening` has heard last, and shows it if it is still the microphone. */
async function scoreRecent(listening) {
    try {
        const result = await scorer.score(listening.recent());
        if (microphone === listening) hear(result);
    } catch (error) {
        if (microphone === listening) say(error.message, true);
    }
}

function hear(result) {
    present(result, `the last ${clipSeconds.toFixed(1)} s of the microphone`);
    const level = 20 * Math.log10(result.peak + 1e-10);
    say(level < QUIET ? "Listening. It is so quiet that the scores are of the noise in the room." : "Listening.");
}

function stopListening() {
    microphone.close();
    microphone = null;
    $("microphone").textContent = "Use the microphone";
    $("microphone").setAttribute("aria-pressed", "false");
    document.body.dataset.state = "ready";
    say("The microphone is off.");
}

// What is seen

/** Shows scores and the sound that they are of. */
function present(result, name) {
    bars.show(result?.scores ?? null);
    $("source").textContent = name;
    drawSpectrogram($("spectrogram"), result?.heard ?? new Float32Array(0), frontend);
    const text = result?.heard ? `Mel spectrogram of ${name}, ${(result.end - result.start).toFixed(2)} s` : "Nothing to show yet";
    $("spectrogram").setAttribute("aria-label", text);
    const times = result?.milliseconds;
    $("speed").textContent = times
        ? `${times.model.toFixed(0)} ms for the model and ${times.prepare.toFixed(0)} ms to prepare the sound, in ${threads()}.`
        : "";
}

function threads() {
    return scorer.threads === 1 ? "one thread" : `${scorer.threads} threads`;
}

function say(text, isFailure = false) {
    if ($("status").textContent !== text) $("status").textContent = text; // said once, not four times a second
    $("status").classList.toggle("failed", isFailure);
}

function progress(done, all) {
    $("progress").hidden = all < 2;
    $("progress").max = Math.max(1, all);
    $("progress").value = done;
}

/** What model.json says of the model, and the axes of the picture. */
function describe() {
    $("title").textContent = description.title;
    document.title = `${description.title}: rrtn`;
    $("about").textContent = description.about;
    $("clip").textContent = `${clipSeconds.toFixed(2)} s`;
    $("variant").textContent = `${description.variant}, sha256 ${description.sha256.slice(0, 12)}`;
    $("version").textContent = description.version;
    for (const link of document.querySelectorAll("footer a"))
        textUrl(link.getAttribute("href")).then(url => { link.href = url; });
    for (const hertz of HERTZ.filter(hertz => hertz > frontend.f_min && hertz <= frontend.f_max)) {
        const tick = element("span", "tick", hertz < 1000 ? hertz : `${hertz / 1000}k`);
        tick.style.bottom = `${100 * heightOf(hertz, frontend)}%`;
        $("hertz").append(tick);
    }
    for (let time = 0; time < clipSeconds; time += SECONDS) {
        const tick = element("span", "tick", time ? time : "0 s");
        tick.style.left = `${100 * time / clipSeconds}%`;
        $("seconds").append(tick);
    }
}
