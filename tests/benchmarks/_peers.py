"""Other programs that do the same work, each as a class with `score` or `generate`: their own timers, their own tokenising inside.

Imported by the benchmarks for what is importable there, and by `_serve.py` in environments that do not have icl: nothing of icl is
imported here. `score(contexts, continuations, batch)` gives {seconds, values in nats}; `generate(prompts, max_new_tokens, stop, batch)`
gives {seconds, prefill_s or None, texts, n_tokens}. Loading is never timed.
"""

from __future__ import annotations

import importlib.metadata
import logging
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from _limit import synchronize

Texts = Sequence[str]


def _versions(*packages: str) -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


class Loaded:
    """A transformers model and its tokenizer, shared by the peers that run on them."""

    def __init__(self, folder: str, device: str, dtype: str, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def encoded(self, contexts: Texts, continuations: Sequence[Texts]) -> list[list[tuple[list[int], int]]]:
        """For each context, for each continuation: token ids encoded together, and the tokens of the context in them."""
        heads = self.tokenizer(list(contexts)).input_ids
        joint = iter(self.tokenizer([c + text for c, texts in zip(contexts, continuations, strict=True) for text in texts]).input_ids)
        return [[(next(joint), len(head)) for _ in texts] for head, texts in zip(heads, continuations, strict=True)]


class LmEval:
    """lm-evaluation-harness: log-softmax over every position and the whole vocabulary; shares a context between one-token continuations."""

    def __init__(self, loaded: Loaded) -> None:
        logging.disable(logging.WARNING)  # it warns of a model handed over as an object, which is how it is loaded here
        from lm_eval.models.huggingface import HFLM

        self._loaded, self._class = loaded, HFLM
        self.version = _versions("lm_eval", "torch", "transformers")

    def score(self, contexts: Texts, continuations: Sequence[Texts], batch: int) -> dict[str, Any]:
        from lm_eval.api.instance import Instance

        model, tokenizer = self._loaded.model, self._loaded.tokenizer
        device = str(model.device)
        theirs = self._class(pretrained=model, tokenizer=tokenizer, batch_size=batch, max_length=4096, device=device)
        pairs = [(c, text) for c, texts in zip(contexts, continuations, strict=True) for text in texts]
        requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        synchronize(device)
        start = time.perf_counter()
        found = iter(theirs.loglikelihood(requests, disable_tqdm=True))
        synchronize(device)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "values": [[float(next(found)[0]) for _ in texts] for texts in continuations]}


class PerLabel:
    """OpenICL's plan: label after label, padded batches of whole prompts, the loss over all positions."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.version = _versions("torch", "transformers")

    def score(self, contexts: Texts, continuations: Sequence[Texts], batch: int) -> dict[str, Any]:
        import torch

        model, tokenizer = self._loaded.model, self._loaded.tokenizer
        values: list[list[float]] = [[] for _ in contexts]
        synchronize(model.device)
        start = time.perf_counter()
        encoded = self._loaded.encoded(contexts, continuations)
        for number in range(max(map(len, continuations))):
            asked = [i for i, texts in enumerate(continuations) if number < len(texts)]
            for at in range(0, len(asked), batch):
                part = asked[at : at + batch]
                padded = tokenizer.pad({"input_ids": [encoded[i][number][0] for i in part]}, padding_side="right", return_tensors="pt")
                padded = padded.to(model.device)
                with torch.inference_mode():
                    logits = model(**padded, use_cache=False).logits[:, :-1].float().flatten(0, 1)
                    loss = torch.nn.functional.cross_entropy(logits, padded.input_ids[:, 1:].flatten(), reduction="none")
                for row, i in zip(loss.reshape(len(part), -1).cpu(), part, strict=True):
                    ids, before = encoded[i][number]
                    values[i].append(-float(row[before - 1 : len(ids) - 1].double().sum()))
        return {"seconds": time.perf_counter() - start, "values": values}


class PlainForward:
    """What one writes by hand with transformers: sequences sorted by length, padded on the left, logits of the last positions only."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.version = _versions("torch", "transformers")

    def score(self, contexts: Texts, continuations: Sequence[Texts], batch: int) -> dict[str, Any]:
        import torch

        model, tokenizer = self._loaded.model, self._loaded.tokenizer
        synchronize(model.device)
        start = time.perf_counter()
        flat = [pair for pairs in self._loaded.encoded(contexts, continuations) for pair in pairs]
        values = [0.0] * len(flat)
        order = sorted(range(len(flat)), key=lambda i: -len(flat[i][0]))
        for at in range(0, len(order), batch):
            part = order[at : at + batch]
            padded = tokenizer.pad({"input_ids": [flat[i][0] for i in part]}, padding_side="left", return_tensors="pt").to(model.device)
            kept = max(len(flat[i][0]) - flat[i][1] for i in part) + 1
            positions = (padded.attention_mask.cumsum(-1) - 1).clamp(min=0)
            with torch.inference_mode():
                logits = model(**padded, position_ids=positions, use_cache=False, logits_to_keep=kept).logits[:, :-1]
                targets = padded.input_ids[:, -kept + 1 :]
                found = logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0].cpu()
            for row, i in zip(found, part, strict=True):
                values[i] = float(row[flat[i][1] - len(flat[i][0]) :].double().sum())
        seconds = time.perf_counter() - start
        rest = iter(values)
        return {"seconds": seconds, "values": [[next(rest) for _ in texts] for texts in continuations]}


class Generate:
    """transformers' own generate, padded batches in the order given."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.version = _versions("torch", "transformers")

    def generate(self, prompts: Texts, max_new_tokens: int, stop: Texts, batch: int) -> dict[str, Any]:
        """Prefill ends where the first token of a batch is there; `step_s`: the mean of the steps after it."""
        import torch
        from transformers import StoppingCriteriaList

        model, tokenizer = self._loaded.model, self._loaded.tokenizer
        ends: list[float] = []

        def clock(ids: Any, scores: Any) -> Any:  # asked after each token, so it sees when a token is there; it stops nothing
            synchronize(model.device)
            ends.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

        options: dict[str, Any] = {"stop_strings": list(stop), "tokenizer": tokenizer} if stop else {}
        options |= {"max_new_tokens": max_new_tokens, "do_sample": False, "stopping_criteria": StoppingCriteriaList([clock])}
        texts, n_tokens, prefill, steps = [], [], 0.0, []
        synchronize(model.device)
        start = time.perf_counter()
        for at in range(0, len(prompts), batch):
            began = time.perf_counter()
            padded = tokenizer(list(prompts[at : at + batch]), padding=True, padding_side="left", return_tensors="pt").to(model.device)
            ends.clear()
            written = model.generate(**padded, **options)[:, padded.input_ids.shape[1] :]
            prefill += ends[0] - began
            steps += [b - a for a, b in pairwise(ends)]
            texts += tokenizer.batch_decode(written, skip_special_tokens=True)
            n_tokens += (written != model.generation_config.pad_token_id).sum(-1).tolist()
        seconds = time.perf_counter() - start
        step = sum(steps) / len(steps) if steps else 0.0
        return {"seconds": seconds, "prefill_s": prefill, "step_s": step, "texts": [cut(t, stop) for t in texts], "n_tokens": n_tokens}


class GenerateBatch:
    """transformers' continuous batching. It knows no stop strings: all texts are written to their full length."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self.version = _versions("torch", "transformers")

    def generate(self, prompts: Texts, max_new_tokens: int, stop: Texts, batch: int) -> dict[str, Any]:
        from transformers import GenerationConfig

        model, tokenizer = self._loaded.model, self._loaded.tokenizer
        config = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
        synchronize(model.device)
        start = time.perf_counter()
        ids = tokenizer(list(prompts)).input_ids
        found = model.generate_batch(inputs=ids, generation_config=config, progress_bar=False)
        texts = ["" for _ in prompts]
        n_tokens = [0 for _ in prompts]
        places = {tuple(prompt): i for i, prompt in enumerate(ids)}
        for output in found.values():
            place = places[tuple(output.prompt_ids)]
            texts[place] = cut(tokenizer.decode(output.generated_tokens, skip_special_tokens=True), stop)
            n_tokens[place] = len(output.generated_tokens)
        return {"seconds": time.perf_counter() - start, "prefill_s": None, "texts": texts, "n_tokens": n_tokens}


def cut(text: str, stop: Texts) -> str:
    """The text before its first stop string."""
    found = [at for at in (text.find(s) for s in stop) if at >= 0]
    return text[: min(found)] if found else text
