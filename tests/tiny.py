"""Tiny real models for tests: random weights of many architectures, and a byte-level tokenizer trained on a few sentences.

Everything has a fixed seed. Weights are drawn wide, so that a wrong mask or position changes a score by far more than rounding does.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

CORPUS = [
    "Review: a moving, quiet film about people.\nSentiment: positive",
    "Review: the plot is a mess and the jokes are old.\nSentiment: negative",
    "Question: What is the capital of France?\nAnswer: Paris",
    "Article: shares fell on Monday as oil prices rose.\nTopic: business",
    "Article: the team won the cup after extra time.\nTopic: sports",
    "user system assistant Message: where is my order? Intent: delivery",
    "def add(a, b):\n    return a + b\n",
    "<|im_start|>user\nHello there!<|im_end|> numbers 0 1 2 3 4 5 6 7 8 9 and words, words and words.",
] * 4

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INVENTING = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}" + CHATML
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim "
    "+ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim "
    "+ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
THINKING = CHATML[: CHATML.index("{% if add_generation_prompt %}")] + (
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
CHATS = {"chatml": CHATML, "inventing": INVENTING, "llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA, "thinking": THINKING}
SPECIAL = [
    "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]",
    "<start_of_turn>", "<end_of_turn>",
]  # fmt: skip
VOCABULARY = 420


@cache
def _backend(bos: bool, eos: bool) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    if bos or eos:
        single = f"{'<s> ' if bos else ''}$A{' </s>' if eos else ''}"
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    return str(backend.to_str())


def tokenizer(chat: str | None = None, *, bos: bool = False, eos: bool = False) -> Any:
    """A transformers tokenizer; chat: a name in CHATS. bos, eos: added by the tokenizer itself to a plain text."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(_backend(bos, eos))
    if chat == "thinking":  # as Qwen3: steering tokens that are not marked special
        backend.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    if chat:
        made.chat_template = CHATS[chat]
    return made


def sentencepiece_like(kind: str) -> Any:
    """Tokenizers that mark word starts with `▁`, and differ in what they do behind a control token. kind: `prepend` (a normaliser, BPE
    with byte fallback), or a scheme of Metaspace (`always`, `first`, `never`, unigram)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    if kind == "prepend":
        backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        trainer: Any = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    else:
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind)
        backend.decoder = decoders.Metaspace(prepend_scheme=kind)
        trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=MISTRAL)


def t5_tokenizer() -> Any:
    """As T5's: unigram pieces that mark word starts with `▁`, an end of sequence behind every text, no line ends.

    The pieces are counted here, since the library's trainer gives other ones every time.
    """
    from collections import Counter
    from math import log

    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Counter(f"▁{word}" for text in CORPUS for word in text.split())
    halves = Counter(part for word in words for part in (word[: len(word) // 2 + 1], word[len(word) // 2 + 1 :]) if len(part) > 1)
    pieces = dict(sorted(halves.items()) + sorted(words.items()))
    letters = sorted({letter for word in words for letter in word})
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -9.0) for letter in letters if letter not in pieces)]
    vocabulary += [(piece, log(count / 400)) for piece, count in pieces.items()]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=False))
    backend.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(left=False, right=True)])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    assert len(vocabulary) <= VOCABULARY
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def _config(name: str) -> Any:
    import transformers as t

    size = {
        "vocab_size": VOCABULARY + 8,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    llama = {
        **size,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "pad_token_id": 1,
    }
    wide = {**size, "initializer_range": 0.3}
    n_embd = {
        "vocab_size": VOCABULARY + 8,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "initializer_range": 0.3,
    }
    match name:
        case "gpt2":
            return t.GPT2Config(**n_embd, n_positions=512)
        case "llama":
            return t.LlamaConfig(**llama)
        case "qwen3":
            return t.Qwen3Config(**llama, head_dim=8)
        case "gpt-neox":
            return t.GPTNeoXConfig(**wide, intermediate_size=48, max_position_embeddings=512)
        case "opt":
            return t.OPTConfig(**size, ffn_dim=48, max_position_embeddings=512, word_embed_proj_dim=32, init_std=0.3, pad_token_id=1)
        case "mistral":
            return t.MistralConfig(**llama, sliding_window=16)
        case "gemma2":
            return t.Gemma2Config(**llama, head_dim=8, sliding_window=16, query_pre_attn_scalar=8)
        case "gemma3":
            return t.Gemma3TextConfig(
                **llama, head_dim=8, sliding_window=16, query_pre_attn_scalar=8, layer_types=["sliding_attention", "full_attention"]
            )
        case "phi":
            return t.PhiConfig(**wide, intermediate_size=48, max_position_embeddings=512)
        case "falcon":
            return t.FalconConfig(**wide, max_position_embeddings=512, alibi=False)
        case "falcon-alibi":
            return t.FalconConfig(**wide, max_position_embeddings=512, alibi=True)
        case "bloom":
            return t.BloomConfig(**wide)
        case "mpt":
            return t.MptConfig(vocab_size=VOCABULARY + 8, d_model=32, n_heads=4, n_layers=2, max_seq_len=512, initializer_range=0.3)
        case "mamba":
            return t.MambaConfig(**{k: v for k, v in wide.items() if k != "num_attention_heads"}, state_size=4)
        case "olmo2":
            return t.Olmo2Config(**llama)
        case "starcoder2":
            return t.Starcoder2Config(**llama, sliding_window=16)
        case "granite":
            return t.GraniteConfig(**llama, attention_multiplier=0.4, embedding_multiplier=2.0, residual_multiplier=0.8, logits_scaling=1.5)
        case "cohere2":
            return t.Cohere2Config(**llama, sliding_window=16, layer_types=["sliding_attention", "full_attention"])
        case "phi3":
            return t.Phi3Config(**llama)
        case "stablelm":
            return t.StableLmConfig(**llama)
        case "qwen3-moe":
            return t.Qwen3MoeConfig(**llama, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
        case "gpt-oss":
            kinds = ["sliding_attention", "full_attention"]
            plain_rope = {"rope_type": "default", "rope_theta": 10000.0}
            return t.GptOssConfig(
                **llama, head_dim=8, sliding_window=16, num_local_experts=4, num_experts_per_tok=2, layer_types=kinds,
                rope_parameters=plain_rope,
            )  # fmt: skip
        case "deepseek-v3":
            return t.DeepseekV3Config(
                **{**llama, "num_key_value_heads": 4}, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, kv_lora_rank=8,
                q_lora_rank=8, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, n_group=1, topk_group=1, first_k_dense_replace=1,
            )  # fmt: skip
        case "jamba":
            return t.JambaConfig(
                **llama, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, num_experts=2,
                num_experts_per_tok=1, mamba_d_state=4, mamba_d_conv=4, mamba_expand=2,
            )  # fmt: skip
        case "falcon-h1":
            return t.FalconH1Config(
                **llama, head_dim=8, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, mamba_chunk_size=16
            )  # fmt: skip
        case "qwen3-next":
            return t.Qwen3NextConfig(
                **llama, head_dim=8, layer_types=["linear_attention", "full_attention"], linear_key_head_dim=8, linear_value_head_dim=8,
                linear_num_key_heads=2, linear_num_value_heads=4, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
                shared_expert_intermediate_size=24,
            )  # fmt: skip
        case "recurrent-gemma":
            return t.RecurrentGemmaConfig(
                **{k: v for k, v in llama.items() if k != "initializer_range"}, lru_width=32, attention_window_size=16,
                block_types=["recurrent", "attention"],
            )  # fmt: skip
        case "t5" | "umt5":
            config = t.T5Config if name == "t5" else t.UMT5Config
            return config(
                vocab_size=VOCABULARY + 8, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, relative_attention_num_buckets=8,
                relative_attention_max_distance=20, feed_forward_proj="gated-gelu", initializer_factor=1.0,
                tie_word_embeddings=False, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
            )  # fmt: skip
        case "bart":
            return t.BartConfig(
                vocab_size=VOCABULARY + 8, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=256, init_std=0.3,
                bos_token_id=0, eos_token_id=1, pad_token_id=1, decoder_start_token_id=1, forced_eos_token_id=None,
            )  # fmt: skip
    raise ValueError(name)


SEQ2SEQ = ("t5", "umt5", "bart")
REQUIRED = ("gpt2", "llama", "qwen3", "gpt-neox", "opt")
FURTHER = ("mistral", "gemma2", "gemma3", "phi", "falcon", "falcon-alibi", "bloom", "mpt", "mamba")
HYBRID = ("jamba", "falcon-h1", "qwen3-next", "recurrent-gemma")
"""Layers with a state beside layers with attention."""
BREADTH = ("olmo2", "starcoder2", "granite", "cohere2", "phi3", "stablelm", "qwen3-moe", "gpt-oss", "deepseek-v3", *HYBRID)
"""Checked on less work than the others, for the time it takes."""


def seq2seq_tokenizer(name: str) -> Any:
    """The tokenizer of a model in SEQ2SEQ: BART's puts `<s>` and `</s>` around a text."""
    return tokenizer(bos=True, eos=True) if name == "bart" else t5_tokenizer()


@cache
def model(name: str) -> Any:
    """A random model of the architecture, fp32, on the CPU. Shared: do not change it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    torch.manual_seed(0)
    kind = AutoModelForSeq2SeqLM if name in SEQ2SEQ else AutoModelForCausalLM
    config = _config(name)
    capped = {"attn_implementation": "eager"} if getattr(config, "attn_logit_softcapping", None) else {}  # as when it is loaded
    made = kind.from_config(config, dtype=torch.float32, **capped).eval()
    if name in SEQ2SEQ:
        if name == "bart":
            made.generation_config.forced_bos_token_id = 0
        else:
            with torch.no_grad():
                made.lm_head.weight[:3] *= 0.1  # else every text ends at once
    else:
        made.generation_config.pad_token_id = 1
    return made


def lm(name: str = "llama", chat: str | None = None, *, bos: bool = False, **options: Any) -> Any:
    """A LanguageModel over `model(name)`."""
    from icl.model import Seq2SeqModel, TorchModel

    if name in SEQ2SEQ:
        return Seq2SeqModel(model(name), seq2seq_tokenizer(name), name=f"tiny-{name}", **options)
    return TorchModel(model(name), tokenizer(chat, bos=bos), name=f"tiny-{name}", **options)


def save(folder: Path, name: str = "llama", chat: str | None = None) -> Path:
    """Write a tiny model as a folder that `load_model` takes."""
    model(name).save_pretrained(folder)
    (seq2seq_tokenizer(name) if name in SEQ2SEQ else tokenizer(chat)).save_pretrained(folder)
    return folder


def word_pieces(words: list[str]) -> Any:
    """A tokenizer as BERT's, lower case, whose vocabulary is these words and all letters."""
    from string import ascii_lowercase, digits, punctuation

    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*ascii_lowercase, *digits, *punctuation]
    tokens = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *(word.lower() for word in words)])
    backend = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_max_length=64,
    )  # fmt: skip


def save_bert(folder: Path, words: list[str], *, sentence: bool = False) -> Path:
    """Write a tiny random BERT that reads 64 tokens; sentence: as a sentence-transformers folder with mean pooling."""
    import json

    import torch
    from transformers import BertConfig, BertModel

    reader = word_pieces(words)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
    BertModel(BertConfig(vocab_size=len(reader), **size)).save_pretrained(folder)
    reader.save_pretrained(folder)
    if sentence:
        kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(kinds.items())
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 48, "do_lower_case": False}))
        (folder / "1_Pooling").mkdir()
        pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        (folder / "2_Normalize").mkdir()
    return folder
