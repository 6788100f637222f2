//! `wharf verify`: whether an image in a registry is signed with a key.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use wharf_images::signature::{Candidate, Form, PublicKey};

use crate::arguments::Global;
use crate::output;
use crate::transfer::Transfer;

/// Check that an image in a registry is signed with a key; prints its digest.
///
/// Takes signatures by `wharf sign` and by cosign, in its present form (bundles)
/// and its older one (tags that end in .sig). No transparency log is asked.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf verify registry.example/app:1 --key cosign.pub")]
pub(crate) struct Verify {
    #[command(flatten)]
    image: Transfer,
    /// The public key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Print JSON: the digest, the key and the signatures.
    #[arg(long)]
    json: bool,
}

/// Nothing that is attached to the image is a signature by the key.
#[derive(Debug, thiserror::Error)]
#[error("no signature on {image} by key {key}: {}", Self::list(.found))]
pub(crate) struct NoSignature {
    image: String,
    key: String,
    found: Vec<String>,
}

impl NoSignature {
    pub(crate) fn hint(&self) -> Option<String> {
        let text = "sign it with: wharf sign IMAGE --key cosign.key";
        self.found.is_empty().then(|| text.into())
    }

    fn list(found: &[String]) -> String {
        if found.is_empty() { "found none".into() } else { format!("found\n  {}", found.join("\n  ")) }
    }
}

#[derive(Serialize)]
struct Report {
    image: String,
    digest: String,
    key: Key,
    signatures: Vec<Signature>,
}

#[derive(Serialize)]
struct Key {
    algorithm: String,
    fingerprint: String,
}

#[derive(Serialize)]
struct Signature {
    digest: String,
    form: &'static str,
    annotations: BTreeMap<String, serde_json::Value>,
}

pub(crate) fn run(args: &Verify, global: &Global) -> Result<ExitCode> {
    let reference = &args.image.reference;
    let key = PublicKey::from_pem(&fs_err::read(&args.key)?)
        .with_context(|| format!("cannot verify with {}", args.key.display()))?;
    let (image, candidates) = args.image.work(global, "verifying", async |client| {
        let image = client.resolve(reference).await?;
        let candidates = Candidate::of(client, reference, &image).await?;
        Ok((image, candidates))
    })?;
    let (mut signatures, mut others) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let form = match candidate.form {
            Form::Bundle => "bundle",
            Form::Simple => "simplesigning",
        };
        let digest = candidate.digest.to_string();
        match candidate.verify(&image.digest, &key) {
            Ok(verified) => signatures.push(Signature { digest, form, annotations: verified.annotations }),
            Err(rejection) => others.push(format!("{form} {digest}: {rejection}")),
        }
    }
    if signatures.is_empty() {
        return Err(NoSignature {
            image: reference.with_digest(image.digest).familiar(),
            key: args.key.display().to_string(),
            found: others,
        }
        .into());
    }
    if args.json {
        output::json(&Report {
            image: reference.familiar(),
            digest: image.digest.to_string(),
            key: Key { algorithm: key.algorithm().to_string(), fingerprint: key.fingerprint() },
            signatures,
        })?;
    } else {
        output::line(image.digest)?;
    }
    Ok(ExitCode::SUCCESS)
}
