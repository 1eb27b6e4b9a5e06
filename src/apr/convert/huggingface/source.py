"""A Hugging Face directory as a source: configuration, weights, tokenizer, each proved by the rest.

Nothing of the directory is run: no pickle, no code of the model's own, no template.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from apr.architecture import Architecture
from apr.convert.huggingface.config import read_config_object, read_hf_config
from apr.convert.huggingface.files import PICKLES, read_weights, refuse_pickle
from apr.convert.huggingface.reference_config import reference_config
from apr.convert.huggingface.tensors import match_tensors
from apr.convert.source import Source
from apr.errors import DamagedFile, PathNotFound, Refusal
from apr.files import read_bytes, read_json, require_exists
from apr.tokenizer.tokenizer import Tokenizer

_TEXT_LIMIT_BYTES = 16 << 20
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "manifest.json",
)


@dataclass
class _Found:
    """Files that were read, and notes on them."""

    files: list[Path] = field(default_factory=list[Path])
    notes: list[str] = field(default_factory=list[str])


def read_hf_source(path: Path) -> Source:
    """Read a Hugging Face directory, or one .safetensors file beside its config.json.

    Every tensor of the architecture is there with its name, shape and type, and nothing is left
    over; their values are not read, which `values.check_values` does.

    Refuses: files.not-found, files.io-failed, import.adapter, import.pickle,
    import.config-not-found, import.sibling-damaged, import.tokenizer-too-large, and as
    `config.read_hf_config`, `files.read_weights`, `tensors.match_tensors` and
    `Tokenizer.load`.
    """
    require_exists(path, "a Hugging Face directory or a .safetensors file")
    is_file = not path.is_dir()
    if is_file and path.name.endswith(PICKLES):
        refuse_pickle(path, [path.name])
    directory = path.parent if is_file else path
    _require_whole_model(directory)
    config_path = directory / "config.json"
    raw = read_config_object(config_path)
    config = read_hf_config(raw, where=config_path)
    weights = read_weights(directory, only=path if is_file else None)
    matched = match_tensors(
        config.architecture, weights.tensors, where=path, is_tie_stated=config.is_tie_stated
    )
    found = _Found()
    tokenizer = _tokenizer(directory, config.architecture, found)
    generation_config = _optional_object(directory / "generation_config.json", found)
    chat_template = _chat_template(directory, found)
    return Source(
        where=path,
        format="safetensors",
        architecture=config.architecture,
        tensors=matched.tensors,
        stored=matched.tensors,
        reference=reference_config(raw),
        tokenizer=tokenizer,
        hf_config=config.rest,
        generation_config=generation_config,
        chat_template=chat_template,
        files=tuple(dict.fromkeys((config_path, *weights.files, *found.files))),
        notes=(*config.notes, *weights.notes, *matched.notes, *found.notes),
    )


def _require_whole_model(directory: Path) -> None:
    adapter, pipeline = directory / "adapter_config.json", directory / "model_index.json"
    # Also beside a whole model: transformers then loads the adapter on top of it without a word.
    if adapter.exists() or pipeline.exists():
        kind = "an adapter" if adapter.exists() else "a diffusion pipeline"
        file = adapter if adapter.exists() else pipeline
        raise Refusal(
            "import.not-a-model",
            directory,
            found=f"{file.name}: {kind}",
            expected="the directory of a whole decoder-only language model",
            fix="join the adapter with its base model and save the result",
            upstream_id="FALSIFY-APR-PRETRAIN-ARCH-007",
        )
    if not (directory / "config.json").exists():
        raise PathNotFound(
            "import.config-not-found",
            directory,
            found="no config.json",
            expected="config.json beside the weights; an architecture is never guessed",
            fix="get the config.json that was saved with the weights",
        )


def _tokenizer(directory: Path, architecture: Architecture, found: _Found) -> Tokenizer | None:
    if not (directory / "tokenizer.json").exists():
        other = next(directory.glob("*.model"), None)
        found.notes.append(
            "no tokenizer.json"
            + (f"; {other.name} was not read, save it as a fast tokenizer" if other else "")
        )
        return None
    tokenizer = Tokenizer.load(directory)
    rows = architecture.vocab_size
    if tokenizer.vocab_size > rows:
        raise Refusal(
            "import.tokenizer-too-large",
            directory / "tokenizer.json",
            found=f"ids up to {tokenizer.vocab_size - 1}",
            expected=f"at most {rows - 1}, as the embedding has {rows} rows",
            fix="use the tokenizer that was saved with the weights",
            upstream_id="FALSIFY-APR-PRETRAIN-ARCH-010",
        )
    present = [directory / name for name in _TOKENIZER_FILES]
    found.files += [file for file in present if file.exists()]
    return tokenizer


def _chat_template(directory: Path, found: _Found) -> str | None:
    """The chat template as text; it is a program, and is never run here."""
    inside = (_optional_object(directory / "tokenizer_config.json", found) or {}).get(
        "chat_template"
    )
    if isinstance(inside, list):
        inside = _default_template(cast(list[Any], inside), found)
    file = directory / "chat_template.jinja"
    beside = _optional_text(file, found)
    if beside is not None:
        if isinstance(inside, str) and inside != beside:
            found.notes.append(
                "tokenizer_config.json has another chat template than chat_template.jinja, "
                "which Hugging Face prefers"
            )
        return beside
    return inside if isinstance(inside, str) else None


def _default_template(templates: list[Any], found: _Found) -> Any:
    """The one called `default` of several templates by name."""
    by_name: dict[Any, Any] = {}
    for each in templates:
        if isinstance(each, dict):
            entry = cast(dict[str, Any], each)
            by_name[entry.get("name")] = entry.get("template")
    if len(by_name) > 1:
        found.notes.append(f"of {len(by_name)} chat templates only 'default' was taken")
    return by_name.get("default")


def _optional_object(path: Path, found: _Found) -> dict[str, Any] | None:
    if not path.exists():
        return None
    what = "a JSON object"
    value = read_json(path, limit_bytes=_TEXT_LIMIT_BYTES, id="import.sibling-damaged", what=what)
    found.files.append(path)
    if isinstance(value, dict):
        return cast(dict[str, Any], value)
    raise _damaged(path, type(value).__name__, what)


def _optional_text(path: Path, found: _Found) -> str | None:
    if not path.exists():
        return None
    what = "text in UTF-8"
    data = read_bytes(path, limit_bytes=_TEXT_LIMIT_BYTES, id="import.sibling-damaged", what=what)
    found.files.append(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise _damaged(path, str(err), what) from err


def _damaged(path: Path, found: str, expected: str) -> DamagedFile:
    return DamagedFile(
        "import.sibling-damaged",
        path,
        found=found,
        expected=expected,
        fix="restore the file from its source, or delete it",
    )
