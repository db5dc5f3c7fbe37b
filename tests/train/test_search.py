"""The search itself with optuna, on trainings whose score is a formula: what wins, what it costs, what is dropped, and interruptions."""

import json
import math

import pytest

from icl.errors import IclError, InputError, MissingExtraError
from icl.train.record import Diverged, Training
from icl.train.search import Between, around, one_of, search

SPACE = {"rate": around(1e-4, 4), "epochs": one_of(4, 2, 8), "dropout": one_of(None, 0.0, 0.2)}
GIVEN = {"rate": 1e-4, "epochs": 4, "dropout": None}


def trained(accuracy, loss=1.0, epochs=4, best_epoch=None):
    """The record of a training whose last epoch was as good as said, and the ones before it worse."""
    curve = tuple({"epoch": n + 1, "accuracy": accuracy - (epochs - 1 - n) / 100, "validation_loss": loss} for n in range(epochs))
    return Training(0, 10 * epochs, epochs, best_epoch or epochs, False, curve, 9, 9, 36, 100 * epochs, 0, 1e3 * epochs, 2.0, 1.0, "cpu")


class Attempts:
    """Better the nearer the rate is to 2e-4, with dropout, and on later parts; remembers what it was asked."""

    def __init__(self, stop_after=None):
        self.asked, self.stop_after = [], stop_after

    def __call__(self, changes, part, name):
        if len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append((dict(changes), part, name))
        accuracy = 0.8 - 0.2 * abs(math.log2(changes["rate"] / 2e-4)) + 0.05 * (changes["dropout"] == 0.2) + 0.01 * part
        return trained(accuracy, epochs=changes["epochs"])


def timeless(found):
    return {name: value for name, value in found.record.items() if name != "seconds"}


def test_what_is_given_is_tried_first_and_the_best_wins():
    attempts = Attempts()
    found = search(SPACE, attempts, n_parts=1, trials=20, seed=3)
    assert attempts.asked[0][0] == found.record["given"]["settings"] == GIVEN
    assert len(attempts.asked) == found.record["n_trials"] == len(found.record["trials"]) == 20
    best = max(found.record["trials"], key=lambda each: each["score"])
    assert found.changes == best["settings"] == found.record["best"]["settings"]
    assert best["score"] > found.record["given"]["score"] == pytest.approx(0.6)
    assert abs(math.log2(found.changes["rate"] / 2e-4)) < 0.5
    assert all(2.5e-5 <= each["rate"] <= 4e-4 and each["epochs"] in (2, 4, 8) for each, _, _ in attempts.asked)
    assert json.loads(json.dumps(found.record)) == found.record


def test_the_first_of_equals_stays_and_of_equal_scores_the_lowest_loss_wins():
    found = search(SPACE, lambda changes, part, name: trained(0.7), n_parts=1, trials=6, seed=0)
    assert (found.changes, found.record["best"]["trial"]) == (GIVEN, 1)
    found = search(SPACE, lambda changes, part, name: trained(0.7, loss=0.1 if name == "trial-4" else 1.0), n_parts=1, trials=6, seed=0)
    assert found.record["best"]["trial"] == 4


def test_it_costs_what_its_trainings_cost_and_never_more_than_the_trials_allow():
    attempts = Attempts()
    found = search(SPACE, attempts, n_parts=3, trials=12, seed=1)
    epochs = [changes["epochs"] for changes, _, _ in attempts.asked]
    assert len(attempts.asked) <= 12 * 3
    assert found.record["n_steps"] == 10 * sum(epochs) <= 12 * 3 * 10 * 8
    assert found.record["operations"] == 1e3 * sum(epochs)
    assert found.record["seconds"] == pytest.approx(2.0 * len(epochs), abs=0.5)
    training = found.counted({"operations": 5.0, "seconds": 1.0, "n_steps": 7})
    assert training["operations"] == 5.0 + found.record["operations"]
    assert training["seconds"] == pytest.approx(1.0 + found.record["seconds"])
    assert (training["n_steps"], training["search"]) == (7, found.record)


def test_with_folds_bad_trials_are_dropped_after_the_second_and_never_what_is_given():
    attempts = Attempts()
    found = search(SPACE, attempts, n_parts=4, trials=12, seed=0)
    states = [each["state"] for each in found.record["trials"]]
    assert states[:5] == ["complete"] * 5
    assert states.count("dropped") == found.record["n_dropped"] > 0
    for n, state in enumerate(states):
        assert sum(name.startswith(f"trial-{n + 1}-") for _, _, name in attempts.asked) == (2 if state == "dropped" else 4)
    assert found.record["given"]["score"] == pytest.approx(0.6 + 0.01 * 1.5)
    dropped = next(each for each in found.record["trials"] if each["state"] == "dropped")
    assert (dropped["score"], dropped["loss"]) == (None, None)


def test_on_rows_held_out_the_epoch_that_is_kept_counts_and_on_folds_the_last_one():
    scores = [search(SPACE, lambda *_: trained(0.7, best_epoch=2), n_parts=n, trials=1, seed=0).record["given"]["score"] for n in (1, 2)]
    assert scores == pytest.approx([0.68, 0.7])


def test_without_an_accuracy_the_loss_decides():
    def attempt(changes, part, name):
        record = trained(0.0, loss=changes["rate"])
        return Training(**{**record.as_dict(), "curve": tuple({"epoch": 1, "validation_loss": p["validation_loss"]} for p in record.curve),
                           "best_epoch": 1})  # fmt: skip

    found = search(SPACE, attempt, n_parts=1, trials=8, seed=0)
    assert found.changes["rate"] == min(each["settings"]["rate"] for each in found.record["trials"]) < 1e-4


@pytest.mark.parametrize("n_done", [0, 1, 7, 19, 25])
def test_interrupted_anywhere_it_does_the_rest_and_finds_the_same(tmp_path, n_done):
    whole = Attempts()
    expected = search(SPACE, whole, n_parts=4, trials=10, seed=0)
    first, second = Attempts(stop_after=n_done), Attempts()
    with pytest.raises(KeyboardInterrupt):
        search(SPACE, first, n_parts=4, trials=10, seed=0, work=tmp_path / "work", key="rows")
    found = search(SPACE, second, n_parts=4, trials=10, seed=0, work=tmp_path / "work", key="rows")
    assert first.asked + second.asked == whole.asked
    assert timeless(found) == timeless(expected)


def test_what_was_tried_for_other_rows_or_settings_is_not_taken_up(tmp_path):
    search(SPACE, Attempts(), n_parts=1, trials=2, seed=1, work=tmp_path, key="rows")
    for more in ({"key": "other rows"}, {"seed": 2}, {"space": {**SPACE, "rate": Between(1e-4, 1e-5, 1e-3)}}):
        attempts = Attempts()
        search(**{"space": SPACE, "attempt": attempts, "n_parts": 1, "trials": 1, "seed": 1, "work": tmp_path, "key": "rows", **more})
        assert len(attempts.asked) == 1
    attempts = Attempts()
    search(SPACE, attempts, n_parts=1, trials=4, seed=1, work=tmp_path, key="rows")
    assert len(attempts.asked) == 4


def test_a_trial_that_diverges_has_failed_but_what_is_given_must_not():
    def attempt(changes, part, name):
        if name == "trial-2":
            raise IclError("training diverged")
        return trained(math.nan, loss=math.nan) if name == "trial-3" else trained(0.5)

    found = search(SPACE, attempt, n_parts=1, trials=4, seed=0)
    assert [each["state"] for each in found.record["trials"]] == ["complete", "failed", "failed", "complete"]
    assert found.record["n_failed"] == 2
    with pytest.raises(IclError, match="lower learning_rate"):
        search(SPACE, lambda *_: trained(0.5, loss=math.nan), n_parts=1, trials=4, seed=0)


def test_a_trial_that_diverges_costs_what_it_took_till_then():
    def attempt(changes, part, name):
        if name == "trial-2":
            raise Diverged("training diverged", trained(math.nan, epochs=3))
        return trained(0.5, epochs=4)

    record = search(SPACE, attempt, n_parts=1, trials=3, seed=0).record
    assert [each["state"] for each in record["trials"]] == ["complete", "failed", "complete"]
    assert (record["n_steps"], record["n_tokens"], record["operations"]) == (110, 1100, 11e3)
    assert record["seconds"] == pytest.approx(6.0, abs=0.5)


def test_an_error_of_the_users_ends_it():
    def attempt(changes, part, name):
        raise InputError("no room on disk")

    with pytest.raises(InputError, match="no room on disk"):
        search(SPACE, attempt, n_parts=1, trials=4, seed=0)


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("icl.train.search.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'icl\[search\]'"):
        search(SPACE, Attempts(), n_parts=1, trials=1, seed=0)
