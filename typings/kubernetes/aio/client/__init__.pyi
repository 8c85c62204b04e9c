class Configuration:
    host: str
    verify_ssl: bool
    ssl_ca_cert: str | None
    tls_server_name: str | None
    proxy: str | None
    client_session_kwargs: dict[str, object] | None

    async def auth_settings(self) -> dict[str, dict[str, str | None]]: ...
