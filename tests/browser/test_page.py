"""The report in a real browser: exact labels under the slider, sorting, keyboard, deep links, no requests, no errors.

``bash scripts/test_browser.sh`` brings browser and driver and runs these tests; without them they are skipped.
Screenshots go to the folder that ``WSSS_SCREENSHOTS`` names.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.data.seeds import read_seed
from common.report import page as report_page
from common.report.serve import ReportServer
from common.report.source import ScoredRun
from common.run.folder import RunFolder
from common.score.boxes import BoxFile, boxes_path
from common.visual import seed_labels
from tests.datasets import call
from tests.reports import located_run, scored_run

selenium = pytest.importorskip("selenium", reason="run by scripts/test_browser.sh")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no browser; run scripts/test_browser.sh")
IMAGES, THRESHOLDS = 20, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scored runs of 24 images, and the page that compares them."""
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = "--train", 1, "--val", 24, "--size", 120, "--workers", 2
        assert call(patch, "make_shapes", "--root", "shapes", *arguments) == 0
        scored_run(Path("shapes"), "one")
        scored_run(Path("shapes"), "two", seed=1)
        assert call(patch, "report", "--name", "one", "--against", "two") == 0
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1300,900",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, folder: Path) -> Any:
    """The page, opened from the disk."""
    browser.set_window_size(1300, 900)
    browser.get((folder / "experiment/one/report.html").as_uri())
    return browser


def screenshot(browser: Any, name: str) -> None:
    """Keeps a picture of the page for the eyes, if a folder for it is named."""
    if folder := os.environ.get("WSSS_SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def labels_at(browser: Any, image: int, run: int, threshold: int) -> np.ndarray:
    """The page's labels of an image, as the canvas draws them."""
    found = browser.execute_async_script(
        """const [image, run, threshold, done] = arguments;
        report.load(image).then((own) =>
            done([own.height, own.width, Array.from(report.labelsOf(own, run, threshold))]));""",
        image, run, threshold,
    )  # fmt: skip
    height, width, values = found
    return np.array(values, dtype=np.uint8).reshape(height, width)


def test_the_slider_gives_the_very_masks_of_the_evaluation(page: Any, folder: Path) -> None:
    names = page.execute_script("return report.images.map((image) => image.id)")
    thresholds = page.execute_script("return report.data.thresholds")
    chosen = np.linspace(0, len(thresholds) - 1, THRESHOLDS).round().astype(int).tolist()
    for image, image_id in enumerate(names[:IMAGES]):
        seed = read_seed(folder / f"experiment/one/dict/{image_id}.npy")
        for threshold in chosen:
            labels = labels_at(page, image, 0, threshold)
            assert (labels == seed_labels(seed, thresholds[threshold], labels.shape)).all()


def ids(browser: Any) -> list[str]:
    """The ids of the shown cards, in their order."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#grid .card b')].map((own) => own.textContent)"
    )


def choose(browser: Any, name: str, value: str) -> None:
    """Chooses a value of a tool."""
    browser.execute_script(
        """const own = document.getElementById(arguments[0]);
        own.value = arguments[1];
        own.dispatchEvent(new Event('change'));""",
        name, value,
    )  # fmt: skip


def test_sort_filter_and_find(page: Any) -> None:
    scores = page.execute_script("return Object.fromEntries(report.images.map((image) => [image.id, image.scores]))")
    choose(page, "sort", "worst")
    shown = [scores[image_id][0]["iou"] for image_id in ids(page)]
    assert shown == sorted(shown) and len(shown) == 24
    choose(page, "sort", "changed")
    changes = [abs(scores[image_id][1]["iou"] - scores[image_id][0]["iou"]) for image_id in ids(page)]
    assert changes == sorted(changes, reverse=True)
    choose(page, "filter", "2")
    assert ids(page) == [image_id for image_id in ids(page) if 2 in scores[image_id][0]["labels"]] != []
    choose(page, "filter", "")
    wanted = next(iter(scores))
    page.find_element(By.ID, "find").send_keys(wanted)
    assert ids(page) == [wanted]


def test_tables_are_sorted_and_colours_are_explained(page: Any) -> None:
    def column(number: int) -> list[str]:
        cells = page.find_elements(By.CSS_SELECTOR, f"#class-table td:nth-child({number})")
        return [own.text for own in cells]

    heading = next(own for own in page.find_elements(By.CSS_SELECTOR, "#class-table .sort") if own.text == "precision")
    for direction in (-1, 1):
        page.execute_script("arguments[0].click()", heading)
        values = [float(text.split()[0]) for text in column(4) if text[0].isdigit()]
        assert values == sorted(values, key=lambda value: direction * value) and len(values) > 3
    page.execute_script("arguments[0].click()", page.find_element(By.CSS_SELECTOR, "#class-table .sort"))
    assert column(1) == sorted(column(1))
    for view, words in (("errors:0", "missed"), ("cam:0", "CAM: 0"), ("image", "")):
        choose(page, "view", view)
        assert words in page.find_element(By.ID, "key").text
    assert not page.find_element(By.ID, "key").text


def test_keyboard_viewer_and_deep_link(page: Any, folder: Path) -> None:
    first, second = ids(page)[:2]
    page.find_element(By.CSS_SELECTOR, "#grid .card").send_keys(Keys.ENTER)
    viewer = page.find_element(By.ID, "viewer")
    _wait(lambda: viewer.is_displayed() and first in viewer.text)
    titles = [own.text for own in viewer.find_elements(By.TAG_NAME, "figcaption")]
    assert "true mask" in titles and any("two" in title for title in titles)
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.ARROW_RIGHT)
    _wait(lambda: second in viewer.text)
    assert page.current_url.endswith(f"#image={second}")
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    _wait(lambda: not viewer.is_displayed())
    before = page.execute_script("return report.state.threshold")
    page.find_element(By.TAG_NAME, "body").send_keys("+")
    assert page.execute_script("return report.state.threshold") == before + 1

    page.get("about:blank")
    page.get((folder / "experiment/one/report.html").as_uri() + f"#image={second}")
    _wait(lambda: second in page.find_element(By.ID, "viewer").text)
    screenshot(page, "viewer")


def _wait(condition: Any, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_printing_draws_all_images(page: Any) -> None:
    """Also those far from the window, which are let go afterwards."""
    count = "document.querySelectorAll('#grid .photo').length"
    page.execute_script(
        f"window.print = () => {{ window.printed = {count}; }}; document.getElementById('print').click()"
    )
    _wait(lambda: page.execute_script("return window.printed") == 24)
    _wait(lambda: page.execute_script(f"return {count}") < 24)
    size = {"width": 700, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    page.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert not page.find_element(By.ID, "tools").is_displayed()
    assert "seed at the threshold of one; threshold 0." in page.find_element(By.ID, "shown").text
    screenshot(page, "print")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_is_asked_for_and_nothing_goes_wrong(page: Any) -> None:
    """No request leaves the file, no message is in the console; wide, narrow, dark and printed."""
    page.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    time.sleep(0.5)
    for width, name in ((1300, "wide"), (400, "narrow")):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)  # a window is never as narrow as a phone
        page.execute_script("window.scrollTo(0, 0)")
        assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth + 1")
        time.sleep(0.3)  # images come into sight with the next frames
        screenshot(page, name)
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.find_element(By.ID, "theme").click()
    screenshot(page, "dark")
    assert page.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    requests = [entry["params"]["request"] for entry in messages if entry["method"] == "Network.requestWillBeSent"]
    assert requests and all(own["url"].startswith(("file:", "data:", "blob:", "about:")) for own in requests)


def test_markup_in_names_is_text(browser: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class names and ids are shown, not run."""
    html = (folder / "experiment/one/report.html").read_bytes()
    evil = b"\\u003cimg src=x onerror=window.hurt=1>"
    page = folder / "evil.html"
    page.write_bytes(html.replace(b'"ball"', b'"' + evil + b'"'))
    browser.get(page.as_uri())
    assert browser.execute_script("return window.hurt") is None
    assert "<img src=x" in browser.find_element(By.ID, "legend").text


@pytest.mark.parametrize(("images", "classes"), [(0, 6), (1, 80)])
def test_few_images_and_many_classes(browser: Any, folder: Path, images: int, classes: int) -> None:
    """A page without images, or with one, and with COCO's number of classes, opens without an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        source = ScoredRun("one")
        shown = report_page.chosen(source, images)
        data = report_page.with_pictures(report_page.content([source], shown, {}), report_page.Images([source]))
    run = data["runs"][0]
    data["labels"] += [f"class {number}" for number in range(7, classes + 1)]
    run["classes"] += [{**run["classes"][-1], "name": name} for name in data["labels"][7:]]
    path = folder / f"page_{images}.html"
    path.write_bytes(report_page.page(data))
    browser.get(path.as_uri())
    assert len(ids(browser)) == images
    assert len(browser.find_elements(By.CSS_SELECTOR, "#legend label")) == len(data["labels"])
    assert browser.get_log("browser") == []


def test_training_pictures_published_curves_and_matrices(
    browser: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A history's slider changes its picture, published curves are dashed, the squares are filled when opened."""
    monkeypatch.chdir(folder)
    history = folder / "experiment/two/importance"
    history.mkdir()
    for epoch in (2, 5):
        Image.new("RGB", (60, 30), (100 * epoch // 3, 0, 0)).save(history / f"{epoch:03d}.png")
    Path("curve.csv").write_text("iteration,total\n1,0.6\n2,0.3\n9,0.2\n", encoding="utf-8")
    assert call(monkeypatch, "report", "--name", "two", "--images", "2", "--reference", "curve.csv") == 0
    browser.get((folder / "experiment/two/report.html").as_uri())
    picture = browser.find_element(By.CSS_SELECTOR, ".history img")
    before = picture.get_attribute("src")
    browser.find_element(By.CSS_SELECTOR, ".history input").send_keys(Keys.ARROW_LEFT)
    assert picture.get_attribute("src") != before
    assert "after epoch 2 (1 of 2)" in browser.find_element(By.CLASS_NAME, "history").text
    (dashed,) = browser.find_elements(By.CSS_SELECTOR, "polyline.published")
    assert len(dashed.get_attribute("points").split()) == 2  # as far as the run goes
    data = browser.execute_script("return report.data.runs[0]")
    for square, name in zip(browser.find_elements(By.CLASS_NAME, "matrix"), ("confusion", "together"), strict=True):
        square.find_element(By.TAG_NAME, "summary").click()
        _wait(lambda square=square: square.find_elements(By.TAG_NAME, "td"))
        title = square.find_elements(By.TAG_NAME, "td")[7 * 3 + 1].get_attribute("title")
        row = data[name][3]
        share = 100 * row[1] / (sum(row) if name == "confusion" else row[3])
        assert f"{share:.1f} %" in title
    assert browser.get_log("browser") == []


def test_boxes_follow_the_slider(browser: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawn box is the evaluation's at every threshold; sorting, outcomes, two runs, the enlarged image."""
    monkeypatch.chdir(folder)
    assert call(monkeypatch, "make_cub_shapes", "--root", "birds", "--train", 1, "--test", 18, "--size", 120) == 0
    located_run(Path("birds"), "boxes")
    assert call(monkeypatch, "report", "--name", "boxes", "--against", "boxes:eval_wsol:best") == 0
    own = BoxFile.read(boxes_path(RunFolder("boxes").path, "last"))
    browser.get((folder / "experiment/boxes/report.html").as_uri())
    _wait(lambda: browser.find_elements(By.CSS_SELECTOR, ".card rect.found"))
    browser.execute_script("document.getElementById('grid').scrollIntoView()")  # cards out of sight are drawn later
    row = own.ids.tolist().index(ids(browser)[0])
    for index in (0, 10, 37, 80, 99):
        browser.execute_script("report.setThreshold(arguments[0])", index)
        _wait(lambda index=index: _corners(browser) == own.boxes[row, index].tolist())
        assert f"IoU {100 * own.ious[row, index]:.1f}" in browser.find_element(By.CSS_SELECTOR, ".card p").text
        inside = browser.execute_script(
            "return Array.from(report.images[0].runs[0].numbers, (number) => number > arguments[0])", index
        )
        grey = own.grey(row)
        assert (np.array(inside).reshape(grey.shape) == (grey > int(index / 100 * int(grey.max())))).all()
    choose(browser, "sort", "worst")
    order = np.argsort([round(100 * float(iou), 2) for iou in own.known_ious], kind="stable")
    assert ids(browser) == own.ids[order].tolist()
    choose(browser, "filter", "class")
    assert sorted(ids(browser)) == sorted(own.ids[own.outcomes == "class"].tolist()) != []
    browser.find_element(By.CSS_SELECTOR, "#grid .card").send_keys(Keys.ENTER)
    _wait(lambda: len(browser.find_elements(By.CSS_SELECTOR, "#viewer figure")) >= 5)
    assert any("first class" in own.text for own in browser.find_elements(By.TAG_NAME, "figcaption"))
    screenshot(browser, "boxes")
    assert browser.get_log("browser") == []


def test_served_pictures_are_the_same(browser: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of images that the server sends; nothing is asked of any other address; a lost image is named."""
    monkeypatch.chdir(folder)
    source = ScoredRun("one")
    images = report_page.Images([source])
    with ReportServer(report_page.content([source], source.ids, {}), images, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.get_log("performance")
        browser.get(server.address)
        for image in (0, 23):
            seed = read_seed(folder / f"experiment/one/dict/{source.ids[image]}.npy")
            for index in (10, 40, 80):
                labels = labels_at(browser, image, 0, index)
                threshold = browser.execute_script("return report.data.thresholds[arguments[0]]", index)
                assert (labels == seed_labels(seed, threshold, labels.shape)).all()
        messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        requests = [own["params"]["request"]["url"] for own in messages if own["method"] == "Network.requestWillBeSent"]
        assert f"{server.address}image/23" in requests
        assert all(url.startswith((server.address, "data:", "blob:", "about:")) for url in requests)
        assert browser.get_log("browser") == []
        lost = folder / f"experiment/one/dict/{source.ids[2]}.npy"
        lost.rename(lost.with_suffix(".away"))
        browser.get(server.address)
        browser.execute_script("document.getElementById('grid').scrollIntoView()")
        warning = "document.querySelectorAll('.card')[2].querySelector('.warn')?.textContent || ''"
        _wait(lambda: "missing" in browser.execute_script(f"return {warning}"))
        lost.with_suffix(".away").rename(lost)
        browser.get("about:blank")  # asks for nothing more when the server has gone
        browser.get_log("browser")
        server.shutdown()


def _corners(browser: Any) -> list[int]:
    """The found box of the first card."""
    x, y, width, height = browser.execute_script(
        """const rect = document.querySelector('.card rect.found-0');
        return ['x', 'y', 'width', 'height'].map((name) => Number(rect.getAttribute(name)));"""
    )
    return [x, y, x + width, y + height]


def _photographs(folder: Path, count: int) -> None:
    """Fills ``large/`` with generated images of about 375 x 500 pixels, and scores seeds of them in run ``large``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = "--train", 1, "--val", count, "--size", 445, "--workers", 2
        assert call(patch, "make_shapes", "--root", "large", *arguments) == 0
        scored_run(Path("large"), "large")
        assert call(patch, "report", "--name", "large") == 0


def test_size_and_speed(browser: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """100 images with CAMs: at most 6 MB. Times are printed: to open; of a frame, as 24 images follow the slider.

    The page's thread takes the same time for a frame on a busy machine; the clock counts on a quiet one.
    """
    _photographs(folder, 100)
    path = folder / "experiment/large/report.html"
    size = path.stat().st_size / 1e6
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 1500, "height": 1250, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.get(path.as_uri())
    opened = browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    browser.execute_script("document.getElementById('grid').scrollIntoView()")
    _wait(lambda: browser.execute_script("return report.images.filter((image) => image.ready).length") >= 24)
    visible = browser.execute_script(
        """return [...document.querySelectorAll('.card')].filter((own) => {
            const box = own.getBoundingClientRect();
            return box.bottom > 0 && box.top < innerHeight;
        }).length"""
    )
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    before = _seconds(browser)
    clock = browser.execute_async_script(
        """const [count, done] = arguments, start = performance.now();
        let frames = 0;
        (function next() {
            report.setThreshold(frames % 90);
            if (++frames < count) requestAnimationFrame(next); else done((performance.now() - start) / count);
        })();""",
        90,
    )  # fmt: skip
    frame = 1000 * (_seconds(browser) - before) / 90
    browser.execute_cdp_cmd("Performance.disable", {})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    with capsys.disabled():
        print(
            f"\nreport of 100 images: {size:.1f} MB, opened in {opened:.0f} ms; {visible} in sight: "
            f"the slider at {1000 / frame:.0f} frames/s by the page's thread ({frame:.1f} ms each), "
            f"{1000 / clock:.0f} by the clock"
        )
    assert size <= 6 and visible >= 24


def _seconds(browser: Any) -> float:
    """Seconds that the page's thread has worked."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return {own["name"]: own["value"] for own in metrics}["TaskDuration"]


def test_decoded_images_are_bounded(browser: Any, folder: Path) -> None:
    """Images that were looked at long ago are let go, and come back when they are in sight again."""
    if not (folder / "experiment/large").is_dir():
        _photographs(folder, 100)
    html = (folder / "experiment/large/report.html").read_bytes()
    path = folder / "bounded.html"
    assert b"const KEPT = 60;" in html
    path.write_bytes(html.replace(b"const KEPT = 60;", b"const KEPT = 30;"))
    browser.get(path.as_uri())
    for index in range(0, 100, 5):
        browser.execute_script("document.querySelectorAll('.card')[arguments[0]].scrollIntoView()", index)
        _wait(lambda index=index: browser.execute_script("return report.images[arguments[0]].ready", index))
    assert 10 <= browser.execute_script("return report.images.filter((image) => image.ready).length") <= 60
    assert not browser.execute_script("return report.images[0].ready")
    pictures, cards, height = browser.execute_script(
        """const count = (query) => document.querySelectorAll(query).length;
        return [count('#grid .photo'), count('#grid .card'), document.documentElement.scrollHeight];"""
    )
    assert 5 <= pictures <= 60 and cards == 100
    browser.execute_script("window.scrollTo(0, 0)")
    _wait(lambda: browser.execute_script("return report.images[0].ready"))
    assert abs(browser.execute_script("return document.documentElement.scrollHeight") - height) < 300
    assert browser.get_log("browser") == []
