"""The commands that use weights: eval, compare, serve."""

from __future__ import annotations

import asyncio

from pyvision_rl.cli.parse import (
    is_dry_run,
    missing_extra,
    names_key,
    parse_config,
    show_dry_run,
    split_dry_run,
)


def evaluate(arguments: list[str]) -> int:
    """Accuracy of a checkpoint on a task file, or on a published benchmark."""
    if names_key("benchmark", arguments):
        return benchmark(arguments)
    from pyvision_rl.console import console, report_table, say, stage
    from pyvision_rl.eval.stage import EvalConfig, run_eval

    options, arguments = split_dry_run(arguments)
    config = parse_config("eval", EvalConfig, arguments)
    if is_dry_run("eval", config, options):
        return 0
    with stage("evaluation") as bar:
        report = asyncio.run(run_eval(config, bar.advance))
    console.print(report_table(config.data, [(config.policy.model, report)]))
    if report.num_skipped:
        say(f"skipped  {report.num_skipped} tasks whose files could not be read")
    if report.num_lost:
        say(f"lost     {report.num_lost} trajectories by their sandbox; played again on resuming")
    say(f"summary  {config.out}/summary.json")
    return 0


def benchmark(arguments: list[str]) -> int:
    """A published benchmark, or with `--tool both` what the tool is worth on it."""
    from pyvision_rl.console import say, stage
    from pyvision_rl.eval.benchmark_stage import BenchmarkConfig, run_benchmark
    from pyvision_rl.eval.tool_ablation import ablate_tool

    options, arguments = split_dry_run(arguments)
    config = parse_config("eval", BenchmarkConfig, arguments)
    if options.dry_run:
        from pyvision_rl.preflight.dry_benchmark import dry_run_benchmark

        return show_dry_run("eval", dry_run_benchmark(config, options.memory_gb))
    with stage(config.benchmark) as bar:
        if config.tool == "both":
            plain, helped, pair = asyncio.run(ablate_tool(config, bar.advance))
            lines = ["without the tool", *plain.lines(), "", "with the tool", *helped.lines()]
            lines += ["", pair.line()]
        else:
            lines = asyncio.run(run_benchmark(config, bar.advance)).lines()
    for line in lines:
        say(line)
    say(f"written  {config.out}")
    return 0


def compare(arguments: list[str]) -> int:
    """Finished benchmark runs, compared item by item."""
    from pyvision_rl.console import say
    from pyvision_rl.eval.compare import CompareConfig, compare_runs

    config = parse_config("compare", CompareConfig, arguments, positional="runs")
    for pair in compare_runs(config):
        say(pair.line())
    say(f"figure  {config.out}")
    return 0


def serve(arguments: list[str]) -> int:
    """The agent behind OpenAI's chat interface."""
    try:
        from pyvision_rl.serve.stage import ServeConfig, run_serve
    except ModuleNotFoundError as error:
        raise missing_extra("serve", error) from error

    options, arguments = split_dry_run(arguments)
    config = parse_config("serve", ServeConfig, arguments)
    if options.dry_run:
        from pyvision_rl.preflight.dry_serve import dry_run_serve

        return show_dry_run("serve", dry_run_serve(config, options.memory_gb))
    asyncio.run(run_serve(config))
    return 0
