"""Loss-gap membership: can the denoising loss tell training films from others?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.checks import expect, finite_values


@dataclass(frozen=True, kw_only=True)
class Membership:
    """How well the loss tells training films from others.

    Args:
        auc: chance that a training film has the lower loss, a tie counting half, in [0, 1]; 0.5 is best for privacy.
        low: lower end of the confidence interval.
        high: upper end; the interval is the point itself where all losses of one side lie below those of the other.
        num_members: training films.
        num_others: films not trained on.
    """

    auc: float
    low: float
    high: float
    num_members: int
    num_others: int

    def as_dict(self) -> dict[str, float]:
        """Finite numbers by name, to be reported."""
        values = {"membership_auc": self.auc, "membership_auc_low": self.low, "membership_auc_high": self.high}
        return {**values, "membership_num": float(self.num_members + self.num_others)}


def loss_gap_membership(members: ArrayLike, others: ArrayLike, *, confidence: float = 0.95) -> Membership:
    """Area under the curve of a membership test by the denoising loss, with DeLong's interval.

    Args:
        members: float[m], loss of each training film, averaged over the same timesteps and noises for all films.
        others: float[n], the same of films of other patients.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: there are fewer than two losses on a side, or one is not finite.

    Source:
        DeLong, DeLong and Clarke-Pearson, Biometrics 1988; computed by ranks as in Sun and Xu, IEEE Signal Processing
        Letters 2014. The attack: Yeom et al., Computer Security Foundations 2018.
    """
    inside, outside = finite_values(members, "members"), finite_values(others, "others")
    expect(0 < confidence < 1, "`confidence` must be in (0, 1)", confidence, "Use for example 0.95.")
    by_member, by_other = placements(inside, outside)
    auc = float(by_member.mean())
    variance = by_member.var(ddof=1) / len(inside) + by_other.var(ddof=1) / len(outside)
    half = float(stats.norm.ppf((1 + confidence) / 2)) * float(variance) ** 0.5
    return Membership(
        auc=auc,
        low=max(auc - half, 0.0),
        high=min(auc + half, 1.0),
        num_members=len(inside),
        num_others=len(outside),
    )


def placements(
    members: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of others above each member, float64[m], and of members below each other, float64[n]; a tie counts half."""
    ranks = stats.rankdata(np.concatenate([members, others]))
    above = ranks[: len(members)] - stats.rankdata(members)
    below = ranks[len(members) :] - stats.rankdata(others)
    return 1 - above / len(others), below / len(members)
