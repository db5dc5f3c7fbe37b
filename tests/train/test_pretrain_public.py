"""Pretraining on public text: what is slow, and needs the folder of public data."""

import time

import pytest

from icl.train.pretrain import Corpus, pretrain
from icl.train.pretrain_settings import PretrainSettings


@pytest.mark.slow
def test_a_model_of_1m_parameters_learns_more_than_frequencies_within_minutes(shared, tmp_path):
    """Then the same goes on with another text, masked and causal. A masked one learns from a seventh of the tokens; after some hundred steps it
    knows their frequencies, and hardly more yet."""
    textbooks, speeches = (shared / "corpora" / "text" / name / "train.jsonl" for name in ("openstax", "us_speeches"))
    few = {"validations": 1, "validation_documents": 5}
    for objective, steps in {"causal": 100, "masked": 300}.items():
        started = time.process_time()
        out = tmp_path / objective
        settings = PretrainSettings(steps=steps, **few)
        first = pretrain(Corpus((textbooks,), held_out=20), out, objective=objective, config="small", settings=settings)
        assert time.process_time() - started < 600  # five minutes of two cores
        assert 0.9e6 < first["training"]["n_parameters"] < 1.2e6
        assert first["perplexity"]["token"]["after"] < first["unigram_per_token"] * (1 if objective == "causal" else 1.05)
        more = PretrainSettings(steps=30, **few)
        corpus = Corpus((speeches,), held_out=12)
        second = pretrain(corpus, tmp_path / f"{objective}-more", objective=objective, base=str(out), settings=more)
        assert all(found["high"] < 1 for found in second["perplexity"].values())
