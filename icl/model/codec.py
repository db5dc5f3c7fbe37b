"""The tokenizer side of a prompt: what packing counts and what the model reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from ..errors import InputError, Problem
from ..protocols import Encoded
from ..values import Message
from .chat import ChatFormat
from .tokenizer import Tokenization


class TokenizerCodec:
    """A PromptCodec over a tokenizer. Text is encoded with the parsing of control tokens off, in plain and in chat prompts."""

    def __init__(self, tokens: Tokenization) -> None:
        self.tokens = tokens

    @property
    def has_chat(self) -> bool:
        return self.tokens.template is not None

    @cached_property
    def chat_format(self) -> ChatFormat:
        """Raises InputError if the model has no chat template."""
        return ChatFormat(self.tokens)

    def plain(self, text: str) -> Encoded:
        """BOS stands in front exactly if the tokenizer itself puts one there."""
        return self.plains([text])[0]

    def plains(self, texts: Sequence[str]) -> list[Encoded]:
        """Many at once."""
        prefix = self.tokens.prefix
        found = [(*prefix, *ids) for ids in self.tokens.literal(texts)]
        return [Encoded(ids, len(ids), text, text, len(prefix)) for ids, text in zip(found, texts, strict=True)]

    def chat(self, messages: Sequence[Message]) -> Encoded:
        ids, text, tail, n_head = self.chat_format.encode(messages)
        return Encoded(tuple(ids), len(ids), text, tail, n_head)

    def extended(self, encoded: Encoded, continuation: str) -> int:
        """Only what stands behind the prompt's last cut is encoded."""
        at = self.tokens.cuts.last(encoded.tail)
        if at:
            end = encoded.tail[at:]
            found = self.tokens.inside([end, end + continuation])
            alone, joint = found[end], found[end + continuation]
            if alone is not None and joint is not None and encoded.ids[len(encoded.ids) - len(alone) :] == alone:
                return encoded.n_tokens - len(alone) + len(joint)
        joint_tail = encoded.tail + continuation
        return encoded.n_head + len(self.tokens.literal([joint_tail], after_control=encoded.tail != encoded.text)[0])

    def count(self, text: str) -> int:
        return len(self.tokens.literal([text])[0])


class CountingCodec:
    """A PromptCodec over a function that counts the tokens of a text, or gives their ids: serves the token budget only."""

    def __init__(self, count: Callable[[str], int | Sequence[int]]) -> None:
        self._count = count

    @property
    def has_chat(self) -> bool:
        return False

    def plain(self, text: str) -> Encoded:
        return Encoded((), self.count(text), text, text, 0)

    def chat(self, messages: Sequence[Message]) -> Encoded:
        """The roles and texts are counted, one turn a paragraph; an endpoint's own template may add a few tokens a turn."""
        text = "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)
        return Encoded((), self.count(text), text, text, 0)

    def extended(self, encoded: Encoded, continuation: str) -> int:
        return self.count(encoded.text + continuation)

    def count(self, text: str) -> int:
        found = self._count(text)
        if isinstance(found, int):
            return found
        if isinstance(found, Sequence):
            return len(found)
        raise InputError(
            Problem(f"the tokenizer function gave {type(found).__name__}", "Return a number of tokens, or a list of token ids.")
        )
