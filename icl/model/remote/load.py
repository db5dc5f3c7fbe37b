"""`load_model` and `load_codec` for an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ...endpoint.address import parse
from ...endpoint.presidio import check_presidio
from ...errors import InputError, Problem, suggest
from .options import RemoteOptions, remote_options

if TYPE_CHECKING:
    from ...protocols import PromptCodec
    from .client import RemoteModel


def is_address(name: str) -> bool:
    """True for `http://…` and `https://…`."""
    return name.lower().startswith(("http://", "https://"))


def load_remote(name: str, local: Mapping[str, Any], given: Mapping[str, Any], codec: Callable[[Any], PromptCodec]) -> RemoteModel:
    """The model behind an address.

    local: options of models on this machine, None where not given. given: `RemoteOptions`. codec: loads the tokenizer that is named.
    Raises InputError for options that cannot be, for a server that cannot be reached, and for a model that it does not serve;
    MissingExtraError for a recogniser of personal data that is not installed.
    """
    problems = [
        Problem(f"'{option}' says nothing about a remote model", "Leave it out; the server decides.", field=option)
        for option, value in local.items()
        if value is not None
    ]
    try:
        options = remote_options(given)
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    check_presidio(options.personal_data)
    address = parse(name)
    from ..codec import CountingCodec, TokenizerCodec
    from .client import RemoteModel

    tokens = codec(options.tokenizer) if options.tokenizer is not None else None
    assert tokens is None or isinstance(tokens, TokenizerCodec | CountingCodec)
    return RemoteModel(address, options, tokens)


def refuse_remote_options(name: str, given: Mapping[str, Any]) -> None:
    """Raises InputError for options that a model on this machine does not take."""
    problems = []
    for option in given:
        if option in {each.name for each in fields(RemoteOptions)}:
            problems.append(
                Problem(f"'{option}' is an option of remote models, and '{name}' is on this machine", "Leave it out.", field=option)
            )
        else:
            known = ("device", "dtype", "memory", "max_batch", "revision", "adapter", "quantization")
            problems.append(Problem(f"load_model has no option '{option}'", suggest(option, known), field=option))
    if problems:
        raise InputError(problems)
