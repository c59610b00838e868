"""Run-time hooks, told one by one: whoever fails is named, and the others hear of it all the same."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rlalgo import StopTraining, plugins
from rlalgo.errors import CallbackFault, told
from rlalgo.registry import Catalogue


class Hooks:
    """The hooks of one run: on its callbacks in the order given, then on the plugins in the order of discovery."""

    def __init__(self, callbacks: Mapping[str, Any], catalogue: Catalogue) -> None:
        names = {
            id(module): f"plugin '{owner.plugin}'"
            for module, owner in zip(catalogue.modules, catalogue.owners, strict=True)
        }
        names |= {id(callback): f"callback '{name}'" for name, callback in callbacks.items()}
        manager = plugins.run_time_manager(catalogue, list(callbacks.values()))
        self.listeners: dict[str, list[tuple[str, Callable[..., None], tuple[str, ...]]]] = {
            hook: [
                (names[id(impl.plugin)], impl.function, tuple(impl.argnames))
                for impl in reversed(getattr(manager.hook, hook).get_hookimpls())  # pluggy's order is the last first
            ]
            for hook in vars(manager.hook)
            if hook.startswith("rlalgo_on_")
        }

    def call(self, hook: str, after: int, **arguments: Any) -> tuple[list[str], list[CallbackFault]]:
        """Calls it on every listener.

        Args:
            hook: its name.
            after: updates done, for messages.
            **arguments: of the hook; each listener gets those that it asks for.

        Returns:
            The reasons of those that raised StopTraining, and the faults of those that raised anything else.
        """
        wishes: list[str] = []
        faults: list[CallbackFault] = []
        for name, function, wanted in self.listeners[hook]:
            try:
                function(*[arguments[key] for key in wanted])
            except StopTraining as reason:
                wishes.append(str(reason) or f"{name} stopped it")
            except Exception as error:  # noqa: BLE001 (whatever a callback raises is the callback's fault)
                faults.append(_fault(f"step {after}: {name} failed in {hook}", error))
        return wishes, faults


@contextlib.contextmanager
def blaming(what: str) -> Iterator[None]:
    """Whatever is raised within becomes a CallbackFault that begins with these words."""
    try:
        yield
    except Exception as error:
        raise _fault(what, error) from error


def _fault(what: str, error: Exception) -> CallbackFault:
    fault = CallbackFault(f"{what}: {told(error)}")
    fault.__cause__ = error
    return fault
