"""The files in ops/: their expressions against /metrics, and the service in exactly their environments."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers import Running, bare_environment, free_port

on_one_loop = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[1]
OPS = ROOT / "ops"
START_SECONDS = 60.0
PREFIX = "image_export_"


def read_yaml(name: str) -> Any:
    return yaml.safe_load((OPS / name).read_text())


def expressions() -> Iterator[str]:
    for group in read_yaml("alerts.yml")["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in json.loads((OPS / "grafana.json").read_text())["panels"]:
        yield from (target["expr"].replace("$__rate_interval", "5m") for target in panel["targets"])


def documented_labels() -> dict[str, set[str]]:
    rows = re.findall(r"^\| `([a-z_]+)` \| [a-z]+ \|(.*?)\|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    return {f"{PREFIX}{name}": {*re.findall(r"`([a-z]+)`", labels)} for name, labels in rows}


@on_one_loop
async def test_every_expression_asks_for_metrics_and_labels_that_there_are(service: Running) -> None:
    text = (await service.get("/metrics")).body.decode()
    shown = {family.name + "_total" * (family.type == "counter") for family in text_string_to_metric_families(text)}
    labels = documented_labels()
    names = set()
    for expression in expressions():
        for name, selector in re.findall(rf"({PREFIX}[a-z_]+)(?:\{{([^}}]*)\}})?", expression):
            family = name.removesuffix("_bucket")
            names.add(family)
            assert family in shown, expression
            assert {*re.findall(r"([a-z_]+)\s*(?:=|!)", selector)} <= labels[family], expression
        for grouped in re.findall(r"by \(([^)]*)\)", expression):
            [family] = {name.removesuffix("_bucket") for name in re.findall(rf"{PREFIX}[a-z_]+", expression)}
            assert {*grouped.split(", ")} <= labels[family] | {"le"}, expression
    # Every metric is shown or watched, but for these, which are for a closer look.
    missing = labels.keys() - names
    assert missing == {
        f"{PREFIX}{name}"
        for name in ("ledger_calls", "overspent_calls_total", "recovered_raws_total", "swept_files_total")
    }


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_reads_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"expression:{number}", "expr": each} for number, each in enumerate(expressions())]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    for command in (
        ["check", "rules", str(path)],
        ["check", "rules", str(OPS / "alerts.yml")],
        ["check", "config", "--syntax-only", str(OPS / "prometheus.yml")],
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """`${NAME:-default}` as Compose replaces it; a default may contain another."""
    innermost = re.compile(r"\$\{([A-Z_]+):-([^${}]*)\}")
    while (replaced := innermost.sub(lambda match: variables.get(match[1]) or match[2], text)) != text:
        text = replaced
    return text


def compose_environment(variables: Mapping[str, str]) -> dict[str, str]:
    environment = read_yaml("compose.yaml")["services"]["service"]["environment"]
    return {name: interpolated(value, variables) for name, value in environment.items()}


def kubernetes_environment() -> dict[str, str]:
    [container] = read_yaml("kubernetes/statefulset.yaml")["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"]}


def unit() -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z]+)=(.*)$", (OPS / "image-export.service").read_text(), re.MULTILINE))


def unit_environment() -> dict[str, str]:
    return dict(each.split("=", 1) for each in unit()["Environment"].split())


@asynccontextmanager
async def started(environment: Mapping[str, str], folders: Mapping[str, Path]) -> AsyncIterator[str]:
    """The service in this environment, on a free port, with `folders` in place of the paths in it."""
    port = str(free_port())
    mapped = dict(environment)
    for inside, outside in folders.items():
        mapped = {name: re.sub(rf"^{inside}(?=/|$)", str(outside), value) for name, value in mapped.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "serve", cwd=ROOT, env=bare_environment(**mapped | {"PORT": port}),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as client:
            while not await answers(client, url):
                assert process.returncode is None, (await process.communicate())[1].decode()
                await asyncio.sleep(0.05)
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
    assert process.returncode == 0


async def answers(client: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with client.get(f"{url}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False


def make_key(folder: Path) -> str:
    command = [sys.executable, *map(str, (OPS / "make_key.py", folder / "api-keys", folder / "token"))]
    return subprocess.check_output(command, text=True)


async def ask(url: str, key: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    form = aiohttp.FormData({"script": "A test", "width": "16", "formats": "jpeg"}, default_to_multipart=True)
    async with aiohttp.ClientSession(headers=headers) as client:
        async with client.post(f"{url}/api/thumbnails", data=form) as answer:
            assert answer.status == 200, await answer.text()
            body: dict[str, Any] = await answer.json()
        async with client.get(f"{url}/metrics") as answer:
            assert answer.status == 200
    return body


async def test_compose_with_an_empty_env_serves_the_emulator_for_a_key_that_is_shown_once(tmp_path: Path) -> None:
    first, second = make_key(tmp_path), make_key(tmp_path)
    token = (tmp_path / "token").read_text()
    assert token in first
    assert token not in second
    assert (tmp_path / "api-keys").stat().st_mode & 0o777 == 0o600
    folders = {"/data": tmp_path / "data", "/keys": tmp_path}
    async with started(compose_environment({}), folders) as url:
        body = await ask(url, token)
        assert body["variations"][0]["metadata"]["model"] == "emulator"
        async with aiohttp.ClientSession() as client, client.post(f"{url}/api/thumbnails") as refused:
            assert refused.status == 401


@pytest.mark.slow
async def test_compose_with_keys_in_env_serves_gemini_for_them(tmp_path: Path) -> None:
    make_key(tmp_path)
    variables = {"GEMINI_API_KEY": "a-key-of-gemini", "API_KEYS": "shop:0123456789abcdef"}
    folders = {"/data": tmp_path / "data", "/keys": tmp_path}
    async with started(compose_environment(variables), folders) as url:
        headers = {"Authorization": "Bearer 0123456789abcdef"}
        async with aiohttp.ClientSession(headers=headers) as client, client.get(f"{url}/readyz") as answer:
            assert (await answer.json())["emulator"] is False
        async with aiohttp.ClientSession(headers=headers) as client, client.get(f"{url}/api/usage") as answer:
            assert answer.status == 200


def test_prometheus_in_compose_scrapes_the_service_with_the_key_that_is_made() -> None:
    [scrape] = read_yaml("prometheus.yml")["scrape_configs"]
    compose = read_yaml("compose.yaml")["services"]
    assert scrape["authorization"]["credentials_file"] == compose["keys"]["entrypoint"][-1]
    assert scrape["static_configs"][0]["targets"] == [f"service:{compose['service']['environment']['PORT']}"]
    assert compose["service"]["environment"]["API_KEYS_FILE"] == compose["keys"]["entrypoint"][-2]
    assert all(each.startswith("127.0.0.1:") for each in compose["service"]["ports"] + compose["prometheus"]["ports"])


@pytest.mark.slow
async def test_kubernetes_and_systemd_serve_in_the_environments_of_their_files(tmp_path: Path) -> None:
    secret = read_yaml("kubernetes/secret.yaml")["stringData"]
    for name, text in secret.items():
        (tmp_path / name).write_text(text)
    folders = {"/data": tmp_path / "data", "/secrets": tmp_path}
    async with started(kubernetes_environment(), folders):
        pass
    async with started(unit_environment(), {"/var/lib/image-export": tmp_path / "state"}):
        pass


def test_every_stop_is_given_more_time_than_the_drain() -> None:
    compose = read_yaml("compose.yaml")["services"]["service"]
    pod = read_yaml("kubernetes/statefulset.yaml")["spec"]["template"]["spec"]
    for limit, environment in (
        (compose["stop_grace_period"].removesuffix("s"), compose_environment({})),
        (pod["terminationGracePeriodSeconds"], kubernetes_environment()),
        (unit()["TimeoutStopSec"], unit_environment()),
    ):
        assert int(limit) > int(environment["SHUTDOWN_GRACE_SECONDS"]) + 10


def test_no_container_runs_as_root_or_writes_its_root() -> None:
    compose = read_yaml("compose.yaml")["services"]
    pod = read_yaml("kubernetes/statefulset.yaml")["spec"]["template"]["spec"]
    assert all(each["read_only"] for each in compose.values())
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    assert re.findall(r"^USER (\d+)", (OPS / "Dockerfile").read_text(), re.MULTILINE) == ["10001"]
    assert "curl" not in (OPS / "Dockerfile").read_text()


def test_the_health_check_of_the_image_asks_the_service(tmp_path: Path) -> None:
    text = (OPS / "Dockerfile").read_text()
    command = json.loads(re.findall(r"^HEALTHCHECK .*? CMD (\[.*\])$", text, re.MULTILINE)[0])
    environment = bare_environment(PORT=str(free_port()))
    failed = subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True, check=False)
    assert failed.returncode == 1
    assert b"refused" in failed.stderr
