"""Strings that would do something in a page that does not take them for text, 200 of them, each with its own number; and a run full of them."""

import json
import sqlite3

import pytest

import icl
from icl.evaluate.results import PAGE
from icl.report.page_answer import Answer
from icl.report.plots import Crossing
from icl.report.runs import Source
from icl.suite import open_run

ADDRESS = "http://icl-hostile.invalid"
"""Where the strings would send a request. Nothing answers there."""
_PAYLOADS = (
    "<script>hit({n})</script>", "<script src={a}/{n}.js></script>", "<img src=x onerror=hit({n})>", "<img src={a}/{n}.png>",
    "<svg onload=hit({n})>", "<svg><script>hit({n})</script></svg>", "<svg><animate onbegin=hit({n}) attributeName=x dur=1s>",
    "<iframe src=javascript:hit({n})></iframe>", "<iframe srcdoc='<script>parent.hit({n})</script>'>", "<object data={a}/{n}>",
    "<embed src={a}/{n}>", "<link rel=stylesheet href={a}/{n}.css>", "<style>@import '{a}/{n}.css';</style>",
    "<style>*{{background:url({a}/{n})}}</style>", "<body onload=hit({n})>", "<details open ontoggle=hit({n})>", "<video><source onerror=hit({n})>",
    "<input autofocus onfocus=hit({n})>", "<meta http-equiv=refresh content='0;url={a}/{n}'>", "<base href={a}/{n}/>", "<form action={a}/{n}><button>",
    "<a href=javascript:hit({n})>go</a>", "<math><mtext><table><mglyph><style><img src=x onerror=hit({n})>", "<template><img src={a}/{n}></template>",
    "<audio src={a}/{n} autoplay>", "<input type=image src={a}/{n}>", "<img srcset='{a}/{n} 1x'>", "<use href={a}/{n}#x>", "<image href={a}/{n}>",
    "<foreignObject><img src=x onerror=hit({n})></foreignObject>", "javascript:hit({n})", "data:text/html,<script>hit({n})</script>",
    "&lt;script&gt;hit({n})&lt;/script&gt;", "&#60;img src=x onerror=hit({n})&#62;", "\\u003cscript>hit({n})</script>", "${{hit({n})}}", "{{{{hit({n})}}}}",
    "`);hit({n})//", "\");hit({n})//", "');hit({n})//",
)  # fmt: skip
_AROUND = ("{}", '"><{}', "'>{}", "</title></style></script></textarea></svg>{}", "--><!--]]>{}\u2028\u202e\x0b")
HOSTILE = tuple(
    around.format(payload.format(n=5 * p + w, a=ADDRESS)) for p, payload in enumerate(_PAYLOADS) for w, around in enumerate(_AROUND)
)
"""Each calls `hit` or asks ADDRESS for something."""


def hostile_source(run):
    """A run whose manifest, data reports, read-outs, stages, counts and trainings say such things, and a decision that does."""
    each = {text: {"value": text, text: [text]} for text in HOSTILE}
    document = json.loads(json.dumps(run.document))
    document["manifest"] |= {"name": HOSTILE[6], "description": " ".join(HOSTILE), "more": each, "machine": {"threads": HOSTILE[8]}}
    for at, record in enumerate((*document["records"], *document["readouts"])):
        record |= {key: HOSTILE[at % 200] for key in ("estimator", "readout", "calibration") if key in record}
    for at, task in enumerate(document["tasks"].values()):
        task["rejected"] = dict.fromkeys(HOSTILE, at)
        task["holdout"] = HOSTILE[at]
    document["thresholds"] = [
        {"task": text, "model": text, "method": text, "metric": text, "value": 0.5, "threshold": 1.0, "met": False} for text in HOSTILE
    ]
    curve = [{"epoch": n, **dict.fromkeys(HOSTILE[:3], n)} for n in (1, 2)]
    cells = [{**cell, "training": {"curve": curve, "seed": HOSTILE[4]}} for cell in run.timing["cells"]]
    data = {task: list(HOSTILE) for task in document["tasks"]}
    answer = Answer(
        HOSTILE[0],
        HOSTILE,
        [(text, text) for text in HOSTILE],
        [HOSTILE[:3], HOSTILE[3:6]],
        HOSTILE[7],
        "accuracy",
        Crossing(5, 2, 9, HOSTILE[9]),
    )
    return Source(run.folder, document, {**run.timing, "cells": cells}, data), answer


FAILS = '''"""A method that cannot be asked."""
from pydantic import BaseModel

KIND = "method"
KINDS = frozenset({"classify"})
NEEDS_LABELS, NEEDS_MODEL = True, False


class Settings(BaseModel):
    says: str


class Fails:
    def __init__(self, says):
        self.says = says

    def fit(self, pool, labels=(), unlabelled=()):
        raise RuntimeError(self.says)


def build(settings, context):
    return Fails(settings.says)
'''


def hostile_folder(folder, model):
    """A run whose texts, labels, names, settings and errors are such strings. model: the folder of a language model.

    Names are checked by a suite, so here they are put into the files of a finished run.
    """
    test = [{"text": text, "label": HOSTILE[n % 8]} for n, text in enumerate(HOSTILE)]
    train = [{"text": f"{n} {HOSTILE[n + 40]} {n + 1} {HOSTILE[n]}", "label": HOSTILE[n % 8]} for n in range(40)]
    folder.parent.joinpath("fails.py").write_text(FAILS, encoding="utf-8")
    template = "---\ndescription: |\n  {0}\ninput: [text]\n---\n{{% block example %}}{0}{{{{ text }}}}{{% endblock %}}\n{{% block answer %}} {{{{ answer }}}}{{% endblock %}}\n"
    folder.parent.joinpath("evil.jinja").write_text(template.format(HOSTILE[5]), encoding="utf-8")
    suite = {
        "description": "DESCRIPTION",
        "models": [{"model": str(model), "name": "MODELNAME"}],
        "tasks": [{"name": "TASKNAME", "train": train, "test": test, "template": str(folder.parent / "evil.jinja")}],
        "methods": [
            {"name": "METHODNAME", "majority": {}}, {"name": "prompts", "few_shot": {"retriever": "random", "shots": 1}},
            {"name": "ERRORNAME", "fails": {"says": HOSTILE[8]}},
        ],
        "budgets": ["all"], "metrics": ["accuracy", "ece"], "thresholds": {"METHODNAME": {"accuracy": 0.999}},
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})
        icl.run(suite, folder, plugins=[folder.parent])
    names = dict(zip(("DESCRIPTION", "TASKNAME", "MODELNAME", "METHODNAME", "ERRORNAME"), HOSTILE, strict=False))
    for file in folder.glob("*.json"):
        file.write_text(_renamed(file.read_text(encoding="utf-8"), names), encoding="utf-8")
    with sqlite3.connect(folder / "store.sqlite") as db:
        db.create_function("renamed", 1, lambda text: _renamed(text, names))
        for table, column in (("items", "cell"), ("prompts", "cell"), ("cells", "cell"), ("meta", "value")):
            db.execute(f"UPDATE {table} SET {column} = renamed({column})")
        for table in ("tests", "shown"):
            db.execute(f"UPDATE {table} SET task = ?", (names["TASKNAME"],))
    run = open_run(folder)
    run.to_html(folder / PAGE)
    return folder


def _renamed(text, names):
    """JSON with other names. As the store writes its keys: not only in ASCII."""
    for old, new in names.items():
        text = text.replace(old, json.dumps(new, ensure_ascii=False)[1:-1])
    return text
