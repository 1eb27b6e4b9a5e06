"""Fixtures every test may use, and what every test process is told before it begins."""

import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.run_data import RunData
    from tests.warm import Warm

# Read by OpenMP, MKL and the tokenizers' thread pool when they are first loaded, and inherited by
# every command a test starts; torch itself is not imported here, so that tests of the disk half
# stay fast.
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(_variable, str(max(1, (os.cpu_count() or 1) // _workers)))
# As `apr` itself does: threads that wait for work must not take the core another process needs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Verdicts about encoders are kept for all tests together, and not where the user's own are.
if "APR_TESTS_CACHE" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="apr-tests-cache-")
    os.environ["APR_TESTS_CACHE"] = _cache.name
os.environ["XDG_CACHE_HOME"] = os.environ["APR_TESTS_CACHE"]

# Whoever starts the tests in the background of a script has Ctrl-C ignored for all of them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes depends on what else the machine does.
settings.register_profile("apr", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("apr")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--failures`, which `make failures` uses."""
    parser.addoption(
        "--failures",
        metavar="NOTES.json",
        type=Path,
        help="run the tests of the catalogue of failures, and note what each was answered with",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Watch the tests where that was asked for; otherwise nothing of it is loaded."""
    path: Path | None = config.getoption("--failures")
    if path is not None:
        from tests.failure_catalogue import Catalogue

        config.pluginmanager.register(Catalogue(path.absolute()))


_SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The optional folder of real models and tokenizers beside the checkout."""
    if not _SHARED_DATA.is_dir():
        pytest.skip(f"optional test data is absent: {_SHARED_DATA}")
    return _SHARED_DATA


@pytest.fixture(scope="session")
def run_data(tmp_path_factory: pytest.TempPathFactory) -> "RunData":
    """Tokenizer and shards of a small real corpus; read, never written."""
    from tests.run_data import make_run_data

    return make_run_data(tmp_path_factory.mktemp("run-data"))


@pytest.fixture(scope="session")
def sources(run_data: "RunData", tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two shard directories of the same corpus for a mixture; read, never written."""
    from tests.run_data import make_sources

    return make_sources(run_data, tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> "Generator[Warm]":
    """Starts ranks of a run, in processes that have everything loaded."""
    from tests.warm import Warm

    with Warm(tmp_path_factory.mktemp("ranks")) as warm:
        yield warm


@pytest.fixture(scope="session")
def ranks_data(tmp_path_factory: pytest.TempPathFactory) -> "RunData":
    """As `run_data`, of so little text that several ranks read it in a moment."""
    from tests.run_data import SOURCES, make_run_data

    return make_run_data(tmp_path_factory.mktemp("data"), sources=SOURCES / "container")
