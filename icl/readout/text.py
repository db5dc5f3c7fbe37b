"""Generated text to a label, or to an answer in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from .. import patterns
from ..errors import UnknownNameError
from ..values import canonical_json

_OPEN, _CLOSE = "<think>", "</think>"
_LEADING = re.compile(r"[\s\W_]+")
_NUMBER = re.compile(r"(?:(?<![^\W_])(?<!\))[-+])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|(?:(?<![^\W_])[-+])?(?<!\d)\.\d+")
_CODE = re.compile(r"```[^\n`]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)
_LETTER = re.compile(r"(?:^|(?<=[^A-Za-z0-9]))([A-Z])(?=[^A-Za-z0-9'’]|$)")
_LETTER_FIRST = re.compile(r"[\s\W_]*([A-Za-z])\s*(?:$|[^\sA-Za-z0-9'’]|\n)")


def cut_thoughts(text: str) -> tuple[str, str | None]:
    """(the text without `<think>…</think>`, None), or (what stands before it, the reason) where a thought never ends.

    A closing tag without an opening one ends a thought too: some chat templates write the opening tag into the prompt.
    """
    opened = text.find(_OPEN)
    closed = text.find(_CLOSE)
    if closed >= 0 and (opened < 0 or closed < opened):
        text = text[closed + len(_CLOSE) :]
    kept = []
    while (opened := text.find(_OPEN)) >= 0:
        kept.append(text[:opened])
        closed = text.find(_CLOSE, opened)
        if closed < 0:
            return "".join(kept), "the model's thoughts do not end; give it more tokens to generate"
        text = text[closed + len(_CLOSE) :]
    return "".join([*kept, text]), None


def read_label(text: str, words: Mapping[str, Sequence[str]]) -> str | None:
    """The label that a text names, or None.

    words: label -> its words. Compared case-folded. The rule:
    1. Leading white space, quotes and punctuation are skipped. Of all words that the text starts with, up to a word border (its
       end, or a character that is neither letter nor digit), the longest wins; a word of one letter must be followed by the end,
       a line end or punctuation, so that "A dog" is not choice A.
    2. Otherwise, if the words of exactly one label stand anywhere in the text, between word borders, it is that one. Longer words
       are looked for first and taken out; a word of one letter counts only as it is written.
    Of labels that share a word the first is taken.
    """
    pairs = sorted(((w.strip(), label) for label, ws in words.items() for w in ws if w.strip()), key=lambda p: -len(p[0]))
    starts = [text.strip(), text[match.end() :] if (match := _LEADING.match(text)) else text]
    for start in starts:
        folded = start.casefold()
        for word, label in pairs:
            key = word.casefold()
            if folded.startswith(key) and _ends(folded[len(key) :], key):
                return label
    return _only_label(text, pairs)


def _ends(rest: str, word: str) -> bool:
    if not rest or rest[0] == "\n" or _unspaced(word[-1]):
        return True
    if len(word) == 1:
        return not rest[0].isalnum() and not rest[0].isspace() and rest[0] not in "'’"
    return not rest[0].isalnum()


def _unspaced(letter: str) -> bool:
    """True for letters of scripts that write no spaces between words (Han, kana, Thai, …): they have no word borders to find."""
    return "\u2e80" <= letter <= "\u9fff" or "\u0e00" <= letter <= "\u0eff" or letter >= "\U00020000"


def _only_label(text: str, pairs: Sequence[tuple[str, str]]) -> str | None:
    found: list[str] = []
    for word, label in pairs:
        flags = 0 if len(word) == 1 else re.IGNORECASE
        before, after = ("" if _unspaced(word[0]) else r"(?<![^\W_])"), ("" if _unspaced(word[-1]) else r"(?![^\W_])")
        pattern = re.compile(before + re.escape(word) + after, flags)
        text, n = pattern.subn(" | ", text)
        if n and label not in found:
            found.append(label)
    return found[0] if len(found) == 1 else None


def read_answer(text: str, *, stop: Sequence[str] = (), extract: str | None = None) -> tuple[str | None, str | None]:
    """(the answer, None), or (None, why there is none).

    Thoughts are cut, the text is stripped, cut at the first stop string, then handed to the extractor: a name of `EXTRACTORS` or
    a regular expression with one group, of which the first match counts, or `json:FIELD`. Raises UnknownNameError for anything else.
    """
    text, why = cut_thoughts(text)
    if why:
        return None, why
    text = text.strip()
    cuts = [at for s in stop if s and (at := text.find(s)) >= 0]
    text = text[: min(cuts)].strip() if cuts else text
    if not text:
        return None, "the model wrote nothing"
    if extract is None:
        return text, None
    try:
        answer = extractor(extract)(text)
    except patterns.TooSlow:
        return None, f"the expression {extract!r} took longer than {patterns.SECONDS:g} s on what the model wrote, and was given up"
    return (answer, None) if answer else (None, _why_unread(extract, text))


def _why_unread(extract: str, text: str) -> str:
    """Why an extractor found nothing in a text."""
    if extract.startswith(JSON_FIELD):
        if _json_value(text) is None:
            return _REASONS["json"]
        return f"the JSON that the model wrote has no field '{extract.removeprefix(JSON_FIELD)}'"
    return _REASONS.get(extract, f"the expression {extract!r} matches nothing in what the model wrote")


def extractor(name: str) -> Callable[[str], str | None]:
    """The extractor of that name, of a JSON field (`json:price`, `json:items.0.price`), or of a regular expression with one group."""
    if name in EXTRACTORS:
        return EXTRACTORS[name]
    if name.startswith(JSON_FIELD) and len(name) > len(JSON_FIELD):
        return partial(_json_field, path=name.removeprefix(JSON_FIELD).split("."))
    try:
        pattern = patterns.compiled(name, "m")
    except ValueError:
        pattern = None
    if pattern is None or pattern.groups != 1:
        raise UnknownNameError("extractor (nor is it a regular expression with one group)", name, EXTRACTORS, field="extract")

    def first_group(text: str) -> str | None:
        match = patterns.search(pattern, text)
        return match.group(1).strip() if match and match.group(1) is not None else None

    return first_group


def _first_line(text: str) -> str | None:
    return next((line.strip() for line in text.splitlines() if line.strip()), None)


def numbers_in(text: str) -> list[str]:
    """All numbers of a text in order, as Python writes them: thousands separators removed, the minus sign U+2212 as a hyphen.

    A hyphen directly behind a letter or digit joins or subtracts (`COVID-19`, `12-9`), so it is no sign.
    """
    found = _NUMBER.findall(text.replace("\u2212", "-"))
    return [number.replace(",", "") for number in found]


def _last_number(text: str) -> str | None:
    """Without thousands separators."""
    found = numbers_in(text)
    return found[-1] if found else None


def _code_block(text: str) -> str | None:
    """The first fenced block, up to the end of the text if it is never closed; without a fence, the whole text."""
    match = _CODE.search(text)
    return match.group(1) if match else text


def _choice_letter(text: str) -> str | None:
    """The letter the text starts with ("B", "(b)", "B. Paris"), else the last capital letter that stands alone."""
    if match := _LETTER_FIRST.match(text):
        return match.group(1).upper()
    alone: list[str] = _LETTER.findall(text)
    return alone[-1] if alone else None


def _json(text: str) -> str | None:
    """The first whole JSON object or array, as canonical JSON; of an object with a key `answer`, that value."""
    value = _json_value(text)
    if isinstance(value, dict) and "answer" in value:
        value = value["answer"]
    return None if value is None else _plain(value)


def _json_object(text: str) -> str | None:
    """The first whole JSON object, as canonical JSON."""
    found = next(_json_values(text, "{"), None)
    return None if found is None else canonical_json(found)


def _json_field(text: str, path: Sequence[str]) -> str | None:
    """A value inside the first whole JSON object or array: keys, and places in lists from 0. A value that is null is none."""
    value = _json_value(text)
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return None if value is None else _plain(value)


def _plain(value: Any) -> str:
    return value.strip() if isinstance(value, str) else canonical_json(value)


def _json_value(text: str) -> Any:
    """The first whole JSON object or array in a text; None if there is none."""
    return next(_json_values(text, "{["), None)


Decode: TypeAlias = Callable[[str, int], tuple[Any, int]]
_DECODE: Decode = json.JSONDecoder().raw_decode


def _json_values(text: str, openings: str, decode: Decode = _DECODE) -> Iterator[Any]:
    """What can be read as JSON from each place where one of the opening brackets stands, in order.

    A text of brackets that never close would be read again from each of them. So it is given up when as much has been read in vain as
    `READ_AGAIN` times the text. decode: (text, start) -> (value, end), with the errors of `json`.
    """
    left = READ_AGAIN * len(text)
    for start, letter in enumerate(text):
        if letter not in openings:
            continue
        if left <= 0:
            return
        try:
            yield decode(text, start)[0]
        except json.JSONDecodeError as error:
            left -= error.pos - start + 1
        except (ValueError, RecursionError):  # digits without end, brackets too deep: where it gave up is not said
            left -= len(text) - start


EXTRACTORS: Mapping[str, Callable[[str], str | None]] = {
    "first_line": _first_line,
    "last_number": _last_number,
    "code_block": _code_block,
    "choice_letter": _choice_letter,
    "json": _json,
    "json_object": _json_object,
}
JSON_FIELD = "json:"
READ_AGAIN = 50
"""How often the length of a text may be read in vain while JSON is looked for in it."""
_REASONS: Mapping[str, str] = {
    "first_line": "the model wrote no line with anything in it",
    "last_number": "there is no number in what the model wrote",
    "code_block": "the code block that the model wrote is empty",
    "choice_letter": "there is no letter of a choice in what the model wrote",
    "json": "there is no whole JSON object or list in what the model wrote",
    "json_object": "there is no whole JSON object in what the model wrote",
}
