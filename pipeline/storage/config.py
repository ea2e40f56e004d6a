"""Settings of the storage group: how sources on other machines are reached, and how much of them is taken."""

from pipeline.errors import ConfigError
from pipeline.schema import schema
from pipeline.storage.addresses import require_address


@schema
class StorageConfig:
    """http(s):// and s3:// sources. Credentials are never a setting: AWS's own count (environment, profile, instance role)."""

    endpoint: str | None
    """Address of the S3 server; null: AWS_ENDPOINT_URL or the profile's, else AWS itself."""
    profile: str | None
    """Section of the AWS configuration files; null: AWS_PROFILE or the default."""
    region: str | None
    """AWS region; null: AWS_REGION or the profile's, else us-east-1."""
    private_addresses: bool
    """True allows servers at private, loopback and link-local addresses. False refuses them, redirects included: an address that
    somebody else wrote must not reach services inside this network."""
    files: int
    """Most objects below an s3:// prefix."""
    gigabytes: float
    """Most bytes of one source, in 10^9."""
    connect_seconds: float
    """Longest wait for a connection."""
    read_seconds: float
    """Longest silence of a server that is sending."""
    attempts: int
    """Tries per request, by the HTTP library and by boto3; what was received is kept in any case, and the next run goes on."""
    exchange: bool
    """True: a flow's stages pull what they read from DVC's default remote and push what they make, and the branch of the result
    goes to git's origin: for machines that share nothing. False: everything is in the checkout."""
    workers: int
    """Objects of a prefix that are fetched at a time."""

    def __post_init__(self) -> None:
        for name in ("files", "gigabytes", "connect_seconds", "read_seconds", "attempts", "workers"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"storage.{name}", getattr(self, name), "must be above 0")
        require_address("storage.endpoint", self.endpoint or "")
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ConfigError("storage.endpoint", self.endpoint, "must start with http:// or https://, such as http://host:8333")
