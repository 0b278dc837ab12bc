"""A plan as text for the terminal."""

from __future__ import annotations

from score.deploy.plan import FILE_ROWS, Plan, instances_note
from score.deploy.server_limits import limits
from score.hardware import drivers


def as_text(plan: Plan, rows: float | None = None, instances: int = 1) -> str:
    """A plan as text for the terminal. `rows`: images of a job whose time is added."""
    sku = plan.sku
    part = f"1/{sku.gpu_shared_by}" if sku.gpu_shared_by > 1 else str(sku.gpus)
    gpus = f", {part} × {sku.gpu} of {sku.gpu_memory_gib} GiB" if sku.gpu else ""
    needs = f"{plan.memory:.1f} GiB memory, {plan.disk:.1f} GiB disk"
    needs += f", {plan.gpu_memory:.1f} GiB on each GPU" if sku.gpus else ""
    verdicts = {True: "fits", False: "does NOT fit"}
    lines = [
        f"{plan.model} on {sku.name}: {sku.vcpus} vCPUs, {sku.memory_gib} GiB memory, "
        f"{sku.temp_disk_gib} GiB disk{gpus}",
        f"  needs       {needs}",
        f"  batch       {verdicts[plan.fits]}",
        f"  real-time   {verdicts[plan.fits_online]}",
        *(f"  because     {reason}" for reason in plan.obstacles + plan.online_obstacles),
        *(f"  note        {remark}" for remark in (*plan.remarks, *_instances(plan, instances))),
    ]
    if sku.gpu:
        lines.append(
            f"  driver      NVIDIA {drivers.minimum_driver(drivers.CUDA)} or later, for PyTorch's "
            f"build for CUDA {drivers.CUDA}, which the environments install"
        )
    if plan.fits:
        lines += [
            f"  quota       {_quota(plan, instances)}",
            f"  settings    precision auto (estimated for {plan.precision}), "
            f"batch size {plan.batch_size}, "
            f"{plan.workers} worker{'s' if plan.workers > 1 else ''}, one request each at a time",
            f"  timeouts    {plan.request_timeout_ms // 1000} s a request, "
            f"{plan.mini_batch_seconds} s a CSV of {FILE_ROWS:,} rows",
            *([_own_server(plan)] if plan.fits_online else []),
            f"  speed       {_shown(plan.rate.images)} images/s a machine ({plan.rate.basis}; "
            f"limit: {plan.rate.limit})",
        ]
    if plan.fits and rows is not None:
        lines.append(
            f"  job         {rows:,.0f} images on {instances} machine"
            f"{'s' if instances > 1 else ''}: {_hours(plan.hours(rows, instances))} "
            f"({plan.rate.basis})"
        )
    return "\n".join(lines)


def _own_server(plan: Plan) -> str:
    server = limits(plan)
    return (
        f"  --server    {server.concurrency} requests at a time, "
        f"{server.request_timeout_ms // 1000} s a request, by `score serve`"
    )


def _instances(plan: Plan, instances: int) -> list[str]:
    note = instances_note(instances) if plan.fits_online else None
    return [note] if note else []


def _quota(plan: Plan, instances: int) -> str:
    """The quota of vCPUs that so many machines need."""
    sku = plan.sku
    machines = f"{instances} machine{'s' if instances > 1 else ''}"
    batch = f"{sku.batch_quota(instances)} for batch"
    online = ""
    if plan.fits_online:
        spare = ", the reserve for upgrades included" if sku.reserved else ""
        online = f", {sku.online_quota(instances)} for real-time{spare}"
    return f"vCPUs of {sku.family} for {machines}: {batch}{online}"


def _shown(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:,.1f} minutes"
