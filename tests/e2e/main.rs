//! End-to-end tests: what a user does, against the real parts.
//!
//! One binary, so that they share the Python image, which takes a while to
//! build. To run one: `cargo test -p wharf-tests --test e2e -- serve::` with
//! `WHARF_BIN_DIR` set. They need root and tests/testbed/*.sh; see
//! CONTRIBUTING.md.

mod arm64;
mod browser;
mod build;
mod cache;
mod commands;
mod containerd;
mod cri;
mod demo;
mod dev;
mod docker;
mod dockerfile;
mod doctor;
mod examples;
mod faults;
mod inspect;
mod interop;
mod isolation;
mod killed;
mod kube;
mod languages;
mod large;
mod login;
mod manual;
mod node;
mod package;
mod plain;
mod postgres;
mod processes;
mod protocol;
mod push;
mod reproducible;
mod scarce;
mod serve;
mod service;
mod sites;
mod supply;
mod tasks;
mod wws;
