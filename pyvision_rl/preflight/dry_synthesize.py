"""`data synthesize --dry-run`: the tasks read, the teacher looked at, nothing paid for."""

from __future__ import annotations

from dataclasses import replace

from pyvision_rl.data.validate import validate_file
from pyvision_rl.preflight.dry_run import MAX_PROBLEMS, DryRun, check_prompts
from pyvision_rl.preflight.out_folder import check_run_folder
from pyvision_rl.preflight.served import check_served
from pyvision_rl.rollout.prompts import load_template
from pyvision_rl.runs.config import dump_config
from pyvision_rl.sft.synthesize import MAY_CHANGE, SynthesizeConfig


def dry_run_synthesize(config: SynthesizeConfig) -> DryRun:
    """Check a synthesis' configuration, tasks, prompts and run folder, and that its teacher
    answers. Raises PyVisionError in one line for what cannot be used.
    """
    report = validate_file(config.data, image_root=config.image_root or None)
    check_prompts(config.agent.rollout)
    if config.student_prompt:
        load_template(config.student_prompt)
    num_tasks = min(report.num_rows, config.limit or report.num_rows)
    lines = [
        dump_config(config).rstrip(),
        "",
        *report.lines(MAX_PROBLEMS),
        "",
        f"{num_tasks} tasks, at most {num_tasks * config.max_tries} attempts",
        check_served(replace(config.endpoint, url=config.server)),
        check_run_folder(config.out, config, resume=True, may_change=MAY_CHANGE),
    ]
    return DryRun(tuple(lines), report.ok)
