import sglang as sgl

from gemma3n_sgl import Recording, hear


@sgl.function
def translate_speech(s, recording: Recording, language: str = "English", timestamps: bool = False):
    """Write down what is said in a recording of any length, and translate it, part by part."""
    translate = f"Translate this into {language}. Reply with the translation only."
    hear(s, "answer", recording, "Transcribe this audio.", then=translate, clip_seconds=8 if timestamps else 29.5)
