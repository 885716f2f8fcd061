"""The files of a page joined into one HTML file, which opens from a disk.

A browser loads no module from file://, so the modules become one script. Each is wrapped into a function
that gives its exports, so that names of different modules do not meet. Everything else becomes an element
with gzip in base64, under the id by which the page asks for the file (assets.js).
"""

import base64
import gzip
import hashlib
import re
from collections.abc import Mapping
from typing import Final

_ENTRY: Final = "page.js"
_WORKER: Final = "worker.js"
_STYLE: Final = "style.css"
_POLICY: Final = re.compile(r'(http-equiv="Content-Security-Policy" content=")[^"]*"')
_IMPORT: Final = re.compile(
    r'^import (?:\* as (?P<all>\w+)|(?P<names>\{[^}]*\})) from "\./(?P<file>[\w.-]+)";$', re.M
)
_DECLARED: Final = re.compile(r"^export ((?:async )?(?:function|class|const) (\w+))", re.M)
_LISTED: Final = re.compile(r"\bexport\s*\{([^}]*)\};?\s*(?://#.*)?\s*\Z")


def joined_page(files: Mapping[str, bytes]) -> bytes:
    """The page's files by name, `index.html` among them -> one HTML file."""
    style = files[_STYLE].decode()
    script = _harmless(joined_modules(files, _ENTRY))
    worker = joined_modules(files, _WORKER).encode()
    modules = {name for name in files if name.endswith((".js", ".min.mjs"))}
    parts = {name: files[name] for name in files.keys() - modules - {"index.html", _STYLE}}
    parts |= {_WORKER: worker, "tap.js": files["tap.js"]}
    page = files["index.html"].decode()
    page = _POLICY.sub(lambda found: f'{found[1]}{_policy(script, style)}"', page)
    page = _put(page, f'<link rel="stylesheet" href="{_STYLE}">', f"<style>{style}</style>")
    page = _put(page, f'<script type="module" src="{_ENTRY}"></script>\n', "")
    elements = "".join(_element(name, parts[name]) for name in sorted(parts))
    return _put(page, "</body>", f'{elements}<script type="module">{script}</script>\n</body>').encode()


def joined_modules(files: Mapping[str, bytes], entry: str) -> str:
    """A module and all that it imports -> one module without imports."""
    order: list[str] = []

    def visit(name: str) -> None:
        for found in _IMPORT.finditer(files[name].decode()):
            if found[3] not in order:
                visit(found[3])
        order.append(name)

    visit(entry)
    *imported, last = order
    names = {name: f"module{number}" for number, name in enumerate(imported)}
    wrapped = [
        f"const {names[name]} = {_wrapped(_linked(files[name].decode(), names))};\n" for name in imported
    ]
    return "".join(wrapped) + _linked(files[last].decode(), names)


def _linked(text: str, names: Mapping[str, str]) -> str:
    return _IMPORT.sub(
        lambda found: f"const {found['all'] or found['names']} = {names[found['file']]};", text
    )


def _wrapped(text: str) -> str:
    """A module's text -> a call that gives an object with its exports."""
    exports = [name for _, name in _DECLARED.findall(text)]
    text = _DECLARED.sub(r"\1", text)
    if listed := _LISTED.search(text):  # of a minified module: export{a as b, ...}
        pairs = [pair.split(" as ") for pair in listed[1].split(",")]
        exports += [f"{pair[-1].strip()}: {pair[0].strip()}" for pair in pairs]
        text = text[: listed.start()]
    return f"(() => {{\n{text}\nreturn {{ {', '.join(exports)} }};\n}})()"


def _policy(script: str, style: str) -> str:
    """Scripts: this one, and what it makes itself, for worklets and workers. Nothing from any network."""
    return (
        f"default-src 'none'; script-src 'sha256-{_hash(script)}' 'wasm-unsafe-eval' data:; "
        f"style-src 'sha256-{_hash(style)}'; worker-src data:; connect-src blob:; media-src blob:; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _harmless(script: str) -> str:
    """Without what would end the element, or begin a comment in it."""
    return re.sub(r"<(/script|!--|script)", r"\\x3c\1", script, flags=re.I)


def _element(name: str, content: bytes) -> str:
    zipped = content if name.endswith(".gz") else gzip.compress(content, mtime=0)
    return f'<script type="text/plain" id="{name}">{base64.b64encode(zipped).decode()}</script>\n'


def _put(page: str, old: str, new: str) -> str:
    assert page.count(old) == 1, old
    return page.replace(old, new)
