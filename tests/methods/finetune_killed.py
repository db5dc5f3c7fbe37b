"""Trains a model again and again, kills each training at a random point, goes on, and prints what the ends predict.

finetune_killed.py BASE FOLDER
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from test_finetune import method, rows, shares_of

from icl import load_model
from icl.train import loop


def fitted(lm, work):
    return method(lm, kind="lora", epochs=5, work=work).fit(rows(48), ("red", "green", "blue"))


def killed(lm, work, at):
    """Trains in a process of its own, with a checkpoint after every step, until one of step `at` begins to be written."""
    child = os.fork()
    if not child:
        try:
            fitted(lm, work)
        finally:
            os._exit(1)
    while not any(int(path.name.split("-")[1]) >= at for path in work.glob("fit/checkpoint-*")):
        time.sleep(0.001)
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
    time.sleep(random.Random(at).uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(base, folder):
    torch.set_num_threads(1)
    lm = load_model(base, device="cpu")
    loop.train.__kwdefaults__["checkpoint_every_s"] = 0.0
    queries = rows(24, seed=1)
    ends = [shares_of(fitted(lm, None), queries)]
    for at in random.Random(7).sample(range(1, 28), 10):
        work = folder / str(at)
        assert killed(lm, work, at) == -signal.SIGKILL
        assert (work / "fit").is_dir()
        ends.append(shares_of(fitted(lm, work), queries))
        assert not work.exists()
    print(json.dumps(ends))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
