"""How tokens are cut into contexts; apart from `tokens`, so that a model need not read texts."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Cut:
    """How tokens become contexts.

    A context has `length` tokens. It begins with `prefix` and ends with `suffix`. `between`
    separates documents and belongs to the second one. `special` lists the tokens that stand for
    no text.
    """

    length: int
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    special: tuple[int, ...] = ()

    @property
    def body(self) -> int:
        """The number of tokens of text in a context."""
        return self.length - len(self.prefix) - len(self.suffix)
