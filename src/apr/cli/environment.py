"""What the command sets in its environment, for the libraries that read it when first used."""

import os

# Idle threads that spin steal the core that a busy one waits for: on a machine with other
# work training is twice as fast when they sleep, and no slower on an idle one (docs/log.md).
_OWN = {"OMP_WAIT_POLICY": "PASSIVE"}
_SET_HERE: set[str] = set()


def set_own() -> None:
    """Set what nobody has set."""
    for name, value in _OWN.items():
        if name not in os.environ:
            os.environ[name] = value
            _SET_HERE.add(name)


def of_strangers() -> dict[str, str | None]:
    """What to change for a process that should find the environment as apr found it."""
    return dict.fromkeys(_SET_HERE)


def make_cuda_repeatable() -> None:
    """Set what cuBLAS reads when it is first used, and is not repeatable without."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
