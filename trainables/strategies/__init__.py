"""Fine-tuning strategies: one file each, one line in the table."""
