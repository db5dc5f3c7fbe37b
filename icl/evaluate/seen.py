"""What a reader of a run wants to see beside its results: the exact prompts, and the rows shown as demonstrations.

Prompts of a unit share nearly all of their lines (an instruction, demonstrations), so each line is kept once, and the whole compressed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..values import Example, Prediction


def prompts_of(predictor: Any, queries: Sequence[Example], predictions: Sequence[Prediction]) -> list[str | None]:
    """The prompts behind predictions, None where there was none. A predictor that keeps its last prompts builds none anew."""
    if not hasattr(predictor, "prompts") or not queries:
        return [None] * len(queries)
    try:
        return [prompt.text for prompt in predictor.prompts(queries)]
    except InputError:  # some fit no window: those were not asked about
        asked = [at for at, p in enumerate(predictions) if p.answer is not None or p.n_tokens is not None]
        texts: list[str | None] = [None] * len(queries)
        for at, prompt in zip(asked, predictor.prompts([queries[at] for at in asked]) if asked else (), strict=True):
            texts[at] = prompt.text
        return texts


def shown_rows(pools: Iterable[Iterable[Example]], predictions: Iterable[Prediction]) -> dict[str, Example]:
    """The rows that predictions had as demonstrations, by uid, each from the first pool that has it; a pool that is not needed is not read."""
    wanted = {uid for prediction in predictions for uid in prediction.demonstrations}
    found: dict[str, Example] = {}
    for pool in pools:
        if wanted - found.keys():
            found = {example.uid: example for example in pool if example.uid in wanted} | found
    return found


def packed(texts: Mapping[int, str | None]) -> bytes | None:
    """Prompts by position, as bytes; None if there are none."""
    lines: dict[str, int] = {}
    prompts = {at: [lines.setdefault(line, len(lines)) for line in text.split("\n")] for at, text in texts.items() if text is not None}
    return zlib.compress(json.dumps([list(lines), prompts], separators=(",", ":")).encode()) if prompts else None


def unpacked(data: bytes) -> dict[int, str]:
    """The other half of `packed`."""
    lines, prompts = json.loads(zlib.decompress(data))
    return {int(at): "\n".join(lines[n] for n in numbers) for at, numbers in prompts.items()}
