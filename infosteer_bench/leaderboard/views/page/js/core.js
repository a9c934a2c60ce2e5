// Data, small helpers for elements and numbers. Whatever comes from the data becomes a text node, never markup.

const board = JSON.parse(document.getElementById("board").textContent);
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, action] of Object.entries(value)) node.addEventListener(event, action);
    else if (name === "vars") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const el = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);
const svg = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

// a text in pieces, some of them [element, text]
const pieces = (parts) => parts.map((part) => (typeof part === "string" ? part : el(part[0], {}, part[1])));

// numbers: a proper minus sign, nothing for a missing one
const known = (value) => value !== undefined && value !== null;
const minus = (text) => text.replace("-", "−");
const number = (value, digits = 2) => (known(value) ? minus(value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1")) : "");
const signed = (value, digits = 2) => {
  const text = number(value, digits);
  return text === "" || text.startsWith("−") || Number(text) === 0 ? text : "+" + text;
};
const span = (pair, digits = 2) => (known(pair) ? `${number(pair[0], digits)} to ${number(pair[1], digits)}` : "");
const chance = (value) => (!known(value) ? "" : value < 0.001 ? "< 0.001" : value.toPrecision(2));
const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many || one + "s"}`;

const GLYPHS = { win: "▲", loss: "▼", tie: "" };
const isMean = (task) => task.startsWith("mean:");
const taskLabel = (task) => (isMean(task) ? "mean " + task.slice(5) : task);
const methodLabel = (row) => row.method + (row.arm ? ` (${row.arm})` : "");
const rowKey = (row) =>
  [row.model, row.method, row.arm, row.mix, row.task].map((part) => encodeURIComponent(part || "")).join("/");

board.rows.forEach((row, place) => {
  row.place = place;
  row.entrant = JSON.stringify([row.method, row.arm || ""]);
});
const byKey = new Map(board.rows.map((row) => [rowKey(row), row]));
const methodOrder = board.methods.map(([method, arm]) => JSON.stringify([method, arm]));
const isSft = (row) => row.method === "sft" && !row.arm;
const measured = (row) => row.seeds !== undefined;
const marked = (row) => row.partial || row.stand_ins;
const reasons = (row) =>
  [...(row.notes || []), row.stand_ins && "a data file was a stand-in for upstream's"].filter(Boolean);
const MARKED = "* partial, or on stand-in data (tested, not ranked)";
const SINGLE_TEST = "a single test (p below 0.05, before Holm's correction)";
const untrained = (row) => (measured(row) ? row.seeds.some(([seed]) => seed === null) : row.method === "base");

// Rows of one model by method; the mix is told on all of an arm's rows where its mixes answer the same task.
function entrants(model) {
  const rows = board.rows.filter((row) => row.model === model);
  const answered = new Set();
  const several = new Set();
  for (const row of rows) {
    const answer = row.entrant + row.task;
    if (answered.has(answer)) several.add(row.entrant);
    answered.add(answer);
  }
  const found = new Map();
  for (const row of rows) {
    const mix = several.has(row.entrant) ? row.mix || "" : "";
    const key = row.entrant + mix;
    if (!found.has(key))
      found.set(key, { method: row.method, arm: row.arm, mix, entrant: row.entrant, tasks: new Map() });
    found.get(key).tasks.set(row.task, row);
  }
  return [...found.values()];
}

// What a row is compared with; a measured row with a measured one alone.
function sftTwin(row) {
  return board.rows.find(
    (one) =>
      isSft(one) &&
      one.model === row.model &&
      one.task === row.task &&
      (!row.mix || one.mix === row.mix) &&
      (measured(one) || !measured(row)),
  );
}

// marks: colour and shape both tell a method; base and sft are plain
const SHAPES = ["circle", "triangle", "diamond", "cross", "down"];
function markOf(entrant) {
  const [method, arm] = JSON.parse(entrant);
  if (method === "base") return { colour: "var(--base)", shape: "ring" };
  if (method === "sft" && !arm) return { colour: "var(--sft)", shape: "square" };
  const others = methodOrder.filter((one) => !["base", "sft"].includes(JSON.parse(one)[0]) || JSON.parse(one)[1]);
  const place = Math.max(0, others.indexOf(entrant));
  return { colour: `var(--c${place % 7})`, shape: SHAPES[place % SHAPES.length] };
}
const PATHS = {
  circle: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`,
  ring: (r) =>
    `${PATHS.circle(r)}m${0.45 * r},0a${0.55 * r},${0.55 * r} 0 1,1 ${1.1 * r},0a${0.55 * r},${0.55 * r} 0 1,1 ${-1.1 * r},0z`,
  square: (r) => `M${-r * 0.9},${-r * 0.9}h${1.8 * r}v${1.8 * r}h${-1.8 * r}z`,
  triangle: (r) => `M0,${-1.15 * r}L${1.1 * r},${0.85 * r}H${-1.1 * r}z`,
  down: (r) => `M0,${1.15 * r}L${1.1 * r},${-0.85 * r}H${-1.1 * r}z`,
  diamond: (r) => `M0,${-1.25 * r}L${1.25 * r},0L0,${1.25 * r}L${-1.25 * r},0z`,
  cross: (r) => {
    const w = 0.4 * r;
    return `M${-r},${-w}H${-w}V${-r}H${w}V${-w}H${r}V${w}H${w}V${r}H${-w}V${w}H${-r}z`;
  },
};
function markPath(entrant, radius, hollow) {
  const { colour, shape } = markOf(entrant);
  return svg("path", { d: PATHS[shape](radius), class: hollow ? "mark hollow" : "mark", vars: { "--mark": colour } });
}
const markIcon = (entrant) =>
  svg("svg", { class: "icon", viewBox: "-8 -8 16 16", "aria-hidden": "true" }, markPath(entrant, 5));

// A method's name with its settings below it.
const methodName = (row, mix) =>
  el(
    "span",
    { class: "name" },
    markIcon(row.entrant),
    el(
      "span",
      {},
      row.method,
      (row.arm || mix) &&
        el("small", {}, [row.arm && row.arm.replaceAll(",", ", "), mix && `on ${mix}`].filter(Boolean).join(" ")),
    ),
  );

// Badges of the data audit: how many of a task's items are doubtful.
function badges(row) {
  const found = row.overlap;
  if (!found) return [];
  const badge = (count, text) =>
    count > 0 && el("span", { class: "tag", title: overlapText(found) }, `${count} ${text}`);
  const some = [
    badge(found.exact, "in mix"),
    badge(found.masked - found.exact, "near"),
    badge(found.repeated, "twice"),
  ].filter(Boolean);
  return some.length ? some : [el("small", {}, "none")];
}
const overlapText = ({ exact, masked, repeated }) =>
  masked || repeated
    ? `in the training mix: ${exact} word for word, ${masked - exact} but for numbers; ${repeated} repeat an item before`
    : "none in the training mix, none repeated";

// form controls: a label with its field
function choice(label, options, chosen, action) {
  const make = ([value, text]) => el("option", { value, selected: value === chosen }, text);
  const field = el(
    "select",
    { "aria-label": label, on: { change: () => action(field.value) } },
    options.map((one) => (one.group ? el("optgroup", { label: one.group }, one.options.map(make)) : make(one))),
  );
  return el("label", {}, el("span", {}, label), field);
}
function tick(label, chosen, action) {
  const field = el("input", { type: "checkbox", on: { change: () => action(field.checked) } });
  field.checked = chosen;
  return el("label", { class: "tick" }, field, el("span", {}, label));
}
function plainTable(head, body, { caption, words = 1 } = {}) {
  const side = (place) => (place < words ? "words" : null);
  return el(
    "table",
    { class: "plain" },
    caption && el("caption", {}, caption),
    el(
      "thead",
      {},
      el(
        "tr",
        {},
        head.map((text, place) => el("th", { scope: "col", class: side(place) }, text)),
      ),
    ),
    el(
      "tbody",
      {},
      body.map((cells) =>
        el(
          "tr",
          {},
          cells.map((cell, place) =>
            place ? el("td", { class: side(place) }, cell) : el("th", { scope: "row", class: "words" }, cell),
          ),
        ),
      ),
    ),
  );
}
const openButton = (row, text, properties) =>
  el("button", { type: "button", class: "link", ...properties, on: { click: () => openRow(row) } }, text);

function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((one) => one * power >= raw) * power;
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + 1e-9 * step; place++)
    found.push(Number((place * step).toPrecision(12)));
  return found;
}
