"""The full evaluation of finalists on test patients: films, studies, results. No mathematics here."""
