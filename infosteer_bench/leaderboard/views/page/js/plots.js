// What the plots share. SVG in percent of its width, so that nothing needs measuring; tables stand beside the pictures.

const share = (part, whole) => `${Math.max(0, (100 * part) / whole).toFixed(3)}%`;

// Lines of label | drawing | figures, by model, with one axis below.
function tracks(rows, text, [low, high], draw, figures) {
  const at = (value) => share(value - low, high - low);
  const marks = ticks(low, high, 5);
  const grid = () =>
    marks.map((value) =>
      svg("line", { class: value === 0 ? "zero" : "grid", x1: at(value), x2: at(value), y1: 0, y2: "100%" }),
    );
  const list = el("ul", { class: "tracks" });
  let model = null;
  for (const row of rows) {
    if (row.model !== model) list.append(el("li", { class: "model" }, (model = row.model)));
    const [name, below] = text(row);
    list.append(
      el(
        "li",
        {},
        el(
          "span",
          { class: "label" },
          markIcon(row.entrant),
          el(
            "span",
            {},
            openButton(row, name, {
              "aria-label": `${methodLabel(row)}, ${taskLabel(row.task)}, ${row.model}: ${describe(row)}`,
            }),
            below && el("small", {}, below),
          ),
        ),
        svg("svg", { class: "track", height: 26, width: "100%", "aria-hidden": "true" }, grid(), draw(row, at)),
        el("span", { class: "figures" }, figures(row)),
      ),
    );
  }
  list.append(
    el(
      "li",
      { class: "axis", "aria-hidden": "true" },
      el("span", {}),
      svg(
        "svg",
        { class: "track", height: 20, width: "100%" },
        marks.map((value) =>
          svg(
            "text",
            { x: at(value), y: 13, class: "tick-text" },
            low < 0 && value > 0 ? "+" + value : minus(String(value)),
          ),
        ),
      ),
      el("span", {}),
    ),
  );
  return list;
}

// A small scatter: points {x, y, entrant, interval?, title, row?}; front: points joined by steps.
function scatter(title, points, { x, y, xText, yText, xFormat, front, one }) {
  const W = 400,
    H = 280,
    L = 46,
    R = 14,
    T = 12,
    B = 40;
  const px = (value) => L + ((value - x[0]) / (x[1] - x[0])) * (W - L - R);
  const py = (value) => H - B - ((value - y[0]) / (y[1] - y[0])) * (H - T - B);
  const clip = (value) => Math.min(Math.max(value, y[0]), y[1]);
  const steps =
    front &&
    front
      .map((point, place) => (place ? `H${px(point.x)}V${py(point.y)}` : `M${px(point.x)},${py(point.y)}`))
      .join("") + (front.length ? `H${W - R}` : "");
  return el(
    "figure",
    {},
    el("figcaption", {}, title),
    svg(
      "svg",
      {
        viewBox: `0 0 ${W} ${H}`,
        role: "img",
        "aria-label": `${title}: ${yText} against ${xText}; the table below has the numbers`,
      },
      ticks(...x, 5).map((value) => [
        svg("line", { class: "grid", x1: px(value), x2: px(value), y1: T, y2: H - B }),
        svg("text", { class: "tick-text", x: px(value), y: H - B + 15 }, xFormat(value)),
      ]),
      ticks(...y, 5).map((value) => [
        svg("line", { class: value === 0 ? "zero" : "grid", x1: L, x2: W - R, y1: py(value), y2: py(value) }),
        svg(
          "text",
          { class: "tick-text end", x: L - 6, y: py(value) + 4 },
          value > 0 ? "+" + value : minus(String(value)),
        ),
      ]),
      known(one) &&
        one >= x[0] &&
        one <= x[1] &&
        svg("line", { class: "zero", x1: px(one), x2: px(one), y1: T, y2: H - B }),
      svg("text", { class: "axis-text", x: (L + W - R) / 2, y: H - 6 }, xText),
      svg("text", { class: "axis-text", transform: `translate(12 ${(T + H - B) / 2}) rotate(-90)` }, yText),
      front && svg("path", { class: "front", d: steps }),
      points.map(
        (point) =>
          point.interval &&
          svg("line", {
            class: "whisker thin",
            x1: px(point.x),
            x2: px(point.x),
            y1: py(clip(point.interval[0])),
            y2: py(clip(point.interval[1])),
            vars: { "--mark": markOf(point.entrant).colour },
          }),
      ),
      points.map((point) =>
        svg(
          "g",
          { transform: `translate(${px(point.x)} ${py(point.y)})` },
          markPath(point.entrant, 5.5),
          svg("title", {}, point.title),
        ),
      ),
    ),
  );
}
function reach(values, least) {
  const low = Math.min(...values),
    high = Math.max(...values),
    pad = Math.max(0.08 * (high - low), least);
  return [low - pad, high + pad];
}
const keyList = (found) =>
  el(
    "div",
    { class: "legend" },
    [...new Set(found)].map((entrant) => {
      const [method, arm] = JSON.parse(entrant);
      return el("span", {}, markIcon(entrant), " ", methodLabel({ method, arm }));
    }),
  );
