"""Trains a model again and again, kills each training at a random point, goes on, and prints what the ends predict.

finetune_killed.py BASE FOLDER
"""

import json
import random
import sys
from pathlib import Path

import torch
from killing import killed
from test_finetune import method, rows, shares_of

from icl import load_model
from icl.train import loop


def fitted(lm, work):
    return method(lm, kind="lora", epochs=5, work=work).fit(rows(48), ("red", "green", "blue"))


def fit_until_killed(lm, work, at):
    """Trains with a checkpoint after every step, until one of step `at` begins to be written."""
    killed(
        lambda: fitted(lm, work),
        lambda: any(int(path.name.split("-")[1]) >= at for path in work.glob("fit/checkpoint-*")),
        random.Random(at).uniform(0, 0.03),
    )


def main(base, folder):
    torch.set_num_threads(1)
    lm = load_model(base, device="cpu")
    loop.train.__kwdefaults__["checkpoint_every_s"] = 0.0
    queries = rows(24, seed=1)
    ends = [shares_of(fitted(lm, None), queries)]
    for at in random.Random(7).sample(range(1, 28), 10):
        work = folder / str(at)
        fit_until_killed(lm, work, at)
        assert (work / "fit").is_dir()
        ends.append(shares_of(fitted(lm, work), queries))
        assert not work.exists()
    print(json.dumps(ends))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
