"""The one error that users can mend: it names the thing that is wrong and the way out."""


class UserError(ValueError):
    """A bad file, value or setting. The message says which, and what to do about it."""
