"""A headless Chromium that looks at the page."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.waiting import wait_until

TIMEOUT_S = 60.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--lang=en",
)


def _axe_script() -> str:
    found = importlib.util.find_spec("axe_core_python")
    assert found is not None, "make .venv anew: requirements/dev.txt has axe-core-python"
    assert found.origin is not None
    return Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")


class Browser:
    """One tab.

    Attributes:
        driver: of selenium.
    """

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Opens the page of a daemon, without what an earlier one left, and awaits its state."""
        self.look(width=1280, height=900, dark=False)
        self.driver.get("about:blank")
        for kind in ("performance", "browser"):
            self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        self.driver.get(f"{url}/")
        self.driver.execute_script("sessionStorage.clear()")

    def look(self, *, width: int, height: int, dark: bool = False) -> None:
        """Changes the size of the window, and the scheme that is preferred."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = "return [innerWidth, innerHeight].join()"
        wait_until(
            lambda: self.driver.execute_script(size) == f"{width},{height}", TIMEOUT_S, "the size"
        )

    def require_no_sideways_scrolling(self) -> None:
        """At no width of the window is the page wider than that."""
        for width in (320, 375, 600, 761, 1000, 1151, 1280, 1600):
            self.look(width=width, height=800)
            found = self.driver.execute_script("return document.documentElement.scrollWidth")
            assert found <= width, f"{found} at {width}"

    def violations(self) -> list[str]:
        """What axe finds that keeps people out: its serious and critical rules, each with the
        elements that break it."""
        self.driver.execute_script(_axe_script())
        found: list[dict[str, Any]] = self.driver.execute_async_script(
            "const done = arguments[0];"
            "axe.run().then((told) => done(told.violations), (error) => done([{id: `${error}`}]))"
        )
        return [
            f"{each['id']}: {[node['html'] for node in each.get('nodes', ())]}"
            for each in found
            if each.get("impact", "critical") in ("serious", "critical")
        ]

    def require_controls(self, selector: str) -> None:
        """Every control that is shown is within the window's width, large enough for a finger, and
        under nothing else."""
        for control in self.driver.find_elements(By.CSS_SELECTOR, selector):
            if not control.is_displayed():
                continue
            left, right, height, is_on_top = self.driver.execute_script(
                "const it = arguments[0]; it.scrollIntoView({block: 'center'});"
                "const {left, right, top, height} = it.getBoundingClientRect();"
                "const on_top = document.elementFromPoint((left + right) / 2, top + height / 2);"
                "return [left, right, height, it.contains(on_top)]",
                control,
            )
            width = self.driver.execute_script("return innerWidth")
            told = f"{control.tag_name} {control.text!r} at {left} to {right} of {width}"
            assert left >= 0, told
            assert right <= width, told
            assert height >= 24, told
            assert is_on_top, told

    def style(self, selector: str, name: str) -> str:
        """A property as the browser has computed it, such as rgb(1, 2, 3)."""
        return str(self.find(selector).value_of_css_property(name))

    def text(self, selector: str = "body") -> str:
        """What is to be read in the first element."""
        shown: str = self.driver.execute_script(
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector
        )
        return shown

    def texts(self, selector: str) -> list[str]:
        """What is to be read in each element."""
        shown: list[str] = self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText)",
            selector,
        )
        return shown

    def await_text(self, words: str, selector: str = "body") -> str:
        """Returns the text of the element once it has the words."""

        def found() -> str:
            text = self.text(selector)
            return text if words in text else ""

        try:
            return wait_until(found, TIMEOUT_S, f"{words!r} in {selector}")
        except TimeoutError as error:
            raise AssertionError(f"{error}; it has: {self.text(selector)!r}") from error

    def await_no_text(self, words: str, selector: str = "body") -> None:
        wait_until(
            lambda: words not in self.text(selector), TIMEOUT_S, f"no {words!r} in {selector}"
        )

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        wait_until(lambda: self.find(selector).is_enabled(), TIMEOUT_S, f"{selector} enabled")
        self.find(selector).click()

    def press(self, *keys: str) -> None:
        """Presses keys where the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def tab_to(self, element_id: str, tabs_max: int = 30) -> None:
        """Presses Tab until the element has the focus."""
        for _ in range(tabs_max):
            if self.focused() == element_id:
                return
            self.press(Keys.TAB)
        raise AssertionError(f"{tabs_max} tabs do not lead to {element_id}")

    def focused(self) -> str:
        """Id of the element that has the focus."""
        found: str = self.driver.execute_script("return document.activeElement.id")
        return found

    def is_open(self, selector: str) -> bool:
        return bool(self.find(selector).get_property("open"))

    def requested(self) -> list[str]:
        """Addresses that were asked since the page was opened."""
        entries: list[dict[str, Any]] = self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """Errors and warnings of the console since the page was opened."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries]

    def save_image(self, path: Path, *, width: int, dark: bool = False) -> None:
        """Writes a picture of the whole page."""
        self.look(width=width, height=900, dark=dark)
        height = self.driver.execute_script("return document.documentElement.scrollHeight")
        self.look(width=width, height=height, dark=dark)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """Runs Chromium with a new profile."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium or chromedriver is missing: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    running = Chrome(options=options, service=Service(driver))
    try:
        yield Browser(running)
    finally:
        running.quit()
