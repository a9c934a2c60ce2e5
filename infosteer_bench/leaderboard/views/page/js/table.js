// Every row in a table that sorts and filters (DataTables). Cells are elements made here: no text is read as markup.

const tableState = { model: "", method: "", mix: "", task: "", verdict: "", complete: false, words: "" };
const VERDICTS = [
  ["", "any"],
  ["win", "▲ win"],
  ["loss", "▼ loss"],
  ["tie", "tie"],
  ["none", "not tested"],
];

const COLUMNS = [
  { title: "Model", value: (row) => row.model, text: true },
  { title: "Method", value: (row) => methodLabel(row), text: true, show: (row) => methodName(row) },
  {
    title: "Task",
    value: (row) => taskLabel(row.task),
    text: true,
    order: (row) => board.tasks.indexOf(row.task),
    show: (row) => [
      openButton(row, taskLabel(row.task), {
        "aria-label": `${row.model}, ${methodLabel(row)}, ${taskLabel(row.task)}: open`,
      }),
      row.split && el("small", { class: "below" }, row.split),
    ],
  },
  {
    title: "Accuracy",
    value: (row) => row.accuracy,
    show: (row) => [
      el("b", {}, number(row.accuracy)),
      marked(row) && el("span", { title: reasons(row).join("; ") }, "*"),
      known(row.seed_std) && el("small", {}, `± ${number(row.seed_std)}`),
      row.interval && el("small", { class: "below" }, span(row.interval, 1)),
    ],
  },
  {
    title: "Against sft",
    value: (row) => row.delta_vs_sft,
    show: (row) => [
      GLYPHS[row.verdict] && el("span", { class: `glyph ${row.verdict}` }, GLYPHS[row.verdict] + " "),
      el("b", {}, signed(row.delta_vs_sft)),
      row.delta_interval && el("small", { class: "below" }, span(row.delta_interval, 1)),
    ],
  },
  {
    title: "Verdict",
    value: (row) => row.p_holm,
    show: (row) => [row.verdict, known(row.p_holm) && el("small", { class: "below" }, `p ${chance(row.p_holm)}`)],
  },
  {
    title: "Detectable",
    value: (row) => row.detectable,
    show: (row) =>
      known(row.detectable) ? number(row.detectable, 1) : row.delta_interval ? el("small", {}, "nothing") : "",
  },
  ...board.columns.map((column) => ({
    title: column.label,
    hint: column.meaning,
    optional: column.optional,
    value: (row) => row[column.name],
    show: (row) => number(row[column.name]),
    warn: (row) => known(column.warn) && row[column.name] >= column.warn,
  })),
  {
    title: "Overlap",
    value: (row) => row.overlap && row.overlap.masked + row.overlap.repeated,
    show: (row) => badges(row),
  },
  {
    title: "Mix",
    value: (row) => row.mix || "",
    text: true,
    show: (row) => el("span", { class: "wraps" }, (row.mix || "").replaceAll("+", " + ")),
  },
];

// A missing number comes last, whichever way the column is sorted.
function startOrder() {
  const missingLast = (direction) => (a, b) =>
    !known(a) || !known(b) ? (known(a) ? -1 : known(b) ? 1 : 0) : direction * (a < b ? -1 : a > b ? 1 : 0);
  DataTable.type("figure", { className: "figure", order: { asc: missingLast(1), desc: missingLast(-1) } });
}

function startTable() {
  if (!board.rows.length) return;
  $("all").hidden = false;
  startOrder();
  const shown = COLUMNS.filter(
    (column) =>
      board.rows.some((row) => known(column.value(row)) && column.value(row) !== "") &&
      (column.title !== "Model" || board.models.length > 1),
  );
  const optional = shown.flatMap((column, place) => (column.optional ? [place] : []));
  const table = new DataTable("#rows", {
    data: board.rows,
    columns: shown.map((column) => ({
      title: column.title,
      type: column.text && !column.order ? "string" : "figure",
      searchable: false,
      className: column.text ? "words" : "figure",
      visible: !column.optional,
      data: null,
      render: (_, kind, row) => {
        if (kind === "sort" || kind === "type")
          return column.order
            ? column.order(row)
            : known(column.value(row))
              ? column.value(row)
              : column.text
                ? ""
                : null;
        const content = column.show ? column.show(row) : column.value(row);
        return el("span", { class: column.warn && column.warn(row) ? "warn" : null }, ...[content].flat());
      },
    })),
    order: [],
    autoWidth: false,
    searching: true,
    pageLength: 25,
    layout: { topStart: null, topEnd: null, bottomStart: ["info", "pageLength"], bottomEnd: "paging" },
    lengthMenu: [25, 50, 100, { label: "all", value: -1 }],
    language: {
      emptyTable: "No row.",
      zeroRecords: "No row fits these filters.",
      info: "_START_ to _END_ of _TOTAL_ rows",
      infoEmpty: "no rows",
      infoFiltered: "(of _MAX_)",
      lengthMenu: "Show _MENU_",
    },
  });
  const explained = shown.filter((column) => column.hint).map((column) => `${column.title}: ${column.hint}.`);
  $("table-note").prepend(explained.join(" "), " ");
  $("table-note").hidden = !board.rows.some(measured);
  table.search.fixed("filters", (_, row) => fits(row));
  const again = () => table.draw();
  const field = (label, name, options) =>
    choice(label, options, "", (value) => {
      tableState[name] = value;
      again();
    });
  const each = (values, label) => [["", "all"], ...values.map((value) => [value, label ? label(value) : value])];
  const mixes = [...new Set(board.rows.map((row) => row.mix).filter(Boolean))];
  const means = board.tasks.filter(isMean),
    tasks = board.tasks.filter((task) => !isMean(task));
  const words = el("input", {
    type: "search",
    placeholder: "words, e.g. llama gsm8k",
    on: {
      input: () => {
        tableState.words = words.value;
        again();
      },
    },
  });
  const controls = [
    field("Model", "model", each(board.models)),
    field(
      "Method",
      "method",
      each(methodOrder, (one) => {
        const [method, arm] = JSON.parse(one);
        return methodLabel({ method, arm });
      }),
    ),
    mixes.length > 1 && field("Mix", "mix", each(mixes)),
    field(
      "Task",
      "task",
      [
        ["", "all"],
        ["#tasks", "tasks only"],
        ["#means", "means only"],
        { group: "Means", options: means.map((task) => [task, taskLabel(task)]) },
        { group: "Tasks", options: tasks.map((task) => [task, task]) },
      ].filter((one) => !one.group || one.options.length),
    ),
    board.rows.some((row) => row.verdict) && field("Verdict", "verdict", VERDICTS),
    el("label", {}, el("span", {}, "Search"), words),
    board.rows.some((row) => row.partial) &&
      !board.rows.every((row) => row.partial) &&
      tick("complete rows only", false, (value) => {
        tableState.complete = value;
        again();
      }),
    shown.some((column) => column.optional) &&
      tick("with other filters", false, (value) => table.columns(optional).visible(value)),
  ].filter(Boolean);
  const reset = el(
    "button",
    {
      type: "button",
      class: "quiet",
      on: {
        click: () => {
          Object.assign(tableState, {
            model: "",
            method: "",
            mix: "",
            task: "",
            verdict: "",
            complete: false,
            words: "",
          });
          table.columns(optional).visible(false);
          for (const input of $("table-controls").querySelectorAll("select, input")) {
            if (input.type === "checkbox") input.checked = false;
            else input.value = "";
          }
          table.order([]).draw();
        },
      },
    },
    "Reset",
  );
  $("table-controls").append(...controls, reset);
  let length = 25;
  addEventListener("beforeprint", () => {
    length = table.page.len();
    table.page.len(-1).draw();
  });
  addEventListener("afterprint", () => table.page.len(length).draw());
}

function fits(row) {
  const { model, method, mix, task, verdict, complete, words } = tableState;
  if ((model && row.model !== model) || (method && row.entrant !== method) || (mix && row.mix !== mix)) return false;
  if (task === "#tasks" ? isMean(row.task) : task === "#means" ? !isMean(row.task) : task && row.task !== task)
    return false;
  if (verdict && (row.verdict || "none") !== verdict) return false;
  if (complete && row.partial) return false;
  const text = [row.model, methodLabel(row), row.mix, taskLabel(row.task), row.split, row.verdict]
    .join(" ")
    .toLowerCase();
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}
