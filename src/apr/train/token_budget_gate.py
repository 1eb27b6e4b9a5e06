"""preflight.token-budget: whether a model will have seen enough for its size."""

from apr.train.config import TrainConfig
from apr.train.gates import Finding
from apr.train.inputs import Inputs
from apr.train.token_budget import (
    CHEAP_EPOCHS,
    TOKENS_PER_PARAMETER,
    effective_tokens,
    sufficient_steps,
    sufficient_tokens,
    zone,
)
from apr.units import format_count


def check_token_budget(config: TrainConfig, inputs: Inputs) -> Finding:
    """The tokens the model will have seen are at least twenty per parameter.

    Repeated tokens count for what they are worth, those of copied documents among them, and tokens
    that an initial model has seen count as well; where nobody says how many, that is not known.

    Source: Hoffmann et al. 2022; Muennighoff et al. 2023 for repetition.
    """
    parameters, init = inputs.architecture.num_parameters, inputs.init
    unique = inputs.data.unique_train_tokens
    epochs = config.planned_tokens / unique
    worth = effective_tokens(config.planned_tokens, unique)
    found = f"{format_count(config.planned_tokens)} tokens, {epochs:.3g} epochs over the data"
    notes: list[str] = []
    if epochs > CHEAP_EPOCHS:
        notes.append(f"beyond {CHEAP_EPOCHS:g} they teach less: worth {format_count(worth)}")
    if notice := inputs.data.copies.notice():
        notes.append(notice)
    if notes:
        found += f" ({'; '.join(notes)})"
    expected = f"at least {TOKENS_PER_PARAMETER:g} per parameter"
    if init is not None and init.tokens_seen is None:
        return Finding(
            "UNKNOWN",
            f"{found}, after a number of tokens that {init.path.name} does not say",
            expected,
            "say how many it was trained on: apr stamp FILE --pretraining-tokens N -o STAMPED, "
            "or pass --force-under-provisioned",
        )
    seen = 0 if init is None or init.tokens_seen is None else init.tokens_seen
    ratio = (seen + worth) / parameters
    before = f" after {format_count(seen)} that the initial model has seen" if seen else ""
    steps = sufficient_steps(parameters, batch_tokens=config.batch_tokens)
    return Finding(
        "PASS" if ratio >= TOKENS_PER_PARAMETER else "FAIL",
        f"{found}{before}, for {parameters} parameters: {ratio:.2f} per parameter ({zone(ratio)})",
        expected,
        f"train {steps} steps on {format_count(sufficient_tokens(parameters))} tokens of different "
        "text, choose a smaller --arch, or pass --force-under-provisioned",
    )
