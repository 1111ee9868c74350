"""Every way to run a pruned model, by name, and what can be said of it before anything is cut. No torch."""

from __future__ import annotations

from core.errors import SpecError
from core.ship import gguf, hf, onnx, peft, vllm
from core.ship.records import Route, Subject, Verdict

ROUTES: dict[str, Route] = {
    route.name: route for route in (hf.ROUTE, peft.ROUTE, gguf.ROUTE, onnx.ROUTE, vllm.ROUTE)
}


def verdicts(subject: Subject) -> dict[str, Verdict]:
    """Whether each way is open to a model."""
    return {name: route.verdict(subject) for name, route in ROUTES.items()}


def require(name: str, subject: Subject) -> Route:
    """The route of that name. Raises SpecError where it is closed to this model; says which are open."""
    route = ROUTES[name]
    verdict = route.verdict(subject)
    if not verdict.possible:
        others = [other.name for other in ROUTES.values() if other.write and other.verdict(subject).possible]
        raise SpecError(
            f"{route.title} cannot hold this model: {verdict.reason} What can be written of it: "
            f"{', '.join(others)}."
        )
    return route
