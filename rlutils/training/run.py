"""Run: one training run's folder, device, seed, hooks, environments and checkpoints."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import gymnasium
from torch import Tensor

from rlalgo import plugins
from rlalgo.config import to_mapping
from rlalgo.core.algo import BatchRLAlgo
from rlalgo.core.episodes import Episodes
from rlalgo.core.policy import Policy
from rlalgo.core.rollout import distinct, rollout
from rlalgo.core.spec import DataSpec
from rlalgo.errors import CheckpointError
from rlalgo.registry import Catalogue
from rlutils.checkpoints import store as checkpoint
from rlutils.config.files import read_yaml, write_json, write_yaml
from rlutils.config.settings import Settings, policy_options
from rlutils.evaluation.evaluate import _finite, evaluate, write_result
from rlutils.evaluation.statistics import EvalResult
from rlutils.machine import Stopwatch, pick_device, versions
from rlutils.randomness import forked_rng, rng_state, set_rng_state


class Run:
    """What `train` gives back, and what trainers and callbacks see while it lasts."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        catalogue: Catalogue,
        episodes: Episodes,
        resumed: bool,
        held_out: Episodes | None = None,
    ) -> None:
        self.folder, self.settings, self.catalogue = folder, settings, catalogue
        self.episodes = episodes
        """What is trained on."""
        self.held_out = held_out
        """What is not, for evaluators; `info["episode"]` has the numbers in the source. None: all is trained on."""
        self.spec: DataSpec = episodes.spec
        self.seed = settings.seed
        self.device = pick_device(settings.device)
        self.evaluate_every = settings.evaluation.every
        self.step = 0
        self.total_steps = 0
        self.stop_signal: str | None = None
        self.resumed = resumed
        self.accepted = not resumed  # a resume that is refused leaves all files as they are
        self.last_result: EvalResult | None = None
        self.best_step: int | None = None
        self.stopped: str | None = None
        self.callbacks = [plugins.make("callback", choice) for choice in settings.callbacks]
        self.hooks = plugins.run_time_manager(catalogue, self.callbacks)
        self.evaluators = [plugins.make("evaluator", choice) for choice in settings.evaluation.evaluators]
        assert settings.algo.entry is not None
        self.options = policy_options(settings.algo.entry.cls, settings.evaluation.policies, catalogue, [])
        self._envs: list[gymnasium.Env] = []
        self._watch = Stopwatch()
        self._spent = 0.0

    # --- what trainers call ---

    def start(self, algo: BatchRLAlgo, total_steps: int) -> None:
        self.total_steps = total_steps
        for path in (self.folder / "evaluations").glob("step_*.json"):
            if int(path.stem.removeprefix("step_")) > self.step:  # after the checkpoint we go on from
                path.unlink()
        if self.resumed:
            self.accepted = True
            self.write_settings()  # what this resume overrode holds for the next one too
        state = rng_state()
        self.hooks.hook.rlalgo_on_start(run=self, algo=algo)
        set_rng_state(state)  # a resumed run starts twice; what watches must not change what is drawn

    def on_step(self, step: int, metrics: dict[str, Tensor]) -> None:
        self.step = step
        self.hooks.hook.rlalgo_on_step(run=self, step=step, metrics=metrics)

    def evaluate(self, algo: BatchRLAlgo, step: int) -> float | None:
        result = self.measure(algo, step)
        if result is None:
            return None
        write_result(self.folder / "evaluations" / f"step_{step:09d}.json", result)
        self.last_result = result
        self.hooks.hook.rlalgo_on_evaluation(run=self, step=step, result=result)
        return result.score

    def measure(self, algo: BatchRLAlgo, step: int) -> EvalResult | None:
        """Plays the configured policies and asks the evaluators; None where neither is configured."""
        config = self.settings.evaluation
        if not config.episodes and not self.evaluators:
            return None
        watch = Stopwatch()
        played = []
        if config.episodes:
            each = min(config.envs or 20, config.episodes)
            envs = self.envs(each * len(distinct(self.options)))
            played = evaluate(algo, self.options, envs, config.episodes, config.seed, self.ref_scores())
        metrics: dict[str, float] = {}
        for choice, evaluator in zip(config.evaluators, self.evaluators, strict=True):
            with forked_rng(config.seed):
                found = evaluator.evaluate(algo, self.episodes if self.held_out is None else self.held_out, self)
            metrics |= _finite(choice.name, found, step)
        return EvalResult(step, played, metrics, self.env_id(), config.seed, watch(), checkpoint=f"step_{step:09d}")

    def rollout(self, policy: Policy, episodes: int, seed: int) -> Episodes:
        return rollout(policy, self.envs(len(policy.options)), episodes, seed)

    def checkpoint(self, algo: BatchRLAlgo, step: int, state: dict[str, Any]) -> Path:
        everything = {
            "step": step,
            "optimizers": {name: item.state_dict() for name, item in algo.optimizers.items()},
            "schedulers": {name: item.state_dict() for name, item in algo.schedulers.items()},
            "rng": rng_state(),
            "trainer": state,
            "callbacks": {
                choice.name: callback.state_dict()
                for choice, callback in zip(self.settings.callbacks, self.callbacks, strict=True)
                if hasattr(callback, "state_dict")
            },
            "seconds": self.seconds(),
        }
        path = checkpoint.save(self.folder / "checkpoints", step, algo, self.settings.algo, everything)
        self.hooks.hook.rlalgo_on_checkpoint(run=self, step=step, path=path)
        checkpoint.prune(path.parent)  # after the callbacks, which may have named this one
        self.write_record("running")
        return path

    def restore(self, algo: BatchRLAlgo) -> dict[str, Any] | None:
        if not self.resumed:
            return None
        path = checkpoint.find(self.folder, "last")
        state = checkpoint.load_trainer_state(path)
        checkpoint.load_weights(path, algo)
        try:
            for name, item in algo.optimizers.items():
                item.load_state_dict(state["optimizers"][name])
            for name, scheduler in algo.schedulers.items():
                scheduler.load_state_dict(state["schedulers"][name])
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path}: another version of {algo.name} wrote this, with optimizers or schedules that differ from the "
                f"present ones ({error}); it can be evaluated and played, but not trained further: train it anew"
            ) from error
        for choice, callback in zip(self.settings.callbacks, self.callbacks, strict=True):
            if choice.name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][choice.name])
        self.step, self._spent = state["step"], state["seconds"]
        set_rng_state(state["rng"])
        return state["trainer"]

    # --- what callbacks and the application call ---

    def mark_best(self, path: Path, step: int) -> None:
        """Names a checkpoint `best`."""
        checkpoint.link(path.parent, "best", path)
        self.best_step = step

    def envs(self, n: int) -> list[gymnasium.Env]:
        """n environments, made when first needed and kept."""
        if len(self._envs) < n:
            maker = plugins.make("env", self.settings.env)
            self._envs += maker.make(self.spec, n - len(self._envs))
        return self._envs[:n]

    def env_id(self) -> str | None:
        """The environment that is played in: the configured one, or the data's own."""
        return getattr(self.settings.env.config, "id", None) or self.spec.env_id

    def ref_scores(self) -> tuple[float, float] | None:
        """Reference scores, unless another environment is played in than the one they belong to."""
        config = self.settings.env.config
        own = self.env_id() == self.spec.env_id and not getattr(config, "kwargs", None)
        return self.spec.ref_scores if own else None

    def end(self, error: BaseException | None) -> None:
        """Tells every callback, even if one of them raises, closes the environments and writes the record."""
        faults: list[Exception] = []
        for impl in reversed(self.hooks.hook.rlalgo_on_end.get_hookimpls()):
            arguments = {"run": self, "error": error}
            try:
                impl.function(*(arguments[name] for name in impl.argnames))
            except Exception as fault:  # noqa: BLE001 (a callback's fault must not hide the next one's end)
                faults.append(fault)
        self.close()
        state = "finished"
        if error is not None:
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        if self.accepted:
            with contextlib.suppress(OSError):  # a full disk has been reported already
                self.write_record(state, error)
        if faults and error is None:
            raise ExceptionGroup("callbacks failed at the end of the run", faults)
        for also in faults:
            assert error is not None
            error.add_note(f"besides, a callback failed at the end: {type(also).__name__}: {also}")

    def close(self) -> None:
        """Closes the environments; they are made again when needed."""
        for env in self._envs:
            env.close()
        self._envs = []

    def seconds(self) -> float:
        """Wall-clock seconds of training, those before a resume included."""
        return self._spent + self._watch()

    def write_record(self, state: str, error: BaseException | None = None) -> None:
        """run.yaml: the state of the run and how to repeat it."""
        path = self.folder / "run.yaml"
        old = read_yaml(path) if path.exists() else {}
        record = {
            **old,
            "state": state,
            "step": self.step,
            "seconds": round(self.seconds(), 3),
            "stopped": self.stopped,
            "error": None if error is None else (str(error) or type(error).__name__),
            "best_step": self.best_step if self.best_step is not None else old.get("best_step"),
        }
        write_yaml(path, record)

    def write_settings(self) -> None:
        """config.yaml, and who provided what it names."""
        write_yaml(self.folder / "config.yaml", to_mapping(self.settings))
        write_yaml(self.folder / "plugins.yaml", checkpoint.owners(self.settings))

    def write_beginning(self, command: str, source_label: str) -> None:
        """The files that describe a run, before its first update."""
        for name in ("evaluations", "checkpoints"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.write_settings()
        write_yaml(self.folder / "spec.yaml", self.spec.to_mapping())
        write_yaml(
            self.folder / "run.yaml",
            {
                "command": command,
                "started": datetime.now().astimezone().isoformat(timespec="seconds"),
                "versions": versions(),
            },
        )
        write_json(
            self.folder / "data.json",
            {
                "name": source_label,
                "episodes": len(self.episodes),
                "held_out": [] if self.held_out is None else self.held_out.info["episode"].tolist(),
                "steps": self.episodes.steps,
                "returns": self.episodes.info.get("unclipped_return", self.episodes.returns()).tolist(),
                "lengths": self.episodes.lengths().tolist(),
                "ref_scores": self.spec.ref_scores,
                "env_id": self.spec.env_id,
            },
        )
        self.write_record("running")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask for a clean stop while this lasts; a second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers; whoever made the thread decides there
            return
        before = {}

        def ask(number: int, frame: FrameType | None) -> None:
            if self.stop_signal is not None:
                raise KeyboardInterrupt
            self.stop_signal = signal.Signals(number).name

        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
