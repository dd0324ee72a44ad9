// The parts of the page: what is seen follows at once, what is not when the browser has time, so that a drag is answered in a frame.

const parts = [];
const LATEST_MS = 100; // a browser that is never idle, as while something moves, is not waited for longer
const soon = (call) =>
  window.requestIdleCallback ? requestIdleCallback(call, { timeout: LATEST_MS }) : setTimeout(call, 30);
let waiting = null;

// Call `draw` when anything changes: at once, or, where it draws in a place that is out of sight, after the frame. What may
// get another height and stands above a plot has no place here: a plot must not move while it is dragged over.
function listen(draw, place = null) {
  const part = { draw, isSeen: true, isLate: false };
  parts.push(part);
  if (place) watch(place, part);
}

function watch(place, part) {
  const look = (entries) => {
    part.isSeen = entries.at(-1).isIntersecting;
    if (part.isSeen && part.isLate) drawPart(part);
  };
  new IntersectionObserver(look, { rootMargin: "100px" }).observe(place);
}

function drawPart(part) {
  part.isLate = false;
  part.draw();
}

function drawParts() {
  for (const part of parts) {
    if (part.isSeen) drawPart(part);
    else part.isLate = true;
  }
  drawLate();
}

// One part that is out of sight at a time, until all say the same.
function drawLate() {
  const late = parts.filter((part) => part.isLate);
  byId("instrument").dataset.late = late.length;
  if (!late.length || waiting !== null) return;
  waiting = soon(() => {
    waiting = null;
    const part = parts.find((one) => one.isLate);
    if (part) drawPart(part);
    drawLate();
  });
}
