"""Kernels compiled for a GPU that is not there.

What torch.compile would run on the card is made as far as it can be made without one: a function is
traced with shapes alone, its graphs are given to the compiler as if their tensors lay on the card,
and Triton's kernels are assembled for it. Nothing runs, and nothing is timed. What can be known is
whether everything compiles, which passes over memory there are and how many bytes each of them
moves by the compiler's own count, and what each kernel takes of a processor's registers.

Reaches into torch's compiler, which has no door for this; works with torch 2.11 and 2.13, of which
Triton is a part where they are built for CUDA.
"""
# Triton is not there where torch is built for the CPU, and the compiler's own names are private.
# pyright: reportMissingImports=false, reportPrivateImportUsage=false
# pyright: reportAttributeAccessIssue=false, reportAssignmentType=false

import copy
import re
import subprocess
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch._dynamo.device_interface as device_interface
import torch._inductor.compile_fx as compile_fx
import torch._inductor.config as inductor_config
import torch._inductor.runtime.triton_helpers as triton_helpers
import torch._inductor.runtime.triton_heuristics as triton_heuristics
import torch._subclasses.fake_tensor as fake_tensor
import triton.backends.nvidia
from torch import Tensor
from torch._functorch.aot_autograd import aot_module_simplified, make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch.utils._pytree import tree_map
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

# What torch reports of an H200.
H200 = SimpleNamespace(
    name="NVIDIA H200", major=9, minor=0, multi_processor_count=132, total_memory=150_754_820_096,
    warp_size=32, max_threads_per_block=1024, max_threads_per_multi_processor=2048,
    regs_per_multiprocessor=65_536, shared_memory_per_block=49_152,
    shared_memory_per_block_optin=232_448, shared_memory_per_multiprocessor=233_472,
    L2_cache_size=62_914_560, is_integrated=0, is_multi_gpu_board=0, gcnArchName="",
    clock_rate=1_980_000, memory_clock_rate=3_201_000, memory_bus_width=6_144,
)  # fmt: skip
_TOOLS = Path(triton.backends.nvidia.__file__).parent / "bin"


@dataclass(frozen=True)
class Kernel:
    """One kernel of Triton's, of which a graph may launch several."""

    name: str
    num_launches: int
    moved_bytes: float
    """By one launch, as the compiler counts what is read and written once."""


@dataclass(frozen=True)
class Graph:
    """One graph for the card, or why there is none."""

    kind: str
    kernels: list[Kernel] = field(default_factory=list[Kernel])
    others: list[str] = field(default_factory=list[str])
    """Calls of kernels that are not generated: products, attention."""
    problem: str | None = None

    @property
    def moved_bytes(self) -> float:
        """By all launches of generated kernels."""
        return sum(each.num_launches * each.moved_bytes for each in self.kernels)


@dataclass(frozen=True)
class Assembled:
    """The machine code of one kernel under one choice of block sizes."""

    name: str
    registers: int
    spilled_bytes: int


class AbsentGpu:
    """A card that functions are compiled for; `absent_gpu` makes it."""

    def __init__(self, card: SimpleNamespace) -> None:
        self._is_asked = False
        self._card = card
        self._graphs: list[Graph] = []
        self._binaries: list[tuple[str, bytes]] = []

    def graphs_of(self, work: Callable[[], None]) -> list[Graph]:
        """The graphs that `work` has compiled with `backend`; its tensors have only shapes.

        They say that they are on the CPU, where alone a gradient can be traced without a card.
        """
        self._graphs = []
        torch._dynamo.reset()
        with fake_tensor.FakeTensorMode(allow_non_fake_inputs=True):
            work()
        return self._graphs

    def backend(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Any:
        """What `torch.compile` is to use."""
        return aot_module_simplified(
            graph,
            inputs,
            fw_compiler=self._compiler("forward"),
            bw_compiler=self._compiler("backward"),
            inference_compiler=self._compiler("without gradients"),
            partition_fn=_partition,
            decompositions=select_decomp_table(),
        )

    def assembled(self) -> list[Assembled]:
        """The machine code of everything so far, one entry per kernel and choice of block sizes."""
        return [_resources(name, binary) for name, binary in self._binaries]

    @contextmanager
    def pretended(self) -> Generator[None]:
        """Have torch's compiler believe that the card is there, while it is asked to compile."""
        # Torch registers its own kinds of devices when it is first asked, over what is there.
        device_interface.get_interface_for_device("cpu")
        card, interface = self._card, _interface(self._card)
        driver.set_active(_driver(card))
        with (
            patch.multiple(
                torch.cuda,
                is_available=lambda: self._is_asked,
                device_count=lambda: 1,
                current_device=lambda: 0,
                get_device_properties=lambda _device=None: card,
                get_device_capability=lambda _device=None: (card.major, card.minor),
                get_device_name=lambda _device=None: card.name,
                get_rng_state=lambda _device="cuda": torch.zeros(16),
                set_rng_state=lambda _state, _device="cuda": None,
                set_device=lambda _device: None,
                synchronize=lambda _device=None: None,
                device=nullcontext,
                _DeviceGuard=nullcontext,
                _lazy_init=lambda: None,
            ),
            patch.object(fake_tensor, "init_gpu_context", lambda _device: None),
            patch.object(triton_helpers, "set_driver_to_gpu", lambda: None),
            patch.object(triton_heuristics.CachingAutotuner, "precompile", self._assemble()),
            patch.dict(
                device_interface.device_interfaces, {"cuda": interface, "cuda:0": interface}
            ),
            inductor_config.patch(
                compile_threads=1,
                fx_graph_cache=False,
                use_static_cuda_launcher=False,
                # Has the bytes that a kernel moves written beside it.
                benchmark_kernel=True,
            ),
        ):
            yield

    def _assemble(self) -> Callable[..., None]:
        binaries = self._binaries

        def precompile(kernel: Any, *_: Any, **__: Any) -> None:
            kernel._precompile_worker()
            name = kernel.fn.__name__
            binaries.extend((name, each.kernel.asm["cubin"]) for each in kernel.compile_results)

        return precompile

    def _compiler(self, kind: str) -> Callable[..., Any]:
        def compiled(graph: torch.fx.GraphModule, _: Sequence[Any]) -> Any:
            moved, inputs, mode = _on_the_card(graph)
            self._is_asked = True
            try:
                with torch._guards.tracing(torch._guards.TracingContext(mode)):
                    made = compile_fx.compile_fx_inner(
                        moved, inputs, is_backward=kind == "backward"
                    )
                self._graphs.append(_read(kind, made.source_code))
            except Exception as err:
                problem = f"{type(err).__name__}: {str(err).partition(chr(10))[0][:200]}"
                self._graphs.append(Graph(kind, problem=problem))
            finally:
                self._is_asked = False
            # What goes on is the graph that was traced, with shapes alone.
            return make_boxed_func(graph.forward)

        return compiled


@contextmanager
def absent_gpu(card: SimpleNamespace = H200) -> Generator[AbsentGpu]:
    """A card to compile for, within this context alone."""
    gpu = AbsentGpu(card)
    with gpu.pretended():
        yield gpu


def _on_the_card(graph: torch.fx.GraphModule) -> tuple[torch.fx.GraphModule, list[Any], Any]:
    """A copy of a graph whose tensors are on the card, its inputs, and the mode they live in."""
    moved = copy.deepcopy(graph)
    nodes = list(moved.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    mode = torch._guards.detect_fake_mode([node.meta.get("val") for node in inputs])

    def there(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")

    with mode:
        for node in nodes:
            if "val" in node.meta:
                node.meta["val"] = tree_map(there, node.meta["val"])
            node.meta.pop("tensor_meta", None)
            node.kwargs = {
                name: torch.device("cuda", 0) if isinstance(value, torch.device) else value
                for name, value in node.kwargs.items()
            }
    moved.recompile()
    return moved, [node.meta["val"] for node in inputs], mode


def _partition(graph: torch.fx.GraphModule, inputs: Sequence[Any], **options: Any) -> Any:
    compile_fx._recursive_joint_graph_passes(graph)
    options["compiler"] = "inductor"
    return min_cut_rematerialization_partition(graph, inputs, **options)


def _read(kind: str, source: str) -> Graph:
    """What a generated program launches."""
    body = source.split("def call")[-1]
    launched = re.findall(r"(triton_\w+)\.run\(", body)
    kernels = [
        Kernel(name, launched.count(name), 1e9 * float(gigabytes))
        for name, gigabytes in re.findall(
            r"async_compile\.triton\('(\w+)'.*?'kernel_num_gb': ([0-9.e-]+)", source, re.DOTALL
        )
    ]
    others = re.findall(r"(?:extern_kernels|torch\.ops)\.([\w.]+)\(", body)
    return Graph(kind, kernels, others)


def _resources(name: str, binary: bytes) -> Assembled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [str(_TOOLS / "cuobjdump"), "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", said.stdout)
    assert found, said.stdout[-300:] + said.stderr[-300:]
    registers, stack, local = map(int, found.groups())
    return Assembled(name, registers, stack + local)


def _driver(card: SimpleNamespace) -> Any:
    target = GPUTarget("cuda", 10 * card.major + card.minor, card.warp_size)
    return SimpleNamespace(
        get_current_target=lambda: target,
        get_current_device=lambda: 0,
        get_device_interface=lambda: torch.cuda,
        is_active=lambda: True,
    )


def _interface(card: SimpleNamespace) -> Any:
    """What torch's compiler asks a kind of device for."""

    class Worker:
        set_device = staticmethod(lambda _device: None)
        current_device = staticmethod(lambda: 0)
        get_device_properties = staticmethod(lambda _device=None: card)

    class Absent(device_interface.CudaInterface):
        current_device = staticmethod(lambda: 0)
        set_device = staticmethod(lambda _device: None)
        device_count = staticmethod(lambda: 1)
        is_available = staticmethod(lambda: True)
        synchronize = staticmethod(lambda _device=None: None)
        get_device_properties = staticmethod(lambda _device=None: card)
        get_raw_stream = staticmethod(lambda _index: 0)
        get_compute_capability = staticmethod(lambda _device=None: 10 * card.major + card.minor)
        exchange_device = maybe_exchange_device = staticmethod(lambda _device: 0)
        is_bf16_supported = staticmethod(lambda including_emulation=False: True)
        is_dtype_supported = staticmethod(lambda _dtype, including_emulation=False: True)
        is_triton_capable = staticmethod(lambda _device=None: True)
        raise_if_triton_unavailable = staticmethod(lambda _device=None: None)

    Absent.Worker = Worker
    return Absent
