//! OpenTelemetry's environment variables, as far as spans of requests need them.

use std::time::Duration;

use http::Uri;
use http::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::Sampler;

/// How and where spans are exported.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// Where to: the whole URL.
    pub(crate) endpoint: Uri,
    pub(crate) protocol: Protocol,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Time for one export.
    pub(crate) timeout: Duration,
    /// `service.name` and the like.
    pub(crate) resource: Vec<(String, String)>,
    pub(crate) sampler: Sampler,
    /// Time until spans that wait are sent, though they are few.
    pub(crate) delay: Duration,
    /// Spans that wait at most; further ones are dropped.
    pub(crate) queue: usize,
    /// Spans of one export at most.
    pub(crate) batch: usize,
    /// A PEM file of authorities that the collector's certificate may be by.
    pub(crate) authorities: Option<String>,
}

/// How spans are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Protobuf,
    Json,
}

/// A variable is malformed.
#[derive(Debug, thiserror::Error)]
#[error("malformed {name} {value:?}: expected {expected}")]
pub struct TraceSettingsError {
    name: String,
    value: String,
    expected: &'static str,
}

impl TraceSettings {
    /// What the variables ask for; `None` if none names an endpoint, or
    /// `OTEL_SDK_DISABLED` or `OTEL_TRACES_EXPORTER=none` turns it off. The
    /// service is nameless unless a variable has a name: see
    /// [`TraceSettings::name_service`].
    ///
    /// # Errors
    /// [`TraceSettingsError`]: a variable is malformed, or asks for what there
    /// is not, such as gRPC.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, TraceSettingsError> {
        // "The empty value MUST be treated as unset."
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        // A variable for traces alone comes before the one for all signals.
        let either = |name: &str| {
            let own = name.replace("OTLP_", "OTLP_TRACES_");
            let value = get(&own).map(|value| (own, value));
            value.or_else(|| get(name).map(|value| (name.to_owned(), value)))
        };
        let error = |(name, value): (String, String), expected| TraceSettingsError { name, value, expected };
        let is_off = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let exporter = get("OTEL_TRACES_EXPORTER").unwrap_or_else(|| "otlp".into());
        let Some(endpoint) = either("OTEL_EXPORTER_OTLP_ENDPOINT").filter(|_| !is_off && exporter != "none")
        else {
            return Ok(None);
        };
        if exporter != "otlp" {
            return Err(error(("OTEL_TRACES_EXPORTER".into(), exporter), "otlp or none"));
        }
        let protocol = match either("OTEL_EXPORTER_OTLP_PROTOCOL") {
            None => Protocol::Protobuf,
            Some((_, text)) if text == "http/protobuf" => Protocol::Protobuf,
            Some((_, text)) if text == "http/json" => Protocol::Json,
            Some(other) => return Err(error(other, "http/protobuf or http/json (gRPC is not spoken)")),
        };
        let headers = match either("OTEL_EXPORTER_OTLP_HEADERS") {
            None => Vec::new(),
            // A secret may be in it: errors don't repeat it.
            Some((name, text)) => headers(&text)
                .ok_or_else(|| error((name, "…".into()), "NAME=VALUE pairs with commas between them"))?,
        };
        let name = get("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_always_on".into());
        let sampler = Sampler::parse(&name, get("OTEL_TRACES_SAMPLER_ARG").as_deref()).ok_or_else(|| {
            let expected = "always_on, always_off, traceidratio, or one of these after parentbased_, \
                and OTEL_TRACES_SAMPLER_ARG from 0 to 1";
            error(("OTEL_TRACES_SAMPLER".into(), name), expected)
        })?;
        let number = |name: &str, default: u64| match get(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| error((name.into(), text), "a positive number")),
        };
        let timeout = match either("OTEL_EXPORTER_OTLP_TIMEOUT") {
            None => 10_000,
            Some((name, _)) => number(&name, 10_000)?,
        };
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?.min(1 << 20) as usize;
        Ok(Some(Self {
            endpoint: url(endpoint).map_err(|given| error(given, "http://HOST:PORT or https://HOST:PORT"))?,
            protocol,
            headers,
            timeout: Duration::from_millis(timeout),
            resource: resource(&get).ok_or_else(|| {
                let text = get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
                error(("OTEL_RESOURCE_ATTRIBUTES".into(), text), "KEY=VALUE pairs with commas between them")
            })?,
            sampler,
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", 5000)?),
            queue,
            batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?.min(queue as u64) as usize,
            authorities: either("OTEL_EXPORTER_OTLP_CERTIFICATE")
                .map(|(_, file)| file)
                .or_else(|| get("SSL_CERT_FILE")),
        }))
    }
}

impl TraceSettings {
    /// Names the service as the app, unless a variable named it.
    pub fn name_service(&mut self, app: &str) {
        for (key, value) in &mut self.resource {
            if key == "service.name" && value.is_empty() {
                app.clone_into(value);
            }
        }
    }
}

/// The endpoint for traces: its own as it is, the common one with the path of
/// traces behind it.
fn url((name, text): (String, String)) -> Result<Uri, (String, String)> {
    let is_own = name.contains("_TRACES_");
    let whole = if is_own { text.clone() } else { format!("{}/v1/traces", text.trim_end_matches('/')) };
    let url: Option<Uri> = whole.parse().ok();
    let is_fine = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    url.filter(is_fine).ok_or((name, text))
}

/// `service.name` first, then what else the variables have.
fn resource(get: &impl Fn(&str) -> Option<String>) -> Option<Vec<(String, String)>> {
    let mut all = match get("OTEL_RESOURCE_ATTRIBUTES") {
        Some(text) => pairs(&text)?,
        None => Vec::new(),
    };
    let named = all.iter().position(|(key, _)| key == "service.name").map(|at| all.remove(at).1);
    let name = get("OTEL_SERVICE_NAME").or(named).unwrap_or_default();
    all.insert(0, ("service.name".into(), name));
    Some(all)
}

/// Headers as pairs. Whatever prints the settings, it does not print these.
fn headers(text: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let headers = pairs(text)?.into_iter().map(|(name, value)| {
        let mut value: HeaderValue = value.parse().ok()?;
        value.set_sensitive(true);
        Some((name.parse().ok()?, value))
    });
    headers.collect()
}

/// `a=1,b=2`, values percent-encoded (W3C Baggage).
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let parts = parts.map(|part| {
        let (key, value) = part.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((key.trim().to_owned(), value.into_owned())).filter(|(key, _)| !key.is_empty())
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Option<TraceSettings>, String> {
        let find =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let found = TraceSettings::from_variables(find).map_err(|error| error.to_string());
        found.map(|found| {
            found.map(|mut found| {
                found.name_service("app");
                found
            })
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    #[test]
    fn without_an_endpoint_or_turned_off_there_is_no_exporter() {
        assert!(settings(&[]).unwrap().is_none());
        assert!(settings(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]).unwrap().is_none());
        assert!(settings(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().is_none());
        assert!(settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).unwrap().is_none());
    }

    #[test]
    fn the_common_endpoint_gets_the_path_of_traces_and_their_own_does_not() {
        let common = settings(&[ENDPOINT]).unwrap().unwrap();
        assert_eq!(common.endpoint, "http://collector:4318/v1/traces");
        assert_eq!((common.protocol, common.batch), (Protocol::Protobuf, 512));
        assert_eq!(common.resource, [("service.name".into(), "app".into())]);
        let own = [ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces.example/x")];
        assert_eq!(settings(&own).unwrap().unwrap().endpoint, "https://traces.example/x");
    }

    #[test]
    fn headers_and_resource_are_lists_of_pairs() {
        let found = settings(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20abc, x-a=1"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=a%2Cb"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ]);
        let found = found.unwrap().unwrap();
        assert_eq!(found.headers[0].1, "Basic abc");
        assert!(!format!("{found:?}").contains("abc"));
        assert_eq!(found.resource[0], ("service.name".into(), "other".into()));
        assert_eq!(found.resource[1], ("deployment.environment.name".into(), "a,b".into()));
        assert_eq!(found.protocol, Protocol::Json);
        let named = settings(&[ENDPOINT, ("OTEL_SERVICE_NAME", "mine")]).unwrap().unwrap();
        assert_eq!(named.resource, [("service.name".into(), "mine".into())]);
    }

    #[test]
    fn what_is_malformed_is_named_and_secrets_are_not_repeated() {
        let error = settings(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap_err();
        assert!(
            error.starts_with("malformed OTEL_EXPORTER_OTLP_PROTOCOL \"grpc\": expected http/"),
            "{error}"
        );
        let error = settings(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret")]).unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_RESOURCE_ATTRIBUTES", "novalue"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
        ] {
            let error = settings(&[(name, value), ENDPOINT]).unwrap_err();
            assert!(error.starts_with(&format!("malformed {name}")), "{error}");
        }
    }
}
