"""Random rows of one to three objectives with ties, duplicates and values that are not finite, and their directions."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

ROWS = st.integers(1, 3).flatmap(
    lambda m: st.tuples(
        st.lists(
            st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.5, -1.0, np.nan, np.inf, -np.inf]), min_size=m, max_size=m),
            min_size=1,
            max_size=12,
        ),
        st.lists(st.sampled_from(["min", "max"]), min_size=m, max_size=m),
    )
)
