"""The quantisation of a model's weights, by its file's header and name. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from gateway.models.gguf_header import Value

#: llama.cpp, enum ``llama_ftype``.
_QUANTISATIONS: Final[Mapping[int, str]] = MappingProxyType(
    dict(
        enumerate(
            """F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S
            Q5_K_M Q6_K IQ2_XXS IQ2_XS Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M
            IQ4_XS IQ1_M BF16 - - - TQ1_0 TQ2_0 MXFP4""".split()
        )
    )
)
#: A quantisation in a file name, with what publishers add to it.
QUANTISATION: Final = re.compile(
    r"[-._]((?:UD-)?I?Q\d+(?:_[A-Z\d]+)*|TQ\d_\d|MXFP4(?:_MOE)?|BF16|F?P?16|F?P?32)$", re.IGNORECASE
)
#: How the stem of a split model's file ends.
PART: Final = re.compile(r"-\d{5}-of-\d{5}$")


def quantisation_of(file: Path, values: Mapping[str, Value]) -> str | None:
    """Return the quantisation by the header, or by the name of the file. ``values``: those of the
    header.
    """
    match = QUANTISATION.search(PART.sub("", file.stem))
    named = match[1].upper() if match else None
    number = values.get("general.file_type")
    said = _QUANTISATIONS.get(number, "-") if isinstance(number, int) else "-"
    if said == "-":
        return named
    # Publishers have more mixtures than the header has numbers: UD-Q4_K_XL says Q4_K_M there.
    mixture = named is not None and "_" in named and named not in _QUANTISATIONS.values()
    return named if named and mixture and _bits(named) == _bits(said) else said


def _bits(quantisation: str) -> str:
    return "".join(re.findall(r"\d+", quantisation)[:1])
