"""Passes of an encoder-decoder model: a prompt is read once, and everything behind it starts from what was read.

The keys and values that the decoder's cross-attention makes of the encoder's output are computed once per prompt, and so are the
decoder's fixed first tokens; continuations are rows that begin there. Rows of one prompt alone look at them without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .decoding import Ending, Writer, append, choose
from .padded import COMPACT, cache_name, cache_of

if TYPE_CHECKING:
    import torch

Ids = tuple[int, ...]


@dataclass(slots=True)
class Opened:
    """Prompts that the encoder has read, and behind each the decoder's first tokens."""

    logits: torch.Tensor
    """(rows, vocabulary), for the first token of a continuation."""
    hidden: torch.Tensor
    """(rows, n, size), the encoder's output."""
    mask: torch.Tensor
    """(rows, n), 1 where a prompt has a token."""
    cache: Any
    """The decoder's keys and values; None: the decoder computes its whole row at every step."""


@dataclass(frozen=True, slots=True)
class DecoderRow:
    """Tokens that the decoder reads behind its first ones, and the continuations that are read from them."""

    tokens: Ids
    covers: tuple[int, ...]


def decoder_rows(continuations: Sequence[Ids]) -> list[DecoderRow]:
    """One row per continuation, less those that are the beginning of another's. The last token of a continuation is never read, so
    one of a single token needs no row: it stands in none."""
    order = sorted((ids[:-1], i) for i, ids in enumerate(continuations) if len(ids) > 1)
    rows: list[DecoderRow] = []
    for tokens, i in reversed(order):  # what begins with these tokens comes right behind them in this order
        if rows and rows[-1].tokens[: len(tokens)] == tokens:
            rows[-1] = DecoderRow(rows[-1].tokens, (*rows[-1].covers, i))
        else:
            rows.append(DecoderRow(tokens, (i,)))
    return rows


def open_prompts(model: Any, prompts: Sequence[Ids], first: Ids, *, cached: bool = True) -> Opened:
    """Read prompts in one pass, padded on the right. first: the decoder's first tokens, the same for all."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    device = model.device
    width = max(map(len, prompts))
    tokens = torch.tensor([[*p, *[0] * (width - len(p))] for p in prompts], device=device)
    mask = torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in prompts], device=device)
    hidden = model.get_encoder()(input_ids=tokens, attention_mask=mask).last_hidden_state
    start = torch.tensor([first] * len(prompts), device=device)
    out = model(encoder_outputs=BaseModelOutput(last_hidden_state=hidden), attention_mask=mask, decoder_input_ids=start, use_cache=cached)
    return Opened(out.logits[:, -1], hidden, mask, cache_of(out) if cached else None)


def spread(state: Opened, rows: Sequence[int]) -> Opened:
    """The state of row `rows[i]` as row i. Rows of one prompt share its memory."""
    import torch

    def picked(tensor: torch.Tensor) -> torch.Tensor:
        if len(set(rows)) == 1:
            return tensor[rows[0] : rows[0] + 1].expand(len(rows), *[-1] * (tensor.dim() - 1))
        return tensor[torch.tensor(rows, device=tensor.device)]

    return Opened(picked(state.logits), picked(state.hidden), picked(state.mask), _spread_cache(state.cache, picked))


def _spread_cache(cache: Any, picked: Any) -> Any:
    if cache is None:
        return None
    twin = copy(cache)
    for part in ("self_attention_cache", "cross_attention_cache"):
        half = copy(getattr(cache, part))
        half.layers = [copy(layer) for layer in half.layers]
        for layer in half.layers:
            layer.keys, layer.values = picked(layer.keys), picked(layer.values)
        setattr(twin, part, half)
    twin.is_updated = dict(cache.is_updated)
    return twin


def _step(model: Any, state: Opened, tokens: torch.Tensor, n_new: int) -> torch.Tensor:
    """Logits (rows, n_new, vocabulary) of the last n_new tokens of the decoder's rows; the cache is advanced."""
    from transformers.modeling_outputs import BaseModelOutput

    inputs = {"encoder_outputs": BaseModelOutput(last_hidden_state=state.hidden), "attention_mask": state.mask}
    if state.cache is None:
        logits: torch.Tensor = model(**inputs, decoder_input_ids=tokens, use_cache=False).logits
        return logits[:, -n_new:]
    out = model(**inputs, decoder_input_ids=tokens[:, -n_new:], use_cache=True, **{cache_name(model): state.cache})
    state.cache = cache_of(out)
    found: torch.Tensor = out.logits
    return found


def continuation_values(model: Any, state: Opened, work: Sequence[tuple[int, DecoderRow]], asked: Sequence[Sequence[Ids]]) -> Any:
    """Log-likelihoods in nats, without the first token's, of what the rows cover: {(prompt, continuation): sum}.

    work: (prompt, row) that make one pass. asked: per prompt its continuations. Log-softmax is taken in fp32.
    """
    import torch

    device = model.device
    width = max(len(row.tokens) for _, row in work)
    # Padding stands on the right, where a causal decoder's real tokens do not see it.
    tokens = torch.tensor([[*row.tokens, *[0] * (width - len(row.tokens))] for _, row in work], device=device)
    logits = _step(model, spread(state, [prompt for prompt, _ in work]), tokens, width)
    reads = [
        (r, at, ids[at + 1], (prompt, i))
        for r, (prompt, row) in enumerate(work)
        for i in row.covers
        for ids in (asked[prompt][i],)
        for at in range(len(ids) - 1)
    ]
    places = sorted({(r, at) for r, at, _, _ in reads})
    index = {place: n for n, place in enumerate(places)}
    rows_at, tokens_at = (torch.tensor(side, device=device) for side in zip(*places, strict=True))
    shares = torch.log_softmax(logits[rows_at, tokens_at].float(), dim=-1)
    which = torch.tensor([index[r, at] for r, at, _, _ in reads], device=device)
    target = torch.tensor([token for _, _, token, _ in reads], device=device)
    sums: dict[tuple[int, int], float] = {}
    for (_, _, _, key), value in zip(reads, shares[which, target].double().cpu().tolist(), strict=True):
        sums[key] = sums.get(key, 0.0) + value
    return sums


def first_values(state: Opened, asked: Sequence[Sequence[Ids]]) -> list[list[float]]:
    """Per prompt the log-likelihoods of its continuations' first tokens, in nats; 0 for one without tokens."""
    import torch

    shares = torch.log_softmax(state.logits.float(), dim=-1).double().cpu()
    return [[float(shares[p, ids[0]]) if ids else 0.0 for ids in continuations] for p, continuations in enumerate(asked)]


def plain_value(model: Any, prompt: Ids, first: Ids, continuation: Ids) -> float:
    """One continuation in one forward pass of its own: no padding, no cache, nothing shared."""
    import torch

    if not continuation:
        return 0.0
    rows = torch.tensor([prompt], device=model.device), torch.tensor([[*first, *continuation[:-1]]], device=model.device)
    logits = model(input_ids=rows[0], decoder_input_ids=rows[1], use_cache=False).logits[0, len(first) - 1 :]
    shares = torch.log_softmax(logits.float(), dim=-1)
    return sum(float(shares[at, token].double()) for at, token in enumerate(continuation))


def write(model: Any, prompts: Sequence[Ids], first: Ids, writers: Sequence[Sequence[Writer]], ending: Ending, *, cached: bool) -> None:
    """Fill the writers: `writers[i]` are the texts written for `prompts[i]`; they share one reading of it."""
    import torch

    with torch.inference_mode():
        alive = [writer for group in writers for writer in group]
        state = spread(open_prompts(model, prompts, first, cached=cached), [i for i, group in enumerate(writers) for _ in group])
        tokens = torch.tensor([first] * len(alive), device=model.device)
        while True:
            chosen = choose(state.logits, alive, ending)
            for writer, token in zip(alive, chosen, strict=True):
                if not writer.done:
                    append(writer, token, ending)
            left = [i for i, writer in enumerate(alive) if not writer.done]
            if not left:
                return
            tokens = torch.cat([tokens, torch.tensor(chosen, device=model.device)[:, None]], dim=1)
            if len(left) <= COMPACT * len(alive):
                alive = [alive[i] for i in left]
                state, tokens = spread(state, left), tokens[torch.tensor(left, device=model.device)]
            state.logits = _step(model, state, tokens, 1)[:, -1]
