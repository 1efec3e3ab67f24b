"""Elements of a page. Texts and attributes are escaped where the tree becomes text: nothing can be forgotten."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping

from memory_harness.configs.printable import printable

Node = ET.Element
Child = Node | str | None


def node(tag: str, attributes: Mapping[str, object] | None = None, *children: Child) -> Node:
    """Return an element; attributes and children that are None are left out."""
    given = {name: printable(str(value)) for name, value in (attributes or {}).items() if value is not None}
    element = ET.Element(tag, given)
    add(element, children)
    return element


def add(element: Node, children: Iterable[Child]) -> None:
    """Append texts and elements."""
    for child in children:
        if isinstance(child, str):
            _add_text(element, printable(child))
        elif child is not None:
            element.append(child)


def _add_text(element: Node, text: str) -> None:
    if len(element):
        element[-1].tail = (element[-1].tail or "") + text
    else:
        element.text = (element.text or "") + text


def to_text(root: Node) -> str:
    """Return the element as HTML; script and style are the only elements whose text is not escaped."""
    return ET.tostring(root, encoding="unicode", method="html")
