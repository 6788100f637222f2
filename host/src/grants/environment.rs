//! Settings whose values may come from the host's environment.

use std::collections::BTreeMap;

use wharf_app::{MissingVariable, Value};

/// The settings that have a value, in their order.
///
/// # Errors
/// The key of the first setting that needs a variable which `variable` does
/// not know, and that variable.
pub(super) fn resolve(
    settings: &BTreeMap<String, Value>,
    variable: impl Fn(&str) -> Option<String> + Copy,
) -> Result<Vec<(String, String)>, (String, MissingVariable)> {
    let values = settings.iter().filter_map(|(key, value)| {
        let value = value.resolve(variable).map_err(|missing| (key.clone(), missing)).transpose()?;
        Some(value.map(|value| (key.clone(), value)))
    });
    values.collect()
}
