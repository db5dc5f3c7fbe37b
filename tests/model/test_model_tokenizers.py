"""Tokenizers of every family: what is encoded in pieces equals what is encoded whole, BOS stands where declared, nothing is lost."""

import json
import random
import unicodedata

import pytest
import token_families as families
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from icl.model.boundary import split
from icl.model.codec import TokenizerCodec
from icl.model.cuts import respected_cuts
from icl.model.encoding import encoded_splits
from icl.model.tokenizer import from_transformers
from icl.values import Prompt

UNCUT = {"without-regex", "unigram-unsplit"}
"""Families whose tokens may cover several words."""
KEPT = {
    name: (lambda text: text)
    for name in ("gpt2", "without-regex", "llama3", "o200k", "starcoder", "bytes", "llama2", "gemma", "metaspace-never")
}
KEPT |= {name: (lambda text: unicodedata.normalize("NFC", text)) for name in ("qwen", "neox")}
KEPT |= {name: (lambda text: text.removeprefix(" ")) for name in ("metaspace-always", "metaspace-first")}
KEPT["gpt2-prefix-space"] = lambda text: text if not text or text[0] == " " else f" {text}"
"""What a family keeps of a text; the others lose white space, accents or unknown characters."""
ODD = [
    "🙂", "👩‍👩‍👧", "字", "東京", "e\u0301", "\u0301", "ﬁ", "  ", "\n", "\n\n", " \n", "\t", "\r\n", "\u00a0", "\u200b", "\u3000", "'s", "can't", "1234567",
    "3.14", "...", "<s>", "</s>", "[INST]", "<unk>", "<think>", " </s> ", "<|im_start|>", "user\n", "é", "İ", "ß", "\x00", "مرحبا", "नमस्ते", "_", "://", "Σς",
]  # fmt: skip
TURNS = [
    {"role": "user", "content": "Message: where is my order?"},
    {"role": "assistant", "content": "delivery"},
    {"role": "user", "content": "Message: the film was a mess. "},
]
TURN = "{% for m in messages %}{{ '[INST]' + m['role'] + '\n' + m['content'] + '[/INST]\n' }}{% endfor %}{{ '[INST]assistant\n' }}"


def prose(shared):
    texts = list(families.corpus())
    if shared is not None:
        for name in (
            "data/agnews/test.jsonl",
            "data/banking77/test.jsonl",
            "data/wmt22_en_zh/test.jsonl",
            "corpora/text/classic_books/dev.jsonl",
        ):
            lines = (shared / name).read_text(encoding="utf-8").splitlines()[:400]
            texts += [value[:1500] for line in lines for value in json.loads(line).values() if isinstance(value, str) and value]
    return texts


def pairs(n, seed, shared=None):
    """(context, continuations) with n continuations in all: cuts anywhere, cuts before a word, odd characters around the cut."""
    rng, texts, made = random.Random(seed), prose(shared), 0
    while made < n:
        text = "\n\n".join(rng.choice(texts) for _ in range(rng.randint(1, 3)))
        at = rng.randrange(len(text))
        kind = rng.randrange(5)
        if kind == 0:
            at = text.rfind(" ", 0, at + 1) if " " in text[: at + 1] else at
        elif kind == 1:
            at = max(text.rfind("\n", 0, at + 1), 0)
        context = text[max(0, at - rng.choice([3, 40, 400, 2000])) : at]
        continuations = [text[at : at + rng.choice([1, 2, 8, 30])]]
        continuations += [
            rng.choice([" ", "", "\n"]) + rng.choice(["positive", "negative", "card arrival", *ODD]) for _ in range(rng.randint(0, 2))
        ]
        if kind == 2:
            context += rng.choice(ODD)
        elif kind == 3:
            context = context[: len(context) // 2] + rng.choice(ODD) + context[len(context) // 2 :] + rng.choice(["", " ", "\n", ":"])
            continuations.append(rng.choice(ODD) + rng.choice(ODD))
        if rng.randrange(20) == 0:
            context = rng.choice(["", " ", "\n", *ODD])
        made += len(continuations)
        yield context, continuations


def whole(tokens, text, after_control=False):
    return tokens.whole([text], after_control=after_control)[0]


def check(name, tokenizer, found, trusted):
    """Every pair is split as if all texts had been encoded whole, loses nothing, and has a continuation."""
    codec = TokenizerCodec(from_transformers(tokenizer))
    tokens = codec.tokens
    assert bool(tokens.cuts.kinds) is trusted
    before = tokens.cuts
    contexts, continuations = [c for c, _ in found], [c for _, c in found]
    for start in range(0, len(found), 60):
        part = slice(start, start + 60)
        encoded = [codec.plain(c) for c in contexts[part]]
        mixed = [
            Prompt(e.text, (), e.ids, tail=e.tail, n_head=e.n_head) if e.ids and i % 3 == 0 else c
            for i, (c, e) in enumerate(zip(contexts[part], encoded, strict=True))
        ]
        splits = encoded_splits(codec, mixed, continuations[part])
        for context, texts, e, made in zip(contexts[part], continuations[part], encoded, splits, strict=True):
            joints = [(*tokens.prefix, *whole(tokens, context + c)) for c in texts]
            alone = (*tokens.prefix, *whole(tokens, context))
            assert e.ids == alone, (name, context)
            assert made == split(alone, joints, bos=tokens.bos, eos=tokens.eos, empty=not context), (name, context, texts)
            assert all(made.continuations), (name, context, texts)
            assert codec.extended(e, texts[0]) == len(joints[0])
            if name in KEPT:
                for ids, c in zip(made.continuations, texts, strict=True):
                    kept = tokens._own.decode(
                        [i for i in (*made.prefix, *ids) if i not in (tokens.bos, tokens.eos)], skip_special_tokens=False
                    )
                    assert kept == KEPT[name](context + c), (name, context, c)
    assert tokens.cuts == before, "the check at run time found a difference"


@pytest.mark.parametrize("name", sorted(families.FAMILIES))
def test_in_pieces_as_a_whole(name):
    check(name, families.family(name), list(pairs(300, name)), name not in UNCUT)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(families.FAMILIES))
def test_in_pieces_as_a_whole_at_length(name, shared):
    check(name, families.family(name), list(pairs(10_000, name, shared)), name not in UNCUT)


@pytest.mark.parametrize("n", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_published_sentencepiece_tokenizer(n, shared):
    backend = Tokenizer.from_file(str(shared / "models" / "stories260k" / "tokenizer.json"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    check("llama2", tokenizer, list(pairs(n, "stories", shared if n > 300 else None)), True)


@pytest.mark.smollm2
@pytest.mark.parametrize("n", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_the_default_models_tokenizer(n, shared):
    from icl.model.load import load_tokenizer

    check("gpt2", load_tokenizer("smollm2"), list(pairs(n, "smollm2", shared if n > 300 else None)), True)


@pytest.mark.parametrize("name", sorted(families.FAMILIES))
def test_behind_a_control_token(name):
    """The tail of a chat prompt, with the texts that follow it, as in one go; no text writes a control token."""
    tokenizer = families.family(name)
    tokens = from_transformers(tokenizer)
    tokens.template = TURN
    tokens.render = lambda messages, generation, variables: tokenizer.apply_chat_template(messages, tokenize=False, chat_template=TURN)
    codec = TokenizerCodec(tokens)
    allowed = tokens.control_ids - {tokenizer.unk_token_id}
    for context, continuations in pairs(60, name):
        encoded = codec.chat([*TURNS[:2], {"role": "user", "content": context}])
        prompt = Prompt(encoded.text, (), encoded.ids, tail=encoded.tail, n_head=encoded.n_head, format="chat")
        [made] = encoded_splits(codec, [prompt], [continuations])
        joints = [(*encoded.ids[: encoded.n_head], *whole(tokens, encoded.tail + c, True)) for c in continuations]
        assert made == split(encoded.ids, joints, bos=tokens.bos, eos=tokens.eos), (name, context, continuations)
        assert [codec.extended(encoded, c) for c in continuations] == [len(joint) for joint in joints]
        for ids in made.continuations:
            assert sum(i in allowed for i in (*made.prefix, *ids)) == 7


BOS = {
    "has one, adds none": ("gpt2", None, TURN),
    "has one, the template writes it": ("gpt2", None, "{{ bos_token }}" + TURN),
    "adds one": ("gpt2", "<s> $A", TURN),
    "adds one, so does the template": ("llama3", "<s> $A", "{{ bos_token }}" + TURN),
    "adds one and an end": ("llama2", "<s> $A </s>", "{{ bos_token }}" + TURN),
    "adds an end alone": ("unigram", "$A </s>", TURN),
    "word starts behind it": ("metaspace-first", "<s> $A", "{{ bos_token }}" + TURN),
    "word starts everywhere": ("metaspace-always", "<s> $A", TURN),
    "no word starts": ("gemma", "<s> $A", "{{ bos_token }}" + TURN),
    "a classifier's marks": ("wordpiece", "<s> $A </s>", TURN),
    "adds two": ("qwen", "<s> <s> $A", TURN),
    "adds one among other steps": ("o200k", "<s> $A", "{{ bos_token }}" + TURN),
    "has none": ("starcoder", None, None),
}
"""Who writes BOS, the tokenizer, the template, or nobody: (family, what the tokenizer adds, chat template)."""


def bos_tokenizer(name):
    family, single, template = BOS[name]
    backend = Tokenizer.from_str(families.family(family).backend_tokenizer.to_str())
    steps = [processors.ByteLevel(trim_offsets=False)]
    if single is not None:
        steps.append(processors.TemplateProcessing(single=single, special_tokens=[("<s>", 1), ("</s>", 2)]))
    backend.post_processor = processors.Sequence(steps) if "other steps" in name else steps[-1]
    bos = {} if name == "has none" else {"bos_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", chat_template=template, **bos)


@pytest.mark.parametrize("name", BOS)
def test_bos_as_declared(name):
    tokenizer = bos_tokenizer(name)
    codec = TokenizerCodec(from_transformers(tokenizer))
    bos, text = tokenizer.convert_tokens_to_ids("<s>"), "Review: a fine film\nSentiment:"
    own = tokenizer(text)["input_ids"]
    encoded = codec.plain(text)
    assert list(encoded.ids) == own[: len(encoded.ids)]
    assert [i for i in own[len(encoded.ids) :] if i != tokenizer.eos_token_id] == []
    contexts = [text, Prompt(text, (), encoded.ids, tail=text, n_head=encoded.n_head)]
    for made in encoded_splits(codec, contexts, [[" good", " bad"]] * 2):
        assert all((*made.prefix, *ids).count(bos) == own.count(bos) for ids in made.continuations)
        assert made.prefix[: own.count(bos)] == (bos,) * own.count(bos)
    [empty] = encoded_splits(codec, [""], [["good"]])
    assert empty.prefix.count(bos) == (max(own.count(bos), 1) if tokenizer.bos_token else 0)
    assert empty.conditioned == ("bos" if tokenizer.bos_token else "eos")
    for turns in (TURNS[:1], TURNS) if codec.has_chat else ():
        rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        written = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        chat = codec.chat(turns)
        assert list(chat.ids) == written, name
        prompt = Prompt(chat.text, (), chat.ids, tail=chat.tail, n_head=chat.n_head, format="chat")
        for made in encoded_splits(codec, [prompt, Prompt("", tuple(turns), format="chat")], [[" good", " bad"]] * 2):
            for ids in made.continuations:
                assert (*made.prefix, *ids).count(bos) == written.count(bos) == rendered.count("<s>")
                assert not written.count(bos) or made.prefix[0] == bos


@pytest.mark.parametrize("name", sorted(families.FAMILIES))
def test_a_demonstration_writes_no_control_token(name):
    tokenizer = families.family(name)
    codec = TokenizerCodec(from_transformers(tokenizer))
    allowed = codec.tokens.control_ids - {tokenizer.unk_token_id}
    for control in codec.tokens.controls:
        for evil in (control, f"a {control} b", f"{control}{control}", f"x.\n{control}\n{control[:-1]}{control}"):
            [made] = encoded_splits(codec, [f"Review: {evil}\nSentiment: good\n\nReview: fine\nSentiment:"], [[f" {evil}", " bad"]])
            for ids in made.continuations:
                assert sum(i in allowed for i in (*made.prefix, *ids)) == len(codec.tokens.prefix)


def plain_bpe(merges, pre=None, normalizer=None, **model):
    alphabet = [chr(i) for i in range(32, 127)] + ["\n", "▁", "é", "字", "🙂", "\t", "\r", "\u00a0", "\u0301"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*alphabet, *(a + b for a, b in merges)]))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, **model))
    if pre is not None:
        backend.pre_tokenizer = pre
    if normalizer is not None:
        backend.normalizer = normalizer
    return backend


def test_a_token_over_a_cut_takes_that_kind_away():
    assert ("w", " ") in respected_cuts(plain_bpe([("a", "b")])).kinds
    kinds = respected_cuts(plain_bpe([("e", " ")])).kinds
    assert ("w", " ") not in kinds
    assert ("w", "\n") in kinds
    assert ("\n", "w") not in respected_cuts(plain_bpe([("\n", "a")])).kinds
    assert not respected_cuts(plain_bpe([("a", "b")], ignore_merges=True)).kinds
    assert not respected_cuts(plain_bpe([("a", "b")], dropout=0.1)).kinds


def test_words_that_end_with_their_space_are_not_cut_before_it():
    kinds = respected_cuts(plain_bpe([], pre_tokenizers.Split(" ", behavior="merged_with_previous"), ignore_merges=True)).kinds
    assert not any(after == " " for _, after in kinds)


def test_white_space_that_is_lost_at_the_start_is_no_cut():
    assert not any(after in " \n" for _, after in respected_cuts(plain_bpe([], normalizer=normalizers.Strip())).kinds)


@pytest.mark.parametrize("options", [{"lstrip": True}, {"rstrip": True}, {"single_word": True}])
def test_added_tokens_that_take_their_surroundings(options):
    backend = families.gpt2()
    backend.add_tokens([AddedToken("<part>", **options)])
    assert not respected_cuts(backend).kinds


def test_added_tokens_of_several_words():
    backend = families.gpt2()
    backend.add_tokens([AddedToken("good morning")])
    assert respected_cuts(backend).kinds == {("w", "\n"), ("p", "\n")}


def test_added_tokens_behind_a_marked_space():
    """`▁` is put before every text between added tokens: a space directly before one is a word of its own."""
    backend = families.llama2()
    backend.add_tokens([AddedToken("<part>", normalized=False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    found = [("A film. <part> and more.", [" good", "<part> x"]), ("A film. ", ["<part> x", "a"]), ("A film. <pa", ["rt> x", "ckage"])]
    check("llama2 with a part", tokenizer, found, True)


def test_a_tokenizer_that_breaks_its_word_is_found_out():
    """Two words before an exclamation mark are one word here, which nothing shows but a continuation with that mark."""
    pre = pre_tokenizers.Split(Regex(r"\w+ \w+!|\w+|\s|[^\w\s]"), behavior="isolated")
    backend = plain_bpe([("n", " "), ("n ", "t")], pre)
    codec = TokenizerCodec(from_transformers(PreTrainedTokenizerFast(tokenizer_object=backend)))
    assert ("w", " ") in codec.tokens.cuts.kinds
    contexts, continuations = ["they won the", "user"], [["!", " cup"], [" x"]]
    found = encoded_splits(codec, contexts, continuations)
    assert not codec.tokens.cuts.kinds
    assert [(*found[0].prefix, *ids) for ids in found[0].continuations] == [
        tuple(whole(codec.tokens, "they won the" + c)) for c in ("!", " cup")
    ]


def test_each_text_is_encoded_once(monkeypatch):
    codec = TokenizerCodec(from_transformers(families.family("gpt2")))
    seen = []
    real = codec.tokens._raw
    assert codec.tokens.cuts.kinds
    monkeypatch.setattr(codec.tokens, "_raw", lambda texts, **options: seen.extend(texts) or real(texts, **options))
    shots = "".join(f"Message: example number {i} of a demonstration.\nIntent: label {i}\n\n" for i in range(8))
    contexts = [f"{shots}Message: question {i}?\nIntent:" for i in range(24)]
    labels = [f" label {i}" for i in range(77)]
    encoded_splits(codec, contexts, [labels] * 24)
    checked = len(contexts[0] + labels[0])
    assert sum(map(len, seen)) < checked + len(shots) + 24 * 30 + 77 * 20
    seen.clear()
    prompts = [codec.plain(c) for c in contexts]
    assert not seen
    lengths = [codec.extended(p, c) for p in prompts for c in labels]
    assert not seen
    assert max(lengths) > prompts[0].n_tokens


def test_halves_of_surrogate_pairs_are_read_as_unknown_characters():
    for name in ("gpt2", "llama2", "wordpiece"):
        codec = TokenizerCodec(from_transformers(families.family(name)))
        [made] = encoded_splits(codec, ["good \ud83d film"], [[" a\ude42", " b"]])
        [expected] = encoded_splits(codec, ["good \ufffd film"], [[" a\ufffd", " b"]])
        assert made == expected


def test_texts_that_the_tokenizer_drops_still_have_a_continuation():
    codec = TokenizerCodec(from_transformers(families.family("wordpiece")))
    [nothing, after, between] = encoded_splits(codec, ["", "good", "good\u200b"], [["\x00", "\n"], ["\n"], [" ", " film"]])
    assert nothing.continuations == ((codec.tokens.eos,), (codec.tokens.eos,))
    assert after.straddle
    assert len(after.continuations[0]) == 1
    assert all(between.continuations)
