"""Where a text may be cut so that its pieces, encoded apart, give the same tokens as the whole.

A cut is a place between two characters. What decides about it are, in the order in which a tokenizer works: added tokens, the
normaliser, the pre-tokenizer and the model.

- Added tokens: none may cover the cut, so none may hold such a pair of characters.
- Normaliser and pre-tokenizer: every kind of cut that is used here is put to the tokenizer's own normaliser and pre-tokenizer, with every
  kind of character around it. They read locally: the regular expressions in use look at most one character ahead, a normalisation form
  composes no white space with what is before it, and a cut with white space on one side ends every word. Where they split at the cut, the
  model sees the same words and nothing more has to be shown.
- The model, where text is not split at the cut (SentencePiece BPE): a merge joins two neighbours into a token of the vocabulary. If no
  token of the vocabulary covers the cut, no merge ever does; then the merges on either side do not touch each other, and as they are taken
  in one global order, each side's are taken in the same order with and without the other. For unigram models this does not hold to the
  last bit (equal segmentations are decided by rounding of sums that start at the beginning), so there an unsplit text is never cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Pair = tuple[str, str]
"""Classes of the characters before and after a cut: `w` letter or digit, `p` ASCII punctuation, a space, a line end."""
_KINDS: tuple[Pair, ...] = (("w", " "), ("p", " "), ("w", "\n"), ("p", "\n"), ("\n", "w"), ("\n", "p"))
_SAMPLES = {"w": ("a", "Z", "é", "字", "7"), "p": (".", "'", "(", "_"), " ": (" ",), "\n": ("\n",)}
_AROUND = ("", "a", "S", "7", "'", ".", "_", " ", "\n", "\t", "\r", "\u00a0", "字", "é", "\u0301", "🙂")
_FURTHER = (("", ""), (" ", "\n"), ("\n", " "), ("'", "s"), ("a", "7"))
_WHITE = " \n\t\r▁ĠĊĉč"
"""White space as vocabularies write it."""
_WRITTEN = {" ": "[ ▁Ġ]", "\n": "[\nĊ]"}


def _class(char: str) -> str:
    if char in " \n":
        return char
    if char.isalnum():
        return "w"
    return "p" if char.isascii() and char.isprintable() else ""


@dataclass(frozen=True, slots=True)
class Cuts:
    """The kinds of cut that a tokenizer respects. Without kinds every text is encoded as a whole."""

    kinds: frozenset[Pair] = frozenset()
    drop: int = 0
    """1 where the tokenizer puts a word-start mark before every text: it stands for the space that a piece begins with."""
    added: tuple[str, ...] = ()
    """Added tokens that are read in texts. A space directly before one is a word of its own, which no mark stands for."""

    def last(self, text: str) -> int:
        """The cut nearest to the end that holds whatever is appended to the text; 0 if there is none."""
        for at in range(len(text) - 1 - self.drop, 0, -1):
            white = text[at] in " \n" or text[at - 1] == "\n"
            if white and (_class(text[at - 1]), _class(text[at])) in self.kinds and self._droppable(text, at):
                return at
        return 0

    def pieces(self, text: str) -> list[str]:
        """The text cut into pieces of about a line, or, where line ends are no cuts, of about a clause."""
        pattern = _COARSE.get(self._coarse) if self.kinds else None
        if pattern is None:
            return [text]
        result, start = [], 0
        for found in pattern.finditer(text):
            at = found.end()
            if at + self.drop < len(text) and self._droppable(text, at):
                result.append(text[start:at])
                start = at
        result.append(text[start:])
        return result

    @property
    def _coarse(self) -> str:
        for name in ("\nw", "w\n", "p "):
            if (name[0], name[1]) in self.kinds:
                return name
        return ""

    def _droppable(self, text: str, at: int) -> bool:
        if not self.drop:
            return True
        return not any(text.startswith(token, at + 1) or token.startswith(text[at + 1 : at + 1 + len(token)]) for token in self.added)


_COARSE = {"\nw": re.compile(r"\n(?=[^\W_])"), "w\n": re.compile(r"[^\W_](?=\n)"), "p ": re.compile(r"[.:?!](?= )")}


def respected_cuts(backend: Any) -> Cuts:
    """What a `tokenizers.Tokenizer` without post-processing respects, found by trying; takes some hundredths of a second."""
    added = list(backend.get_added_tokens_decoder().values())
    read = [token for token in added if token.content and not (token.special and backend.encode_special_tokens)]
    if any(token.rstrip or token.lstrip or token.single_word for token in read):
        return Cuts()
    texts = [token.content for token in added]
    normal = [text for token in read if token.normalized and (text := _normalised(backend, token.content)) != token.content]
    for drop in (0, 1):
        kinds = frozenset(
            kind
            for kind in _KINDS
            if (not drop or kind[1] == " ") and _respected(backend, kind, drop) and not _covered(kind, texts, normal)
        )
        if kinds:
            return Cuts(kinds, drop, tuple(token.content for token in read) if drop else ())
    return Cuts()


def _normalised(backend: Any, text: str) -> str:
    return str(backend.normalizer.normalize_str(text)) if backend.normalizer is not None else text


def _words(backend: Any, text: str) -> list[str]:
    normal = _normalised(backend, text)
    if backend.pre_tokenizer is None:
        return [normal] if normal else []
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]


def _surroundings(kind: Pair, drop: int) -> tuple[list[str], list[str]]:
    before, after = kind
    lefts = [f"{extra}{char}" for extra in _AROUND for char in _SAMPLES[before]]
    lefts += [f"{x}{y}{char}" for x, y in _FURTHER for char in _SAMPLES[before][:1]]
    rights = [f"{char}{extra}" for char in _SAMPLES[after] for extra in _AROUND if extra or not drop]
    rights += [f"{char}{x}{y}" for x, y in _FURTHER[1:] for char in _SAMPLES[after][:1]]
    return lefts, rights


def _covered(kind: Pair, added: Sequence[str], normalised: Sequence[str]) -> bool:
    """True if an added token holds such a pair of characters, as it is written or in the normaliser's writing."""
    other = f"[^{re.escape(_WHITE)}]"
    plain = re.compile("".join(char if char in _WRITTEN else other for char in kind))
    written = re.compile("".join(_WRITTEN.get(char, other) for char in kind))
    return any(map(plain.search, added)) or any(map(written.search, normalised))


def _respected(backend: Any, kind: Pair, drop: int) -> bool:
    """True if the words of every left and right side, taken apart, are those of both together."""
    lefts, rights = _surroundings(kind, drop)
    words = {right: _words(backend, right[drop:]) for right in rights}
    joints: set[str] = set()
    for left in lefts:
        first = _words(backend, left)
        for right in rights:
            second, both = words[right], _words(backend, left + right)
            if both == first + second:
                continue
            if not first or not second or both != [*first[:-1], first[-1] + second[0], *second[1:]]:
                return False
            joints.add(second[0][0] if kind[0] != "\n" else first[-1][-1])
    return not joints or all(_never_merged(backend, symbol, before=kind[0] == "\n") for symbol in joints)


def _never_merged(backend: Any, symbol: str, *, before: bool) -> bool:
    """True if no token of a BPE vocabulary holds the white-space symbol with something else after (`before`) or before it."""
    model = backend.model
    plain = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    if type(model).__name__ != "BPE" or any(getattr(model, name, None) for name in plain):
        return False
    vocabulary = backend.get_vocab(with_added_tokens=False)
    if symbol not in vocabulary and not (model.byte_fallback and all(f"<0x{byte:02X}>" in vocabulary for byte in symbol.encode())):
        return False  # unknown characters that stand side by side become one token
    white, one = re.escape(_WHITE), re.escape(symbol)
    covering = re.compile(rf"{one}[^{white}]" if before else rf"[^{white}]{one}")
    merged_bytes = re.compile(r"<0x[0-9A-F]{2}>.|.<0x[0-9A-F]{2}>")
    return not any(covering.search(token) or merged_bytes.search(token) for token in vocabulary)
