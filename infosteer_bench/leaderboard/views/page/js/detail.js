// One row opened: its seeds, what is known of the difference, its flipped items. The address (#row=...) names it.

const openRow = (row) => {
  location.hash = `row=${rowKey(row)}`;
};

function fromHash() {
  const match = /^#row=([^&]*)(?:&item=(\d+)\.(\d+))?$/.exec(location.hash);
  const row = match && byKey.get(match[1]);
  if (row) showRow(row, match[2] === undefined ? null : [Number(match[2]), Number(match[3])]);
  else if ($("detail").open) $("detail").close();
}

let returnTo = null;
function showRow(row, item) {
  const dialog = $("detail");
  if (!dialog.open) returnTo = document.activeElement;
  $("detail-title").textContent = `${methodLabel(row)} · ${taskLabel(row.task)}`;
  $("detail-sub").textContent = [
    row.model,
    row.mix && `trained on ${row.mix}`,
    row.split && { ID: "in distribution", OOD: "out of distribution" }[row.split],
    known(row.n_items) && plural(row.n_items, "item"),
  ]
    .filter(Boolean)
    .join(" · ");
  const seeds = el("div", {}, seedTable(row));
  $("detail-body").replaceChildren(
    ...[
      figures(row),
      notes(row),
      seeds,
      members(row),
      flipPlace(row, item, (found) => seeds.replaceChildren(seedTable(row, found))),
    ].filter(Boolean),
  );
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  $("detail-title").focus({ preventScroll: true });
}

function startDetail() {
  const dialog = $("detail");
  $("detail-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    if (location.hash.startsWith("#row=")) history.replaceState(null, "", location.pathname + location.search);
    if (returnTo && returnTo.isConnected) returnTo.focus();
  });
  addEventListener("hashchange", fromHash);
  fromHash();
}

function figures(row) {
  const facts = [
    [
      "Accuracy",
      known(row.accuracy) && `${number(row.accuracy)} %`,
      row.interval && `95 % interval ${span(row.interval)}`,
    ],
    [
      "Against sft",
      known(row.delta_vs_sft) && `${signed(row.delta_vs_sft)} points`,
      row.delta_interval && `95 % interval ${span(row.delta_interval)}`,
    ],
    [
      "Verdict",
      row.verdict && `${GLYPHS[row.verdict]} ${row.verdict}`,
      known(row.p_holm)
        ? `p ${chance(row.p_holm)} after Holm, ${chance(row.p_value)} before`
        : known(row.p_value) && `p ${chance(row.p_value)}, not corrected`,
    ],
    [
      "Detectable",
      known(row.detectable) ? `${number(row.detectable)} points` : row.delta_interval && "nothing",
      !known(row.detectable)
        ? `no difference is large enough for ${SINGLE_TEST} to find it four times in five`
        : `what ${SINGLE_TEST} finds four times in five; ` +
          (row.n_seeds_paired < 2
            ? "another seed not considered"
            : known(row.seeds_to_halve)
              ? `${row.seeds_to_halve} seeds would halve it`
              : "the items limit it: more seeds do not halve it"),
    ],
    ["By likelihood", known(row.option_rank) && `${number(row.option_rank)} %`, "options ranked instead of generated"],
    [
      "Unparsed, cut",
      known(row.unparsed_rate) && `${number(row.unparsed_rate)} %, ${number(row.truncated_rate)} %`,
      "no answer found, token limit reached",
    ],
    ["Data audit", row.overlap && `${plural(row.overlap.items, "item")}`, row.overlap && overlapText(row.overlap)],
    [
      "Reported against sft",
      known(row.reported_delta) && `${signed(row.reported_delta)} points`,
      "no interval: no test can be made",
    ],
    ["Reported", known(row.reported) && `${number(row.reported)} %`, "the paper's number"],
  ];
  return el(
    "dl",
    { class: "cards" },
    facts
      .filter(([, value]) => value)
      .map(([label, value, small]) =>
        el("div", {}, el("dt", {}, label), el("dd", {}, value, small && el("small", {}, small))),
      ),
  );
}

function notes(row) {
  const found = reasons(row);
  return found.length
    ? el(
        "ul",
        { class: "callout" },
        found.map((note) => el("li", {}, note)),
      )
    : null;
}

function seedTable(row, flips) {
  const twin = !isSft(row) && sftTwin(row);
  if (!measured(row)) return el("p", { class: "empty" }, "Not measured.");
  const theirs = new Map((twin && twin.seeds) || []);
  const own = new Map(row.seeds);
  const seeds = own.has(null) && theirs.size ? [...theirs.keys()] : [...own.keys()];
  const counts = new Map(((flips && flips.seeds) || []).map((one) => [one.seed, one]));
  return plainTable(
    [
      "seed",
      "accuracy",
      ...(theirs.size ? ["sft", "difference"] : []),
      ...(counts.size ? ["right only here", "right only in sft", "items"] : []),
    ],
    seeds.map((seed) => {
      const value = own.has(null) ? own.get(null) : own.get(seed),
        count = counts.get(seed);
      return [
        seed === null ? "not trained" : String(seed),
        number(value),
        ...(theirs.size ? [number(theirs.get(seed)), theirs.has(seed) ? signed(value - theirs.get(seed)) : ""] : []),
        ...(counts.size ? (count ? [count.won, count.lost, count.n_items].map(String) : ["", "", ""]) : []),
      ];
    }),
  );
}

const KEPT = {
  "mean:clean": "repeated items and those that stand in the training mix",
  "mean:math_dedup": "repeated items",
};
function members(row) {
  if (!row.members) return null;
  const line = entrants(row.model).find((one) => [...one.tasks.values()].includes(row));
  return el(
    "div",
    {},
    el("h3", {}, "The tasks of this mean"),
    KEPT[row.task] &&
      el("p", { class: "note" }, `This mean leaves out ${KEPT[row.task]}; the lines below are over all items.`),
    plainTable(
      ["task", "accuracy", "against sft", "95 % interval", "verdict"],
      row.members.map((task) => {
        const part = line.tasks.get(task);
        return part
          ? [
              openButton(part, task),
              number(part.accuracy),
              signed(part.delta_vs_sft),
              span(part.delta_interval),
              part.verdict || "",
            ]
          : [task, "", "", "", ""];
      }),
    ),
  );
}
