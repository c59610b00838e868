"""Run: one training run, between the application, its trainer, its callbacks and its folder."""

import contextlib
from pathlib import Path
from typing import Any

from torch import Tensor

from rlalgo import BatchRLAlgo, Episodes, Policy, plugins, rollout
from rlalgo.registry import Catalogue
from rlutils.checkpoints import store as checkpoints
from rlutils.config.files import write_json
from rlutils.config.settings import Settings
from rlutils.evaluation.evaluate import Examiner
from rlutils.evaluation.statistics import EvalResult
from rlutils.machine import Stopwatch, pick_device
from rlutils.randomness import rng_state, set_rng_state
from rlutils.training.folder import write_settings, write_state


class Run:
    """What `train` gives back; while it lasts, the `rlalgo.core.trainer.Run` of trainers, callbacks and evaluators."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        catalogue: Catalogue,
        episodes: Episodes,
        held_out: Episodes | None = None,
        resumed: bool = False,
    ) -> None:
        self.folder, self.settings, self.resumed = folder, settings, resumed
        self.episodes = episodes
        self.held_out = held_out
        """What evaluators measure on; `info["episode"]` has the numbers in the source. None: all is trained on."""
        self.spec = episodes.spec
        self.seed = settings.seed
        self.device = pick_device(settings.device)
        self.step = self.total_steps = 0
        self.started = False
        self.stopped: str | None = None
        self.stop_signal: str | None = None
        self.best_step: int | None = None
        self.last_result: EvalResult | None = None
        self.examiner = Examiner(settings, self.spec, catalogue)
        self.callbacks = {choice.name: plugins.make("callback", choice) for choice in settings.callbacks}
        self.hooks = plugins.run_time_manager(catalogue, list(self.callbacks.values())).hook
        self._watch = Stopwatch()
        self._seconds_before = 0.0

    # --- for trainers; `rlalgo.core.trainer.Run` says what each does ---

    def restore(self, algo: BatchRLAlgo) -> dict[str, Any] | None:
        if not self.resumed:
            return None
        state = checkpoints.restore(checkpoints.find(self.folder), algo)
        for name, callback in self.callbacks.items():
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])
        self.step, self._seconds_before = state["step"], state["seconds"]
        return state["trainer"]

    def start(self, algo: BatchRLAlgo, total_steps: int) -> None:
        self.started, self.total_steps = True, total_steps
        for path in (self.folder / "evaluations").glob("step_*.json"):
            if int(path.stem.removeprefix("step_")) > self.step:  # after the checkpoint we go on from
                path.unlink()
        if self.resumed:
            write_settings(self.folder, self.settings)  # what this resume overrode holds for the next one too
        state = rng_state()
        self.hooks.rlalgo_on_start(run=self, algo=algo)
        set_rng_state(state)  # a resumed run starts twice; what watches must not change what is drawn

    def on_step(self, step: int, metrics: dict[str, Tensor]) -> None:
        self.step = step
        self.hooks.rlalgo_on_step(run=self, step=step, metrics=metrics)

    def evaluates_at(self, step: int) -> bool:
        every = self.settings.evaluation.every
        due = step == self.total_steps or (every > 0 and step % every == 0)
        return due and not self.examiner.idle

    def evaluate(self, algo: BatchRLAlgo, step: int) -> float | None:
        if self.examiner.idle:
            return None
        self.last_result = result = self.examiner.examine(algo, step, self)
        write_json(self.folder / "evaluations" / f"step_{step:09d}.json", result.to_mapping())
        self.hooks.rlalgo_on_evaluation(run=self, step=step, result=result)
        return result.score

    def rollout(self, policy: Policy, episodes: int, seed: int) -> Episodes:
        return rollout(policy, self.examiner.envs(len(policy.options)), episodes, seed)

    def checkpoint(self, algo: BatchRLAlgo, step: int, state: dict[str, Any]) -> Path:
        watchers = {name: c.state_dict() for name, c in self.callbacks.items() if hasattr(c, "state_dict")}
        everything = {"trainer": state, "callbacks": watchers, "seconds": self.seconds()}
        path = checkpoints.save(self.folder / "checkpoints", step, algo, self.settings.algo, everything)
        self.hooks.rlalgo_on_checkpoint(run=self, step=step, path=path)
        checkpoints.prune(path.parent)  # after the callbacks, which may have named this one
        self.write_state("running")
        return path

    # --- for callbacks and the application ---

    def mark_best(self, path: Path, step: int) -> None:
        checkpoints.link(path.parent, "best", path)
        self.best_step = step

    def seconds(self) -> float:
        return self._seconds_before + self._watch()

    def ask_to_stop(self, signal: str) -> None:
        """A signal came: the first asks for a clean stop, the second one stops at once."""
        if self.stop_signal is not None:
            raise KeyboardInterrupt
        self.stop_signal = signal

    def end(self, error: BaseException | None) -> None:
        """Tells every callback, even if one of them raises, closes the environments and writes the state."""
        faults: list[Exception] = []
        arguments = {"run": self, "error": error}
        for impl in reversed(self.hooks.rlalgo_on_end.get_hookimpls()):
            try:
                impl.function(*(arguments[name] for name in impl.argnames))
            except Exception as fault:  # noqa: BLE001 (a callback's fault must not hide the next one's end)
                faults.append(fault)
        self.examiner.close()
        if self.started or not self.resumed:  # a resume that is refused leaves all files as they are
            state = {type(None): "finished", KeyboardInterrupt: "interrupted"}.get(type(error), "failed")
            with contextlib.suppress(OSError):  # a full disk has been reported already
                self.write_state(state, error)
        if faults and error is None:
            raise ExceptionGroup("callbacks failed at the end of the run", faults)
        for also in faults:
            assert error is not None
            error.add_note(f"besides, a callback failed at the end: {type(also).__name__}: {also}")

    def write_state(self, state: str, error: BaseException | None = None) -> None:
        """How far the run has come, into run.yaml."""
        facts = {
            "state": state,
            "step": self.step,
            "seconds": round(self.seconds(), 3),
            "stopped": self.stopped,
            "error": None if error is None else (str(error) or type(error).__name__),
        }
        best = {} if self.best_step is None else {"best_step": self.best_step}
        write_state(self.folder, **facts, **best)
