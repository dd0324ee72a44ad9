"""Loss-gap membership: can the denoising loss tell training films from others?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.checks import expect, finite_values
from analysis.metrics.intervals import group_codes


@dataclass(frozen=True, kw_only=True)
class Membership:
    """How well the loss tells training films from others.

    Attributes:
        auc: chance that a training film has the lower loss, a tie counting half, in [0, 1]; 0.5 is best for privacy.
        low: lower end of the 95 % confidence interval.
        high: upper end; the interval is the point itself where all losses of one side lie below those of the other.
        num_members: how many training films were compared.
        num_others: how many films that were not trained on.
        num_member_patients: how many patients the training films are of.
        num_other_patients: how many patients the others are of.
    """

    auc: float
    low: float
    high: float
    num_members: int
    num_others: int
    num_member_patients: int
    num_other_patients: int

    def as_dict(self) -> dict[str, float]:
        """Finite numbers by name, to be reported."""
        values = {"membership_auc": self.auc, "membership_auc_low": self.low, "membership_auc_high": self.high}
        counts = {
            "": self.num_members + self.num_others,
            "_patients": self.num_member_patients + self.num_other_patients,
        }
        return values | {f"membership_num{what}": float(count) for what, count in counts.items()}


def loss_gap_membership(
    members: ArrayLike,
    others: ArrayLike,
    *,
    member_patients: Sequence[str] | None = None,
    other_patients: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> Membership:
    """Area under the curve of a membership test by the denoising loss, with an interval for films that come by patient.

    Films of one patient have losses that resemble each other; taken for independent they give an interval that leaves
    0.5 out where the loss tells nothing. An un-adapted base has seen none of the films: its area is what the test gives
    by the difference between the two sets of films alone, and an adapter's is to be compared with it.

    Args:
        members: float[m], loss of each training film, averaged over the same timesteps and noises for all films.
        others: float[n], the same of films of other patients.
        member_patients: [m], whose each training film is, at least two; None if each is of its own.
        other_patients: [n], the same of the others, other patients than those.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: there are fewer than two losses or patients on a side, one loss is not finite, not one patient a
            loss, or a patient is on both sides.

    Source:
        Obuchowski, Biometrics 1997, eq. 3 to 5 without the covariance of patients that are on both sides; where each
        patient has one film it is DeLong, DeLong and Clarke-Pearson, Biometrics 1988, computed by ranks as in Sun and
        Xu, IEEE Signal Processing Letters 2014. The attack: Yeom et al., Computer Security Foundations 2018.
    """
    inside, outside = finite_values(members, "members"), finite_values(others, "others")
    expect(0 < confidence < 1, "`confidence` must be in (0, 1)", confidence, "Use for example 0.95.")
    _refuse_shared(member_patients or (), other_patients or ())
    by_member, by_other = placements(inside, outside)
    auc = float(by_member.mean())
    member_codes, other_codes = group_codes(member_patients, len(inside)), group_codes(other_patients, len(outside))
    variance = _variance(by_member, member_codes, "members") + _variance(by_other, other_codes, "others")
    half = NormalDist().inv_cdf((1 + confidence) / 2) * variance**0.5
    return Membership(
        auc=auc,
        low=max(auc - half, 0.0),
        high=min(auc + half, 1.0),
        num_members=len(inside),
        num_others=len(outside),
        num_member_patients=len(np.unique(member_codes)),
        num_other_patients=len(np.unique(other_codes)),
    )


def _variance(shares: NDArray[np.float64], codes: NDArray[np.int64], name: str) -> float:
    """The variance of the mean of shares that come by patient."""
    sums = np.bincount(codes, weights=shares - shares.mean())
    expect(len(sums) > 1, f"`{name}` must be of at least 2 patients", len(sums), "Add films of other patients.")
    return float(len(sums) / (len(sums) - 1) * (sums**2).sum()) / len(shares) ** 2


def _refuse_shared(member_patients: Sequence[str], other_patients: Sequence[str]) -> None:
    both = set(member_patients) & set(other_patients)
    came = f"{min(map(repr, both), default='')} in both"
    expect(not both, "`others` must be of other patients than `members`", came, "Split the data by patient.")


def placements(
    members: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of others above each member, float64[m], and of members below each other, float64[n]; a tie counts half."""
    ranks = stats.rankdata(np.concatenate([members, others]))
    above = ranks[: len(members)] - stats.rankdata(members)
    below = ranks[len(members) :] - stats.rankdata(others)
    return 1 - above / len(others), below / len(members)
