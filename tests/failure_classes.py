"""The catalogue of failure classes in one sentence each, and what of a class is not built yet."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FailureClass:
    """One entry of the catalogue."""

    what: str
    missing: str = ""
    """What of it apr has no code for, so that no test can be red."""


CLASSES: dict[str, FailureClass] = {
    "F01": FailureClass("The network that runs is not the one that the weights were made for."),
    "F02": FailureClass("Embedding and head are one tensor for one program and two for another."),
    "F03": FailureClass(
        "A tensor is left out, invented or taken for another, and the count agrees all the same."
    ),
    "F04": FailureClass("A file says of itself what its tensors do not bear out."),
    "F05": FailureClass("Training begins from weights whose loss nobody has looked at."),
    "F06": FailureClass(
        "A parameter holds whatever memory held, or was drawn from another distribution.",
        "replicas and shards that must agree or differ: a run has one process.",
    ),
    "F07": FailureClass("What was exported is another model, or other text, to those who read it."),
    "F08": FailureClass(
        "A strict reader drops all metadata for one value that a lax writer let by."
    ),
    "F09": FailureClass("Data, model and command each have a tokenizer, and not the same one."),
    "F10": FailureClass("A fast encoder gives other ids than the reference, without an error."),
    "F11": FailureClass("Where a document ends is guessed, or not marked at all."),
    "F12": FailureClass("Text that looks like a control token becomes one."),
    "F13": FailureClass("What is trained on is no text."),
    "F14": FailureClass("An id does not fit its bytes, or has no row in the embedding."),
    "F15": FailureClass("Files of tokens are read that nobody can say the origin of."),
    "F16": FailureClass("Part of the input is passed over, and the command reports success."),
    "F17": FailureClass("Interrupted preparation hangs, is lost, or is continued with other data."),
    "F18": FailureClass("The same command on the same input gives other bytes."),
    "F19": FailureClass(
        "Some tokens are never trained on, and others more often than they should be.",
        "reading by several ranks: a run has one process.",
    ),
    "F20": FailureClass("A token is predicted from a document that it does not belong to."),
    "F21": FailureClass("The text that should judge the model has been trained on."),
    "F22": FailureClass(
        "Two held-out losses are compared that are not of the same text.",
        "a value that ranks agree on: a run has one process.",
    ),
    "F23": FailureClass("The answers of a benchmark stand in the training text."),
    "F24": FailureClass("What the record says was set is not what was computed with."),
    "F25": FailureClass(
        "A token weighs more or less for the company it keeps in its micro-batch.",
        "ranks with unequal counts: a run has one process.",
    ),
    "F26": FailureClass("The gradient, or what is made of it, is not the one that is defined."),
    "F27": FailureClass("Something slower or less exact computes than was asked for."),
    "F28": FailureClass(
        "One value that is no number spoils every step after it, or stops none.",
        "a NaN on one rank alone: a run has one process.",
    ),
    "F29": FailureClass(
        "Copies of a model that should be equal drift apart.",
        "no ranks: a run has one process, so there is nothing to compare.",
    ),
    "F30": FailureClass("A model that learns badly has nothing beside it that learns well."),
    "F31": FailureClass("A number too good to be true passes a test for good enough."),
    "F32": FailureClass("A gate stops the wrong runs, so everybody goes around it."),
    "F33": FailureClass(
        "What counts as success is decided after the result is known.",
        "no contracts: thresholds and evidence cannot be frozen by hash.",
    ),
    "F34": FailureClass(
        "A run that was stopped and continued is another run.",
        "a resume on another number of ranks: a run has one process.",
    ),
    "F35": FailureClass(
        "A run is continued under a plan that is not its own.",
        "a changed number of ranks: a run has one process.",
    ),
    "F36": FailureClass("A checkpoint is there that is not what it claims to be."),
    "F37": FailureClass("A checksum covers the part of a file that matters least."),
    "F38": FailureClass(
        "A number stands in a report that nobody measured.",
        "counters of a GPU: none is read, and none is reported.",
    ),
    "F39": FailureClass("A run ends with a word of success that it has not earned."),
    "F40": FailureClass("A figure is reported that no machine, model or text can have."),
    "F41": FailureClass("A check that compared nothing, or broke, counts as passed."),
    "F42": FailureClass("A model is called good because its form was filled in."),
    "F43": FailureClass(
        "A test or a contract is there that could not fail.",
        "no contracts. Of tests, `tests/house` says that ids, commands, options and this page are "
        "what the program has.",
    ),
    "F44": FailureClass(
        "What is published is written by hand and differs from what was trained.",
        "no publishing and no model cards.",
    ),
    "F45": FailureClass(
        "A student learns from a teacher that has nothing to teach.", "no distillation."
    ),
}
