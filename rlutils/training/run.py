"""Run: one training run, between the application, its trainer, its callbacks and its folder."""

import contextlib
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor

from rlalgo import BatchRLAlgo, Episodes, Policy, plugins, rollout
from rlalgo.errors import CallbackFault, CheckpointError, EnvironmentFault, EvaluatorFault, RlalgoWarning
from rlalgo.nets.optim import shares_of
from rlalgo.registry import Catalogue
from rlutils.budget import Budget
from rlutils.checkpoints import store as checkpoints
from rlutils.checkpoints.index import step_of_name
from rlutils.checkpoints.loading import restore
from rlutils.config.claim import Claim, ClaimError
from rlutils.config.files import write_json
from rlutils.config.settings import Settings
from rlutils.evaluation.evaluate import Examiner
from rlutils.evaluation.statistics import EvalResult, read_result
from rlutils.machine import Stopwatch, pick_device
from rlutils.randomness import rng_state, set_rng_state
from rlutils.training.folder import is_run, write_settings, write_state
from rlutils.training.hooks import Hooks, blaming


class ScheduleWarning(RlalgoWarning):
    """Learning rates fall, or rise, by other steps than the run has."""


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
        self.claim: Claim | None = None
        """On the folder, while it trains."""
        self.label = ""
        """How messages call the data."""
        self.budget: Budget | None = None
        """The memory it needs, where that is known."""
        self.step = self.total_steps = 0
        self.started = False
        self.stopped: str | None = None
        self.stop_signal: str | None = None
        self.fault: CallbackFault | None = None
        """The first callback that failed since training began: the run ends by it once its state is saved."""
        self.examining = False
        self.best_step: int | None = None
        self.last_result: EvalResult | None = None
        self.examiner = Examiner(settings, self.spec, catalogue)
        self.callbacks = {choice.name: plugins.make("callback", choice) for choice in settings.callbacks}
        self.hooks = Hooks(self.callbacks, catalogue)
        self._watch = Stopwatch()
        self._seconds_before = 0.0

    # --- for trainers; `rlalgo.core.trainer.Run` says what each does ---

    def restore(self, algo: BatchRLAlgo) -> dict[str, Any] | None:
        if not self.resumed:
            return None
        state = restore(checkpoints.find(self.folder), algo, self.settings)
        for name, callback in self.callbacks.items():
            if name in state.callbacks:
                with blaming(f"step {state.step}: callback '{name}' failed in load_state_dict"):
                    callback.load_state_dict(state.callbacks[name])
        self.step, self._seconds_before = state.step, state.seconds
        return state.trainer

    def start(self, algo: BatchRLAlgo, total_steps: int) -> None:
        self.started, self.total_steps = True, total_steps
        for path in (self.folder / "evaluations").glob("step_*.json"):
            if (step_of_name(path.stem) or 0) > self.step and path.is_file():  # after the checkpoint we go on from
                path.unlink()
        shares = shares_of(algo.schedulers.values())
        if (warmup := max((share.warmup for share in shares), default=0)) > total_steps:
            text = f"warmup: {warmup:,} updates are more than the run's {total_steps:,}: lr is never reached; lower it"
            warnings.warn(text, ScheduleWarning, stacklevel=2)
        if self.resumed:
            write_settings(self.folder, self.settings)  # what this resume overrode holds for the next one too
            if kept := {share.total for share in shares if share.final != 1} - {total_steps}:
                message = (
                    f"trainer.steps: the learning rate keeps the schedule of {min(kept):,} updates that the run began "
                    f"with; train a new run for one of {total_steps:,}"
                )
                warnings.warn(message, ScheduleWarning, stacklevel=2)
        state = rng_state()
        self._tell("rlalgo_on_start", algo=algo)
        set_rng_state(state)  # a resumed run starts twice; what watches must not change what is drawn
        self._prune()  # what a kill kept it from

    @property
    def ending(self) -> bool:
        return self.stopped is not None or self.stop_signal is not None or self.fault is not None

    def on_step(self, step: int, metrics: dict[str, Tensor]) -> None:
        self.step = step
        self._tell("rlalgo_on_step", step=step, metrics=metrics)

    def evaluates_at(self, step: int) -> bool:
        every = self.settings.evaluation.every
        amid = every > 0 and step > 0 and step % every == 0 and not self.examining  # a loop of one's own has none
        due = step == self.total_steps or amid or self.stopped is not None
        return due and not self.examiner.idle

    def catch_up(self, algo: BatchRLAlgo) -> float | None:
        if not self.resumed:
            return None
        made = None
        with contextlib.suppress(CheckpointError):  # not made, or not to be read: it is made again
            made = read_result(self._result_file(self.step))
        if made is not None and made.step == self.step:
            return self._took(made)
        return self.evaluate(algo, self.step) if self.evaluates_at(self.step) else None

    def evaluate(self, algo: BatchRLAlgo, step: int) -> float | None:
        """None as well where the run is ending by a signal or a fault: whoever resumes it will evaluate."""
        if self.examiner.idle or self.fault is not None:
            return None
        try:
            self.examining = True  # from here on a signal stops at once, as the state is saved
            if self.stop_signal is not None:
                return None
            result = self.examiner.examine(algo, step, self)
        except (EnvironmentFault, EvaluatorFault) as fault:
            cure = f"mend it and go on with --resume {self.folder}"
            raise type(fault)(
                f"evaluation after step {step}: {fault}. The state of this step is saved: {cure}"
            ) from fault
        finally:
            self.examining = False
        self._hold()
        write_json(self._result_file(step), result.to_mapping())
        return self._took(result)

    def _took(self, result: EvalResult) -> float | None:
        """Tells the callbacks about a result; its score."""
        self.last_result = result
        self._tell("rlalgo_on_evaluation", step=result.step, result=result)
        self._prune()  # another one may be the best now
        self.write_state("running")
        return result.score

    def _result_file(self, step: int) -> Path:
        return self.folder / "evaluations" / f"step_{step:09d}.json"

    def rollout(self, policy: Policy, episodes: int, seed: int) -> Episodes:
        return rollout(policy, self.examiner.envs(len(policy.options)), episodes, seed)

    def checkpoint(self, algo: BatchRLAlgo, step: int, state: dict[str, Any]) -> Path:
        watchers = {}
        for name, callback in self.callbacks.items():
            if hasattr(callback, "state_dict"):
                try:
                    with blaming(f"step {step}: callback '{name}' failed in state_dict"):
                        watchers[name] = callback.state_dict()
                except CallbackFault as fault:  # what it remembers is lost, and nothing else
                    self.fault = self.fault or fault
        self._hold()
        everything = {"trainer": state, "callbacks": watchers, "seconds": self.seconds()}
        path = checkpoints.save(self.folder / "checkpoints", step, algo, self.settings, everything)
        self._tell("rlalgo_on_checkpoint", step=step, path=path)
        if not self.evaluates_at(step):
            self._prune()  # after the callbacks, which may have named this one
        self.write_state("running")
        return path

    def _hold(self) -> None:
        """ClaimError where another process has taken the folder."""
        if self.claim is not None:
            self.claim.hold()

    def _prune(self) -> None:
        checkpoints.prune(self.folder / "checkpoints", self.settings.checkpoints.keep)

    # --- for callbacks and the application ---

    def mark_best(self, path: Path, step: int) -> None:
        checkpoints.mark_best(path)
        self.best_step = step

    def seconds(self) -> float:
        return self._seconds_before + self._watch()

    def ask_to_stop(self, signal: str) -> None:
        """A signal came: the first asks for a clean stop, the second one stops at once.

        So does the first during an evaluation, which may take long and costs nothing: the state is saved before it.
        """
        if self.stop_signal is not None:
            raise KeyboardInterrupt
        self.stop_signal = signal
        if self.examining:
            raise KeyboardInterrupt(self._interruption())

    def check_end(self) -> None:
        """To be called when the trainer is done.

        Raises:
            KeyboardInterrupt: a signal ended the run.
            CallbackFault: a callback did.
        """
        if self.stop_signal is not None:
            raise KeyboardInterrupt(self._interruption())
        if self.fault is not None:
            raise self.fault

    def _interruption(self) -> str:
        left = "a checkpoint is written" if checkpoints.last_of(self.folder) else "there is no checkpoint yet"
        return f"stopped by {self.stop_signal} after step {self.step}; {left}"

    def _tell(self, hook: str, **arguments: Any) -> None:
        """Calls a hook on every callback and plugin, whatever the others do: none is to miss what happened."""
        wishes, faults = self.hooks.call(hook, self.step, run=self, **arguments)
        if wishes and self.stopped is None:
            self.stopped = wishes[0]
        if faults and self.fault is None:
            self.fault = faults[0]

    def end(self, error: BaseException | None) -> None:
        """Tells every callback, even if one of them raises, closes the environments and writes the state."""
        _, faults = self.hooks.call("rlalgo_on_end", self.step, run=self, error=error)
        self.examiner.close()
        ours = is_run(self.folder) and not isinstance(error, ClaimError)
        if ours and (self.started or not self.resumed):  # a resume that is refused leaves all files as they are
            state = {type(None): "finished", KeyboardInterrupt: "interrupted"}.get(type(error), "failed")
            with contextlib.suppress(*[OSError, CheckpointError] if error else []):  # a full disk was reported already
                self.write_state(state, error)
        if error is None and faults:
            raise faults[0]
        for also in faults:
            assert error is not None
            error.add_note(f"besides, {also}")

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
