"""The readers of records give a value or a clause for any text, and never fail otherwise."""

from __future__ import annotations

import contextlib
import json
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fada_core.config_json import config_from_dict
from fada_core.errors import FadaError
from fada_core.records import RecordError, parse_json
from tests.fuzz.mutations import spoil_bytes, spoil_json
from tests.support.small import SMALL

quick = settings(max_examples=60, deadline=None, derandomize=True)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
)


@quick
@given(plain)
def test_what_json_writes_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value)) == parse_json(json.dumps(value, ensure_ascii=False).encode("utf-16")) == value


@quick
@given(plain, st.randoms(use_true_random=False))
def test_spoilt_json_is_a_value_or_a_clause(value: Any, random: Random) -> None:
    with contextlib.suppress(RecordError):
        parse_json(spoil_bytes(json.dumps(value).encode(), random))


@quick
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_clause(content: bytes) -> None:
    with contextlib.suppress(RecordError):
        parse_json(content)


@quick
@given(st.randoms(use_true_random=False))
def test_spoilt_configs_are_a_model_or_a_sentence(random: Random) -> None:
    with contextlib.suppress(FadaError):
        config_from_dict(spoil_json(SMALL.to_dict(), random))
