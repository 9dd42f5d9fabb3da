import sglang as sgl

from gemma3n_sgl import Image, assistant, user


@sgl.function
def describe(s, image: Image, language: str = "English"):
    """Say what is in a picture."""
    s += user(image, "Describe this image." + (f" Answer in {language}." if language != "English" else ""))
    s += assistant(sgl.gen("answer"))
