//! Chance that can be repeated: a failed test says the seed that it had.

use std::ops::RangeBounds;
use std::thread;

/// Names the seed that a test is to have again.
const VARIABLE: &str = "WHARF_TEST_SEED";

/// A generator of numbers.
#[derive(Debug)]
pub struct Chance {
    seed: u64,
    numbers: fastrand::Rng,
}

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}

impl Chance {
    /// With the seed of `WHARF_TEST_SEED`, else another one each time.
    ///
    /// # Panics
    /// If the variable holds no number.
    #[must_use]
    pub fn new() -> Self {
        let seed = std::env::var(VARIABLE).map_or_else(
            |_| fastrand::u64(..),
            |seed| seed.parse().unwrap_or_else(|_| panic!("{VARIABLE}={seed}: expected a number")),
        );
        Self { seed, numbers: fastrand::Rng::with_seed(seed) }
    }

    /// A number in the range.
    pub fn number(&mut self, range: impl RangeBounds<u64>) -> u64 {
        self.numbers.u64(range)
    }

    /// Bytes that no compressor makes fewer.
    #[must_use]
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.numbers.fill(&mut bytes);
        bytes
    }
}

impl Drop for Chance {
    #[expect(clippy::print_stderr, reason = "a failed test's seed is for people")]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{VARIABLE}={} repeats this test's numbers", self.seed);
        }
    }
}
