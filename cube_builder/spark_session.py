"""The Spark session of a build that was not started by spark-submit with one of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from cube_builder.optional import require


@contextlib.contextmanager
def spark_session(master: str | None) -> Iterator[Any]:
    """A session on `master`, or where spark-submit or Spark's configuration says; stopped at the
    end.

    Raises:
        BuildError: pyspark is not installed.
    """
    logging.getLogger("py4j").setLevel(logging.WARNING)
    sql = require("pyspark.sql", "spark", "--engine=spark")
    builder = sql.SparkSession.builder.appName("cube-builder")
    if master:
        builder = builder.master(master)
    if (master or "").startswith("local"):
        # Workers on this machine need this interpreter's packages, and no one else's requests.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = builder.config("spark.driver.host", "127.0.0.1")
        builder = builder.config("spark.driver.bindAddress", "127.0.0.1")
        builder = builder.config("spark.ui.enabled", "false")
    session = builder.getOrCreate()
    try:
        session.sparkContext.setLogLevel("FATAL")
        yield session
    finally:
        session.stop()
