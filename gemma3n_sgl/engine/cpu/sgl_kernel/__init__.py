"""Stand-in for SGLang's compiled kernels (`sglang-kernel`), which PyPI has for CUDA only.

On the CPU, SGLang 0.5.23 imports these eight by name when it starts, under `if _is_cpu`; they serve speculative decoding and the moving of
KV cache, which this engine does not do. What it does do runs on plain torch where there is no Intel AMX. Anything else asked of this module
is an ImportError, as it is without the package, and upstream has a way around that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

_IMPORTED_AT = {
    "assign_draft_cache_locs_contiguous_cpu": "sglang/kernels/ops/speculative/cache_locs.py:28",
    "assign_extend_cache_locs_cpu": "sglang/kernels/ops/speculative/cache_locs.py:28",
    "assign_req_to_token_pool_cpu": "sglang/srt/mem_cache/allocation.py:46",
    "build_tree_kernel_efficient_cpu": "sglang/kernels/ops/speculative/spec_tree.py:40",
    "copy_all_layer_kv_cache_cpu": "sglang/kernels/ops/kvcache/cache_move.py:10",
    "fill_accept_out_cache_loc_cpu": "sglang/kernels/ops/speculative/eagle.py:10",
    "fill_bonus_tokens_cpu": "sglang/kernels/ops/speculative/eagle.py:10",
    "verify_tree_greedy_cpu": "sglang/kernels/ops/speculative/spec_tree.py:43",
}


def _missing(name: str) -> Callable[..., NoReturn]:
    def kernel(*_: Any, **__: Any) -> NoReturn:
        raise RuntimeError(f"SGLang's kernel {name} exists for CUDA only; this engine runs without it on the CPU")

    kernel.__name__ = name
    return kernel


globals().update({name: _missing(name) for name in _IMPORTED_AT})
