//! A real browser with the server's page in it: Chromium, driven through its driver by WebDriver.
//!
//! The calls block, as those of the other clients do. What a page complains of in its console fails
//! the test, as a line of level ERROR in the server's log does.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use fantoccini::{
    Client, ClientBuilder, Locator,
    elements::Element,
    error::CmdError,
    key::Key,
    wd::{Capabilities, WebDriverCompatibleCommand},
};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use url::{ParseError, Url};

/// How long a test waits for what a page must show. A browser takes its time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the driver and a browser may take to go.
const FAREWELL: Duration = Duration::from_secs(10);

/// The program that drives Chromium; Debian's package chromium-driver brings both.
const DRIVER: &str = "chromedriver";

/// How often the driver is started until it finds a port.
const STARTS: usize = 20;

/// A test that cannot be, since there is no driver.
fn absent() {
    const REMEDY: &str = "apt-get install chromium chromium-driver";
    let required = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!required, "no {DRIVER}: {REMEDY}");
    let test = std::thread::current();
    let name = test.name().unwrap_or("a test").to_owned();
    // Past the capture of a test's output: somebody should see it.
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: no {DRIVER}; {REMEDY}");
}

/// The driver, which lives as long as this value.
pub struct Driver {
    url: String,
    child: Child,
}

impl Driver {
    /// Starts it on a free port. Where there is none, the test cannot be: under `CI=true` it fails,
    /// elsewhere it says so and gets nothing.
    pub fn start() -> Option<Self> {
        for _ in 0..STARTS {
            match Self::try_start() {
                Ok(Some(driver)) => return Some(driver),
                // It wants the same port of IPv4 and IPv6, and has found only the one free.
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    absent();
                    return None;
                }
                Err(error) => panic!("{DRIVER}: {error}"),
            }
        }
        panic!("{DRIVER} does not start");
    }

    /// Nothing where it ends at once.
    fn try_start() -> std::io::Result<Option<Self>> {
        let mut child = Command::new(DRIVER)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        let Some(port) = port else {
            child.wait()?;
            return Ok(None);
        };
        // It must always find a reader.
        std::thread::spawn(move || for _ in lines.map_while(Result::ok) {});
        let url = format!("http://127.0.0.1:{port}");
        Ok(Some(Self { url, child }))
    }

    /// A browser with one empty window, of the size of a small laptop.
    pub fn browser(&self) -> Page {
        self.browser_with(&["--window-size=1280,800"], json!({}))
    }

    /// The same with these arguments and preferences of its own. It has a camera, a picture of which
    /// any page may have.
    pub fn browser_with(&self, arguments: &[&str], preferences: Value) -> Page {
        let camera = [
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
        ];
        Page::open(&self.url, &[&camera, arguments].concat(), preferences)
    }

    /// One whose user lets no page have the camera.
    pub fn browser_without_camera(&self) -> Page {
        let refused = json!({
            "profile.default_content_setting_values.media_stream_camera": 2,
            "profile.default_content_setting_values.media_stream_mic": 2,
        });
        Page::open(&self.url, &["--use-fake-device-for-media-stream"], refused)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Its browsers have ended with their pages.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the driver is asked beyond the standard, and what of the standard fantoccini has no words
/// for. `path` comes behind the session's.
#[derive(Debug)]
struct Ask {
    path: String,
    body: Option<Value>,
}

impl WebDriverCompatibleCommand for Ask {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!(
            "session/{}/{}",
            session.unwrap_or_default(),
            self.path
        ))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        match &self.body {
            Some(body) => (Method::POST, Some(body.to_string())),
            None => (Method::GET, None),
        }
    }
}

/// A browser window. It ends with this value.
pub struct Page {
    runtime: Runtime,
    client: Client,
    profile: PathBuf,
    /// The browser's process.
    process: Option<u64>,
    losses_expected: bool,
}

impl Page {
    fn open(driver: &str, more: &[&str], preferences: Value) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let profile = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "chromium-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&profile).unwrap();
        let profile_argument = format!("--user-data-dir={}", profile.display());
        let mut arguments = vec![
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            // A container's shared memory is small.
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--lang=en-US",
            &profile_argument,
        ];
        arguments.extend(more);
        let capabilities = json!({
            "goog:chromeOptions": {"args": arguments, "prefs": preferences},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let Value::Object(capabilities) = capabilities else {
            unreachable!()
        };
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime
            .block_on(
                ClientBuilder::new(HttpConnector::new())
                    .capabilities(Capabilities::from_iter(capabilities))
                    .connect(driver),
            )
            .expect("a browser");
        let granted = client.capabilities();
        let process = granted.and_then(|granted| granted.get("goog:processID")?.as_u64());
        Self {
            runtime,
            client,
            profile,
            process,
            losses_expected: false,
        }
    }

    /// The browser's console tells of every connection that fails: in this test some must.
    pub fn expect_losses(&mut self) {
        self.losses_expected = true;
    }

    fn run<T>(&self, what: impl Future<Output = Result<T, CmdError>>) -> T {
        self.runtime.block_on(what).unwrap_or_else(|error| {
            panic!("the browser does not do that: {error}{}", self.picture())
        })
    }

    // ----- what a user does -----

    pub fn go(&self, url: &str) {
        self.run(self.client.goto(url));
    }

    /// Goes back in the window's history.
    pub fn back(&self) {
        self.run(self.client.back());
    }

    /// Closes the tab; the browser goes on with another one.
    pub fn close_tab(&self) {
        let tab = self.run(self.client.window());
        let other = self.run(self.client.new_window(true)).handle;
        self.run(self.client.switch_to_window(tab));
        self.run(self.client.close_window());
        self.run(self.client.switch_to_window(other));
    }

    /// Opens the page of the server at `addr` and joins the room that raw clients of these tests
    /// join (`app` "test").
    pub fn join(&self, addr: std::net::SocketAddr, channel: &str, endpoint: &str) {
        self.go(&format!(
            "http://{addr}/?app=test&channel={channel}&endpoint={endpoint}"
        ));
        self.click("#enter");
        self.until_joined();
    }

    pub fn click(&self, css: &str) {
        let element = self.find(css);
        self.run(element.click());
    }

    /// Types into a field, behind what is there.
    pub fn write(&self, css: &str, text: &str) {
        let element = self.find(css);
        self.run(element.send_keys(text));
    }

    /// Puts this into a field instead of what is there.
    pub fn fill(&self, css: &str, text: &str) {
        let element = self.find(css);
        self.run(element.clear());
        self.run(element.send_keys(text));
    }

    /// Chooses an option of a select by its value.
    pub fn choose(&self, css: &str, value: &str) {
        let element = self.find(css);
        self.run(element.select_by_value(value));
    }

    /// Says something in the chat.
    pub fn say(&self, text: &str) {
        self.write("#text", &format!("{text}{}", char::from(Key::Enter)));
    }

    /// Types with whatever has the focus.
    pub fn type_keys(&self, text: &str) {
        let active = self.run(self.client.active_element());
        self.run(active.send_keys(text));
    }

    /// Presses a key with whatever has the focus.
    pub fn press(&self, key: Key) {
        self.type_keys(&String::from(char::from(key)));
    }

    /// The network is there for the browser, or not.
    pub fn offline(&self, offline: bool) {
        let conditions = json!({"offline": offline, "latency": 0, "throughput": -1});
        self.ask(
            "chromium/network_conditions",
            Some(json!({"network_conditions": conditions})),
        );
    }

    /// The page has this width, as on a phone.
    pub fn narrow(&self, width: u32) {
        let metrics =
            json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500});
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.ask("goog/cdp/execute", Some(command));
    }

    // ----- what a user sees -----

    fn find(&self, css: &str) -> Element {
        self.run(self.client.find(Locator::Css(css)))
    }

    /// The value of this JavaScript expression in the page.
    pub fn js(&self, expression: &str) -> Value {
        self.run(
            self.client
                .execute(&format!("return ({expression});"), vec![]),
        )
    }

    /// The same of a function's body that may wait.
    pub fn js_async(&self, body: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; (async () => {{ {body} }})().then(done, (e) => \
             done(String(e)));"
        );
        self.run(self.client.execute_async(&script, vec![]))
    }

    /// Waits until this JavaScript expression is true.
    pub fn until(&self, expression: &str) {
        let begun = Instant::now();
        while self.js(&format!("Boolean({expression})")) != true {
            assert!(
                begun.elapsed() < PATIENCE,
                "it does not come to {expression}{}",
                self.picture()
            );
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    pub fn until_joined(&self) {
        self.until(
            "document.body.dataset.state === 'joined' && !document.getElementById('inside').hidden",
        );
    }

    pub fn until_state(&self, state: &str) {
        self.until(&format!("document.body.dataset.state === '{state}'"));
    }

    /// Waits until somebody has said exactly this, in this order, and nobody anything else; one's
    /// own words stand there when they have arrived.
    pub fn until_said(&self, texts: &[&str]) {
        let said = "[...document.querySelectorAll('#chat .said:not(.pending) .text')].map((text) => \
                    text.textContent)";
        self.until(&format!("JSON.stringify({said}) === {}", quoted(texts)));
    }

    /// Waits until the list of members has exactly these, in this order.
    pub fn until_members(&self, names: &[&str]) {
        let there =
            "[...document.querySelectorAll('#members li')].map((row) => row.dataset.endpoint)";
        self.until(&format!("JSON.stringify({there}) === {}", quoted(names)));
    }

    /// What is visible of an element.
    pub fn text(&self, css: &str) -> String {
        let element = self.find(css);
        self.run(element.text())
    }

    /// A field's value.
    pub fn value(&self, css: &str) -> String {
        let value = self.js(&format!("document.querySelector({}).value", json!(css)));
        value.as_str().unwrap().to_owned()
    }

    /// What a screen reader calls each of the elements of a selector that are there to be seen, and
    /// as what, beside their HTML.
    pub fn spoken(&self, css: &str) -> Vec<Spoken> {
        let elements = self.run(self.client.find_all(Locator::Css(css)));
        let shown = elements.iter().filter(|element| {
            let check = "const box = arguments[0].getClientRects(); return box.length > 0;";
            let element = serde_json::to_value(element).unwrap();
            self.run(self.client.execute(check, vec![element])) == true
        });
        shown
            .map(|element| {
                let id = element.element_id();
                let of = |what: &str| {
                    let value = self.ask(&format!("element/{}/{what}", id.as_ref()), None);
                    value.as_str().unwrap().to_owned()
                };
                Spoken {
                    label: of("computedlabel"),
                    role: of("computedrole"),
                    html: self.run(element.html(false)),
                }
            })
            .collect()
    }

    /// What the page's console complains of.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.ask("se/log", Some(json!({"type": "browser"})));
        let entries = entries.as_array().expect("a list").iter();
        entries
            .filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING")
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            .filter(|text| !(self.losses_expected && tells_of_a_loss(text)))
            .collect()
    }

    fn ask(&self, path: &str, body: Option<Value>) -> Value {
        let path = path.to_owned();
        self.run(self.client.issue_cmd(Ask { path, body }))
    }

    /// Where to see how it looked, for the words of a test that fails.
    fn picture(&self) -> String {
        let path = self.profile.with_extension("png");
        let text = "return document.body.innerText";
        let shot = self.runtime.block_on(self.client.screenshot());
        let text = self.runtime.block_on(self.client.execute(text, vec![]));
        let Some(text) = text.ok() else {
            return String::new();
        };
        match shot.map(|shot| fs::write(&path, shot)) {
            Ok(Ok(())) => format!("; see {}: {text}", path.display()),
            _ => format!(": {text}"),
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let complaints = if std::thread::panicking() {
            Vec::new()
        } else {
            self.complaints()
        };
        let farewell = async {
            tokio::time::timeout(FAREWELL, self.client.clone().close())
                .await
                .is_ok_and(|closed| closed.is_ok())
        };
        if !self.runtime.block_on(farewell)
            && let Some(process) = self.process
        {
            let _ = Command::new("kill").arg(process.to_string()).status();
        }
        let _ = fs::remove_dir_all(&self.profile);
        assert!(
            complaints.is_empty(),
            "complaints in the page's console: {complaints:#?}"
        );
    }
}

/// A WebSocket that does not come about, or the page's icon, which a browser asks for when it pleases.
fn tells_of_a_loss(complaint: &str) -> bool {
    let icon = complaint.contains("/icon.svg - Failed to load resource: net::ERR_");
    icon || complaint.contains("WebSocket connection to")
}

/// An element as a screen reader has it.
#[derive(Debug)]
pub struct Spoken {
    pub label: String,
    pub role: String,
    pub html: String,
}

/// As a JavaScript string that is a JSON list.
fn quoted(texts: &[&str]) -> String {
    Value::from(json!(texts).to_string()).to_string()
}
