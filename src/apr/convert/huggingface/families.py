"""Which models are refused by name, and what they are instead of a decoder built here."""

from collections.abc import Mapping
from typing import Any

_KINDS: dict[str, tuple[str, ...]] = {
    "an encoder": (
        "albert", "bert", "big_bird", "camembert", "canine", "codebert", "convbert",
        "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "esm",
        "eurobert", "flaubert", "fnet", "funnel", "graphcodebert", "ibert", "layoutlm",
        "layoutlmv2", "layoutlmv3", "longformer", "luke", "megatron-bert", "mobilebert",
        "modernbert", "mpnet", "nomic_bert", "nystromformer", "rembert", "roberta",
        "roberta-prelayernorm", "roformer", "squeezebert", "tapas", "xlm", "xlm-roberta",
        "xlm-roberta-xl", "xlnet", "xmod", "yoso",
    ),
    "an encoder and a decoder": (
        "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "codet5",
        "encoder-decoder", "fsmt", "led", "longt5", "m2m_100", "marian", "mbart", "mt5", "mvp",
        "nllb-moe", "pegasus", "pegasus_x", "plbart", "prophetnet", "rag",
        "switch_transformers", "t5", "t5gemma", "udop", "umt5",
    ),
    "an audio model": (
        "audio-spectrogram-transformer", "bark", "clap", "csm", "encodec", "hubert", "mimi",
        "moshi", "musicgen", "parakeet_ctc", "qwen2_audio", "seamless_m4t", "seamless_m4t_v2",
        "speech-encoder-decoder", "speech_to_text", "speecht5", "unispeech", "vits", "voxtral",
        "wav2vec2", "wav2vec2-bert", "wav2vec2-conformer", "wavlm", "whisper",
    ),
    "a model of images": (
        "align", "altclip", "aya_vision", "beit", "blip", "blip-2", "chameleon", "clip",
        "clipseg", "convnext", "deit", "detr", "dinov2", "dinov3_vit", "dpt", "emu3",
        "florence2", "fuyu", "gemma3", "git", "glm4v", "got_ocr2", "idefics", "idefics2",
        "idefics3", "instructblip", "internvl", "internvl_chat", "janus", "kosmos-2", "llama4",
        "llava", "llava_next", "llava_onevision", "mistral3", "mllama", "paligemma",
        "pix2struct", "pixtral", "qwen2_5_omni", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "resnet",
        "sam", "segformer", "siglip", "siglip2", "smolvlm", "swin", "trocr", "vilt",
        "vision-encoder-decoder", "vit", "vit_mae",
    ),
    "a mixture of experts": (
        "dbrx", "deepseek_v2", "deepseek_v3", "dots1", "ernie4_5_moe", "glm4_moe", "gpt_oss",
        "granitemoe", "hunyuan_v1_moe", "jetmoe", "llama4_text", "minimax", "mixtral", "olmoe",
        "phimoe", "qwen2_moe", "qwen3_moe", "qwen3_vl_moe",
    ),
    "a state-space or recurrent model": (
        "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "lfm2", "mamba",
        "mamba2", "nemotron_h", "qwen3_next", "recurrent_gemma", "rwkv", "rwkv5", "rwkv6",
        "rwkv7", "xlstm", "zamba", "zamba2",
    ),
    "a diffusion model": ("dream", "flux", "llada", "sdxl", "stable-diffusion", "unet"),
    "an adapter": ("lora", "peft"),
}  # fmt: skip
_KIND_OF = {family: kind for kind, families in _KINDS.items() for family in families}

_TELLTALE_KEYS = {
    "peft_type": "an adapter",
    "_diffusers_version": "a diffusion model",
    "vision_config": "a model of images",
    "audio_config": "an audio model",
    "speech_config": "an audio model",
    "text_config": "a model of text and something else",
    "encoder": "an encoder and a decoder",
    "ssm_cfg": "a state-space or recurrent model",
}
"""Keys that give another kind away, whatever family is named beside them."""


def kind_of(config: Mapping[str, Any]) -> str | None:
    """What kind of model config.json describes, where it is none built here."""
    for key, kind in _TELLTALE_KEYS.items():
        if config.get(key):
            return kind
    if config.get("is_encoder_decoder"):
        return "an encoder and a decoder"
    model_type = config.get("model_type")
    return _KIND_OF.get(model_type.lower()) if isinstance(model_type, str) else None
