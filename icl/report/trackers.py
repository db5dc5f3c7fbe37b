"""A finished run in the trackers of others: MLflow and Weights & Biases. Nothing here changes a run or its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError
from ..evaluate.results import RESULTS, TIMING
from ..values import canonical_json

Document = Mapping[str, Any]
FIGURES = ("value", "low", "high", "n_scored", "n_failed")
"""Of a record."""
MOST_TEXT = 5_000
"""Characters of a parameter that MLflow keeps."""


def to_mlflow(folder: Path, document: Document, to: Path | None) -> str:
    """An MLflow run for the run, with its files, and below it one for every method at each label budget, with its figures over all seeds.

    The experiment is named after the suite. to: a folder for MLflow's files; None: where `MLFLOW_TRACKING_URI` says. Returns where it is.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param
    except ImportError:
        raise MissingExtraError("mlflow", "mlflow", "tracking a run in MLflow") from None
    if to is not None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3.10 on asks for it
    client = MlflowClient(tracking_uri=None if to is None else to.resolve().as_uri())
    name = str(document["manifest"]["name"])
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known is not None else client.create_experiment(name)
    whole = client.create_run(experiment, run_name=folder.resolve().name).info.run_id
    try:
        facts = {key: _text(value) for key, value in document["manifest"].items() if value is not None}
        client.log_batch(whole, params=[Param(key, value) for key, value in facts.items()])
        for group, records in _groups(document).items():
            parts = dict(zip(("model", "task", "method", "budget"), group, strict=True))
            title = " ".join(str(part) for part in (parts["method"], parts["model"], parts["task"], parts["budget"]) if part is not None)
            one = client.create_run(experiment, run_name=title, tags={"mlflow.parentRunId": whole}).info.run_id
            metrics = [
                Metric(key, float(value), client.get_run(one).info.start_time, 0)
                for record in records
                for key, value in _named(record["metric"], record).items()
            ]
            client.log_batch(one, metrics, [Param(key, str(value)) for key, value in parts.items() if value is not None])
            client.set_terminated(one)
        for file in (RESULTS, TIMING, "report.html"):
            if (folder / file).is_file():
                client.log_artifact(whole, str(folder / file))
    except BaseException:
        client.set_terminated(whole, "FAILED")
        raise
    client.set_terminated(whole)
    return f"MLflow: experiment {name}, run {whole}"


def to_wandb(folder: Path, document: Document, to: Path | None) -> str:
    """One run of Weights & Biases: the manifest as its configuration, the records as a table, the figures over all seeds as its summary.

    The project is named after the suite. to: a folder for its files, by default that of the run. `WANDB_MODE=offline` sends nothing.
    """
    try:
        import wandb
    except ImportError:
        raise MissingExtraError("wandb", "wandb", "tracking a run in Weights & Biases") from None
    place = folder if to is None else to
    place.mkdir(parents=True, exist_ok=True)
    manifest = dict(document["manifest"])
    run = wandb.init(project=str(manifest["name"])[:100], name=folder.resolve().name, dir=str(place), config=manifest)
    try:
        columns = [key for key in (document["records"] or [{}])[0] if isinstance(key, str)]
        rows = [[str(r[c]) if c == "budget" and r[c] is not None else r.get(c) for c in columns] for r in document["records"]]
        run.log({"figures": wandb.Table(columns=columns, data=rows, allow_mixed_types=True)})
        for (model, task, method, budget), records in _groups(document).items():
            path = "/".join(str(part) for part in (task, method, model, budget) if part is not None)
            for record in records:
                run.summary.update({f"{path}/{key}": value for key, value in _named(record["metric"], record).items()})
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()
    return f"Weights & Biases: project {manifest['name']}, run {run.id}"


def _groups(document: Document) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """(model, task, method, budget) -> its records over all seeds."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for record in document["records"]:
        if record["seed"] is None:
            groups.setdefault((record["model"], record["task"], record["method"], record["budget"]), []).append(record)
    return groups


def _named(metric: str, record: Mapping[str, Any]) -> dict[str, float]:
    """A record as figures with names of their own."""
    found = {f"{metric}{'' if key == 'value' else f'_{key}'}": record[key] for key in FIGURES if record.get(key) is not None}
    return {key: float(value) for key, value in found.items()}


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else canonical_json(value))[:MOST_TEXT]
