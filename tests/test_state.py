from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from grokwatch.state import decode, encode, take


@given(st.sampled_from([np.float32, np.float64, np.int64]).flatmap(
    lambda dtype: arrays(dtype, st.integers(0, 40))
))  # fmt: skip
def test_decode_undoes_encode_bit_for_bit(values):
    back = decode(encode(values))
    assert back.dtype == values.dtype
    assert back.tobytes() == values.tobytes()


def test_byte_order_does_not_matter():
    big = np.array([1.5, -2.0], dtype=">f8")
    assert encode(big) == encode(big.astype("<f8")) == encode(array("d", [1.5, -2.0]))


def test_what_cannot_be_saved():
    with pytest.raises(TypeError, match="cannot save an array of complex128"):
        encode(np.array([1j]))


@pytest.mark.parametrize("text", [None, 3, "", "AAAA", "<f2:AAAA", "<f4", "<f4-AAAA"])
def test_what_is_no_saved_array(text):
    with pytest.raises(ValueError, match="not a saved array"):
        decode(text)


@pytest.mark.parametrize("text", ["<f4:AAA", "<f4:AAAA", "<f4:!!!!"])
def test_a_broken_array(text):
    with pytest.raises(ValueError, match=r"\w"):
        decode(text)


def test_take_names_what_is_missing():
    assert take({"a": 1}, "a") == 1
    with pytest.raises(ValueError, match=r"lacks 'b' \(it has \['a'\]\)"):
        take({"a": 1}, "b")
    with pytest.raises(ValueError, match="should be a mapping but is NoneType"):
        take(None, "b")
