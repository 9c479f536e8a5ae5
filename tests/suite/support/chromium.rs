//! Pages in a browser: Chromium or Chrome without a window, driven through the pipe of its DevTools
//! protocol (<https://chromedevtools.github.io/devtools-protocol/>).
//!
//! `CSAE_BROWSER` is `require` (a missing browser fails the test), `auto` (it skips the test with a
//! message) or `off`. `CSAE_SCREENSHOTS` names a folder for pictures of all pages.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{TempFolder, skip};

/// Names of the program.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// Flags of the browser: no window, no network of its own, and nothing of the user's profile. The
/// sandbox does not start in containers, and the pages are those of this program. WebGPU runs on
/// the browser's own software adapter.
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];
/// Widths of a screen and of a telephone.
const WIDTHS: [u32; 2] = [1280, 400];
/// Minimum height of a line of a chart's text in CSS pixels.
const MIN_TEXT: f64 = 9.0;
/// Time after which an answer will not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Finds faults of a page: content wider than the window, illegible text in charts, colours that
/// do not follow the theme, links without a target, broken images.
const LOOK: &str = "(() => {
    document.querySelectorAll('details').forEach((each) => { each.open = true; });
    for (const each of document.querySelectorAll('.unit')) each.style.contentVisibility = 'visible';
    const found = [];
    const { scrollWidth } = document.scrollingElement;
    if (scrollWidth > window.innerWidth) {
        const wide = [...document.body.querySelectorAll('*')].filter((each) =>
            each.getBoundingClientRect().right > window.innerWidth + 1);
        const names = wide.slice(0, 4).map((each) => `${each.tagName}.${each.className}`);
        found.push(`overflow: ${scrollWidth} pixels, ${names.join(' ')}`);
    }
    const small = [...document.querySelectorAll('svg text')].filter((each) =>
        each.textContent !== '' && each.getBoundingClientRect().height < MIN_TEXT);
    if (small.length > 0) found.push(`small text: ${small[0].textContent}`);
    const [red] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    if ((red < 128) !== dark) found.push(`theme: background ${red} although dark is ${dark}`);
    for (const link of document.querySelectorAll('nav a')) {
        if (document.querySelector(link.getAttribute('href')) === null) {
            found.push(`link: ${link.getAttribute('href')} leads nowhere`);
        }
    }
    for (const image of document.images) {
        if (image.loading !== 'lazy' && image.naturalWidth === 0) found.push(`image: ${image.alt}`);
    }
    return found;
})()";

/// One browser at a time: its processes take every core.
static ONE: Mutex<()> = Mutex::new(());

/// A browser.
pub struct Browser {
    process: Child,
    pipe: ChildStdin,
    messages: Receiver<Value>,
    /// Messages that are not answers.
    events: Vec<Value>,
    /// Number of the last command.
    last: u64,
    session: Option<String>,
    /// How often the browser looks whether a page is complete, 20 times a second.
    pub looks: u32,
    _profile: TempFolder,
    _turn: MutexGuard<'static, ()>,
}

/// The browser on the path of programs.
fn program() -> Option<std::path::PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&folders).collect();
    let paths = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    paths.into_iter().find(|path| path.is_file())
}

impl Browser {
    /// Starts a browser. `None` if the test is to be skipped.
    pub fn open() -> Option<Self> {
        let wanted = std::env::var("CSAE_BROWSER").unwrap_or_else(|_| "auto".to_owned());
        assert!(
            ["auto", "require", "off"].contains(&wanted.as_str()),
            "CSAE_BROWSER={wanted}: must be require, auto or off"
        );
        if wanted == "off" {
            skip("CSAE_BROWSER=off");
            return None;
        }
        let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(program) = program() else {
            let none = format!("no browser: none of {} is on the PATH", NAMES.join(", "));
            assert_ne!(wanted, "require", "CSAE_BROWSER=require: {none}");
            skip(&none);
            return None;
        };
        let mut browser = Self::start(&program, turn);
        let answer = browser.command("Target.createTarget", json!({"url": "about:blank"}));
        let target = json!({"targetId": answer["targetId"], "flatten": true});
        let answer = browser.command("Target.attachToTarget", target);
        browser.session = answer["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.command(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    fn start(program: &Path, turn: MutexGuard<'static, ()>) -> Self {
        let profile = TempFolder::new("browser");
        // The browser reads commands from descriptor 3 and writes to descriptor 4.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null"])
            .arg(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.root().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser starts");
        let pipe = process.stdin.take().expect("its input is a pipe");
        let mut output = BufReader::new(process.stdout.take().expect("its output is a pipe"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            // Messages end with a zero byte.
            while output.read_until(0, &mut message).is_ok_and(|count| count > 0) {
                message.pop();
                if let Ok(value) = serde_json::from_slice(&message)
                    && sender.send(value).is_err()
                {
                    return;
                }
                message.clear();
            }
        });
        Self {
            process,
            pipe,
            messages,
            events: Vec::new(),
            last: 0,
            session: None,
            looks: 600,
            _profile: profile,
            _turn: turn,
        }
    }

    fn next(&self) -> Value {
        self.messages.recv_timeout(PATIENCE).expect("the browser answers")
    }

    /// Runs a command and returns its result.
    fn command(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.pipe.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let answer = self.next();
            if answer["id"] == self.last {
                assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// Takes WebGPU away from pages that are opened from now on.
    pub fn remove_webgpu(&mut self) {
        let source = "Object.defineProperty(navigator, 'gpu', { value: undefined })";
        self.command("Page.addScriptToEvaluateOnNewDocument", json!({ "source": source }));
    }

    /// Opens a page and waits until it is loaded.
    pub fn open_page(&mut self, url: &str) {
        self.command("Page.navigate", json!({"url": "about:blank"}));
        self.events.clear();
        let answer = self.command("Page.navigate", json!({"url": url}));
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.next();
            self.events.push(event);
        }
    }

    /// Waits until the expression `ready` is true in the page. Returns whether it becomes true.
    pub fn is_complete(&mut self, ready: &str) -> bool {
        let looks = self.looks;
        // Timers run in the order of their time, so that those of the page come before the last.
        let wait = format!(
            "new Promise((resolve) => {{ let left = {looks}; const look = () => {{ \
             if (({ready}) || (left -= 1) < 0) setTimeout(() => resolve(left >= 0), 0); \
             else setTimeout(look, 50); \
             }}; look(); }})"
        );
        self.value(&wait) == true
    }

    /// The value of an expression in the page. A promise is waited for.
    pub fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.command("Runtime.evaluate", params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Everything that is wrong with a page, in each width and each theme. The page is complete
    /// when the expression `ready` is true. `name` is the name of its screenshots.
    pub fn faults(&mut self, name: &str, url: &str, ready: &str) -> Vec<String> {
        self.looks_of(name, |browser| {
            browser.open_page(url);
            browser.is_complete(ready)
        })
    }

    /// As [`Browser::faults`], of the page that is open. It is not loaded again.
    pub fn faults_of_open_page(&mut self, name: &str) -> Vec<String> {
        self.looks_of(name, |_| true)
    }

    /// Opens a page by `open`, which returns whether it is complete, for each width and each theme.
    /// Returns its faults.
    fn looks_of(&mut self, name: &str, mut open: impl FnMut(&mut Self) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        for width in WIDTHS {
            for theme in ["light", "dark"] {
                let size =
                    json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
                self.command("Emulation.setDeviceMetricsOverride", size);
                let value = json!([{"name": "prefers-color-scheme", "value": theme}]);
                self.command("Emulation.setEmulatedMedia", json!({ "features": value }));
                let complete = open(self);
                let look = LOOK.replace("MIN_TEXT", &MIN_TEXT.to_string());
                let mut faults: Vec<String> = serde_json::from_value(self.value(&look)).unwrap();
                if !complete {
                    faults.push("incomplete".to_owned());
                }
                faults.extend(self.events.iter().filter_map(error));
                found.extend(faults.into_iter().map(|fault| format!("{width} {theme}: {fault}")));
                self.screenshot(&format!("{name}-{width}-{theme}.png"));
            }
        }
        found
    }

    /// Writes a picture of the page, if `CSAE_SCREENSHOTS` names a folder.
    fn screenshot(&mut self, file: &str) {
        let Some(folder) = std::env::var_os("CSAE_SCREENSHOTS") else { return };
        let params = json!({"captureBeyondViewport": true});
        let answer = self.command("Page.captureScreenshot", params);
        let png = STANDARD.decode(answer["data"].as_str().unwrap()).unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(Path::new(&folder).join(file), png).unwrap();
    }
}

/// The error that an event reports, if it does.
fn error(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => {
            let exception = &params["exceptionDetails"]["exception"];
            Some(format!("exception: {}", exception["description"]))
        }
        "Runtime.consoleAPICalled" if ["error", "assert"].contains(&params["type"].as_str()?) => {
            Some(format!("console: {}", params["args"]))
        }
        "Log.entryAdded" if params["entry"]["level"] == "error" => {
            Some(format!("console: {}", params["entry"]["text"]))
        }
        _ => None,
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its other processes end before it, and write nothing more into the profile.
        let _ = self.pipe.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        for _ in 0..100 {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
