"""The learning rate as a pure function of the step, so that a resume needs only the step."""

import math

from apr.train.config import TrainConfig


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Rate of update number `step` (the first is 1): linear warm-up, then the run's schedule.

    The peak is reached at the last warm-up step. `cosine` falls from there by half a cosine to
    the floor, a hundredth of the peak and at least 1e-7, which it reaches at the last step; `wsd`
    stays at the peak and falls in a straight line over the last `decay_fraction` of the run;
    `constant` stays.

    Source: Loshchilov and Hutter 2017, equation 5, with the Rust tools' floor; Hu et al. 2024
    (MiniCPM), section 4.2, for wsd.
    """
    peak, warmup_steps = config.learning_rate, config.warmup_steps
    assert peak is not None
    assert warmup_steps is not None
    if step <= warmup_steps:
        return peak * step / warmup_steps
    if config.schedule == "constant":
        return peak
    falls_after = warmup_steps
    if config.schedule == "wsd":
        assert config.decay_fraction is not None
        decay_steps = max(1, round(config.decay_fraction * config.num_steps))
        falls_after = max(warmup_steps, config.num_steps - decay_steps)
    fallen = (step - falls_after) / max(1, config.num_steps - falls_after)
    fallen = min(1.0, max(0.0, fallen))
    floor = min(peak, max(peak * 0.01, 1e-7))
    if config.schedule == "wsd":
        return peak + (floor - peak) * fallen
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * fallen))
