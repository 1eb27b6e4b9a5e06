"""Published peaks of matrix products, by the exact name a device gives itself.

A name that is not in the table has no peak: a figure of another card is worse than none (one
project counted an H200 as an A100, and its utilisation was three times too high).

Source: NVIDIA's data sheets of A100, H100 (SXM, PCIe and NVL), H200, L4 and L40S, and of HGX B200;
dense bf16 with fp32 accumulation, where a sheet gives the figure with sparsity half of it.
"""

_TERA = 1e12
BF16_FLOPS_PER_S = {
    "NVIDIA A100-SXM4-40GB": 312 * _TERA,
    "NVIDIA A100-SXM4-80GB": 312 * _TERA,
    "NVIDIA A100-PCIE-40GB": 312 * _TERA,
    "NVIDIA A100 80GB PCIe": 312 * _TERA,
    "NVIDIA H100 80GB HBM3": 989.5 * _TERA,
    "NVIDIA H100 PCIe": 756.5 * _TERA,
    "NVIDIA H100 NVL": 835.5 * _TERA,
    "NVIDIA H200": 989.5 * _TERA,
    "NVIDIA B200": 2250 * _TERA,
    "NVIDIA L4": 121 * _TERA,
    "NVIDIA L40S": 362 * _TERA,
}


def published_peak(device_name: str, precision: str) -> tuple[float | None, str]:
    """FLOP/s of the sheet; None where there is none, and the reason.

    fp32 has no entry: what a sheet says of it depends on whether TF32 is allowed.
    """
    if precision != "bf16":
        return None, f"the table has no peak for {precision}"
    peak = BF16_FLOPS_PER_S.get(device_name)
    if peak is None:
        return None, f"no published peak is known for a device named {device_name!r}"
    return peak, "the data sheet, dense bf16"
