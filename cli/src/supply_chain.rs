//! What `wharf build --sbom` attaches to an image: its SBOM and its provenance.

use anyhow::Result;
use wharf_app::{Project, Sha256};
use wharf_images::{Artifact, Descriptor};
use wharf_sbom::{CYCLONEDX, IN_TOTO, Inputs, NativeHost, Provenance, Source};

use crate::image::Packing;

/// Attaches both to the index, in the layout that it was written to.
pub(crate) fn describe(
    project: &Project,
    source: Option<&Source>,
    packing: &Packing<'_>,
    index: &Descriptor,
) -> Result<()> {
    let mut hosts = Vec::new();
    for (architecture, binary) in packing.natives {
        let (sha256, _) = Sha256::of_reader(fs_err::File::open(binary)?)?;
        hosts.push(NativeHost { platform: format!("linux/{architecture}"), sha256 });
    }
    let mut platforms: Vec<String> = hosts.iter().map(|host| host.platform.clone()).collect();
    platforms.extend(packing.wasi.then(|| "wasi/wasm".to_owned()));
    let created = packing.metadata.source_date.map(|time| time.to_string());
    let inputs = Inputs {
        project,
        app: packing.app,
        image: index.digest.encoded().parse()?,
        hosts: &hosts,
        version: env!("CARGO_PKG_VERSION"),
        created: created.as_deref(),
    };
    let provenance = Provenance { platforms: &platforms, source };
    let documents = [
        (CYCLONEDX, wharf_sbom::cyclonedx(&inputs)),
        (IN_TOTO, wharf_sbom::provenance(&inputs, &provenance)),
    ];
    for (media_type, content) in documents {
        packing.layout.attach(index, &Artifact::new(media_type, content))?;
    }
    Ok(())
}
