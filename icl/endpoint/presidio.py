"""Personal data as Presidio recognises it: https://microsoft.github.io/presidio, the optional package of the extra `personal`.

By itself it finds what has a pattern and mostly check digits: telephone numbers by each country's plan, health, tax and bank numbers,
addresses of devices and wallets. With a spaCy pipeline that you have, it finds names of people and places too. Nothing is fetched.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingExtraError, Problem
from .personal import Piece, Recogniser

NAME = "presidio"
_CORE = {"PHONE_NUMBER": "phone", "CREDIT_CARD": "card", "IBAN_CODE": "iban", "IP_ADDRESS": "ip", "US_SSN": "ssn"}
"""Presidio's names of what the core has names for."""
_LEFT_OUT = frozenset({"DATE_TIME", "URL", "EMAIL_ADDRESS"})
"""A date or a link names no person; its recogniser of addresses asks the network for the list of domains, and the core finds them."""
_SURE = 0.4
"""The least score that counts, of 1: that of a telephone number that its country's plan allows. Bare digits without a check have less."""
_FIX = "Install it, for example by python -m spacy download en_core_web_sm, or name the folder of one; 'presidio' alone, without a name, needs none."


def check_presidio(option: str) -> None:
    """option: `presidio`, or `presidio:PIPELINE`; others are none of its own.

    Raises MissingExtraError without the package, InputError for a pipeline that is not there. Nothing is imported.
    """
    if not is_presidio(option):
        return
    if find_spec("presidio_analyzer") is None:
        raise MissingExtraError("presidio-analyzer", "personal", f"personal_data='{option}'")
    name = option.partition(":")[2]
    if name and not _installed(name) and not (Path(name) / "config.cfg").is_file():
        raise InputError(Problem(f"the spaCy pipeline '{name}' is neither installed nor a folder of one", _FIX, field="personal_data"))


def _installed(name: str) -> bool:
    """Whether there is a package of that name, as spaCy itself looks for it."""
    try:
        return bool(distribution(name))
    except (PackageNotFoundError, ValueError):
        return False


def is_presidio(option: str) -> bool:
    """Whether the option `personal_data` names this recogniser."""
    name, colon, pipeline = option.partition(":")
    return name == NAME and bool(pipeline) == bool(colon)


def recogniser_of(option: str) -> Recogniser:
    """What finds the pieces: with `presidio` patterns alone, with `presidio:PIPELINE` also what that spaCy pipeline (an installed package or
    a folder) takes for names.

    Raises MissingExtraError without the package, InputError for a pipeline that is not there.
    """
    check_presidio(option)
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry

    pipeline = option.partition(":")[2]
    engine = _with_pipeline(pipeline) if pipeline else _without()
    (language,) = engine.get_supported_languages()
    registry = RecognizerRegistry(supported_languages=[language])
    registry.load_predefined_recognizers(languages=[language], nlp_engine=engine)
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=[language])
    kinds = sorted(set(analyzer.get_supported_entities(language)) - _LEFT_OUT)

    def recognise(text: str) -> list[Piece]:
        found = analyzer.analyze(text, language=language, entities=kinds, score_threshold=_SURE)
        best = sorted(found, key=lambda r: (-r.score, r.start - r.end, r.start))
        return [(_CORE.get(r.entity_type, r.entity_type.lower()), r.start, r.end) for r in best]

    return recognise


def _without() -> Any:
    """Presidio's engine that reads no language: all recognisers but those of names work without one."""
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    models = [{"lang_code": "en", "model_name": "no_op"}]
    return NlpEngineProvider(nlp_configuration={"nlp_engine_name": "no_op", "models": models}).create_engine()


def _with_pipeline(name: str) -> Any:
    """An engine over a pipeline loaded here: Presidio itself would try to download one that is not there."""
    import spacy
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    try:
        pipeline = spacy.load(Path(name) if Path(name).is_dir() else name)
    except (OSError, ValueError) as error:
        message = f"the spaCy pipeline '{name}' cannot be loaded: {str(error).splitlines()[0]}"
        raise InputError(Problem(message, _FIX, field="personal_data")) from None
    engine = SpacyNlpEngine(models=[{"lang_code": pipeline.lang, "model_name": name}])
    engine.nlp = {pipeline.lang: pipeline}
    return engine
