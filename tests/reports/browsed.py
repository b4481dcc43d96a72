"""Pages as a browser sees them; what pages of all kinds must hold."""

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Tree(HTMLParser):
    """What a browser sees: elements with their attributes, and the text outside of styles; all elements are closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def named(self, name):
        return [attributes for element, attributes in self.elements if element == name]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def alone(html):
    """Assert that a page needs nothing else, and that what it refers to is there, once."""
    tree = Tree(html)
    names = {name for name, _ in tree.elements}
    assert not names & {"script", "iframe", "object", "embed", "base", "form"}
    attributes = [pair for _, given in tree.elements for pair in given.items()]
    assert not [name for name, _ in attributes if name.startswith("on")]
    links = [value for name, value in attributes if name.rpartition(":")[2] in ("href", "src")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "http:" not in html.replace("http-equiv", "") and "@import" not in html
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    inside = {link[1:] for link in links if link.startswith("#")}
    inside |= set(re.findall(r"url\(#([^)]+)\)", " ".join(value or "" for _, value in attributes)))
    assert inside and inside <= set(ids)
    drawn = tree.named("svg")
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 10 for svg in drawn)
    assert float(drawn[0]["width"]) > 0 and float(drawn[0]["height"]) > 0
    return tree
