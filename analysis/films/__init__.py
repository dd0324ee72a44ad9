"""Films as arrays: labelled sets, neighbours among them, sheets of pairs."""
