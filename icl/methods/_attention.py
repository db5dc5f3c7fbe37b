"""Where the position that answers looks: its attention weights, summed over the parts of a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError, Problem
from ..values import Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..protocols import PromptCodec
    from ._predictor import FewShotPredictor


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention weights of the position that predicts the answer's first token. The three parts together are the whole prompt."""

    demonstrations: NDArray[np.float32]
    """(n_layers, n_heads, n_demonstrations), in prompt order; a part includes the separator behind it, in chat its two turns."""
    query: NDArray[np.float32]
    """(n_layers, n_heads); the beginning of the assistant's turn included."""
    head: NDArray[np.float32]
    """(n_layers, n_heads): what stands before the first demonstration, BOS and the instruction."""
    weights: NDArray[np.float32]
    """(n_layers, n_heads, n_tokens), see `icl.model.attention_view.answer_attention`."""


def attention_of(predictor: FewShotPredictor, prompt: Prompt) -> Attention:
    """Raises InputError for several windows, a channel, and a model that gives no weights."""
    from ..model.attention_view import answer_attention, summed

    assert prompt.query is not None
    why_not = None
    if prompt.windows is not None:
        why_not = "the prompt is several windows, which have no attention in common"
    elif predictor.bound.template.channel:
        why_not = "in a channel the answer stands in the prompt, so no position answers"
    elif predictor._shows_rationales:
        why_not = "a rationale is written before the answer, so it is not the prompt's last position that answers"
    if why_not is not None:
        raise InputError(Problem(why_not, "Leave attention out.", field="attention"))
    lm = predictor._lm()
    weights = answer_attention(lm, prompt, predictor._candidates(prompt.query, prompt).continuations)
    parts = summed(weights, [0, *_starts(predictor, lm.codec, prompt)])
    return Attention(parts[..., 1:-1], parts[..., -1], parts[..., 0], weights)


def _starts(predictor: FewShotPredictor, codec: PromptCodec, prompt: Prompt) -> list[int]:
    """The first token of each demonstration, and that of the query.

    The border is that of continuations: the longest token prefix that the prompt shares with what stands before it (in chat: with a
    prompt in which another text stands there).
    """
    from ..model.boundary import common_length

    assert prompt.query is not None
    shown = [d.example for d in prompt.demonstrations]
    if prompt.format == "chat":
        messages = prompt.messages
        first = len(messages) - 1 - 2 * len(shown)
        others = [
            codec.chat([*messages[:at], {"role": "user", "content": _other(messages[at]["content"])}]).ids
            for at in range(first, len(messages), 2)
        ]
    else:
        bound = predictor.bound
        others, before = [], ""
        for block in (bound.instruction(prompt.query), *map(bound.demonstration, shown)):
            before += block + bound.template.separator if block else ""
            others.append(codec.plain(before).ids)
    found = [common_length(each, prompt.token_ids) for each in others]
    return [max(found[: i + 1]) for i in range(len(found))]


def _other(text: str) -> str:
    """A text that begins otherwise, also where the chat template strips it."""
    return "1" if text.strip()[:1] == "0" else "0"
