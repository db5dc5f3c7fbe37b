"""The options of a remote model, checked together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from ...endpoint.meter import Prices
from ...endpoint.presidio import is_presidio
from ...endpoint.wire import Patience
from ...errors import InputError, Problem, suggest
from ...protocols import Estimator
from .dialect import checked_extra


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """What `load_model("https://…")` takes."""

    api_key_env: str | None = None
    """The environment variable with the key; None: `OPENAI_API_KEY`, if it is set."""
    concurrency: int = 8
    """Most requests at once."""
    prices: Mapping[str, float] | None = None
    """Per million tokens: `{"input": …, "output": …}`, and `"cached"` if cached input costs less."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Fields added to every request (`{"chat_template_kwargs": {"enable_thinking": False}}`); None takes a field out."""
    tokenizer: str | Path | Callable[[str], int | Sequence[int]] | None = None
    """The model's tokenizer: a hub id, a folder, a catalogue name. Prompts then go as token ids where the server takes them."""
    window: int | None = None
    """Most tokens the model reads, where the server does not say."""
    estimator: Estimator | None = None
    """None: the best that the probe finds."""
    mark_cache: bool = False
    """Mark in chat requests up to where a prompt is shared with others (`Prompt.cache_break`), for providers that cache only what is
    marked. Servers that do not know `cache_control` may refuse it."""
    personal_data: str = "send"
    """`replace`: e-mail addresses, account, card and telephone numbers go as stand-ins (`[EMAIL_1]`), which are put back in what comes.
    `presidio`: what that package recognises too; `presidio:PIPELINE`: and the names that a spaCy pipeline finds."""
    timeout: float = 120.0
    """Seconds for one attempt."""
    max_cost: float | None = None
    """In the currency of `prices`."""

    @property
    def patience(self) -> Patience:
        return Patience(attempt_s=self.timeout, total_s=max(900.0, 4 * self.timeout))

    def given(self) -> dict[str, Any]:
        """The options that differ from the defaults, for a saved reference: what JSON can hold. The cost limit is of a run, not of a model,
        and a function that counts tokens cannot be saved; without it they are estimated."""
        default = RemoteOptions()
        found = {option.name: getattr(self, option.name) for option in fields(self) if option.name != "max_cost"}
        tokenizer = self.tokenizer
        if tokenizer is not None:
            found["tokenizer"] = None if callable(tokenizer) else _absolute(tokenizer)
        return {name: value for name, value in found.items() if value != getattr(default, name)}


def _absolute(tokenizer: str | Path) -> str:
    """A folder by its full path, so that the reference holds elsewhere; names as they are."""
    path = Path(tokenizer).expanduser()
    return str(path.resolve()) if path.exists() else str(tokenizer)


def remote_options(given: Mapping[str, Any]) -> RemoteOptions:
    """Raises InputError with all that is wrong."""
    known = {option.name for option in fields(RemoteOptions)}
    problems = [Problem(f"a remote model has no option '{name}'", suggest(name, known), field=name) for name in given if name not in known]
    chosen = {name: value for name, value in given.items() if name in known}
    options = RemoteOptions(**{name: value for name, value in chosen.items() if value is not None})
    for check in (lambda: checked_extra(options.extra_body), lambda: Prices.of(options.prices)):
        try:
            check()
        except InputError as error:
            problems += error.problems
    if isinstance(options.concurrency, bool) or not isinstance(options.concurrency, int) or options.concurrency < 1:
        problems.append(Problem(f"concurrency is {options.concurrency!r}", "Give a whole number of at least 1.", field="concurrency"))
    if chosen.get("mark_cache") not in (True, False, None):
        problems.append(Problem(f"mark_cache is {chosen['mark_cache']!r}", "Give True or False.", field="mark_cache"))
    hides = options.personal_data
    if hides not in ("send", "replace") and not (isinstance(hides, str) and is_presidio(hides)):
        fix = "Give 'send', 'replace', 'presidio' or 'presidio:PIPELINE'."
        problems.append(Problem(f"personal_data is {hides!r}", fix, field="personal_data"))
    if options.window is not None and (not isinstance(options.window, int) or options.window < 1):
        problems.append(Problem(f"window is {options.window!r}", "Give a number of tokens.", field="window"))
    if options.estimator is not None and options.estimator not in get_args(Estimator):
        problems.append(
            Problem(f"there is no estimator '{options.estimator}'", suggest(str(options.estimator), get_args(Estimator)), field="estimator")
        )
    for name, value in (("timeout", options.timeout), ("max_cost", options.max_cost)):
        if value is not None and (not isinstance(value, int | float) or not math.isfinite(value) or value <= 0):
            problems.append(Problem(f"{name} is {value!r}", "Give a number above 0.", field=name))
    if options.max_cost is not None and options.prices is None:
        problems.append(Problem("a cost limit needs prices", "Give prices={'input': …, 'output': …}, per million tokens.", field="prices"))
    if problems:
        raise InputError(problems)
    return options
