"""All rows, in the order of the pool: where filters and further stages do the choosing."""

from __future__ import annotations

from ...plugins import Context
from ...protocols import Selector
from ..filters import Filter
from ._common import StageSettings


class Settings(StageSettings):
    pass


def build(settings: Settings, context: Context) -> Selector:
    """The first k rows, or candidates; all of them where another stage follows and `n` is not given."""
    return Filter(context.pool, lambda example, key: None)
