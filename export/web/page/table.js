// The table of results: a row for each file, whose name is a button that shows its bars.

import { element, share, shown } from "./bars.js";

const FLAGS = {
    silent: "no sound",
    only_start: "only the start was scored",
    one_channel: "its channels cancel each other: one was scored",
    dc: "an offset was removed",
    no_length: "no length in its header",
};

export class ResultTable {
    #table;
    #bars; // in the order of the columns
    #onChosen;

    constructor(table, groups, onChosen) {
        this.#table = table;
        this.#onChosen = onChosen;
        this.#bars = groups.flatMap(group => group.bars);
        const header = table.createTHead().insertRow();
        for (const name of ["File", ...this.#bars.map(bar => bar.column), "Notes"]) {
            const cell = element("th", "", name);
            cell.scope = "col";
            cell.title = name;
            header.append(cell);
        }
        table.createTBody();
    }

    /** `entry`: {name, scores, flags} or {name, message}. */
    add(entry) {
        const row = this.#table.tBodies[0].insertRow(), name = element("th"), choose = element("button", "name", entry.name);
        name.scope = "row";
        choose.type = "button";
        choose.title = entry.name;
        choose.onclick = () => this.#onChosen(entry);
        name.append(choose);
        row.append(name);
        if (entry.message) {
            const cell = element("td", "note failed", entry.message);
            cell.colSpan = this.#bars.length + 1; // beside the name, where it is seen without scrolling
            row.append(cell);
        } else {
            for (const bar of this.#bars) row.append(scoreCell(entry.scores[bar.place], bar));
            row.append(element("td", "note", entry.flags.map(flag => FLAGS[flag] ?? flag).join("; ")));
        }
        entry.row = row;
    }

    /** Marks the row of an entry; of none for null. */
    mark(entry) {
        for (const row of this.#table.tBodies[0].rows) row.querySelector("button").removeAttribute("aria-current");
        entry?.row.querySelector("button").setAttribute("aria-current", "true");
    }

    clear() {
        this.#table.tBodies[0].replaceChildren();
    }
}

function scoreCell(score, bar) {
    const cell = element("td", "score", score === undefined ? "" : shown(score, bar));
    if (score !== undefined) cell.style.setProperty("--share", share(score, bar).toFixed(3));
    return cell;
}
