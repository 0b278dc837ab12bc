"""The kind of this process: MLflow's server, Azure's server, a Spark worker, or another."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT

SERVER = "mlflow.pyfunc.scoring_server"
_AZURE_SERVER = "azureml_inference_server_http.server.user_script"


def is_server() -> bool:
    """Whether MLflow's server, or `mlflow models predict` acting as it, is loading the model."""
    served = is_server_process() or _MLFLOW_IS_IN_SERVING_ENVIRONMENT.get()
    return SERVER in sys.modules and bool(served)


def is_server_process() -> bool:
    """Whether this process was started to run MLflow's server."""
    return f"{SERVER}.app" in sys.modules


def is_http() -> bool:
    """Whether the result of `predict` becomes an HTTP body, of MLflow's or Azure's server."""
    return is_server() or _AZURE_SERVER in sys.modules


def is_under_spark(environ: Mapping[str, str]) -> bool:
    """Whether this is a Python worker of Spark, or an MLflow server started by one.

    `spark_udf` starts such servers for any `env_manager` other than `local`. Spark sets this
    variable in every worker, and a server inherits it. The driver has it as well, but unlike
    workers it also has a SparkContext.
    """
    return "SPARK_BUFFER_SIZE" in environ and not _is_spark_driver()


def _is_spark_driver() -> bool:
    context = getattr(sys.modules.get("pyspark"), "SparkContext", None)
    return getattr(context, "_active_spark_context", None) is not None
