// The chosen trial: its values, and the commands that take it home.

const FORMATS = [
  ["pipeline", "pipeline: any Stable Diffusion program"],
  ["diffusers", "diffusers: adapter for load_lora_weights"],
  ["peft", "peft: adapter for PeftModel"],
  ["webui", "webui: adapter for ComfyUI and WebUI"],
  ["single_file", "single_file: one .safetensors checkpoint"],
];
const format = { name: "pipeline" };

function quoted(said) {
  return /^[\w@%+=:,./-]+$/.test(said) ? said : `'${said.replaceAll("'", `'"'"'`)}'`;
}

// To a folder of its own for each choice, as an export goes into a new one only.
function command(trial, pick, to) {
  return `python -m sweep.export --run ${quoted(content.runs[trial.run].folder)} --pick ${quoted(pick)} --format ${format.name} --to ${quoted(`${to}-${format.name}`)}`;
}

// The limits as a rule of --pick that names the same trial; null where it cannot say what the page has asked for.
function rule(trial) {
  const isPlain =
    !state.condition &&
    state.show === "completed" &&
    content.runs.length === 1 &&
    state.strategies.size === content.strategies.length;
  if (trial.mark === "knee" && !hasLimits()) return "knee";
  if (!isPlain || bestOf(shown.left, first)?.trial !== trial) return null;
  const parts = Object.entries(state.limits).flatMap(([name, { low, high }]) => [
    ...(low === null ? [] : [`${name} >= ${low}`]),
    ...(high === null ? [] : [`${name} <= ${high}`]),
  ]);
  return `best:${first.name}${parts.length ? ` where ${parts.join(" and ")}` : ""}`;
}

function commandBlock(id, said) {
  const copy = element("button", { type: "button", "aria-label": "Copy this command" }, "Copy");
  copy.addEventListener("click", () => copied(said, copy));
  return element(
    "div",
    { class: "command" },
    element("pre", { id, tabindex: "0", "aria-label": "Command" }, said),
    copy,
  );
}

// Pages that are opened from the disk may lack the clipboard: then the text is marked for Ctrl+C.
async function copied(said, button) {
  try {
    await navigator.clipboard.writeText(said);
    button.textContent = "Copied";
  } catch {
    window.getSelection().selectAllChildren(button.previousSibling);
    button.textContent = "Ctrl+C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

function drawChosen() {
  const place = byId("chosen");
  const trial = shown.chosen;
  if (!trial) return place.replaceChildren(element("h3", {}, "No trial is left"), element("p", {}, "Loosen a limit."));
  const values = objectives.map((one) =>
    element("div", {}, element("dt", {}, one.label), element("dd", {}, withError(trial, one.name))),
  );
  const share = state.condition ? "" : percent(trial.probability);
  if (share) values.push(element("div", {}, element("dt", {}, "on the front"), element("dd", {}, share)));
  const select = element(
    "select",
    { id: "format" },
    ...FORMATS.map(([name, label]) => element("option", { value: name }, label)),
  );
  select.value = format.name;
  select.addEventListener("change", () => {
    format.name = select.value;
    keepFocus(drawChosen);
    byId("format").focus();
  });
  const pick = rule(trial);
  place.replaceChildren(
    element(
      "h3",
      {},
      trial.strategy,
      " ",
      element("code", {}, trial.id),
      ...(trial.mark === "knee" ? [" ", element("span", { class: "tag knee" }, "knee")] : []),
    ),
    element("p", { class: "quiet" }, trial.params),
    element("dl", {}, ...values),
    element("label", {}, "Take it with you as ", select),
    commandBlock("command", command(trial, `trial:${trial.id}`, trial.id)),
    element("p", { class: "quiet" }, "For a terminal in the project's folder, after ", element("code", {}, "source .venv/bin/activate"), "."),
    ...(pick
      ? [
          element(
            "p",
            { class: "quiet" },
            pick === "knee" ? "The same by rule:" : "The same by rule, in this run or the next:",
          ),
          commandBlock("rule", command(trial, pick, "chosen")),
        ]
      : []),
  );
  return undefined;
}

function startChosen() {
  listen(drawChosen);
}
