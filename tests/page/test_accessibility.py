"""Everybody can read and use the page: as axe sees it, in both colour schemes, and on a phone."""

from __future__ import annotations

from tests.page.browser import TIMEOUT_S, Browser
from tests.page.test_browser import await_served, deployed
from tests.transfer.site import Site
from tests.waiting import wait_until

CONTROLS = ("button", "select", "input", "summary")
DESKTOP, PHONE = 1280, 375


def require_usable(browser: Browser) -> None:
    """As the page is now."""
    for width in (DESKTOP, PHONE):
        for dark in (False, True):
            browser.look(width=width, height=800, dark=dark)
            assert browser.violations() == [], (width, dark)
    # What is under an open dialog is not to be reached.
    place = "#ask " if browser.is_open("#ask") else ""
    browser.require_controls(", ".join(f"{place}{each}" for each in CONTROLS))


def test_what_axe_finds_when_all_is_well_when_asked_and_when_something_is_wrong(
    browser: Browser, site: Site
) -> None:
    with deployed(site, "1", "2"):
        browser.open(site.url())
        await_served(browser, "2_2")
        browser.click("#deployments summary")
        require_usable(browser)
        browser.click("#rollback")
        require_usable(browser)
        browser.click("#ask-no")

        site.servers["cube0_1"].stop()
        site.trainer.announce(site.trainer.line("3"))
        browser.await_text("Pass 3 (3_3) failed", "#problems > .bad")
        browser.await_text("cube0_1", "#problems > .warning")
        require_usable(browser)


def test_what_axe_finds_is_found(browser: Browser, site: Site) -> None:
    """A page that is broken on purpose."""
    with deployed(site, "1"):
        browser.open(site.url())
        await_served(browser, "1_1")
        browser.driver.execute_script(
            "document.querySelector('#retry').textContent = '';"
            "document.querySelector('#serving').style.color = '#ccd'"
        )
        broken = " ".join(browser.violations())
        assert "button-name" in broken
        assert "color-contrast" in broken


def test_the_dark_scheme_is_another_one(browser: Browser, site: Site) -> None:
    with deployed(site, "1"):
        browser.open(site.url())
        await_served(browser, "1_1")
        colours = {}
        for dark in (False, True):
            browser.look(width=DESKTOP, height=800, dark=dark)
            colours[dark] = [
                sum(map(int, browser.style("body", name)[5:].rstrip(")").split(", ")[:3]))
                for name in ("background-color", "color")
            ]
        (ground, ink), (dark_ground, dark_ink) = colours[False], colours[True]
        assert ground > 600 > 150 > ink
        assert dark_ground < 150 < 600 < dark_ink


def test_a_rollback_on_a_phone(browser: Browser, site: Site) -> None:
    with deployed(site, "1", "2"):
        browser.open(site.url())
        await_served(browser, "2_2")
        browser.look(width=PHONE, height=667, dark=True)
        browser.require_controls(", ".join(CONTROLS))
        browser.click("#pause")
        browser.click("#ask-no")
        browser.click("#rollback")
        browser.require_controls("#ask select, #ask button")
        browser.click("#ask-yes")
        await_served(browser, "1_1")
        wait_until(lambda: site.versions() == {"1_1"}, TIMEOUT_S, "the rollback")

        def is_opened() -> bool:
            """The list may have got a new first one since the click."""
            if not browser.is_open("#deployments details"):
                browser.click("#deployments summary")
            return browser.is_open("#deployments details")

        wait_until(is_opened, TIMEOUT_S, "a deployment opened")
