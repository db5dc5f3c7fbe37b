"""The settings that every trained method has; a method's own `Settings` inherit them. Defaults need no search."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Schedule: TypeAlias = Literal["linear", "cosine", "constant"]
Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
ClassWeights: TypeAlias = Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]]
EPOCHS = 3
LEARNING_RATE = 5e-5
"""Where neither the user nor the method says anything."""


class TrainingSettings(BaseModel):
    """How weights are trained, whatever the model and the loss."""

    model_config = ConfigDict(extra="forbid")
    epochs: int | None = Field(None, ge=1, description="Times that every row is seen; default: as many as the method finds sensible.")
    batch_size: int = Field(16, ge=1, description="Rows per step.")
    rows_at_once: int | None = Field(
        None,
        ge=1,
        description="Rows of a step whose activations are held at once; fewer take less memory. Default: all, or of a language model 1,024 tokens.",
    )
    learning_rate: float | None = Field(None, gt=0, description="Of AdamW, at its highest; default: what the method finds sensible.")
    schedule: Schedule = Field("linear", description="How the learning rate falls after the warm-up: to 0, or not at all (constant).")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps over which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW; biases and normalisation layers have none.")
    layer_decay: float = Field(1.0, gt=0, le=1, description="Each layer learns at this times the rate of the one above it.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradients.")
    patience: int | None = Field(
        None, ge=1, description="Stop after so many validations without a better one. Default: train for all epochs."
    )
    precision: Precision = Field("auto", description="auto: fp32 on a CPU, bf16 under autocast on CUDA.")
