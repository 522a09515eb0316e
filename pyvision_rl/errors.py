"""The exceptions of the package: few, all children of one, each one clear line for a person."""


class PyVisionError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(PyVisionError, ValueError):
    """A file, row or value that cannot be used. The message names it and says what was allowed."""


class MediaError(InputError):
    """An image or video file that is missing or cannot be read."""


class ConfigError(InputError):
    """A configuration value, or a combination of values, that cannot be used."""


class SandboxError(PyVisionError):
    """The sandbox itself failed, not the code in it: the policy is not to blame."""


class SelectionError(PyVisionError):
    """Too few groups were left to train on after every allowed draw; it counts the reasons."""
