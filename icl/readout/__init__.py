"""From what a model returned to an answer: label scores to probabilities, generated text to a label or an answer.

scores.py        read-outs (sum, per_token, per_byte, per_char), several words of a label, probabilities, ties
text.py          generated text to a label or to an answer in words
calibrations/    one file each: label scores to calibrated log-probabilities
"""

from .scores import READOUTS, group_scores, pick, probabilities, tie_tolerance
from .text import EXTRACTORS, cut_thoughts, read_answer, read_label

__all__ = [
    "EXTRACTORS",
    "READOUTS",
    "cut_thoughts",
    "group_scores",
    "pick",
    "probabilities",
    "read_answer",
    "read_label",
    "tie_tolerance",
]
