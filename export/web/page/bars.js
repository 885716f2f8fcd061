// One bar for each score, with its scale. Labels come from data, and are only ever set as text.

/**
 * The scores in groups, ratings first, then each class target -> [{name, bars: [{column, label, low, high, place}]}].
 * `column` is the label as the table has it; `label` is what stands beside the bar.
 */
export function groupsOf({ labels, meaning }) {
    const bar = (column, label, [low, high]) => ({ column, label, low, high, place: labels.indexOf(column) });
    if (!meaning) return [{ name: "", bars: labels.map(label => bar(label, label, [0, 1])) }];
    const rated = Object.entries(meaning.scales).map(([label, scale]) => bar(label, label, scale));
    const classes = Object.entries(meaning.classes).map(([target, names]) => ({
        name: `${target} (probability)`,
        bars: names.map(name => bar(`${target}=${name}`, name, [0, 1])),
    }));
    return [...(rated.length ? [{ name: "", bars: rated }] : []), ...classes];
}

/** Decimals that a value of a scale is shown with. */
export function decimalsOf({ low, high }) {
    return Math.min(3, Math.max(0, 3 - Math.ceil(Math.log10(high - low))));
}

export function shown(score, bar) {
    return score.toFixed(decimalsOf(bar));
}

export class Bars {
    #rows = [];

    constructor(parent, groups) {
        for (const { name, bars } of groups) {
            const list = element("div", "bars");
            list.setAttribute("role", "group");
            list.setAttribute("aria-label", name || "Ratings");
            if (name) parent.append(element("h3", "", name));
            parent.append(list);
            for (const bar of bars) this.#rows.push(this.#added(list, bar));
        }
    }

    /** Shows scores [K]; none for null. */
    show(scores) {
        for (const { bar, meter, fill, value } of this.#rows) {
            const score = scores?.[bar.place];
            const origin = Math.min(1, Math.max(0, share(0, bar))), end = scores ? share(score, bar) : origin;
            fill.style.setProperty("--from", Math.min(origin, end));
            fill.style.setProperty("--to", Math.max(origin, end));
            value.textContent = scores ? shown(score, bar) : "–";
            meter.setAttribute("aria-valuenow", scores ? score : bar.low);
            const text = scores ? `${shown(score, bar)} on a scale of ${bar.low} to ${bar.high}` : "no score yet";
            meter.setAttribute("aria-valuetext", text);
        }
    }

    #added(list, bar) {
        const row = element("div", "bar"), meter = element("div", "track"), fill = element("div", "fill");
        meter.setAttribute("role", "meter");
        meter.setAttribute("aria-label", bar.label);
        meter.setAttribute("aria-valuemin", bar.low);
        meter.setAttribute("aria-valuemax", bar.high);
        if (bar.low < 0 && bar.high > 0) meter.style.setProperty("--zero", share(0, bar));
        meter.append(fill);
        const value = element("output", "value"), name = element("span", "label", bar.label);
        name.title = bar.label;
        row.append(name, element("span", "end low", bar.low), meter, element("span", "end", bar.high), value);
        for (const part of row.children) if (part !== meter) part.setAttribute("aria-hidden", "true"); // the meter says it
        list.append(row);
        return { bar, meter, fill, value };
    }
}

export function element(tag, name = "", text = "") {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.textContent = text;
    return made;
}

/** Where a value lies on its scale: 0 at its low end, 1 at its high end. */
export function share(value, { low, high }) {
    return Math.min(1, Math.max(0, (value - low) / (high - low)));
}
