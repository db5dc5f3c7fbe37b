"""Contexts and their continuations as token ids, for scoring and for writing."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError, Problem
from ..values import Prompt
from .boundary import Split, split
from .codec import TokenizerCodec

Context = str | Prompt


def encoded_context(codec: TokenizerCodec, context: Context) -> tuple[tuple[int, ...], int, str, bool]:
    """(token ids, tokens of the head, tail, whether the tail follows a control token)."""
    if isinstance(context, Prompt) and context.token_ids:
        return context.token_ids, context.n_head, context.tail, context.tail != context.text
    if isinstance(context, Prompt) and context.format == "chat":
        encoded = codec.chat(context.messages)
    else:
        encoded = codec.plain(str(context))
    return encoded.ids, encoded.n_head, encoded.tail, encoded.tail != encoded.text


def encoded_splits(codec: TokenizerCodec, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[Split]:
    """For each context where scoring starts, and its continuations from there. Raises InputError if the lists differ in length."""
    if len(contexts) != len(continuations):
        raise InputError(
            Problem(
                f"{len(contexts)} contexts and {len(continuations)} lists of continuations",
                "Give one list of continuations per context.",
            )
        )
    heads = [encoded_context(codec, context) for context in contexts]
    joints: list[list[list[int]]] = [[] for _ in contexts]
    for after in (False, True):  # two calls of the tokenizer in all, however many items there are
        texts = [(i, tail + c) for i, (_, _, tail, chat) in enumerate(heads) if chat is after for c in continuations[i]]
        encoded = codec.tokens.literal([text for _, text in texts], after_control=after)
        for (i, _), joint_tail in zip(texts, encoded, strict=True):
            joints[i].append(joint_tail)
    result = []
    for (ids, n_head, tail, chat), tails in zip(heads, joints, strict=True):
        head = ids[:n_head]
        joint = [(*head, *rest) for rest in tails]
        result.append(split(ids, joint, bos=codec.tokens.bos, eos=codec.tokens.eos, empty=not tail and not chat))
    return result
