"""What may be said of the datasets of a run, on the command line and in a file."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

from apr.cli.values import Dataset
from apr.errors import Refusal, UsageRefusal
from apr.train.config import TrainConfig, absolute_paths
from apr.train.resolved_config import resolve_config
from apr.train.sources import Source, require_distinct, short_names

OTHERS: dict[str, Any] = {"tokenizer": "t", "run_dir": "r", "val_shard": "v"}
TWO = (Source(path=Path("a"), weight=0.7), Source(path=Path("b"), weight=0.3))


@pytest.mark.parametrize(
    "dataset",
    ["a", Path("a"), ["a"], [{"path": "a"}], Source(path=Path("a")), {"path": "a", "weight": None}],
)
def test_one_dataset_may_be_said_in_many_ways(dataset: Any) -> None:
    assert resolve_config(OTHERS | {"dataset": dataset}).dataset == (Source(path=Path("a")),)


def test_a_mixture_in_a_run_file(tmp_path: Path) -> None:
    paths = "".join(f'{name} = "{path}"\n' for name, path in OTHERS.items())
    listed = 'dataset = [{path = "a", weight = 0.7}, {path = "b", weight = 0.3}]\n'
    tables = '[[dataset]]\npath = "a"\nweight = 0.7\n[[dataset]]\npath = "b"\nweight = 0.3\n'
    for number, text in enumerate((listed + paths, paths + tables)):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        assert resolve_config({}, config_path=path).dataset == TWO
    plain = tmp_path / "plain.toml"
    plain.write_text('dataset = ["a", "b"]\n' + paths)
    found = resolve_config({}, config_path=plain).dataset
    assert [(source.path.name, source.weight) for source in found] == [("a", None), ("b", None)]
    overridden = resolve_config({"dataset": "c"}, config_path=plain)
    assert overridden.dataset == (Source(path=Path("c")),)


@pytest.mark.parametrize("dataset", ["a", list(TWO), ["a", "b"]])
def test_a_recorded_configuration_is_read_back_as_it_was(dataset: Any) -> None:
    config = absolute_paths(resolve_config(OTHERS | {"dataset": dataset}))
    assert all(source.path.is_absolute() for source in config.dataset)
    recorded = json.loads(json.dumps(config.model_dump(mode="json")))
    assert TrainConfig.model_validate(recorded) == config


def test_a_record_from_before_mixtures_is_read() -> None:
    config = resolve_config(OTHERS | {"dataset": "a"})
    recorded = config.model_dump(mode="json") | {"dataset": "a"}
    assert TrainConfig.model_validate(recorded) == config


@pytest.mark.parametrize(
    ("options", "id"),
    [
        ({"dataset": [{"path": "a", "weight": 0.7}, "b"]}, "config.mixture-weights"),
        ({"dataset": [{"path": "a", "weight": 0.7}]}, "config.mixture-weights"),
        ({"dataset": ["a", "b"], "val_shard": None}, "config.mixture-without-val"),
        ({"dataset": []}, "config.invalid"),
        ({"dataset": None}, "config.invalid"),
        ({"dataset": ["a", {"path": "b", "share": 1.0}]}, "config.invalid"),
        ({"dataset": ["a", "s3://bucket/b"]}, "config.invalid"),
        ({"dataset": {"a": 0.7, "b": 0.3}}, "config.invalid"),
    ],
)
def test_what_is_no_mixture_is_refused(options: dict[str, Any], id: str) -> None:
    with pytest.raises(Refusal) as refused:
        resolve_config(OTHERS | options)
    assert refused.value.id == id


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "much"])
def test_a_weight_is_a_positive_number(weight: Any) -> None:
    with pytest.raises(UsageRefusal) as refused:
        resolve_config(OTHERS | {"dataset": ["b", {"path": "a", "weight": weight}]})
    assert (refused.value.id, refused.value.where) == ("config.invalid", "dataset.1.weight")


@pytest.mark.parametrize(
    ("text", "path", "weight"),
    [
        ("data", "data", None),
        ("data=0.7", "data", 0.7),
        ("data=2", "data", 2.0),
        ("a=b=1e-3", "a=b", 1e-3),
        ("lang=python", "lang=python", None),
        ("data=-1", "data", -1.0),
        ("=3", "=3", None),
        ("data=", "data=", None),
        ("year=2024", "year=2024", None),
        ("year=2024=0.5", "year=2024", 0.5),
    ],
)
def test_a_weight_follows_the_last_equals_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, path: str, weight: float | None
) -> None:
    """A directory whose own name ends like a weight is that directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "year=2024").mkdir()
    assert Dataset().convert(text, None, None) == {"path": Path(path), "weight": weight}


@pytest.mark.parametrize("text", ["", "s3://bucket/x", "s3://bucket/x=0.5"])
def test_what_names_no_directory_here_is_no_dataset(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Dataset().convert(text, None, None)


def test_the_same_shards_twice_are_refused_under_any_name(
    sources: tuple[Path, Path], tmp_path: Path
) -> None:
    small, large = (Source(path=path) for path in sources)
    (tmp_path / "link").symlink_to(small.path)
    for again in (small, Source(path=tmp_path / "link"), Source(path=small.path / ".." / "shards")):
        with pytest.raises(UsageRefusal) as refused:
            require_distinct((small, large, again))
        assert (refused.value.id, refused.value.where) == (
            "config.mixture-repeated",
            str(again.path),
        )
    require_distinct((small, large))


def test_names_that_end_alike_are_said_in_full() -> None:
    paths = [Path("code/train"), Path("prose/train"), Path("val")]
    assert short_names(paths) == ["code/train", "prose/train", "val"]
