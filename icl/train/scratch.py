"""Language models from nothing: a tokenizer trained on the text, and a small configuration with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, Problem, suggest
from ..weights import quiet_transformers

CHARACTERS = 20_000_000
"""Of the text, that the tokenizer is trained on at most."""
BOS, PAD, EOS, MASK = "<s>", "<pad>", "</s>", "<mask>"
LONGEST = 512
"""Positions that a model has at least."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a Llama (causal) or a BERT (masked)."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    """Of BERT; Llama's, which has three matrices there, is two thirds of it."""


SIZES = {
    "small": Size(2_048, 128, 4, 4, 512),
    "medium": Size(8_192, 384, 6, 6, 1_536),
    "large": Size(32_000, 768, 12, 12, 3_072),
}
"""About 1, 13 and 110 million parameters."""


def size_of(name: str) -> Size | dict[str, Any]:
    """A size by name, or the contents of a configuration file of transformers, which says `model_type` and `vocab_size`."""
    if name in SIZES:
        return SIZES[name]
    path = Path(name)
    if path.suffix != ".json" or not path.is_file():
        raise InputError(Problem(f"there is no configuration '{name}'", f"{suggest(name, SIZES)} Or name a config.json.", field="config"))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        lacks = [key for key in ("model_type", "vocab_size") if key not in found]
    except (ValueError, TypeError) as error:
        raise InputError(Problem(f"this is no JSON object: {error}", "Name a config.json of transformers.", name, field="config")) from None
    if lacks:
        raise InputError(Problem(f"the configuration lacks {' and '.join(lacks)}", "Add it.", name, field="config"))
    return dict(found)


def vocabulary_of(size: Size | dict[str, Any]) -> int:
    """Tokens of its tokenizer, at most."""
    return size.vocabulary if isinstance(size, Size) else int(size["vocab_size"])


def train_tokenizer(documents: Iterable[str], vocabulary: int, *, causal: bool, length: int) -> Any:
    """A byte-level BPE (Radford et al. 2019) of at most `vocabulary` tokens, which has a token for every byte and so loses nothing.

    Masked: texts stand between `<s>` and `</s>`, and `<mask>` is there. Causal: `</s>` ends a document.
    Raises InputError for a vocabulary that has no room for the bytes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = [BOS, PAD, EOS, MASK]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary < len(alphabet) + len(special) + 1:
        message = f"a vocabulary of {vocabulary} has no room for {len(alphabet)} bytes and {len(special)} special tokens"
        raise InputError(Problem(message, "Use a larger one.", field="config"))
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(_first(documents), trainer)
    names = {"pad_token": PAD, "eos_token": EOS}
    if not causal:
        ends = [(BOS, 0), (EOS, 2)]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A {EOS}", pair=f"{BOS} $A {EOS} $B {EOS}", special_tokens=ends
        )
        names |= {"cls_token": BOS, "bos_token": BOS, "sep_token": EOS, "mask_token": MASK}
    kept = {"model_max_length": max(LONGEST, length), "clean_up_tokenization_spaces": False}
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=inputs, **names, **kept)


def _first(documents: Iterable[str]) -> Iterator[str]:
    left = CHARACTERS
    for text in documents:
        yield text
        left -= len(text)
        if left <= 0:
            return


def new_model(size: Size | dict[str, Any], tokenizer: Any, *, causal: bool, length: int) -> Any:
    """A model with random weights, drawn from torch's generator (`seeded`), in fp32 on the CPU.

    Raises InputError for a configuration that transformers cannot build, or that has too few positions.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, LlamaConfig

    room = max(LONGEST, length)
    common: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config: Any
    if isinstance(size, dict):
        try:
            config = AutoConfig.for_model(**{**size, **common})
        except Exception as error:  # whatever a configuration of some architecture says of its values
            raise InputError(Problem(f"the configuration cannot be used: {error}", "See its architecture.", field="config")) from None
    elif causal:
        config = LlamaConfig(
            hidden_size=size.hidden, num_hidden_layers=size.layers, num_attention_heads=size.heads, num_key_value_heads=size.heads // 2,
            intermediate_size=-(-size.feed_forward * 2 // 3 // 32) * 32, max_position_embeddings=room, tie_word_embeddings=True,
            bos_token_id=None, **common,
        )  # fmt: skip
    else:
        config = BertConfig(
            hidden_size=size.hidden, num_hidden_layers=size.layers, num_attention_heads=size.heads, intermediate_size=size.feed_forward,
            max_position_embeddings=room, type_vocab_size=1, **common,
        )  # fmt: skip
    kind = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    with quiet_transformers():
        try:
            return kind.from_config(config)
        except Exception as error:  # as above
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                Problem(f"no {'causal' if causal else 'masked'} model can be made: {reason[:200]}", "Use another one.", field="config")
            ) from None
