//! All cases, by section of the table.

mod attacks;
mod conditions;
mod connections;
mod files;
mod messages;
mod methods;
mod pages;
mod ranges;

use crate::case::Case;

/// The sections in the table's order, each with its title.
pub(crate) fn sections() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("Which file answers", pages::cases()),
        ("Validators and conditions", conditions::cases()),
        ("Ranges", ranges::cases()),
        ("Methods", methods::cases()),
        ("Content codings", files::codings()),
        ("Caching", files::caching()),
        ("Media types", files::media_types()),
        ("`_headers` and `_redirects`", files::settings()),
        ("Paths that lead nowhere", attacks::cases()),
        ("Messages", messages::cases()),
        ("Connections", connections::cases()),
    ]
}
