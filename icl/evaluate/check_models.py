"""The models, encoders and endpoints that a suite names: what can be known to be wrong with them before any is loaded.

Nothing here imports torch, and nothing is asked of an endpoint.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from ..errors import InputError, Problem
from ..plugins import needs_model
from ..weights import CATALOGUE
from .loading import LoadedSuite, all_methods
from .schema import LOCAL_OPTIONS, REMOTE_OPTIONS, ModelEntry

SECRETS = frozenset({"api_key", "apikey", "key", "authorization", "password", "secret", "access_token", "bearer"})


def model_problems(loaded: LoadedSuite) -> Iterator[Problem]:
    """The suite's models and encoder, and those that its methods name."""
    keys: list[str] = []
    for n, entry in enumerate(loaded.suite.model_entries):
        value = loaded.suite.models[n]
        path = ("models", n) if isinstance(value, str) else ("models", n, "model")
        if entry.key in keys:
            yield loaded.problem(f"two models are called '{entry.key}'", "Give one of them a 'name'.", "models", n)
        keys.append(entry.key)
        name = entry.model
        if entry.remote:
            yield from _endpoint(loaded, entry, n, path)
            continue
        for option in entry.given(REMOTE_OPTIONS):
            yield loaded.problem(f"'{option}' is for endpoints, and '{name}' is none", "Take it out.", "models", n, option)
        yield from _here(loaded, name, path)
    for where, encoder in _encoders(loaded):
        if "://" in encoder:
            yield from _address(loaded, encoder, where)
    yield from _paraphrases(loaded)
    needs = [e.name for e in loaded.methods if needs_model(e.spec, loaded.plugins)]
    if needs and not keys:
        yield loaded.problem(f"'{needs[0]}' needs a language model and 'models' is empty", "Name one, such as smollm2.", "models")


def _here(loaded: LoadedSuite, name: str, path: Sequence[str | int]) -> Iterator[Problem]:
    """A model on this machine; a hub id is looked for when it is loaded."""
    if name in CATALOGUE or (loaded.folder / name).exists():
        return
    near = difflib.get_close_matches(name, CATALOGUE, n=1, cutoff=0.8)
    if name.startswith((".", "/", "~")) or name.endswith(".gguf") or name.count("/") > 1:
        fix = f"Looked for {loaded.folder / name}; paths are relative to the suite."
        yield loaded.problem(f"there is no model folder or file '{name}'", fix, *path)
    elif near:
        yield loaded.problem(f"there is no model '{name}'", f"Did you mean '{near[0]}'? Or give a folder.", *path)


def _paraphrases(loaded: LoadedSuite) -> Iterator[Problem]:
    """What methods have their rows said in other words by: the model, and a template with one input field."""
    from ..prompt import Template, bind

    for entry in loaded.methods:
        for at, spec in all_methods(entry.spec, loaded.plugins):
            augment = spec.settings.get("augment")
            how = augment.get("paraphrase") if isinstance(augment, Mapping) else None
            if not isinstance(how, Mapping):
                continue
            path: tuple[str | int, ...] = ("methods", entry.position, *at, "augment", "paraphrase")
            name, template = str(how.get("model", "")), str(how.get("template", "rewrite"))
            yield from (_address if "://" in name else _here)(loaded, name, (*path, "model"))
            try:
                found = Template.load(loaded.template_path(template), loaded.templates)
                bind(found, kind="answer", inputs=found.inputs, labels=())
            except InputError as error:
                yield from (loaded.problem(p.message, p.fix, *path, "template") if p.file is None else p for p in error.problems)
                continue
            if len(found.inputs) != 1:
                message = f"the template '{template}' has the input fields {', '.join(found.inputs)}, and a text is one"
                yield loaded.problem(message, "Name a template with one input field, such as rewrite.", *path, "template")


def _endpoint(loaded: LoadedSuite, entry: ModelEntry, n: int, path: Sequence[str | int]) -> Iterator[Problem]:
    """A model behind an address: nothing is asked of it here."""
    yield from _address(loaded, entry.model, path)
    for option in entry.given(LOCAL_OPTIONS):
        yield loaded.problem(f"'{option}' is for models on this machine, not for an endpoint", "Take it out.", "models", n, option)
    from ..endpoint.presidio import check_presidio
    from ..model.remote.options import remote_options

    try:
        check_presidio(remote_options(entry.options()).personal_data)
    except InputError as error:
        for problem in error.problems:
            where = problem.field or "personal_data"  # a package that is missing has no field
            yield loaded.problem(problem.message, problem.fix, "models", n, *where.split("."))
    for key in entry.extra_body or ():
        if key.lower().replace("-", "_") in SECRETS:
            fix = "Export it as an environment variable and name that: api_key_env: OPENAI_API_KEY."
            yield loaded.problem(f"'{key}' looks like a secret, and a suite is copied into every run", fix, "models", n, "extra_body", key)


def _address(loaded: LoadedSuite, address: str, path: Sequence[str | int]) -> Iterator[Problem]:
    from ..endpoint.address import parse as parse_address

    try:
        found = parse_address(address)
    except InputError as error:
        yield from (loaded.problem(problem.message, problem.fix, *path) for problem in error.problems)
        return
    if not found.model:
        yield loaded.problem("the address names no model", "Write https://host/v1#model-name.", *path)


def _encoders(loaded: LoadedSuite) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(place, name) of the suite's encoder, and of those that methods name instead."""
    yield ("encoder",), loaded.suite.encoder
    for entry in loaded.methods:
        own = entry.spec.settings.get("encoder")
        if isinstance(own, str):
            yield ("methods", entry.position, entry.spec.name, "encoder"), own
