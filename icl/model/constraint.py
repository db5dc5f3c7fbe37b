"""Texts that can only be what was asked for: one of given choices, a match of a regular expression, JSON of a schema.

Choices are followed through the tree of their encodings. Expressions and schemas are followed by llguidance, which knows after every
token which tokens can still lead to a match.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import IclError, InputError, MissingExtraError, Problem
from .tokenizer import Tokenization

if TYPE_CHECKING:
    import torch

Rule: TypeAlias = "Sequence[str] | re.Pattern[str] | Mapping[str, Any]"
"""The choices, as texts that stand right behind the prompt; a compiled regular expression, which the whole text matches; or a JSON
schema."""
_FLAGS = {re.IGNORECASE: "i", re.DOTALL: "s", re.MULTILINE: "m"}
_JSON = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to set spaces: a small model that may write any white space can go on with it for ever."""


def rules(constraint: Rule | Sequence[Rule], n_prompts: int) -> list[Rule]:
    """One rule per prompt, from one for all of them or from a list of them. Raises InputError."""
    if isinstance(constraint, re.Pattern | Mapping) or (constraint and all(isinstance(text, str) for text in constraint)):
        found: list[Rule] = [constraint] * n_prompts  # type: ignore[list-item]
    else:
        found = list(constraint)
    problems = []
    if len(found) != n_prompts:
        problems.append(Problem(f"{len(found)} constraints for {n_prompts} prompts", "Give one for all, or one per prompt."))
    for i, rule in enumerate(found):
        if isinstance(rule, re.Pattern | Mapping):
            continue
        if isinstance(rule, str) or not rule or not all(isinstance(text, str) and text for text in rule):
            problems.append(
                Problem(
                    f"constraint {i}: {rule!r} is none", "Give a list of texts, a compiled regular expression, or a JSON schema (a dict)."
                )
            )
    if problems:
        raise InputError(problems)
    return found


class Choices:
    """One of several texts, given by their tokens. A text that begins another one ends where the model would rather end than go on."""

    def __init__(self, texts: Sequence[str], ids: Sequence[Sequence[int]], end_ids: frozenset[int]) -> None:
        self._open = list(zip(texts, map(tuple, ids), strict=True))
        self._n = 0
        self._end_ids = end_ids

    def restrict(self, logits: torch.Tensor) -> None:
        allowed = sorted(self._next() | (self._end_ids if self.whole else frozenset()))
        kept = logits[allowed]
        logits.fill_(float("-inf"))
        logits[allowed] = kept

    def _next(self) -> set[int]:
        return {ids[self._n] for _, ids in self._open if len(ids) > self._n}

    def take(self, token: int) -> Literal["on", "complete", "end"]:
        if token not in self._next():
            assert self.whole
            return "end"
        self._open = [(text, ids) for text, ids in self._open if len(ids) > self._n and ids[self._n] == token]
        self._n += 1
        return "on" if self._next() else "complete"

    @property
    def whole(self) -> bool:
        return any(len(ids) == self._n for _, ids in self._open)

    @property
    def text(self) -> str | None:
        return next((text for text, ids in self._open if len(ids) == self._n), None)


class Grammar:
    """Texts that a matcher of llguidance accepts. Once the text is one, an end token ends it unless the grammar takes it itself."""

    def __init__(self, matcher: Any, end_ids: frozenset[int], banned: Sequence[int]) -> None:
        self._matcher = matcher
        self._end_ids = end_ids
        self._banned = list(banned)
        self._allowed: torch.Tensor | None = None

    def __deepcopy__(self, memo: Any) -> Grammar:
        return Grammar(self._matcher.deep_copy(), self._end_ids, self._banned)

    def restrict(self, logits: torch.Tensor) -> None:
        import numpy as np
        import torch

        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), count=len(logits), bitorder="little")
        self._allowed = torch.from_numpy(bits.astype(bool))
        self._allowed[self._banned] = False
        allowed = self._allowed.clone()
        if self.whole:
            allowed[sorted(self._end_ids)] = True
        if not allowed.any():
            raise IclError("the constraint leaves no token\n  The tokenizer has no tokens for what it asks for; loosen it.")
        logits.masked_fill_(~allowed.to(logits.device), float("-inf"))

    def take(self, token: int) -> Literal["on", "complete", "end"]:
        assert self._allowed is not None
        if not self._allowed[token]:
            return "end"
        if not self._matcher.consume_token(token):
            raise IclError(f"the constraint could not be followed: {self._matcher.get_error()}\n  Use a simpler expression or schema.")
        return "complete" if self._matcher.is_stopped() else "on"

    @property
    def whole(self) -> bool:
        return bool(self._matcher.is_accepting())

    @property
    def text(self) -> str | None:
        return None


def grammar_maker(tokens: Tokenization, vocabulary: int, end_ids: frozenset[int]) -> Callable[[Rule], Grammar]:
    """A function that makes a fresh Grammar of an expression or a schema.

    vocabulary: number of logits. Raises MissingExtraError without llguidance; the function raises InputError for what it cannot follow.
    """
    try:
        from llguidance import LLMatcher, LLTokenizer
    except ImportError:
        raise MissingExtraError("llguidance", "constrain", "text that follows a regular expression or a JSON schema") from None
    wrapped = LLTokenizer(_with_decoder(tokens.serialised()), n_vocab=vocabulary, eos_token=sorted(tokens.control_ids & end_ids) or None)
    banned = [token for token in tokens.control_ids if token < vocabulary]
    ends = frozenset(token for token in end_ids if token < vocabulary)

    @cache
    def matcher(grammar: str, shown: str) -> Any:
        made = LLMatcher(wrapped, grammar)
        if made.is_error():
            raise InputError(_not_followed(shown, made.get_error()))
        return made

    def make(rule: Rule) -> Grammar:
        if isinstance(rule, re.Pattern):
            grammar, shown = LLMatcher.grammar_from_regex(_rust(rule)), f"the expression {rule.pattern!r}"
        else:
            grammar, shown = LLMatcher.grammar_from_json_schema(json.dumps(rule), overrides=_JSON), "the JSON schema"
        return Grammar(matcher(grammar, shown).deep_copy(), ends, banned)

    return make


def _not_followed(shown: str, why: str) -> Problem:
    return Problem(f"{shown} cannot be followed: {' '.join(why.split())}", "Correct it, or write it more simply.")


def schema_problem(schema: Mapping[str, Any]) -> Problem | None:
    """Why no model on this machine can be held to a JSON schema, found without a model; None also where llguidance is not installed."""
    try:
        from llguidance import LLMatcher
    except ImportError:
        return None
    why = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_JSON))
    return _not_followed("the JSON schema", why) if why else None


def _with_decoder(serialised: str) -> str:
    """llguidance does not know the Metaspace decoder; spelt out, it does."""
    parts = json.loads(serialised)
    decoder = parts.get("decoder") or {}
    if decoder.get("type") != "Metaspace":
        return serialised
    space = {"type": "Replace", "pattern": {"String": decoder["replacement"]}, "content": " "}
    parts["decoder"] = {"type": "Sequence", "decoders": [space, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return json.dumps(parts)


def _rust(pattern: re.Pattern[str]) -> str:
    flags = "".join(letter for flag, letter in _FLAGS.items() if pattern.flags & flag)
    if pattern.flags & (re.VERBOSE | re.ASCII):
        raise InputError(Problem(f"the expression {pattern.pattern!r} has the flag VERBOSE or ASCII", "Write it without."))
    # Only 0 to 9 are digits here: which others there are depends on the version of Unicode, of which the two sides have different ones.
    plain = re.sub(r"\\(.)", lambda found: "[0-9]" if found[1] == "d" else found[0], pattern.pattern, flags=re.DOTALL)
    return f"(?{flags})(?:{plain})" if flags else plain
