//! What a pod asks for and may take, from the limits of its workers.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::Workload;
use crate::yaml::{Map, Node};

const MIB: u64 = 1 << 20;

/// A process of the host, without guests: what `make bench` prints, and as much again.
const PROCESS: u64 = 32 * MIB;

/// Processes of the host at most, where `--env WHARF_PROCESSES` does not say: on
/// a node of 64 cores there could be 64, and their memory has one limit.
pub(super) const PROCESSES: u64 = 4;

/// Amounts by the resource's name, as in `cpu=100m,memory=64Mi`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Quantities(BTreeMap<String, String>);

/// What was derived.
pub(super) struct Resources {
    pub(super) requests: Quantities,
    pub(super) limits: Quantities,
    /// How, for people.
    pub(super) reasons: Vec<String>,
}

impl Quantities {
    fn of<const N: usize>(amounts: [(&str, String); N]) -> Self {
        Self(amounts.into_iter().map(|(name, amount)| (name.to_owned(), amount)).collect())
    }

    /// The same, but for what `others` say.
    pub(super) fn overridden(mut self, others: &Self) -> Self {
        self.0.extend(others.0.clone());
        self
    }

    pub(super) fn to_yaml(&self) -> Node {
        self.0.iter().fold(Map::new(), |map, (name, amount)| map.with(name, amount.as_str())).into()
    }
}

impl FromStr for Quantities {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let amounts = text.split(',').map(|part| {
            let (name, amount) =
                part.split_once('=').filter(|(name, amount)| is_name(name) && is_amount(amount))?;
            Some((name.to_owned(), amount.to_owned()))
        });
        let amounts: Option<_> = amounts.collect();
        amounts.map(Self).ok_or_else(|| "expected for example cpu=500m,memory=256Mi".into())
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-./".contains(&byte))
}

/// Kubernetes' "quantity": a decimal number and a unit.
fn is_amount(text: &str) -> bool {
    const UNITS: [&str; 14] = ["", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    number.starts_with(|c: char| c.is_ascii_digit())
        && number.ends_with(|c: char| c.is_ascii_digit())
        && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && number.matches('.').count() <= 1
        && UNITS.contains(&&text[number.len()..])
}

/// What the workload needs.
pub(super) fn of(workload: &Workload<'_>) -> Resources {
    let manifest = workload.manifest;
    let code = manifest.components.iter().fold(0_u64, |sum, component| sum.saturating_add(component.size));
    let largest = manifest.workers.iter().map(|worker| worker.limits.memory).max().unwrap_or_default();
    let given = workload.variables.get("WHARF_PROCESSES").and_then(|count| count.parse().ok());
    let processes: u64 = given.unwrap_or(PROCESSES);
    let request = PROCESS.saturating_add(code).saturating_add(largest / 4);
    let limit = PROCESS.saturating_add(largest).saturating_mul(processes).saturating_add(code);
    let cpu = if manifest.workers.is_empty() { "20m" } else { "100m" };
    let reasons = match largest {
        0 => vec![format!("Memory: at most {processes} processes of {}.", mebibytes(PROCESS))],
        _ => vec![
            format!(
                "Memory: at most {processes} processes of {}, each with a guest that takes all that wharf.json",
                mebibytes(PROCESS)
            ),
            format!("lets one take ({}). Let more if many requests do at once.", mebibytes(largest)),
        ],
    };
    Resources {
        requests: Quantities::of([("cpu", cpu.to_owned()), ("memory", mebibytes(request))]),
        limits: Quantities::of([("memory", mebibytes(limit))]),
        reasons,
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{}Mi", bytes.div_ceil(MIB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_kubernetes_reads_them() {
        let read: Quantities = "cpu=1.5,memory=1Gi,ephemeral-storage=10M".parse().unwrap();
        assert_eq!(read.0.len(), 3);
        for text in
            ["", "cpu", "cpu=", "cpu=m", "cpu=-1", "memory=64MB", "memory=1.2.3", "cpu=1.", "CPU=1", "a=1\n"]
        {
            assert!(text.parse::<Quantities>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_limit_without_bounds_is_no_overflow() {
        assert_eq!(mebibytes(u64::MAX), "17592186044416Mi");
    }
}
