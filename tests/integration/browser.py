# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium inside a site of the lab, driven over its DevTools pipe: JSON messages that end with a zero
byte, written to its descriptor 3, read from its descriptor 4."""

import json
import os
import selectors
import shutil
import subprocess
import tempfile
import time

ANSWER_LIMIT_S = 60


class Browser:
    """with Browser(site) as browser: browser.open(url); browser.value("document.title")"""

    def __init__(self, site):
        self.site = site
        self.number = 0
        self.rest = b""
        self.said = []  # what pages wrote to their consoles, exceptions among it

    def __enter__(self):
        self.profile = tempfile.mkdtemp(prefix="ferry-browser-")
        to_browser, self.write_fd = os.pipe()
        self.read_fd, from_browser = os.pipe()
        argv = ["chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
                "--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={self.profile}", "about:blank"]
        shell = f"exec 3<&{to_browser} 4>&{from_browser}; exec \"$@\""
        self.child = subprocess.Popen(self.site.enter(["/bin/bash", "-c", shell, "bash", *argv]),
                                      pass_fds=(to_browser, from_browser), stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self.child.terminate()
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        os.close(self.write_fd)
        os.close(self.read_fd)
        shutil.rmtree(self.profile, ignore_errors=True)

    def _read(self, until_s):
        with selectors.DefaultSelector() as selector:
            selector.register(self.read_fd, selectors.EVENT_READ)
            while b"\0" not in self.rest:
                if not selector.select(max(until_s - time.monotonic(), 0)):
                    raise OSError("the browser does not answer")
                data = os.read(self.read_fd, 65536)
                if not data:
                    raise OSError("the browser ended")
                self.rest += data
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def _call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        os.write(self.write_fd, json.dumps(message).encode() + b"\0")
        until_s = time.monotonic() + ANSWER_LIMIT_S
        while True:
            answer = self._read(until_s)
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.said.append(answer["params"])
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise OSError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def open(self, url):
        result = self._call("Page.navigate", url=url)
        if "errorText" in result:
            raise OSError(f"{url}: {result['errorText']}")
        until_s = time.monotonic() + ANSWER_LIMIT_S
        while self.value("location.href + ' ' + document.readyState") != f"{url} complete":
            if time.monotonic() > until_s:
                raise OSError(f"{url} does not load")
            time.sleep(0.05)

    def value(self, expression):
        """What a JavaScript expression is worth in the page."""
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise OSError(f"{expression}: {result['exceptionDetails']['text']}")
        return result["result"].get("value")
