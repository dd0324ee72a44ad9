// Filters, a slider and a number for each objective, and what each limit costs.

function chip(name, colour, set, value) {
  const toggled = (event) => {
    const next = new Set(state[set]);
    if (event.target.checked) next.add(value);
    else next.delete(value);
    update({ [set]: next });
  };
  const box = element("input", { type: "checkbox", onchange: toggled });
  listen(() => (box.checked = state[set].has(value)));
  const dot = element("span", { class: "dot", "aria-hidden": "true" });
  if (colour) dot.style.background = colour;
  return element("label", { class: "chip" }, box, ...(colour ? [dot] : []), name);
}

function startFilters() {
  byId("strategies").append(
    ...content.strategies.map(({ name }) => chip(name, lookOf.get(name).colour, "strategies", name)),
  );
  byId("runs").append(...content.runs.map(({ name }, place) => chip(name, null, "runs", place)));
  byId("runs").hidden = content.runs.length < 2;
  byId("condition").append(
    element("option", { value: "" }, "all together"),
    ...content.conditions.map((name) => element("option", { value: name }, name)),
  );
  byId("condition").parentElement.hidden = !content.conditions.length;
  byId("condition").addEventListener("change", (event) => changeCondition(event.target.value));
  byId("show").addEventListener("change", (event) => update({ show: event.target.value }));
  byId("reset").addEventListener("click", () => update(unlimited()));
  listen(() => {
    byId("condition").value = state.condition;
    byId("show").value = state.show;
  });
}

// Another condition has other values, so limits on what was measured are taken back.
function changeCondition(condition) {
  const limits = Object.fromEntries(
    Object.entries(state.limits).filter(([name]) => objectives.find((one) => one.name === name).cost),
  );
  update({ condition, limits });
}

const heldStops = new Map();

// The values at which a slider stops: each further step leaves out one trial more.
function stops(objective) {
  const key = `${objective.name} ${state.condition}`;
  if (!heldStops.has(key)) heldStops.set(key, stopsNow(objective));
  return heldStops.get(key);
}

function stopsNow(objective) {
  const values = new Set(
    content.trials.map((trial) => valueOf(trial, objective.name)).filter((value) => typeof value === "number"),
  );
  return [...values].sort((one, other) => one - other);
}

function strictEnd(objective) {
  return objective.direction === "min" ? "high" : "low";
}

function limitCard(objective) {
  const id = `limit-${objective.name}`;
  const word = objective.direction === "min" ? "at most" : "at least";
  const label = `${objective.label} ${word}`;
  const number = element("input", {
    type: "number",
    step: "any",
    id: `${id}-number`,
    "aria-label": `${label}, as a number`,
    placeholder: "any",
  });
  const slider = element("input", {
    type: "range",
    id,
    step: 1,
    min: 0,
    class: objective.direction === "min" ? "most" : "least",
  });
  const note = element("p", { class: "best" });
  const other = element("p", { class: "quiet other" });
  const set = (value) => {
    const held = state.limits[objective.name] ?? { low: null, high: null };
    limit({ [objective.name]: { ...held, [strictEnd(objective)]: value } });
  };
  slider.addEventListener("input", () => set(stopAt(objective, Number(slider.value))));
  number.addEventListener("input", () =>
    set(number.value === "" || !Number.isFinite(number.valueAsNumber) ? null : number.valueAsNumber),
  );
  const head = element("label", { for: id }, element("b", {}, objective.label), " ", element("span", {}, word));
  const card = element(
    "div",
    { class: "limit", "data-objective": objective.name },
    head,
    element("div", { class: "set" }, slider, number),
    note,
    other,
  );
  return { objective, card, number, slider, note, other };
}

// A slider's place as a limit; the place where all trials are within is none.
function stopAt(objective, place) {
  const values = stops(objective);
  const open = objective.direction === "min" ? values.length - 1 : 0;
  return place === open ? null : tidy(values[place], objective.direction === "min");
}

function placeOf(objective, value) {
  const values = stops(objective);
  if (value === null || value === undefined) return objective.direction === "min" ? values.length - 1 : 0;
  if (objective.direction === "min") return Math.max(0, values.filter((one) => one <= value).length - 1);
  return Math.min(values.length - 1, values.filter((one) => one < value).length);
}

function drawLimit({ objective, number, slider, note, other }) {
  const held = state.limits[objective.name];
  const value = held?.[strictEnd(objective)] ?? null;
  slider.max = Math.max(0, stops(objective).length - 1);
  slider.disabled = stops(objective).length < 2;
  slider.value = placeOf(objective, value);
  slider.style.setProperty("--at", `${(100 * slider.value) / (slider.max || 1)}%`);
  slider.setAttribute(
    "aria-valuetext",
    value === null ? "no limit" : `${objective.direction === "min" ? "at most" : "at least"} ${text(value)}`,
  );
  if (document.activeElement !== number) number.value = value ?? "";
  const open = held?.[objective.direction === "min" ? "low" : "high"] ?? null;
  other.textContent =
    open === null ? "" : `and ${objective.direction === "min" ? "at least" : "at most"} ${text(open)}`;
  note.replaceChildren(...loss(objective));
}

// The best that is left, and how much worse that is than without limits.
function loss(objective) {
  const [all, left] = [bestOf(shown.candidates, objective), bestOf(shown.left, objective)];
  if (!left) return ["nothing is left"];
  const best = element("output", { "data-best": objective.name }, text(left.value));
  const worse = Math.abs(left.value - all.value);
  if (!worse) return ["best ", best, hasLimits() ? element("span", { class: "quiet" }, " – nothing lost") : ""];
  const share = all.value ? ` (${Math.round((100 * worse) / Math.abs(all.value))} %)` : "";
  return ["best ", best, element("span", { class: "lost" }, ` – ${text(Number(worse.toPrecision(4)))} worse${share}`)];
}

function sayWhatIsLeft() {
  const front = shown.left.filter(isOnFront).length;
  const total = shown.candidates.length;
  const many = total === 1 ? "trial is" : "trials are";
  byId("left").textContent =
    `${shown.left.length} of ${total} ${many} left, ${front} of them on the front${state.condition ? ` for ${state.condition}` : ""}.`;
  byId("csv").disabled = !shown.left.length;
}

function startLimits() {
  const cards = objectives.map(limitCard);
  byId("limits").append(...cards.map(({ card }) => card));
  listen(() => cards.forEach(drawLimit));
  listen(sayWhatIsLeft);
}
