from typing import Literal

import sglang as sgl

from gemma3n_sgl import Cues, Recording, hear


@sgl.function
def subtitles(s, recording: Recording, form: Literal["srt", "vtt", "text"] = "srt", language: str = ""):
    """Subtitle a recording of any length: as SubRip, WebVTT, or lines of text with their times. `language` is what it is translated into."""
    translate = f"Translate this into {language}. Reply with the translation only." if language else ""
    hear(s, "answer", recording, "Transcribe this audio.", then=translate, clip_seconds=7, as_text=Cues(form))
