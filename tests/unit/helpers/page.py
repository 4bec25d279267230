"""A page as a browser would take it."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would make of it: a tree that closes, and all that is named in it."""

    VOID = ("meta", "br")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links, self.ids, self.text = [], [], [], [], ""

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tags.append(tag)
        self.links += [named[name] for name in ("src", "href", "action") if name in named]
        self.ids += [named["id"]] if "id" in named else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parsed(text):
    seen = Page()
    seen.feed(text)
    assert seen.open == []
    return seen


def stands_alone(text):
    """Nothing is loaded, nothing runs, every link has its place, and dark, narrow and paper were thought of."""
    seen = parsed(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(seen.tags)
    assert "url(" not in text and "@import" not in text
    assert all(link.startswith("#") and link[1:] in seen.ids for link in seen.links)
    assert len(seen.ids) == len(set(seen.ids))
    assert "prefers-color-scheme:dark" in text and "@media print" in text and "viewport" in text
    return seen
