"""Rows of a pool said in other words by a language model: once for each row, before training, counted in its cost."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from ..files import read_text, write_text
from ..progress import progress
from ..values import Example, Prompt, content_digest, digest, normalised_text

if TYPE_CHECKING:
    from ..prompt import Template
    from ..train.augment import Paraphrase
    from ._predictor import FewShotPredictor

UNIT = 32
"""Texts that the model is asked about in one call."""
FILE = "paraphrases.json"


@dataclass(frozen=True)
class Paraphrased:
    """What a model made of some texts."""

    versions: dict[str, list[str]]
    """Text -> other texts, `n` at most: what was empty or the same again is left out."""
    record: dict[str, Any]
    """JSON data: `model`, `n_texts`, `n_made`, `n_tokens` (read and written), `operations` (None behind an address), `seconds`."""

    def of(self, fields: Sequence[str]) -> list[list[str]]:
        """A row, given by its fields, in other words: the first paraphrases of all fields, the second ones, …; a field without stays."""
        n = max((len(self.versions.get(field, ())) for field in fields), default=0)
        return [[found[i] if i < len(found := self.versions.get(field, [])) else field for field in fields] for i in range(n)]


def paraphrased(
    texts: Sequence[str], how: Paraphrase, *, seed: int = 0, work: Path | None = None, templates: Sequence[Path] = ()
) -> Paraphrased:
    """Each text in other words, by sampling from the prompt of a template. What an interrupted call has in `work` is not asked again.

    templates: folders that the template is looked for in before the usual ones.
    Raises InputError for a model or a template that is not there, or a template with several fields.
    """
    from ..prompt import Template, template_folders
    from ..train.cost import tokens_spent

    started = time.monotonic()
    file = work / FILE if work is not None else None
    wanted = sorted({text for text in texts if text.strip()})
    template = Template.load(how.template, template_folders(tuple(templates)))
    key = digest([how.model_dump(mode="json"), template.source, seed, wanted])
    said = json.loads(read_text(file)) if file is not None and file.is_file() else {}
    known: dict[str, Any] = (
        said if said.get("key") == key else {"key": key, "versions": {}, "n_tokens": 0, "operations": 0.0, "seconds": 0.0}
    )
    todo = [text for text in wanted if text not in known["versions"]]
    earlier = known["seconds"]
    if todo:
        lm, predictor = _asking(how, template)
        (field,) = predictor.inputs
    with progress(f"Paraphrases, {how.model}", len(wanted), "texts") as advance:
        advance(len(wanted) - len(todo))
        for start in range(0, len(todo), UNIT):
            part = todo[start : start + UNIT]
            rows = [Example(f"{content_digest({field: text})}-0", {field: text}, None) for text in part]
            prompts = [made if isinstance(made, Prompt) else None for made in predictor._prepare(rows)]
            whole = [prompt for prompt in prompts if prompt is not None]
            before = tokens_spent(lm)
            stop = predictor._stop(chat=bool(whole) and whole[0].format == "chat")
            found = iter(lm.sample(whole, how.n, how.temperature, seed, how.max_new_tokens, stop) if whole else ())
            for row, text, prompt in zip(rows, part, prompts, strict=True):
                said_so = [predictor._read_text(row, one, stop)[0] or "" for one in next(found)] if prompt is not None else []
                known["versions"][text] = _usable(text, said_so)
            n_tokens = tokens_spent(lm) - before
            known["n_tokens"] += n_tokens
            known["operations"] = _operations(lm, n_tokens, whole, known["operations"])
            known["seconds"] = earlier + time.monotonic() - started
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_text(file, json.dumps(known))
            advance(len(part))
    versions = known["versions"]
    record = {
        "model": how.model,
        "n_texts": len(wanted),
        "n_made": sum(map(len, versions.values())),
        **{name: known[name] for name in ("n_tokens", "operations")},
        "seconds": round(known["seconds"], 3),
    }
    return Paraphrased(versions, record)


def _asking(how: Paraphrase, template: Template) -> tuple[Any, FewShotPredictor]:
    """The model, and the prompt that it is asked with."""
    from ..model import load_model
    from .few_shot import FewShot

    lm: Any = load_model(how.model)
    predictor = FewShot(lm, template=template, shots=0, max_new_tokens=how.max_new_tokens).fit((), (), kind="answer")
    if len(predictor.inputs) != 1:
        message = f"the template '{how.template}' has the input fields {', '.join(predictor.inputs)}, and a text is one"
        raise InputError(Problem(message, "Name a template with one input field, such as rewrite.", field="template"))
    return lm, predictor


def _usable(text: str, found: Sequence[str]) -> list[str]:
    """Different texts that are not the text itself."""
    made = {normalised_text(one): one.strip() for one in found}
    return [one for key, one in made.items() if key and key != normalised_text(text)]


def _operations(lm: Any, n_tokens: int, prompts: Sequence[Prompt], before: float | None) -> float | None:
    from ..train.cost import operations_of

    model = getattr(lm, "model", None)
    if model is None or before is None:
        return None
    return before + operations_of(model).forward(n_tokens, sum(p.n_tokens or 0 for p in prompts) / max(1, len(prompts)))
