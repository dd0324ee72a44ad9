// Every two objectives against each other; a box limits both.

const PANEL_PX = 250;
const SURE = "datum.left && (datum.front || datum.chosen)"; // whose errors are drawn
// The axes span what the points do, and no more.
const TIGHT = { zero: false, nice: false };

function pointRows(x, y) {
  return shown.candidates.flatMap((trial) => {
    const [across, up] = [valueOf(trial, x.name), valueOf(trial, y.name)];
    if (typeof across !== "number" || typeof up !== "number") return [];
    const [dx, dy] = [x, y].map((one) => (state.condition && !one.cost ? 0 : (trial.errors[one.name] ?? 0)));
    return [{ ...described(trial), across, up, dx, dy }];
  });
}

function boxRows(x, y) {
  const [across, up] = [state.limits[x.name], state.limits[y.name]];
  return across || up
    ? [{ x: across?.low ?? null, x2: across?.high ?? null, y: up?.low ?? null, y2: up?.high ?? null }]
    : [];
}

function end(scale, field, otherwise) {
  return [
    { test: `datum.${field} === null`, value: otherwise },
    { scale, field },
  ];
}

function whisker(scale, value, error) {
  return {
    low: {
      signal: `clamp(scale('${scale}', max(datum.${value} - datum.${error}, ${scale}domain[0])), 0, ${scale === "x" ? "width" : "height"})`,
    },
    high: {
      signal: `clamp(scale('${scale}', datum.${value} + datum.${error}), 0, ${scale === "x" ? "width" : "height"})`,
    },
  };
}

function baseMarks(x, y, height) {
  const rule = { stroke: { value: INK }, strokeDash: { value: [2, 3] }, strokeOpacity: { value: 0.6 }, clip: true };
  const marks = [];
  const inside = (one) =>
    one.base !== null && one.base >= extent(one)[0] && one.base <= extent(one)[1] && !one.cost && !state.condition;
  if (inside(y))
    marks.push({
      type: "rule",
      interactive: false,
      encode: { update: { x: { value: 0 }, x2: { signal: "width" }, y: { scale: "y", value: y.base }, ...rule } },
    });
  if (inside(x))
    marks.push({
      type: "rule",
      interactive: false,
      encode: { update: { y: { value: 0 }, y2: { value: height }, x: { scale: "x", value: x.base }, ...rule } },
    });
  if (inside(x) && inside(y)) {
    marks.push({
      type: "symbol",
      interactive: false,
      encode: {
        update: {
          x: { scale: "x", value: x.base },
          y: { scale: "y", value: y.base },
          shape: { value: SHAPES.X },
          size: { value: 70 },
          fill: { value: INK },
        },
      },
    });
  }
  return marks;
}

function scatterSpec(x, y, width) {
  const size = { width: width - 62, height: PANEL_PX - 52 };
  const [across, up] = [whisker("x", "across", "dx"), whisker("y", "up", "dy")];
  const bar = { stroke: { field: "colour" }, strokeOpacity: { value: 0.45 } };
  return {
    ...size,
    padding: { left: 52, top: 10, right: 10, bottom: 42 },
    autosize: "none",
    signals: [
      { name: "xdomain", value: extent(x, 0.08) },
      { name: "ydomain", value: extent(y, 0.08) },
    ],
    data: [
      { name: "points", values: pointRows(x, y) },
      { name: "whiskers", source: "points", transform: [{ type: "filter", expr: SURE }] },
      { name: "box", values: boxRows(x, y) },
    ],
    scales: [
      { name: "x", type: isLog(x) ? "log" : "linear", domain: { signal: "xdomain" }, range: "width", ...TIGHT },
      { name: "y", type: isLog(y) ? "log" : "linear", domain: { signal: "ydomain" }, range: "height", ...TIGHT },
    ],
    axes: [
      { scale: "x", orient: "bottom", title: titled(x), ...ticks(x), format: tickFormat(x), grid: true },
      { scale: "y", orient: "left", title: titled(y), ...ticks(y), format: tickFormat(y), grid: true },
    ],
    marks: [
      ...baseMarks(x, y, size.height),
      {
        type: "rect",
        from: { data: "box" },
        interactive: false,
        clip: true,
        encode: {
          update: {
            x: end("x", "x", 0),
            x2: end("x", "x2", size.width),
            y: end("y", "y2", 0),
            y2: end("y", "y", size.height),
            fill: { value: "var(--accent)" },
            fillOpacity: { value: 0.08 },
            stroke: { value: "var(--accent)" },
            strokeOpacity: { value: 0.7 },
          },
        },
      },
      {
        type: "rule",
        from: { data: "whiskers" },
        key: "key",
        interactive: false,
        encode: { update: { x: across.low, x2: across.high, y: { scale: "y", field: "up" }, ...bar } },
      },
      {
        type: "rule",
        from: { data: "whiskers" },
        key: "key",
        interactive: false,
        encode: { update: { x: { scale: "x", field: "across" }, y: up.low, y2: up.high, ...bar } },
      },
      {
        type: "symbol",
        from: { data: "points" },
        key: "key",
        encode: {
          update: {
            x: { scale: "x", field: "across" },
            y: { scale: "y", field: "up" },
            shape: { field: "shape" },
            size: { signal: "datum.chosen ? 150 : datum.front ? 75 : 42" },
            fill: [{ test: "datum.left && (datum.front || datum.near)", field: "colour" }, { value: "var(--page)" }],
            fillOpacity: { signal: "datum.front ? 1 : datum.near ? 0.35 : 0.6" },
            stroke: [
              { test: "datum.chosen", value: INK },
              { test: "datum.left", field: "colour" },
              { value: "var(--faded)" },
            ],
            strokeWidth: { signal: "datum.chosen ? 2 : 1.3" },
            strokeOpacity: { signal: "datum.left ? 1 : 0.7" },
            zindex: { field: "layer" },
            cursor: { value: "pointer" },
          },
        },
      },
    ],
  };
}

function titled(objective) {
  return `${objective.label} ${objective.direction === "min" ? "↓" : "↑"}`;
}

function startScatter() {
  const pairs = objectives.flatMap((y, place) => objectives.slice(place + 1).map((x) => [x, y]));
  for (const [x, y] of pairs) {
    const place = byId("scatter").appendChild(
      element("div", { class: "chart", role: "img", "data-pair": `${x.name} ${y.name}` }),
    );
    const held = plot(
      place,
      (width) => scatterSpec(x, y, width),
      () => ({ points: pointRows(x, y), box: boxRows(x, y) }),
    );
    brush(place, held, {
      moved: (from, to) =>
        limit({ [x.name]: side(held.view, "x", 0, from, to), [y.name]: side(held.view, "y", 1, from, to) }),
      clicked: (at) => clickedPoint(held.view, x, y, at),
    });
    hover(place, held);
    place.setAttribute("aria-label", `${y.label} against ${x.label}; the table above holds the same values.`);
  }
  byId("scatter").hidden = !pairs.length;
}

// One side of a box as limits; an end at the edge of the plot is none.
function side(view, name, place, from, to) {
  const scale = view.scale(name);
  const [start, stop] = [Math.min(...scale.range()), Math.max(...scale.range())];
  const ends = [from[place], to[place]].map((one) => clamp(one, start, stop));
  const [low, high] = ends.map((one) => scale.invert(one)).sort((a, b) => a - b);
  const [least, most] = scale.domain();
  return openAtEnds(low, high, least, most);
}

function clickedPoint(view, x, y, [across, up]) {
  const away = (row) => Math.hypot(view.scale("x")(row.across) - across, view.scale("y")(row.up) - up);
  const nearest = pointRows(x, y)
    .filter((row) => row.left)
    .sort((one, other) => away(one) - away(other))[0];
  if (nearest && away(nearest) < 14) choose(trialOf.get(nearest.key));
  else if (state.limits[x.name] || state.limits[y.name]) limit({ [x.name]: null, [y.name]: null });
}
