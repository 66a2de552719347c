import pytest

from service.store.engine import driver_url, with_database


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_postgres_scheme_becomes_psycopg_3(scheme: str) -> None:
    url = driver_url(f"{scheme}://u:p@host:5433/name")

    assert url.render_as_string(hide_password=False) == "postgresql+psycopg://u:p@host:5433/name"


@pytest.mark.parametrize("url", ["mysql://host/name", "nonsense", "", "sqlite:///secret.db"])
def test_another_kind_of_url_is_refused_with_the_fix_and_without_the_url(url: str) -> None:
    with pytest.raises(ValueError, match="postgresql://") as caught:
        driver_url(url)

    assert "secret" not in str(caught.value)


def test_the_database_name_changes_and_the_rest_stays() -> None:
    assert with_database("postgresql://u:p@host:5433/old?sslmode=require", "new") == (
        "postgresql://u:p@host:5433/new?sslmode=require"
    )
    assert with_database("postgresql://postgres:@/postgres?host=/run/pg", "new") == (
        "postgresql://postgres:@/new?host=%2Frun%2Fpg"
    )
