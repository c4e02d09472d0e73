"""The manifests: valid for Kubernetes, and each part finds the others."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer

from ctr_serving.conf import read_engine_confs
from ctr_serving.main import app as ctr_app
from cube_cluster.cluster_file import read_cluster
from cube_cluster.kubernetes.manifests import SECRETS_EXAMPLE, manifests
from cube_cluster.kubernetes.pod_cluster import check_for_kubernetes
from cube_cluster.main import app
from cube_core import command_line
from cube_core.access import Access
from cube_core.command_line import _gflags_spelling
from cube_core.conf.cube_conf import read_cube_conf
from cube_core.conf.prototxt import read_predictors
from cube_core.conf.transfer_conf import read_transfer_conf
from cube_core.errors import ConfError
from cube_server.main import app as server_app
from cube_transfer.main import app as transfer_app
from tests.cluster.manifests import EXAMPLE, MANY, REPOSITORY, Site, Template, example_files

APPS = {"cube-server": server_app, "cube-transfer": transfer_app, "ctr-serving": ctr_app}
# The oldest release that has every field, and the newest that the validator knows.
VERSIONS = ["1.27", kubernetes_validate.latest_version()]


@pytest.fixture(params=["example", "many"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    if request.param == "example":
        return Site(example_files())
    path = tmp_path / "many.yml"
    path.write_text(MANY)
    return Site.written_from(path)


def test_the_example_is_what_is_written_from_its_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    folder = EXAMPLE.parent.relative_to(REPOSITORY)
    arguments = [f"--file={folder}/cluster.yml", f"--kubernetes={folder}/manifests", "--check"]
    with pytest.raises(SystemExit) as ended:
        command_line.run(app, ["config", *arguments])
    assert (ended.value.code, capsys.readouterr().out) == (0, "")
    assert manifests(read_cluster(EXAMPLE), str(folder / "cluster.yml")) == example_files()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(site: Site, version: str) -> None:
    for each in site.objects():
        kubernetes_validate.validate(each, version, strict=True)


def test_objects_have_names_of_their_own_in_one_namespace(site: Site) -> None:
    ids = [(each["kind"], each["metadata"]["name"]) for each in site.objects()]
    assert [each for each, count in Counter(ids).items() if count > 1] == []
    for kind, name in ids:
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?", name), (kind, name)
    (namespace,) = site.objects("Namespace")
    named = {e["metadata"]["namespace"] for e in site.objects() if e["kind"] != "Namespace"}
    assert named == {namespace["metadata"]["name"]}
    applied = [each for name, each in site.documents.items() if name != SECRETS_EXAMPLE]
    assert not any(each["kind"] == "Secret" for documents in applied for each in documents)


def test_selectors_find_the_pods_of_one_object(site: Site) -> None:
    templates = site.templates()
    for template in templates:
        selector = template.owner["spec"]["selector"]["matchLabels"]
        assert [t.name for t in templates if t.is_selected_by(selector)] == [template.name]
    for each in site.objects("Service", "PodDisruptionBudget"):
        selector = each["spec"]["selector"]
        selector = selector.get("matchLabels", selector)
        (found,) = [t for t in templates if t.is_selected_by(selector)]
        assert found.name == each["metadata"]["name"].removesuffix("-pods")
        if each["kind"] == "Service":
            assert {p["targetPort"]: p["port"] for p in each["spec"]["ports"]} == found.ports
    for template in templates:
        affinity = template.spec.get("affinity", {}).get("podAntiAffinity", {})
        if template.kind != "cube-transfer":
            (terms,) = affinity.values()
            term = terms[0].get("podAffinityTerm", terms[0])
            assert term["topologyKey"] == "kubernetes.io/hostname"
            assert template.is_selected_by(term["labelSelector"]["matchLabels"])


def test_the_daemons_look_at_every_predictor(site: Site) -> None:
    """Through the Service whose name stands for all of their pods, ready or not; clients are led to
    one that is."""
    service = site.named("Service", "ctr-serving-pods")["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert site.named("Service", "ctr-serving")["spec"]["type"] == "ClusterIP"
    daemons = [each for each in site.templates() if each.kind == "cube-transfer"]
    looked_at = [text for each in daemons for _, text in site.files_in(each) if "[default]" in text]
    assert len(looked_at) == len(daemons)
    address = r"ctr_servers: dns://ctr-serving-pods\.[\w.-]+:8010\n"
    assert any(re.search(address, text) for text in looked_at)
    assert not any("cube_conf" in text for text in looked_at), "a ConfigMap cannot be written"


def test_stateful_sets_are_served_by_their_services(site: Site) -> None:
    for owner in site.objects("StatefulSet"):
        service = site.named("Service", owner["spec"]["serviceName"])
        assert service["spec"]["clusterIP"] == "None"
        is_server = Template(owner).kind == "cube-server"
        # A server that waits for a pass is not ready; the daemon must find it to bring one.
        assert service["spec"].get("publishNotReadyAddresses", False) is is_server
        assert owner["spec"]["podManagementPolicy"] == ("Parallel" if is_server else "OrderedReady")
        (claim,) = owner["spec"]["volumeClaimTemplates"]
        mounts = {m["name"]: m["mountPath"] for m in Template(owner).container["volumeMounts"]}
        assert mounts[claim["metadata"]["name"]] == "/var/lib/cube"


def test_what_pods_name_is_there(site: Site) -> None:
    claims = {each["metadata"]["name"] for each in site.objects("PersistentVolumeClaim")}
    secrets = {each["metadata"]["name"]: each for each in site.objects("Secret")}
    for template in site.templates():
        site.named("ServiceAccount", template.spec["serviceAccountName"])
        names = {volume["name"] for volume in template.spec["volumes"]} | {"data"}
        assert {mount["name"] for mount in template.container["volumeMounts"]} <= names
        for volume in template.spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                # That of the training job is not ours to make.
                assert volume["persistentVolumeClaim"]["claimName"] in {*claims, "passes"}
        for source in template.container.get("envFrom", []):
            assert secrets[source["secretRef"]["name"]]["stringData"]
        assert dict(site.files_in(template))
    (scaler,) = site.objects("HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    scaled = Template(site.named(target["kind"], target["name"]))
    assert "replicas" not in scaled.owner["spec"], "they are the autoscaler's"
    assert "cpu" in scaled.container["resources"]["requests"], "its percentage is of this"


def test_pods_are_locked_down(site: Site) -> None:
    for template in site.templates():
        spec, container = template.spec, template.container
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "projected", "secret", "persistentVolumeClaim"}
        tokens = {path for path, _ in site.files_in(template) if "/etc/cube-tokens" in path}
        expected = {"read"} if template.kind == "ctr-serving" else {"operate", "read"}
        assert tokens == {f"/etc/cube-tokens/{each}" for each in expected}


def test_probes_and_stops_leave_time(site: Site) -> None:
    for template in site.templates():
        container = template.container
        probes = [container[f"{each}Probe"] for each in ("startup", "liveness", "readiness")]
        has_tls = "/etc/cube-tls/tls.crt" in dict(site.files_in(template))
        paths = ["/live", "/live", "/ready" if template.kind != "cube-transfer" else "/health"]
        for probe, path in zip(probes, paths, strict=True):
            if has_tls:
                port = template.ports["http"]
                assert f"https://127.0.0.1:{port}{path}" in probe["exec"]["command"]
            else:
                assert probe["httpGet"] == {"path": path, "port": "http"}
        assert probes[1]["periodSeconds"] * probes[1]["failureThreshold"] >= 60
        if template.kind == "cube-transfer":
            continue
        *_, sleep_s = container["lifecycle"]["preStop"]["exec"]["command"]
        drain_s = parameters(site, template)["drain_timeout_s"]
        assert template.spec["terminationGracePeriodSeconds"] > int(sleep_s) + drain_s


def parameters(site: Site, template: Template) -> dict[str, Any]:
    """What the command of a pod makes of its arguments."""
    texts = dict(site.files_in(template))
    arguments = []
    for argument in template.container["args"]:
        name, _, path = argument.partition("=")
        assert name == "--flagfile"
        lines = texts[path].splitlines()
        arguments += [line for line in lines if not line.startswith("#")]
    (program,) = template.container["command"]
    command: Any = typer.main.get_command(APPS[program])
    spelled = _gflags_spelling(APPS[program], arguments, ())
    found: dict[str, Any] = command.make_context(program, spelled).params
    return found


def test_the_roles_take_their_flags_and_files(site: Site, tmp_path: Path) -> None:
    for template in site.templates():
        flags = parameters(site, template)
        texts = dict(site.files_in(template))
        assert flags["host"] == "0.0.0.0"  # noqa: S104
        named = [v for n, v in flags.items() if n.endswith("_file") and v]
        assert {path for path in named if path not in texts} == set()
        assert flags["read_token_file"] in texts
        if template.kind != "ctr-serving":
            assert flags["operate_token_file"] in texts, "others than this machine command it"
        folder = placed(texts, tmp_path / template.name)
        access = Access.read(f"{folder}{flags['read_token_file']}")
        assert access.read_token
        if template.kind == "cube-server":
            assert {flags["port"], flags["grpc_port"]} - {-1} == set(template.ports.values())
            assert str(flags["data_dir"]) in template.writable()
        elif template.kind == "cube-transfer":
            check_transfer(site, template, Path(f"{folder}{flags['config']}"))
        else:
            assert [flags["port"], flags["grpc_port"]] == list(template.ports.values())
            conf, cube_conf = (Path(f"{folder}{flags[name]}") for name in ("conf", "cube_conf"))
            daemons = [each for each in site.templates() if each.kind == "cube-transfer"]
            urls = [f"{address_of(site, each)}:{each.ports['http']}/models" for each in daemons]
            for engine in read_engine_confs(conf, cube_conf):
                assert str(engine.model_path.parent) in template.writable()
                scheme, _, address = engine.model_url.partition("://")
                assert address in urls
                assert scheme == ("https" if flags["tls_cert_file"] else "http")
                assert engine.dict_name in read_cube_conf(cube_conf)


def placed(texts: dict[str, str], folder: Path) -> Path:
    """Writes the files of a pod below `folder`."""
    for path, text in texts.items():
        target = Path(f"{folder}{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder


def check_transfer(site: Site, template: Template, path: Path) -> None:
    conf = read_transfer_conf(path)
    for directory in (conf.output_address, conf.tmp_address, conf.model_deploy_path):
        if directory:
            assert any(Path(directory).is_relative_to(each) for each in template.writable())
    assert conf.wget_port == template.ports["http"]
    assert conf.transfer_address == address_of(site, template)
    for replica in conf.replicas:
        set_name = replica.endpoint.host.split(".")[1]
        owner = Template(site.named("StatefulSet", set_name))
        expected = f"{set_name}-{replica.copy_index}.{address_of(site, owner)}"
        assert replica.endpoint.host == expected
        assert replica.copy_index < owner.owner["spec"]["replicas"]
        assert replica.endpoint.port == owner.ports["http"]
        assert owner.labels["cube-shard"] == str(replica.shard)


def address_of(site: Site, template: Template) -> str:
    """The name of the Service in front of pods, as the DNS of the cluster has it."""
    service = site.named("Service", template.name)["metadata"]
    domain = "k8s.example" if service["namespace"] == "prod" else "cluster.local"
    return f"{service['name']}.{service['namespace']}.svc.{domain}"


def test_clients_find_servers_by_the_files_for_them(site: Site, tmp_path: Path) -> None:
    data = site.named("ConfigMap", "cube-clients")["data"]
    folder = placed({f"/{name}": text for name, text in data.items()}, tmp_path)
    daemons = {}
    for template in site.templates():
        if template.kind == "cube-transfer":
            texts = dict(site.files_in(template))
            (path,) = [path for path in texts if path.endswith(".conf")]
            conf = read_transfer_conf(f"{placed(texts, tmp_path / template.name)}{path}")
            daemons[conf.dict_name] = conf
    dicts = read_cube_conf(folder / "cube.conf")
    assert dicts.keys() == daemons.keys()
    for name, entry in dicts.items():
        found = [endpoint for replicas in entry.replicas() for endpoint in replicas]
        assert found == [each.endpoint for each in daemons[name].replicas]
    predictors = read_predictors(folder / "predictors.prototxt")
    address = address_of(site, site.template("ctr-serving"))
    assert predictors.predictors[0].variants[0].naming_conf.cluster == f"list://{address}:8010"


def test_a_dict_may_have_pods_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "many.yml").write_text(MANY)
    site = Site.written_from(tmp_path / "many.yml")
    users = site.named("StatefulSet", "cube-users-v2-0-of-3")
    others = site.named("StatefulSet", "cube-ads-0-of-1")
    claims = [each["spec"]["volumeClaimTemplates"][0]["spec"] for each in (users, others)]
    assert [each["resources"]["requests"]["storage"] for each in claims] == ["200Gi", "20Gi"]
    assert [each.get("storageClassName") for each in claims] == ["ssd", None]
    assert [Template(each).container["resources"] for each in (users, others)] == [
        {"requests": {"cpu": "0.5", "memory": "1Gi"}}
    ] * 2
    assert users["spec"]["replicas"] == 2


def test_pods_start_anew_when_what_they_read_once_is_changed(tmp_path: Path) -> None:
    def hashes(text: str) -> dict[str, str]:
        (tmp_path / "cluster.yml").write_text(text)
        site = Site.written_from(tmp_path / "cluster.yml")
        return {
            each.name: each.owner["spec"]["template"]["metadata"]["annotations"]["conf-sha256"]
            for each in site.templates()
        }

    def changed(old: str, new: str) -> set[str]:
        assert old in MANY
        before, after = hashes(MANY), hashes(MANY.replace(old, new))
        return {name for name in before.keys() & after if before[name] != after[name]}

    assert changed("quant: int8", "quant: fp16") == {"cube-transfer-ads"}
    assert changed("rows_per_request_max: 5000", "rows_per_request_max: 5") == {"ctr-serving"}
    assert changed("donefile_address: 's3", "timeout_ms: 5, donefile_address: 's3") == set(), (
        "clients notice that cube.conf is changed"
    )
    more_shards = changed("shards: 3", "shards: 4")
    assert more_shards == {"cube-transfer-users-v2"}, "servers of four shards are others"


KUBERNETES = """\
dicts:
  - name: d
    donefile_address: /passes/donefile
    shards: 1
    port: 8001
kubernetes:
  image: cube:1
  passes: {claim: passes}
  namespace: cube
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        (KUBERNETES[KUBERNETES.index("kubernetes:") :], "", 1, r"kubernetes: is missing"),
        ("  image: cube:1\n", "", 6, r"kubernetes\.image: is missing"),
        ("image: cube:1", "image: a b", 7, r"kubernetes\.image: 'a b' has characters"),
        ("namespace: cube", "namespace: Cube", 9, r"namespace: 'Cube' has characters"),
        ("namespace: cube", "nmespace: cube", 9, r"nmespace: no such field; did you mean name"),
        ("passes: {claim: passes}", "models: {storage: 1TB}", 8, r"storage: '1TB' has characters"),
        (
            "  passes: {claim: passes}\n",
            "",
            3,
            r"dicts\.0\.donefile_address: is a path; kubernetes\.passes must name the claim",
        ),
        ("/passes/donefile", "./donefile", 3, r"\./donefile is not in .*mount_path /passes"),
        ("/passes/donefile", "/passes/../x", 3, r"is not in kubernetes\.passes\.mount_path"),
        (
            "namespace: cube",
            "ctr_serving: {replicas_max: 1}",
            9,
            r"kubernetes\.ctr_serving\.replicas_max: is below replicas_min 2",
        ),
        ("port: 8001", "port: 8001\n    first_server: 2", 6, r"first_server: pods have names"),
        ("port: 8001", "servers: [{port: 8001}]", 5, r"servers: Kubernetes places the servers"),
        ("name: d", "name: _", 2, r"dicts\.0\.name: '_' would be '' on Kubernetes"),
        ("name: d", f"name: {'d' * 60}", 2, r"dicts\.0\.name: 'cube-transfer-d+', .* 52"),
        (
            "kubernetes:",
            "security: {tls_cert_file: x}\nkubernetes:",
            7,
            r"kubernetes\.secrets\.tls: is missing",
        ),
    ],
)
def test_a_wrong_field_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, told: str
) -> None:
    path = tmp_path / "cluster.yml"
    path.write_text(KUBERNETES)
    read_cluster(path, check=check_for_kubernetes)
    assert old in KUBERNETES
    path.write_text(KUBERNETES.replace(old, new, 1))
    with pytest.raises(ConfError, match=rf"^{re.escape(str(path))}:{line}: .*{told}"):
        read_cluster(path, check=check_for_kubernetes)


def test_two_dicts_may_not_come_to_one_name(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yml"
    second = (
        "  - {name: a.b, donefile_address: 's3://x', shards: 1, port: 9500, transfer: {port: 1}}"
    )
    text = KUBERNETES.replace("name: d", "name: a_b").replace(
        "kubernetes:", f"{second}\nkubernetes:"
    )
    path.write_text(text)
    with pytest.raises(ConfError, match=r":6: dicts\.1\.name: .*'a-b' .* so would 'a_b'"):
        read_cluster(path, check=check_for_kubernetes)


def test_nothing_is_written_over_files_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.yml").write_text(KUBERNETES)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "20-config.yaml").write_text("by: hand\n")
    arguments = [f"--file={tmp_path}/cluster.yml", f"--kubernetes={tmp_path}/out"]
    with pytest.raises(SystemExit) as ended:
        command_line.run(app, ["config", *arguments])
    assert ended.value.code == 2
    assert "20-config.yaml: was not written by `cube config`" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == ["20-config.yaml"]  # noqa: PTH208
