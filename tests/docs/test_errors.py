"""Every error is in the documentation, as the code tells it to callers."""

from __future__ import annotations

import inspect

import yaml

from cube_core import errors
from cube_core.wire.faults import fault_of
from docs_site.pages.errors import error_tree
from docs_site.pages.messages import messages_page
from tests.docs.pages import ROOT, names, page, section, tables


def error_classes() -> dict[str, type[errors.CubeError]]:
    return {
        name: cls
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.CubeError)
    }


def test_what_to_do_is_said_of_every_error() -> None:
    (rows,) = tables(section(page("reference/errors.md"), "What to do"))
    told = [name for row in rows[1:] for name in names(row[0])]
    assert sorted(told) == sorted(set(error_classes()) - {"CubeError"})


def test_the_tree_is_the_one_of_the_code() -> None:
    tree = error_tree()
    for name, cls in error_classes().items():
        assert name in tree
        # What stands behind a name is told of it.
        assert name == "CubeError" or (cls.__doc__ and f"{name} " in tree)


def test_codes_of_the_wires_are_those_of_the_code() -> None:
    (rows,) = tables(section(page("reference/cube-server.md"), "Errors"))
    told = {(row[1].split()[0], row[2], row[3]) for row in rows[1:]}
    for cls in error_classes().values():
        fault = fault_of(cls.__new__(cls))
        assert (str(int(fault.code)), str(fault.http_status), fault.grpc_status) in told, cls


def test_every_message_of_the_wire_is_told() -> None:
    text = messages_page()
    for name in ("DictRequest", "DictValue", "DictResponse", "CTRReqInstance", "RpcMeta"):
        assert f"### {name}\n" in text
    assert "| 4 | `dict_name` | optional `string` |" in text
    assert "| `DictService.seek` | `DictRequest` | `DictResponse` |" in text


def test_every_alert_has_a_section() -> None:
    text = page("operating/troubleshooting.md")
    rules = yaml.safe_load((ROOT / "deploy/prometheus/cube.rules.yml").read_text(encoding="utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert len(alerts) > 10
    for rule in alerts:
        assert f"\n### {rule['alert']}\n" in text
        runbook = rule["annotations"]["runbook"]
        assert runbook == f"docs/operating/troubleshooting.md#{rule['alert'].lower()}"
