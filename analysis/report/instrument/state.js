// What the page knows, what the reader has asked for, and what is left. Everything else draws it.

const content = JSON.parse(document.getElementById("content").textContent);
const byId = (id) => document.getElementById(id);
const objectives = content.objectives;
const first = objectives[0];
const trialOf = new Map(content.trials.map((trial) => [trial.key, trial]));
const EARLY_ENDS = new Set(["stopped", "failed", "running"]);

// What is asked for at the beginning.
function unlimited() {
  return {
    limits: {}, // by objective: {low, high}, each a number or null
    strategies: new Set(content.strategies.map((one) => one.name)),
    runs: new Set(content.runs.map((_, place) => place)),
    condition: "",
    show: "completed",
    pinned: null, // the trial that the reader chose
    left: null, // on the left of the films; null: the chosen trial
    right: null, // on the right; null: the base
    word: "", // of the prompts, whose maps lie over the films
    sort: { column: first.name, ascending: first.direction === "min" },
  };
}

const state = unlimited();
const shown = { candidates: [], left: [], keys: new Set(), chosen: null };
const redraws = []; // called before the parts are drawn when values change, as they do with the condition

// Change what is asked for, then let every part of the page draw what follows.
function update(change) {
  const isOther = "condition" in change && change.condition !== state.condition;
  Object.assign(state, change);
  settle();
  if (isOther) for (const redraw of redraws) redraw();
  drawParts();
}

// A trial's value of an objective: that of the condition where it has one, and null where that was not measured.
function valueOf(trial, name) {
  if (trial.status !== "completed") return null;
  const own = state.condition ? trial.conditions[state.condition]?.[name] : undefined;
  return own === undefined ? trial.values[name] : own;
}

function isOnFront(trial) {
  return state.condition ? trial.fronts.includes(state.condition) : trial.mark === "front" || trial.mark === "knee";
}

function isShown(trial) {
  if (state.show === "all") return true;
  if (EARLY_ENDS.has(trial.status)) return false;
  if (state.show === "front") return isOnFront(trial);
  if (state.show === "near") return isOnFront(trial) || (!state.condition && trial.mark === "within noise");
  return true;
}

function isWithin(trial, limits) {
  return Object.entries(limits).every(([name, { low, high }]) => {
    const value = valueOf(trial, name);
    return value !== null && value !== undefined && (low === null || value >= low) && (high === null || value <= high);
  });
}

// The best of an objective among trials, or null.
function bestOf(trials, objective) {
  let best = null;
  for (const trial of trials) {
    const value = valueOf(trial, objective.name);
    if (value === null || value === undefined) continue;
    if (best === null || (objective.direction === "min" ? value < best.value : value > best.value))
      best = { value, trial };
  }
  return best;
}

// Who is left, and who is chosen: the reader's choice while it is left, then the knee where nothing is limited, then the best.
function settle() {
  shown.candidates = content.trials.filter(
    (trial) => state.strategies.has(trial.strategy) && state.runs.has(trial.run) && isShown(trial),
  );
  shown.left = shown.candidates.filter((trial) => isWithin(trial, state.limits));
  shown.keys = new Set(shown.left.map((trial) => trial.key));
  const knee = shown.left.find((trial) => trial.mark === "knee" && !hasLimits() && !state.condition);
  const pinned = shown.keys.has(state.pinned) ? trialOf.get(state.pinned) : null;
  shown.chosen = pinned ?? knee ?? bestOf(shown.left, first)?.trial ?? null;
}

function hasLimits() {
  return Object.keys(state.limits).length > 0;
}

// Set both ends of an objective's limits; null leaves an end open.
function limit(changes) {
  const limits = { ...state.limits };
  for (const [name, ends] of Object.entries(changes)) {
    if (ends && (ends.low !== null || ends.high !== null)) limits[name] = ends;
    else delete limits[name];
  }
  update({ limits });
}

// Five digits, outwards, so that the number that is shown, the command and the trials that are left say the same.
function tidy(value, up) {
  if (!value || (Number.isInteger(value) && Math.abs(value) < 1e5)) return value;
  const unit = 10 ** (Math.floor(Math.log10(Math.abs(value))) - 4);
  const whole = value / unit;
  if (Math.abs(whole - Math.round(whole)) < 1e-9) return Number(value.toPrecision(5));
  return Number(((up ? Math.ceil(whole) : Math.floor(whole)) * unit).toPrecision(5));
}

// As the tables beside it say numbers: four digits of a fraction, all of a whole number.
function text(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  if (Math.abs(value) >= 1e4) return Math.round(value).toLocaleString("en-US");
  return Math.abs(value) >= 1e-4 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}

function withError(trial, name) {
  const error = state.condition && trial.conditions[state.condition]?.[name] !== undefined ? null : trial.errors[name];
  return text(valueOf(trial, name)) + (error ? ` ± ${Number(error.toPrecision(2))}` : "");
}

function percent(share) {
  if (share === null || share === undefined) return "";
  return share > 0.99 ? "> 99 %" : share < 0.01 ? "< 1 %" : `${Math.round(100 * share)} %`;
}

function named(trial) {
  const run = content.runs.length > 1 ? `${content.runs[trial.run].name} ` : "";
  return `${trial.strategy}, ${run}${trial.id}`;
}

// Give an element these children; those that it has already and keep their order are not touched.
function fill(place, wanted) {
  const kept = new Set(wanted);
  for (const child of [...place.children]) if (!kept.has(child)) child.remove();
  wanted.forEach((child, at) => {
    if (place.children[at] !== child) place.insertBefore(child, place.children[at] ?? null);
  });
}

// An element with its attributes and children; text is never read as markup.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
