"""Attention of our own in any model of transformers that lets it be chosen by name: who may see whom is a plan, not a dense mask.

A plan is handed every layer's queries, keys and values and gives the attention's output. So tokens of many sequences can stand side by
side without padding, keys and values can be kept between passes, and a mask is built only where sequences branch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

NAME = "icl_plan"
_UNKNOWN = ("s_aux", "position_bias", "head_mask")
"""Arguments that change the result and that plans do not know: the load check then takes another path."""


class Plan(Protocol):
    """What one forward pass does at every layer."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """layer: counted in the order of the calls, from 0. query: (batch, heads, n, size); key, value: (batch, key-value heads, n,
        size), positions already in them. window: a token sees those whose position is less than this far back; None: all.
        Returns (batch, n, heads, size)."""


class _Running:
    """A plan and the number of layers that have asked it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.layer = 0


_running: ContextVar[_Running | None] = ContextVar("running", default=None)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    found = [name for name in _UNKNOWN if others.get(name) is not None]
    if found:
        raise NotImplementedError(f"attention with {', '.join(found)}")
    running = _running.get()
    assert running is not None, "the model was left with this attention outside `planned`"
    layer, running.layer = running.layer, running.layer + 1
    # The configuration's width, not the argument's: a module may have copied it when it was made. The argument says whether.
    window = getattr(module.config, "sliding_window", sliding_window) if sliding_window is not None else None
    return running.plan.attend(layer, query, key, value, scaling, window, softcap), None


@contextlib.contextmanager
def planned(model: Any, plan: Plan) -> Iterator[None]:
    """Within it, every attention of the model in this thread is done by the plan, and the model builds no masks.

    Raises NotImplementedError if the model's attention cannot be chosen.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)
    configs = list({id(c): c for c in (model.config, model.config.get_text_config())}.values())
    before = [config._attn_implementation for config in configs]
    if not model._can_set_attn_implementation():
        raise NotImplementedError("its attention cannot be chosen")
    token = _running.set(_Running(plan))
    try:
        for config in configs:
            config._attn_implementation_internal = NAME
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation_internal = name
        _running.reset(token)
