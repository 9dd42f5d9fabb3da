"""The model itself: sizes, tokenizer and files laid out like Gemma 3n's, and how a trained one is written for the engine."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.models._efficientnet_builder import decode_arch_def
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration

TEXT_VOCAB, MEDIA_VOCAB = 2048, 128
HIDDEN, LAYERS, AUDIO_HIDDEN = 128, 6, 128
CONTEXT = 4096
IMAGE_TOKENS, AUDIO_TOKENS = 256, 188
START_OF_IMAGE, START_OF_AUDIO = TEXT_VOCAB - 2, TEXT_VOCAB - 1
END_OF_IMAGE, IMAGE = TEXT_VOCAB, TEXT_VOCAB + 1
END_OF_AUDIO, AUDIO = TEXT_VOCAB + MEDIA_VOCAB, TEXT_VOCAB + MEDIA_VOCAB + 1
END_OF_TURN = 106
SHIPPED = Path(__file__).parents[2] / "gemma3n_sgl" / "engine" / "demo"
STAGES = (
    ("er_r1_k3_s2_e3_c24",),
    ("uir_r1_a3_k5_s2_e3_c32",),
    ("uir_r1_a5_k5_s2_e3_c48", "mqa_r1_k3_h2_v2_s1_d16_c48", "uir_r1_a3_k5_s1_e2_c48"),
    ("uir_r1_a5_k5_s2_e3_c64", "mqa_r1_k3_h2_s1_d16_c64", "uir_r1_a0_k0_s1_e2_c64"),
)
"""MobileNetV5's blocks, in timm's notation: Gemma 3n's kinds of block, a few of each."""

Model = Any
"""Gemma3nForConditionalGeneration; the library has no types."""


def built(seed: int) -> Model:
    """A model with fresh weights, of a scale that trains well at this size."""
    torch.manual_seed(seed)
    model = Gemma3nForConditionalGeneration(config()).float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            _initialise(name, weight)
    return model


def config() -> Gemma3nConfig:
    """Gemma 3n's configuration with small numbers. SGLang wants the last two layers with keys of their own to be sliding, full."""
    text = {
        "vocab_size": TEXT_VOCAB + 2 * MEDIA_VOCAB, "vocab_size_per_layer_input": TEXT_VOCAB, "hidden_size": HIDDEN,
        "hidden_size_per_layer_input": 16, "intermediate_size": [320] * LAYERS, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": CONTEXT, "sliding_window": CONTEXT,
        "layer_types": ["sliding_attention", "full_attention"] * 3, "num_kv_shared_layers": 2, "altup_num_inputs": 4, "altup_active_idx": 0,
        "laurel_rank": 8, "activation_sparsity_pattern": [0.5, 0.5] + [0.0] * (LAYERS - 2), "final_logit_softcapping": 30.0,
        "hidden_activation": "gelu_pytorch_tanh", "rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0, "rope_scaling": None,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip
    vision = {
        "architecture": "mobilenetv5_300m_enc", "do_pooling": False, "hidden_size": 2048, "vocab_size": MEDIA_VOCAB, "vocab_offset": TEXT_VOCAB,
        "rms_norm_eps": 1e-6, "num_classes": 2, "initializer_range": 0.02,
        "model_args": {"block_args": json.loads(json.dumps(decode_arch_def([list(stage) for stage in STAGES]))), "stem_size": 16},
    }  # fmt: skip
    audio = {
        "vocab_size": MEDIA_VOCAB, "vocab_offset": TEXT_VOCAB + MEDIA_VOCAB, "hidden_size": AUDIO_HIDDEN, "input_feat_size": 128,
        "conf_num_attention_heads": 4, "conf_num_hidden_layers": 3, "conf_attention_chunk_size": 12, "conf_attention_context_left": 13,
        "conf_attention_context_right": 0, "conf_conv_kernel_size": 5, "conf_reduction_factor": 4, "sscp_conv_channel_size": [16, 16],
    }  # fmt: skip
    return Gemma3nConfig(
        text_config=text, vision_config=vision, audio_config=audio, eos_token_id=[1, END_OF_TURN], pad_token_id=0, bos_token_id=2,
        audio_soft_tokens_per_image=AUDIO_TOKENS, vision_soft_tokens_per_image=IMAGE_TOKENS, boi_token_id=START_OF_IMAGE,
        boa_token_id=START_OF_AUDIO, eoi_token_id=END_OF_IMAGE, image_token_id=IMAGE, eoa_token_id=END_OF_AUDIO, audio_token_id=AUDIO,
    )  # fmt: skip


def _initialise(name: str, weight: torch.Tensor) -> None:
    if "altup.prediction_coefs" in name or "altup.correction_coefs" in name:
        weight.normal_(0, 0.02)
    elif name.endswith("correct_output_scale"):
        weight.fill_(1.0)  # zero, as it comes, sits on a norm at zero
    elif name.endswith(("q_norm.weight", "k_norm.weight")) and "language_model" in name:
        weight.fill_(0.45)  # attention has no scale of its own: 32 × 0.45² = 6.5
    elif name.endswith(".gamma"):
        weight.fill_(0.3)  # timm's layer scale, 1e-5 as it comes
    elif name.endswith("embedding.weight") and "embed_tokens" not in name:
        weight.normal_(0, 1.0)
    elif weight.dim() == 2 and any(part in name for part in ("language_model", "audio_tower", "embed_")):
        weight.normal_(0, weight.shape[1] ** -0.5)
    elif name.endswith(".bias"):
        weight.normal_(0, 0.02)


def agree(model: Model) -> None:
    """Copy what the towers' tables say of `<end_of_image>` and the like into the text's table: transformers reads one, SGLang the other."""
    table = model.model.language_model.embed_tokens.weight
    with torch.no_grad():
        for tower in (model.model.embed_vision, model.model.embed_audio):
            first = tower.vocab_offset
            table[first : first + MEDIA_VOCAB] = tower(input_ids=torch.arange(first, first + MEDIA_VOCAB)[None])[0] / HIDDEN**0.5


def tokenizer(corpus: list[str]) -> Tokenizer:
    """A byte-fallback BPE laid out like Gemma 3n's, trained on the corpus."""
    head = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]", *(f"<unused{i}>" for i in range(99)), "<start_of_turn>", "<end_of_turn>"]
    octets, tail = [f"<0x{octet:02X}>" for octet in range(256)], ["<start_of_image>", "<start_of_audio>"]
    learnt = TEXT_VOCAB - len(head) - len(octets) - len(tail)
    pieces, merges = _learnt(corpus, learnt)
    text = head + octets + pieces
    text += [f"<unused{99 + i}>" for i in range(TEXT_VOCAB - len(tail) - len(text))] + tail
    vision = ["<end_of_image>", "<image_soft_token>", *(f"<unused_vision{i}>" for i in range(MEDIA_VOCAB - 2))]
    audio = ["<end_of_audio>", "<audio_soft_token>", *(f"<unused_audio{i}>" for i in range(MEDIA_VOCAB - 2))]
    vocabulary = {token: i for i, token in enumerate(text + vision + audio)}
    merges = [merge for merge in merges if all(part in vocabulary for part in (*merge, "".join(merge)))]
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = _apart(pre_tokenizers.Split(" ", "merged_with_previous"))
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = [token for token in vocabulary if token in {*head, *tail, *vision, *audio} or token.startswith("<unused")]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)])
    return made


def _apart(split: Any) -> Any:
    """Digits each by itself, and no piece across the end of a line: so that an answer's tokens don't depend on what is before it."""
    return pre_tokenizers.Sequence([*(pre_tokenizers.Split(Regex(each), "isolated") for each in ("\n+", "▁?[0-9]")), split])


def _learnt(corpus: list[str], most: int) -> tuple[list[str], list[tuple[str, str]]]:
    """The pieces and merges that tell the corpus shortest."""
    raw = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.pre_tokenizer = _apart(pre_tokenizers.Split("▁", "merged_with_next"))
    alphabet = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    raw.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=most, limit_alphabet=150, show_progress=False, initial_alphabet=alphabet))
    model = json.loads(raw.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get)[:most], [tuple(merge) for merge in model["merges"]]


def write(model: Model, words: Tokenizer, folder: Path) -> None:
    """The model in bfloat16 with all that the engine wants beside it; templates and processors are those that ship already."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("chat_template.jinja", "preprocessor_config.json", "processor_config.json", "special_tokens_map.json",
                 "tokenizer_config.json", "generation_config.json"):  # fmt: skip
        if folder.resolve() != SHIPPED:
            shutil.copy(SHIPPED / name, folder / name)
    words.save(str(folder / "tokenizer.json"))
    made = config()
    made.architectures = ["Gemma3nForConditionalGeneration"]
    made.dtype = "bfloat16"
    made.save_pretrained(folder)
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | {"torch_dtype": "bfloat16"}, indent=1))
    model = copy.deepcopy(model).bfloat16()
    agree(model)
    weights = {name: weight.contiguous().clone() for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
