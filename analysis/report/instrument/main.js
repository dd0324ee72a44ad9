// Begin: show the instrument in the place of what the page says without it, or leave that where something fails.

function begin() {
  byId("instrument").hidden = false;
  startFilters();
  startLimits();
  startParallel();
  startTable();
  startChosen();
  startScatter();
  startFilms();
  startCourse();
  update({});
  document.documentElement.classList.add("live");
}

if (
  content.trials.some(
    (trial) => trial.status === "completed" && objectives.every((one) => trial.values[one.name] !== null),
  )
) {
  try {
    begin();
  } catch (error) {
    byId("instrument").hidden = true;
    throw error;
  }
}
