import sglang as sgl

from gemma3n_sgl import Recording, assistant, hear, user


@sgl.function
def translate(s, recording: Recording, language: str = "English"):
    """Write down what is said in a recording, then translate it."""
    hear(s, "transcript", recording, "Transcribe this audio.")
    s += user(f"Translate this into {language}. Reply with the translation only.\n", s["transcript"])
    s += assistant(sgl.gen("answer"))
