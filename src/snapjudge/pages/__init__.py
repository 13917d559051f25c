"""Self-contained pages: templates, one style for screen (light and dark) and paper, pictures as inline SVG. Knows nothing of how figures are made."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render_page(template: str, **values: Any) -> str:
    """One page without scripts or anything to load; text is escaped, pictures are passed as `Markup`."""
    environment = Environment(loader=PackageLoader("snapjudge.pages", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(**values) + "\n"
