"""Tokenizers of every family in use, built and trained here on the project's own texts, in the shape that published ones have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "eval_suites" / "data"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@cache
def corpus() -> tuple[str, ...]:
    """Prompts made of the project's own rows: every field, one a line."""
    texts = []
    for file in sorted(DATA.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts.append("\n".join(f"{name.title()}: {value}" for name, value in row.items() if isinstance(value, str)))
    return tuple(texts)


def words() -> Iterator[str]:
    """For vocabularies trained on words, as SentencePiece does."""
    for text in corpus():
        yield text.replace("\n", " ")


def _byte_level(pre: Any, *, normalizer: Any = None, vocabulary: int = 2000, **model: Any) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(**model))
    backend.pre_tokenizer = pre
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(corpus(), trainer)
    return backend


def _split(pattern: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def gpt2() -> Any:
    from tokenizers import pre_tokenizers

    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))


def gpt2_prefix_space() -> Any:
    from tokenizers import pre_tokenizers

    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))


def without_regex() -> Any:
    """Tokens may cover several words."""
    from tokenizers import pre_tokenizers

    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), vocabulary=600)


def llama3() -> Any:
    return _byte_level(_split(LLAMA3), ignore_merges=True)


def qwen() -> Any:
    from tokenizers import AddedToken, normalizers

    backend = _byte_level(_split(QWEN), normalizer=normalizers.NFC())
    backend.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    return backend


def o200k() -> Any:
    return _byte_level(_split(O200K))


def neox() -> Any:
    """Runs of spaces are added tokens."""
    from tokenizers import AddedToken, normalizers, pre_tokenizers

    backend = _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizer=normalizers.NFC())
    backend.add_tokens([AddedToken(" " * n, normalized=True) for n in range(2, 25)])
    return backend


def starcoder() -> Any:
    from tokenizers import pre_tokenizers

    return _byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    )


def bytes_only() -> Any:
    """As ByT5: no token is longer than a byte."""
    from tokenizers import pre_tokenizers

    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), vocabulary=256 + len(SPECIAL))


def _word_starts(kind: str, pre: Any, normalizer: Any = None) -> Any:
    """BPE with byte fallback over words marked `▁`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=[*SPECIAL, *BYTES], show_progress=False, limit_alphabet=80)
    backend.train_from_iterator(words(), trainer)
    data = json.loads(backend.to_str())
    # As published: the bytes are pieces of the vocabulary, not added tokens.
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in SPECIAL]
    data["pre_tokenizer"] = None
    backend = Tokenizer.from_str(json.dumps(data))
    if pre is not None:
        backend.pre_tokenizer = pre
    if normalizer is not None:
        backend.normalizer = normalizer
    strip = [decoders.Strip(" ", 1, 0)] if kind != "never" else []
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return backend


def llama2() -> Any:
    from tokenizers import normalizers

    return _word_starts("prepend", None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))


def metaspace(scheme: str) -> Callable[[], Any]:
    from tokenizers import pre_tokenizers

    return lambda: _word_starts(scheme, pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False))


def gemma() -> Any:
    from tokenizers import normalizers, pre_tokenizers

    return _word_starts("never", pre_tokenizers.Split(" ", behavior="merged_with_previous"), normalizers.Replace(" ", "▁"))


def unigram() -> Any:
    """As T5: a compatibility normal form, runs of spaces made one, words marked."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=800, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(words(), trainer)
    return backend


def unigram_unsplit() -> Any:
    from tokenizers import pre_tokenizers

    backend = unigram()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return backend


def wordpiece() -> Any:
    """As BERT: white space, control characters and accents are lost."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    backend = Tokenizer(models.WordPiece(unk_token="<unk>", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    backend.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=1500, special_tokens=SPECIAL, show_progress=False))
    return backend


FAMILIES: dict[str, Callable[[], Any]] = {
    "gpt2": gpt2,
    "gpt2-prefix-space": gpt2_prefix_space,
    "without-regex": without_regex,
    "llama3": llama3,
    "qwen": qwen,
    "o200k": o200k,
    "neox": neox,
    "starcoder": starcoder,
    "bytes": bytes_only,
    "llama2": llama2,
    "metaspace-always": metaspace("always"),
    "metaspace-first": metaspace("first"),
    "metaspace-never": metaspace("never"),
    "gemma": gemma,
    "unigram": unigram,
    "unigram-unsplit": unigram_unsplit,
    "wordpiece": wordpiece,
}
"""Name -> makes the `tokenizers.Tokenizer`."""


@cache
def family(name: str) -> Any:
    """The transformers tokenizer of a family; BOS is added by SentencePiece ones, as published."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    backend = FAMILIES[name]()
    if name.startswith(("llama", "metaspace", "gemma")):
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
