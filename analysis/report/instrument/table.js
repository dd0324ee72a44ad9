// The trials that are left, as a table that is sorted by its headings, and as CSV.

const PROBABILITY = {
  name: "probability",
  label: "on the front",
  of: (trial) => trial.probability,
  ascending: false,
  numeric: true,
};
const isSure = content.trials.some((trial) => trial.probability !== null);
const COLUMNS = [
  { name: "strategy", label: "strategy", of: (trial) => trial.strategy },
  { name: "params", label: "hyperparameters", of: (trial) => trial.params },
  ...objectives.map((one) => ({
    name: one.name,
    label: titled(one),
    of: (trial) => valueOf(trial, one.name),
    ascending: one.direction === "min",
    numeric: true,
  })),
  ...(isSure ? [PROBABILITY] : []),
  { name: "mark", label: "", of: (trial) => trial.mark },
];
const rows = new Map();

function ordered(trials) {
  const { of } = COLUMNS.find((column) => column.name === state.sort.column);
  const sign = state.sort.ascending ? 1 : -1;
  const known = (value) => value !== null && value !== undefined && value !== "";
  return [...trials].sort((one, other) => {
    const [left, right] = [of(one), of(other)];
    if (!known(left) || !known(right)) return Number(known(right)) - Number(known(left));
    return sign * (typeof left === "number" ? left - right : String(left).localeCompare(String(right)));
  });
}

function heading(column) {
  if (!column.label) return element("th", {}, element("span", { class: "unseen" }, "standing"));
  const sort = () => {
    const ascending = state.sort.column === column.name ? !state.sort.ascending : (column.ascending ?? true);
    update({ sort: { column: column.name, ascending } });
  };
  return element(
    "th",
    { class: column.numeric ? "n" : null, "data-column": column.name },
    element("button", { type: "button", onclick: sort }, column.label),
  );
}

function standing(trial) {
  if (trial.status === "stopped") return `stopped at rung ${text(trial.rung)}`;
  if (trial.status !== "completed") return trial.status;
  return state.condition ? (isOnFront(trial) ? "front" : "") : trial.mark;
}

function valueCell(trial, { name }) {
  const early = trial.status === "completed" ? null : trial.early[name];
  return element(
    "td",
    { class: "n" },
    early === null || early === undefined ? withError(trial, name) : element("i", {}, `early ${text(early)}`),
  );
}

function rowOf(trial) {
  const radio = element("input", {
    type: "radio",
    name: "chosen",
    value: trial.key,
    "aria-label": `Choose ${named(trial)}`,
    onchange: () => choose(trial),
  });
  radio.disabled = trial.status !== "completed";
  const dot = element("span", { class: "dot", "aria-hidden": "true" });
  dot.style.background = lookOf.get(trial.strategy).colour;
  const mark = standing(trial);
  const row = element(
    "tr",
    { "data-key": trial.key, class: trial.status === "completed" ? null : "unfinished" },
    element("td", {}, radio),
    element(
      "th",
      { scope: "row" },
      dot,
      trial.strategy,
      element("code", {}, content.runs.length > 1 ? `${content.runs[trial.run].name} ${trial.id}` : trial.id),
    ),
    element("td", { class: "wide" }, trial.params),
    ...objectives.map((objective) => valueCell(trial, objective)),
    ...(isSure ? [element("td", { class: "n" }, state.condition ? "" : percent(trial.probability))] : []),
    element("td", {}, mark ? element("span", { class: `tag ${mark.split(" at ")[0].replace(" ", "-")}` }, mark) : ""),
  );
  row.addEventListener("click", (event) => {
    if (event.target !== radio && !radio.disabled) choose(trial);
  });
  return row;
}

function drawTable() {
  const body = byId("trials").querySelector("tbody");
  const wanted = ordered(shown.left).map((trial) => {
    const held = rows.get(trial.key) ?? rowOf(trial);
    rows.set(trial.key, held);
    held.classList.toggle("chosen", trial === shown.chosen);
    held.querySelector("input").checked = trial === shown.chosen;
    return held;
  });
  keepFocus(() => fill(body, wanted));
  for (const head of byId("trials").querySelectorAll("th[data-column]")) {
    const isSorted = head.dataset.column === state.sort.column;
    head.setAttribute("aria-sort", isSorted ? (state.sort.ascending ? "ascending" : "descending") : "none");
  }
}

// Rows that move keep the keyboard's place.
function keepFocus(change) {
  const held = document.activeElement;
  change();
  if (held?.isConnected && held !== document.activeElement) held.focus({ preventScroll: true });
}

function startTable() {
  const head = element(
    "tr",
    {},
    element("th", {}, element("span", { class: "unseen" }, "chosen")),
    ...COLUMNS.map(heading),
  );
  byId("trials").append(element("table", {}, element("thead", {}, head), element("tbody")));
  listen(drawTable);
  redraws.push(() => rows.clear());
  byId("csv").addEventListener("click", saveCsv);
}

function csvCell(value) {
  const said = value === null || value === undefined ? "" : String(value);
  return /[",\n]/.test(said) ? `"${said.replaceAll('"', '""')}"` : said;
}

function csv() {
  const errors = objectives.map((one) => `${one.name}_se`);
  const head = [
    "run",
    "trial_id",
    "strategy",
    "hyperparameters",
    "status",
    "standing",
    "probability",
    ...objectives.map((one) => one.name),
    ...errors,
  ];
  const lines = ordered(shown.left).map((trial) => [
    content.runs[trial.run].name,
    trial.id,
    trial.strategy,
    trial.params,
    trial.status,
    trial.mark,
    trial.probability,
    ...objectives.map((one) => valueOf(trial, one.name)),
    ...objectives.map((one) => (state.condition ? null : trial.errors[one.name])),
  ]);
  return [head, ...lines].map((line) => line.map(csvCell).join(",")).join("\r\n") + "\r\n";
}

function saveCsv() {
  const address = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  element("a", { href: address, download: "trials.csv" }).click();
  URL.revokeObjectURL(address);
}
