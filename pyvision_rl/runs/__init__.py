"""The run folder: configuration, metrics, checkpoints and trajectory records, crash-safe."""

from pyvision_rl.runs.checkpoints import Checkpoint, CheckpointConfig, Checkpoints
from pyvision_rl.runs.folder import PROMPT, SETUP, VIDEO_PROMPT, RunFolder
from pyvision_rl.runs.metrics import MetricRow
from pyvision_rl.runs.reader import RunReader
from pyvision_rl.runs.records import GroupRecord, RecordConfig, selection_records

__all__ = [
    "PROMPT",
    "SETUP",
    "VIDEO_PROMPT",
    "Checkpoint",
    "CheckpointConfig",
    "Checkpoints",
    "GroupRecord",
    "MetricRow",
    "RecordConfig",
    "RunFolder",
    "RunReader",
    "selection_records",
]
