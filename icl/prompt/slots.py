"""Slots for facts: an answer is shown and written with `{field}` where a field's value stands, and filled from the item's own fields.

So a fact in an answer is the one that was given, or the answer is none: the model cannot misspell or invent it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..values import FieldValue, field_text

SLOT = re.compile(r"\{([A-Za-z_]\w*)\}")


def emptied(answer: str, fields: Mapping[str, FieldValue], slots: Sequence[str]) -> str:
    """An answer with the slot of a field wherever the field's value stands as a whole word or number (5 is none of 5.50, 1,500 or 10:05's
    parts); of several that fit, the longest."""
    values = _values(fields, slots)
    if not values:
        return answer
    slot_of = {value: name for name, value in reversed(values.items())}  # of equal values the first field's
    longest_first = "|".join(re.escape(value) for value in sorted(slot_of, key=len, reverse=True))
    begins, ends = r"(?<!\w)(?!(?<=\d[.,:])\d)", r"(?!\w)(?!(?<=\d)[.,:]\d)"
    return re.sub(rf"{begins}(?:{longest_first}){ends}", lambda found: f"{{{slot_of[found[0]]}}}", answer)


def filled(text: str, fields: Mapping[str, FieldValue], slots: Sequence[str]) -> tuple[str | None, str | None]:
    """(the answer with the values of its slots, None), or (None, why it cannot be filled): nothing is left open, nothing is made up."""
    values = _values(fields, slots)
    unknown = next((name for name in SLOT.findall(text) if name not in values), None)
    if unknown is not None:
        return None, f"the answer has the slot {{{unknown}}}, for which nothing is given"
    return SLOT.sub(lambda found: values[found[1]], text), None


def _values(fields: Mapping[str, FieldValue], slots: Sequence[str]) -> dict[str, str]:
    """Slot -> what it is filled with; those alone that are given."""
    given = {name: field_text(fields[name]).strip() for name in slots if name in fields}
    return {name: value for name, value in given.items() if value}
