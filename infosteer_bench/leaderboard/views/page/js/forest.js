// Forest plot of the differences to sft, and the seeds behind the accuracies.

const forestState = { model: "", show: "", base: false };

function startForest() {
  const rows = board.rows.filter(measured);
  if (!rows.length) return;
  $("forest").hidden = false;
  $("forest-plot").parentElement.hidden = !rows.some((row) => known(row.delta_vs_sft)); // sft alone has nothing to face
  const present = new Set(rows.map((row) => row.task));
  const tasks = board.tasks.filter((task) => present.has(task));
  const methods = methodOrder.filter((one) => rows.some((row) => row.entrant === one));
  forestState.show = "task " + (present.has("mean:all") ? "mean:all" : tasks[0]);
  const label = (entrant) => {
    const [method, arm] = JSON.parse(entrant);
    return methodLabel({ method, arm });
  };
  $("forest-controls").append(
    choice(
      "Show",
      [
        { group: "One task, every method", options: tasks.map((task) => ["task " + task, taskLabel(task)]) },
        { group: "One method, every task", options: methods.map((one) => ["method " + one, label(one)]) },
      ],
      forestState.show,
      (value) => {
        forestState.show = value;
        drawForest();
      },
    ),
    ...(board.models.length > 1
      ? [
          choice("Model", [["", "all models"], ...board.models.map((one) => [one, one])], "", (value) => {
            forestState.model = value;
            drawForest();
          }),
        ]
      : []),
    ...(rows.some(untrained) && !rows.every(untrained)
      ? [
          tick("with base (not fine-tuned)", false, (value) => {
            forestState.base = value;
            drawForest();
          }),
        ]
      : []),
  );
  drawForest();
}

function drawForest() {
  const [kind, ...rest] = forestState.show.split(" ");
  const wanted = rest.join(" ");
  const rows = board.rows.filter(
    (row) =>
      measured(row) &&
      (!forestState.model || row.model === forestState.model) &&
      (forestState.base ||
        wanted === row.entrant ||
        !untrained(row) ||
        board.rows.every((one) => !measured(one) || untrained(one))) &&
      (kind === "task" ? row.task === wanted : row.entrant === wanted),
  );
  const text = (row) =>
    kind === "task" ? [row.method, row.arm && row.arm.replaceAll(",", ", ")] : [taskLabel(row.task)];
  const compared = rows.filter((row) => known(row.delta_vs_sft));
  const edges = compared.flatMap((row) => [row.delta_vs_sft, ...(row.delta_interval || [])]);
  const reach = Math.max(1, ...edges.map(Math.abs)) * 1.06;
  const band = compared.some((row) => known(row.detectable) && row.detectable < reach);
  $("forest-plot").replaceChildren(
    compared.length
      ? tracks(
          compared,
          text,
          [-reach, reach],
          (row, at) => [
            known(row.detectable) &&
              svg("rect", {
                class: "band",
                x: at(Math.max(-reach, -row.detectable)),
                width: share(2 * Math.min(reach, row.detectable), 2 * reach),
                y: 3,
                height: 20,
              }),
            row.delta_interval &&
              svg("line", {
                class: row.n_seeds_paired < 2 ? "whisker dashed" : "whisker",
                x1: at(row.delta_interval[0]),
                x2: at(row.delta_interval[1]),
                y1: 13,
                y2: 13,
                vars: { "--mark": markOf(row.entrant).colour },
              }),
            svg(
              "svg",
              { x: at(row.delta_vs_sft), y: 13, class: "over" },
              markPath(row.entrant, 5, row.verdict !== "win" && row.verdict !== "loss"),
            ),
          ],
          (row) => [
            GLYPHS[row.verdict] && el("span", { class: `glyph ${row.verdict}` }, GLYPHS[row.verdict] + " "),
            el("b", {}, signed(row.delta_vs_sft)),
            marked(row) && "*",
            el("small", {}, row.delta_interval ? span(row.delta_interval) : ""),
          ],
        )
      : el("p", { class: "empty" }, "Nothing here is compared with sft."),
  );
  $("forest-note").textContent = compared.length
    ? `Line: 95 % interval${compared.some((row) => row.n_seeds_paired < 2) ? " (dashed: one seed, over items only)" : ""}. Filled mark: win or loss, hollow: tie or not tested.${band ? ` Shaded: smaller than what ${SINGLE_TEST} finds four times in five.` : ""}`
    : "";
  const values = rows.flatMap((row) => [...row.seeds.map(([, value]) => value), ...(row.interval || [])]);
  const low = Math.max(0, Math.floor((Math.min(...values) - 2) / 5) * 5),
    high = Math.min(100, Math.ceil((Math.max(...values) + 2) / 5) * 5);
  $("seed-plot").replaceChildren(
    tracks(
      rows,
      text,
      [low, high],
      (row, at) => [
        row.interval &&
          svg("line", {
            class: "whisker thin",
            x1: at(row.interval[0]),
            x2: at(row.interval[1]),
            y1: 13,
            y2: 13,
            vars: { "--mark": markOf(row.entrant).colour },
          }),
        svg("line", {
          class: "meanbar",
          x1: at(row.accuracy),
          x2: at(row.accuracy),
          y1: 4,
          y2: 22,
          vars: { "--mark": markOf(row.entrant).colour },
        }),
        row.seeds.map(([seed, value]) =>
          svg(
            "circle",
            { class: "dot", cx: at(value), cy: 13, r: 3.5, vars: { "--mark": markOf(row.entrant).colour } },
            svg("title", {}, `${seed === null ? "not trained" : `seed ${seed}`}: ${number(value)}`),
          ),
        ),
      ],
      (row) => [
        el("b", {}, number(row.accuracy)),
        marked(row) && "*",
        el("small", {}, known(row.seed_std) ? `± ${number(row.seed_std)} sd` : ""),
      ],
    ),
  );
}
