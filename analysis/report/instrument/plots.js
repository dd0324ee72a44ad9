// What all plots share: looks, scales, brushes and the box that says what lies under the pointer.

const SHAPES = {
  o: "circle",
  s: "square",
  "^": "triangle-up",
  D: "diamond",
  v: "triangle-down",
  P: "cross",
  "<": "triangle-left",
  ">": "triangle-right",
  X: "M-1,-0.6L-0.6,-1L0,-0.4L0.6,-1L1,-0.6L0.4,0L1,0.6L0.6,1L0,0.4L-0.6,1L-1,0.6L-0.4,0Z",
};
const INK = "var(--ink)";
const FONT = "Segoe UI, Helvetica Neue, Noto Sans, Arial, sans-serif"; // as the page
const LOOKS = {
  background: null,
  axis: {
    labelColor: "var(--quiet)",
    titleColor: INK,
    domainColor: "var(--axis)",
    tickColor: "var(--axis)",
    gridColor: "var(--line)",
    labelFont: FONT,
    titleFont: FONT,
    labelFontSize: 11,
    titleFontSize: 12,
    titleFontWeight: 400,
    tickSize: 4,
    labelOverlap: true,
  },
  text: { font: FONT, fontSize: 12, fill: INK },
  aria: false,
};
const lookOf = new Map(
  content.strategies.map(({ name, colour, marker }) => [
    name,
    { colour: colour === "#333333" ? INK : colour, shape: SHAPES[marker] ?? "circle" },
  ]),
);

// Lowest and highest value of an objective over all completed trials, with some room.
function extent(objective, room = 0.05) {
  const values = content.trials
    .map((trial) => valueOf(trial, objective.name))
    .filter((value) => typeof value === "number");
  if (!values.length) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (isLog(objective)) {
    const factor = (high / low || 1) ** room * 1.02;
    return [low / factor, high * factor];
  }
  const pad = (high - low) * room || Math.abs(high) * 0.1 || 1;
  return [low - pad, high + pad];
}

function isLog(objective) {
  return (
    objective.log &&
    content.trials.every((trial) => !(valueOf(trial, objective.name) <= 0) || valueOf(trial, objective.name) === null)
  );
}

function tickFormat(objective) {
  return extent(objective)[1] >= 1e4 ? "~s" : ".4~g";
}

// What an axis is labelled with: on a logarithmic one 1, 2 and 5 of each decade, or the decades alone where there are many.
function ticks(objective) {
  if (!isLog(objective)) return { tickCount: 5 };
  const [low, high] = extent(objective, 0.08).map(Math.log10);
  const steps = high - low > 3 ? [1] : [1, 2, 5];
  const decades = Array.from(
    { length: Math.ceil(high) - Math.floor(low) + 1 },
    (_, place) => 10 ** (Math.floor(low) + place),
  );
  return { values: decades.flatMap((decade) => steps.map((step) => step * decade)) };
}

// A plot in its place: `view` once it is drawn. It is drawn anew when the place gets another width, and takes `rows`, the
// data sets by name, when anything changes.
function plot(place, makeSpec, rows = () => ({})) {
  const held = { view: null, width: 0, turn: 0, rows: {} };
  held.refresh = () => {
    if (!held.view) return;
    const changes = Object.entries(rows()).filter(([name, values]) => changeRows(held, name, values));
    if (changes.length) held.view.run();
  };
  held.draw = async () => {
    const [width, turn] = [Math.floor(place.clientWidth), ++held.turn];
    if (!width) return;
    held.width = width;
    const spec = { $schema: "https://vega.github.io/schema/vega/v6.json", ...makeSpec(width) };
    const made = await vegaEmbed(place, spec, {
      mode: "vega",
      renderer: "svg",
      actions: false,
      tooltip: false,
      defaultStyle: false,
      config: LOOKS,
    });
    if (turn !== held.turn) return made.finalize();
    held.view?.finalize();
    held.view = made.view;
    held.rows = {};
    place.querySelector("svg").setAttribute("aria-hidden", "true");
    return held.refresh();
  };
  new ResizeObserver(() => {
    if (Math.abs(place.clientWidth - held.width) > 4) held.draw();
  }).observe(place);
  listen(held.refresh, place);
  redraws.push(held.draw);
  return held;
}

// Give a plot's data set the rows that it lacks, and take those that it no longer has; whether there were any.
function changeRows(held, name, values) {
  const before = held.rows[name] ?? new Map(held.view.data(name).map((row) => [nameOfRow(row), row]));
  const after = new Map(values.map((row) => [nameOfRow(row), row]));
  for (const [key, row] of before) if (after.has(key) && isSame(row, after.get(key))) after.set(key, row);
  const gone = [...before].filter(([key, row]) => after.get(key) !== row).map(([, row]) => row);
  const come = [...after].filter(([key, row]) => before.get(key) !== row).map(([, row]) => row);
  held.rows[name] = after;
  if (!gone.length && !come.length) return false;
  held.view.change(name, held.view.changeset().remove(gone).insert(come));
  return true;
}

function nameOfRow(row) {
  return `${row.key} ${row.epoch ?? ""}`;
}

function isSame(one, other) {
  return Object.keys(other).every((name) => one[name] === other[name]);
}

// The pointer's place in a plot's own pixels.
function within(view, place, event) {
  const box = place.querySelector("svg").getBoundingClientRect();
  const { left, top } = view.padding();
  return [event.clientX - box.left - left, event.clientY - box.top - top];
}

// Dragging with a mouse or pen over a place: from and to in the plot's pixels. On touch screens sliders do it, a finger scrolls.
function brush(place, held, { moved, clicked }) {
  let from = null;
  place.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" || event.button) return;
    from = within(held.view, place, event);
    place.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  place.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = within(held.view, place, event);
    if (Math.hypot(to[0] - from[0], to[1] - from[1]) > 3) inPlace(place, () => moved(from, to));
  });
  place.addEventListener("pointerup", (event) => {
    const to = within(held.view, place, event);
    if (!from || Math.hypot(to[0] - from[0], to[1] - from[1]) <= 3) clicked(to);
    from = null;
  });
  place.addEventListener("pointercancel", () => (from = null));
}

// What lies above a plot grows and shrinks with what is left: the plot stays where it is while it is dragged over.
function inPlace(place, change) {
  const before = place.getBoundingClientRect().top;
  change();
  window.scrollBy(0, place.getBoundingClientRect().top - before);
}

// A small box beside the pointer over what has a trial.
function hover(place, held) {
  const tip = byId("tip");
  const trialAt = (event) => {
    const datum = event.target.__data__?.datum;
    return datum && trialOf.get(datum.key);
  };
  place.addEventListener("pointermove", (event) => {
    const trial = event.buttons ? null : trialAt(event);
    tip.hidden = !trial;
    if (!trial) return;
    const values = objectives.map((one) => element("div", {}, `${one.label} ${withError(trial, one.name)}`));
    const share = percent(trial.probability);
    tip.replaceChildren(element("b", {}, named(trial)), element("div", {}, trial.params), ...values);
    if (share && !state.condition) tip.append(element("div", {}, `on the front: ${share}`));
    const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    tip.style.transform = `translate(${Math.max(8, left)}px, ${event.clientY + 16}px)`;
  });
  place.addEventListener("pointerleave", () => (tip.hidden = true));
}

function choose(trial) {
  update({ pinned: trial.key });
}

function described(trial) {
  const isLeft = shown.keys.has(trial.key);
  return {
    key: trial.key,
    colour: lookOf.get(trial.strategy).colour,
    shape: lookOf.get(trial.strategy).shape,
    left: isLeft,
    chosen: shown.chosen === trial,
    front: isOnFront(trial),
    near: !state.condition && trial.mark === "within noise",
    layer: shown.chosen === trial ? 3 : isLeft ? (isOnFront(trial) ? 2 : 1) : 0,
  };
}
