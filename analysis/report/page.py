"""One self-contained page about a sweep."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from analysis.files import whole_file
from analysis.front.pareto import FrontPoint
from analysis.front.statuses import FAILED, STOPPED, with_status
from analysis.report.agreement import agreement_section
from analysis.report.course import course_section
from analysis.report.curves import curve_columns, curve_plot
from analysis.report.final import final_section
from analysis.report.instrument.content import sheets
from analysis.report.instrument.page import markup, scripts
from analysis.report.instrument.pool import Pool, key
from analysis.report.pictures import embedded, sheet_picture
from analysis.report.plots import trade_offs
from analysis.report.rank_map import rank_map
from analysis.report.readers import readers_section
from analysis.report.tables import condition_table, front_table, trial_table
from analysis.report.words import label, number, parameters
from analysis.run_folder import BASELINE_SHEET, COMPARED, CONFIG, REFERENCE_SHEET, REPORT, RunFolder
from analysis.studies.rung_agreement import rung_agreements

PICTURES = {
    "reference": (REFERENCE_SHEET, "Held-out films"),
    "base": (BASELINE_SHEET, "The base model before any adaptation"),
}


def write_report(folder: Path, others: Sequence[Path] | None = None, *, with_importances: bool = True) -> Path:
    """Rebuild `report.html` from a run directory; see `report_page`.

    Args:
        folder: what `python -m sweep.run` left.
        others: as `report_page` takes them; what is given is kept for the pages that are written later.
        with_importances: whether to say what objectives depend on, which takes seconds.

    Returns:
        The page's path.
    """
    content, path = report_page(folder, others, with_importances=with_importances), folder / REPORT
    with whole_file(path) as file:
        file.write(content.encode())
    if others:
        with whole_file(folder / COMPARED) as file:
            file.write(json.dumps([str(other.resolve()) for other in others]).encode())
    elif others is not None:
        (folder / COMPARED).unlink(missing_ok=True)
    return path


BUDGET_WORDS = {"steps": "optimiser steps", "images": "training images", "seconds": "seconds of training"}


def report_page(folder: Path, others: Sequence[Path] | None = None, *, with_importances: bool = True) -> str:
    """The page of a run directory.

    It says everything without JavaScript; with it, the instrument stands in the place of what it says better.

    Args:
        folder: what `python -m sweep.run` left.
        others: run directories of the same data, whose trials the instrument shows beside this one's; None: those that it
            was last asked to show, where they can still be compared.
        with_importances: whether to say what objectives depend on, which takes seconds.

    Raises:
        FileNotFoundError: a directory or one of its files is missing.
        ValueError: one of its files is damaged, or the runs cannot be compared.
    """
    run = RunFolder.open(folder)
    pool = _last_asked(run) if others is None else Pool.of([run, *map(RunFolder.open, others)])
    page = Template(files("analysis.report").joinpath("template.html").read_text(encoding="utf-8"))
    body = "\n".join(
        [
            _headline(run),
            markup(),
            *(_still(section(run)) for section in (_trade_offs, _front, _samples)),
            *(section(run) for section in (_ranks, _conditions, _final, readers_section)),
            course_section(run, embedded, with_importances=with_importances),
            _still(_curves(run)),
            _rungs(run),
            *(_still(section(run)) for section in (_trials, _export)),
            _earlier(run),
            _settings(run),
            _scripts(run, pool),
        ]
    )
    return page.substitute(title=escape(f"Sweep {_name(run)}"), body=body)


def _last_asked(run: RunFolder) -> Pool:
    try:
        return Pool.of([run, *map(RunFolder.open, run.compared())])
    except (OSError, ValueError):  # another run has changed, which must not take this one's page
        return Pool.of([run])


def _still(section: str) -> str:
    """A section in whose place the instrument stands where there is JavaScript."""
    return f'<div class="still">{section}</div>' if section else ""


def _scripts(run: RunFolder, pool: Pool) -> str:
    """What fills the instrument; pictures that stand on the page without it are not held twice."""
    drawn = {key(0, name) for name in (*PICTURES, *(point.trial_id for point in run.front.points))}
    pictures = {name: path for name, path in sheets(pool).items() if name not in drawn}
    return scripts(pool, curve_columns(run), pictures)


def _name(run: RunFolder) -> str:
    return str(run.config.get("preset") or run.folder.resolve().name)


def _headline(run: RunFolder) -> str:
    knee = run.front.knee
    facts: list[tuple[float, str]] = [
        (len(run.trials) - run.num_cuts, "trials"),
        (len(with_status(run.trials, FAILED)), "of them failed"),
        *([(stopped, "of them stopped early")] if (stopped := len(with_status(run.trials, STOPPED))) else []),
        *([(run.num_cuts, "adapters cut from them")] if run.num_cuts else []),
        (len(run.front.points), "on the Pareto front"),
    ]
    if knee is not None:
        facts += [(value, f"{label(name)} at the knee") for name, value in knee.values.items()]
    items = "".join(f"<li><b>{escape(number(value))}</b><span>{escape(what)}</span></li>" for value, what in facts)
    return f"<h1>{_title(run)}</h1><p>{_summary(run)}</p><ul class='facts'>{items}</ul>"


def _title(run: RunFolder) -> str:
    knee = run.front.knee
    if knee is None:
        return (
            "Nothing is proposed"
            if run.front.points or run.front.probabilities
            else "No trial completed with all objectives"
        )
    return f"{escape(knee.strategy)} is the proposed compromise"


def _summary(run: RunFolder) -> str:
    base = escape(str(run.config.get("base", "the base model")))
    names = ", ".join(label(objective.name) for objective in run.front.objectives)
    sweep = f"Sweep <b>{escape(_name(run))}</b>"
    start = f"{sweep} over ways to adapt <b>{base}</b> to chest radiographs, by {escape(names)}.{_budget(run)}"
    knee = run.front.knee
    if knee is None and run.front.knee_rule:
        return f"{start} No knee is proposed: {escape(run.front.knee_rule)}."
    if knee is None:
        return f"{start} The table of trials says what went wrong."
    hyperparameters = escape(parameters(knee.params, knee.strategy))
    return (
        f"{start} The knee is trial <code>{escape(knee.trial_id)}</code> ({hyperparameters}): {escape(run.front.knee_rule)}. "
        "Another rule is yours to choose, by <code>--pick</code>."
    )


def _budget(run: RunFolder) -> str:
    """What each trial could spend, where it was not passes over the films."""
    given = {
        name: amount for name, amount in run.config.get("search", {}).get("budget", {}).items() if amount is not None
    }
    spent = " and ".join(f"{number(amount)} {BUDGET_WORDS.get(name, name)}" for name, amount in given.items())
    return f" Each trial was given {escape(spent)}." if given else ""


def _trade_offs(run: RunFolder) -> str:
    if len(run.front.objectives) < 2 or not run.front.points:
        return ""
    plot = embedded(trade_offs(run.trials, run.front), "svg+xml")
    return (
        "<h2>Trade-offs</h2><p class='quiet'>One point a trial. Filled points are on the front over all objectives at "
        "once, pale ones may be, within noise; the line joins those that nothing beats in the two objectives shown.</p>"
        f'<img class="plot" alt="Trade-offs between the objectives" src="{plot}">'
    )


def _front(run: RunFolder) -> str:
    if not run.front.points:
        return ""
    return (
        "<h2>Pareto front</h2><p class='quiet'>No other trial, and not the un-adapted base at no cost, is at least as good in "
        f"everything and better in something. Compare values at one number of images only.{_num_images(run)}"
        f"{_certainty(run)}</p>{front_table(run.front, run.baseline)}"
    )


def _certainty(run: RunFolder) -> str:
    """What the probabilities mean, where they are known."""
    if not run.front.probabilities:
        return " How sure the front is is not known: there are too few films or patients to resample."
    return (
        " ± is one standard error, over resampled films and patients and, of seconds, over epochs. <i>On the front</i> is the "
        "probability that nothing would beat a trial if its values had no noise; grey rows are beaten, but within noise. What "
        "another training seed would change is not in it: <code>python -m sweep.evaluate --seeds</code> tells."
    )


def _num_images(run: RunFolder) -> str:
    """How many images are behind the numbers, where the trials say it."""
    knee = run.front.knee
    if knee is None or not {"num_generated", "num_reference"} <= set(run.trials.columns):
        return ""
    row = run.trials[run.trials["trial_id"].astype(str) == knee.trial_id].iloc[0]
    return f" Here: {number(row['num_generated'])} generated against {number(row['num_reference'])} held-out films."


def _samples(run: RunFolder) -> str:
    shown = [_sheet(path, what, name) for name, (file, what) in PICTURES.items() if (path := run.picture(file))]
    shown += [
        _sheet(path, _caption(point), point.trial_id)
        for point in run.front.points
        if (path := run.samples(point.trial_id))
    ]
    return f'<h2>Samples</h2><div class="sheets">{"".join(shown)}</div>' if shown else ""


def _ranks(run: RunFolder) -> str:
    """Maps of those on the front whose ranks changed while they trained."""
    maps = [(point, history) for point in run.front.points if (history := run.ranks(point.trial_id))]
    if not maps:
        return ""
    figures = "".join(
        f'<figure><img class="plot" alt="Ranks by layer" src="{embedded(rank_map(history), "svg+xml")}">'
        f"<figcaption>{escape(_caption(point))}</figcaption></figure>"
        for point, history in maps
    )
    return f"<h2>Ranks</h2><p class='quiet'>Where low-rank updates ended with which rank.</p>{figures}"


def _caption(point: FrontPoint) -> str:
    values = ", ".join(f"{label(name)} {number(value)}" for name, value in point.values.items())
    return f"{'Knee: ' if point.knee else ''}{point.strategy}, trial {point.trial_id}. {values}"


def _sheet(path: Path, caption: str, name: str = "") -> str:
    """A sheet of films; the instrument finds it by the name of its trial."""
    known = f' data-sheet="{escape(key(0, name))}"' if name else ""
    return f'<figure><img alt=""{known} src="{sheet_picture(path)}"><figcaption>{escape(caption)}</figcaption></figure>'


def _conditions(run: RunFolder) -> str:
    tables = [condition_table(run.trials, run.front, objective) for objective in run.front.objectives]
    texts = [text for text in tables if text]
    return f"<h2>By condition</h2>{''.join(texts)}" if texts else ""


def _final(run: RunFolder) -> str:
    return final_section(run.folder, _sheet)


def _curves(run: RunFolder) -> str:
    content = curve_plot(run)
    if content is None:
        return ""
    plot = embedded(content, "svg+xml")
    return f'<h2>Learning curves</h2><img class="plot" alt="Learning curves" src="{plot}">'


def _rungs(run: RunFolder) -> str:
    return agreement_section(rung_agreements(run.results, run.front.objectives))


def _trials(run: RunFolder) -> str:
    cuts = (
        "<p class='quiet'>A name such as <code>TRIAL-rank2</code> is an adapter of smaller rank, cut out of that trial's "
        "one training and scored like a trial of its own; its epoch time is the training's.</p>"
    )
    return f"<h2>All trials</h2>{cuts if run.num_cuts else ''}{trial_table(run.trials, run.front)}"


def _export(run: RunFolder) -> str:
    if not run.front.points:
        return ""
    command = f"python -m sweep.export --run {shlex.quote(str(run.folder))}"
    other = next((point.trial_id for point in run.front.points if not point.knee), run.front.points[0].trial_id)
    metric = run.front.objectives[0].name
    proposed = [
        "# the knee, as a pipeline folder that any Stable Diffusion program loads",
        f"{command} --pick knee --format pipeline --to knee",
        "# a low-rank adapter as one file for load_lora_weights, new tokens for load_textual_inversion",
        f"{command} --pick knee --format diffusers --to knee-adapter",
    ]
    lines = [
        *(proposed if run.front.knee else []),
        "# another point of the front, or the best in one objective",
        f"{command} --pick {shlex.quote(f'trial:{other}')} --format pipeline --to chosen",
        f"{command} --pick {shlex.quote(f'best:{metric}')} --format pipeline --to best",
        "# the best in one objective within limits of others, or the nearest to values that you name",
        f"{command} --pick {shlex.quote(f'best:{metric} where trainable_parameters <= 1e6')} --format pipeline --to small",
        f"{command} --pick {shlex.quote(f'nearest:{metric}=8,trainable_parameters=1e6')} --format pipeline --to near",
    ]
    return f"<h2>Take one with you</h2><pre>{escape(chr(10).join(lines))}</pre>"


def _earlier(run: RunFolder) -> str:
    told = "".join(f"<li>{escape(sentence)}.</li>" for sentence in run.earlier())
    return f"<h2>What earlier sweeps knew</h2><ul>{told}</ul>" if told else ""


def _settings(run: RunFolder) -> str:
    text = escape(json.dumps(run.config, indent=2, ensure_ascii=False))
    return f"<h2>Settings</h2><details><summary>{CONFIG}</summary><pre>{text}</pre></details>"
