import sglang as sgl

from gemma3n_sgl import Image, assistant, user


@sgl.function
def compare(s, images: list[Image], aspect: str = "what they show"):
    """Describe several pictures side by side, each by itself, then say what they share and where they differ."""
    forks = s.fork(len(images))
    for fork, image in zip(forks, images, strict=True):
        fork += user(image, "Describe this image.")
        fork += assistant(sgl.gen("description"))
    described = [f"Image {i}: {fork['description'].strip()}" for i, fork in enumerate(forks, 1)]
    forks.join()
    s += user("\n".join(described), f"\n\nCompare the images by {aspect}: name what they share, then where they differ.")
    s += assistant(sgl.gen("answer"))
