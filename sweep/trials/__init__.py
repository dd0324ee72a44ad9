"""Running the trials of a sweep: Ray itself, and Ray Tune around the train function."""
