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
    rows = (f"<tr>{''.join(_cells(agreement))}</tr>" for agreement in agreements)
    words = "".join(f"<li>{escape(sentence)}</li>" for sentence in dict.fromkeys(map(in_words, agreements)))
    return (
        "<h2>What early evaluations are worth</h2><p class='quiet'>Spearman's correlation over trials: 1 where an "
        "evaluation during training orders the trials as the last one does, 0 where it says nothing of it.</p>"
        f"{table(head, rows)}<ul>{words}</ul>"
    )


def agreement_lines(agreements: Sequence[RungAgreement]) -> list[str]:
    """The same for the terminal, a line each."""
    return [
        f"epoch {agreement.epoch + 1}: {label(agreement.metric)} with the last {label(agreement.objective)} over "
        f"{agreement.num_trials} trials: {_figures(agreement)}. {in_words(agreement)}"
        for agreement in agreements
    ]


def in_words(agreement: RungAgreement) -> str:
    """One sentence on what a rung's metric says of the end."""
    subject = f"{label(agreement.metric)} after epoch {agreement.epoch + 1}"
    if agreement.correlation is None or agreement.low is None:
        if agreement.num_trials < FEWEST_TRIALS:
            return f"{subject}: too few trials to tell ({agreement.num_trials}, at least {FEWEST_TRIALS})."
        return f"{subject} or {label(agreement.objective)} is the same for every trial: there is no order to compare."
    if agreement.low <= 0:
        return f"{subject} has not been shown to say anything of the last {label(agreement.objective)}: do not stop trials by it."
    if agreement.low < 0.5:
        return (
            f"{subject} says something of the last {label(agreement.objective)}: stop only trials that are far behind."
        )
    return (
        f"{subject} orders the trials much as the last {label(agreement.objective)} does: trials may be stopped by it."
    )


def _cells(agreement: RungAgreement) -> list[str]:
    figures = [number(agreement.correlation), _interval(agreement)]
    values = [
        str(agreement.epoch + 1),
        number(agreement.num_generated),
        label(agreement.metric),
        label(agreement.objective),
    ]
    cells = [*values, str(agreement.num_trials), *figures]
    return [
        f"<td>{escape(cell)}</td>" if index in (2, 3) else f'<td class="n">{escape(cell)}</td>'
        for index, cell in enumerate(cells)
    ]


def _figures(agreement: RungAgreement) -> str:
    return (
        "no rank correlation"
        if agreement.correlation is None
        else f"{agreement.correlation:+.2f} [{_interval(agreement)}]"
    )


def _interval(agreement: RungAgreement) -> str:
    return "–" if agreement.low is None or agreement.high is None else f"{agreement.low:.2f} to {agreement.high:.2f}"
