"""Contexts and their continuations as token ids, for scoring and for writing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import InputError, Problem
from ..values import Prompt
from .boundary import Split, split
from .codec import TokenizerCodec
from .far import Abreast
from .tokenizer import Tokenization

Context = str | Prompt
_AT_ONCE = 64
"""Contexts whose texts with every continuation are held at once."""


class Head(NamedTuple):
    """A context in tokens."""

    ids: tuple[int, ...]
    n_head: int
    """Tokens before the tail."""
    tail: str
    after_control: bool
    """The tail follows a control token."""


def last_window(context: Context) -> Context:
    """Of a prompt whose windows the query sees at once the last one, with the query; every other context is itself."""
    if isinstance(context, Prompt) and context.windows is not None and context.windows.combine == "parallel":
        return context.windows.prompts[-1]
    return context


def windows_behind(context: Context) -> Abreast | None:
    """The windows that the query of this prompt sees at once; None: it is a plain one."""
    windows = context.windows if isinstance(context, Prompt) else None
    if windows is None or windows.combine != "parallel":
        return None
    ids = [window.token_ids for window in windows.prompts]
    head, n_tail = ids[0][: windows.n_head], windows.n_tail
    return Abreast(head, tuple(each[windows.n_head : len(each) - n_tail] for each in ids))


def encoded_contexts(codec: TokenizerCodec, contexts: Sequence[Context]) -> list[Head]:
    """Each context in tokens; prompts that carry theirs are not encoded again. Raises InputError for a prompt of several windows, which
    is no one text."""
    if any(isinstance(context, Prompt) and context.windows is not None for context in contexts):
        raise InputError(
            Problem("a prompt of several windows is no one text", "Give its windows one by one: prompt.windows.prompts.", field="windows")
        )
    texts = [str(c) for c in contexts if not (isinstance(c, Prompt) and (c.token_ids or c.format == "chat"))]
    plain = iter(codec.plains(texts))
    heads = []
    for context in contexts:
        if isinstance(context, Prompt) and context.token_ids:
            heads.append(Head(context.token_ids, context.n_head, context.tail, context.tail != context.text))
            continue
        encoded = codec.chat(context.messages) if isinstance(context, Prompt) and context.format == "chat" else next(plain)
        heads.append(Head(encoded.ids, encoded.n_head, encoded.tail, encoded.tail != encoded.text))
    return heads


def encoded_context(codec: TokenizerCodec, context: Context) -> Head:
    """One context in tokens."""
    return encoded_contexts(codec, [context])[0]


def encoded_splits(codec: TokenizerCodec, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[Split]:
    """For each context where scoring starts, and its continuations from there. Raises InputError if the lists differ in length.

    What stands before the last cut of a context is encoded once; from there on, each different text is encoded once in all. One
    continuation of every 64 contexts is also encoded in one go with its context: should the two differ, the tokenizer does not
    respect the cuts, and everything is encoded in one go.
    """
    if len(contexts) != len(continuations):
        raise InputError(
            Problem(
                f"{len(contexts)} contexts and {len(continuations)} lists of continuations",
                "Give one list of continuations per context.",
            )
        )
    result: list[Split] = []
    for start in range(0, len(contexts), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        found = _some_splits(codec, contexts[some], continuations[some])
        if found is None:
            codec.tokens.distrust_cuts()
            return encoded_splits(codec, contexts, continuations)
        result += found
    return result


def _some_splits(codec: TokenizerCodec, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[Split] | None:
    """None if the tokenizer turns out not to respect its cuts."""
    heads = encoded_contexts(codec, contexts)
    result = _by_cuts(codec.tokens, heads, continuations)
    checked = next((i for i, found in enumerate(result) if found is not None and continuations[i]), None)
    if checked is not None and not _as_joint(codec.tokens, heads[checked], continuations[checked][0], result[checked]):
        return None
    left = [i for i, found in enumerate(result) if found is None]
    jointly = dict(zip(left, _jointly(codec.tokens, [heads[i] for i in left], [continuations[i] for i in left]), strict=True))
    return [found if found is not None else jointly[i] for i, found in enumerate(result)]


def _by_cuts(tokens: Tokenization, heads: Sequence[Head], continuations: Sequence[Sequence[str]]) -> list[Split | None]:
    """None where a context has no cut, or its ids do not end with those of its text behind the cut."""
    if not tokens.cuts.kinds:
        return [None] * len(heads)
    ends = [head.tail[at:] if (at := tokens.cuts.last(head.tail)) else None for head in heads]
    jobs = [(end, tuple(texts)) if end is not None else None for end, texts in zip(ends, continuations, strict=True)]
    wanted = dict.fromkeys(job for job in jobs if job is not None)
    ids = tokens.inside([text for end, texts in wanted for text in (end, *(end + c for c in texts))])
    joints = {job: [ids[job[0] + c] for c in job[1]] for job in wanted}
    result: list[Split | None] = []
    for head, job in zip(heads, jobs, strict=True):
        alone = ids[job[0]] if job is not None else None
        found = [joint for joint in joints[job] if joint is not None] if job is not None else []
        n = len(head.ids) - len(alone or ())
        if job is None or alone is None or len(found) < len(job[1]) or n < head.n_head or head.ids[n:] != alone:
            result.append(None)
        else:
            result.append(split(alone, found, head=head.ids[:n], bos=tokens.bos, eos=tokens.eos))
    return result


def _as_joint(tokens: Tokenization, head: Head, continuation: str, found: Split | None) -> bool:
    [joint] = tokens.whole([head.tail + continuation], after_control=head.after_control)
    if found is None:
        return False
    prefix = found.prefix if found.conditioned == "context" else ()  # else it stands for an empty one
    return (*prefix, *found.continuations[0]) == (*head.ids[: head.n_head], *joint)


def _jointly(tokens: Tokenization, heads: Sequence[Head], continuations: Sequence[Sequence[str]]) -> list[Split]:
    joints: list[list[tuple[int, ...]]] = [[] for _ in heads]
    for after in (False, True):  # two calls of the tokenizer in all, however many items there are
        texts = [(i, head.tail + c) for i, head in enumerate(heads) if head.after_control is after for c in continuations[i]]
        encoded = tokens.literal([text for _, text in texts], after_control=after)
        for (i, _), ids in zip(texts, encoded, strict=True):
            joints[i].append(tuple(ids))
    return [
        split(
            head.ids[head.n_head :],
            found,
            head=head.ids[: head.n_head],
            bos=tokens.bos,
            eos=tokens.eos,
            empty=not head.tail and not head.after_control,
        )
        for head, found in zip(heads, joints, strict=True)
    ]
