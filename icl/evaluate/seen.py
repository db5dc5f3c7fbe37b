"""What a reader of a run wants to see beside its results: the exact prompts, and the rows shown as demonstrations.

Prompts of a unit share nearly all of their lines (an instruction, demonstrations), so each line is kept once, and the whole compressed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..values import Example, Prediction, Prompt


def prompts_of(predictor: Any, queries: Sequence[Example], predictions: Sequence[Prediction]) -> list[Prompt | None]:
    """The prompts behind predictions, None where there was none. A predictor that keeps its last prompts builds none anew."""
    if not hasattr(predictor, "prompts") or not queries:
        return [None] * len(queries)
    try:
        return list(predictor.prompts(queries))
    except InputError:  # some fit no window: those were not asked about
        asked = [at for at, p in enumerate(predictions) if p.answer is not None or p.n_tokens is not None]
        prompts: list[Prompt | None] = [None] * len(queries)
        for at, prompt in zip(asked, predictor.prompts([queries[at] for at in asked]) if asked else (), strict=True):
            prompts[at] = prompt
        return prompts


def shown_rows(pool: Iterable[Example], prompts: Iterable[Prompt | None], predictions: Iterable[Prediction]) -> dict[str, Example]:
    """The rows that predictions had as demonstrations, by uid: as their prompts hold them, else from the pool, which is not read if not needed."""
    found = {each.example.uid: each.example for prompt in prompts if prompt is not None for each in prompt.demonstrations}
    wanted = {uid for prediction in predictions for uid in prediction.demonstrations} - found.keys()
    return found | ({example.uid: example for example in pool if example.uid in wanted} if wanted else {})


def packed(texts: Mapping[int, str | None]) -> bytes | None:
    """Prompts by position, as bytes; None if there are none."""
    lines: dict[str, int] = {}
    prompts = {at: [lines.setdefault(line, len(lines)) for line in text.split("\n")] for at, text in texts.items() if text is not None}
    return zlib.compress(json.dumps([list(lines), prompts], separators=(",", ":")).encode()) if prompts else None


def unpacked(data: bytes) -> dict[int, str]:
    """The other half of `packed`."""
    lines, prompts = json.loads(zlib.decompress(data))
    return {int(at): "\n".join(lines[n] for n in numbers) for at, numbers in prompts.items()}
