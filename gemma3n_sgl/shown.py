"""How values show themselves in a notebook: said elsewhere, so that a value needs nothing in order to be one."""

from __future__ import annotations

from functools import singledispatch


@singledispatch
def shown(value: object) -> str | None:
    """HTML for a value; None where its text is all there is to see. `gemma3n_sgl.notebook` registers what it knows."""
    return None
