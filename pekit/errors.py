"""The one error that users can mend: it names the thing that is wrong and the way out."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A bad file, value or setting. The message says which, and what to do about it."""


def do_you_mean(name: str, names: Iterable[str]) -> str:
    """What an unknown name may have been: "(do you mean a or b?)"; all names where none is near."""
    near = get_close_matches(name, names := list(names), n=2) or names
    return f"(do you mean {' or '.join(near)}?)"
