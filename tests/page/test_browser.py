"""The page in a browser, before real processes."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.page.browser import TIMEOUT_S, Browser
from tests.transfer.site import Site
from tests.waiting import wait_until

READ, OPERATE = "token-to-read", "token-to-operate"
FINE = "Nothing is wrong."
# What is to be read in the column, for slots as they are told one after another.
SLOTS_TOLD = """
    const [told, done] = arguments;
    import('/page/show.js').then((page) => done(told.map((missing_by_slot) => {
      page.showTables({servers: [], deployments: [], ctr_servers: [{name: 'c', missing_by_slot}]});
      const cell = document.querySelector('#ctr tbody .slots');
      return (cell.querySelector('summary') ?? cell).textContent;
    })), (error) => done(`${error}`));
"""
# As long as nothing is heard, in place of the 40 s of the page.
HURRIED = """
    const setTimer = window.setTimeout.bind(window);
    window.setTimeout = (act, ms, ...rest) => setTimer(act, ms === 40000 ? 5000 : ms, ...rest);
"""
SERVERS = ["cube0_0", "cube0_1", "cube1_0", "cube1_1"]


@contextlib.contextmanager
def deployed(site: Site, *pass_ids: str, flags: tuple[str, ...] = ()) -> Iterator[None]:
    """Runs the daemon, which has deployed the passes."""
    with site.transfer("--sample_interval_s=1", "--replica_deadline_s=1", *flags, keep_versions=3):
        for pass_id in pass_ids:
            site.trainer.announce(site.trainer.write(pass_id))
            wait_until(lambda: site.stage(pass_id) == "done", TIMEOUT_S, "done")  # noqa: B023
        yield


@contextlib.contextmanager
def hurried(browser: Browser) -> Iterator[None]:
    """Pages that are opened inside wait a shorter time for a daemon that says nothing."""
    script = browser.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": HURRIED}
    )
    try:
        yield
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def column(browser: Browser, name: str) -> list[str]:
    """Of the table of shard servers."""
    return browser.texts(f"#servers tbody [data-name='{name}']")


def await_served(browser: Browser, version: str) -> None:
    """All replicas are shown at the version, and the newest deployment as over."""
    wait_until(
        lambda: column(browser, "Version") == [version] * 4, TIMEOUT_S, f"{version} everywhere"
    )
    browser.await_text(f"serves {version} since", "header")
    browser.await_text(FINE, "#problems")


def test_a_healthy_site(browser: Browser, site: Site) -> None:
    with deployed(site, "1", "2"):
        browser.open(site.url())
        await_served(browser, "2_2")
        assert "All 4 servers of 2 shards serve 2_2." in browser.text("#problems")
        assert [each.split()[0] for each in column(browser, "Replica")] == SERVERS
        assert column(browser, "State") == ["serves"] * 4
        assert column(browser, "Keys") == ["150"] * 4

        def loaded() -> bool:
            for name in site.servers:
                site.seek(name, [0, 1, 2, 3, 1 << 40])
            rates = [*column(browser, "Keys/s"), *column(browser, "Missing")]
            return not {"–", "0"} & set(rates) and "µs" in browser.text("#charts")

        wait_until(loaded, TIMEOUT_S, "rates of all servers")
        assert [text.split("\n")[0] for text in browser.texts("#deployments li")] == (
            ["Pass 2", "Pass 1"]
        )
        browser.click("#deployments summary")
        steps = browser.texts("#deployments li:first-child .both > table th[scope=row]")
        assert steps == ["pull", "build", "ship", "load", "switch", "publish", "tidy"]
        assert browser.texts("#deployments li:first-child .scrolled th[scope=row]") == ["0", "1"]

        browser.require_no_sideways_scrolling()
        # Nothing from elsewhere, and nothing that the policy had to stop.
        assert {url.removeprefix(site.url()) for url in browser.requested()} == {
            "/", "/events", "/page/page.js", "/page/show.js", "/page/page.css", "/page/icon.svg",
        }  # fmt: skip
        assert browser.complaints() == []


def test_a_rollback_by_clicking_and_by_keyboard(browser: Browser, site: Site) -> None:
    with deployed(site, "1", "2", "3"):
        browser.open(site.url())
        await_served(browser, "3_3")

        browser.click("#rollback")
        assert browser.is_open("#ask")
        choice = Select(browser.find("#ask-choice"))
        assert [option.get_attribute("value") for option in choice.options] == ["2_2", "1_1"]
        browser.click("#ask-no")
        assert not browser.is_open("#ask")
        assert browser.focused() == "rollback"
        assert site.status()["serving"] == "3_3"

        browser.click("#rollback")
        browser.click("#ask-yes")
        browser.await_text("The rollback to 2_2 is ordered.", "#done")
        await_served(browser, "2_2")
        assert site.versions() == {"2_2"}
        site.require_served("2")
        assert "rolled back from" in browser.text("#deployments")

        browser.find("body").click()
        browser.tab_to("rollback")
        browser.press(Keys.ENTER)
        wait_until(lambda: browser.is_open("#ask"), TIMEOUT_S, "the dialog")
        browser.press(Keys.ESCAPE)
        wait_until(lambda: not browser.is_open("#ask"), TIMEOUT_S, "the dialog closed")
        assert browser.focused() == "rollback"
        browser.press(Keys.ENTER)
        browser.tab_to("ask-choice")
        # The one served before is chosen; those newer stand above it.
        browser.press(Keys.ARROW_UP)
        assert Select(browser.find("#ask-choice")).first_selected_option.text.startswith("3_3")
        browser.tab_to("ask-yes")
        browser.press(Keys.ENTER)
        await_served(browser, "3_3")
        site.require_served("3")

        browser.click("#pause")
        browser.click("#ask-yes")
        browser.await_text("Deployments are paused", "#problems")
        assert site.status()["paused"]
        browser.click("#problems button")
        browser.click("#ask-yes")
        browser.await_text(FINE, "#problems")
        assert not site.status()["paused"]
        assert browser.complaints() == []


def test_a_deployment_under_way(browser: Browser, site: Site) -> None:
    # Through proxies that can hold a command.
    site.behind_proxies = True
    with deployed(site, "1"):
        browser.open(site.url())
        await_served(browser, "1_1")
        held = site.proxies["cube1_0"]
        held.hold("bg_switch")
        site.trainer.announce(site.trainer.write("2"))
        browser.await_text("2_2 is on its way: switch.", "#problems")
        deployment = browser.text("#deployments li:first-child")
        assert "Pass 2" in deployment
        assert browser.texts("#deployments li:first-child .state") == ["switch"]
        assert "switch\tsince " in deployment
        wait_until(lambda: "switched" in column(browser, "State"), TIMEOUT_S, "one is switched")
        assert column(browser, "Wanted") == ["1_1"] * 4
        held.release("bg_switch")
        await_served(browser, "2_2")
        assert browser.texts("#deployments li:first-child .state") == ["served"]


def test_a_replica_a_shard_and_the_daemon_go_and_come(browser: Browser, site: Site) -> None:
    with deployed(site, "1"):
        browser.open(site.url())
        await_served(browser, "1_1")
        ports = {name: site.servers[name].port() for name in ("cube0_0", "cube0_1")}
        site.servers["cube0_1"].stop()
        words = f"cube0_1 (127.0.0.1:{ports['cube0_1']}), of shard 0, does not answer: "
        shown = browser.await_text(f"{words}connection refused", "#problems")
        assert "cube0_0 answers for the shard." in shown
        assert "since " in shown
        assert browser.text("#problems > .warning")
        assert column(browser, "State") == ["serves", "down", "serves", "serves"]

        site.servers["cube0_0"].stop()
        browser.await_text("Shard 0 is down: all 2 servers do not answer", "#problems > .bad")
        browser.await_text("Requests that need its keys fail.", "#problems > .bad")
        assert browser.driver.title == "(1) ctr_embedding 1_1"

        for name, port in ports.items():
            site.start_server(name, port)
        await_served(browser, "1_1")
        assert site.daemon is not None
        port = site.daemon.port()
        site.daemon.stop()
        browser.await_text("This page has no connection to the daemon.", "#problems")
    with site.transfer(f"--port={port}"):
        browser.await_no_text("no connection", "#problems")
        await_served(browser, "1_1")


def test_a_daemon_that_hangs_is_no_connection(browser: Browser, site: Site) -> None:
    with deployed(site, "1"), hurried(browser):
        browser.open(site.url())
        await_served(browser, "1_1")
        browser.await_text("live", "#connection")
        assert site.daemon is not None
        site.daemon.process.send_signal(signal.SIGSTOP)
        try:
            browser.await_text("This page has no connection to the daemon.", "#problems")
            assert browser.text("#connection") == "not connected"
        finally:
            site.daemon.process.send_signal(signal.SIGCONT)
        browser.await_text("live", "#connection")
        browser.await_text(FINE, "#problems")


def test_an_order_that_is_done_late_leaves_the_next_question_open(
    browser: Browser, site: Site
) -> None:
    with deployed(site, "1"):
        browser.open(site.url())
        await_served(browser, "1_1")
        assert site.daemon is not None
        site.daemon.process.send_signal(signal.SIGSTOP)
        try:
            browser.click("#pause")
            browser.click("#ask-yes")
            browser.click("#ask-no")
            browser.click("#token")
            assert browser.find("#ask-yes").is_enabled()
        finally:
            site.daemon.process.send_signal(signal.SIGCONT)
        browser.await_text("Deployments are paused.", "#done")
        assert browser.is_open("#ask")
        browser.click("#ask-no")


def test_missing_keys_are_shown_again_after_a_while_without_rows(
    browser: Browser, site: Site
) -> None:
    """Told to the page's own script, since a predictor takes long to begin anew."""
    with deployed(site):
        browser.open(site.url())
        browser.await_text("live", "#connection")
        shown = browser.driver.execute_async_script(SLOTS_TOLD, [[0, 0], [], [0, 0]])
    assert shown == ["none", "–", "none"]


def test_a_failed_pass_and_its_retry(browser: Browser, site: Site) -> None:
    with deployed(site, "1"):
        browser.open(site.url())
        await_served(browser, "1_1")
        line = site.trainer.line("2")
        site.trainer.announce('{"id":"<img src=x onerror=alert(1)>","key":"1","input":"x"}', line)
        shown = browser.await_text("Pass 2 (2_2) failed in the step “pull”", "#problems > .bad")
        assert "1_1 is served." in shown
        # Names come from outside; they are text.
        assert "<img src=x" in browser.await_text("A line of the donefile", "#problems > .warning")
        assert browser.texts("img") == []
        assert browser.texts("#deployments li:first-child .state") == ["failed in pull"]
        assert browser.text("#deployments li:first-child details[open] .error")

        site.trainer.write("2")
        browser.click("#problems > .bad button")
        browser.click("#ask-yes")
        browser.await_text("2: 2_2 is deployed anew.", "#done")
        browser.await_text("serves 2_2 since", "header")
        browser.await_no_text("failed in the step", "#problems")
        site.require_served("2")


def test_who_only_reads_cannot_roll_back(browser: Browser, site: Site, tmp_path: Path) -> None:
    for name, token in (("read", READ), ("operate", OPERATE)):
        (tmp_path / name).write_text(token)
    flags = ("--read_token_file=read", "--operate_token_file=operate")
    site.http.headers["authorization"] = f"Bearer {READ}"
    with deployed(site, "1", "2", flags=flags):
        browser.open(site.url())
        browser.await_text("to those with the read token", "#ask")
        assert "2_2" not in browser.text()
        browser.find("#ask-token").send_keys(READ)
        browser.click("#ask-yes")
        browser.await_text("live, to look only", "header")
        await_served(browser, "2_2")

        browser.click("#rollback")
        browser.click("#ask-yes")
        browser.await_text("rollback: needs the operate token", "#ask-error")
        assert browser.is_open("#ask")
        assert browser.focused() == "ask-token"
        assert [each["kind"] for each in site.status()["passes"]] == ["pass", "pass"]
        browser.press("a-wrong-token", Keys.ENTER)
        browser.await_text("wrong or missing token", "#ask-error")
        assert site.status()["serving"] == "2_2"

        browser.find("#ask-token").clear()
        browser.find("#ask-token").send_keys(OPERATE)
        browser.click("#ask-yes")
        await_served(browser, "1_1")
        assert OPERATE not in browser.driver.current_url
        assert site.daemon is not None
        assert not any(token in site.daemon.log() for token in (READ, OPERATE))


def test_who_wants_to_show_no_token_is_asked_once(
    browser: Browser, site: Site, tmp_path: Path
) -> None:
    for name, token in (("read", READ), ("operate", OPERATE)):
        (tmp_path / name).write_text(token)
    flags = ("--read_token_file=read", "--operate_token_file=operate")
    site.http.headers["authorization"] = f"Bearer {READ}"
    with deployed(site, flags=flags), hurried(browser):
        browser.open(site.url())
        browser.await_text("to those with the read token", "#ask")
        browser.click("#ask-no")
        with pytest.raises(TimeoutError):
            wait_until(lambda: browser.is_open("#ask"), 8.0, "the dialog")
        browser.click("#token")
        browser.find("#ask-token").send_keys(READ)
        browser.click("#ask-yes")
        browser.await_text("live", "#connection")
