"""From what a model returned to an answer: label scores to probabilities, generated text to a label or an answer.

scores.py        read-outs (sum, by length, first_token, pmi, channel), several words of a label, probabilities, ties
text.py          generated text to a label or to an answer in words
vote.py          several answers to one question: the one that most agree on
calibrations/    one file each: label scores to calibrated log-probabilities
"""

from .scores import LENGTHS, PREMISES, READOUTS, ambiguous, group_scores, pick, probabilities, readouts_of, tie_tolerance
from .text import EXTRACTORS, cut_thoughts, numbers_in, read_answer, read_label
from .vote import Vote, answer_key, same_answer, vote

__all__ = [
    "EXTRACTORS",
    "LENGTHS",
    "PREMISES",
    "READOUTS",
    "Vote",
    "ambiguous",
    "answer_key",
    "cut_thoughts",
    "group_scores",
    "numbers_in",
    "pick",
    "probabilities",
    "read_answer",
    "read_label",
    "readouts_of",
    "same_answer",
    "tie_tolerance",
    "vote",
]
