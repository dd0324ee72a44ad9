"""What evaluations during training were worth, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from analysis.report.tables import NUMERIC, table
from analysis.report.words import label, number
from analysis.studies.rung_agreement import FEWEST_TRIALS, RungAgreement

HEAD = ("after epoch", "images", "measured then", "objective at the end", "trials", "rank correlation", "95 % interval")


def agreement_section(agreements: Sequence[RungAgreement]) -> str:
    """The table with what it says in words; nothing where no trial was evaluated during its training."""
    if not agreements:
        return ""
    head = [f"{name}{NUMERIC}" if name not in HEAD[2:4] else name for name in HEAD]
    rows = (f"<tr>{''.join(_cells(one))}</tr>" for one in agreements)
    words = "".join(f"<li>{escape(sentence)}</li>" for sentence in dict.fromkeys(map(in_words, agreements)))
    return (
        "<h2>What early evaluations are worth</h2><p class='quiet'>Spearman's correlation over trials: 1 where an "
        "evaluation during training orders the trials as the last one does, 0 where it says nothing of it.</p>"
        f"{table(head, rows)}<ul>{words}</ul>"
    )


def agreement_lines(agreements: Sequence[RungAgreement]) -> list[str]:
    """The same for the terminal, a line each."""
    return [
        f"epoch {one.epoch + 1}: {label(one.metric)} with the last {label(one.objective)} over {one.num_trials} trials: "
        f"{_figures(one)}. {in_words(one)}"
        for one in agreements
    ]


def in_words(one: RungAgreement) -> str:
    """One sentence on what a rung's metric says of the end."""
    subject = f"{label(one.metric)} after epoch {one.epoch + 1}"
    if one.correlation is None or one.low is None:
        if one.num_trials < FEWEST_TRIALS:
            return f"{subject}: too few trials to tell ({one.num_trials}, at least {FEWEST_TRIALS})."
        return f"{subject} or {label(one.objective)} is the same for every trial: there is no order to compare."
    if one.low <= 0:
        return f"{subject} has not been shown to say anything of the last {label(one.objective)}: do not stop trials by it."
    if one.low < 0.5:
        return f"{subject} says something of the last {label(one.objective)}: stop only trials that are far behind."
    return f"{subject} orders the trials much as the last {label(one.objective)} does: trials may be stopped by it."


def _cells(one: RungAgreement) -> list[str]:
    figures = [number(one.correlation), _interval(one)]
    values = [str(one.epoch + 1), number(one.num_generated), label(one.metric), label(one.objective)]
    cells = [*values, str(one.num_trials), *figures]
    return [
        f"<td>{escape(cell)}</td>" if index in (2, 3) else f'<td class="n">{escape(cell)}</td>'
        for index, cell in enumerate(cells)
    ]


def _figures(one: RungAgreement) -> str:
    return "no rank correlation" if one.correlation is None else f"{one.correlation:+.2f} [{_interval(one)}]"


def _interval(one: RungAgreement) -> str:
    return "–" if one.low is None or one.high is None else f"{one.low:.2f} to {one.high:.2f}"
