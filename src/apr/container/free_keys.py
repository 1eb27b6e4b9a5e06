"""The free metadata keys in use: literal dotted names at the top level of the JSON object.

The format gives them no meaning. Those that start with `tokenizer.` and `tied_embeddings` are
spelled as the Rust tools read them; those that start with `apr.` are ours alone.
"""

TIED = "tied_embeddings"

VOCABULARY = "tokenizer.vocabulary"
"""Array of texts; the index is the token id, added tokens included."""
VOCAB_SIZE = "tokenizer.vocab_size"
MERGES = "tokenizer.merges"
"""Array of `left right`, one space."""
TOKENIZER_MODEL_TYPE = "tokenizer.model_type"
EOS_TOKEN_ID = "tokenizer.eos_token_id"

TOKENIZER_JSON = "apr.tokenizer_json_zlib"
"""Base64 of a zlib stream of tokenizer.json, byte for byte."""
TOKENIZER_FINGERPRINT = "apr.tokenizer_fingerprint"
EOS_TOKEN = "apr.eos_token"
"""The declared document separator; absent when none was declared."""
PRETRAINING_TOKENS = "apr.pretraining_tokens"
"""How many tokens the weights were trained on before, as their owner stamped it."""
TENSOR_SHA256 = "apr.tensor_sha256"
"""Object of tensor name to hex sha256 of its bytes, for every tensor or not at all."""
PROVENANCE = "apr.provenance"
"""Array of objects, one per thing that was done to the model; only appended to."""
ROPE_SCALING = "apr.rope_scaling"
"""Object of the fields of Llama 3's rotary scaling; absent where frequencies are not stretched."""
HF_CONFIG = "apr.hf_config"
"""Object of what config.json says beyond the architecture, as it was read."""
GENERATION_CONFIG = "apr.generation_config"
"""Object of generation_config.json, as it was read."""
PROOF = "apr.import_proof"
"""Object of what was compared when the model was imported, and how far the two sides were apart."""
