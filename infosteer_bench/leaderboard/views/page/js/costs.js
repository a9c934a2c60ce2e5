// Cost against gain, and methods against each other.

const COSTS = {
  step_time_s_ratio: ["step time", (line) => `${number(line.step_time_s, 3)} s`],
  peak_memory_bytes_ratio: ["peak memory", (line) => `${number(line.peak_memory_bytes / 2 ** 30)} GiB`],
};

function startCosts() {
  const lines = board.costs.map((line) => ({ ...line, row: board.rows[line.row] }));
  if (!lines.some((line) => !isSft(line.row))) return;
  $("costs").hidden = false;
  const kinds = Object.keys(COSTS).filter((name) => lines.some((line) => known(line[name])));
  const judged = lines.some((line) => line.row.verdict);
  let kind = kinds[0];
  const gain = (line) => (isSft(line.row) ? 0 : line.row.delta_vs_sft);
  const draw = () => {
    const usable = lines.filter((line) => known(line[kind]) && known(gain(line)));
    const y = reach([0, ...usable.map(gain), ...usable.flatMap((line) => line.row.delta_interval || [])], 0.5);
    const x = reach([1, ...usable.map((line) => line[kind])], 0.02);
    $("cost-plot").replaceChildren(
      ...board.models
        .map((model) => {
          const points = usable
            .filter((line) => line.row.model === model)
            .map((line) => ({
              x: line[kind],
              y: gain(line),
              entrant: line.row.entrant,
              interval: line.row.delta_interval,
              title: `${methodLabel(line.row)}: ${number(line[kind])} times sft's ${COSTS[kind][0]}, ${signed(gain(line))} points`,
            }));
          const front = points
            .filter(
              (one) =>
                !points.some((other) => other.x <= one.x && other.y >= one.y && (other.x < one.x || other.y > one.y)),
            )
            .sort((a, b) => a.x - b.x);
          return points.length > 1
            ? scatter(model, points, {
                x,
                y,
                front,
                one: 1,
                xText: `${COSTS[kind][0]}, times sft's`,
                yText: "gain, points",
                xFormat: (value) => String(value),
              })
            : null;
        })
        .filter(Boolean),
      keyList(usable.map((line) => line.row.entrant)),
    );
  };
  $("cost-controls").append(
    choice(
      "Cost",
      kinds.map((name) => [name, COSTS[name][0]]),
      kind,
      (value) => {
        kind = value;
        draw();
      },
    ),
  );
  $("cost-note").textContent =
    "Gain: difference of the mean over all tasks to sft, with its 95 % interval. Cost: as recorded in training, the geometric mean over matched checkpoints (same mix, seed and kind of machine). The stepped line is the Pareto front: nothing left of it gains as much. Step times of a machine that was shared carry its noise.";
  $("cost-table").replaceChildren(
    plainTable(
      [
        "method",
        "model",
        "checkpoints",
        ...kinds.flatMap((name) => [COSTS[name][0], "times sft's"]),
        "gain",
        "95 % interval",
        ...(judged ? ["verdict"] : []),
      ],
      lines.map((line) => [
        el("span", { class: "name" }, markIcon(line.row.entrant), openButton(line.row, methodLabel(line.row))),
        line.row.model,
        String(line.checkpoints),
        ...kinds.flatMap((name) => (known(line[name]) ? [COSTS[name][1](line), number(line[name])] : ["", ""])),
        isSft(line.row) ? "" : signed(line.row.delta_vs_sft),
        span(line.row.delta_interval),
        ...(judged ? [line.row.verdict || ""] : []),
      ]),
      { words: 2 },
    ),
  );
  draw();
}

function startRanks() {
  if (board.methods.length < 2 || !board.rows.some(measured)) return;
  $("ranks").hidden = false;
  if (!board.standings.length)
    $("rank-tables").append(
      el(
        "p",
        { class: "empty" },
        "Nothing to rank: no task has a complete row of every method, in one setting and on upstream's data.",
      ),
    );
  const models = [...new Set(board.standings.map((one) => one.model))];
  $("rank-tables").append(
    ...models.map((model) => {
      const lines = board.standings.filter((one) => one.model === model).sort((a, b) => a.rank - b.rank);
      const judged = lines.some((one) => one.verdicts);
      return el(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": `Ranks, ${model}` },
        plainTable(
          ["method", "average rank", "win rate", ...(judged ? ["won / tied / lost"] : [])],
          lines.map((one) => [
            methodName({ ...one, entrant: JSON.stringify([one.method, one.arm]) }),
            number(one.rank),
            el("span", { class: "meter", vars: { "--t": `${one.win_rate}%` } }, `${number(one.win_rate, 1)} %`),
            ...(judged ? [one.verdicts ? `${one.verdicts.win} / ${one.verdicts.tie} / ${one.verdicts.loss}` : ""] : []),
          ]),
          {
            caption: `${model}, ${plural(lines[0].n_tasks, model === "all models" ? "model and task" : "task", model === "all models" ? "pairs of model and task" : "tasks")}`,
          },
        ),
      );
    }),
  );
}
