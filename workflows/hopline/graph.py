"""What the graph of a workflow must be: acyclic, and every result used."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from hopline.definition import Expr, Node, references

if TYPE_CHECKING:
    import networkx as nx


def graph_of(nodes: Mapping[str, Node]) -> "nx.DiGraph[str]":
    """Return the graph with an edge from each node to those that wait for it."""
    import networkx as nx  # half a second and 11 MB, for those who want to compute with the graph

    graph: nx.DiGraph[str] = nx.DiGraph()
    for node in nodes.values():
        graph.add_node(node.id, step=node.step, kind=node.kind)
    for node in nodes.values():
        graph.add_edges_from((upstream, node.id) for upstream in node.upstream())
    return graph


def cycle_in(nodes: Mapping[str, Node]) -> list[str]:
    """Return node ids that wait for each other in a ring, the first repeated at the end; empty if there are none."""
    try:
        TopologicalSorter({node.id: node.upstream() for node in nodes.values()}).prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        return ring
    return []


def unused_in(nodes: Mapping[str, Node], result: Expr) -> Iterable[Node]:
    """Return the nodes whose results go nowhere although there are results to use."""
    used = {name for node in nodes.values() for name in node.uses()} | set(references(result))
    idle = (node for node in nodes.values() if node.id not in used and node.closes is None)
    return [node for node in idle if node.result.get("type") != "null"]


def idle_in(nodes: Mapping[str, Node], result: Expr) -> Iterable[Node]:
    """Return the sleeps for which nothing waits."""
    awaited = {name for node in nodes.values() for name in node.upstream()} | set(references(result))
    return [node for node in nodes.values() if node.kind == "sleep" and node.id not in awaited]
