from typing import Literal

import pytest
import yaml
from pydantic import Field

from pekit.common.errors import UserError
from pekit.common.settings import Settings


class Group(Settings):
    trust: float = Field(0.001, gt=0)
    always_adapt: bool = False


class Example(Settings):
    lr: float = Field(0.003, gt=0)
    workers: int = 2
    batch_size: int = 16
    epochs: int = Field(10, ge=1)
    positive_fraction: float | None = None
    keep: Literal["last", "best"] = "last"
    lars: Group = Group()
    options: dict[str, str | bool] = Field(default_factory=dict)
    shape: tuple[int, ...] = Field((1, 2), strict=False)


def refused(make, *arguments, **values):
    with pytest.raises(UserError) as caught:
        make(*arguments, **values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", "0.1"),
        ("lr", True),
        ("workers", 2.0),
        ("workers", "2"),
        ("workers", True),
        ("keep", 1),
    ],
)
def test_no_value_is_converted(name, value):
    assert refused(Example, **{name: value}).startswith(
        f"Example: {name} = {value!r}: Input should"
    )


def test_an_integer_is_fine_for_a_float_and_a_list_for_a_tuple():
    assert Example(lr=1, positive_fraction=0).lr == 1.0
    assert Example(shape=[3, 4]).shape == (3, 4)
    assert "shape.0 = '3'" in refused(Example, shape=["3"])


@pytest.mark.parametrize("text", ["1e-3", "1e3", "1.5e3", "-1E5"])
def test_a_number_that_yaml_reads_as_text_is_explained(text):
    assert yaml.safe_load(text) == text
    message = refused(Example, lr=text)
    assert f"(YAML reads {text} as text: write " in message
    written = message.split("write ")[1].rstrip(")")
    assert yaml.safe_load(written) == float(text)


def test_the_hint_of_the_documentation():
    message = refused(Example, lr="1e-3")
    assert message.endswith("(YAML reads 1e-3 as text: write 1.0e-3)")
    assert "YAML" not in refused(Example, lr="fast")


def test_groups_are_dictionaries_or_objects():
    assert Example(lars={"trust": 1}).lars == Example(lars=Group(trust=1.0)).lars


def test_errors_in_a_group_are_named_with_the_group():
    message = refused(Example, lars={"adapt": True, "trust": 0})
    assert "no setting 'lars.adapt'; did you mean always_adapt?" in message
    assert "lars.trust = 0: Input should be greater than 0" in message
    assert "Group" not in message
    assert refused(Group, adapt=True).startswith("Group: no setting 'adapt'")
    assert refused(Example, lars=3).startswith("Example: lars = 3: Input should be")


def test_of_joins_the_users_values_and_the_notebooks():
    given = {"lr": 0.1, "lars": {"trust": 0.5}}
    settings = Example.of(given, epochs=3, batch_size=None)
    assert settings == Example(lr=0.1, lars=Group(trust=0.5), epochs=3)
    assert given == {"lr": 0.1, "lars": {"trust": 0.5}}


def test_of_refuses_what_the_notebook_sets():
    own = {"epochs": 3, "positive_fraction": None}
    assert refused(Example.of, {"epochs": 5}, **own) == "TRAIN: 'epochs' is set by EPOCHS"
    message = refused(Example.of, {"positive_fraction": 0.5}, **own)
    assert message == "TRAIN: this stage does not take 'positive_fraction'"


def test_of_names_the_dictionary_or_the_parameter():
    message = refused(Example.of, {"batchsize": 3})
    assert message == "TRAIN: no setting 'batchsize'; did you mean batch_size?"
    assert refused(Example.of, {"lr": "x"}, where="HEAD").startswith("HEAD: lr = 'x': Input")
    assert refused(Example.of, {}, epochs=0).startswith("EPOCHS = 0: Input should be greater")
    both = refused(Example.of, {"lr": -1}, epochs=0)
    assert "TRAIN: lr = -1" in both
    assert "; EPOCHS = 0" in both or both.startswith("EPOCHS = 0")
