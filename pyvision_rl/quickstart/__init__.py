"""The whole pipeline on the embedded tasks: data, cold start, RL and evaluation in minutes."""

from pyvision_rl.quickstart.image import QuickstartConfig, run_quickstart
from pyvision_rl.quickstart.video import VideoQuickstartConfig, run_video_quickstart

__all__ = [
    "QuickstartConfig",
    "VideoQuickstartConfig",
    "run_quickstart",
    "run_video_quickstart",
]
