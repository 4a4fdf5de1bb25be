"""The page in a real browser, which reaches this machine alone: what it shows, says, asks and changes."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import pytest
from desks import TOKEN
from playwright.sync_api import Browser, Page, expect, sync_playwright
from programs import needs
from served import Served, served

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1440, "height": 900}
PAGES = {
    "/": "Devices by precision",
    "/devices": "pi-kitchen-1",
    "/devices/pi-kitchen-2": "Why W4A8",
    "/rounds": "aborted by the operator",
    "/rounds/13": "norm-too-large",
    "/learning": "Accuracy against joules",
    "/models": "Download",
    "/actions": "Abort the current round",
}
"""Every page, and words that it shows once it is drawn."""

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    program = needs("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Served]:
    """A fleet with a past, to be looked at and not changed for good."""
    with served(tmp_path_factory.mktemp("page") / "populated", "populated") as child:
        yield child


@dataclass
class Window:
    """One browser window, and what was wrong in it."""

    page: Page
    trouble: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", lambda it: self.trouble.append(it.text) if it.type in {"error", "warning"} else None)
        self.page.on("pageerror", lambda it: self.trouble.append(str(it)))
        self.page.on("request", lambda it: None if _near(it.url) else self.trouble.append(f"asks for {it.url}"))
        self.page.on("websocket", lambda it: None if _near(it.url) else self.trouble.append(f"asks for {it.url}"))

    def sees(self, words: str) -> None:
        expect(self.page.get_by_text(words, exact=False).first).to_be_visible(timeout=15_000)


def _near(url: str) -> bool:
    return url.startswith("data:") or urlsplit(url).hostname == "127.0.0.1"


@pytest.fixture
def window(browser: Browser) -> Iterator[Window]:
    """A fresh window of a desktop, in which nothing may go wrong, and which reaches nobody else."""
    with ExitStack() as stack:
        context = browser.new_context(viewport=DESKTOP, color_scheme="light")
        stack.callback(context.close)
        context.route(lambda url: not _near(url), lambda route: route.abort())
        window = Window(context.new_page())
        window.watch()
        yield window
        assert window.trouble == []


def sign_in(window: Window, token: str = TOKEN) -> None:
    window.page.get_by_label("Token").fill(token)
    window.page.get_by_role("button", name="Sign in").click()


# --- looking ---


def test_every_page_fits_a_desktop_and_a_phone_and_asks_nobody_else_for_anything(window: Window, fleet: Served) -> None:
    for path, words in PAGES.items():
        window.page.set_viewport_size(DESKTOP)
        window.page.goto(fleet.url + path)
        window.sees(words)
        for size in (DESKTOP, PHONE):
            window.page.set_viewport_size(size)
            assert window.page.evaluate("document.documentElement.scrollWidth") == size["width"], f"{path} at {size}"
        assert window.page.get_by_role("heading", level=1).count() == 1
        assert window.trouble == [], path


def test_it_shows_what_the_api_says(window: Window, fleet: Served) -> None:
    device = httpx.get(f"{fleet.url}/api/v1/devices/pi-kitchen-2", trust_env=False).json()
    window.page.goto(f"{fleet.url}/devices/pi-kitchen-2")
    window.sees(device["reason"])
    for need in device["decision"]["needs"]:
        expect(window.page.get_by_role("row").filter(has_text=need["precision"])).to_contain_text(
            f"{need['accuracy']:.1%} ({need['accuracy_source']})"
        )
    (model, *_) = httpx.get(f"{fleet.url}/api/v1/models", trust_env=False).json()
    window.page.goto(f"{fleet.url}/models")
    window.sees(f"Version {model['version']}")
    first = window.page.get_by_role("link", name=f"Download model-{model['version']}-W8A8.onnx")
    digest = next(export["digest"] for export in model["exports"] if export["precision"] == "W8A8")
    assert first.get_attribute("href") == f"/api/v1/blobs/{digest}"


def test_the_list_of_devices_is_filtered_as_one_types(window: Window, fleet: Served) -> None:
    window.page.goto(f"{fleet.url}/devices?precision=W1A8")
    rows = window.page.locator("tbody tr")
    expect(rows).to_have_count(6)
    window.page.get_by_label("Name").type("hall")
    expect(rows).to_have_count(2)
    window.page.get_by_label("Precision").select_option("")
    expect(rows).to_have_count(6)
    window.page.get_by_label("State").select_option("revoked")
    expect(rows).to_have_count(1)
    window.page.get_by_label("Name").fill("nothing like it")
    window.sees("No device is like that")


def test_dark_and_light_follow_the_system_with_words_that_can_be_read(window: Window, fleet: Served) -> None:
    for scheme in ("light", "dark"):
        window.page.emulate_media(color_scheme=scheme)
        window.page.goto(fleet.url)
        window.sees("Devices by precision")
        for selector in ("h1", ".soft", ".badge.good", ".nav a", ".button, .notice, .list a"):
            assert contrast(window.page, selector) >= 4.5, f"{selector} on {scheme}"


def contrast(page: Page, selector: str) -> float:
    """The contrast of an element's words against what lies behind them, by WCAG 2."""
    ink, ground = page.eval_on_selector(
        selector,
        """element => {
            const ink = getComputedStyle(element).color
            let at = element, ground = 'rgba(0, 0, 0, 0)'
            while (at && ground === 'rgba(0, 0, 0, 0)') {
                ground = getComputedStyle(at).backgroundColor
                at = at.parentElement
            }
            return [ink, ground].map(it => it.match(/[\\d.]+/g).slice(0, 3).map(Number))
        }""",
    )
    dark, light = sorted((_luminance(ink), _luminance(ground)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: list[float]) -> float:
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in _shares(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _shares(colour: list[float]) -> list[float]:
    return [value / 255 for value in colour]


def test_each_job_is_shown_by_itself(window: Window, fleet: Served) -> None:
    window.page.goto(fleet.url)
    window.sees("Devices by precision")
    window.page.get_by_label("Job").select_option("night")
    window.sees("No devices yet")
    window.page.goto(f"{fleet.url}/rounds")
    window.sees("No rounds yet")
    window.page.goto(f"{fleet.url}/rounds/13?job=main")
    window.sees("norm-too-large")


def test_what_does_not_exist_is_said(window: Window, fleet: Served) -> None:
    for path, words in {"/devices/nobody": "is named nobody", "/rounds/99": "no round 99"}.items():
        window.page.goto(fleet.url + path)
        window.sees(words)


# --- changing ---


def test_an_action_is_asked_back_about_done_and_answered(window: Window, fleet: Served) -> None:
    page = window.page
    page.goto(f"{fleet.url}/actions")
    page.get_by_role("button", name="Pause").click()
    sign_in(window, "wrong")
    window.sees("That is not the token")
    window.trouble.clear()  # Chromium calls a page of status 403 an error
    sign_in(window)
    expect(page).to_have_url(f"{fleet.url}/actions")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    window.sees("Rounds are paused")
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    window.sees("Rounds are opened again")
    page.get_by_role("button", name="Make token").click()
    page.get_by_role("dialog").get_by_role("button", name="Make token").click()
    window.sees("only its digest is kept")
    token = page.get_by_role("dialog").locator("code").first.inner_text()
    body = {"device": "pi-new", "public_key": "11" * 32, "token": token}
    assert httpx.post(f"{fleet.url}/api/v1/join", json=body, trust_env=False).status_code in {201, 422}
    page.goto(f"{fleet.url}/models")
    page.get_by_role("button", name="Go back to it").first.click()
    window.sees("Go back to version 12?")


def test_budget_quarantine_and_revocation_are_on_the_devices_page(window: Window, fleet: Served) -> None:
    page = window.page
    page.goto(f"{fleet.url}/login?next=/devices/pi-kitchen-3")
    sign_in(window)
    page.get_by_role("button", name="Change budget").click()
    page.get_by_label("J a day").fill("much")
    page.get_by_role("button", name="Set budget").click()
    window.sees("expected a number")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Quarantine").click()
    page.get_by_label("Why").fill("its lens is covered")
    page.get_by_role("dialog").get_by_role("button", name="Quarantine").click()
    window.sees("its lens is covered")
    page.get_by_role("button", name="Release").click()
    page.get_by_role("dialog").get_by_role("button", name="Release").click()
    window.sees("pi-kitchen-3 is released")
    expect(page.get_by_role("button", name="Quarantine")).to_be_visible()
    page.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    window.sees("pi-kitchen-3 is revoked")
    device = httpx.get(f"{fleet.url}/api/v1/devices/pi-kitchen-3", trust_env=False).json()
    assert device["revoked"]
    expect(page.get_by_role("button", name="Revoke")).to_have_count(0)


# --- who may ---


def test_another_sites_page_is_refused(fleet: Served) -> None:
    evil = {"Origin": "http://evil.example"}
    for method, path in (("POST", "/login"), ("GET", "/"), ("GET", "/_nicegui_ws/socket.io/?EIO=4&transport=polling")):
        answer = httpx.request(method, fleet.url + path, headers=evil, data={"token": TOKEN}, trust_env=False)
        assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json"), path


def test_the_cookie_is_out_of_reach_and_signing_in_leads_nowhere_else(fleet: Served) -> None:
    for target, led in {
        "/rounds": "/rounds",
        "//evil.example": "/",
        "http://evil.example": "/",
        "/\\evil": "/",
    }.items():
        answer = httpx.post(f"{fleet.url}/login", data={"token": TOKEN, "next": target}, trust_env=False)
        assert (answer.status_code, answer.headers["location"]) == (303, led)
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Served]:
    """A fleet without devices, whose door is open to other machines; the last test breaks it."""
    with served(tmp_path_factory.mktemp("page") / "bare", "empty", "closed") as child:
        yield child


def test_beyond_this_machine_nothing_is_shown_before_signing_in(window: Window, bare: Served) -> None:
    assert httpx.get(f"{bare.url}/", trust_env=False).status_code == 307
    window.page.goto(f"{bare.url}/rounds")
    assert urlsplit(window.page.url).path == "/login"
    sign_in(window)
    window.sees("No rounds yet")
    window.page.get_by_role("button", name="Sign out").click()
    expect(window.page.get_by_label("Token")).to_be_visible()


# --- empty, live, broken ---


def test_an_empty_fleet_says_what_to_do_and_shows_who_joins_and_what_breaks(window: Window, bare: Served) -> None:
    window.page.goto(bare.url)
    sign_in(window)
    window.sees("No devices yet")
    window.sees(f"bitfleet-edge join --aggregator {bare.url} --token TOKEN")
    bare.tell("join pi-1")
    window.sees("Devices by state")
    bare.tell("break")
    bare.tell("pause")
    window.sees("This cannot be shown now")
    window.page.get_by_role("button", name="Try again").click()
    window.sees("could not read its database")
