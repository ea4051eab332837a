"""Branches, ``recover`` and ``first`` that a workflow has besides its other steps, in some simulations.

They stand beside each other and inside of each other, depend on what other steps said, and are followed by steps that
are skipped with what they need. What has to come of them is said by ``reckoning``.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.core.flows import ALWAYS, HALF, Conduct
from tests.core.worlds import branch, choice, guard, op, ref, retry, step

DEEPEST = 2
ERRORS: tuple[list[dict[str, Any]], ...] = ([], [], [{"error": "ValueError"}], [{"error": "KeyError"}])
"""What a ``recover`` is for; no step fails with the last one."""
_SAYS_NOTHING = {"sleep", "event"}
_SAYS_A_NUMBER = {"python", "http", "loop"}


@dataclass(frozen=True)
class Around:
    """Where steps are drawn."""

    guards: tuple[dict[str, Any], ...] = ()
    depth: int = 0


@dataclass
class Choices:
    """Those of one workflow."""

    random: Random
    workflow: str
    called: dict[str, str] | None
    """The workflow that a step may call."""
    nodes: list[dict[str, Any]] = field(default_factory=list)
    conducts: dict[tuple[str, str], Conduct] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    """Steps that are part of the result."""

    def draw(self, before: list[dict[str, Any]]) -> None:
        """Draw a few choices behind the steps that there are."""
        visible = [node["id"] for node in before if node["kind"] not in _SAYS_NOTHING]
        numbers = [node["id"] for node in before if node["over"] is None and node["kind"] in _SAYS_A_NUMBER]
        for _ in range(self.random.choice((0, 1, 1, 2))):
            made = self._choose(Around(), visible, numbers)
            inside = self.random.choice(made)
            self.shown.append(made[-1])
            visible = [*visible, made[-1]]
            if "guards" in self._node(inside) and self.random.random() < 0.6:
                self._follow(inside, visible)

    def _follow(self, name: str, visible: list[str]) -> None:
        """Draw steps that are skipped with one that may be, and perhaps wait for another one that is not."""
        first = self._step(Around(), [name, self.random.choice(visible)])
        self._step(Around(), [first], is_map=self.random.random() < 0.3)

    def _choose(self, around: Around, visible: list[str], numbers: list[str]) -> list[str]:
        """Draw a choice; return the steps directly in it, and last the one that has its value."""
        drawn = self.random.choice((self._branch, self._recover, self._first))
        return drawn(around, visible, numbers)

    def _block(self, around: Around, visible: list[str], numbers: list[str]) -> list[str]:
        made: list[str] = []
        for _ in range(self.random.choice((1, 1, 1, 2))):
            if around.depth < DEEPEST and self.random.random() < 0.2:
                names = self._choose(around, [*visible, *made[-1:]], numbers)
            else:
                names = [self._step(around, self._any([*visible, *made[-1:]]), is_map=self.random.random() < 0.2)]
            made += names
        return made

    def _branch(self, around: Around, visible: list[str], numbers: list[str]) -> list[str]:
        condition = op("==", 1, self.random.randint(1, 2))
        if numbers and self.random.random() < 0.8:
            condition = op("<", ref(self.random.choice(numbers), "v"), HALF)
        arms: list[tuple[list[dict[str, Any]], Any]] = []
        made: list[str] = []
        for expected in (True, False)[: self.random.choice((1, 2, 2))]:
            own = guard(condition, expected)
            inner = self._block(Around((*around.guards, own), around.depth + 1), visible, numbers)
            made += inner
            arms.append(([own], ref(inner[-1])))
        return [*made, self._add(around, branch(self._name(), *arms))]

    def _recover(self, around: Around, visible: list[str], numbers: list[str]) -> list[str]:
        inside = self._block(Around(around.guards, around.depth + 1), visible, numbers)
        self._break(inside)
        arms = [{"value": None, "steps": inside}]
        caught = self._add(around, choice("recover", self._name(), arms, on=self.random.choice(ERRORS)))
        yes, no = guard(ref(caught, "failed")), guard(ref(caught, "failed"), expected=False)
        instead = self._block(Around((*around.guards, yes), around.depth + 1), visible, numbers)
        merged = branch(self._name(), ([no], ref(inside[-1])), ([yes], ref(instead[-1])))
        return [caught, *instead, self._add(around, merged)]

    def _first(self, around: Around, visible: list[str], numbers: list[str]) -> list[str]:
        arms = []
        for _ in range(self.random.choice((1, 2, 2))):
            inside = self._block(Around(around.guards, around.depth + 1), visible, numbers)
            arms.append({"value": ref(inside[-1]), "steps": inside})
            if self.random.random() < 0.4:
                self._break(inside)
        return [self._add(around, choice("first", self._name(), arms))]

    def _break(self, names: list[str]) -> None:
        """Let one of some steps fail for good, or fail once."""
        name = self.random.choice(names)
        if self._node(name)["kind"] == "python":
            self.conducts[self.workflow, name] = Conduct(self.random.choice((1, ALWAYS)))

    def _any(self, visible: list[str]) -> list[str]:
        """Return one of some steps, or none."""
        return self.random.sample(visible, min(len(visible), self.random.randint(0, 1)))

    def _step(self, around: Around, needed: list[str], *, is_map: bool = False) -> str:
        inputs: dict[str, Any] = {f"from_{name}": ref(name) for name in needed}
        if is_map:
            inputs["x"] = self.random.choice(([1, 2], [], [3]))
        elif self.called is not None and self.random.random() < 0.15:
            inputs["x"] = 1
        node = step(self._name(), inputs, over="x" if is_map else None)
        node["step"] = "a"
        if not is_map and "x" in inputs:
            node |= {"kind": "workflow", "signature": "", "workflow": self.called}
        else:
            node["policy"]["retry"] = retry(self.random.choice((1, 2, 3)), self.random.choice((0.0, 0.5)), 2.0, 8.0)
            node["policy"]["queue"] = self.random.choice(("default", "default", "narrow", "slow"))
        return self._add(around, node)

    def _add(self, around: Around, node: dict[str, Any]) -> str:
        self.nodes.append(node | ({"guards": list(around.guards)} if around.guards else {}))
        return str(node["id"])

    def _name(self) -> str:
        return f"x{len(self.nodes)}"

    def _node(self, name: str) -> dict[str, Any]:
        return next(node for node in self.nodes if node["id"] == name)
