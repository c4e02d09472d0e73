"""transfer.conf: sections, comments and servers as the original writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_core.conf.transfer_conf import BuildOptions, read_transfer_conf
from cube_core.endpoint import DnsName, Endpoint
from cube_core.errors import ConfError

SAMPLE = Path(__file__).parents[2] / "conf" / "transfer.conf"

DEFAULT = """[default]
dict_name: test_dict
mode: base_only
download_mode: http
wget_port: 8098
buildtool_local: /home/work/cube-builder
donefile_address: http://127.0.0.1:8080/donefile
output_address: /home/work/output
tmp_address: /home/work/tmp
shard_num: 2
copy_num: 2
deploy_path: /home/work/deploy
transfer_address: 127.0.0.1
"""
AGENTS = """[cube_agent]
agent0_0: 127.0.0.1:8001
cube0_0: 127.0.0.1:8000:/ssd1/cube
agent0_1: 127.0.0.2:8001
cube0_1: 127.0.0.2:8000:/ssd1/cube
cube1_0: 127.0.0.3:8000:/ssd1/cube
cube1_1: 127.0.0.4:8000:/ssd1/cube
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "transfer.conf"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_sample_file_is_valid() -> None:
    conf = read_transfer_conf(SAMPLE)
    assert conf.dict_name == "ctr_embedding"
    assert [replica.name for replica in conf.replicas] == ["cube0_0", "cube1_0"]


def test_a_file_of_the_original(tmp_path: Path) -> None:
    conf = read_transfer_conf(write(tmp_path, DEFAULT + AGENTS))
    assert conf.donefile_address == "http://127.0.0.1:8080/donefile"
    assert (conf.wget_port, conf.shard_num, conf.copy_num) == (8098, 2, 2)
    assert [(r.shard, r.copy_index) for r in conf.replicas] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert conf.replicas[1].endpoint == Endpoint("127.0.0.2", 8000)
    assert conf.replicas[1].deploy_path == "/ssd1/cube"
    assert conf.ctr_servers == ()
    conf = read_transfer_conf(write(tmp_path, f"{DEFAULT}ctr_servers: h1:8010, h2:8011\n{AGENTS}"))
    assert conf.ctr_servers == (Endpoint("h1", 8010), Endpoint("h2", 8011))
    names = "ctr_servers: h1:8010, dns://pods.cube:8010\n"
    conf = read_transfer_conf(write(tmp_path, f"{DEFAULT}{names}{AGENTS}"))
    assert conf.ctr_servers == (Endpoint("h1", 8010), DnsName("pods.cube", 8010))


def test_comments(tmp_path: Path) -> None:
    text = DEFAULT.replace("mode: base_only", "mode: base_delta // or base_only")
    text = "# head\n" + text.replace("copy_num: 2", "copy_num: 2 # replicas\n// a whole line")
    conf = read_transfer_conf(write(tmp_path, text + AGENTS))
    assert (conf.mode, conf.copy_num) == ("base_delta", 2)
    assert conf.donefile_address == "http://127.0.0.1:8080/donefile"


def test_where_passes_may_lie(tmp_path: Path) -> None:
    assert read_transfer_conf(write(tmp_path, DEFAULT + AGENTS)).input_roots == ()
    text = f"{DEFAULT}input_roots: /passes, s3://bucket/?endpoint_override=h:1  # two\n{AGENTS}"
    conf = read_transfer_conf(write(tmp_path, text))
    assert conf.input_roots == ("/passes", "s3://bucket/?endpoint_override=h:1")


def test_what_builds_are_told(tmp_path: Path) -> None:
    conf = read_transfer_conf(write(tmp_path, DEFAULT + AGENTS))
    assert conf.build == BuildOptions()
    text = DEFAULT + "quant: fp16\nmemory_mb: 2048\non_duplicate: error\n"
    conf = read_transfer_conf(write(tmp_path, text + AGENTS))
    assert conf.build == BuildOptions(quant="fp16", memory_mb=2048, on_duplicate="error")
    # The section of the dict counts before [default]; those of other dicts do not count.
    text += "[test_dict]\nquant: int8\nvalue_width: variable\n[other]\nmemory_mb: 1\n"
    conf = read_transfer_conf(write(tmp_path, text + AGENTS))
    assert conf.build == BuildOptions(
        quant="int8", value_width="variable", memory_mb=2048, on_duplicate="error"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quant: int4\n", r"\[default\] quant: "),
        ("memory_mb: much\n", r"\[default\] memory_mb: "),
        ("[test_dict]\non_duplicate: first\n", r"\[test_dict\] on_duplicate: "),
        ("[test_dict]\nquantize: int8\n", r"\[test_dict\] quantize: "),
    ],
)
def test_what_builds_cannot_be_told(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfError, match=words):
        read_transfer_conf(write(tmp_path, DEFAULT + text + AGENTS))


@pytest.mark.parametrize(
    ("before", "after", "field", "problem"),
    [
        ("dict_name: test_dict\n", "", "[default] dict_name", "required"),
        ("dict_name: test_dict", "dict_name:", "[default] dict_name", "at least 1"),
        ("mode: base_only", "mode: both", "[default] mode", "'base_only'"),
        ("wget_port: 8098", "wget_port: 70000", "[default] wget_port", "65535"),
        ("shard_num: 2", "shard_num: two", "[default] shard_num", "integer"),
        ("shard_num: 2", "shard_num: 3", "[cube_agent] cube2_0", "is missing"),
        ("shard_num: 2", "shard_num: 1", "[cube_agent] cube1_0", "outside shard_num 1"),
        ("copy_num: 2", "copy_num: 1", "[cube_agent] cube0_1", "copy_num 1"),
        ("127.0.0.4:8000", "127.0.0.4:65536", "[cube_agent] cube1_1", "from 1 to 65535"),
        ("127.0.0.4:8000:/ssd1/cube", "127.0.0.4", "[cube_agent] cube1_1", "ip:port:path"),
        ("127.0.0.4:8000", "127.0.0.3:8000", "[cube_agent] cube1_1", "is also cube1_0"),
        ("cube1_1:", "cube01_0: h:1:/d\ncube1_1:", "[cube_agent] cube01_0", "stands twice"),
        ("copy_num: 2", "copy_num: 2\nctr_servers: h1:8010,h2", "[default] ctr_servers", "'h2'"),
        ("copy_num: 2", "copy_num: 2\npass_bytes_max: 0", "[default] pass_bytes_max", "greater"),
        ("copy_num: 2", "copy_num: 2\ninput_roots: ,", "[default] input_roots", "names no path"),
        ("copy_num: 2", "copy_num: 2\ninput_roots: /a,afs://b", "[default] input_roots", "afs://"),
        ("copy_num: 2", "copy_num: 2\ninput_roots: s3://a/%2e%2e", "[default] input_roots", "'..'"),
        ("copy_num: 2", "copy_num: 2\nctr_servers: dns://h2", "[default] ctr_servers", "'h2'"),
        ("agent0_0:", "agnet0_0:", "[cube_agent] agnet0_0", "is neither"),
        ("[default]", "[defaults]", "[default]", "section is missing"),
    ],
)
def test_names_the_field_that_is_wrong(
    tmp_path: Path, before: str, after: str, field: str, problem: str
) -> None:
    text = DEFAULT + AGENTS
    assert before in text
    path = write(tmp_path, text.replace(before, after, 1))
    with pytest.raises(ConfError) as raised:
        read_transfer_conf(path)
    assert (raised.value.file, raised.value.field) == (str(path), field)
    assert problem in raised.value.problem


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dict_name: x",
        "[default]\nno colon here\n",
        DEFAULT + "[default]\n",
        DEFAULT + AGENTS + "cube0_0: 127.0.0.9:1:/d\n",
    ],
)
def test_a_file_that_is_no_transfer_conf(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfError) as raised:
        read_transfer_conf(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfError, match="cannot be read"):
        read_transfer_conf(tmp_path / "transfer.conf")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    at=st.integers(0, len(DEFAULT + AGENTS)),
    piece=st.text(max_size=12),
    dropped_chars=st.integers(0, 20),
)
def test_any_damage_is_taken_or_refused_with_the_file_named(
    tmp_path: Path, at: int, piece: str, dropped_chars: int
) -> None:
    text = DEFAULT + AGENTS
    path = tmp_path / "transfer.conf"
    damaged = text[:at] + piece + text[at + dropped_chars :]
    path.write_bytes(damaged.encode("utf-8", errors="surrogatepass"))
    try:
        conf = read_transfer_conf(path)
    except ConfError as error:
        refusal = str(error)
    else:
        assert len(conf.replicas) == conf.shard_num * conf.copy_num
        return
    assert str(path) in refusal
