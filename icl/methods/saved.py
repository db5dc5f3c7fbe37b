"""A predictor saved earlier, as a competitor: `{saved: {path: FOLDER}}`. It learns nothing here and needs no labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, Problem
from ..protocols import LanguageModel, MethodContext, Predictor
from ..values import KINDS as ALL_KINDS
from ..values import Example, Kind
from ._folder import load_predictor, read_state

KINDS: frozenset[Kind] = frozenset(ALL_KINDS)
NEEDS_LABELS = False
NEEDS_MODEL = False


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    path: str = Field(description="The folder that `save` or `icl export` wrote; relative to the suite file.")


@dataclass(frozen=True)
class Saved:
    path: Path
    kind: Kind | None = None
    lm: LanguageModel | None = None
    """Used instead of loading the predictor's own model again, where it is the same one."""
    plugins: tuple[Path, ...] = ()

    @property
    def kinds(self) -> frozenset[Kind]:
        return frozenset({read_state(self.path)["kind"]})

    def fit(self, pool: Sequence[Example] = (), labels: Sequence[str] = (), unlabelled: Sequence[Example] = ()) -> Predictor:
        state = read_state(self.path)
        if self.kind and state["kind"] != self.kind:
            raise InputError(
                Problem(f"this predictor is for the kind '{state['kind']}', the task is '{self.kind}'", "Leave it out.", str(self.path))
            )
        same = self.lm is not None and dict(self.lm.reference) == (state.get("model") or {}).get("reference")
        return load_predictor(self.path, lm=self.lm if same else None, plugins=self.plugins)


def build(settings: Settings, context: MethodContext) -> Saved:
    return Saved(Path(settings.path), context.kind, context.lm, context.plugin_folders)


def load(folder: Path, state: Mapping[str, Any], *, lm: LanguageModel | None = None, device: str | None = None) -> Predictor:
    raise InputError(Problem("a predictor is saved under the name of its own method, never as 'saved'", "Save it again.", str(folder)))
