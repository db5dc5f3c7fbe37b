"""`icl train`: what is trained apart from a suite."""

from __future__ import annotations

import typer

from . import train_classifier, train_finetune, train_meta, train_multitask, train_pretrain, train_retriever
from .guard import guarded

app = typer.Typer(help="Train what a suite or a method then uses.", no_args_is_help=True, rich_markup_mode=None)
app.command("retriever")(guarded(train_retriever.retriever))
app.command("classifier")(guarded(train_classifier.classifier))
app.command("finetune")(guarded(train_finetune.finetune))
app.command("pretrain")(guarded(train_pretrain.pretrain))
app.command("multitask")(guarded(train_multitask.multitask))
app.command("meta")(guarded(train_meta.meta))
