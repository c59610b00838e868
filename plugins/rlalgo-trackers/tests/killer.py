"""A plugin file for tests: a callback that kills its process."""

import os
import signal
import time
from dataclasses import dataclass
from typing import Any, ClassVar

from rlalgo import hookimpl
from rlalgo.config import Count, NonNegative


class Killer:
    name: ClassVar[str] = "killer"

    @dataclass(frozen=True)
    class Config:
        at: Count = 48
        """After which update."""
        wait: NonNegative = 0.0
        """Seconds before that, in which a tracker may write down what it was given."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @hookimpl
    def rlalgo_on_step(self, step: int) -> None:
        if step == self.config.at:
            time.sleep(self.config.wait)
            os.kill(os.getpid(), signal.SIGKILL)


@hookimpl
def rlalgo_register_callbacks(register: Any) -> None:
    register(Killer)
