// Where a word of the prompt acts, over the films: maps of the attention paid to it, where the run has them.

const FINDING = " "; // the word of each film's own condition
const SVG = "http://www.w3.org/2000/svg";
let numMasks = 0;

// Where a word acts, over a film or all of a sheet: orange as it has more of the attention than where it has least.
function shade(picture, key, films) {
  const layout = content.word_maps[key];
  const word = wordOf(layout);
  if (word < 0) return picture;
  const { width, height } = runOf(key).sheet;
  const mask = made("mask", { id: `acts-${++numMasks}`, maskUnits: "userSpaceOnUse", x: 0, y: 0, width, height });
  for (const [condition, column] of films) {
    const [x, y, side] = filmBox(runOf(key).sheet, condition, column);
    const tile = made("svg", { x, y, width: side, height: side, viewBox: tileOf(layout, word, condition, column), preserveAspectRatio: "none" });
    tile.append(made("image", { href: wordsOf(key), width: layout.width, height: layout.height, preserveAspectRatio: "none" }));
    mask.append(tile);
  }
  picture.append(mask, made("rect", { class: "acted", width, height, mask: `url(#${mask.id})` }));
  return picture;
}

function made(tag, attributes) {
  const one = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  return one;
}

function wordsOf(key) {
  return document.querySelector(`script[data-words="${CSS.escape(key)}"]`).textContent;
}

// Which of a trial's maps is asked for: 0 is that of the finding; below 0 none.
function wordOf(layout) {
  if (!layout || !state.word) return -1;
  return state.word === FINDING ? 0 : 1 + layout.words.indexOf(state.word) || -1;
}

function tileOf({ side, margin }, word, condition, column) {
  const tile = side + 2 * margin;
  return `${column * tile + margin} ${(word * content.conditions.length + condition) * tile + margin} ${side} ${side}`;
}

// How much of the attention the word had, where it had least and where it had most.
function paid(key, condition, column) {
  const layout = content.word_maps[key];
  const word = wordOf(layout);
  if (word < 0) return "";
  const [low, peak] = [layout.lows, layout.peaks].map((all) => all[word][condition][column]);
  const [least, most] = [low, peak].map((share) => text(Number((100 * share).toPrecision(2))));
  return peak ? `: ${least} to ${most} % of the attention` : ": the prompt does not have the word";
}

function startWords() {
  const layouts = Object.values(content.word_maps);
  const words = [...new Set(layouts.flatMap((layout) => layout.words))];
  byId("acting").hidden = !layouts.length;
  byId("word").append(
    element("option", { value: "" }, "no word"),
    element("option", { value: FINDING }, "the finding of each row"),
    ...words.map((word) => element("option", { value: word }, word)),
  );
  byId("word").addEventListener("change", (event) => update({ word: event.target.value }));
  listen(() => {
    const lacking = compared().filter((key) => !key.endsWith(":reference") && !content.word_maps[key]).map(nameOf);
    const said =
      "The more orange, the more of the U-Net's cross-attention the word had there than where it had least. Without any, it had about as much everywhere.";
    const lack = lacking.length ? ` Not mapped: ${lacking.join("; ")}.` : "";
    byId("acting-note").textContent = state.word ? said + lack : "";
  });
}
