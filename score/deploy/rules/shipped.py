"""What a Spark component ships beside its entry file."""

from __future__ import annotations

from collections.abc import Iterator

from score.deploy.rules.documents import Document

_LISTS = ("py_files", "jars", "files", "archives")


def problems(document: Document) -> Iterator[str]:
    """A sentence for each file that a Spark component names and has not got.

    Names count from the folder `code`. It gets what `additional_includes` names as well, of which
    azure-ai-ml zips `x.zip` itself where there is a folder `x`.
    """
    if document.kind != "sparkComponent":
        return
    content, here = document.content, document.here
    included = set()
    for given in content.get("additional_includes") or ():
        path = here / str(given)
        if not path.exists() and not (path.suffix == ".zip" and path.with_suffix("").is_dir()):
            yield f"additional_includes: there is no {given}"
        included.add(path.name)
    code = here / str(content.get("code", "."))
    for field in _LISTS:
        for name in content.get(field) or ():
            local = "://" not in str(name)
            if local and str(name) not in included and not (code / str(name)).exists():
                yield f"{field}: there is no {name} in code, nor in additional_includes"
