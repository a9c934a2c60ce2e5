// The heat map: method x task, coloured by the difference to sft; signs and borders tell verdicts without colour.

const heatState = { model: "", columns: "tasks", base: false };
// A board of reported numbers has differences too, but nothing to test them with.
const gap = (row) => (known(row.delta_vs_sft) ? row.delta_vs_sft : row.reported_delta);
const MAIN_MEANS = ["mean:id", "mean:ood", "mean:all"];

function startHeat() {
  if (!board.rows.some(measured)) {
    for (const row of board.rows) {
      const twin = isSft(row) ? null : sftTwin(row);
      if (twin && known(twin.reported) && known(row.reported)) row.reported_delta = row.reported - twin.reported;
    }
  }
  const compared = board.rows.filter((row) => known(gap(row)));
  if (!compared.length) return;
  $("differences").hidden = false;
  const hasBase = compared.some(untrained);
  heatState.base = !compared.some((row) => !untrained(row));
  const models = [["", "all models"], ...board.models.map((model) => [model, model])];
  $("heat-controls").append(
    ...(board.models.length > 1
      ? [
          choice("Model", models, "", (value) => {
            heatState.model = value;
            drawHeat();
          }),
        ]
      : []),
    ...(!compared.some((row) => isMean(row.task))
      ? []
      : [
          choice(
            "Columns",
            [
              ["tasks", "tasks and main means"],
              ["means", "all means"],
            ],
            "tasks",
            (value) => {
              heatState.columns = value;
              drawHeat();
            },
          ),
        ]),
    ...(hasBase
      ? [
          tick("with base (not fine-tuned)", heatState.base, (value) => {
            heatState.base = value;
            drawHeat();
          }),
        ]
      : []),
  );
  $("heat-note").textContent = !board.rows.some(measured)
    ? "Percentage points, as reported: without an interval no difference can be told from luck."
    : "Percentage points. Click a cell for its seeds, its interval and the items that flipped.";
  drawHeat();
}

function heatColumns() {
  const present = new Set(board.rows.filter((row) => known(gap(row))).map((row) => row.task));
  const tasks = board.tasks.filter((task) => present.has(task));
  if (heatState.columns === "means") return tasks.filter(isMean);
  return [...tasks.filter((task) => MAIN_MEANS.includes(task)), ...tasks.filter((task) => !isMean(task))];
}

function drawHeat() {
  const columns = heatColumns();
  const shown = board.models.filter((model) => !heatState.model || model === heatState.model);
  const sizes = board.rows
    .filter((row) => known(gap(row)) && !untrained(row))
    .map((row) => Math.abs(gap(row)))
    .sort((a, b) => a - b);
  const largest = Math.max(1, Math.ceil(sizes.length ? sizes[Math.floor(0.98 * (sizes.length - 1))] : 10));
  const split = Object.fromEntries(
    board.rows.filter((row) => row.split && !isMean(row.task)).map((row) => [row.task, row.split]),
  );
  const doubtful = new Set(
    board.rows.filter((row) => row.overlap && (row.overlap.masked || row.overlap.repeated)).map((row) => row.task),
  );
  const groups = [];
  for (const task of columns) {
    const name = isMean(task) ? "Means" : split[task] || "Tasks";
    if (groups.length && groups[groups.length - 1][0] === name) groups[groups.length - 1][1]++;
    else groups.push([name, 1]);
  }
  const starts = (task, place) =>
    place > 0 && (isMean(columns[place - 1]) !== isMean(task) || split[columns[place - 1]] !== split[task]);
  const head = el(
    "thead",
    {},
    el(
      "tr",
      { class: "groups" },
      el("td", {}),
      groups.map(([name, count]) => el("th", { colspan: count, scope: "colgroup" }, name)),
    ),
    el(
      "tr",
      {},
      el("td", {}),
      columns.map((task, place) =>
        el(
          "th",
          { scope: "col", class: starts(task, place) && "starts" },
          el("span", { class: "upright" }, taskLabel(task).replace("mean ", "")),
          doubtful.has(task) && el("span", { class: "doubt" }, "†"),
        ),
      ),
    ),
  );
  const bodies = shown.map((model) => {
    const lines = entrants(model).filter((one) =>
      [...one.tasks.values()].some((row) => known(gap(row)) && (heatState.base || !untrained(row))),
    );
    if (!lines.length) return null;
    return el(
      "tbody",
      {},
      el("tr", { class: "model" }, el("th", { scope: "rowgroup", colspan: columns.length + 1 }, el("span", {}, model))),
      lines.map((line) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, methodName(line, line.mix)),
          columns.map((task, place) =>
            el("td", { class: starts(task, place) && "starts" }, heatCell(line.tasks.get(task), largest)),
          ),
        ),
      ),
    );
  });
  $("heat").replaceChildren(el("table", { class: "heat" }, head, bodies));
  $("heat-legend").replaceChildren(
    el(
      "span",
      { class: "ramp" },
      el("b", {}, number(-largest, 0)),
      el("i", { "aria-hidden": "true" }),
      el("b", {}, signed(largest, 0)),
      board.rows.some(measured) ? " points, pale where the interval holds zero" : " points",
    ),
    ...(board.rows.some(measured)
      ? [
          el("span", {}, el("span", { class: "glyph win" }, "▲"), " win"),
          el("span", {}, el("span", { class: "glyph loss" }, "▼"), " loss"),
          el("span", {}, "± half width of the 95 % interval"),
          board.rows.some((row) => row.n_seeds_paired < 2) && el("span", {}, "(±) one seed: over items only"),
          board.rows.some(marked) && el("span", {}, MARKED),
        ].filter(Boolean)
      : []),
    ...(columns.some((task) => doubtful.has(task))
      ? [el("span", {}, "† items that stand in the training mix, or twice in the tests")]
      : []),
  );
}

function heatCell(row, largest) {
  if (!row || !known(gap(row)))
    return el(
      "span",
      { class: "none", title: row ? (row.notes || ["sft or not measured"]).join("; ") : "no such row" },
      row && measured(row) ? "–" : "",
    );
  const sure = row.delta_interval && (row.delta_interval[0] > 0 || row.delta_interval[1] < 0);
  const strength = Math.min(1, Math.abs(gap(row)) / largest) * (sure || known(row.reported_delta) ? 1 : 0.4);
  const half = row.delta_interval && (row.delta_interval[1] - row.delta_interval[0]) / 2;
  const itemsOnly = row.n_seeds_paired < 2;
  return el(
    "button",
    {
      type: "button",
      class: `cell ${gap(row) < 0 ? "minus" : "plus"} ${row.verdict || ""}`,
      vars: { "--t": `${Math.round(100 * strength)}%` },
      "aria-label": `${row.model}, ${methodLabel(row)}, ${taskLabel(row.task)}: ${describe(row)}`,
      title: describe(row),
      on: { click: () => openRow(row) },
    },
    el(
      "span",
      { class: "value" },
      GLYPHS[row.verdict] ? el("span", { class: "glyph" }, GLYPHS[row.verdict]) : null,
      signed(gap(row), 1),
      measured(row) && marked(row) && "*",
    ),
    half !== undefined && el("span", { class: "half" }, itemsOnly ? `(±${number(half, 1)})` : `±${number(half, 1)}`),
  );
}

function describe(row) {
  if (!measured(row))
    return [
      known(row.reported) ? `reported ${number(row.reported)} %` : "not measured",
      known(row.reported_delta) && `${signed(row.reported_delta)} points against sft`,
    ]
      .filter(Boolean)
      .join(", ");
  const parts = [`${number(row.accuracy)} %`];
  if (known(row.delta_vs_sft)) parts.push(`${signed(row.delta_vs_sft)} points against sft`);
  if (row.delta_interval) parts.push(`95 % interval ${span(row.delta_interval)}`);
  if (row.verdict) parts.push(row.verdict);
  if (row.partial) parts.push("partial");
  if (row.stand_ins) parts.push("on stand-in data");
  return parts.join(", ");
}
