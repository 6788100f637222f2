//! Requests by curl, which can be run in any namespace.

use std::time::Duration;

use crate::network::Network;
use crate::process::{run, wait_for};

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
}

impl Response {
    /// A header's value; empty if there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// All values of a header, in order.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("expected JSON: {error}\n{}", self.body))
    }
}

/// Requests `url` with further arguments of curl.
///
/// # Panics
/// If there is no response.
#[track_caller]
pub fn request(network: &impl Network, arguments: &[&str], url: &str) -> Response {
    try_request(network, arguments, url).unwrap_or_else(|report| panic!("expected a response\n{report}"))
}

/// Requests `url`.
///
/// # Panics
/// If there is no response.
#[track_caller]
pub fn get(network: &impl Network, url: &str) -> Response {
    request(network, &[], url)
}

/// Requests `url`: none if nobody listens there.
pub fn try_get(network: &impl Network, url: &str) -> Option<Response> {
    try_request(network, &[], url).ok()
}

/// Requests `url` until somebody listens there.
///
/// # Panics
/// If nobody ever does.
#[track_caller]
pub fn get_when_up(network: &impl Network, url: &str) -> Response {
    let mut last = String::new();
    wait_for(Duration::from_secs(30), || try_request(network, &[], url).map_err(|report| last = report).ok())
        .unwrap_or_else(|| panic!("nobody answers\n{last}"))
}

fn try_request(network: &impl Network, arguments: &[&str], url: &str) -> Result<Response, String> {
    let mut curl = network.command("curl".as_ref());
    curl.args([
        "--silent",
        "--show-error",
        "--include",
        "--max-time",
        "60",
        "--noproxy",
        "*",
        "-H",
        "Expect:",
    ]);
    let outcome = run(curl.args(arguments).arg(url));
    let Some((head, body)) = outcome.stdout.split_once("\r\n\r\n").filter(|_| outcome.code == 0) else {
        return Err(outcome.report());
    };
    let mut lines = head.lines();
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(|| outcome.report())?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Ok(Response { status, headers, body: body.to_owned() })
}
