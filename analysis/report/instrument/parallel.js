// Parallel coordinates: a line a trial, an axis an objective, better always up; dragging over an axis limits it.

const REACH_PX = 22; // from an axis, within which a drag is its own
const parallelPlace = byId("parallel");
let axes = [];

function axisScale(objective, height) {
  const range = objective.direction === "min" ? [0, height] : [height, 0];
  const [there, back] = isLog(objective) ? [Math.log, Math.exp] : [(value) => value, (value) => value];
  const [low, high] = extent(objective).map(there);
  const scale = (value) => range[0] + ((there(value) - low) / (high - low)) * (range[1] - range[0]);
  const invert = (y) => back(low + ((y - range[0]) / (range[1] - range[0])) * (high - low));
  return Object.assign(scale, { invert, domain: () => extent(objective), range: () => range });
}

function layAxes(width, height) {
  const room = Math.max(44, Math.min(width / objectives.length / 2, 110));
  const step = objectives.length > 1 ? (width - room - Math.min(room, 60)) / (objectives.length - 1) : 0;
  axes = objectives.map((objective, place) => ({
    objective,
    x: room + place * step,
    scale: axisScale(objective, height),
  }));
}

// The line of a trial; null where it lacks a value.
function pathOf(trial) {
  const values = axes.map(({ objective }) => valueOf(trial, objective.name));
  if (values.some((value) => typeof value !== "number")) return null;
  return `M${axes.map(({ x, scale }, place) => `${x.toFixed(1)},${scale(values[place]).toFixed(1)}`).join("L")}`;
}

function lineRows() {
  return shown.candidates.map((trial) => ({ ...described(trial), path: pathOf(trial) })).filter((row) => row.path);
}

function limitRows() {
  return axes.flatMap(({ objective, x, scale }) => {
    const own = state.limits[objective.name];
    if (!own) return [];
    const [low, high] = scale.domain();
    const ends = [scale(Math.max(own.low ?? low, low)), scale(Math.min(own.high ?? high, high))];
    return [{ key: objective.name, x, top: Math.min(...ends), bottom: Math.max(...ends) }];
  });
}

function titleLines(label, narrow) {
  return narrow ? label.split(" ") : [label];
}

function parallelSpec(width) {
  const height = width < 560 ? 260 : 330;
  layAxes(width, height);
  const narrow = width / objectives.length < 150;
  return {
    width,
    height,
    padding: { top: narrow ? 62 : 34, bottom: 8, left: 0, right: 0 },
    autosize: "none",
    data: [
      { name: "lines", values: lineRows() },
      { name: "limits", values: limitRows() },
    ],
    scales: axes.map(({ objective, scale }, place) => ({
      name: `y${place}`,
      type: isLog(objective) ? "log" : "linear",
      domain: scale.domain(),
      range: scale.range(),
      zero: false,
      nice: false,
    })),
    axes: axes.map(({ objective, x }, place) => ({
      scale: `y${place}`,
      orient: "left",
      offset: -x,
      ...ticks(objective),
      format: tickFormat(objective),
      zindex: 1,
      labelPadding: 3,
    })),
    marks: [
      {
        type: "path",
        from: { data: "lines" },
        key: "key",
        encode: {
          enter: { strokeJoin: { value: "round" } },
          update: {
            path: { field: "path" },
            stroke: [{ test: "datum.left", field: "colour" }, { value: "var(--faded)" }],
            strokeWidth: { signal: "datum.chosen ? 3.5 : datum.left && datum.front ? 2 : 1.2" },
            strokeOpacity: { signal: "datum.chosen ? 1 : datum.left ? (datum.front ? 0.9 : 0.5) : 0.55" },
            zindex: { field: "layer" },
            cursor: { value: "pointer" },
          },
        },
      },
      {
        type: "rect",
        from: { data: "limits" },
        interactive: false,
        encode: {
          update: {
            x: { signal: "datum.x - 9" },
            x2: { signal: "datum.x + 9" },
            y: { field: "top" },
            y2: { field: "bottom" },
            fill: { value: "var(--accent)" },
            fillOpacity: { value: 0.16 },
            stroke: { value: "var(--accent)" },
            cornerRadius: { value: 3 },
          },
        },
      },
      ...axes.flatMap(({ objective, x }, place) => {
        const align = place === 0 ? "left" : place === axes.length - 1 ? "right" : "center";
        const at = place === 0 ? Math.max(0, x - 44) : place === axes.length - 1 ? Math.min(width, x + 44) : x;
        const enter = { x: { value: at }, align: { value: align }, baseline: { value: "bottom" } };
        return [
          {
            type: "text",
            interactive: false,
            encode: {
              enter: {
                ...enter,
                y: { value: -12 },
                dy: { value: narrow ? -13 * (titleLines(objective.label, narrow).length - 1) : 0 },
                lineHeight: { value: 13 },
                text: { value: titleLines(objective.label, narrow) },
                fontWeight: { value: 600 },
                fontSize: { value: narrow ? 11 : 12.5 },
              },
            },
          },
        ];
      }),
    ],
  };
}

function axisAt(x) {
  return axes.reduce((nearest, axis) => (Math.abs(axis.x - x) < Math.abs(nearest.x - x) ? axis : nearest));
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// What lies between two heights of an axis; an end beyond all trials is no limit.
function between({ objective, scale }, from, to) {
  const [start, end] = scale.range();
  const [low, high] = [from, to]
    .map((y) => scale.invert(clamp(y, Math.min(start, end), Math.max(start, end))))
    .sort((a, b) => a - b);
  const [least, most] = scale.domain();
  return openAtEnds(low, high, least, most);
}

// Limits from a brush; an end at the edge of a scale, whatever its sign, is none.
function openAtEnds(low, high, least, most) {
  return {
    low: low <= least + Math.abs(least) * 1e-9 ? null : tidy(low, false),
    high: high >= most - Math.abs(most) * 1e-9 ? null : tidy(high, true),
  };
}

function startParallel() {
  const held = plot(parallelPlace, parallelSpec, () => ({ lines: lineRows(), limits: limitRows() }));
  brush(parallelPlace, held, {
    moved: ([fromX, fromY], [, toY]) => {
      const axis = axisAt(fromX);
      if (Math.abs(axis.x - fromX) <= REACH_PX) limit({ [axis.objective.name]: between(axis, fromY, toY) });
    },
    clicked: ([x, y]) => clickedParallel(x, y),
  });
  hover(parallelPlace, held);
  listen(() => {
    const names = objectives.map((one) => one.label).join(", ");
    const said = `Parallel coordinates of ${shown.candidates.length} trials over ${names}; better is up.`;
    const left = `${shown.left.length} are left within the limits. The table below holds the same values.`;
    parallelPlace.setAttribute("aria-label", `${said} ${left}`);
  });
}

// On a limited axis a click removes its limits; elsewhere it chooses the trial whose line is nearest.
function clickedParallel(x, y) {
  const axis = axisAt(x);
  if (Math.abs(axis.x - x) <= REACH_PX && state.limits[axis.objective.name])
    return limit({ [axis.objective.name]: null });
  if (axes.length < 2) return undefined;
  const place = clamp(
    axes.findIndex((one) => one.x > x),
    1,
    axes.length - 1,
  );
  const [before, after] = [axes[place - 1], axes[place]];
  const share = clamp((x - before.x) / (after.x - before.x), 0, 1);
  const away = (trial) => {
    const [from, to] = [before, after].map(({ objective, scale }) => scale(valueOf(trial, objective.name)));
    return Math.abs(from + share * (to - from) - y);
  };
  const nearest = [...shown.left].filter((trial) => pathOf(trial)).sort((one, other) => away(one) - away(other))[0];
  return nearest && away(nearest) < 12 ? choose(nearest) : undefined;
}
