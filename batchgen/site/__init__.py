"""What batchgen needs of a machine and of a cluster, checked before a night: small checks that leave nothing behind."""
