"""Run by the engine's own Python, with the stand-ins on its path: what each of them is for, tried `with` it or `without` it.

Prints one JSON object: for each stand-in what went wrong, "" where nothing did, and whether torch is the CUDA build.
"""

from __future__ import annotations

import importlib
import inspect
import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import sitecustomize
import torch
from transformers import PreTrainedTokenizerFast

KERNELS = "sgl_kernel"
SIZES = [256, 256]
END = 106
"""The token that ends a turn."""
MURMUR3 = (3768051954, 2057407384)
"""MurmurHash3 (x86, 32 bit) of 5, 7, 3 and of 2**62 + 11, 1, 900: a seed of 64 bits and two numbers of 32, as the package mmh3 has it."""


def intermediate_sizes() -> str:
    module = importlib.import_module("sglang.srt.configs.update_config")
    config = SimpleNamespace(hf_config=SimpleNamespace(text_config=SimpleNamespace(intermediate_size=SIZES)))
    module.update_intermediate_size(config, "intermediate_size", 16)
    return "" if config.hf_config.text_config.intermediate_size == SIZES else "changed"


def queries() -> str:
    module = importlib.import_module("sglang.srt.layers.attention.torch_native_backend")

    class Backend(module.TorchNativeAttnBackend):
        token_to_kv_pool = SimpleNamespace(get_key_buffer=lambda _: None, get_value_buffer=lambda _: None)
        req_to_token_pool = SimpleNamespace(req_to_token=None)

        def __init__(self) -> None:
            """Without the pools that a whole engine would give it."""

        def _run_sdpa_forward_extend(self, q: torch.Tensor, o: torch.Tensor, *_: object, **__: object) -> None:
            o.copy_(q)

    heads, size = 4, 32
    layer = SimpleNamespace(
        qk_head_dim=size, v_head_dim=size, tp_q_head_num=heads, tp_k_head_num=heads, layer_id=0, scaling=1.0, is_cross_attention=False
    )
    layer.attn_type, layer.sliding_window_size = None, None
    batch = SimpleNamespace(
        out_cache_loc=None, req_pool_indices=None, seq_lens=None, extend_prefix_lens=None, extend_seq_lens=None, encoder_lens=None
    )
    q = torch.rand(3, heads, size)
    out = Backend().forward_extend(q, None, None, layer, batch, save_kv_cache=False)
    return "" if out.shape == (3, heads * size) else f"an output of {out.dim()} dimensions"


def store() -> str:
    module = importlib.import_module("torch.distributed.rendezvous")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kept, *_ = next(module.rendezvous(f"tcp://127.0.0.1:{port}", rank=0, world_size=1))
    kept.set("key", "value")
    addresses = {connection.laddr.ip for connection in psutil.Process().net_connections("tcp") if connection.laddr.port == port}
    return "" if addresses == {"127.0.0.1"} else f"reachable at {sorted(addresses)}"


def seeds() -> str:
    module = importlib.import_module("sglang.srt.sampling.sampling_batch_info")
    batch = SimpleNamespace(
        reqs=[request(5), request(5), request(None), request(None)], device="cpu", model_config=SimpleNamespace(hf_config=SimpleNamespace())
    )
    info = module.SamplingBatchInfo
    original = info.from_schedule_batch.__func__.__closure__  # upstream's own, where it is wrapped; it needs a whole engine
    if original is None:
        return "a seed is heeded under a flag alone" if "if enable_deterministic" in inspect.getsource(info.from_schedule_batch) else ""
    for cell in original:
        if callable(cell.cell_contents):
            cell.cell_contents = lambda cls, batch, size: SimpleNamespace(sampling_seed=None)
    first, second, third, fourth = info.from_schedule_batch(batch, 100).sampling_seed.tolist()
    return "" if first == second == 5 and third != fourth else "seeds are lost"


def request(seed: int | None) -> SimpleNamespace:
    return SimpleNamespace(sampling_params=SimpleNamespace(sampling_seed=seed))


def sampling() -> str:
    module = importlib.import_module("sglang.srt.layers.sampler")
    seeds, positions = torch.tensor([5, 2**62 + 11]), torch.tensor([7, 1])
    hashed = module.murmur_hash32(seeds.to(torch.uint64), positions, torch.arange(1000))
    if (hashed[0, 3], hashed[1, 900]) != MURMUR3:
        return "another hash"
    probs = torch.tensor([[0.6, 0.3, 0.1]] * 2)
    top_ks, top_ps, min_ps = torch.tensor([3, 3]), torch.tensor([1.0, 1.0]), torch.tensor([0.9, 0.9])
    for position in range(50):
        drawn = module.top_k_top_p_min_p_sampling_from_probs_torch(probs.clone(), top_ks, top_ps, min_ps, True, seeds, positions + position)
        if drawn.tolist() != [0, 0]:
            return "min_p is lost"
    return ""


class Tower:
    """Makes a soft token of every 16 frames."""

    def parameters(self) -> Iterator[torch.Tensor]:
        yield torch.zeros(1)

    def __call__(self, features: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return features[:, ::16], mask[:, ::16]


def clips() -> str:
    module = importlib.import_module("sglang.srt.models.gemma3n_mm")
    model = SimpleNamespace(
        audio_tower=Tower(),
        language_model=SimpleNamespace(dtype=lambda: torch.float32),
        embed_audio=lambda input_ids=None, inputs_embeds=None: torch.zeros(1, 1, 4) if inputs_embeds is None else inputs_embeds,
        vocab_size=8,
        config=SimpleNamespace(audio_soft_tokens_per_image=20),
    )
    items = [SimpleNamespace(feature=torch.ones(1, n, 4), input_features_mask=torch.ones(1, n, dtype=torch.bool)) for n in (160, 240)]
    made = module.Gemma3nForConditionalGeneration.get_audio_feature(model, items)
    return "" if made[..., 0].sum(1).tolist() == [10, 15] and made.shape == (2, 20, 4) else "other tokens"


def masks() -> str:
    """A word in quotes, in two grammars that say it differently: within the second the answer may not end."""
    module = importlib.import_module("sglang.srt.constrained.xgrammar_backend")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(sitecustomize.__file__).parents[1] / "demo" / "tokenizer.json"))
    compiler = module.GrammarCompiler(tokenizer_info=module.TokenizerInfo.from_huggingface(tokenizer, stop_token_ids=[END]))
    some = r"[ \-0-9A-Z_a-z]"
    root = r'root ::= "{" "\"" r2 "\": 1}"'
    compiler.compile_grammar(f'{root}\nr0 ::= {some}*\nr1 ::= {some} r0\nr2 ::= ([ \\-0-9A-Z_b-z] r0 | "a" r1)\n')
    matcher = module.GrammarMatcher(compiler.compile_grammar(f"{root}\nr1 ::= {some}*\nr2 ::= {some} r1\n"))
    matcher.accept_string('{"')
    mask = torch.full(module.get_bitmask_shape(1, len(tokenizer)), -1, dtype=module.bitmask_dtype)
    matcher.fill_next_token_bitmask(mask)
    return "an end within a string" if int(mask[0, END // 32]) >> END % 32 & 1 else ""


def imported(name: str) -> Callable[[], str]:
    def check() -> str:
        importlib.import_module(name)
        return ""

    return check


CASES = {
    "torch.distributed.rendezvous": store,
    "torchvision.extension": imported("torchvision"),
    "torchaudio._extension.utils": imported("torchaudio"),
    "sglang.srt.configs.update_config": intermediate_sizes,
    "sglang.srt.layers.attention.torch_native_backend": queries,
    "sglang.srt.sampling.sampling_batch_info": seeds,
    "sglang.srt.layers.sampler": sampling,
    "sglang.srt.models.gemma3n_mm": clips,
    "sglang.srt.constrained.xgrammar_backend": masks,
    KERNELS: imported("sglang.kernels.ops.kvcache.cache_move"),
}


def outcome(case: Callable[[], str]) -> str:
    try:
        return case()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def without(name: str) -> str:
    """What becomes of a case without its stand-in, which is there again afterwards, for what the next case imports."""
    if name == KERNELS:
        sys.modules.pop("sglang.kernels.ops.kvcache.cache_move", None)
        sys.modules[KERNELS] = None  # type: ignore[assignment]  # Python's own way to say that there is no such module
        return outcome(CASES[name])
    mend = sitecustomize.MENDS[name]
    sitecustomize.MENDS[name] = lambda module: None
    for module in [module for module in sys.modules if module == name]:
        del sys.modules[module]
    found = outcome(CASES[name])
    sitecustomize.MENDS[name] = mend
    package = name.partition(".")[0]
    if package in ("torchvision", "torchaudio"):
        for module in [module for module in sys.modules if module.partition(".")[0] == package]:
            del sys.modules[module]  # half imported; others need it whole
    return found


if __name__ == "__main__":
    results = {name: outcome(case) if sys.argv[1] == "with" else without(name) for name, case in CASES.items()}
    print(json.dumps({"results": results, "mends": sorted(sitecustomize.MENDS), "cuda": torch.version.cuda is not None}))
