// What happened inside the models: entropy of the key coefficients, and its change beside the change of the scores.

const READINGS = [
  ["entropy_share", "entropy, share of the most", 3],
  ["effective_memories", "effective memories", 1],
  ["low_share", "share of low keys", 3],
  ["knowledge_entropy_share", "knowledge entropy, share", 3],
];

function startMechanism() {
  if (!board.mechanism) return;
  $("mechanism").hidden = false;
  const rows = board.mechanism.rows.map((row) => ({ ...row, entrant: JSON.stringify([row.method, row.arm || ""]) }));
  const paired = rows.filter(
    (row) => known(row.entropy_change) && known(row.score_change) && !(row.method === "sft" && !row.arm),
  );
  if (paired.length) {
    const x = reach([0, ...paired.map((row) => row.entropy_change)], 0.002),
      y = reach([0, ...paired.map((row) => row.score_change)], 0.5);
    $("mechanism-plot").append(
      ...board.models
        .map((model) => {
          const points = paired
            .filter((row) => row.model === model)
            .map((row) => ({
              x: row.entropy_change,
              y: row.score_change,
              entrant: row.entrant,
              title: `${methodLabel(row)}, ${row.mix}, seed ${row.seed}: ${signed(row.entropy_change, 4)} nats, ${signed(row.score_change)} points`,
            }));
          return points.length
            ? scatter(model, points, {
                x,
                y,
                one: 0,
                xText: "change of entropy, nats",
                yText: "change of score, points",
                xFormat: (value) => minus(String(value)),
              })
            : null;
        })
        .filter(Boolean),
      keyList(paired.map((row) => row.entrant)),
    );
  }
  const found = board.mechanism.correlations;
  const coefficient = (one, kind) =>
    known(one[kind])
      ? `${signed(one[kind])}${known(one[`${kind}_low`]) ? ` (${span([one[`${kind}_low`], one[`${kind}_high`]])})` : ""}`
      : "";
  if (found.length)
    $("correlation-table").append(
      plainTable(
        ["model", "mix", "checkpoints", "Spearman (95 % interval)", "Pearson (95 % interval)"],
        found.map((one) => [
          one.model === null ? "all models and mixes" : one.model,
          one.mix || "",
          String(one.n),
          coefficient(one, "spearman"),
          coefficient(one, "pearson"),
        ]),
        { caption: "Change of entropy against change of score, over checkpoints", words: 2 },
      ),
    );
  const groups = new Map();
  for (const row of rows) {
    const key = JSON.stringify([row.model, row.method, row.arm, row.mix]);
    groups.set(key, [...(groups.get(key) || []), row]);
  }
  const mean = (some, of) => {
    const values = some.map(of).filter(known);
    return values.length ? values.reduce((a, b) => a + b) / values.length : null;
  };
  $("mechanism-table").append(
    plainTable(
      ["method", "model", "mix", "checkpoints", ...READINGS.map(([, label]) => label), "entropy against sft, nats"],
      [...groups.values()].map((some) => [
        methodName(some[0]),
        some[0].model,
        some[0].mix || "",
        String(some.length),
        ...READINGS.map(([name, , digits]) =>
          number(
            mean(some, (row) => row.values[name]),
            digits,
          ),
        ),
        signed(
          mean(some, (row) => row.entropy_change),
          4,
        ),
      ]),
      { words: 3 },
    ),
  );
}
