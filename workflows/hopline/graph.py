"""What the graph of a workflow must be: acyclic, and every result used."""

from collections.abc import Iterable, Mapping

import networkx as nx

from hopline.definition import Expr, Node, references


def graph_of(nodes: Mapping[str, Node]) -> "nx.DiGraph[str]":
    """Return the graph with an edge from each node to those that wait for it."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    for node in nodes.values():
        graph.add_node(node.id, step=node.step, kind=node.kind)
    for node in nodes.values():
        graph.add_edges_from((upstream, node.id) for upstream in node.upstream())
    return graph


def cycle_in(graph: "nx.DiGraph[str]") -> list[str]:
    """Return node ids that wait for each other in a ring, the first repeated at the end; empty if there are none."""
    if nx.is_directed_acyclic_graph(graph):
        return []
    edges = [edge[:2] for edge in nx.find_cycle(graph)]
    return [edges[0][0], *(end for _, end in edges)]


def unused_in(nodes: Mapping[str, Node], result: Expr) -> Iterable[Node]:
    """Return the nodes whose results go nowhere although there are results to use."""
    used = {name for node in nodes.values() for name in node.upstream()} | set(references(result))
    return [node for node in nodes.values() if node.id not in used and node.result.get("type") != "null"]
