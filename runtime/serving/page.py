"""/docs: the paths of the server on one HTML page, with a form to try a file.

It has no scripts, so it fetches nothing from other servers, and works without a network.
"""

import re
from collections.abc import Mapping
from html import escape
from typing import Any, Final

PAGE_HEADERS: Final = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
}
_PAGE: Final = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem }}
dt {{ font: 15px monospace; margin-top: 1rem }}
</style></head><body>
<h1>{title}</h1>
<p>{description}</p>
<form action="score" method="post" enctype="multipart/form-data">
<label>A sound: <input type="file" name="file" required></label> <button>Score it</button>
</form>
<dl>
{paths}
</dl>
<p>For programs: <a href="openapi.json">/openapi.json</a></p>
</body></html>
"""


def page_from_openapi(document: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document."""
    entries = [
        f"<dt>{escape(method.upper())} {escape(path)}</dt><dd>{_with_code(operation['description'])}</dd>"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    info = document["info"]
    return _PAGE.format(
        title=escape(info["title"]), description=escape(info["description"]), paths="\n".join(entries)
    )


def _with_code(text: str) -> str:
    """Escaped, and what stands in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))
