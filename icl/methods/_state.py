"""What a saved prompt is made of: its settings, labels, model and encoder as JSON data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ..errors import InputError, Problem
from ..files import write_text
from ..values import Spec
from ._abstain import abstain_state
from ._ask import learn
from ._common import encoder_state
from ._folder import INDEX, ROWS, TEMPLATE_FILE, save_predictor, write_rows
from ._learned import write_learned
from ._model import ModelHandle

if TYPE_CHECKING:
    from ..prompt import BoundTemplate
    from ..retrieve import DemoIndex
    from ._predictor import FewShotPredictor
    from .few_shot import FewShot

SETTINGS = (
    "order", "shots", "readout", "calibration", "format", "max_tokens", "seed", "max_new_tokens", "tokenizer", "samples", "greedy", "temperature", "vote",
    "answer",
    "windows", "long_input", "order_seed",
)  # fmt: skip


def prompt_state(method: FewShot, bound: BoundTemplate, model: ModelHandle, index: DemoIndex | None) -> dict[str, Any]:
    """What `few_shot.load` reads. index: the one in use, None if none was needed. Raises InputError for functions, which are no data."""
    is_live = index is not None and method.retriever is index
    problems = [
        Problem("a Python function cannot be saved", "Make it a plug-in file and give its name.", field=field)
        for field in ("retriever", "order", "tokenizer")
        if callable(getattr(method, field)) and not (field == "retriever" and is_live)
    ]
    if model.reference is not None and callable(model.reference.get("tokenizer")):
        problems.append(Problem("a Python function cannot be saved", "Name the model's tokenizer, or leave it out.", field="lm.tokenizer"))
    if problems:
        raise InputError(problems)
    settings = {name: _plain(getattr(method, name)) for name in SETTINGS}
    settings["retriever"] = {"index": None} if is_live else _plain(method.retriever)
    return {
        "method": "few_shot" if method.shots else "zero_shot",
        "kind": bound.kind,
        "inputs": method.inputs,
        "labels": bound.labels,
        "settings": settings,
        "template": {"name": bound.template.name, "split_labels": bound.template.split_labels},
        "words": {label: list(words) for label, words in method.words.items()} if method.words else None,
        "model": model.state(),
        "encoder": encoder_state(index.encoder) if index is not None else {"name": _encoder_name(method.encoder)},
    }


def save(predictor: FewShotPredictor, folder: Path | str) -> None:
    """See `FewShotPredictor.save`."""
    method, bound, index = predictor.method, predictor.bound, predictor.used_index
    frozen = predictor.calibration.saved(predictor) if predictor.calibration is not None else None
    learn(predictor)
    state = {**prompt_state(method, bound, predictor._model, index), **abstain_state(predictor.abstaining)}

    def write(to: Path) -> None:
        write_text(to / TEMPLATE_FILE, bound.template.source)
        write_learned(to, predictor.learned)
        if index is not None:
            index.save(to / INDEX)
        else:
            write_rows(to / ROWS, predictor.pool if method.shots else ())

    save_predictor(folder, {**state, "name": predictor.name, "calibration_state": frozen}, write)


def _plain(value: Any) -> Any:
    """A component as JSON data."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Spec):
        return {value.name: dict(value.settings)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return dict(value) if isinstance(value, Mapping) else value


def _encoder_name(encoder: Any) -> str:
    return encoder if isinstance(encoder, str) else str(encoder.name)
