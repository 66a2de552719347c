"""What is served where, without a browser."""

import json
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.console import pages

INDEX = '<head>\n    <base href="/console/" />\n</head><script type="module" src="./assets/a.js"></script>'


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text(INDEX)
    (tmp_path / "favicon.svg").write_text("<svg/>")
    (tmp_path / "assets" / "a.js").write_text("let a = 1;\n" * 1000)
    return tmp_path


def client(dist: Path, root_path: str = "", **told: object) -> TestClient:
    app = FastAPI(root_path=root_path)
    pages.install(app, dist=dist, **{"has_issuer": False, **told})  # type: ignore[arg-type]
    return TestClient(app)


@pytest.mark.parametrize("path", ["/console", "/console/", "/console/requests/a%2Fb", "/console/x.y"])
def test_every_address_below_it_is_the_page(dist: Path, path: str) -> None:
    answer = client(dist).get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.text == INDEX


def test_files_are_compressed_kept_for_good_and_under_the_policy(dist: Path) -> None:
    served = client(dist).get("/console/assets/a.js", headers={"Accept-Encoding": "gzip"})
    plain = client(dist).get("/console/assets/a.js", headers={"Accept-Encoding": "identity"})

    assert served.headers["content-encoding"] == "gzip"
    assert served.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert served.headers["content-security-policy"].startswith("default-src 'self'")
    assert served.text == plain.text
    assert "content-encoding" not in plain.headers


def test_a_file_that_is_not_there_is_not_kept(dist: Path) -> None:
    answer = client(dist).get("/console/assets/b.js")

    assert answer.status_code == 404
    assert "cache-control" not in answer.headers


def test_the_prefix_of_a_proxy_is_in_the_page(dist: Path) -> None:
    assert '<base href="/audit/console/" />' in client(dist, "/audit").get("/console").text
    assert '<base href="/console/" />' in client(dist, '/"><script>').get("/console").text


def test_the_page_is_told_of_issuer_and_grafana(dist: Path) -> None:
    page = client(dist, has_issuer=True, grafana_url="https://g.example/d/subtext").get("/console").text

    assert '<meta name="subtext-issuer" content="yes" />' in page
    assert '<meta name="subtext-grafana" content="https://g.example/d/subtext" />' in page


def test_a_console_that_was_not_built_says_so(tmp_path: Path) -> None:
    answer = client(tmp_path).get("/console/search")

    assert answer.status_code == 503
    assert "make console" in answer.text


def test_a_page_names_the_scripts_and_styles_that_it_needs_but_those_of_every_page(dist: Path) -> None:
    (dist / "manifest.json").write_text(
        json.dumps(
            {
                "index.html": {"file": "assets/a.js", "imports": ["_b.js"], "css": ["assets/a.css"]},
                "_b.js": {"file": "assets/b.js"},
                "src/app/start.tsx": {"file": "assets/start.js", "imports": ["_b.js"]},
                "src/pages/search/index.tsx": {"file": "assets/search.js", "css": ["assets/search.css"]},
                "src/pages/request/index.tsx": {"file": "assets/request.js"},
            }
        )
    )
    service = client(dist)

    def linked(path: str) -> list[tuple[str, str]]:
        return re.findall(
            r'<link rel="(\w+)" crossorigin href="\./assets/([\w.]+)" />', service.get(path).text
        )

    start = ("modulepreload", "start.js")
    assert linked("/console/search") == [
        start,
        ("modulepreload", "search.js"),
        ("stylesheet", "search.css"),
    ]
    assert linked("/console/requests/a%2Fb") == [start, ("modulepreload", "request.js")]
    assert linked("/console/none") == linked("/console/..%2Fsrc") == [start]


def test_the_page_is_told_what_its_session_may(dist: Path) -> None:
    may = client(dist, scopes_of=lambda _request: ("flags:read", '"><b>')).get("/console").text

    assert '<meta name="subtext-scopes" content="flags:read &quot;&gt;&lt;b&gt;" />' in may
    assert "subtext-scopes" not in client(dist).get("/console").text
