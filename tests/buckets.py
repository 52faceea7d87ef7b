"""An S3 server on this machine: a real one in what it answers, with its contents in memory."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BUCKET = "night"


class S3:
    """The server. `environment`: what a command needs to reach it and nothing else."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",  # s3fs tries again by itself
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }
        self._server: Any = None

    def come(self) -> None:
        """Answer, with what is there; a first time or again."""
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def go(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.stop()
        self._server = None

    def client(self):
        """A client of boto3."""
        import boto3

        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"], **keys)

    def names(self, prefix: str = "") -> set[str]:
        """The names of all objects that begin so."""
        found = self.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {one["Key"] for one in found}

    def read(self, name: str) -> bytes:
        """An object."""
        return self.client().get_object(Bucket=BUCKET, Key=name)["Body"].read()


@contextmanager
def s3_server() -> Iterator[S3]:
    """A server with one empty bucket, for this process's fsspec, too."""
    server = S3()
    before = dict(os.environ)
    os.environ.update(server.environment)
    server.come()
    try:
        server.client().create_bucket(Bucket=BUCKET)
        _forget_clients()
        yield server
        for name in server.names():
            server.client().delete_object(Bucket=BUCKET, Key=name)
        server.client().delete_bucket(Bucket=BUCKET)
    finally:
        server.go()
        os.environ.clear()
        os.environ.update(before)
        _forget_clients()


def _forget_clients() -> None:
    """fsspec keeps a client for each address, with the endpoint and keys that it was made with."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
