"""A small labelled graph to draw: what a space says of an architecture's looks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """One cell to draw.

    Parameters
    ----------
    title : str
        Printed above the cell; empty for none.
    nodes : tuple of str
        Labels of the nodes, in topological order.
    edges : tuple of (int, int, str)
        Index of the source node, index of the target node, name of the operation.  An edge named "none" is drawn as
        cut, in grey dashes; an edge with an empty name is a thin line without a label.

    Raises
    ------
    ValueError
        If there is no node, if an edge does not lead from a node to a later one, or if a text has several lines.
    """

    title: str
    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ValueError(f"picture {self.title!r} has no nodes; give at least one")
        for source, target, label in self.edges:
            if not 0 <= source < target < len(self.nodes):
                raise ValueError(
                    f"edge {source} -> {target} {label!r} of picture {self.title!r} does not lead from a node to a "
                    f"later one; nodes are numbered in topological order, here from 0 to {len(self.nodes) - 1}"
                )
        for text in (self.title, *self.nodes, *(label for *_, label in self.edges)):
            if len(text.splitlines()) > 1:
                raise ValueError(f"text {text!r} of picture {self.title!r} has several lines; give a single line")
