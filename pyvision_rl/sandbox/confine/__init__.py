"""In-kernel confinement of a runtime: seccomp, landlock, namespaces, own uid, resource limits."""

from pyvision_rl.sandbox.confine.layers import Confinement, ConfinementError

__all__ = ["Confinement", "ConfinementError"]
