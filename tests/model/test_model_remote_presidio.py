"""Personal data that Presidio recognises, with the real package: what the patterns leave is found, replaced and put back."""

import pytest
from openai_server import serve
from rule_server import Rules

from icl import load_model
from icl.endpoint import presidio
from icl.endpoint.personal import Hidden
from icl.errors import InputError, MissingExtraError
from icl.evaluate.schema import ModelEntry

TEXT = "I am Ann Lee. Call 020 7946 0958, not a@b.example; my NHS number is 943 476 5919, order 50012, from 12/03/2026."


@pytest.fixture(scope="module")
def recognise():
    return presidio.recogniser_of("presidio")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A spaCy pipeline that knows one name: what matters here is that a pipeline is asked, not how good it is."""
    import spacy

    made = spacy.blank("en")
    made.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ann Lee"}])
    folder = tmp_path_factory.mktemp("spacy") / "names"
    made.to_disk(folder)
    return folder


def test_it_finds_what_the_patterns_leave(recognise):
    assert Hidden().hide(TEXT) == TEXT.replace("a@b.example", "[EMAIL_1]")
    hidden = Hidden(more=recognise)
    shown = hidden.hide(TEXT, TEXT)
    expected = TEXT.replace("a@b.example", "[EMAIL_1]").replace("020 7946 0958", "[PHONE_1]").replace("943 476 5919", "[UK_NHS_1]")
    assert shown == expected
    assert hidden.counts == {"email": 1, "phone": 1, "uk_nhs": 1}
    assert hidden.put_back(shown) == TEXT


def test_a_number_whose_check_digit_is_wrong_and_its_own_stand_ins_stay(recognise):
    hidden = Hidden(more=recognise)
    shown = hidden.hide("NHS 943 476 5918, wallet [CRYPTO_1], card 4111 1111 1111 1111", "[CRYPTO_1]")
    assert "[CARD_1]" in shown
    assert "[CRYPTO_1]" in shown
    assert "uk_nhs" not in hidden.counts


def test_a_pipeline_finds_names_and_one_person_has_one_stand_in(pipeline):
    hidden = Hidden(more=presidio.recogniser_of(f"presidio:{pipeline}"))
    shown = hidden.hide("Ann Lee wrote from a@b.example. Is Ann Lee in?")
    assert shown == "[PERSON_1] wrote from [EMAIL_1]. Is [PERSON_1] in?"
    assert hidden.put_back(shown) == "Ann Lee wrote from a@b.example. Is Ann Lee in?"


def test_a_pipeline_that_is_not_there_is_found_before_anything_is_asked(pipeline, tmp_path):
    presidio.check_presidio(f"presidio:{pipeline}")
    for name in ("no_such_pipeline", tmp_path):
        with pytest.raises(InputError, match=f"'{name}' is neither installed nor a folder of one\n.*spacy download"):
            load_model("http://127.0.0.1:9/v1#none", personal_data=f"presidio:{name}")
    (tmp_path / "config.cfg").write_text("[nlp]\n")
    with pytest.raises(InputError, match="cannot be loaded"):
        presidio.recogniser_of(f"presidio:{tmp_path}")


def test_a_name_found_together_with_an_address_is_replaced_too():
    """As pipelines do that take a stand-in for a part of the name."""
    hidden = Hidden(more=lambda text: [("person", text.index("Ann"), text.index("_1]") + 3)])
    shown = hidden.hide("From: Ann Lee a@b.example")
    assert shown == "From: [PERSON_1] [EMAIL_1]"
    assert hidden.put_back(shown) == "From: Ann Lee a@b.example"


def test_the_server_never_sees_it_and_the_reply_has_it_again():
    rules = Rules(lambda messages, n: f"We will call {messages[-1]['content'].split('Call ')[-1].split(',')[0]}.")
    with serve(rules.respond) as served:
        lm = load_model(f"{served.url}#rules", personal_data="presidio")
        assert lm.generate([TEXT]) == ["We will call 020 7946 0958."]
        assert lm.usage.replaced == 3
        sent = repr(rules.chats)
        assert "020 7946 0958" not in sent
        assert "943 476 5919" not in sent
        assert lm.reference["personal_data"] == "presidio"
        assert lm.fingerprint != load_model(f"{served.url}#rules", personal_data="replace").fingerprint
        with pytest.raises(InputError, match="Give 'send', 'replace', 'presidio' or 'presidio:PIPELINE'"):
            load_model(f"{served.url}#rules", personal_data="presidio:")


def test_without_the_package_the_extra_is_named_before_anything_is_sent(monkeypatch):
    monkeypatch.setattr(presidio, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"presidio-analyzer'\n  Install it with: pip install 'icl\[personal\]'"):
        load_model("http://127.0.0.1:9/v1#none", personal_data="presidio")


def test_a_suite_takes_the_option():
    assert ModelEntry(model="https://host/v1#m", personal_data="presidio:en_core_web_sm").options() == {
        "personal_data": "presidio:en_core_web_sm"
    }
    with pytest.raises(ValueError, match="personal_data"):
        ModelEntry(model="https://host/v1#m", personal_data="presido")
