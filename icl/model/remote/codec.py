"""The tokenizer side of a remote model: its own tokenizer if the user named it, else an estimate from the length of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...endpoint.meter import estimated_tokens
from ...protocols import Encoded
from ...values import Message
from ..codec import CountingCodec

if TYPE_CHECKING:
    from ..codec import TokenizerCodec


class RemoteCodec:
    """A PromptCodec.

    tokens: of the model; None: nothing but lengths is known. has_chat: asks whether the server has a chat endpoint, only when that
    matters, since it takes a probe; only_chat: whether it has no other.
    """

    def __init__(
        self, tokens: TokenizerCodec | CountingCodec | None, has_chat: Callable[[], bool], only_chat: Callable[[], bool] = lambda: False
    ) -> None:
        self.exact = tokens
        self._any: TokenizerCodec | CountingCodec = tokens or CountingCodec(estimated_tokens)
        self._counting = CountingCodec(self._any.count)
        self._has_chat = has_chat
        self._only_chat = only_chat

    @property
    def has_chat(self) -> bool:
        """True if the server has a chat endpoint: its own template then writes the control tokens."""
        return self._has_chat()

    @property
    def only_chat(self) -> bool:
        """True if the server takes nothing but chat messages, so that every prompt has to be some."""
        return self._only_chat()

    def plain(self, text: str) -> Encoded:
        return self._any.plain(text)

    def chat(self, messages: Sequence[Message]) -> Encoded:
        return self._any.chat(messages) if self._any.has_chat else self._counting.chat(messages)

    def extended(self, encoded: Encoded, continuation: str) -> int:
        return self._any.extended(encoded, continuation) if encoded.ids else self._counting.extended(encoded, continuation)

    def count(self, text: str) -> int:
        return self._any.count(text)
