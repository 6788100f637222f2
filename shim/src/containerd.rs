//! containerd's own API, as a client of its socket: what it knows of a
//! container and of an image, and the blobs of its content store.
//!
//! Only short-lived processes use it, helpers and `cache warm`: the server of a
//! pod never does, so that it stays small. Three calls are needed, so gRPC is
//! done here on top of `h2`, and the messages are read field by field: a
//! framework for both would double the crates of this program.

mod client;
mod grpc;
mod image;
mod messages;

#[cfg(test)]
mod tests;

pub(crate) use client::Client;
pub(crate) use image::ImageError;
pub(crate) use messages::Descriptor;
#[allow(unused_imports, reason = "for images of plain Wasm")]
pub(crate) use {
    client::ContainerdError,
    image::Manifest,
    messages::{Container, Image},
};
