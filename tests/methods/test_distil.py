"""Distillation: what the student learns, what it may see, what it says of cost and gap, and that an interruption costs no answer twice."""

import json
from dataclasses import dataclass, field, replace

import pytest
from openai_server import serve
from rule_server import Rules, n_tokens
from small_tasks import context_for, example

import icl
from icl import FewShot, load_model, plugins
from icl.errors import InputError
from icl.methods.distil import Distil, Settings
from icl.methods.embedding_head import EmbeddingHead
from icl.values import Prediction

pytestmark = pytest.mark.usefixtures("one_thread")
LABELS = ("hot", "cold")
POOL = [example({"text": "the oven is hot"}, "hot"), example({"text": "ice is cold"}, "cold")]
ROWS = [example({"text": f"{word} number {i}"}, "CANARY") for i in range(20) for word in ("fire", "flame", "snow", "frost")]


@dataclass
class Oracle:
    """A teacher that knows four words, and notes what it was asked."""

    asked: list = field(default_factory=list)
    fails_after: int | None = None
    sure: float = 0.9

    def fit(self, pool, labels=(), unlabelled=()):
        self.pool, self.labels = list(pool), tuple(labels)
        return self

    def predict(self, queries):
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        self.asked += queries
        return [self.answer(q) for q in queries]

    def answer(self, query):
        if "frost" in query.fields["text"]:
            return Prediction(query.uid, None, why="too cold to say")
        hot = any(word in query.fields["text"] for word in ("fire", "flame", "oven"))
        return Prediction(query.uid, "hot" if hot else "cold", {"hot": self.sure if hot else 0.1, "cold": 0.1 if hot else self.sure})


@pytest.fixture
def student(encoder_folder):
    return EmbeddingHead(encoder=str(encoder_folder), inputs=("text",))


def distil(teacher, student, work=None, **settings):
    return Distil(teacher, student, Settings(**settings), ("text",), 1, None, work)


def test_the_student_learns_what_the_labels_alone_do_not_tell(student):
    queries = [
        example({"text": f"{word} at number {i}"}, label) for i in range(40, 50) for word, label in (("flame", "hot"), ("snow", "cold"))
    ]

    def accuracy(predictor):
        return sum(p.answer == q.target for p, q in zip(predictor.predict(queries), queries, strict=True)) / len(queries)

    taught = distil(Oracle(), student).fit(POOL, LABELS, ROWS)
    assert accuracy(taught) > accuracy(student.fit(POOL, LABELS)) + 0.2
    about = taught.training
    assert about["gap"]["n_rows"] == 16 - about["teacher"]["n_unscored"] + _unscored_taught(about)
    assert about["gap"]["agreement"] > 0.8
    assert about["gap"]["divergence_nats"] >= 0


def _unscored_taught(about):
    """Of the rows to learn from; the others that the teacher could not answer were held out."""
    return 64 - about["teacher"]["n_taught"]


def test_rows_are_new_have_no_labels_and_are_as_many_as_asked_for(student):
    teacher = Oracle()
    copies = [example({"text": "The oven is HOT!"}, "cold"), ROWS[0]]
    predictor = distil(teacher, student, rows=10, held_out=5).fit(POOL, LABELS, [*copies, *ROWS])
    assert len(teacher.asked) == 15
    assert {row.target for row in teacher.asked} == {None}
    assert len({row.fields["text"] for row in teacher.asked} - {row.fields["text"] for row in POOL}) == 15
    assert [e.target for e in teacher.pool] == ["hot", "cold"]
    assert predictor.training["teacher"]["n_taught"] <= 10
    again = Oracle()
    distil(again, student, rows=10, held_out=5).fit(POOL, LABELS, [*ROWS[::-1], *copies])
    assert sorted(row.fields["text"] for row in again.asked) == sorted(row.fields["text"] for row in teacher.asked)


def test_without_rows_it_labels_the_pool_itself(student):
    teacher = Oracle()
    predictor = distil(teacher, student).fit(POOL, LABELS)
    assert [row.fields["text"] for row in teacher.asked] == [e.fields["text"] for e in POOL]
    assert predictor.training["gap"] is None
    assert {p.answer for p in predictor.predict(POOL)} == {"hot", "cold"}


def test_without_gold_labels_the_student_learns_from_the_teacher_alone(student):
    wrong = [replace(row, target="cold" if row.target == "hot" else "hot") for row in POOL]
    with_gold, without = (distil(Oracle(), student, gold=gold).fit(wrong, LABELS, ROWS) for gold in (True, False))
    told = [replace(row, target=None) for row in ROWS]
    again = [p.probabilities for p in without.predict(told)]
    assert again != [p.probabilities for p in with_gold.predict(told)]
    lesson = distil(Oracle(), student, gold=False).fit(POOL, LABELS, ROWS)  # what the pool's labels are matters to the teacher alone
    assert again == [p.probabilities for p in lesson.predict(told)]
    with pytest.raises(InputError, match="answered no row"):
        distil(Oracle(), student, gold=False).fit(POOL, LABELS, [example({"text": f"frost {i}"}, None) for i in range(9)])


def test_what_is_saved_is_the_student(student, tmp_path):
    predictor = distil(Oracle(), student).fit(POOL, LABELS, ROWS)
    predictor.save(tmp_path / "saved")
    state = json.loads((tmp_path / "saved" / "predictor.json").read_text())
    assert (state["method"], state["name"]) == ("embedding_head", "distil")
    for one, other in zip(predictor.predict(ROWS[:4]), icl.load(tmp_path / "saved").predict(ROWS[:4]), strict=True):
        assert dict(one.probabilities) == pytest.approx(dict(other.probabilities))


def test_an_interruption_costs_no_answer_twice(student, tmp_path):
    whole = distil(Oracle(), student).fit(POOL, LABELS, ROWS)
    first, second = Oracle(fails_after=32), Oracle()
    with pytest.raises(KeyboardInterrupt):
        distil(first, student, tmp_path / "work").fit(POOL, LABELS, ROWS)
    predictor = distil(second, student, tmp_path / "work").fit(POOL, LABELS, ROWS)
    assert len(first.asked) + len(second.asked) == len(ROWS)
    assert not (tmp_path / "work").exists()
    assert [p.probabilities for p in predictor.predict(ROWS[:9])] == [p.probabilities for p in whole.predict(ROWS[:9])]


def test_other_rows_are_asked_anew(student, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        distil(Oracle(fails_after=32), student, tmp_path / "work").fit(POOL, LABELS, ROWS)
    teacher = Oracle()
    distil(teacher, student, tmp_path / "work").fit(POOL[::-1], LABELS, ROWS)
    assert len(teacher.asked) == len(ROWS)


def test_certainty_where_a_teacher_has_no_probabilities(student):
    class Silent(Oracle):
        def answer(self, query):
            return replace(super().answer(query), probabilities=None)

    assert distil(Silent(), student).fit(POOL, LABELS, ROWS).training["teacher"]["n_taught"] > 30


def test_a_prompt_teaches_an_encoder_and_both_costs_are_told(encoder_folder, tiny_lm):
    """Through a suite's own way to build it; the teacher's operations are far more than the student's."""
    context = context_for("classify", str(encoder_folder), tiny_lm)
    settings = {"teacher": {"few_shot": {"shots": 4}}, "student": {"classifier": {"epochs": 2}}, "held_out": 8}
    predictor = plugins.build("method", {"distil": settings}, replace(context, labels=LABELS)).fit(POOL, LABELS, ROWS)
    about = predictor.training
    assert about["teacher"]["n_tokens"] > 0
    assert about["operations"] > about["teacher"]["operations"] > 0
    each = about["operations_per_query"]
    assert each["teacher"] > each["student"] > 0
    assert predictor.totals.computed == 0
    assert about["curve"]


def test_the_language_model_is_used_only_if_one_of_the_two_uses_it():
    def asks(**settings):
        return plugins.needs_model(plugins.parse_spec({"distil": settings}, "method"))

    assert asks()
    assert asks(teacher={"few_shot": {"shots": 2}})
    assert not asks(teacher="embedding_head")
    assert not asks(teacher={"contrastive": {}}, student={"embedding_head": {}})


def test_students_that_learn_labels_only_are_refused(encoder_folder):
    context = context_for("classify", str(encoder_folder))
    with pytest.raises(InputError, match="not the probabilities of a teacher"):
        plugins.build("method", {"distil": {"teacher": "majority", "student": "knn_vote"}}, context)
    with pytest.raises(InputError, match="was given none"):
        distil(Oracle(), EmbeddingHead()).fit([], LABELS, ROWS)


def test_a_suite_says_where_a_setting_of_the_teacher_is_wrong():
    task = {"name": "t", "train": [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], "test": [{"text": "c", "label": "x"}]}
    settings = {"teacher": {"few_shot": {"shotz": 4}}, "student": {"classifier": {"long": "squeeze"}}}
    with pytest.raises(InputError) as found:
        icl.run({"tasks": [task], "methods": [{"name": "small", "distil": settings}], "models": []})
    places = {p.field: p.message for p in found.value.problems}
    assert "no option 'shotz'" in places["methods.0.distil.teacher.few_shot.shotz"]
    assert "methods.0.distil.student.classifier.long" in places
    with pytest.raises(InputError, match="near"):
        icl.run({"tasks": [task], "methods": [{"distil": {"teacher": {"few_shot": {"retriever": "near"}}}}]})
    with pytest.raises(InputError, match="'distil' needs a language model"):
        icl.run({"tasks": [task], "methods": ["distil"], "models": []})


def test_in_a_suite_beside_its_teacher(tmp_path, encoder_folder):
    """The student competes under its own name, and the run's timing has gap and costs; no language model is loaded."""
    rows = [{"text": row.fields["text"], "label": "hot" if "f" in row.fields["text"][:2] else "cold"} for row in ROWS]
    head = {"embedding_head": {}}
    suite = {
        "tasks": [{"name": "t", "train": rows[:20], "test": rows[20:30], "unlabelled": [{"text": row["text"]} for row in rows[30:]]}],
        "methods": ["embedding_head", {"name": "small", "distil": {"teacher": head, "student": head}}],
        "encoder": str(encoder_folder),
        "models": [],
        "budgets": [8],
    }
    run = icl.run(suite, out=tmp_path / "run")
    timing = json.loads((run.folder / "timing.json").read_text())
    (cell,) = (each for each in timing["cells"] if each["method"] == "small")
    assert cell["training"]["gap"]["n_rows"] > 0
    assert icl.load(run.folder / "predictors" / "small").predict(["snow"])[0].answer in ("hot", "cold")


def test_context_distillation(encoder_folder, tiny_lm):
    """The model without demonstrations comes nearer to what it says with them."""
    context = replace(context_for("classify", str(encoder_folder), tiny_lm), labels=LABELS)
    teacher = {"few_shot": {"shots": 2, "retriever": "random"}}

    def gap(epochs):
        student = {"finetune": {"kind": "full", "epochs": epochs, "learning_rate": 3e-3}}
        predictor = plugins.build("method", {"distil": {"teacher": teacher, "student": student}}, context).fit(POOL, LABELS, ROWS[:40])
        assert predictor.training["operations_per_query"]["student"] > 0
        return predictor.training["gap"]["divergence_nats"]

    assert gap(6) < gap(1)


def test_a_teacher_behind_an_address_is_counted_by_its_tokens(student, tmp_path):
    """In what was sent and written; its operations nobody knows."""
    rules = Rules(lambda messages, n: "hot" if "f" in messages[-1]["content"].split("Text:")[-1] else "cold")
    with serve(rules.respond) as served:
        lm = load_model(f"{served.url}#rules")
        _ = lm.capabilities  # the probe is no work of the teacher's
        before = len(rules.chats)
        teacher = FewShot(lm, shots=0)
        predictor = Distil(teacher, student, Settings(rows=6, held_out=0), ("text",), 1, lm, tmp_path).fit(POOL, LABELS, ROWS)
    about = predictor.training["teacher"]
    assert (about["n_rows"], about["operations"]) == (6, None)
    assert about["n_tokens"] > sum(n_tokens(message["content"]) for chat in rules.chats[before:] for message in chat) > 0
    assert about["n_tokens"] <= lm.usage.input_tokens + lm.usage.output_tokens
