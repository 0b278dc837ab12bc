"""Environment variables: settings of this project, secrets, and the number of worker processes.

An unknown variable that begins with SCORE_ may be a user's own. It is refused where it is nearly
the name of a setting, which would silently keep its default.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from score.deploy.names import SECRET, SECRETS_FORM
from score.deploy.rules.documents import Document
from score.deploy.rules.parts import variables
from score.errors import SettingError
from score.settings import PREFIX, Settings, names
from score.wording.suggestions import nearest

_NEAR = 0.8  # difflib ratio; that of BACH_SIZE and BATCH_SIZE is 0.95
_WORKERS = "WORKER_COUNT"
_VAULT = re.compile(r"\$\{\{\s*keyvault:(.*?)\s*\}\}")


def problems(document: Document) -> Iterator[str]:
    """Invalid values, misspelt settings, and references to secrets that Azure does not resolve."""
    for where, values in variables(document):
        for name, value in values.items():
            if name == _WORKERS:
                if not str(value).isdecimal() or not int(value):
                    yield f"{where}.{name}: {value!r} is no number of processes"
            elif str(name).startswith(PREFIX.lower()) and name[len(PREFIX) :] in names():
                yield f"{where}.{name}: settings are read in capitals: {str(name).upper()}"
            elif str(name).startswith(PREFIX):
                yield from _setting(where, str(name), value)
            for secret in _VAULT.findall(str(value)):
                if not SECRET.fullmatch(secret):
                    yield f"{where}.{name}: {secret!r} is not {SECRETS_FORM}"


def _setting(where: str, name: str, value: object) -> Iterator[str]:
    setting = name.removeprefix(PREFIX).lower()
    if setting in names():
        if "${{" in str(value):
            return
        try:
            Settings().replace({setting: str(value)})
        except SettingError as error:
            yield f"{where}: {error}"
        return
    near = nearest(setting, names(), cutoff=_NEAR)
    if near:
        yield f"{where}.{name}: there is no such setting; did you mean {PREFIX}{near.upper()}?"
