"""One model on several devices: every device has it whole, items are spread, results come back in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict
from functools import cached_property
from typing import Any, TypeVar, cast

from ..errors import InputError, Problem
from ..protocols import Estimator, LanguageModel, PromptCodec
from ..values import LabelScores, TokenCounts, Totals
from .encoding import Context

R = TypeVar("R")


class Replicas:
    """The LanguageModel protocol over equal models, one thread each.

    models: the same weights in the same dtype. Prompts are sorted and cut into one block per model, of about equal length in
    characters, so that prompts with a common beginning stay together; a beginning that two blocks share is computed in both. Scores
    are those of one model, within the rounding between batches; samples are the same.
    """

    estimator: Estimator = "loglikelihood"

    def __init__(self, models: Sequence[LanguageModel], *, reference: Mapping[str, Any] | None = None) -> None:
        if not models:
            raise InputError(Problem("no model to spread items over", "Give at least one."))
        self.models = tuple(models)
        self.reference: Mapping[str, Any] = dict(reference or models[0].reference)

    @property
    def name(self) -> str:
        return self.models[0].name

    @cached_property
    def fingerprint(self) -> str:
        return self.models[0].fingerprint

    @property
    def window(self) -> int:
        return self.models[0].window

    @property
    def dtype(self) -> str:
        return self.models[0].dtype

    @property
    def device(self) -> str:
        """The devices of all, `cuda:0,cuda:1`."""
        return ",".join(model.device for model in self.models)

    @property
    def examined(self) -> Any:
        """What the check at load time found, for the first of them."""
        return getattr(self.models[0], "examined", None)

    @property
    def approximation(self) -> str | None:
        """As one model's."""
        return getattr(self.models[0], "approximation", None)

    @property
    def why_not_parallel(self) -> str | None:
        """As one model's."""
        return getattr(self.models[0], "why_not_parallel", "it is an encoder-decoder model")

    @property
    def totals(self) -> Totals:
        """The tokens of all models together."""
        each = [asdict(getattr(model, "totals", Totals())) for model in self.models]
        return Totals(**{name: sum(found[name] for found in each) for name in each[0]})

    @property
    def codec(self) -> PromptCodec:
        return self.models[0].codec

    def count_tokens(self, text: str) -> int:
        return self.models[0].count_tokens(text)

    def score(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[LabelScores]:
        """As one model's."""
        if len(contexts) != len(continuations):
            return self.models[0].score(contexts, continuations)  # which says what is wrong
        return self._spread(
            contexts,
            lambda model, block: model.score([contexts[i] for i in block], [continuations[i] for i in block]),
            lambda: self.models[0].plan(contexts, continuations),
        )

    def loglikelihoods(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """The sums of `score` alone."""
        return [list(scores.sums) for scores in self.score(contexts, continuations)]

    def plan(self, contexts: Sequence[Context], continuations: Sequence[Sequence[str]]) -> TokenCounts:
        """Tokens that all models together compute in `score`."""
        total = TokenCounts(0, 0)
        for block in self._blocks(contexts):
            total += self.models[0].plan([contexts[i] for i in block], [continuations[i] for i in block])
        return total

    def generate(self, prompts: Sequence[Context], max_new_tokens: int = 64, stop: Sequence[str] = ("\n",)) -> list[str]:
        """As one model's."""
        return self._spread(
            prompts,
            lambda model, block: model.generate([prompts[i] for i in block], max_new_tokens, stop),
            lambda: self.models[0].generate(prompts, 0),
        )

    def sample(
        self,
        prompts: Sequence[Context],
        n: int = 8,
        temperature: float = 0.7,
        seed: int = 0,
        max_new_tokens: int = 64,
        stop: Sequence[str] = ("\n",),
    ) -> list[list[str]]:
        """As one model's: a sample depends on the seed, the prompt and its number, so not on the device."""
        return self._spread(
            prompts,
            lambda model, block: model.sample([prompts[i] for i in block], n, temperature, seed, max_new_tokens, stop),
            lambda: self.models[0].generate(prompts, 0),
        )

    def weighed(
        self, prompts: Sequence[Context], n: int, temperature: float, seed: int, max_new_tokens: int, stop: Sequence[str]
    ) -> list[list[tuple[str, float]]]:
        """As one model's."""
        return self._spread(
            prompts,
            lambda model, block: cast(Any, model).weighed([prompts[i] for i in block], n, temperature, seed, max_new_tokens, stop),
            lambda: self.models[0].generate(prompts, 0),
        )

    def _blocks(self, contexts: Sequence[Context]) -> list[list[int]]:
        """Places of the items of each model; fewer blocks than models where there are fewer items."""
        order = sorted(range(len(contexts)), key=lambda i: str(contexts[i]))
        total = sum(len(str(context)) + 1 for context in contexts)
        blocks: list[list[int]] = [[] for _ in self.models]
        seen = 0
        for i in order:
            blocks[min(seen * len(blocks) // total, len(blocks) - 1)].append(i)
            seen += len(str(contexts[i])) + 1
        return [block for block in blocks if block]

    def _spread(
        self, contexts: Sequence[Context], run: Callable[[LanguageModel, list[int]], list[R]], complain: Callable[[], object]
    ) -> list[R]:
        """run(model, block) for all blocks at once. complain: raises for all items, in their own order, what one block cannot take."""
        blocks = self._blocks(contexts)
        with ThreadPoolExecutor(len(self.models), thread_name_prefix="replica") as threads:
            futures = [threads.submit(run, model, block) for model, block in zip(self.models, blocks, strict=False)]
            wait(futures, return_when=FIRST_EXCEPTION)
            failed = next((found for future in futures if future.done() and (found := future.exception())), None)
        if isinstance(failed, InputError):
            complain()
        if failed is not None:
            raise failed
        return [result for _, result in sorted(self._placed(blocks, [future.result() for future in futures]))]

    @staticmethod
    def _placed(blocks: Sequence[list[int]], results: Sequence[list[R]]) -> Iterator[tuple[int, R]]:
        for block, found in zip(blocks, results, strict=True):
            yield from zip(block, found, strict=True)


def devices(device: str | None) -> list[str]:
    """The devices that `device=` names: one, several, or `auto`. Raises InputError."""
    import torch

    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        return ["cuda" if n_cuda else "cpu"]
    if device == "all" and n_cuda:
        return [f"cuda:{i}" for i in range(n_cuda)]
    names = [name.strip() for name in device.split(",")]
    problems = []
    for name in names if names != ["auto"] else []:
        try:
            found = torch.device(name)
        except RuntimeError:
            fix = "Use 'cpu', 'cuda', 'cuda:1', several ('cuda:0,cuda:1'), 'all' or 'auto'."
            problems.append(Problem(f"'{name}' is no device here", fix, field="device"))
        else:
            if found.type == "cuda" and (found.index or 0) >= n_cuda:
                there = f"torch finds {n_cuda} CUDA devices" if n_cuda else "torch finds no CUDA"
                problems.append(Problem(f"the device '{name}' is not there: {there}", "Use device='cpu'.", field="device"))
    if problems:
        raise InputError(problems)
    return names
