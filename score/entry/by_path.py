"""Makes `score` mean this package, for an entry script that Azure's runners load by its path.

Run by such a script before it imports anything of ours (`runpy.run_path`). A user's score.py,
Azure's usual name of an entry script, may come before the package on `sys.path`, or be loaded under
its name already, which raises ImportError.
"""

from __future__ import annotations

import sys
from pathlib import Path


def use_this_package() -> None:
    """Puts this package first on `sys.path`. Raises ImportError for a loaded score.py."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    loaded = sys.modules.get("score")
    if loaded is not None and not hasattr(loaded, "__path__"):
        raise ImportError(
            f"{loaded.__file__} is loaded under the name of this project's package, score: "
            "rename that file"
        )


if __name__ != "score.entry.by_path":  # run, not imported
    use_this_package()
