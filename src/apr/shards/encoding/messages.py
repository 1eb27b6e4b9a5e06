"""Exceptions as messages: what ended a task in a worker is raised again by its parent."""

import traceback
from typing import Any

from apr import errors
from apr.errors import AprError, Refusal
from apr.shards.encoding.proof import EncoderDiffers


def as_message(err: Exception) -> dict[str, Any]:
    """An exception as something that JSON can carry."""
    if isinstance(err, EncoderDiffers):
        return {"kind": "differs", **err.as_dict()}
    if isinstance(err, Refusal):
        return {"kind": "refused", "type": type(err).__name__, **err.as_dict()}
    return {"kind": "failed", "traceback": "".join(traceback.format_exception(err))}


def as_exception(message: dict[str, Any]) -> Exception:
    """The exception that a message carries, as if it had been raised here."""
    kind = message.pop("kind")
    if kind == "differs":
        return EncoderDiffers(**message)
    if kind == "failed":
        return AprError(f"a worker failed:\n{message['traceback']}")
    refusal = getattr(errors, message.pop("type"))
    fields = {name: message[name] for name in ("found", "expected", "fix", "upstream_id")}
    return refusal(message["id"], message["where"], **fields)
