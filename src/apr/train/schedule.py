"""The learning rate as a pure function of the step, so that a resume needs only the step."""

import math


def cosine_learning_rate(
    step: int, *, learning_rate: float, warmup_steps: int, num_steps: int
) -> float:
    """Rate of update number `step` (the first is 1): linear warm-up, then half a cosine.

    The peak is reached at the last warm-up step, the floor (a hundredth of the peak, at least
    1e-7) at the last step.

    Source: Loshchilov and Hutter 2017, equation 5, with the Rust tools' floor.
    """
    if step <= warmup_steps:
        return learning_rate * step / warmup_steps
    floor = max(learning_rate * 0.01, 1e-7)
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return floor + (learning_rate - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
