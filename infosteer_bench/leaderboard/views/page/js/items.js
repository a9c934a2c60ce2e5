// The items that flipped against sft, both answers side by side. Where they are not part of the page they come from a
// script beside it: a page opened from disk may not read files in any other way.

const PAGE = 20;
const loaded = new Map(Object.entries(board.items.inline).map(([place, found]) => [Number(place), found]));
const waiting = new Map();
globalThis.boardItems = (place, found) => {
  loaded.set(place, found);
};

function fetchItems(row) {
  if (loaded.has(row.place)) return Promise.resolve(loaded.get(row.place));
  if (!waiting.has(row.place)) {
    waiting.set(
      row.place,
      new Promise((resolve, reject) => {
        const script = el("script", { src: `items/${row.place}.js` });
        script.onload = () =>
          loaded.has(row.place) ? resolve(loaded.get(row.place)) : reject(new Error("other content"));
        script.onerror = () => {
          waiting.delete(row.place);
          script.remove();
          reject(new Error("missing"));
        };
        document.head.append(script);
      }),
    );
  }
  return waiting.get(row.place);
}

function flipPlace(row, item, whenLoaded) {
  if (!board.items.rows.includes(row.place)) return null;
  const place = el(
    "div",
    { class: "flips" },
    el("h3", {}, "Items that flipped against sft"),
    el("p", { class: "note", role: "status" }, "Loading …"),
  );
  fetchItems(row).then(
    (found) => {
      whenLoaded(found);
      place.replaceChildren(...flipList(row, found, item));
    },
    () =>
      place.lastChild.replaceWith(
        el(
          "p",
          { class: "callout" },
          `The file items/${row.place}.js is not beside this page. Keep the folder items/ with index.html; all answers are in records/items.parquet.`,
        ),
      ),
  );
  return place;
}

function flipList(row, found, item) {
  const state = { direction: "", seed: "", words: "", shown: PAGE };
  const text = (place) => {
    const one = found.texts[place];
    return Array.isArray(one) ? one[0] : one;
  };
  const won = found.seeds.reduce((sum, one) => sum + one.won, 0),
    lost = found.seeds.reduce((sum, one) => sum + one.lost, 0);
  const list = el("div", { class: "flip-list" }),
    status = el("p", { class: "note", role: "status" }),
    more = el("button", { type: "button", class: "quiet" }, "Show more");
  const wanted = () =>
    found.flips.filter(
      (flip) =>
        (state.direction === "" || flip[2] === Number(state.direction)) &&
        (state.seed === "" || flip[0] === Number(state.seed)) &&
        (!state.words ||
          [3, 4, 5, 7, 8].some(
            (place) => flip[place] !== null && text(flip[place]).toLowerCase().includes(state.words),
          )),
    );
  const draw = () => {
    const some = wanted();
    list.replaceChildren(...some.slice(0, state.shown).map((flip) => flipCard(row, found, flip, text)));
    status.textContent = some.length
      ? `${Math.min(state.shown, some.length)} of ${plural(some.length, "flip")}`
      : found.flips.length
        ? "No flip fits these filters."
        : "";
    more.hidden = some.length <= state.shown;
  };
  more.addEventListener("click", () => {
    const before = list.children.length;
    state.shown += 5 * PAGE;
    draw();
    if (list.children[before]) list.children[before].querySelector("a").focus();
  });
  const again = (name) => (value) => {
    state[name] = value;
    state.shown = PAGE;
    draw();
  };
  const words = el("input", {
    type: "search",
    placeholder: "in answers",
    on: { input: () => again("words")(words.value.toLowerCase()) },
  });
  if (item)
    state.shown = Math.max(PAGE, found.flips.findIndex((flip) => flip[0] === item[0] && flip[1] === item[1]) + 1);
  draw();
  if (item)
    setTimeout(() => {
      const card = list.querySelector(`[data-item="${item[0]}.${item[1]}"]`);
      if (card) {
        card.classList.add("target");
        card.scrollIntoView({ block: "center" });
        card.querySelector("a").focus({ preventScroll: true });
      }
    });
  const several = found.seeds.length > 1;
  return [
    el("h3", {}, "Items that flipped against sft"),
    el(
      "p",
      {},
      el("b", {}, plural(won, "item")),
      " right here and wrong in sft, ",
      el("b", {}, plural(lost, "item")),
      ` the other way round${several ? `, over ${found.seeds.length} seeds` : ""}.`,
      found.sample &&
        ` Up to ${found.sample} of each direction and seed are shown, evenly spaced; all are in records/items.parquet.`,
    ),
    ...(found.flips.length
      ? [
          el(
            "div",
            { class: "controls" },
            choice(
              "Direction",
              [
                ["", "both"],
                ["1", "▲ right only here"],
                ["0", "▼ right only in sft"],
              ],
              "",
              again("direction"),
            ),
            several &&
              choice(
                "Seed",
                [["", "all"], ...found.seeds.map((one, place) => [String(place), String(one.seed)])],
                "",
                again("seed"),
              ),
            el("label", {}, el("span", {}, "Search"), words),
          ),
          status,
          list,
          more,
        ]
      : [el("p", { class: "empty" }, "No item flipped: both answered every item alike.")]),
  ].filter(Boolean);
}

function flipCard(row, found, flip, text) {
  const [place, doc, right, target, ...sides] = flip;
  const side = (title, entrant, ok, [extracted, generation, cut]) => {
    const whole = found.texts[generation];
    const length = Array.isArray(whole) ? whole[1] : null;
    return el(
      "div",
      { class: ok ? "side right" : "side" },
      el("h4", {}, markIcon(entrant), title, el("span", { class: "result" }, ok ? "✓ right" : "✗ wrong")),
      el(
        "p",
        {},
        "answer read: ",
        extracted === null ? el("em", {}, "none found") : el("code", {}, text(extracted)),
        cut ? el("span", { class: "tag" }, "cut at the token limit") : null,
      ),
      el(
        "pre",
        { tabindex: "0", role: "region", "aria-label": `generation, ${title}` },
        text(generation) || el("em", {}, "(empty)"),
      ),
      length && el("p", { class: "note" }, `shown up to here; ${length.toLocaleString("en")} characters in all`),
    );
  };
  const seed = found.seeds[place].seed;
  return el(
    "article",
    { class: "flip", "data-item": `${place}.${doc}` },
    el(
      "header",
      {},
      el("a", { href: `#row=${rowKey(row)}&item=${place}.${doc}` }, `item ${doc}`),
      seed === null ? null : ` · seed ${seed}`,
      el("span", { class: `glyph ${right ? "win" : "loss"}` }, right ? " ▲" : " ▼"),
      right ? " right only here" : " right only in sft",
      " · target ",
      el("code", {}, text(target)),
    ),
    el(
      "div",
      { class: "sides" },
      side("sft", JSON.stringify(["sft", ""]), !right, sides.slice(3)),
      side(methodLabel(row), row.entrant, Boolean(right), sides.slice(0, 3)),
    ),
  );
}
