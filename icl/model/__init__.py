"""Language models: scoring continuations, writing text, and the tokenizer side of prompts.

Names load on first use, so that the tokenizer alone never loads torch's side.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "load_model": "icl.model.load",
    "load_codec": "icl.model.load",
    "doctor": "icl.model.diagnosis",
    "TorchModel": "icl.model.torch_lm",
    "Seq2SeqModel": "icl.model.encoder_decoder",
    "Replicas": "icl.model.replicas",
    "RemoteModel": "icl.model.remote.client",
    "Answer": "icl.model.remote.values",
    "Failed": "icl.model.remote.values",
    "Usage": "icl.model.remote.values",
    "TokenizerCodec": "icl.model.codec",
    "CountingCodec": "icl.model.codec",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'icl.model' has no attribute '{name}'")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
