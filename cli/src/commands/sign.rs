//! `wharf sign`: a signature for an image in its registry.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use wharf_images::signature::{self, Candidate, PrivateKey};
use zeroize::Zeroizing;

use crate::arguments::Global;
use crate::output;
use crate::places::Places;
use crate::transfer::Transfer;

/// Sign an image in its registry; prints the digest that was signed.
///
/// The signature is the one that `cosign sign --key` makes, in no transparency
/// log: `cosign verify --key cosign.pub --insecure-ignore-tlog` accepts it.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf sign registry.example/app:1 --key cosign.key

The key is cosign's (`cosign generate-key-pair`; its password comes from COSIGN_PASSWORD
or from the terminal), or PKCS#8 in PEM (`openssl genpkey`): ECDSA P-256 or Ed25519.")]
pub(crate) struct Sign {
    #[command(flatten)]
    image: Transfer,
    /// The private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

pub(crate) fn run(args: &Sign, global: &Global) -> Result<ExitCode> {
    let reference = &args.image.reference;
    let key = PrivateKey::from_pem(&Zeroizing::new(fs_err::read(&args.key)?), password)
        .with_context(|| format!("cannot sign with {}", args.key.display()))?;
    let (image, signature) = args.image.work(global, "signing", async |client| {
        let image = client.resolve(reference).await?;
        let candidates = Candidate::of(client, reference, &image).await?;
        // Signed already: another signature would say nothing new.
        let before = candidates.iter().any(|one| one.verify(&image.digest, &key.public_key()).is_ok());
        if before {
            return Ok((image, None));
        }
        let signature = signature::sign(&image.digest, &key)?;
        client.attach(reference, &image, &signature).await?;
        Ok((image, Some(signature)))
    })?;
    match signature {
        Some(signature) => {
            // So that `inspect` shows it, and a push elsewhere takes it along.
            let store = Places::from_env()?.store()?;
            if store.contains(&image) {
                store.attach(&image, &signature)?;
            }
        }
        None if !global.quiet => {
            output::remark(format!("{} is signed with this key already", reference.familiar()));
        }
        None => {}
    }
    output::line(image.digest)?;
    Ok(ExitCode::SUCCESS)
}

/// The password of the key: `COSIGN_PASSWORD`, even if empty, else from the terminal.
fn password() -> io::Result<Zeroizing<String>> {
    match env::var("COSIGN_PASSWORD") {
        Ok(password) => Ok(Zeroizing::new(password)),
        Err(env::VarError::NotPresent) => {
            rpassword::prompt_password("Password of the private key: ").map(Zeroizing::new)
        }
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}
