"""Which model a container says it is, held against its tensors.

Three metadata keys name a family. They must name the same one, and the tensors must be that
family's: nobody's word is enough.
"""

from dataclasses import dataclass
from typing import Literal

from apr.architecture import HF_CLASSES
from apr.container.contents import require_contents
from apr.container.named_keys import Metadata
from apr.container.reader import Container
from apr.errors import Refusal

IDENTITY_KEYS = ("architecture", "hf_architecture", "hf_model_type")

_FAMILIES = {hf_class: family for family, hf_class in HF_CLASSES.items()}


@dataclass(frozen=True)
class Identity:
    """How a claimed identity stands."""

    verdict: Literal["PASS", "FAIL", "UNKNOWN"]
    found: str
    expected: str
    contradicts: Literal["tensors", "itself"] | None = None


def check_identity(container: Container, metadata: Metadata) -> Identity:
    """Whether the identity that `metadata` claims is the one that the tensors show.

    A key that is not set is taken as the others imply; with none set, nothing is claimed.
    """
    claims = {key: value for key in IDENTITY_KEYS if (value := getattr(metadata, key)) is not None}
    expected = "one family in all three keys, and its tensors by name and shape"
    spelled = ", ".join(f"{key}={value!r:.60}" for key, value in claims.items())
    if not claims:
        return Identity("UNKNOWN", f"none of {', '.join(IDENTITY_KEYS)} is set", expected)
    families = {_family_of(key, value) for key, value in claims.items()}
    if None in families:
        known = ", ".join(f"{family} ({name})" for family, name in HF_CLASSES.items())
        return Identity("UNKNOWN", spelled, f"one of {known}; others are not known here")
    if len(families) > 1:
        return Identity("FAIL", spelled, expected, contradicts="itself")
    family = families.pop() or ""
    whole = metadata.model_copy(
        update={
            "architecture": family,
            "hf_architecture": HF_CLASSES[family],
            "hf_model_type": family,
        }
    )
    try:
        architecture = require_contents(container, claimed=whole)
    except Refusal as err:
        found = f"{err.id}: {err.found}"
        # Names are compared before fields are missed, and the names were this family's.
        if err.id == "container.architecture-missing":
            return Identity(
                "PASS", f"tensors of {family} by name; {err.found} to compare", expected
            )
        if err.id == "container.architecture-unsupported":
            return Identity("UNKNOWN", found, err.expected)
        return Identity("FAIL", found, err.expected, contradicts="tensors")
    found = f"{family}, {architecture.num_parameters} parameters by name and shape"
    return Identity("PASS", found, expected)


def _family_of(key: str, value: str) -> str | None:
    if key == "hf_architecture":
        return _FAMILIES.get(value)
    return value if value in HF_CLASSES else None
