"""`python -m infra.services.buckets`: MLflow's and DVC's buckets on the S3 server that the usual AWS variables name."""

import os
import sys

from infra.services.seaweedfs import create_buckets
from pipeline.errors import UserError

NEEDED = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def main() -> int:
    """The exit status."""
    try:
        if missing := [name for name in NEEDED if not os.environ.get(name)]:
            raise UserError(f"not set: {', '.join(missing)}")
        create_buckets(*(os.environ[name] for name in NEEDED))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
