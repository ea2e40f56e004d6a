"""Make the buckets that DVC and MLflow use, where they are missing. Reached by the usual AWS environment."""

import boto3

client = boto3.client("s3")
there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
for name in ("dvc", "mlflow"):
    if name not in there:
        client.create_bucket(Bucket=name)
    print(f"{name}: {'was there' if name in there else 'made'}")
