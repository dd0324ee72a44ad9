"""Searches replayed on a simulated clock: problems, the simulator, and what it found."""
