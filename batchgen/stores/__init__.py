"""Places that are not folders of this machine: object stores, the Hugging Face hub, web servers. By fsspec."""
