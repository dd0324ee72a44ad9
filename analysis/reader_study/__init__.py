"""A study of what readers take for real: films of both kinds, a blinded page, and the answers' scores."""

from analysis.reader_study.scoring import ReaderScores, score_answers

__all__ = ["ReaderScores", "score_answers"]
