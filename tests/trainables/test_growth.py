"""Optimisers whose parameters grow."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.growth import adopt
from trainables.strategies.base import Growth


@pytest.mark.slow
@pytest.mark.parametrize("num_before", [1, 20, 2000])
def test_new_entries_step_by_about_lr_as_old_ones_do(num_before: int) -> None:
    """Gradients of constant size, whenever the parameter grows; from zero moments the steps would reach 6 lr."""
    lr, generator = 1e-3, torch.Generator().manual_seed(0)
    old = nn.Parameter(torch.zeros(2, 8))
    optimizer = torch.optim.AdamW([old], lr=lr, weight_decay=0.0)
    for _ in range(num_before):
        old.grad = torch.randn(old.shape, generator=generator).sign()
        optimizer.step()
    new = nn.Parameter(torch.cat([old.detach(), torch.zeros(1, 8)]))
    adopt([Growth(old, new)], optimizer)
    steps = []
    for _ in range(60):
        before = new.detach().clone()
        new.grad = torch.ones_like(new)
        optimizer.step()
        steps.append((new.detach() - before)[2].abs().max().item() / lr)
    assert max(steps) <= 1.01
    due = [(1 - 0.9**number) / (1 - 0.9 ** (num_before + number)) for number in range(1, 61)]  # of the first moment
    assert steps == pytest.approx(due, rel=0.01)
