// The page's own parts: files beside it, or elements inside it where all is one file.

/** The content of a part, unzipped. */
export async function assetBytes(name) {
    const inside = document.getElementById(name);
    const bytes = inside ? bytesFromBase64(inside.textContent) : await fetched(name);
    const isZipped = bytes[0] === 0x1f && bytes[1] === 0x8b; // some servers unzip what ends in .gz
    if (!isZipped) return bytes;
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** An address of a module. Inside one file it is a data: address: from file:// browsers take no other. */
export async function moduleUrl(name) {
    if (!document.getElementById(name)) return new URL(name, document.baseURI).href;
    return `data:text/javascript,${encodeURIComponent(await assetText(name))}`;
}

/** An address of a worker's module. Unlike a worker from a server, it keeps to the page's own policy. */
export async function workerUrl(name) {
    const url = await moduleUrl(name);
    if (document.getElementById(name)) return url;
    return URL.createObjectURL(new Blob([`import ${JSON.stringify(url)}`], { type: "text/javascript" }));
}

/** An address of a text, for a link. */
export async function textUrl(name) {
    if (!document.getElementById(name)) return name;
    return URL.createObjectURL(new Blob([await assetText(name)], { type: "text/plain;charset=utf-8" }));
}

/** The text of a part. */
export async function assetText(name) {
    return new TextDecoder().decode(await assetBytes(name));
}

async function fetched(name) {
    const answer = await fetch(name);
    if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
    return new Uint8Array(await answer.arrayBuffer());
}

function bytesFromBase64(text) {
    const letters = atob(text.trim()), bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
    return bytes;
}
