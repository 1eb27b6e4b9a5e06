"""Where apr keeps what only saves time: the cache directory of the person who runs it."""

import os
from pathlib import Path


def encoder_proofs() -> Path | None:
    """For verdicts about encoders and checks of tokenizers; None for a person without a home."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of XDG_CACHE_HOME wants a relative path ignored.
    if os.path.isabs(named):
        cache = Path(named)
    else:
        try:
            cache = Path.home() / ".cache"
        except RuntimeError:
            return None
    return cache / "apr" / "encoder-proofs"
