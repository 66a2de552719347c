from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from service.settings import ServiceSettings


def settings(folder: Path, grants: str = '[{"group": "g", "roles": ["reader"]}]', **changed: Any) -> Any:
    (folder / "grants.json").write_text(grants)
    (folder / "secret").write_text("s\n")
    given: dict[str, Any] = {
        "oidc_issuer": "https://login.example",
        "oidc_client_id": "subtext",
        "oidc_client_secret_file": folder / "secret",
        "oidc_redirect_base_url": "https://audit.example/subtext",
        "oidc_grants_file": folder / "grants.json",
    }
    return ServiceSettings(database_url=SecretStr("postgresql://reader@localhost/s"), **given | changed)


def test_what_people_sign_in_by_is_taken_whole(tmp_path: Path) -> None:
    plan = settings(tmp_path).plan

    assert plan.origin == "https://audit.example"
    assert plan.people.client.redirect_uri == "https://audit.example/subtext/auth/callback"
    assert plan.people.client.client_secret == "s"
    assert "'s'" not in repr(plan)
    assert plan.people.grants[0].scopes == ["coverage:read", "explanations:read", "flags:read"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"oidc_client_id": None}, "SUBTEXT_OIDC_CLIENT_ID: set it too"),
        (
            {"oidc_grants_file": None, "oidc_issuer": None},
            "SUBTEXT_OIDC_ISSUER and SUBTEXT_OIDC_GRANTS",
        ),
        ({"oidc_issuer": "http://login.example"}, "SUBTEXT_OIDC_ISSUER: write https://host"),
        ({"oidc_issuer": "login.example"}, "SUBTEXT_OIDC_ISSUER: write https://host"),
        ({"oidc_redirect_base_url": "http://audit.example"}, "SUBTEXT_OIDC_REDIRECT_BASE_URL: write https"),
        ({"oidc_redirect_base_url": "https://audit.example/"}, "oidc_redirect_base_url"),
        ({"oidc_client_secret_file": Path("/none")}, "SUBTEXT_OIDC_CLIENT_SECRET_FILE is /none"),
        ({"oidc_ca_file": Path("/none")}, "SUBTEXT_OIDC_CA_FILE: there is no file"),
        ({"oidc_scopes": "profile"}, "oidc_scopes"),
        ({"grants": "[]"}, "SUBTEXT_OIDC_GRANTS_FILE is .*: write 1 to"),
        ({"grants": '[{"group": "g", "roles": ["admin"]}]'}, r"0\.roles\.0: Input should be 'reader'"),
        ({"grants": '[{"group": "g", "roles": ["reader"], "model": "m"}]'}, r"0\.model: Extra inputs"),
        ({"grants": '[{"group": "g", "roles": ["reader"], "models": []}]'}, r"0\.models"),
        ({"grants": '[{"group": "g", "roles": ["reader"], "tenant": "A B"}]'}, r"0\.tenant"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        settings(tmp_path, **changed)
