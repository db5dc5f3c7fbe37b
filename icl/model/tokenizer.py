"""What a tokenizer is made of, as the codec needs it: the encoder as published, and one that reads no control token."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

from .cuts import Cuts, respected_cuts

Render = Callable[[Sequence[Mapping[str, str]], bool, Mapping[str, Any]], str]
"""(messages, with the generation prompt, further variables) -> the chat template's text."""
_MARKER = "\U000f1c1c\U000f1c1d"
"""Private-use characters that stand for 'a control token ends here'."""
_PROBE = "A b"
_START, _AFTER, _INSIDE = 0, 1, 2
"""Where a piece of text stands: at the start of a text, behind a control token, behind a cut."""
_REMEMBERED, _LONG = 1 << 14, 1 << 10
"""Pieces whose ids are kept, and the length from which on they are not."""
_LONE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Control:
    """A token that steers the model, such as BOS or an end of turn."""

    id: int
    lstrip: bool = False
    rstrip: bool = False


class Tokenization:
    """A tokenizer's parts.

    backend: a `tokenizers.Tokenizer`. Control tokens are all special added tokens, and those other added tokens that the chat
    template writes (Qwen's `<think>` is one: it is not marked special and still steers the model).
    """

    def __init__(
        self, backend: Any, *, template: str | None = None, render: Render | None = None, bos: int | None = None, eos: int | None = None
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False
        self._own = backend
        self.template = template
        self.render = render
        self.bos = bos
        self.eos = eos
        added = backend.get_added_tokens_decoder()
        self.controls: dict[str, Control] = {
            token.content: Control(number, bool(token.lstrip), bool(token.rstrip))
            for number, token in added.items()
            if token.content and (token.special or (template is not None and token.content in template))
        }
        self.control_ids = frozenset(control.id for control in self.controls.values())
        self.folded = any(token.normalized for token in added.values() if token.content in self.controls)
        """True if a control token is also recognised in other spellings, after normalisation."""
        self.prefix, self.suffix = self._probe()
        self._known: dict[tuple[int, str], tuple[int, ...] | None] = {}

    def _probe(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids that the tokenizer itself puts before and after a text."""
        bare = self._own.encode(_PROBE, add_special_tokens=False).ids
        full = self._own.encode(_PROBE, add_special_tokens=True).ids
        for at in range(len(full) - len(bare) + 1):
            if full[at : at + len(bare)] == bare:
                return tuple(full[:at]), tuple(full[at + len(bare) :])
        return (), ()

    @cached_property
    def _plain(self) -> Any:
        return self._without_controls()

    @cached_property
    def _after(self) -> Any:
        from tokenizers import AddedToken

        backend = self._without_controls()
        backend.add_tokens([AddedToken(_MARKER, normalized=False, special=False)])
        return backend

    def _without_controls(self) -> Any:
        from tokenizers import AddedToken, Tokenizer

        backend = Tokenizer.from_str(self._own.to_str())
        # Telling the copy that every control token is special, so that one switch turns all of them off.
        backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in self.controls])
        backend.encode_special_tokens = True
        return backend

    @cached_property
    def _unsafe_ids(self) -> frozenset[int]:
        """Control ids that plain text must never give. A tokenizer's `unk` is what it writes for unknown characters, so it may."""
        unk = getattr(self._own.model, "unk_token", None)
        if isinstance(unk, str):
            return self.control_ids - {self._own.token_to_id(unk)}
        found = re.search(r'"unk_id":\s*(\d+)', self._own.to_str())  # a unigram model (T5) names it by its number alone
        return self.control_ids - {int(found[1])} if found else self.control_ids

    def parsed(self, text: str) -> list[int]:
        """As the tokenizer itself reads a text: control tokens are recognised. No BOS is added."""
        return list(self._own.encode(_LONE.sub("\ufffd", text), add_special_tokens=False).ids)

    def literal(self, texts: Sequence[str], *, after_control: bool = False) -> list[list[int]]:
        """Token ids of texts in which nothing is a control token. No BOS is added.

        after_control: encode as what follows a control token, where some tokenizers treat the first space otherwise than at the
        start of a text. Texts are encoded in pieces (see `cuts`), each piece once; the result is that of `whole`.
        """
        if not self.cuts.kinds:
            return self.whole(texts, after_control=after_control)
        pieces = [self.cuts.pieces(text) for text in texts]
        first = _AFTER if after_control else _START
        known = self._pieces({(first if i == 0 else _INSIDE, piece) for each in pieces for i, piece in enumerate(each)})
        result: list[list[int]] = []
        for text, each in zip(texts, pieces, strict=True):
            found = [known[first if i == 0 else _INSIDE, piece] for i, piece in enumerate(each)]
            ids = [ids for ids in found if ids is not None]
            whole = len(ids) < len(found)
            result.append(self.whole([text], after_control=after_control)[0] if whole else [i for part in ids for i in part])
        return result

    def inside(self, texts: Sequence[str]) -> dict[str, tuple[int, ...] | None]:
        """The ids of texts that each begin at a cut, in whatever text they stand. None: only to be known from the whole text."""
        known = self._pieces({(_INSIDE, text) for text in texts})
        return {text: known[_INSIDE, text] for text in texts}

    @cached_property
    def cuts(self) -> Cuts:
        return respected_cuts(self._plain)

    def distrust_cuts(self) -> None:
        """Encode every text as a whole from now on."""
        self.cuts = Cuts()
        self._known.clear()

    def _pieces(self, wanted: set[tuple[int, str]]) -> dict[tuple[int, str], tuple[int, ...] | None]:
        """(where it stands, piece) -> ids; None where the ids would write a control token."""
        found = {key: self._known[key] for key in wanted if key in self._known}
        missing = sorted(wanted - found.keys())
        drop = self.cuts.drop
        for place, group in groupby(missing, key=itemgetter(0)):
            keys = list(group)
            raw = self._raw([text[drop:] if place == _INSIDE else text for _, text in keys], after_control=place == _AFTER)
            found |= {key: tuple(ids) if self._unsafe_ids.isdisjoint(ids) else None for key, ids in zip(keys, raw, strict=True)}
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        self._known |= {key: found[key] for key in missing if len(key[1]) < _LONG}
        return found

    def whole(self, texts: Sequence[str], *, after_control: bool = False) -> list[list[int]]:
        """As `literal`, every text in one go."""
        result = self._raw(texts, after_control=after_control)
        return [ids if self._unsafe_ids.isdisjoint(ids) else self._broken(text) for text, ids in zip(texts, result, strict=True)]

    def _raw(self, texts: Sequence[str], *, after_control: bool) -> list[list[int]]:
        backend, strip = self._plain, 0
        if after_control and not any(_MARKER in text for text in texts):
            backend, strip = self._after, 1
            texts = [_MARKER + text for text in texts]
        try:
            encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):  # half of a surrogate pair is no character; it is read as U+FFFD, the sign for that
            encodings = backend.encode_batch_fast([_LONE.sub("\ufffd", text) for text in texts], add_special_tokens=False)
        return [encoding.ids[strip:] for encoding in encodings]

    @cached_property
    def _reachable(self) -> tuple[str, ...]:
        """Control tokens whose text plain encoding turns into a control token; only they are broken up, so that a text reads the same
        beside one as without."""
        tried = {text: self._raw([text, f" {text}", f"a{text}", f"{text} a"], after_control=False) for text in self.controls}
        found = tuple(text for text, each in tried.items() if any(not self._unsafe_ids.isdisjoint(ids) for ids in each))
        return found or tuple(self.controls)

    def _broken(self, text: str) -> list[int]:
        """For vocabularies that hold a control token's text as an ordinary piece too: encode its characters one by one."""
        pieces, at = [], 0
        while at < len(text):
            found = [(where, -len(control), control) for control in self._reachable if (where := text.find(control, at)) >= 0]
            if not found:
                break
            where, _, control = min(found)
            pieces += [text[at:where], *control]
            at = where + len(control)
        pieces.append(text[at:])
        ids: list[int] = []
        for piece in filter(None, pieces):
            known = self._own.token_to_id(piece) if len(piece) == 1 else None
            ids += self._plain.encode(piece, add_special_tokens=False).ids if known is None else [known]
        return [i for i in ids if i not in self._unsafe_ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self._own.decode(list(ids), skip_special_tokens=True))

    def serialised(self) -> str:
        """The backend as the text of a tokenizer.json."""
        return str(self._own.to_str())

    def fingerprint(self) -> str:
        """Changes with anything that changes a token id or a chat prompt."""
        from ..values import digest

        return digest([self.serialised(), self.template])


def from_transformers(tokenizer: Any) -> Tokenization:
    """The parts of a loaded transformers tokenizer. Raises InputError if it has no fast backend."""
    from ..errors import InputError, Problem

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            Problem(
                f"the tokenizer {type(tokenizer).__name__} has no tokenizers backend",
                "Use a model whose tokenizer has a tokenizer.json (or can be converted to one).",
            )
        )
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")

    def render(messages: Sequence[Mapping[str, str]], generation: bool, variables: Mapping[str, Any]) -> str:
        return str(
            tokenizer.apply_chat_template(
                [dict(m) for m in messages], tokenize=False, add_generation_prompt=generation, chat_template=template, **variables
            )
        )

    return Tokenization(
        backend,
        template=template,
        render=render if template else None,
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
    )
