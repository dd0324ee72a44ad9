"""The part of the page that answers: what is left within limits, beside what it costs, down to the command that exports it."""
