//! Headless Chromium, driven by tests/browser/*.mjs.

use crate::network::Network;
use crate::process::run;
use crate::testbed;

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
