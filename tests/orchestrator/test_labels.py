from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import labels
from reasoning.errors import BadInput

KEYS = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S"), exclude_characters='"='), min_size=1)
VALUES = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs"), exclude_characters='"'))


@given(st.dictionaries(KEYS.filter(lambda key: len(key) <= 64), VALUES.map(str.strip), max_size=16))
def test_a_line_of_labels_and_the_metadata_are_the_same_thing(metadata: dict[str, str]):
    assert labels.read(labels.split(labels.joined(metadata))) == metadata


def test_other_values_stand_as_json():
    assert labels.shown({"n": 3, "on": True, "word": "", "list": ["a"]}) == ["n=3", "on=true", "word", 'list=["a"]']


@pytest.mark.parametrize(
    "given",
    [["=x"], [" "], ["a=1", "a"], ["k" * 65], ["k=" + "v" * 513], ["a\nb"], ['a"b'], [f"k{n}" for n in range(17)]],
)
def test_what_is_no_label_is_refused(given: list[str]):
    with pytest.raises(BadInput) as error:
        labels.read(given)
    assert error.value.code == "invalid_label"
