"""Training a sentence encoder: one loop for whatever loss its batches have.

The losses are functions of a model and a batch. The loop is our own: the trainer of sentence-transformers asks for the package
`datasets`, which nothing else here needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import IclError
from ..progress import progress

if TYPE_CHECKING:
    import torch

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises; then it falls to nothing."""
T = TypeVar("T")


def train_encoder(
    module: Any, batches: Sequence[T], loss: Callable[[T], torch.Tensor], *, learning_rate: float, seed: int, what: str
) -> list[float]:
    """Train a SentenceTransformer in place (AdamW, gradients of a norm of at most 1); the loss of every batch.

    loss: of one batch, a scalar. seed: of dropout; torch's own generator is left as it was. what: what the progress bar says.
    Raises IclError if the loss is no number any more.
    """
    import torch

    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, fused=True)
    n_steps = len(batches)
    warm = max(1, round(WARM_UP * n_steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min((step + 1) / warm, (n_steps - step) / max(1, n_steps - warm)))
    losses: list[float] = []
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices), progress(what, n_steps, "steps") as advance:
        torch.manual_seed(seed % 2**63)
        module.train()
        for batch in batches:
            value: Any = loss(batch)
            losses.append(float(value.detach()))
            if losses[-1] != losses[-1]:
                raise IclError("training the encoder diverged: its loss is no number; lower its learning_rate")
            if value.requires_grad:
                value.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            advance()
        module.eval()
    return losses
