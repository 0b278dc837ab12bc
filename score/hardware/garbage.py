"""Python's collector of garbage, in processes that serve.

It looks at all objects now and then, and no other thread runs meanwhile: 0.3 s for the 330,000 that
libraries and a model have made, which a request's JSON may cause. So these are left out.
"""

from __future__ import annotations

import gc


def leave_out_what_is_loaded() -> None:
    """The objects that exist now are not looked at any more, until `collect`."""
    gc.freeze()


def collect() -> None:
    """Frees all objects that only refer to each other. Those that stay are left out as before."""
    left_out = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    if left_out:
        gc.freeze()
