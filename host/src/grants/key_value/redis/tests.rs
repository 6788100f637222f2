//! What needs no server; the rest is in `tests/grants`.

use super::*;

#[test]
fn a_prefix_is_a_pattern_of_itself_alone() {
    assert_eq!(pattern("shop:"), "shop:*");
    assert_eq!(pattern(r"a*b?[c]\"), r"a\*b\?\[c\]\\*");
}
