"""How plain text becomes token ids for pretraining: what stands before and behind a document, and what stands for a masked token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, Problem

END_OF_TEXT = "<|endoftext|>"
"""What many tokenizers have between documents, even where their end of sequence is the end of a chat's turn."""


@dataclass(frozen=True)
class Reader:
    """A tokenizer, told what it reads for. A value of a text never becomes a control token."""

    tokenizer: Any
    causal: bool
    length: int
    """Tokens of a row."""
    before: tuple[int, ...]
    """Causal: once before a document. Masked: before each piece of it."""
    after: tuple[int, ...]
    """Causal: once behind a document. Masked: behind each piece of it."""
    mask: int
    """The id that stands for a masked token; -1 for causal models."""

    @classmethod
    def of(cls, tokenizer: Any, length: int, *, causal: bool) -> Reader:
        """Raises InputError for a tokenizer that lacks a token which the objective needs."""
        if causal:
            end = tokenizer.convert_tokens_to_ids(END_OF_TEXT) if END_OF_TEXT in tokenizer.get_vocab() else tokenizer.eos_token_id
            if end is None:
                raise _lacks("an end of sequence, which separates documents")
            adds_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
            return cls(tokenizer, True, length, (tokenizer.bos_token_id if adds_bos else end,), (end,), -1)
        if tokenizer.mask_token_id is None:
            raise _lacks("a mask token, so it is none of a masked language model; say --objective causal, or take another base")
        whole, inner = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
        at = next((i for i in range(len(whole)) if whole[i : i + len(inner)] == inner), 0)
        return cls(tokenizer, False, length, tuple(whole[:at]), tuple(whole[at + len(inner) :]), int(tokenizer.mask_token_id))

    @property
    def room(self) -> int:
        """Tokens of a document that fit into a piece."""
        return self.length if self.causal else self.length - len(self.before) - len(self.after)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Causal: with what stands before and behind the document. Masked: without, since each piece has its own."""
        found = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        return [[*self.before, *ids, *self.after] if self.causal else list(ids) for ids in found]

    def inner(self, text: str) -> list[int]:
        """The tokens of the text alone."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"])


def _lacks(what: str) -> InputError:
    return InputError(Problem(f"the tokenizer lacks {what}", "Take a base whose tokenizer has it.", field="base"))
