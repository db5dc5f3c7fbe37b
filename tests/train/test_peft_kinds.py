"""What is trained of a causal model, in a copy that shares the rest: on tiny random models of several architectures."""

import copy

import pytest
import tiny
import torch

from icl.errors import InputError
from icl.model import TorchModel
from icl.model.tree import Item
from icl.train.causal import Taught, packed, token_values
from icl.train.peft_kinds import Form, load_trained, make_trainable
from icl.train.token_losses import Answers

KINDS = ("full", "lora", "ia3", "bitfit", "added_attention", "prompt", "prefix", "freeze")
IDS = torch.tensor([[5, 17, 99, 203, 44, 12]])


def state_of(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


def moved(trainable):
    """One step on every trained weight."""
    for parameter in trainable.outer.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))


def ids_for(trainable):
    return torch.cat([torch.tensor([trainable.virtual], dtype=torch.long), IDS], dim=1) if trainable.virtual else IDS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "qwen3"])
def test_the_base_stays_as_it_is_and_shares_what_is_frozen(name, kind):
    base = tiny.model(name)
    before, flags, logits = state_of(base), [p.requires_grad for p in base.parameters()], base(IDS).logits
    lacks = {
        ("gpt2", "prefix"): "no projections of keys and of values that stand apart",
        ("opt", "added_attention"): "the types llama, mistral, gpt2, and this one's is opt",
        ("qwen3", "added_attention"): "this one's is qwen3",
    }
    if (name, kind) in lacks:
        with pytest.raises(InputError, match=lacks[name, kind]):
            make_trainable(base, Form(kind))
        return
    trainable = make_trainable(base, Form(kind, n_virtual=4), [7, 8, 9])
    frozen = [p for p in trainable.outer.parameters() if not p.requires_grad]
    theirs = {p.data_ptr() for p in base.parameters()}
    assert all(p.data_ptr() in theirs for p in frozen)
    assert not any(p.data_ptr() in theirs for p in trainable.outer.parameters() if p.requires_grad)
    n_trained = sum(p.numel() for p in trainable.outer.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in base.parameters())
    assert n_trained == whole if kind == "full" else 0 < n_trained < whole
    trainable.model.eval()
    if kind not in ("prompt", "prefix"):
        torch.testing.assert_close(trainable.model(IDS).logits, logits)  # nothing is changed before it is trained
    moved(trainable)
    assert not torch.allclose(trainable.model(ids_for(trainable)).logits[:, -1], logits[:, -1], atol=1e-3)
    assert [p.requires_grad for p in base.parameters()] == flags
    assert all(torch.equal(t, before[name]) for name, t in base.state_dict().items())
    assert torch.equal(base(IDS).logits, logits)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "full"])
def test_saved_is_what_was_trained_alone(tmp_path, kind):
    base = tiny.model("llama")
    form = Form(kind, n_virtual=4, rank=2)
    trainable = make_trainable(base, form, [7])
    moved(trainable)
    trainable.settle()
    trainable.save(tmp_path)
    again = load_trained(base, form, tmp_path)
    with torch.no_grad():
        of_words = slice(-IDS.shape[1], None)  # at a prefix, all but keys and values is of no use
        one, other = (t.model(ids_for(t)).logits[:, of_words] for t in (again, trainable))
        assert torch.equal(one, other)
    assert again.fingerprint() == trainable.fingerprint() != make_trainable(base, form, [7]).fingerprint()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json"}
    n_trained = sum(p.numel() for p in trainable.outer.parameters() if p.requires_grad)
    assert sum(path.stat().st_size for path in files) < 4 * n_trained + 10_000


def test_a_prefix_begins_as_its_tokens_and_prompts_as_their_embeddings():
    """Untrained, virtual tokens are the tokens that they begin as."""
    base = tiny.model("llama")
    begin = torch.tensor([[7, 8, 9, 7]])
    expected = base(torch.cat([begin, IDS], dim=1)).logits
    for kind in ("prompt", "prefix"):
        trainable = make_trainable(base, Form(kind, n_virtual=4), [7, 8, 9])
        assert trainable.virtual == (428, 429, 430, 431)
        torch.testing.assert_close(trainable.model(ids_for(trainable)).logits[:, 4:], expected[:, 4:])


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_the_engine_scores_virtual_tokens_as_the_model_alone(kind):
    """On its fast path, where prompts share their beginning."""
    from icl.model.scoring import Scoring

    trainable = make_trainable(tiny.model("llama"), Form(kind, n_virtual=4), [7, 8])
    moved(trainable)
    trainable.settle()
    lm = TorchModel(trainable.model, tiny.tokenizer(), name="tiny")
    assert lm.examined.path == "tree"
    prefixes = [(*trainable.virtual, 5, 17, 99), (*trainable.virtual, 5, 60)]
    items = [Item(i, prefix, ((203,), (44, 12))) for i, prefix in enumerate(prefixes)]
    assert isinstance(lm.scoring, Scoring)
    found = lm.scoring.sums(items)
    for i, prefix in enumerate(prefixes):
        for n, ids in enumerate(((203,), (44, 12))):
            with torch.no_grad():
                log_p = trainable.model(torch.tensor([[*prefix, *ids]])).logits[0].log_softmax(-1)
            assert found[i, n] == pytest.approx(sum(float(log_p[len(prefix) + k - 1, t]) for k, t in enumerate(ids)), abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2"])
def test_added_attention_is_the_same_behind_kept_prefixes(name):
    """What a token gets of it depends on that token alone: scores on prefixes that are shared and kept, and in padded rows, are those of the
    model on each text by itself, and so is what it writes."""
    from transformers import GenerationConfig

    trainable = make_trainable(tiny.model(name), Form("added_attention", n_virtual=4))
    moved(trainable)
    trainable.settle()
    lm = TorchModel(trainable.model, tiny.tokenizer(), name="tiny")
    assert lm.examined.deviation < 1e-4
    trunk, answers = tuple(range(20, 220)), ((203,), (44, 12), (44, 13, 5))
    prefixes = [(*trunk, 5, 17, 99), (*trunk, 5, 60), (*trunk, 7)]
    items = [Item(i, prefix, answers) for i, prefix in enumerate(prefixes)]
    lm.scoring.sums(items)
    found = lm.scoring.sums(items)
    assert (lm.examined.path, lm.totals.cached > 100) == ("tree", True)  # behind the keys and values of the first time
    for i, prefix in enumerate(prefixes):
        for n, ids in enumerate(answers):
            with torch.no_grad():
                log_p = trainable.model(torch.tensor([[*prefix, *ids]]), use_cache=False).logits[0].log_softmax(-1)
            assert found[i, n] == pytest.approx(sum(float(log_p[len(prefix) + k - 1, t]) for k, t in enumerate(ids)), abs=1e-4)
    written = [
        trainable.model.generate(
            IDS, generation_config=GenerationConfig(max_new_tokens=12, do_sample=False, use_cache=kept, pad_token_id=1)
        )
        for kept in (True, False)
    ]
    assert torch.equal(*written)


def test_added_attention_is_put_on_a_base_as_peft_reads_it(tmp_path):
    """As an adapter that is merged into nothing."""
    from icl.model import load_model

    folder = tiny.save(tmp_path / "base")
    trainable = make_trainable(load_model(str(folder), device="cpu").model, Form("added_attention", n_virtual=4))
    moved(trainable)
    trainable.settle()
    trainable.save(tmp_path)
    with torch.no_grad():
        loaded = load_model(str(folder), adapter=tmp_path / "adapter", device="cpu").model(IDS).logits
        assert torch.equal(loaded, trainable.model(IDS).logits)


def test_activations_computed_again_give_the_same_gradients():
    base, form = tiny.model("llama"), Form("added_attention", n_virtual=4)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        trainable = make_trainable(base, form, checkpointing=checkpointing)
        moved(trainable)
        trainable.outer.train()
        trainable.outer(input_ids=IDS).logits.logsumexp(-1).sum().backward()
        gradients.append({name: p.grad for name, p in trainable.outer.named_parameters() if p.requires_grad})
    assert len(gradients[0]) == 2 * 2  # prompts and gate of both layers
    for name, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(gradients[1][name], gradient)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gemma2", "mamba"])
def test_what_is_trained_is_what_the_engine_scores(name):
    """Several answers behind a prompt, one of them the beginning of another: by a mask, by padded rows, and by the engine."""
    from icl.model.boundary import Split

    lm = tiny.lm(name)
    prefix, answers = (5, 17, 99, 203, 44), ((12,), (12, 13), (60, 61, 62))
    expected = [total for _, total in sorted(lm.scoring.sums([Item(0, prefix, answers)]).items())]
    taught = Taught(Split(prefix, answers, False, "context"), Answers(((0,), (1,), (2,)), 0, (1.0,) * 3))
    for path in ("single",) if name == "mamba" else ("mask", "padded", "single"):
        with torch.no_grad():
            values, owner = token_values(lm.model, [packed(taught, path)] * 2, path)
        sums = torch.zeros(6).index_add(0, owner, values).tolist()
        assert sums == pytest.approx(expected * 2, abs=1e-4)


def test_what_a_model_lacks_is_said():
    with pytest.raises(InputError, match="no linear layers named 'q_prof'"):
        make_trainable(tiny.model("llama"), Form("lora", targets=("q_prof",)))
    with pytest.raises(InputError, match="2 layers, so 3 cannot be frozen"):
        make_trainable(tiny.model("llama"), Form("freeze", n_frozen=3))
    with pytest.raises(InputError, match="no projections of keys and values"):
        make_trainable(tiny.model("mamba"), Form("ia3"))
    wide = copy.deepcopy(tiny.model("llama"))
    wide.config.head_dim = 16
    with pytest.raises(InputError, match="as wide as the model"):
        make_trainable(wide, Form("added_attention"))


def test_biases_are_added_where_there_are_none():
    trainable = make_trainable(tiny.model("llama"), Form("bitfit"))
    trained = [name for name, p in trainable.model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 7  # the linear layers of both layers
    assert all(name.endswith(".bias") for name in trained)
    own = make_trainable(tiny.model("gpt2"), Form("bitfit"))
    names = {name for name, _ in tiny.model("gpt2").named_parameters()}
    assert {name for name, p in own.model.named_parameters() if p.requires_grad} <= names


def test_in_16_bits_steps_are_taken_in_32():
    base = tiny.model("llama")
    coarse = copy.deepcopy(base).to(torch.bfloat16)
    for kind in KINDS:
        trainable = make_trainable(coarse, Form(kind, n_virtual=2), [7])
        assert {p.dtype for p in trainable.outer.parameters() if p.requires_grad} == {torch.float32}
        trainable.outer.train()
        logits = trainable.outer(input_ids=ids_for(trainable)).logits
        logits.float().logsumexp(-1).sum().backward()
        trainable.settle()
        assert trainable.model.dtype == torch.bfloat16
        assert trainable.model(ids_for(trainable)).logits.dtype == torch.bfloat16
