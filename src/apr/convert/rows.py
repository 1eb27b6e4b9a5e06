"""The rows of query and key projections: Hugging Face's order, and the one of older formats.

Rotary embeddings turn pairs of elements of a head. Hugging Face pairs an element of the first half
with one of the second; Llama's own files, and GGUF for that family, have the two side by side.
"""

from apr.convert.source import ReferenceConfig, SourceTensor

_TURNED = ("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")


def in_stored_order(tensor: SourceTensor, reference: ReferenceConfig) -> SourceTensor:
    """A tensor in split-half order with its rows as the source orders them."""
    if reference.rotary_pairs == "halves" or not tensor.name.endswith(_TURNED):
        return tensor
    raise NotImplementedError
