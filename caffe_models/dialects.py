"""Which family of Caffe a prototxt was written for.

The rule: words that exist in one family only decide. `kernel_size_3d`, `stride_3d`, `pad_3d` and the like are Intel's;
`round_mode`, `clip_param`, `swish_param` and the like are BVLC's. Without such a word a text is taken as "extended",
whose schema is the widest: it reads whatever the families share, `kernel_size` given several times, `engine: "..."` and
`smooth_l1_loss_param`. A text that cannot be read in the dialect so found is tried in the others in turn.
"""

from collections.abc import Iterable

from caffe_models.message import Message
from caffe_models.schema import DEFAULT_DIALECT, DIALECTS
from caffe_models.text_tokens import NAME, tokenize

INTEL_WORDS = frozenset({"kernel_size_3d", "stride_3d", "pad_3d", "bn_stats_batch_size", "stats_batch_size"})
BVLC_WORDS = frozenset({"round_mode", "clip_param", "swish_param", "layer_wise_reduce"})


def detect(text_or_message: str | Message) -> str:
    """The dialect of a prototxt's text, or the one a message was read in.

    Raises:
        PrototxtError: the text has characters no prototxt can have.
    """
    if isinstance(text_or_message, Message):
        return text_or_message.spec.dialect
    return candidates(token.text for token in tokenize(text_or_message, "<text>") if token.kind == NAME)[0]


def candidates(words: Iterable[str]) -> tuple[str, ...]:
    """All dialects, the likeliest first, for a text with these names (comments and quoted texts left out)."""
    present = set(words)
    first = DEFAULT_DIALECT
    if present & INTEL_WORDS:
        first = "intel"
    elif present & BVLC_WORDS:
        first = "bvlc"
    return tuple(dict.fromkeys((first, DEFAULT_DIALECT, *DIALECTS)))
