//! Headless Chromium, driven by tests/browser/*.mjs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::network::Network;
use crate::process::run;
use crate::testbed;

/// A browser with one page, which ends with the value.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    steps: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Browser {
    /// With an empty profile.
    ///
    /// # Panics
    /// If it can't be started.
    #[track_caller]
    #[must_use]
    pub fn start(network: &impl Network) -> Self {
        let driver = testbed::part("browser/steps.mjs", "browser.sh");
        let mut node = network.command("node".as_ref());
        let mut child = node
            .arg(driver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the driver can be started");
        let answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Self { steps: child.stdin.take(), child, answers }
    }

    /// Opens a page.
    ///
    /// # Panics
    /// If nothing is there.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        self.step(&json!({ "goto": url }));
    }

    /// Waits until what `selector` names is shown and has `text`: all of its text.
    ///
    /// # Panics
    /// If that does not happen.
    #[track_caller]
    pub fn text(&mut self, selector: &str, text: &str) -> String {
        let shown = self.step(&json!({ "text": selector, "has": text }));
        shown.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until what `selector` names is no longer there.
    ///
    /// # Panics
    /// If it stays.
    #[track_caller]
    pub fn gone(&mut self, selector: &str) {
        self.step(&json!({ "gone": selector }));
    }

    /// The value of an expression in the page.
    ///
    /// # Panics
    /// If it throws.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        self.step(&json!({ "evaluate": expression }))
    }

    #[track_caller]
    fn step(&mut self, step: &Value) -> Value {
        let steps = self.steps.as_mut().expect("it has not ended");
        writeln!(steps, "{step}").and_then(|()| steps.flush()).expect("the driver listens");
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).expect("the driver answers");
        assert!(read > 0, "the driver ended at {step}");
        let answer: Value = serde_json::from_str(&line).expect("the driver answers by JSON");
        assert!(answer["error"].is_null(), "{step}: {}", answer["error"].as_str().unwrap_or_default());
        answer["ok"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It closes the browser and ends.
        self.steps = None;
        let _ = self.child.wait();
    }
}

/// Opens a notebook of the JupyterLite site at `url`, runs its first `cells`
/// cells, and says what each answered.
///
/// # Panics
/// If one gives no answer.
#[track_caller]
pub fn run_notebook(network: &impl Network, url: &str, notebook: &str, cells: usize) -> Vec<String> {
    let driver = testbed::part("browser", "browser.sh").join("notebook.mjs");
    let mut node = network.command("node".as_ref());
    let answers = run(node.arg(driver).args([url, notebook, &cells.to_string()])).output();
    serde_json::from_str(&answers).expect("the driver prints JSON")
}
