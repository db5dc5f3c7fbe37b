"""Divides out the label probabilities of inputs without content: "N/A", "" and "[MASK]" (Zhao et al. 2021)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ._common import Prior, content_free, input_names


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inputs: list[str] = Field(["N/A", "", "[MASK]"], min_length=1, description="Texts without content; each fills all input fields.")


def build(settings: Settings, context: Context) -> Prior:
    """q = W p with W = diag(p_cf)^-1, normalised; p_cf is the mean over the inputs, normalised.

    Zhao et al. 2021, https://arxiv.org/abs/2102.09690, sec. 5, and their `run_classification.py`. Departures: q is normalised, so that it
    is a probability; float64 and log space, since a rare label's probability underflows; and it is fitted once per predictor, so under a
    retriever that chooses demonstrations for each query an input without content is shown those that it gets itself.
    """
    return Prior(lambda: content_free(context, [[text] * len(input_names(context)) for text in settings.inputs]))
