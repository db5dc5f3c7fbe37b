"""Chat prompts: the model's own template writes the control tokens, and nothing else can."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ..errors import InputError, Problem
from .tokenizer import Tokenization

_SYSTEM, _USER, _ANSWER = "xSYSTEMx", "xUSERx", "xANSWERx"
_PRIVATE = 0xF0000
"""First of the private-use code points that stand in for the first characters of control tokens."""


class ChatFormat:
    """A chat template with what a probe found out about it."""

    def __init__(self, tokens: Tokenization) -> None:
        if tokens.template is None or tokens.render is None:
            raise InputError(Problem("the model has no chat template", "Use format 'plain'.", field="format"))
        self._tokens = tokens
        self._render = tokens.render
        variables: dict[str, Any] = {}
        for switch in ("enable_thinking", "thinking"):  # a model that thinks first is asked not to
            if re.search(rf"\b{switch}\b", tokens.template):
                variables[switch] = False
        if re.search(r"\bdate_string\b", tokens.template):  # today's date would give other bytes tomorrow
            variables["date_string"] = "26 Jul 2024"
        self._variables = variables
        flags = re.IGNORECASE if tokens.folded else 0
        names = sorted(tokens.controls, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names)), flags) if names else None

    def _try(self, messages: Sequence[Mapping[str, str]], generation: bool = True) -> str | None:
        try:
            return self._render(messages, generation, self._variables)
        except Exception:  # templates raise whatever they like for a role they do not know; the probe only asks whether they do
            return None

    @cached_property
    def has_system(self) -> bool:
        """False if the template refuses or ignores a system turn."""
        text = self._try([{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}])
        return text is not None and _SYSTEM in text and _USER in text

    @cached_property
    def invents_system(self) -> bool:
        """True if the template writes a system text of its own that an explicit empty turn takes away."""
        user = {"role": "user", "content": _USER}
        without = self._try([user])
        empty = self._try([{"role": "system", "content": ""}, user])
        return self.has_system and without is not None and empty is not None and len(empty) < len(without)

    @cached_property
    def end_of_turn(self) -> int | None:
        """The control token that the template writes after an assistant's answer."""
        turns = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}]
        text = self._try(turns, generation=False)
        if text is None or _ANSWER not in text or self._pattern is None:
            return None
        found = self._pattern.search(text, text.rindex(_ANSWER))
        return self._tokens.controls[found.group()].id if found and found.group() in self._tokens.controls else None

    def arranged(self, messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """The messages as this template can take them: the system turn merged, or an empty one put in front."""
        turns = [{"role": m["role"], "content": m["content"]} for m in messages]
        if turns and turns[0]["role"] == "system":
            if self.has_system:
                return turns
            system, *turns = turns
            if turns and system["content"]:
                turns[0] = {**turns[0], "content": f"{system['content']}\n\n{turns[0]['content']}"}
            return turns
        if self.invents_system:
            return [{"role": "system", "content": ""}, *turns]
        return turns

    def encode(self, messages: Sequence[Mapping[str, str]]) -> tuple[list[int], str, str, int]:
        """(token ids, text, tail, number of tokens before the tail) of a prompt that ends where the answer begins.

        No content can write a control token: their number is what the template itself writes. Raises InputError if the template
        refuses the messages.
        """
        turns = self.arranged(messages)
        if self._pattern is None or not any(self._pattern.search(m["content"]) for m in turns):
            text = self._rendered(turns)
            ids = self._tokens.parsed(text)
            matches = list(self._pattern.finditer(text)) if self._pattern else []
            places = [i for i, token in enumerate(ids) if token in self._tokens.control_ids]
            if len(places) == len(matches):
                tail = self._stripped(text[matches[-1].end() :], matches[-1].group()) if matches else text
                return ids, text, tail, places[-1] + 1 if places else 0
        return self._encode_pieces(turns)

    def _encode_pieces(self, turns: Sequence[Mapping[str, str]]) -> tuple[list[int], str, str, int]:
        """Control tokens in contents are disguised while the template is rendered; what it writes undisguised is its own."""
        assert self._pattern is not None
        disguise = self._disguise(turns)
        restore = {ord(private): plain for plain, private in disguise.items()}

        def hide(found: re.Match[str]) -> str:
            return disguise[found.group(1)]

        starts = re.compile(f"(?=(?:{self._pattern.pattern}))(.)", self._pattern.flags | re.DOTALL)
        text = self._rendered([{**m, "content": starts.sub(hide, m["content"])} for m in turns])
        ids: list[int] = []
        at, last = 0, ""
        tail = text
        for found in self._pattern.finditer(text):
            piece = self._stripped(text[at : found.start()], last)
            control = self._tokens.controls[found.group()]
            ids += self._literal(piece.rstrip() if control.lstrip else piece, restore, bool(last))
            ids.append(control.id)
            at, last = found.end(), found.group()
        n_head = len(ids)
        tail = self._stripped(text[at:], last).translate(restore)
        ids += self._literal(tail, {}, bool(last))
        return ids, text.translate(restore), tail, n_head

    def _literal(self, piece: str, restore: Mapping[int, str], after_control: bool) -> list[int]:
        return self._tokens.literal([piece.translate(restore)], after_control=after_control)[0] if piece else []

    def _stripped(self, piece: str, control: str) -> str:
        known = self._tokens.controls.get(control)
        return piece.lstrip() if known is not None and known.rstrip else piece

    def _disguise(self, turns: Sequence[Mapping[str, str]]) -> dict[str, str]:
        """First character of a control token -> a private-use character that occurs nowhere in the contents."""
        used = set("".join(m["content"] for m in turns)) | set(self._tokens.template or "")
        firsts = {variant for name in self._tokens.controls for variant in (name[0], name[0].lower(), name[0].upper())}
        free = (chr(code) for code in range(_PRIVATE, _PRIVATE + 0xFFFF) if chr(code) not in used)
        return {first: next(free) for first in sorted(firsts)}

    def _rendered(self, turns: Sequence[Mapping[str, str]]) -> str:
        try:
            return self._render(turns, True, self._variables)
        except Exception as error:
            roles = [m["role"] for m in turns]
            raise InputError(
                Problem(f"the model's chat template refuses turns with the roles {roles}: {error}", "Use format 'plain'.", field="format")
            ) from None
