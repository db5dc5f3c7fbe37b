"""Every benchmark runs, in its quick form, on a tiny random model: no measurement, only that scripts and peers do not rot."""

import json
import sys
from pathlib import Path

import pytest
import tiny
import torch

SCRIPTS = Path(__file__).resolve().parent / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    before, threads = list(sys.path), torch.get_num_threads()
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path[:] = before
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny.save(tmp_path_factory.mktemp("tiny")))


def quick(folder, *more):
    return ["--quick", "--model", folder, "--threads", "1", "--repeats", "2", "--dtype", "float32", *more]


def test_scoring_agrees_with_two_other_programs(scripts, folder, capsys):
    import bench_score

    found = bench_score.main(quick(folder, "--peers", "openicl,transformers", "--batch-sizes", "1,2"))
    printed = capsys.readouterr().out
    assert json.loads(printed.splitlines()[-1]) == found
    assert [entry["work"] for entry in found["works"]] == ["W1", "W2", "W3", "W4"]
    assert not found["absent"]
    for entry in found["works"]:
        assert 0 < entry["unique_tokens"] <= entry["computed_tokens"] < entry["naive_tokens"]
        assert entry["limit_s"] > 0
        assert len(entry["ours"]["runs_s"]) == 2
        for peer in entry["peers"].values():
            assert peer["beyond_tolerance"] == peer["changed_predictions"] == 0
            assert peer["ratio"] > 0


def test_generation_writes_the_same_texts_as_transformers(scripts, folder, capsys):
    import bench_generate

    found = bench_generate.main(quick(folder, "--peers", "generate,llama.cpp", "--batch-sizes", "2,4"))
    assert list(found["absent"]) == ["llama.cpp"]  # no .gguf file is given
    assert "absent: llama.cpp" in capsys.readouterr().out
    assert [entry["work"] for entry in found["works"]] == ["W5-equal", "W5-varied"]
    for entry in found["works"]:
        assert entry["peers"]["generate"]["same_texts"] == 4
        assert entry["peers"]["generate"]["batch"] in (2, 4)
    assert found["works"][0]["ours"]["n_tokens"] == 4 * 8


def test_memory_is_measured(scripts, capsys):
    import bench_memory

    found = bench_memory.main(["--quick", "--threads", "1"])
    assert [row["n_prompts"] for row in found["sizes"]] == [2, 6]
    assert all(row["unique_tokens"] > 0 and row["peak_above_mib"] >= 0 for row in found["sizes"])


@pytest.mark.slow
def test_a_peer_in_another_environment_answers_the_same(scripts, folder):
    """The server, run by this environment's own python."""
    from _peers import Loaded
    from _serve import Where, close, made, open_peer

    where = Where(folder, "cpu", "float32", 1)
    remote = open_peer("transformers", where, python=sys.executable)
    here = made("transformers", where, Loaded(folder, "cpu", "float32", 1))
    asked = (["Article: oil\nTopic:", "Article: the cup\nTopic:"], [[" a", " business news"]] * 2, 2)
    assert remote.version == here.version
    assert remote.score(*asked)["values"] == here.score(*asked)["values"]
    with pytest.raises(RuntimeError, match="the server ended with code 1"):
        remote.score("this", "is no work")
    close(remote)
    assert "no such" in open_peer("vllm", where, python="/nowhere/python").casefold()


def test_the_work_is_the_same_in_every_run(scripts):
    from _work import SCORING, WRITING, scoring, writing

    for name, shape in SCORING.items():
        work = scoring(name, None)
        assert work == scoring(name, None)
        assert len(work.contexts) == len(set(work.contexts)) == shape.queries
        assert len(work.continuations[0]) == (4 if shape.data == "agnews" else 77)
        starts = {context[:300] for context in work.contexts}
        assert len(starts) == (1 if shape.shared else shape.queries)
        assert len(scoring(name, None, 500).contexts) == 500
    for name in WRITING:
        work = writing(name, None)
        assert work == writing(name, None)
        assert len(set(work.prompts)) == 64


def test_unique_tokens_of_a_tree_counted_by_hand(scripts):
    """Two contexts that share two tokens; two labels that share one. The last token of a label is never computed."""
    from _limit import unique

    class Letters:
        def __call__(self, texts):
            return type("Encoded", (), {"input_ids": [[ord(letter) for letter in text] for text in texts]})

    found = unique(Letters(), ["abc", "abd"], [["xy", "xz"], ["xy", "xz"]])
    assert found.tokens == len("abc") + len("x") + len("d") + len("x")
    assert found.positions == 1 + 2 + 3 + 4 + 3 + 4
    assert found.reads == 4  # behind c, cx, d, dx
    assert found.naive == 4 * 4
