"""A figure as SVG that is part of a page: it takes the page's colours, and says what it shows."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from contextlib import AbstractContextManager

import matplotlib.style
from markupsafe import Markup
from matplotlib.figure import Figure

from grokwatch.report._style import COLOURS

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_DEFAULTS = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and is a tenth of the size
    "svg.hashsalt": "grokwatch",  # else two reports of one run would differ
    "path.simplify_threshold": 0.25,
}
_VARIABLE = {colour: f"var(--{role})" for role, colour in COLOURS.items()}


def inline_svg(figure: Figure, key: str, title: str, told: str) -> Markup:
    """Draw a figure for a page.

    Args:
        figure: drawn in the colours of :data:`grokwatch.report._style.COLOURS`; each becomes a
            CSS variable of the same name, which the page defines for light and dark.
        key: letters and digits that no other figure of the page has; begins every id.
        title: for screen readers.
        told: what is to be seen, for screen readers.
    """
    drawn = io.StringIO()
    figure.patch.set_visible(False)
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    figure.patch.set_visible(True)
    root = ET.fromstring(drawn.getvalue())
    _strip(root, key)
    width, height = (float(x) for x in root.attrib["viewBox"].split()[2:])
    root.attrib.clear()
    root.attrib.update({
        "viewBox": f"0 0 {width:g} {height:g}", "role": "img", "class": "figure",
        "aria-labelledby": f"{key}-title {key}-told",
    })  # fmt: skip
    for i, (name, text) in enumerate((("title", title), ("desc", told))):
        element = ET.Element(f"{{{_SVG}}}{name}", {"id": f"{key}-{'told' if i else 'title'}"})
        element.text = text
        root.insert(i, element)
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    text = ET.tostring(root, encoding="unicode")
    return Markup(text)  # ElementTree has escaped what is text


def defaults() -> AbstractContextManager[None]:
    """A context in which figures look the same whatever the user's matplotlibrc."""
    return matplotlib.style.context(["default", _DEFAULTS])


def _strip(root: ET.Element, key: str) -> None:
    """Leave out what a page has no use for; make ids its own, and colours variables."""
    text = ET.tostring(root, encoding="unicode")
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", f"{key}-{name}")
        for attribute, value in element.attrib.items():
            if attribute == f"{{{_XLINK}}}href":
                element.set(attribute, value.replace("#", f"#{key}-", 1))
            elif "url(#" in value:
                element.set(attribute, value.replace("url(#", f"url(#{key}-"))
            elif attribute == "style":
                value = re.sub(r"#[0-9a-f]{6}", lambda m: _VARIABLE.get(m[0], m[0]), value)
                value = re.sub(r"font-family: [^;]+;? ?", "", value)  # the page's own
                element.set("style", re.sub(r"font: (\S+) [^;]+", r"font-size: \1", value))
