//! The messages of containerd's API, as far as they are needed: see
//! `api/services/{containers,content,images}/v1` and `api/types` of containerd.

use bytes::Bytes;
use containerd_shim_protos::protobuf::rt::skip_field_for_tag;
use containerd_shim_protos::protobuf::{CodedInputStream, CodedOutputStream, Result};
use serde::Deserialize;

/// `containerd.services.containers.v1.Container`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Container {
    /// Name of the image that it was made from; empty if its client did not say.
    pub(crate) image: String,
    /// What keeps its root file system; empty if that is no snapshot.
    pub(crate) snapshotter: String,
    /// Its root file system's key there.
    pub(crate) snapshot_key: String,
}

/// `containerd.services.images.v1.Image`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    /// As `ctr images ls` prints it.
    pub(crate) name: String,
    /// Its index or manifest.
    pub(crate) target: Descriptor,
}

/// `containerd.types.Descriptor`, and the same in an OCI image's JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    /// What the blob is.
    pub(crate) media_type: String,
    /// `sha256:…`
    pub(crate) digest: String,
    /// Bytes in the blob.
    pub(crate) size: u64,
}

/// A request whose only field is a text, its first: of `Get` of containers and
/// images, and of `Read` of content, which then gives the whole blob.
pub(super) fn request(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut output = CodedOutputStream::vec(&mut bytes);
    output.write_string(1, text)?;
    output.flush()?;
    drop(output);
    Ok(bytes)
}

/// `GetContainerResponse`.
pub(super) fn container(response: &[u8]) -> Result<Container> {
    let mut container = Container::default();
    let inner = only_field(response)?;
    read_fields(&inner, |tag, input| {
        match tag {
            IMAGE_OF_CONTAINER => container.image = input.read_string()?,
            SNAPSHOTTER => container.snapshotter = input.read_string()?,
            SNAPSHOT_KEY => container.snapshot_key = input.read_string()?,
            other => skip_field_for_tag(other, input)?,
        }
        Ok(())
    })?;
    Ok(container)
}

const IMAGE_OF_CONTAINER: u32 = bytes_tag(3);
const SNAPSHOTTER: u32 = bytes_tag(6);
const SNAPSHOT_KEY: u32 = bytes_tag(7);

/// `GetImageResponse`.
pub(super) fn image(response: &[u8]) -> Result<Image> {
    let mut image = Image::default();
    let inner = only_field(response)?;
    read_fields(&inner, |tag, input| {
        match tag {
            NAME => image.name = input.read_string()?,
            TARGET => image.target = descriptor(&input.read_bytes()?)?,
            other => skip_field_for_tag(other, input)?,
        }
        Ok(())
    })?;
    Ok(image)
}

const NAME: u32 = bytes_tag(1);
const TARGET: u32 = bytes_tag(3);

fn descriptor(message: &[u8]) -> Result<Descriptor> {
    let mut descriptor = Descriptor::default();
    read_fields(message, |tag, input| {
        match tag {
            MEDIA_TYPE => descriptor.media_type = input.read_string()?,
            DIGEST => descriptor.digest = input.read_string()?,
            SIZE => descriptor.size = input.read_uint64()?,
            other => skip_field_for_tag(other, input)?,
        }
        Ok(())
    })?;
    Ok(descriptor)
}

const MEDIA_TYPE: u32 = bytes_tag(1);
const DIGEST: u32 = bytes_tag(2);
/// Its wire type is a variable-length integer, 0.
const SIZE: u32 = 3 << 3;

/// The data of a `ReadContentResponse`.
pub(super) fn data(response: &Bytes) -> Result<Bytes> {
    let mut data = Bytes::new();
    read_fields(response, |tag, input| {
        if tag == DATA {
            data = input.read_bytes()?.into();
        } else {
            skip_field_for_tag(tag, input)?;
        }
        Ok(())
    })?;
    Ok(data)
}

const DATA: u32 = bytes_tag(2);

/// The message that is a response's only field.
fn only_field(response: &[u8]) -> Result<Vec<u8>> {
    let mut found = Vec::new();
    read_fields(response, |tag, input| {
        if tag == bytes_tag(1) {
            found = input.read_bytes()?;
        } else {
            skip_field_for_tag(tag, input)?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// The tag of a field that has a length: text, bytes or a message.
const fn bytes_tag(field: u32) -> u32 {
    field << 3 | 2
}

fn read_fields(
    message: &[u8],
    mut read: impl FnMut(u32, &mut CodedInputStream<'_>) -> Result<()>,
) -> Result<()> {
    let mut input = CodedInputStream::from_bytes(message);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        read(tag, &mut input)?;
    }
    Ok(())
}
