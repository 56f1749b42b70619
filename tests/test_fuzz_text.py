"""The text reader on damaged prototxts: a message or an error of ours, as protobuf's own reader; and round trips."""

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged_text, damages, fuzz, prototxts, tried
from protobuf_oracle import message_class, random_message

from caffe_models.errors import PrototxtError
from caffe_models.schema import DIALECTS
from caffe_models.text_format import parse_text, write_text
from caffe_models.wire import decode, encode

TEXTS = prototxts()


@fuzz(250)
@given(st.sampled_from(TEXTS), damages, st.sampled_from(DIALECTS))
def test_as_protobuf(text: str, steps: list[tuple[str, float, float]], dialect: str) -> None:
    """Accepted and refused alike, and read as the same."""
    damaged = damaged_text(text, steps)
    theirs = message_class("NetParameter", dialect)()
    try:
        text_format.Parse(damaged, theirs)
        accepted = True
    except text_format.ParseError:
        accepted = False
    ours, refusal = tried(lambda: parse_text(damaged, "NetParameter", dialect, "x.prototxt"))
    assert (ours is not None) == accepted, refusal
    if ours is None:
        assert refusal.startswith("x.prototxt:")
        assert "\n" not in refusal
        return
    assert text_format.MessageToString(type(theirs).FromString(encode(ours))) == text_format.MessageToString(theirs)
    assert parse_text(write_text(ours), "NetParameter", dialect).equals(ours)
    assert decode(encode(ours), "NetParameter", dialect).equals(ours)


@fuzz(150)
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    with_end = f"{text}\n}}"  # never a whole net
    with pytest.raises(PrototxtError):
        parse_text(with_end, "NetParameter")


@fuzz(100)
@given(st.sampled_from(("NetParameter", "SolverParameter")), st.sampled_from(DIALECTS), st.integers(0, 2**63))
def test_what_goes_out_comes_back(name: str, dialect: str, seed: int) -> None:
    message = random_message(name, dialect, seed)
    assert parse_text(write_text(message), name, dialect).equals(message)
    assert decode(encode(message), name, dialect).equals(message)


@pytest.mark.parametrize("number", ["017", "00", "08", "0x10", "017.5"])
def test_numbers_that_c_reads_as_octal_are_no_floats(number: str) -> None:
    """Found by the fuzzer: 017 was taken for 17, where protobuf's versions disagree (15, or an error)."""
    with pytest.raises(PrototxtError, match=f"loss_weight takes a number, found {number}|is not a number"):
        parse_text(f"layer {{ loss_weight: {number} }}")
    assert parse_text("layer { loss_weight: 0 loss_weight: 0.5 loss_weight: 0e1 loss_weight: 0f }").get("layer")
