"""Rows of a pool as a language model is taught them: the prompt of each, and its answers as the engine would score them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeGuard

from ..values import Example, Prompt

if TYPE_CHECKING:
    from ..model import Seq2SeqModel, TorchModel
    from ..model.boundary import Split
    from ..model.forward import Path
    from ..train.causal import Computing, Taught
    from ..train.peft_kinds import Trainable
    from ._predictor import FewShotPredictor


def taught_rows(
    predictor: FewShotPredictor, rows: Sequence[Example], right: Sequence[Any], base: TorchModel | Seq2SeqModel
) -> list[Taught | None]:
    """Per row its prompt without demonstrations and the answers behind it; None where no prompt can hold it, or a decoder one of its labels
    or choices. An answer in words that is longer than the model reads is cut there, and marked.

    right: per row its label, choice or answer, or the probabilities of all labels.
    """
    from ..train.causal import Taught
    from ..train.token_losses import Answers

    prompts = [made if isinstance(made, Prompt) else None for made in predictor._prepare(rows)]
    whole = [(e, p, r) for e, p, r in zip(rows, prompts, right, strict=True) if p is not None]
    if predictor.kind == "answer":
        texts = [[_ended(predictor, query, prompt, str(target), base)] for query, prompt, target in whole]
        splits = _splits(predictor, [prompt for _, prompt, _ in whole], texts)
        ends = [_end(base, prompt) for _, prompt, _ in whole]
        rooms = [_room(split, base) for split in splits]
        found: list[Taught | None] = [
            Taught(_cut(split, end, room), Answers(((0,),), 0, (1.0,)), cut=len(split.continuations[0]) + len(end) > room)
            for split, end, room in zip(splits, ends, rooms, strict=True)
        ]
    else:
        candidates = [predictor._candidates(query, prompt) for query, prompt, _ in whole]
        splits = _splits(predictor, [prompt for _, prompt, _ in whole], [c.continuations for c in candidates])
        found = [
            Taught(split, Answers(tuple(at for _, at in c.groups), _place(c.answers, target), _divisors(predictor, split, c.continuations)))
            if not is_seq2seq(base) or max(map(len, split.continuations)) <= _room(split, base)  # a causal model's prompts were made to fit
            else None
            for split, c, (_, _, target) in zip(splits, candidates, whole, strict=True)
        ]
    each = iter(found)
    return [None if prompt is None else next(each) for prompt in prompts]


def _splits(predictor: FewShotPredictor, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list[Split]:
    """Prompts and continuations as the engine would score them."""
    from ..model.encoding import encoded_splits

    lm: Any = predictor.lm
    return lm.splits(prompts, texts, whole=False) if is_seq2seq(lm) else encoded_splits(lm.codec, prompts, texts)


def is_seq2seq(lm: Any) -> TypeGuard[Seq2SeqModel]:
    """Whether an encoder reads the prompt."""
    from ..model import Seq2SeqModel

    return isinstance(lm, Seq2SeqModel)


def computing_of(base: TorchModel | Seq2SeqModel, trainable: Trainable, taught: Taught) -> Computing:
    """How rows are computed in training."""
    from ..train.causal import causally
    from ..train.seq2seq import by_decoder

    return by_decoder(base.first) if is_seq2seq(base) else causally(path_of(base, trainable, taught))


def path_of(base: TorchModel, trainable: Trainable, taught: Taught) -> Path:
    """How rows are computed in training: the fastest way that gives the model's own values for a row of the task.

    Which tokens a mask lets a token see is checked here rather than trusted: an architecture may take one and read it otherwise.
    """
    import torch

    from ..model.check import tolerance
    from ..train.causal import packed, path_for, token_values

    path = path_for(base.examined)
    if path != "mask":
        return path
    trainable.outer.eval()
    with torch.no_grad():
        try:
            one = token_values(trainable.outer, [packed(taught, "mask")], "mask")
        except Exception:  # whatever an architecture raises for a mask that it does not take
            return "padded"
        other = token_values(trainable.outer, [packed(taught, "single")], "single")
    sums = [torch.zeros(len(taught.split.continuations)).index_add(0, owner.cpu(), values.cpu()) for values, owner in (one, other)]
    return "mask" if float((sums[0] - sums[1]).abs().max()) <= max(1e-3, tolerance(base.model)) else "padded"


def _place(answers: Sequence[str], right: Any) -> Any:
    return right if isinstance(right, tuple) else list(answers).index(right)


def _divisors(predictor: FewShotPredictor, split: Any, texts: Sequence[str]) -> tuple[float, ...]:
    """What the read-out divides each continuation's log-likelihood by."""
    shown = [text.lstrip() for text in texts]
    lengths = {
        "per_token": [len(ids) for ids in split.continuations],
        "per_byte": [len(text.encode("utf-8", "surrogatepass")) for text in shown],
        "per_char": [len(text) for text in shown],
    }.get(predictor.method.readouts[0], [1] * len(shown))
    return tuple(float(max(1, n)) for n in lengths)


def _ended(predictor: FewShotPredictor, query: Example, prompt: Prompt, answer: str, base: TorchModel | Seq2SeqModel) -> str:
    """An answer in words behind the row's rationale, as demonstrations show them, with what ends it where it is written: in plain text the
    first stop string; an encoder-decoder model ends its text by itself."""
    text = predictor.bound.solution(query, answer, prompt.format)
    stop = predictor._stop(chat=prompt.format == "chat")
    return text if prompt.format == "chat" or is_seq2seq(base) or not stop or text.endswith(stop[0]) else text + stop[0]


def _end(base: TorchModel | Seq2SeqModel, prompt: Prompt) -> tuple[int, ...]:
    """The token that ends the answer: of the assistant's turn, or of all that a decoder writes."""
    if is_seq2seq(base):
        eos = base.codec.tokens.eos
        return () if eos is None else (eos,)
    if prompt.format != "chat":
        return ()
    ends, eos = base.writing.end_ids, base.codec.tokens.eos
    return (eos,) if eos in ends else tuple(sorted(ends)[:1])


def _room(split: Split, base: TorchModel | Seq2SeqModel) -> int:
    """Most tokens of an answer that the model reads: the last one is told by those before it."""
    room: int = base.decoder_window - len(base.first) + 1 if is_seq2seq(base) else base.window - len(split.prefix)
    return max(1, room)


def _cut(split: Split, end: tuple[int, ...], room: int) -> Split:
    """With the end of the answer, and no longer than there is room."""
    return replace(split, continuations=tuple((*ids, *end)[:room] for ids in split.continuations))
