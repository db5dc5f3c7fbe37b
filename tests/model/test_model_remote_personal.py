"""Personal data is replaced before a prompt leaves the machine and put back in what comes; found by how it is written."""

import random

import pytest
import tiny
from openai_server import over, serve
from rule_server import Rules

import icl
from icl import load_model
from icl.endpoint.personal import KINDS, Hidden, found, has
from icl.errors import InputError
from icl.model.remote.hiding import hidden_context
from icl.values import Prompt

SECRETS = {
    "email": "ann.lee+x@shop-24.example.com",
    "iban": "DE89 3704 0044 0532 0130 00",
    "card": "4111 1111 1111 1111",
    "phone": "+49 170 1234567",
    "ip": "192.168.17.4",
    "ssn": "219-09-9999",
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_replaced_and_put_back(kind):
    secret = SECRETS[kind]
    assert has(kind, f"It is {secret}, thanks.")
    text = f"Write to {secret}, or to {secret}."
    ((start, end), _) = found(kind, text)
    assert text[start:end] == secret
    hidden = Hidden()
    shown = hidden.hide(text)
    assert shown == f"Write to [{kind.upper()}_1], or to [{kind.upper()}_1]."
    assert hidden.put_back(shown) == text
    assert hidden.counts == {kind: 2}


def test_numbers_with_wrong_check_digits_and_ordinary_numbers_stay():
    text = "Order 4111 1111 1111 1112 of 2024-05-17, 1,250.00 euros, version 1.2.3, DE88 3704 0044 0532 0130 00."
    assert Hidden(("card", "iban", "ip", "ssn")).hide(text) == text


def test_an_account_number_at_the_start_of_a_sentence_ends_where_it_ends():
    text = "IBAN DE89 3704 0044 0532 0130 00 BITTE"
    assert Hidden().hide(text) == "IBAN [IBAN_1] BITTE"


def test_stand_ins_that_a_text_has_already_are_not_taken():
    hidden = Hidden()
    shown = hidden.hide("[EMAIL_1] is a name here; write to a@b.example", "[EMAIL_1]")
    assert shown == "[EMAIL_1] is a name here; write to [EMAIL_2]"
    assert hidden.put_back("to [EMAIL_2], not [EMAIL_1]") == "to a@b.example, not [EMAIL_1]"


def test_any_mix_of_texts_and_secrets_comes_back_as_it_was():
    rng = random.Random(0)
    words = ["please", "call", "order 17", "for 12.50,", "(yes)", "[EMAIL_1]", "über"]
    for _ in range(300):
        text = " ".join(rng.choice([*words, *SECRETS.values()]) for _ in range(rng.randint(0, 12)))
        hidden = Hidden()
        shown = hidden.hide(text, text)
        assert hidden.put_back(shown) == text
        assert not any(secret in shown for secret in SECRETS.values())


def test_a_prompt_without_any_is_sent_as_it_is():
    prompt = Prompt("plain", ({"role": "user", "content": "plain"},), (1, 2, 3))
    assert hidden_context(prompt)[0] is prompt
    made, hidden = hidden_context(
        Prompt("to a@b.example", ({"role": "user", "content": "to a@b.example"},), (1, 2, 3), tail="to a@b.example")
    )
    assert (made.text, made.tail, made.token_ids) == ("to [EMAIL_1]", "to [EMAIL_1]", ())
    assert made.messages == ({"role": "user", "content": "to [EMAIL_1]"},)
    assert hidden.counts == {"email": 1}


def test_nothing_personal_reaches_the_server_and_the_reply_has_it_again():
    rules = Rules(lambda messages, n: f"We wrote to {messages[-1]['content'].split('mail ')[-1].split(' ')[0]} about it.")
    source = "---\nkind: answer\ninput: [text]\n---\n{% block example %}Customer: {{ text }}\nReply:{% endblock %}{% block answer %} {{ answer }}{% endblock %}"
    rows = [{"text": "mail old@one.example please", "reply": "We wrote to old@one.example about it."}] * 2
    task = icl.Task.load([{**row, "text": f"{row['text']} {i}"} for i, row in enumerate(rows)], test=rows[:1], label="reply", kind="answer")
    with serve(rules.respond) as served:
        lm = load_model(f"{served.url}#rules", personal_data="replace")
        predictor = icl.FewShot(lm, template=icl.Template.parse(source, "reply"), retriever="random", shots=2).fit(task.train)
        before = lm.usage.replaced
        (got,) = predictor.predict([f"mail {SECRETS['email']} now, my card is {SECRETS['card']}"])
        assert got.answer == f"We wrote to {SECRETS['email']} about it."
        assert lm.usage.replaced - before == 6  # two in the query, and two in each demonstration
        sent = repr(rules.chats)
        assert SECRETS["email"] not in sent
        assert SECRETS["card"] not in sent
        assert "old@one.example" not in sent
        assert "[CARD_1]" in sent
        open_one = load_model(f"{served.url}#rules")
        predictor = icl.FewShot(open_one, template=icl.Template.parse(source, "reply"), retriever="random", shots=0).fit(
            [], kind="answer", inputs=("text",)
        )
        assert predictor.predict([f"mail {SECRETS['email']} now"])[0].answer == f"We wrote to {SECRETS['email']} about it."
        assert SECRETS["email"] in repr(rules.chats)
        assert open_one.fingerprint != lm.fingerprint
        with pytest.raises(InputError, match="personal_data"):
            load_model(f"{served.url}#rules", personal_data="hide")


def test_scores_are_those_of_the_text_with_stand_ins():
    local = tiny.lm("llama", "chatml")
    with serve(over(local).respond) as served:
        lm = load_model(f"{served.url}#tiny", personal_data="replace")
        text = f"Message: write to {SECRETS['email']}\nIntent:"
        remote = lm.loglikelihoods([text], [[" reply", " refund"]])[0]
        assert remote == pytest.approx(
            local.loglikelihoods([text.replace(SECRETS["email"], "[EMAIL_1]")], [[" reply", " refund"]])[0], abs=1e-4
        )
        assert lm.usage.replaced == 1
