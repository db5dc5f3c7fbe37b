"""What a decision says in words, case by case."""

import math
from dataclasses import replace

import numpy as np
import pytest

from icl.evaluate.answer import Cost, Findings, Point, as_json
from icl.evaluate.break_even import BreakEven
from icl.evaluate.choice import Choice, Rival
from icl.evaluate.crossover import Crossover
from icl.evaluate.gain import Gain
from icl.evaluate.paired import Side, paired
from icl.evaluate.planning import Plan
from icl.report.decision import as_html, decision_table, paragraph, plan_lines
from icl.report.notebook import predictor_html


def sides(first, second, n=200):
    """Two methods right on the first `first` and `second` of n items."""
    at = np.arange(n)
    return Side((at < first)[None].astype(float)), Side((at < second)[None].astype(float))


def against(first, second):
    return paired([sides(first, second)], np.random.default_rng(0))


def findings(**more):
    rivals = (
        Rival("knn-8", 0.80, against(160, 160), True, 0.3),
        Rival("embedding_head", 0.79, against(158, 160), True, 0.02),
        Rival("majority", 0.25, against(50, 160), False, 0.0001),
    )
    choice = Choice("embedding_head", "knn-8", True, "halves", ("embedding_head",) * 2, 0.785, 0.72, 0.84, 0.80, rivals, None, 0)
    value = Findings(
        metric="accuracy", higher_is_better=True, is_share=True, budget=256, n_items=200, n_runs=3, margin=0.01, choice=choice,
        points=(
            Point("knn-8", 64, 3, 0.70, 0.63, 0.76, 0), Point("knn-8", 256, 3, 0.80, 0.74, 0.85, 0),
            Point("embedding_head", 64, 3, 0.60, 0.53, 0.67, 0), Point("embedding_head", 256, 3, 0.79, 0.73, 0.84, 0),
            Point("majority", 256, 3, 0.25, 0.19, 0.31, 0), Point("zero_shot", None, 1, None, None, None, 200),
        ),
        costs={"knn-8": Cost(1.0, 0.3, None, 160.0, 120.0), "embedding_head": Cost(2.0, 0.02, None, None, None),
               "majority": Cost(0.0, 0.0001, None, None, None)},
        in_money=False, prompt="knn-8", trained="embedding_head",
        crossover=Crossover(180.4, (90.2, math.inf), 0.1, 0.0, 64, 256, (3, 3), 200, 0),
        break_even=BreakEven("seconds", 5, 8, None), gains=(Gain("knn-8", 256, 256, 0.021, -0.004, 0.045),),
    )  # fmt: skip
    return replace(value, **more)


def with_choice(**more):
    return findings(choice=replace(findings().choice, **more))


def test_a_cheaper_method_that_may_be_as_good():
    text = paragraph(findings())
    for part in (
        "Use embedding_head: with 256 labels its accuracy on test items that it was not chosen on is 78.5 %, 95 % interval 72.0 to 84.0 %",
        "(200 test items, 3 draws of the labels)",
        "knn-8 has the highest figure, 1.0 points [",
        "higher: a difference that could be nothing, and embedding_head costs 15 times less per query (20 ms instead of 300 ms).",
        "(The plain maximum over all methods, 80.0 %, is optimistic.)",
        "Training wins over the best prompt from about 180 labels on (95 % interval 90 to beyond 256).",
        "A query of embedding_head takes 20 ms, learning from the labels 2.0 s; in time on this machine, training embedding_head has paid for "
        "itself against knn-8 after 8 queries (5 with every prompt computed whole).",
        "256 more labels may bring knn-8 2.1 points [-0.4, 4.5].",
    ):
        assert part in text
    assert "\n" not in text
    assert "  " not in text


def test_a_maximum_that_is_no_higher_is_not_called_optimistic():
    assert "optimistic" not in paragraph(with_choice(optimistic=0.7))


def test_the_best_that_is_also_used():
    text = paragraph(with_choice(winner="knn-8", halves=("knn-8",) * 2))
    assert "The next best, embedding_head, is 1.0 points [" in text
    assert "behind, which could be nothing, and is not cheaper." in text
    clear = with_choice(winner="knn-8", halves=("knn-8",) * 2, rivals=(findings().choice.rivals[0], findings().choice.rivals[2]))
    assert "The next best, majority, is 55.0 points [" in paragraph(clear)
    assert "could be nothing" not in paragraph(clear)


def test_that_nothing_does_better_than_one_answer_for_all_is_said():
    said = "It gives every query the same answer: nothing that was compared is known to do better."
    assert said in paragraph(with_choice(winner="majority", halves=("majority",) * 2))
    assert said not in paragraph(findings())


def test_a_difference_within_the_margin():
    sure = replace(against(158, 160), low=-0.015, high=-0.005)
    rivals = (findings().choice.rivals[0], Rival("embedding_head", 0.79, sure, True, 0.02))
    assert "lies within the margin of 2.0 points" in paragraph(replace(with_choice(rivals=rivals), margin=0.02))


def test_the_same_figure_is_said_to_be_the_same():
    rivals = (findings().choice.rivals[0], Rival("embedding_head", 0.8, against(160, 160), True, 0.02))
    assert "knn-8 has the same figure (0.0 points [" in paragraph(with_choice(rivals=rivals))


def test_not_settled_says_what_would_settle_it():
    between = against(158, 160)
    text = paragraph(with_choice(settled=False, halves=("embedding_head", "knn-8"), between=between))
    assert text.startswith(
        "Not settled: half of the test items chooses embedding_head, the other half knn-8; all of them choose embedding_head."
    )
    assert "What could change the answer: embedding_head or knn-8 would be settled by " in text
    assert f"about {200 + 2 * between.more_items:,} more test items" in text  # either half must tell them apart
    alike = paragraph(with_choice(settled=False, winner="knn-8", halves=("embedding_head",) * 2, between=between))
    assert alike.startswith("Not settled: each half of the test items alone chooses embedding_head, which is cheaper")


@pytest.mark.parametrize(
    ("crossing", "says"),
    [
        (None, "From how many labels on training wins cannot be told from one label budget."),
        ((None, (200.0, math.inf)), "Up to 256 labels no trained method is above the best prompt (95 % interval 200 to beyond 256)."),
        (
            (64.0, (64.0, 100.0)),
            "Training is above the best prompt at every label budget measured, from 64 labels on (95 % interval 64 or fewer to 100).",
        ),
        ((64.0, (64.0, 64.0)), "from 64 labels on (95 % interval 64 or fewer)."),
    ],
)
def test_crossovers(crossing, says):
    given = None if crossing is None else replace(findings().crossover, estimate=crossing[0], interval=crossing[1])
    assert says in paragraph(findings(crossover=given))


@pytest.mark.parametrize(
    ("even", "says"),
    [
        (BreakEven("seconds", math.inf, math.inf, None), "training embedding_head never pays against knn-8"),
        (BreakEven("money", 0, 0, None), "in money, embedding_head is cheaper than knn-8 from the first query"),
        (BreakEven("money", 50, 40, 90), "after 40 queries (50 with every prompt computed whole, 90 at the provider's cache prices)"),
        (BreakEven("seconds", 7, math.inf, None), "training embedding_head never pays against knn-8 (7 with every prompt computed whole)"),
    ],
)
def test_break_even(even, says):
    assert says in paragraph(findings(break_even=even))


def test_without_one_side_nothing_is_said_of_it():
    text = paragraph(findings(prompt=None, crossover=None, break_even=None))
    assert "Training" not in text
    assert "From how many labels" not in text


def test_nothing_scored_and_unscored_items():
    assert "no test item could be scored" in paragraph(with_choice(value=None, low=None, high=None))
    assert "12 predictions could not be scored" in paragraph(with_choice(n_unscored=12))
    assert paragraph(findings(), ["The time was up."]).endswith(" The time was up.")


def test_money_where_there_is_some():
    costs = {**findings().costs, "knn-8": Cost(1.0, 0.3, 0.0004, None, None)}
    text = paragraph(replace(with_choice(winner="knn-8", halves=("knn-8",) * 2), costs=costs, in_money=True))
    assert "takes 300 ms and costs 0.000400" in text


def test_a_metric_that_is_no_share():
    text = paragraph(findings(is_share=False, metric="nll", higher_is_better=True))
    assert "its nll on test items that it was not chosen on is 0.785, 95 % interval 0.720 to 0.840" in text
    assert "points" not in text


def test_the_table():
    lines = decision_table(findings()).splitlines()
    assert " ".join(lines[0].split()) == "accuracy in % 64 labels 256 labels against the leader s per query s to learn"
    assert lines[1].startswith("knn-8 *")
    assert "80.0 [74.0, 85.0]" in lines[1]
    assert lines[2].startswith("embedding_head <")
    assert "none scored" in decision_table(findings())


def test_html_is_escaped():
    evil = "<script>alert(1)</script>"
    assert "<script" not in as_html(findings(metric=evil), evil)
    assert "<script" not in predictor_html(evil, {evil: evil})


def test_the_plan():
    shown = plan_lines(Plan(("majority", "knn-8"), 100, (64, 1024), 2, 400.0, 0.0123, (("finetune", 840.0),)), 10)
    assert (
        shown[1].strip() == "100 test items, label budgets 64, 1,024, 2 draws of the labels: about 6.7 min of 10 min; about 0.0123 to pay"
    )
    assert shown[2].strip() == "left out: finetune, which would take 14.0 min more"


def test_findings_as_json():
    value = as_json(findings())
    assert value["crossover"]["interval"] == [90.2, "beyond"]
    assert value["choice"]["rivals"][0]["name"] == "knn-8"
