//! Headless Chromium for the page tests: starts chromedriver on a free port, opens windows, waits for what they show.
//!
//! Where there is no chromedriver, a test says so loudly and counts as skipped; in CI it fails.

use std::env;
use std::future::Future;
use std::io::Write;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use fantoccini::wd::WindowHandle;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// Long enough for a machine with two busy cores; a page that works needs a hundredth of it.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Runs `test` with a browser of its own, which is closed also when the test fails.
pub(crate) async fn with_browser<T, F>(name: &str, test: T)
where
    T: FnOnce(Client) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let Some(program) = find("CHROMEDRIVER", &["chromedriver"]) else {
        let how = "chromedriver not found: apt-get install chromium chromium-driver";
        assert!(env::var_os("CI").is_none(), "{name}: {how}");
        // Straight to the terminal: the test runner would keep what a passing test prints.
        let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {how}");
        return;
    };
    let driver = Driver::start(&program).await;
    let profile = tempfile::tempdir().unwrap();
    let client = driver.open(profile.path()).await;

    let outcome = tokio::spawn(test(client.clone())).await;
    // It is the end of the session that ends Chromium: a chromedriver that is only killed leaves it running.
    client.close().await.unwrap();
    if let Err(failure) = outcome {
        resume_unwind(failure.into_panic());
    }
}

/// A running chromedriver, which ends with this value.
struct Driver {
    port: u16,
    _process: Child,
    /// Held, because chromedriver would end on a closed output.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Driver {
    async fn start(program: &Path) -> Driver {
        let mut process = Command::new(program)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut said = String::new();
        while let Some(line) = output.next_line().await.unwrap() {
            // "ChromeDriver was started successfully on port 41234."
            let port = line.strip_suffix('.').and_then(|line| line.rsplit_once(" on port "));
            if let Some(port) = port.and_then(|(_, port)| port.parse().ok()) {
                return Driver { port, _process: process, _output: output };
            }
            said.push_str(&line);
            said.push('\n');
        }
        panic!("{} ended without a port:\n{said}", program.display());
    }

    async fn open(&self, profile: &Path) -> Client {
        let mut options = json!({
            "args": [
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-quic",
                "--no-first-run",
                "--no-proxy-server",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--window-size=1100,760",
                format!("--user-data-dir={}", profile.display()),
            ],
        });
        if let Some(chromium) = find("CHROMIUM", &["chromium", "chromium-browser", "google-chrome"]) {
            options["binary"] = json!(chromium);
        }
        // Certificates of tests are signed by nobody whom a browser knows.
        let insecure = ("acceptInsecureCerts".to_owned(), json!(true));
        let capabilities = [("goog:chromeOptions".to_owned(), options), insecure].into_iter().collect();
        ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{}", self.port))
            .await
            .unwrap_or_else(|error| panic!("chromedriver opens no Chromium: {error}"))
    }
}

/// The program that a variable names, or the first of `names` in PATH.
fn find(variable: &str, names: &[&str]) -> Option<PathBuf> {
    if let Some(given) = env::var_os(variable) {
        return Some(given.into());
    }
    let path = env::var_os("PATH")?;
    names.iter().find_map(|name| env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()))
}

/// A window of the browser.
pub(crate) struct Page {
    client: Client,
    window: WindowHandle,
}

impl Page {
    /// Opens a window of its own: its session storage is shared with no other, its cookies are.
    pub(crate) async fn open(client: &Client, url: &str) -> Page {
        let window = client.new_window(false).await.unwrap().handle;
        let page = Page { client: client.clone(), window };
        page.look().await;
        client.goto(url).await.unwrap();
        page
    }

    pub(crate) async fn click(&self, css: &str) {
        self.look().await;
        let wait = self.client.wait().at_most(PATIENCE).every(LOOK_AGAIN);
        wait.for_element(Locator::Css(css)).await.unwrap().click().await.unwrap();
    }

    pub(crate) async fn write(&self, css: &str, text: &str) {
        self.look().await;
        let wait = self.client.wait().at_most(PATIENCE).every(LOOK_AGAIN);
        wait.for_element(Locator::Css(css)).await.unwrap().send_keys(text).await.unwrap();
    }

    pub(crate) async fn reload(&self) {
        self.look().await;
        self.client.refresh().await.unwrap();
    }

    pub(crate) async fn address(&self) -> String {
        self.look().await;
        self.client.current_url().await.unwrap().to_string()
    }

    /// The value of a JavaScript expression.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        self.look().await;
        self.client.execute(&format!("return {expression}"), Vec::new()).await.unwrap()
    }

    /// Waits until a JavaScript expression has this value.
    pub(crate) async fn until(&self, expression: &str, expected: Value) {
        let started = Instant::now();
        loop {
            let found = self.value(expression).await;
            if found == expected {
                return;
            }
            if started.elapsed() > PATIENCE {
                let shown = self.value("document.body.innerText").await;
                let shown = shown.as_str().unwrap_or_default();
                panic!("{expression} is {found}, not {expected}, after {PATIENCE:?}. The page shows:\n{shown}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// WebDriver acts on one window at a time.
    async fn look(&self) {
        self.client.switch_to_window(self.window.clone()).await.unwrap();
    }
}
