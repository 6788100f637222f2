//! The one moment that a reproducible image carries: `SOURCE_DATE_EPOCH`.

use std::fmt;
use std::str::FromStr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Largest second that a tar header's 11 octal digits can hold: the year 2242.
const LATEST: u64 = 0o777_7777_7777;

/// Whole seconds since 1970, no later than a tar header can say (the year 2242).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0
    }
}

/// A number or text that is not a timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid timestamp {found:?}: expected whole seconds since 1970, at most {LATEST}")]
pub struct InvalidTimestamp {
    found: String,
}

impl TryFrom<u64> for Timestamp {
    type Error = InvalidTimestamp;

    fn try_from(seconds: u64) -> Result<Self, InvalidTimestamp> {
        if seconds > LATEST {
            return Err(InvalidTimestamp { found: seconds.to_string() });
        }
        Ok(Self(seconds))
    }
}

/// Reads the value of `SOURCE_DATE_EPOCH`.
impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        text.parse::<u64>().map_err(|_| InvalidTimestamp { found: text.into() })?.try_into()
    }
}

/// RFC 3339, as image configurations write it: `1970-01-01T00:00:00Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0).map_err(|_| fmt::Error)?;
        let time = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| fmt::Error)?;
        formatter.write_str(&time.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_prints_as_rfc_3339() {
        assert_eq!(Timestamp::EPOCH.to_string(), "1970-01-01T00:00:00Z");
        assert_eq!("1700000000".parse::<Timestamp>().unwrap().to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(Timestamp::try_from(LATEST).unwrap().to_string(), "2242-03-16T12:56:31Z");
    }

    #[test]
    fn a_timestamp_past_what_tar_can_hold_is_refused() {
        assert!(Timestamp::try_from(LATEST + 1).is_err());
        assert!("-1".parse::<Timestamp>().is_err());
        assert!("".parse::<Timestamp>().is_err());
    }
}
