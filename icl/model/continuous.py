"""Greedy text by transformers' own continuous batching (paged cache, CUDA graphs), with every result checked.

Requests can come back failed, short or not at all, with only a line in a log. So tokens are taken from a result as if they had been
chosen one by one here; a text that is not done after them is not done, and goes on elsewhere.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from .decoding import Ending, Writer, append


def write_continuously(model: Any, writers: Sequence[Writer], ending: Ending) -> int:
    """Take what `generate_batch` gives for greedy texts that have not begun. Some may be left as they were, or not done.

    Returns the number of tokens taken.
    """
    waiting: dict[tuple[int, ...], deque[Writer]] = defaultdict(deque)
    for writer in writers:
        waiting[tuple(writer.prompt)].append(writer)
    n_taken = 0
    for result in _results(model, writers, ending):
        same = waiting.get(tuple(result.prompt_ids))
        if not same or result.error is not None or not result.is_finished():
            continue
        writer = same.popleft()
        for token in result.generated_tokens:
            if writer.done:
                break
            append(writer, token, ending)
            n_taken += 1
    return n_taken


def _results(model: Any, writers: Sequence[Writer], ending: Ending) -> list[Any]:
    from transformers import ContinuousBatchingConfig, GenerationConfig

    ends = ending.end_ids | _stopping(ending, model.get_output_embeddings().weight.shape[0])
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(writer.limit for writer in writers),
        eos_token_id=sorted(ends) or -1,
        pad_token_id=min(ends, default=0),
    )
    # Flash attention, where it is installed, has other last digits than what scores; the switch would also outlive this call.
    before = model.config._attn_implementation
    can_say = any(field.name == "auto_switch_to_flash" for field in dataclasses.fields(ContinuousBatchingConfig))
    batching = ContinuousBatchingConfig(allow_block_sharing=True, **({"auto_switch_to_flash": False} if can_say else {}))
    log = logging.getLogger("transformers.generation.continuous_batching")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what is missing is computed again, so nobody has to hear of it
    try:
        if not can_say:  # older releases (5.17) have no such setting, and leave attention alone that is paged already
            model.set_attn_implementation(f"paged|{before}")
        found = model.generate_batch(
            inputs=[list(writer.prompt) for writer in writers], generation_config=config, continuous_batching_config=batching
        )
    except (RuntimeError, ValueError, MemoryError):  # no memory for its pages, a model it does not know: all texts are left
        return []
    finally:
        log.setLevel(level)
        if model.config._attn_implementation != before:
            model.set_attn_implementation(before)
    return list(found.values())


@lru_cache(maxsize=4)
def _stopping(ending: Ending, vocabulary: int) -> frozenset[int]:
    """Tokens that hold a whole stop string: there a request can end early. Where its text is cut is seen when tokens are taken."""
    if not ending.stop:
        return frozenset()
    return frozenset(i for i in range(vocabulary) if any(stop in ending.decode([i]) for stop in ending.stop))
