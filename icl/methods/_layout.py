"""How a query and its demonstrations become one prompt or several: windows of demonstrations, windows of a long input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError, Problem
from ..prompt import Unfit
from ..values import Example, Hit, Prompt
from ._long_input import LongInputSettings, check_long_input, long_input_of, shortened
from ._windows import Pack, WindowSettings, check_windows, in_windows, marked, windows_of

if TYPE_CHECKING:
    from ..prompt import BoundTemplate
    from ..protocols import LanguageModel, PromptCodec
    from .few_shot import FewShot


@dataclass(frozen=True, slots=True)
class Layout:
    """A method's `windows` and `long_input`."""

    windows: WindowSettings | None
    long_input: LongInputSettings

    @classmethod
    def of(cls, method: FewShot) -> Layout:
        """Raises InputError for settings that are none."""
        return cls(windows_of(method.windows), long_input_of(method.long_input))

    @property
    def is_plain(self) -> bool:
        """One prompt per query, whatever the query."""
        return (self.windows is None or self.windows.n == 1) and self.long_input.how != "slide"

    def check(self, *, writes: bool, rationales: bool, inputs: Sequence[str], lm: LanguageModel | None) -> None:
        """Raises InputError for what does not go together."""
        if rationales and not self.is_plain:
            message = "windows put label scores together, and here a rationale is written before each label"
            raise InputError(Problem(message, "Leave windows and long_input: slide out, or the rationales.", field="windows"))
        check_windows(self.windows, writes=writes, lm=lm)
        check_long_input(self.long_input, writes=writes, inputs=inputs)

    def pack(
        self,
        pack: Pack,
        query: Example,
        hits: tuple[Sequence[Hit], Sequence[str]],
        bound: BoundTemplate,
        budget: tuple[PromptCodec | None, int | None],
    ) -> Prompt | Unfit:
        """The prompt of a query. hits: demonstrations in prompt order, and their uids, most useful first. budget: what counts tokens, and
        how many there may be."""
        made = pack(query, *hits) if self.windows is None else in_windows(pack, query, *hits, self.windows)
        codec, most = budget
        if isinstance(made, Prompt):
            return marked(made, bound, codec)
        return made if codec is None or most is None else shortened(pack, query, hits, made, self.long_input, (codec, most))
