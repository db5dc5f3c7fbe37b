"""The language model of a predictor: at hand, loaded when first needed, or none (prompts only)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import InputError, Problem
from ..progress import note
from ..protocols import LanguageModel, PromptCodec

Tokenizer: TypeAlias = "str | Path | Callable[[str], int | Sequence[int]]"
"""A hub id, a folder, or a function that counts the tokens of a text (or gives their ids)."""


@dataclass
class ModelHandle:
    """What a prompt method knows of its model before, and without, loading it."""

    lm: LanguageModel | None = None
    reference: Mapping[str, Any] | None = None
    """Keyword arguments of `load_model`; None: no model, prompts only."""
    fingerprint: str | None = None
    """Of the model that the predictor was saved with."""
    window: int | None = None
    tokenizer: Tokenizer | None = None
    """Counts the tokens of prompts where there is no model."""
    device: str | None = None
    _codec: PromptCodec | None = field(default=None, repr=False)

    @classmethod
    def of(cls, lm: LanguageModel | None, tokenizer: Tokenizer | None = None) -> ModelHandle:
        if lm is None:
            return cls(tokenizer=tokenizer)
        return cls(lm, lm.reference, lm.fingerprint, lm.window, tokenizer)

    def load(self) -> LanguageModel:
        """The model. Raises InputError if the predictor was made without one."""
        if self.lm is None:
            if self.reference is None:
                raise InputError(
                    Problem(
                        "this predictor was made without a language model, so it only writes prompts",
                        "Send prompts(queries) to your model and give what it answers to read(query, text), or fit with a model: "
                        "icl.FewShot(icl.load_model('smollm2')).",
                        field="lm",
                    )
                )
            from ..model import load_model

            here = "://" not in str(self.reference["name"])
            arguments = {**self.reference, "device": self.device} if self.device and here else dict(self.reference)
            self.lm = load_model(**arguments)
            if self.fingerprint and self.lm.fingerprint != self.fingerprint:
                note(f"'{self.lm.name}' is not quite the model this predictor was saved with (dtype, device or files differ).")
        return self.lm

    def codec(self) -> PromptCodec | None:
        """What turns prompts into tokens: the model's, without loading the model; or the tokenizer's; or None."""
        if self.lm is not None:
            return self.lm.codec
        if self.reference is not None and "://" in str(self.reference["name"]):
            return self.load().codec  # behind an address there is nothing large to load
        if self._codec is None:
            source = self.reference["name"] if self.reference is not None else self.tokenizer
            if source is not None:
                from ..model import load_codec

                self._codec = load_codec(source)
        return self._codec

    def state(self) -> dict[str, Any] | None:
        """What is saved of it."""
        if self.reference is None:
            return None
        return {"reference": dict(self.reference), "fingerprint": self.fingerprint, "window": self.window}
