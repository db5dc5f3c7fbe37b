"""Searches for settings, is killed in the middle of a training, goes on, and prints what both ends found and predict.

search_killed.py BASE FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from killing import killed
from test_searched import fit, rows


def end(predictor):
    shares = [list(p.probabilities.values()) for p in predictor.predict(rows(6, seed=3))]
    found = {name: value for name, value in predictor.training["search"].items() if name != "seconds"}
    return [shares, found]


def main(base, work):
    torch.set_num_threads(1)
    whole = end(fit(base, rows(40), validation=0.25, search=5))
    file = work / "search.json"
    killed(
        lambda: fit(base, rows(40), work, validation=0.25, search=5),
        lambda: file.is_file() and len(json.loads(file.read_text())["tried"]) >= 3,
        after_s=0.05,
    )
    print(json.dumps([whole, end(fit(base, rows(40), work, validation=0.25, search=5)), work.exists()]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
