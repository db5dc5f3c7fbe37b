"""A tokenizer folder read without transformers' models, and so without torch: for prompts, linting and budgets alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .tokenizer import Tokenization

_GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes that do nothing to tokenizer.json when they load it; any other class may rebuild it, and is left to transformers."""
_REBUILT = (
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "extra_special_tokens",
    "additional_special_tokens",
    "added_tokens_decoder",
)


def light_tokenization(folder: Path) -> Tokenization | None:
    """The parts of a folder's tokenizer, or None where only transformers reads it faithfully."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not (folder / "tokenizer.json").is_file() or config.get("tokenizer_class") not in _GENERIC or any(config.get(k) for k in _REBUILT):
        return None
    template = _template(folder, config)
    if isinstance(template, list | dict):
        return None
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    names = {key: _content(config[key]) for key in ("bos_token", "eos_token", "unk_token", "pad_token") if config.get(key)}
    if any(backend.token_to_id(text) is None for text in names.values()):
        return None

    def render(messages: Sequence[Mapping[str, str]], generation: bool, variables: Mapping[str, Any]) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered = render_jinja_template(
            conversations=[[dict(m) for m in messages]],
            chat_template=template,
            add_generation_prompt=generation,
            **{**names, **variables},
        )
        while not isinstance(rendered, str):  # older releases return lists, with generation indices beside them
            rendered = rendered[0]
        return rendered

    def number(key: str) -> int | None:
        return backend.token_to_id(names[key]) if key in names else None

    return Tokenization(backend, template=template, render=render if template else None, bos=number("bos_token"), eos=number("eos_token"))


def _content(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _template(folder: Path, config: Mapping[str, Any]) -> Any:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return config.get("chat_template")
