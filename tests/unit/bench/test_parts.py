"""Which part an operation belongs to, and what is said where that cannot be told."""

from dataclasses import replace
from typing import Any

import pytest
from tests.bench_sides import tiny_work

from apr.bench.parts import PART_NAMES, Operation, Parts, part_of, sum_parts
from apr.bench.reference import REFERENCE

V, D, F, H, T = 8192, 256, 704, 8, 512
SOFTMAX = "graph_0_cpp_fused__softmax_backward_data__to_copy_masked_fill_nll_loss_forward_5"
LOSS = "graph_0_cpp_fused__log_softmax__log_softmax_backward_data_nll_loss_backward_0"
NORM = "triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_3"


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        (Operation("aten::mm", 1.0, ((4096, D), (D, F))), "matmuls"),
        (Operation("aten::addmm", 1.0, ((D,), (4096, D), (D, D))), "matmuls"),
        (Operation("aten::mm", 1.0, ((4096, D), (D, V))), "head"),
        (Operation("aten::mm", 1.0, ((4096, D), (D, F)), (), "nvjet_hsh_128x256"), "matmuls"),
        (Operation("aten::bmm", 1.0, ((64, T, 32), (64, 32, T))), "attention"),
        (Operation("aten::_softmax", 1.0, ((16, H, T, T), ())), "attention"),
        (Operation("aten::masked_fill_", 1.0, ((16, H, T, T),)), "attention"),
        (
            Operation("aten::_flash_attention_forward", 1.0, (), (), "flash_fwd_kernel<bf16>"),
            "attention",
        ),
        (Operation("cudnn_graph", 1.0, (), (), "cudnn_generated_fort_native_sdpa"), "attention"),
        (Operation("aten::_log_softmax", 1.0, ((4096, V),)), "head"),
        (Operation("aten::fill_", 1.0, ((4096, V),)), "head"),
        (Operation("aten::embedding_dense_backward", 1.0, ((16, T, D),)), "elementwise"),
        (Operation("aten::mul", 1.0, ((16, T, D), (D,))), "elementwise"),
        (Operation("aten::mul_", 1.0, ((V, D),), ("aten::_foreach_mul_",)), "optimizer"),
        (Operation("aten::_fused_adamw_", 1.0), "optimizer"),
        (Operation("aten::mm", 1.0, ((D, D), (D, D)), ("Optimizer.step#Muon.step",)), "optimizer"),
        (Operation("aten::linalg_vector_norm", 1.0, ((V, D),)), "optimizer"),
        (Operation(SOFTMAX, 1.0), "attention"),
        (Operation(LOSS, 1.0), "head"),
        (Operation(NORM, 1.0), "elementwise"),
        (Operation("aten::add", 1.0, (), (), "void at::native::elementwise_kernel"), "elementwise"),
        (Operation("Memcpy", 1.0, (), (), "Memcpy HtoD"), "elementwise"),
        (Operation("CompiledFunctionBackward", 1.0), "other"),
        (Operation("ProfilerStep", 1.0), "other"),
    ],
)
def test_the_part_of_an_operation(operation: Operation, part: str) -> None:
    assert part_of(operation, REFERENCE, sequence_length=T, micro_batch_tokens=4096) == part


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        (Operation("aten::mm", 1.0, ((V, D), (D, F))), "matmuls"),
        (Operation("aten::mm", 1.0, ((F, V), (V, D), (F, D))), "matmuls"),
        (Operation("aten::addmm", 1.0, ((F,), (V, D), (D, F))), "matmuls"),
        (Operation("aten::mm", 1.0, ((V, D), (D, V))), "head"),
        (Operation("aten::mm", 1.0, ((V, V), (V, D), (V, D))), "head"),
        (Operation("aten::fill_", 1.0, ((V, V),)), "head"),
        (Operation("aten::mul", 1.0, ((V, D),)), "elementwise"),
    ],
)
def test_a_micro_batch_of_as_many_tokens_as_the_vocabulary_has_entries(
    operation: Operation, part: str
) -> None:
    """Every product was taken for the head's."""
    assert part_of(operation, REFERENCE, sequence_length=T, micro_batch_tokens=V) == part


def summed(*operations: Operation, elapsed_s: float = 10.0, **changes: Any) -> Parts:
    options = {"sequence_length": T, "micro_batch_tokens": 4096, "num_steps": 2, "data_wait_s": 1.0}
    options |= changes
    shape = options.pop("architecture", REFERENCE)
    return sum_parts(operations, shape, elapsed_s=elapsed_s, **options)


MATMUL = Operation("aten::mm", 4.0, ((4096, D), (D, F)))


def test_parts_sum_to_the_step() -> None:
    parts = summed(MATMUL, Operation(SOFTMAX, 2.0), Operation("Python", 1.0))
    assert parts.reasons == {}
    assert parts.step_s == 5.0
    assert list(parts.seconds) == list(PART_NAMES)
    assert parts.seconds["matmuls"] == 2.0
    assert parts.seconds["attention"] == 1.0
    assert parts.seconds["data wait"] == 0.5
    assert parts.seconds["other"] == 1.5
    assert sum(each or 0.0 for each in parts.seconds.values()) == parts.step_s


def test_parts_that_sum_to_more_than_the_step_are_seen() -> None:
    parts = summed(MATMUL, MATMUL, MATMUL)
    assert parts.seconds["other"] is None
    assert "more than the 10 s" in parts.reasons["other"]


def test_a_little_more_is_the_clocks() -> None:
    assert summed(replace(MATMUL, own_s=9.1)).reasons == {}


def test_compiled_kernels_without_names_tell_no_parts() -> None:
    parts = summed(MATMUL, Operation("## Call CompiledFxGraph abc ##", 3.0))
    assert parts.seconds["attention"] is parts.seconds["elementwise"] is None
    assert "do not say" in parts.reasons["head"]
    assert parts.seconds["matmuls"] == 2.0
    assert parts.seconds["other"] == 2.5


def test_compiled_kernels_with_names_tell_them() -> None:
    parts = summed(MATMUL, Operation("## Call CompiledFxGraph abc ##", 0.1), Operation(NORM, 3.0))
    assert parts.seconds["elementwise"] == 1.5


def test_a_vocabulary_that_is_as_wide_as_the_model_hides_the_head() -> None:
    parts = summed(MATMUL, architecture=replace(REFERENCE, vocab_size=F))
    assert parts.seconds["head"] is parts.seconds["matmuls"] is None
    assert parts.seconds["attention"] == 0.0


def test_a_profile_of_nothing_is_no_measurement() -> None:
    parts = summed()
    assert parts.seconds["matmuls"] is parts.seconds["optimizer"] is None
    assert parts.reasons["attention"] == "the profile holds no operation"


def test_the_reference_and_the_presets_tell_their_heads_apart() -> None:
    for shape in (REFERENCE, tiny_work().architecture):
        assert summed(MATMUL, architecture=shape).reasons == {}
