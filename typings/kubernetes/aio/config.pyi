from kubernetes.aio.client import Configuration

class ConfigException(Exception): ...

def load_incluster_config(client_configuration: Configuration = ...) -> None: ...
async def load_kube_config(
    config_file: str = ...,
    client_configuration: Configuration = ...,
    persist_config: bool = ...,
) -> object: ...
