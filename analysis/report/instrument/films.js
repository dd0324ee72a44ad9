// Films: those of two trials with the real ones between, one in large, and a sheet for every trial that is left.

const FEW = window.innerWidth < 560 ? 2 : 8; // sheets of the gallery that are shown at once
const addresses = new Map();
const wanted = { all: false };

// The address of a sheet that the page holds, by key; undefined where there is none.
function sheetOf(key) {
  if (!addresses.has(key)) {
    const still = document.querySelector(`img[data-sheet="${CSS.escape(key)}"]`);
    const held = document.querySelector(`script[data-sheet="${CSS.escape(key)}"]`);
    addresses.set(key, still?.src ?? held?.textContent);
  }
  return addresses.get(key);
}

function runOf(key) {
  return content.runs[Number(key.split(":")[0])];
}

function largeOf(key) {
  return trialOf.get(key)?.large ?? runOf(key).large[key.split(":")[1]];
}

function nameOf(key) {
  const trial = trialOf.get(key);
  if (trial) return named(trial);
  return key.endsWith(":base") ? "the base, before any adaptation" : "real films of the same captions";
}

// A part of a sheet; drawn by the sheet's own pixels, whatever the size of the picture that stands for it.
function cut(key, [x, y, width, height], label, address = sheetOf(key)) {
  const layout = runOf(key).sheet;
  const picture = document.createElementNS(SVG, "svg");
  const image = document.createElementNS(SVG, "image");
  const attributes = { viewBox: `${x} ${y} ${width} ${height}`, role: "img", "aria-label": label };
  for (const [name, value] of Object.entries(attributes)) picture.setAttribute(name, value);
  for (const [name, value] of Object.entries({
    width: layout.width,
    height: layout.height,
    href: address,
    preserveAspectRatio: "none",
  }))
    image.setAttribute(name, value);
  picture.append(image);
  return picture;
}

function filmBox({ row, top, film, gap }, condition, column) {
  return [gap + column * (film + gap), condition * row + top, film, film];
}

function stripBox({ row, top, film, gap, width }, condition) {
  return [gap, condition * row + top, width - 2 * gap, film];
}

function compared() {
  const left = sheetOf(state.left) ? state.left : shown.chosen?.key;
  const run = (left ?? "0:").split(":")[0];
  const right = sheetOf(state.right) ? state.right : `${run}:base`;
  return [left, `${run}:reference`, right].filter((key) => key && sheetOf(key));
}

// All of a sheet, or the row of the condition that is looked at, as a button that shows one film in large.
function sheetFigure(key) {
  const layout = runOf(key).sheet;
  const row = content.conditions.indexOf(state.condition);
  const whole = !layout || row < 0;
  const picture = layout
    ? shade(cut(key, whole ? [0, 0, layout.width, layout.height] : stripBox(layout, row), nameOf(key)), key, filmsOf(key, row))
    : element("img", { src: sheetOf(key), alt: nameOf(key) });
  const open = (event) => {
    const [condition, column] = layout ? filmAt(layout, picture, whole, row, event) : [0, 0];
    showLarge(condition, column);
  };
  return element(
    "figure",
    {},
    element("button", { type: "button", class: "picture", onclick: open, "data-sheet-of": key }, picture),
    element("figcaption", {}, nameOf(key)),
  );
}

// The films of a sheet, or of one row of it.
function filmsOf(key, row) {
  const rows = row < 0 ? content.conditions.map((_, place) => place) : [row];
  return rows.flatMap((place) => Array.from({ length: runOf(key).sheet.columns }, (_, column) => [place, column]));
}

function filmAt(layout, picture, whole, row, event) {
  if (!event.detail) return [Math.max(0, row), 0]; // by keyboard
  const box = picture.getBoundingClientRect();
  const column = Math.floor(((event.clientX - box.left) / box.width) * layout.columns);
  const condition = whole ? Math.floor(((event.clientY - box.top) / box.height) * content.conditions.length) : row;
  return [clamp(condition, 0, content.conditions.length - 1), clamp(column, 0, layout.columns - 1)];
}

const large = { condition: 0, column: 0 };

function showLarge(condition, column) {
  Object.assign(large, { condition, column });
  drawLarge();
  if (!byId("large").open) byId("large").showModal();
}

function drawLarge() {
  const { condition, column } = large;
  const figures = compared().map((key) => {
    const layout = runOf(key).sheet;
    const label = `${nameOf(key)}${layout ? `, ${content.conditions[condition]}, film ${column + 1}` : ""}`;
    const picture = layout
      ? shade(cut(key, filmBox(layout, condition, column), label), key, [[condition, column]])
      : element("img", { src: sheetOf(key), alt: label });
    sharpen(picture, key);
    return element("figure", {}, picture, element("figcaption", {}, nameOf(key), paid(key, condition, column)));
  });
  byId("large-films").replaceChildren(...figures);
  const layout = runOf(compared()[0]).sheet;
  byId("large-note").textContent = layout
    ? `${content.conditions[condition]}, film ${column + 1} of ${layout.columns}. Arrow keys show others.`
    : "";
}

// Take the full sheet that lies beside the page, where it does.
function sharpen(picture, key) {
  const full = new Image();
  full.onload = () =>
    (picture.querySelector?.("image") ?? picture).setAttribute(picture.querySelector ? "href" : "src", full.src);
  full.src = largeOf(key);
}

function moveLarge(event) {
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const layout = runOf(compared()[0]).sheet;
  if (!steps || !layout) return;
  event.preventDefault();
  showLarge(
    clamp(large.condition + steps[0], 0, content.conditions.length - 1),
    clamp(large.column + steps[1], 0, layout.columns - 1),
  );
}

function drawSelect(select, chosen, followed) {
  const keys = [
    ...ordered(shown.left).map((trial) => trial.key),
    ...content.runs.map((_, place) => `${place}:base`),
  ].filter(sheetOf);
  const options = keys.map((key) => element("option", { value: key }, nameOf(key)));
  if (followed) options.unshift(element("option", { value: "" }, "the chosen trial"));
  select.replaceChildren(...options);
  select.value = keys.includes(chosen) ? chosen : followed ? "" : (compared().at(-1) ?? "");
}

function drawFilms() {
  drawSelect(byId("film-left"), state.left, true);
  drawSelect(byId("film-right"), state.right, false);
  const place = byId("compared");
  place.classList.toggle("strips", Boolean(state.condition));
  const drawn = JSON.stringify([compared(), state.condition, state.word]);
  if (place.dataset.drawn !== drawn) place.replaceChildren(...compared().map(sheetFigure));
  place.dataset.drawn = drawn;
  drawGallery();
}

function drawGallery() {
  const keys = ordered(shown.left)
    .map((trial) => trial.key)
    .filter(sheetOf);
  const kept = new Map([...byId("gallery").children].map((figure) => [figure.dataset.key, figure]));
  const few = wanted.all ? keys : keys.slice(0, FEW);
  const figures = few.map((key) =>
    kept.get(key)?.dataset.condition === state.condition ? kept.get(key) : galleryFigure(key),
  );
  fill(byId("gallery"), figures);
  byId("more").hidden = few.length === keys.length;
  byId("more").textContent = `Show all ${keys.length}`;
  byId("gallery-title").hidden = !keys.length;
}

function galleryFigure(key) {
  const trial = trialOf.get(key);
  const layout = runOf(key).sheet;
  const row = content.conditions.indexOf(state.condition);
  const picture = layout
    ? cut(key, row < 0 ? [0, 0, layout.width, layout.height] : stripBox(layout, row), `Films of ${named(trial)}`)
    : element("img", { src: sheetOf(key), alt: `Films of ${named(trial)}` });
  const button = element(
    "button",
    {
      type: "button",
      class: "picture",
      onclick: () => {
        choose(trial);
        showLarge(Math.max(0, row), 0);
      },
    },
    picture,
  );
  const values = `${first.label} ${text(valueOf(trial, first.name))}`;
  return element(
    "figure",
    { "data-key": key, "data-condition": state.condition },
    button,
    element("figcaption", {}, `${named(trial)}. ${values}`),
  );
}

function startFilms() {
  const any = content.trials.some((trial) => sheetOf(trial.key));
  if (!any) {
    byId("films").replaceChildren(
      element("h3", {}, "Films"),
      element("p", { class: "quiet" }, "This run has no pictures yet."),
    );
    return;
  }
  byId("film-left").addEventListener("change", (event) => update({ left: event.target.value || null }));
  byId("film-right").addEventListener("change", (event) => update({ right: event.target.value }));
  startWords();
  byId("large").addEventListener("keydown", moveLarge);
  byId("more").addEventListener("click", () => {
    wanted.all = true;
    drawGallery();
  });
  listen(drawFilms, byId("films"));
}
