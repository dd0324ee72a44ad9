"""Which configuration is tried next: the search sampler behind Ray Tune's interface."""
