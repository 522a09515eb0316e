"""In the place of PyPI's torchaudio, which needs CUDA libraries: LLaMA-Factory imports it, and
images need none of it.
"""
