"""The prompt without demonstrations: instruction and query alone. Needs no labelled examples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..protocols import LanguageModel, MethodContext
from ..values import KINDS as ALL_KINDS
from ..values import Kind
from ._abstain import DESCRIPTION, Option
from ._calibrate import refuse_without_labels
from ._long_input import LongInputSettings
from .few_shot import GREEDY, READOUT, VOTE, FewShot, method_of
from .few_shot import load as _load

if TYPE_CHECKING:
    from ._predictor import FewShotPredictor

KINDS: frozenset[Kind] = frozenset(ALL_KINDS)
NEEDS_LABELS = False
NEEDS_MODEL = True


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    readout: str | list[str] = Field("sum", description=READOUT)
    calibration: str | dict[str, Any] | None = Field(
        None, description="Corrects the model's bias towards some labels; one that needs no labelled examples."
    )
    template: str | None = Field(None, description="A template instead of the task's.")
    format: Literal["auto", "plain", "chat"] | None = Field(None, description="Plain text or chat turns, instead of the suite's.")
    max_tokens: int | None = Field(None, ge=1, description="Token budget of the prompt; default: the model's window.")
    long_input: LongInputSettings | Literal["refuse", "slide", "head_tail", "truncate"] = Field(
        "refuse", description="What is done with an input that no prompt can hold; by default the item is unscored, with the reason."
    )
    max_new_tokens: int = Field(64, ge=1, description="Longest text to write: an answer in words, or one that a label is read out of.")
    samples: int = Field(
        1, ge=1, description="Texts to write per prompt; with several, labels are read out of them and their shares are the probabilities."
    )
    greedy: bool = Field(True, description=GREEDY)
    temperature: float = Field(0.7, gt=0, description="Of the texts that are drawn.")
    vote: Literal["plain", "weighted"] = Field("plain", description=VOTE)
    abstain: Option = Field(None, description=DESCRIPTION)


def build(settings: Settings, context: MethodContext) -> FewShot:
    """Raises InputError for a calibration that needs labelled examples."""
    refuse_without_labels(settings.calibration, context.plugin_folders)
    return method_of({**settings.model_dump(), "shots": 0}, context, "zero_shot")


def load(folder: Path, state: Mapping[str, Any], *, lm: LanguageModel | None = None, device: str | None = None) -> FewShotPredictor:
    return _load(folder, state, lm=lm, device=device)
