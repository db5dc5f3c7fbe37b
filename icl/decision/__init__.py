"""`icl.decide`: prompt it or train something, on your own rows, in the time you have; then ship the winner."""

from .course import More, decide
from .outcome import Decision, Winner

__all__ = ["Decision", "More", "Winner", "decide"]
