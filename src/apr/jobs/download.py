"""`hf://org/name`: a model's files, fetched into Hugging Face's cache, and nothing else of it."""

import re
from importlib.util import find_spec
from pathlib import Path

from apr.errors import FeatureMissing, NetworkFailed, PathNotFound, UsageRefusal

SCHEME = "hf://"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
# No pickle, no code, no other framework's weights.
_PATTERNS = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def download(address: str, *, patience_s: float = 10.0) -> Path:
    """The local directory of `hf://org/name` or `hf://org/name@revision`.

    Files that are in the cache already are not fetched again. A hub that has not answered after
    `patience_s`, twice where its library tries again, is taken as not reached.

    Refuses: import.hub-name, import.hub-missing, import.hub-not-found, import.hub-unreachable.
    """
    named = _NAME.fullmatch(address.removeprefix(SCHEME))
    if named is None:
        raise _misnamed(address, repr(address))
    if find_spec("huggingface_hub") is None:
        raise FeatureMissing(
            "import.hub-missing",
            address,
            found="huggingface_hub is not installed",
            expected="the extra `hub`",
            fix="pip install 'apr[hub]', or download the model and name its directory",
        )
    return _fetched(address, named["repo"], named["revision"], patience_s)


def _fetched(address: str, repo: str, revision: str | None, patience_s: float) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cause: Exception | None = None
    try:
        try:
            # snapshot_download asks this too, and waits for an answer as long as it takes.
            revision = HfApi().model_info(repo, revision=revision, timeout=patience_s).sha
        except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError, HFValidationError):
            raise
        # Which errors there are depends on the library that it speaks HTTP with.
        except Exception as err:
            cause = err
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=list(_PATTERNS),
                local_files_only=cause is not None,
            )
        )
    except HFValidationError as err:
        raise _misnamed(address, str(err).splitlines()[0]) from err
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError) as err:
        raise PathNotFound(
            "import.hub-not-found",
            address,
            found=f"{type(err).__name__}: the hub does not show this model to you",
            expected="a public model, or one that your token may read",
            fix="check the name; for a private or gated model: hf auth login",
        ) from err
    except Exception as err:
        why = cause or err
        raise NetworkFailed(
            "import.hub-unreachable",
            address,
            found=f"the hub cannot be reached ({type(why).__name__}: {_first_line(why)}), "
            "and its cache lacks the model",
            expected="a network, or the model in the cache",
            fix="try again later, or name a directory that holds the model",
        ) from err


def _misnamed(address: str, found: str) -> UsageRefusal:
    return UsageRefusal(
        "import.hub-name",
        address,
        found=found,
        expected="hf://org/name, with @revision where one is wanted",
        fix="copy the name from the model's page",
    )


def _first_line(err: Exception) -> str:
    return (str(err).splitlines() or ["no reason given"])[0][:200]
