"""Stand-ins for `uv` and `pyenv` on the PATH: MLflow creates environments without a network.

These environments contain the packages of the tests' environment, so pip finds every requirement
installed, or fails.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

_PYENV = """\
#!/bin/sh
case "$1 $2" in
    "install --list") echo "  3.10.99"; echo "  3.11.98"; echo "  3.11.99";;
    "install --skip-existing") [ "$3" = 3.11.99 ] && mkdir -p "$PYENV_ROOT/versions" \
        && ln -sfn "{folder}/python" "$PYENV_ROOT/versions/$3";;
    "root ") echo "$PYENV_ROOT";;
    *) echo "unexpected: pyenv $*" >&2; exit 1;;
esac
"""

_PYTHON = """\
#!/bin/sh
[ "$1 $2" = "-m venv" ] || {{ echo "unexpected: python $*" >&2; exit 1; }}
"{python}" -m venv --without-pip "$3" && echo "{packages}" > "$3/{site}/seen.pth"
"""

_UV = """\
#!/bin/sh
case "$1 $2" in
    "venv "*) [ "$3" = --python=3.11 ] && exec "{folder}/python/bin/python" -m venv "$2";;
    "pip install") shift; exec python -m pip "$@";;
esac
echo "unexpected: uv $*" >&2; exit 1
"""


def install(folder: Path) -> dict[str, str]:
    """Writes both to a folder; returns the environment variables by which MLflow finds them."""
    packages = sysconfig.get_path("purelib")
    site = os.path.relpath(packages, sys.prefix)
    for name, text in (
        ("bin/pyenv", _PYENV),
        ("bin/uv", _UV),
        ("python/bin/python", _PYTHON),
    ):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        filled = text.format(folder=folder, python=sys.executable, packages=packages, site=site)
        file.write_text(filled, encoding="utf-8")
        file.chmod(0o755)
    return {
        "PATH": f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}"
        + os.environ["PATH"],
        "PYENV_ROOT": str(folder / "pyenv"),
        "MLFLOW_ENV_ROOT": str(folder / "environments"),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
