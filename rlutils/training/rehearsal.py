"""What a run would do, in words: `rlalgo train --dry-run`."""

import torch

from rlutils.checkpoints.description import step_of
from rlutils.checkpoints.store import find
from rlutils.machine import memory, size
from rlutils.training.folder import stage
from rlutils.training.run import Run


def rehearsal(run: Run) -> dict[str, str]:
    """What of -> what would be done, of a run that has been made and not begun."""
    settings, config, at = run.settings, run.settings.trainer.config, stage(run.folder)
    done = step_of(find(run.folder)) if run.resumed else 0
    if not run.label:  # its data was not looked for
        return {"folder": f"{run.folder}: is finished, and would be left alone"}
    start = f"goes on from step {done:,}" if run.resumed else "begins" if at in ("free", "begun") else "begins anew"
    held_out = "" if run.held_out is None else f"; {len(run.held_out):,} more episodes are held out"
    parameters = "" if run.budget is None else f", {run.budget.parameters:,} parameters"
    batch = f" of {config.batch_size:,} items" if hasattr(config, "batch_size") else ""
    return {
        "data": f"{run.label}, {len(run.episodes):,} episodes, {run.episodes.steps:,} steps{held_out}",
        "algo": f"{settings.algo.name}{parameters}",
        "trainer": f"{settings.trainer.name}, {config.steps - done:,} updates{batch}",
        "device": f"{run.device}, {settings.threads or torch.get_num_threads()} threads",
        "memory": f"{run.budget or 'not known'}, of {size(memory(run.device))}",
        "evaluation": _evaluations(run, done),
        "folder": f"{run.folder}: {start}{', and deletes what is there' if start == 'begins anew' else ''}",
    }


def _evaluations(run: Run, done: int) -> str:
    config, steps = run.settings.evaluation, run.settings.trainer.config.steps
    if run.examiner.idle:
        return "none"
    due = range(config.every, steps, config.every) if config.every else range(0)
    policies = "each policy" if len(run.examiner.options) > 1 else "the policy"
    played = [f"{config.episodes:,} episodes of {policies} in {run.examiner.env_id}"]
    what = [*(played if config.episodes else ()), *run.examiner.evaluators]
    times = sum(step > done for step in due) + 1
    return f"{'once' if times == 1 else f'{times:,} times'} {', '.join(what)}"
