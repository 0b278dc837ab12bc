"""Runs a batch deployment's YAML on this machine, over a folder of files.

Where the YAML names no entry script, as Azure's no-code deployments do, `nocode_batch` stands in
for Azure's.
"""

from __future__ import annotations

from pathlib import Path

from score.deploy.simulate import definition
from score.deploy.simulate.folders import input_files, mounted, new_output
from score.deploy.simulate.machine import Machine
from score.deploy.simulate.runner import Job, Report, run


def batch(
    file: Path,
    inputs: Path,
    output: Path,
    *,
    model: Path,
    nodes: int | None = None,
    machine: Machine | None = None,
) -> Report:
    """Runs a batch deployment over the files of a folder, as `az ml batch-endpoint invoke` does.

    `model`: the registered model's folder. `nodes`: replaces the number in the YAML. Raises
    AzureError for YAML that is no such deployment, and for an output folder with files in it.
    """
    content = definition.read(file, "modelBatchDeployment", "batchDeployment")
    # The older schema, which Azure's examples name, has the settings at the top, too.
    settings = {**content, **definition.part(content, "settings", file)}
    retry = definition.part(settings, "retry_settings", file)
    resources = definition.part(content, "resources", file)
    append = settings.get("output_action", "append_row") == "append_row"
    table = settings.get("output_file_name", "predictions.csv")
    number = definition.number
    processes = number(settings, "max_concurrency_per_instance", 1, 1, file)
    with mounted(model) as folder:
        job = Job(
            script=definition.script(content, file, "nocode_batch.py"),
            arguments=(),
            environment={
                **definition.variables(settings, file),
                "AZUREML_MODEL_DIR": str(folder),
                "AZUREML_BI_OUTPUT_PATH": str(new_output(output)),
            },
            nodes=nodes or number(resources, "instance_count", 1, 1, file),
            processes=processes,
            mini_batch=number(settings, "mini_batch_size", 10, 1, file),
            retries=number(retry, "max_retries", 3, 0, file),
            timeout=number(retry, "timeout", 30, 1, file),
            error_threshold=number(settings, "error_threshold", -1, -1, file),
            append_to=output / table if append else None,
            prefix=(machine or Machine()).command(processes, ()),
            folder=definition.code(content, file),
        )
        return run(job, input_files(inputs))
