//! End-to-end tests of wharf: real engines, registries and browsers.
