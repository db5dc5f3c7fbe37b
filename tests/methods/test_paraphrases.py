"""Paraphrases by a tiny language model: once for each row that is trained on, never of others, counted, not asked twice after an interruption."""

import json

import pytest
import tiny
from openai_server import serve
from rule_server import Rules, n_tokens
from test_classifier import FILLER, WORDS, rows

from icl import plugins
from icl.errors import InputError
from icl.methods import _fit, _paraphrase
from icl.methods._paraphrase import Paraphrased, paraphrased
from icl.methods.classifier import Classifier, Settings
from icl.protocols import MethodContext
from icl.train.augment import Paraphrase

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return str(tiny.save(tmp_path_factory.mktemp("lm") / "llama"))


def how(model, **more):
    return Paraphrase(**{"model": model, "n": 2, "max_new_tokens": 6, **more})


def test_each_text_is_said_otherwise_once_and_that_is_counted(llama, tmp_path):
    texts = ["the old sea", "a red rose", "the old sea", " "]
    found = paraphrased(texts, how(llama), seed=1, work=tmp_path)
    assert set(found.versions) == {"the old sea", "a red rose"}
    assert all(len(each) <= 2 and all(one.strip() for one in each) for each in found.versions.values())
    assert (found.record["n_texts"], found.record["n_made"]) == (2, sum(map(len, found.versions.values())))
    assert found.record["n_tokens"] > 0
    assert found.record["operations"] > 0
    assert paraphrased(texts, how(llama), seed=1).versions == found.versions
    assert paraphrased(texts, how(llama), seed=2).versions != found.versions


def test_what_was_said_before_an_interruption_is_not_asked_again(llama, tmp_path, monkeypatch):
    texts = [f"text number {i}" for i in range(4)]
    monkeypatch.setattr(_paraphrase, "UNIT", 2)
    whole = paraphrased(texts, how(llama), seed=1)
    written = _paraphrase.write_text

    def once(*args):
        written(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(_paraphrase, "write_text", once)
    with pytest.raises(KeyboardInterrupt):
        paraphrased(texts, how(llama), seed=1, work=tmp_path)
    assert len(json.loads((tmp_path / "paraphrases.json").read_text())["versions"]) == 2
    monkeypatch.setattr(_paraphrase, "write_text", written)
    found = paraphrased(texts, how(llama), seed=1, work=tmp_path)
    assert found.versions == whole.versions
    assert {n: v for n, v in found.record.items() if n != "seconds"} == {n: v for n, v in whole.record.items() if n != "seconds"}


def test_a_row_of_several_fields_has_as_many_versions_as_the_most_of_them():
    found = Paraphrased({"one": ["eins", "uno"], "two": ["zwei"]}, {})
    assert found.of(["one", "two"]) == [["eins", "zwei"], ["uno", "two"]]
    assert found.of(["three"]) == []


def test_a_classifier_learns_from_them_and_no_judging_row_is_given_away(llama, tmp_path, monkeypatch):
    base = str(tiny.save_bert(tmp_path / "bert", [*FILLER, *(word for each in WORDS.values() for word in each)]))
    seen = []
    original = _paraphrase.paraphrased

    def recorded(texts, *args, **more):
        seen.append(list(texts))
        return original(texts, *args, **more)

    monkeypatch.setattr(_paraphrase, "paraphrased", recorded)
    begun, search = [], _fit.search
    monkeypatch.setattr(_fit, "search", lambda *args, **more: begun.append(len(seen)) or search(*args, **more))
    pool = rows(20)
    settings = Settings(epochs=2, batch_size=8, validation=0.3, search=2, augment={"paraphrase": how(llama).model_dump()})
    predictor = Classifier(settings, base, ("text",), seed=1).fit(pool, tuple(WORDS))
    (asked,) = seen  # once, for all trials
    assert begun == [1]  # before them, so that its seconds are none of theirs
    assert len(asked) == predictor.training["n_rows"] == 14
    record = predictor.training["paraphrases"]
    assert record["n_texts"] == len(set(asked))
    assert predictor.training["operations"] > record["operations"] + predictor.training["search"]["operations"]
    predictor.predict(rows(3, seed=5))
    assert len(seen) == 1


def test_thoughts_are_no_paraphrase():
    rules = Rules(lambda messages, n: "<think>What else is it?</think> A wide sea.")
    with serve(rules.respond) as served:
        found = paraphrased(["the old sea"], how(f"{served.url}#rules", n=1))
    assert found.versions == {"the old sea": ["A wide sea."]}
    assert found.record["operations"] is None
    (chat,) = [chat for chat in rules.chats if "the old sea" in str(chat)]
    read = sum(n_tokens(message["content"]) for message in chat)
    assert found.record["n_tokens"] == read + n_tokens("<think>What else is it?</think> A wide sea.")


def test_what_another_template_made_is_not_taken_up(llama, tmp_path):
    """Though it has the same name."""
    written = (
        "---\nkind: answer\ninput: [text]\n---\n{% block example %}{{ text }}{% endblock %}{% block answer %} {{ answer }}{% endblock %}\n"
    )
    for text in (written, written.replace("{{ text }}", "Text: {{ text }}")):
        (tmp_path / "mine.jinja").write_text(text)
        found = paraphrased(["the old sea"], how(llama, template="mine"), seed=1, work=tmp_path / "work", templates=[tmp_path])
        assert found.versions == paraphrased(["the old sea"], how(llama, template="mine"), seed=1, templates=[tmp_path]).versions


def test_a_model_or_template_that_is_not_there_is_said(llama):
    with pytest.raises(InputError, match="nowhere"):
        paraphrased(["a text"], how("./nowhere"))
    with pytest.raises(InputError, match="nowhere"):
        paraphrased(["a text"], how(llama, template="nowhere"))
    with pytest.raises(InputError, match="has the input fields title, words, and a text is one"):
        paraphrased(["a text"], how(llama, template="article"))


def test_the_template_may_lie_where_the_suite_s_templates_do(llama, tmp_path):
    (tmp_path / "mine.jinja").write_text(
        "---\nkind: answer\ninput: [text]\n---\n{% block example %}{{ text }}{% endblock %}{% block answer %} {{ answer }}{% endblock %}\n"
    )
    base = str(tiny.save_bert(tmp_path / "bert", [*FILLER, *(word for each in WORDS.values() for word in each)]))
    context = MethodContext("classify", ("text",), tuple(WORDS), encoder=base, template_folders=(tmp_path,))
    asked = {"epochs": 1, "augment": {"paraphrase": how(llama, template="mine").model_dump()}}
    predictor = plugins.build("method", {"classifier": asked}, context).fit(rows(8), tuple(WORDS))
    assert predictor.training["paraphrases"]["n_texts"] == len({row.fields["text"] for row in rows(8)})
