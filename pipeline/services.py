"""Which services a checkout runs for itself: settings alone; `infra` starts them."""

from typing import Literal

from pipeline.schema import schema


@schema
class ServicesConfig:
    """What `python -m infra.local` starts: Prefect's and MLflow's servers, and what stands behind them."""

    database: Literal["sqlite", "postgresql"]
    """Where the two keep their tables: files in work/services, or a PostgreSQL server of this checkout's own."""
    objects: Literal["folder", "s3"]
    """Where MLflow keeps artifacts: the folder tracking.artifacts, or an S3 server (SeaweedFS) that DVC can push to as well."""
    authentication: bool
    """True: Prefect and MLflow answer only those who know their passwords, made at the first start, in work/services."""
    worker: bool
    """True: a Prefect worker on this machine runs the deployments of prefect.yaml."""
