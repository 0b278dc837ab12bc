"""Makes `import score` find this package, for entry scripts that Azure's runners load by path.

Such a script runs this file (`runpy.run_path`) before it imports anything from `score`. A user's
score.py (the usual name of an Azure entry script) may precede the package on `sys.path`; if it is
already loaded as the module `score`, ImportError is raised.
"""

from __future__ import annotations

import sys
from pathlib import Path


def use_this_package() -> None:
    """Puts this package first on `sys.path`. Raises ImportError if another score.py is loaded."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    loaded = sys.modules.get("score")
    if loaded is not None and not hasattr(loaded, "__path__"):
        raise ImportError(
            f"{loaded.__file__} is loaded under the name of this project's package, score: "
            "rename that file"
        )


if __name__ != "score.entry.by_path":  # run, not imported
    use_this_package()
