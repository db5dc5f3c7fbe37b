"""What is known of a training when it is over: the same for every trained method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import IclError


@dataclass(frozen=True, slots=True)
class Training:
    """One finished training. All but the seconds and the memory is the same again with the same seed, on a CPU in fp32."""

    seed: int
    n_steps: int
    """Steps of the optimiser."""
    epochs: int
    """Epochs done."""
    best_epoch: int | None
    """The epoch, from 1, whose weights were kept; None without a validation: then those of the last."""
    stopped_early: bool
    curve: tuple[Mapping[str, float], ...]
    """One mapping per epoch: `epoch` (from 1), `step`, `loss` (mean over the epoch's steps), and what the validation said."""
    n_parameters: int
    n_trained: int
    """Parameters that gradients reach."""
    n_bytes: int
    """Of the trained weights, as they are kept on disk."""
    n_tokens: int
    """Tokens seen, padding excluded."""
    n_padding: int
    operations: float
    """Floating-point operations of forward and backward passes (an estimate; `cost.Operations`), validations left out."""
    seconds: float
    """Of all sessions if it was interrupted."""
    peak_memory_mb: float | None
    """Largest memory in MiB: of the device on CUDA, else of this process, as seen after forward passes."""
    device: str

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {**asdict(self), "curve": [dict(point) for point in self.curve]}


class Diverged(IclError):
    """A training whose loss is no number any more."""

    def __init__(self, message: str, spent: Training) -> None:
        super().__init__(message)
        self.spent = spent
        """As far as it came."""
