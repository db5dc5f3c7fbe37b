"""What a pretraining can be told."""

from __future__ import annotations

from pydantic import Field

from .settings import TrainingSettings


class PretrainSettings(TrainingSettings):
    length: int = Field(256, ge=8, description="Tokens of a row.")
    epochs: int | None = Field(1, ge=1, description="Times that the text is seen.")
    steps: int | None = Field(None, ge=1, description="Steps of the optimiser, instead of epochs; the text is seen again if it is short.")
    masked: float = Field(0.15, gt=0, lt=1, description="Share of the tokens that a masked model predicts.")
    validations: int = Field(
        10, ge=1, description="Times that the held-out loss is measured, evenly spread; the steps are rounded up to a multiple of them."
    )
    validation_documents: int = Field(20, ge=1, description="Held-out documents that these are measured on.")
    checkpoint_every: float = Field(300.0, ge=0, description="Seconds between two checkpoints.")
