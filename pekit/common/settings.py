"""Base class of all settings: frozen, checked; a message names the unknown setting or bad value."""

import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pekit.common.errors import UserError, nearest

# YAML 1.1 reads a number with an exponent only if it has a point and the exponent a sign.
_EXPONENT = re.compile(r"([+-]?\d+)(\.\d*)?e([+-]?)(\d+)", re.IGNORECASE)


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown names, no conversion (an int is fine for a float).

    Groups of settings may be given as dictionaries. A tuple that comes from YAML or JSON (a list)
    is declared with `Field(strict=False)`.

    Raises:
        UserError: an unknown name (near names are offered) or a value of the wrong type or range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, strict=True)

    def __init__(self, **values):
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = map(self._explain, error.errors())
            raise UserError(f"{type(self).__name__}: " + "; ".join(problems)) from None

    # Pydantic then checks a group by its fields and names "group.field", as in its own RootModel.
    __init__.__pydantic_base_init__ = True

    @classmethod
    def of(cls, given: Mapping[str, Any], /, where: str = "TRAIN", **own: Any) -> Self:
        """Settings from a dictionary that a user fills and the values that a notebook sets itself.

            TrainSettings.of(TRAIN, epochs=EPOCHS, positive_fraction=None)

        Args:
            given: the user's values.
            where: the dictionary's name, for messages.
            own: the notebook's values, each set by the parameter of that name in capitals. None:
                the setting has its default, and the user may not set it.

        Raises:
            UserError: `given` sets a name of `own`, an unknown name, or a bad value.
        """
        for name in given:
            if name in own and own[name] is None:
                raise UserError(f"{where}: this stage does not take {name!r}")
            if name in own:
                raise UserError(f"{where}: {name!r} is set by {name.upper()}")
        own = {name: value for name, value in own.items() if value is not None}
        try:
            return cls.model_validate({**given, **own})
        except ValidationError as error:
            lines = []
            for problem in error.errors():
                first, *rest = problem["loc"]
                if first in own:
                    lines.append(cls._explain({**problem, "loc": (first.upper(), *rest)}))
                else:
                    lines.append(f"{where}: {cls._explain(problem)}")
            raise UserError("; ".join(lines)) from None

    @classmethod
    def _explain(cls, problem: Mapping[str, Any]) -> str:
        """One of pydantic's errors as a sentence."""
        name, value = ".".join(map(str, problem["loc"])), problem["input"]
        if problem["type"] == "extra_forbidden":
            fields = cls.model_fields
            for group in problem["loc"][:-1]:
                fields = fields[group].annotation.model_fields
            return f"no setting {name!r}; {nearest(problem['loc'][-1], fields)}"
        text = f"{name} = {value!r}: {problem['msg']}"
        if isinstance(value, str) and (number := _EXPONENT.fullmatch(value)):
            whole, point, sign, exponent = number.groups()
            written = f"{whole}{point or '.0'}e{sign or '+'}{exponent}"
            text += f" (YAML reads {value} as text: write {written})"
        return text
