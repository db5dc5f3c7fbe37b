"""What meta-training can be told."""

from __future__ import annotations

from pydantic import Field

from ..values import Kind
from .settings import TrainingSettings


class MetaSettings(TrainingSettings):
    batch_size: int = Field(8, ge=1, description="Episodes per step.")
    episodes: int = Field(2_000, ge=1, description="Prompts that are trained on, each drawn anew.")
    shots: int = Field(8, ge=1, description="Demonstrations of an episode, at most.")
    max_tokens: int = Field(768, ge=32, description="Tokens of an episode; demonstrations that do not fit are left out.")
    characters: int = Field(800, ge=20, description="Of an input field, cut at a word's end.")
    temperature: float = Field(3.0, gt=0, description="1: a task as often as it has rows; large: all tasks alike.")
    random_words: float = Field(0.5, ge=0, le=1, description="Share of the episodes with labels whose label words are random.")
    kinds: tuple[Kind, ...] = Field(("classify", "choose", "answer"), description="Kinds of tasks that are used.")
    every_answer: bool = Field(True, description="Learn the answers of the demonstrations too, each from what stands before it.")
    overlap: float = Field(0.05, ge=0, le=1, description="A task of whose rows a larger share has text of the held-out data is left out.")
    validation_tasks: int = Field(4, ge=0, description="Tasks that are not trained on, whose loss is measured.")
    validation_episodes: int = Field(32, ge=1, description="Episodes of them.")
    validations: int = Field(5, ge=1, description="Times that it is measured, evenly spread.")
    rank: int = Field(16, ge=1, description="Of the LoRA adapter, beside all linear layers but the output.")
    alpha: float = Field(32.0, gt=0, description="Its scale is alpha / rank.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Of what goes into it.")
    checkpoint_every: float = Field(300.0, ge=0, description="Seconds between two checkpoints.")
