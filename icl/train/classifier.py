"""An encoder with a classification head: built from a base, taught labels, used, saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import InputError, Problem
from ..weights import quiet_transformers
from .bases import find_base, pooling_of
from .cost import Operations, Used, operations_of
from .layers import freeze_lower, set_dropout
from .texts import PLAIN_LIMIT, Long, Read, Reader, equal_lengths, padded

Norm: TypeAlias = Literal["none", "layer", "batch"]
MODEL, HEAD = "model", "head.safetensors"


@dataclass(frozen=True)
class Form:
    """How a model is built on its base."""

    n_labels: int
    pooling: Literal["own", "mean", "cls"]
    """own: the classification head that the model's architecture has; else one of ours on the mean of the last layer, or on its first
    token."""
    limit: int
    """Tokens it reads at most."""
    dropout: float | None = None
    """Of the head, and of the encoder where the user says one."""
    norm: Norm = "none"
    hidden: int = 0


class Pooled(nn.Module):
    """An encoder and a head on one vector of it: dropout, a hidden layer and a normalisation if wanted, a linear layer.

    The vector has the length √d, the direction being what sentence encoders are trained for, so a head sees inputs of one size.
    """

    def __init__(self, encoder: Any, form: Form) -> None:
        super().__init__()
        self.encoder = encoder
        self.config: Any = encoder.config
        self.pooling = form.pooling
        d = int(self.config.hidden_size)
        width = form.hidden or d
        self.dropout = nn.Dropout(0.1 if form.dropout is None else form.dropout)
        self.hidden = nn.Sequential(nn.Linear(d, width), nn.GELU()) if form.hidden else nn.Identity()
        norms: dict[str, Callable[[int], nn.Module]] = {"none": lambda n: nn.Identity(), "layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
        self.norm: Any = norms[form.norm](width)
        self.classifier = nn.Linear(width, form.n_labels)

    def vectors(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(n, d) of length √d."""
        states = self.encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        pooled = states[:, 0] if self.pooling == "cls" else (states * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
        vectors: Tensor = nn.functional.normalize(pooled.float(), dim=-1) * pooled.shape[-1] ** 0.5
        return vectors

    def head(self, vectors: Tensor) -> Tensor:
        x = self.hidden(self.dropout(vectors))
        if isinstance(self.norm, nn.BatchNorm1d) and self.training and len(x) == 1:
            # It cannot learn from one row; such a row is normalised by what was learned before.
            x = nn.functional.batch_norm(x, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias)
        else:
            x = self.norm(x)
        return self.classifier(x)  # type: ignore[no-any-return]

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.head(self.vectors(inputs))


@dataclass
class EncoderClassifier:
    """A model, its reader of texts, and what it has computed."""

    model: Any
    reader: Reader
    form: Form
    device: str
    used: Used
    estimate: Operations

    def read(self, fields: Sequence[Sequence[str]]) -> list[Read]:
        """fields: per row the texts of its fields."""
        return [self.reader.read(each) for each in fields]

    def batch(self, rows: Sequence[Read]) -> dict[str, Any]:
        """Tensors on the CPU: all windows of these rows, and whose they are."""
        windows = [window for row in rows for window in zip(row.windows, row.types, strict=True)]
        owner = torch.tensor([i for i, row in enumerate(rows) for _ in row.windows])
        return {"windows": padded(windows, self.pad), "owner": owner, "n_rows": len(rows)}

    def logits(self, model: Any, batch: Mapping[str, Any]) -> Tensor:
        """(n_rows, n_labels): the mean over the windows of a row."""
        each = self.forward(model, batch["windows"])
        if len(each) == batch["n_rows"]:
            return each
        sums = torch.zeros(batch["n_rows"], each.shape[1], dtype=each.dtype, device=each.device).index_add_(0, batch["owner"], each)
        return sums / torch.bincount(batch["owner"], minlength=batch["n_rows"]).unsqueeze(1)

    def forward(self, model: Any, windows: Mapping[str, Tensor]) -> Tensor:
        """(n_windows, n_labels) float32."""
        found = model(**self._inputs(windows))
        return (found if isinstance(found, Tensor) else found.logits).float()

    def _inputs(self, windows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inputs = dict(windows)
        if "token_type_ids" not in self.reader.tokenizer.model_input_names:
            inputs.pop("token_type_ids")
        return inputs

    @property
    def pretrained(self) -> nn.Module:
        """The part of the model that is the base's."""
        part: nn.Module = self.model.encoder if isinstance(self.model, Pooled) else getattr(self.model, self.model.base_model_prefix)
        return part

    @property
    def pad(self) -> int:
        return int(self.reader.tokenizer.pad_token_id or 0)

    def predict(self, rows: Sequence[Read]) -> Tensor:
        """(n_rows, n_labels) float32 logits on the CPU, each row computed as if it were alone: batches hold windows of one length."""
        return self._over_windows(rows, lambda windows: self.forward(self.model, windows))

    def vectors(self, rows: Sequence[Read]) -> Tensor:
        """(n_rows, d) what the head sees, for a head of ours."""
        return self._over_windows(rows, lambda windows: self.model.vectors(self._inputs(windows)))

    def _over_windows(self, rows: Sequence[Read], compute: Callable[[Mapping[str, Tensor]], Tensor]) -> Tensor:
        windows = [(i, ids, types) for i, row in enumerate(rows) for ids, types in zip(row.windows, row.types, strict=True)]
        found: list[Tensor | None] = [None] * len(windows)
        self.model.eval()
        with torch.no_grad():
            for places in equal_lengths([len(ids) for _, ids, _ in windows]):
                batch = padded([windows[at][1:] for at in places], self.pad)
                n, length = batch["input_ids"].shape
                self.used.add(int(n * length), 0, self.estimate.forward(int(n * length), int(length)))
                moved = {name: tensor.to(self.device) for name, tensor in batch.items()}
                for at, value in zip(places, compute(moved).cpu(), strict=True):
                    found[at] = value
        result: list[list[Tensor]] = [[] for _ in rows]
        for (i, _, _), value in zip(windows, found, strict=True):
            assert value is not None
            result[i].append(value)
        return torch.stack([torch.stack(values).mean(dim=0) if len(values) > 1 else values[0] for values in result])

    def save(self, folder: Path) -> None:
        """Weights as safetensors, configuration, tokenizer."""
        from safetensors.torch import save_file

        with quiet_transformers():
            (self.model.encoder if isinstance(self.model, Pooled) else self.model).save_pretrained(str(folder / MODEL))
            self.reader.tokenizer.save_pretrained(str(folder / MODEL))
        if isinstance(self.model, Pooled):
            weights = {name: t.contiguous() for name, t in self.model.state_dict().items() if not name.startswith("encoder.")}
            save_file(weights, folder / HEAD)


def new_classifier(
    base: str | Path,
    n_labels: int,
    *,
    long: Long = "truncate",
    max_tokens: int | None = None,
    dropout: float | None = None,
    norm: Norm = "none",
    hidden: int = 0,
    freeze: int | Literal["all"] = 0,
    device: str | None = None,
) -> EncoderClassifier:
    """A base with a new head, drawn from torch's generator (`seeded`). Options of the head, or a sentence-transformers folder, give it a
    head of ours; else the architecture's own is taken.

    Raises InputError for a base that is not there, lacks something, or is no encoder.
    """
    folder = find_base(base)
    sentence = pooling_of(folder)
    where, pooling, limit = sentence or (folder, "own" if norm == "none" and not hidden else "cls", None)
    room = _room(base, where)
    if max_tokens is not None and max_tokens > room:
        raise InputError(Problem(f"the model reads {room} tokens at most, not {max_tokens}", "Use fewer.", field="max_tokens"))
    form = Form(n_labels, pooling, max_tokens or min(limit or PLAIN_LIMIT, room), dropout, norm, hidden)  # type: ignore[arg-type]
    made = _built(base, where, form, long, device, None)
    if dropout is not None:
        set_dropout(made.model, dropout)
    freeze_lower(made.model, freeze)
    made.estimate = operations_of(made.model)
    return made


def _room(base: str | Path, where: Path) -> int:
    """Tokens that the model has positions for. Raises InputError if it is no encoder."""
    with _readable(base, where):
        from transformers import AutoConfig

        config: Any = AutoConfig.from_pretrained(str(where), local_files_only=True, trust_remote_code=False)
        if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in config.architectures or ()):
            raise ValueError("it is a language model that writes, not an encoder")
        if config.is_encoder_decoder:
            raise ValueError("it is an encoder-decoder")
    room = int(getattr(config, "max_position_embeddings", 0) or 0)
    if config.model_type in _SHIFTED:
        room -= int(config.pad_token_id) + 1
    return room if room > 0 else UNBOUNDED


UNBOUNDED = 1 << 20
"""Tokens read by a model whose positions are relative."""
_SHIFTED = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "roberta-prelayernorm"}
"""Their positions begin behind that of the padding token."""


def load_classifier(folder: Path, form: Form, long: Long, device: str | None = None) -> EncoderClassifier:
    """What `EncoderClassifier.save` wrote."""
    return _built(str(folder), folder / MODEL, form, long, device, folder / HEAD)


def _built(base: str | Path, where: Path, form: Form, long: Long, device: str | None, head: Path | None) -> EncoderClassifier:
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options = {"dtype": torch.float32, "use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    with _readable(base, where):
        tokenizer = AutoTokenizer.from_pretrained(str(where), local_files_only=True, trust_remote_code=False)
        model: Any
        if form.pooling == "own":
            dropout = {} if form.dropout is None else {"classifier_dropout": form.dropout}
            model = AutoModelForSequenceClassification.from_pretrained(
                str(where), num_labels=form.n_labels, ignore_mismatched_sizes=head is None, **dropout, **options
            )
        else:
            encoder = AutoModel.from_pretrained(str(where), **options)
            if getattr(encoder, "pooler", None) is not None:
                encoder.pooler = None  # its vector is not what we pool, so it would never learn
            model = Pooled(encoder, form)
            if head is not None:
                model.load_state_dict(load_file(head), strict=False)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
        reader = Reader(tokenizer, form.limit, long)
    model.to(device).eval()
    return EncoderClassifier(model, reader, form, device, Used(), operations_of(model))


@contextmanager
def _readable(base: str | Path, where: Path) -> Iterator[None]:
    """What transformers says of a model that it cannot make a classifier of, as an error of ours."""
    try:
        with quiet_transformers():
            yield
    except InputError:
        raise
    except Exception as error:  # readers of a dozen formats, each with exceptions of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            Problem(
                f"the base '{base}' cannot be made a classifier: {reason[:300]}",
                "Take an encoder of the BERT kind, or a sentence-transformers model, that runs without code of its own.",
                str(where),
                field="base",
            )
        ) from error
