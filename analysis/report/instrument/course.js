// How the sweep went: hypervolume over trials and hours, and what was measured over the epochs, rungs included.

const COURSE_PX = 210;

function courseFrame(width, x, y) {
  return {
    width: width - 56,
    height: COURSE_PX - 50,
    padding: { left: 46, top: 10, right: 10, bottom: 40 },
    autosize: "none",
    axes: [
      { scale: "x", orient: "bottom", tickCount: 5, ...x },
      { scale: "y", orient: "left", tickCount: 4, grid: true, ...y },
    ],
  };
}

function historySpec(width, over) {
  const rows = content.runs.flatMap((run, place) =>
    run.history.volumes.map((volume, index) => ({
      run: place,
      volume,
      x: over === "trials" ? run.history.counts[index] : run.history.hours[index],
    })),
  );
  const unit = content.runs.some((run) => run.gpus) ? "GPU-hours" : "hours of training and evaluation";
  const colours = content.strategies.map((one) => lookOf.get(one.name).colour);
  return {
    ...courseFrame(
      width,
      { title: over === "trials" ? "completed trials" : unit, format: ".4~g", tickMinStep: over === "trials" ? 1 : 0 },
      { format: ".0%" },
    ),
    data: [{ name: "rows", values: rows }],
    scales: [
      { name: "x", type: "linear", domain: { data: "rows", field: "x" }, range: "width", zero: true, nice: true },
      { name: "y", type: "linear", domain: [0, 1.05], range: "height" },
      { name: "colour", type: "ordinal", domain: content.runs.map((_, place) => place), range: [INK, ...colours] },
    ],
    marks: [
      tracks(
        "run",
        {
          enter: {
            x: { scale: "x", field: "x" },
            y: { scale: "y", field: "volume" },
            interpolate: { value: "step-after" },
            stroke: { scale: "colour", field: "run" },
            strokeWidth: { value: 1.5 },
          },
        },
        {
          enter: {
            x: { scale: "x", field: "x" },
            y: { scale: "y", field: "volume" },
            size: { value: 14 },
            fill: { scale: "colour", field: "run" },
          },
        },
      ),
    ],
  };
}

// At most eight of the epochs that there are.
function wholeTicks(epochs) {
  const own = [...new Set(epochs)].sort((one, other) => one - other);
  const step = Math.ceil(own.length / 8);
  return own.filter((_, place) => place % step === 0);
}

// A line through the rows of each group, and a point on each row.
function tracks(groupby, line, point) {
  return {
    type: "group",
    from: { facet: { name: "one", data: "rows", groupby } },
    marks: [
      { type: "line", from: { data: "one" }, encode: line },
      { type: "symbol", from: { data: "one" }, encode: point },
    ],
  };
}

function curveRows(curve) {
  const kept = new Set(shown.candidates.map((trial) => trial.key));
  return curve.points
    .filter(([key]) => kept.has(key) || EARLY_ENDS.has(trialOf.get(key)?.status))
    .filter(([key]) => state.strategies.has(trialOf.get(key).strategy) && state.runs.has(trialOf.get(key).run))
    .map(([key, epoch, value]) => ({
      ...described(trialOf.get(key)),
      epoch,
      value,
      stopped: trialOf.get(key).status === "stopped",
    }));
}

function curveSpec(width) {
  const curve = content.curves[byId("curve").value || 0];
  const rows = curveRows(curve);
  const values = rows.map((row) => row.value);
  const log = Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 30;
  const at = { x: { scale: "x", field: "epoch" }, y: { scale: "y", field: "value" } };
  const faint = { signal: "datum.chosen ? 1 : datum.left || datum.stopped ? 0.6 : 0.2" };
  return {
    ...courseFrame(width, { title: "epoch", format: "d", values: wholeTicks(rows.map((row) => row.epoch)) }, { format: ".4~g" }),
    data: [
      { name: "rows", values: rows },
      {
        name: "ends",
        source: "rows",
        transform: [
          {
            type: "window",
            groupby: ["key"],
            sort: { field: "epoch", order: "descending" },
            ops: ["row_number"],
            as: ["place"],
          },
          { type: "filter", expr: "datum.stopped && datum.place === 1" },
        ],
      },
    ],
    scales: [
      {
        name: "x",
        type: "linear",
        domain: { data: "rows", field: "epoch" },
        range: "width",
        zero: false,
        nice: false,
        padding: 8,
      },
      {
        name: "y",
        type: log ? "log" : "linear",
        domain: { data: "rows", field: "value" },
        range: "height",
        zero: false,
        nice: !log,
        padding: 6,
      },
    ],
    marks: [
      tracks(
        "key",
        {
          update: {
            ...at,
            stroke: { field: "colour" },
            strokeWidth: { signal: "datum.chosen ? 3 : 1.3" },
            strokeOpacity: faint,
          },
        },
        { update: { ...at, size: { value: 12 }, fill: { field: "colour" }, fillOpacity: faint } },
      ),
      {
        type: "symbol",
        from: { data: "ends" },
        encode: { update: { ...at, shape: { value: SHAPES.X }, size: { value: 60 }, fill: { field: "colour" } } },
      },
    ],
  };
}

function startCourse() {
  const long = content.runs.some((run) => run.history.volumes.length > 2) && objectives.length > 1;
  byId("history-figure").hidden = !long;
  if (long) {
    for (const over of ["trials", "hours"]) {
      byId(`history-${over}`).setAttribute("aria-label", `Hypervolume over ${over}`);
      plot(byId(`history-${over}`), (width) => historySpec(width, over));
    }
  }
  byId("curves-figure").hidden = !content.curves.length;
  byId("course").hidden = !long && !content.curves.length;
  byId("went")?.append(byId("course"));
  if (!content.curves.length) return;
  byId("curve").append(...content.curves.map((curve, place) => element("option", { value: place }, curve.label)));
  const early = content.curves.findIndex((curve) => curve.name.startsWith("early_"));
  byId("curve").value = Math.max(0, early);
  const place = byId("curves");
  const held = plot(place, curveSpec, () => ({ rows: curveRows(content.curves[byId("curve").value]) }));
  hover(place, held);
  const named = () => place.setAttribute("aria-label", `${content.curves[byId("curve").value].label} over the epochs`);
  byId("curve").addEventListener("change", () => {
    held.draw();
    named();
  });
  named();
}
