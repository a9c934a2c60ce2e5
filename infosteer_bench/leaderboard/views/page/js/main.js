// Header, theme, navigation, remarks; then each section that has something to show.

const THEMES = ["auto", "light", "dark"];
function startTheme() {
  const button = $("theme");
  let theme = "auto";
  try {
    theme = localStorage.getItem("board-theme") || "auto";
  } catch {
    /* a page from disk may have no storage */
  }
  if (!THEMES.includes(theme)) theme = "auto";
  const apply = () => {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    try {
      localStorage.setItem("board-theme", theme);
    } catch {
      /* as above */
    }
    apply();
  });
  apply();
}

function startAbout() {
  $("title").textContent = $("brand").textContent = board.name;
  $("description").textContent = board.description;
  $("results").append(
    ...board.results.map((one) => {
      const tasks = one.win + one.tie + one.loss;
      return el(
        "div",
        { class: "tally" },
        methodName({ ...one, entrant: JSON.stringify([one.method, one.arm]) }),
        el(
          "p",
          {},
          el("b", {}, el("span", { class: "glyph win" }, "▲ "), plural(one.win, "win")),
          el("b", {}, el("span", { class: "glyph loss" }, "▼ "), plural(one.loss, "loss", "losses")),
          el("b", {}, plural(one.tie, "tie")),
        ),
        el(
          "small",
          {},
          `against sft in ${plural(tasks, "test")}, one per task, on ${plural(one.models, "model")}; `,
          known(one.detectable)
            ? `in half of them ${SINGLE_TEST} finds a true difference four times in five only from ${number(one.detectable, 1)} points on`
            : `in half of them ${SINGLE_TEST} finds no difference, however large, four times in five`,
        ),
      );
    }),
  );
  $("warnings").append(...board.warnings.map((parts) => el("p", { class: "callout" }, pieces(parts))));
  const facts = new Map();
  for (const [label, parts] of board.facts) facts.set(label, [...(facts.get(label) || []), parts]);
  for (const [label, texts] of facts) {
    $("facts").append(
      el("dt", {}, label),
      el(
        "dd",
        {},
        texts.map((parts) => el("div", {}, pieces(parts))),
      ),
    );
  }
  $("how").hidden = !board.rows.some(measured);
  $("marks").prepend(...board.marks.map((parts) => el("li", {}, pieces(parts))));
  $("files").append(
    "Beside this page: ",
    ...board.files.flatMap(([name, what], place) => [place ? ", " : "", el("a", { href: name, title: what }, name)]),
    ".",
  );
}

function startRemarks() {
  const reasons = new Map();
  for (const row of board.rows)
    for (const note of row.notes || []) reasons.set(note, [...(reasons.get(note) || []), row]);
  if (!reasons.size) return;
  $("remarks").hidden = false;
  $("remark-list").append(
    ...[...reasons].map(([note, rows]) =>
      el(
        "li",
        {},
        note,
        ": ",
        rows
          .slice(0, 4)
          .map((row, place) => [
            place ? ", " : "",
            openButton(
              row,
              [board.models.length > 1 && row.model, methodLabel(row), taskLabel(row.task)].filter(Boolean).join(" / "),
            ),
          ]),
        rows.length > 4 && ` and ${rows.length - 4} more`,
      ),
    ),
  );
}

function startNav() {
  const titles = {
    differences: "Differences",
    forest: "Intervals",
    all: "All rows",
    costs: "Cost",
    ranks: "Ranks",
    mechanism: "Mechanism",
    remarks: "Remarks",
  };
  $("nav").append(
    ...Object.entries(titles)
      .filter(([id]) => !$(id).hidden)
      .map(([id, text]) => el("a", { href: `#${id}` }, text)),
  );
}

startTheme();
startAbout();
startHeat();
startForest();
startTable();
startCosts();
startRanks();
startMechanism();
startRemarks();
startNav();
startDetail();
