"""Base class of all settings: frozen, checked; an unknown name or a bad value is named."""

from pydantic import BaseModel, ConfigDict, ValidationError

from pekit.common.errors import UserError, nearest


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown names, no silent conversion.

    Raises:
        UserError: an unknown name (near names are offered) or a value of the wrong type or range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def __init__(self, **values):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(self._explain(error)) from None

    @classmethod
    def _explain(cls, error: ValidationError) -> str:
        lines = []
        for problem in error.errors():
            name = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                lines.append(f"no setting {name!r}; {nearest(name, cls.model_fields)}")
            else:
                lines.append(f"{name} = {problem['input']!r}: {problem['msg']}")
        return f"{cls.__name__}: " + "; ".join(lines)
