//! What `wharf build --sbom` attaches to an image: its SBOM and its provenance.

use anyhow::Result;
use wharf_app::Project;
use wharf_images::{Artifact, Compression, Descriptor};
use wharf_sbom::{CYCLONEDX, IN_TOTO, Inputs, NativeHost, Parameters, Provenance, Source};

use crate::image::{Packing, Shape};
use crate::metadata::{self, Pair};

/// What of a build its image doesn't say.
pub(crate) struct Asked<'a> {
    /// The project's commit, if it is known.
    pub(crate) source: Option<&'a Source>,
    pub(crate) precompress: bool,
    /// By flags.
    pub(crate) annotations: &'a [Pair],
    /// By flags.
    pub(crate) labels: &'a [Pair],
}

/// Attaches both to the index, in the layout that it was written to.
pub(crate) fn describe(
    project: &Project,
    asked: &Asked<'_>,
    packing: &Packing<'_>,
    index: &Descriptor,
) -> Result<()> {
    let hosts = packing.natives.iter().map(|(architecture, native)| NativeHost {
        platform: format!("linux/{architecture}"),
        sha256: native.sha256,
    });
    let hosts: Vec<NativeHost> = hosts.collect();
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
    let parameters = Parameters {
        app: packing.app.manifest.name.clone(),
        platforms,
        compression: match packing.compression {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        },
        single_platform: packing.shape == Shape::Manifest,
        precompress: asked.precompress,
        annotations: metadata::by_key(asked.annotations),
        labels: metadata::by_key(asked.labels),
        sbom: true,
    };
    let provenance = Provenance { parameters: &parameters, source: asked.source };
    let documents = [
        (CYCLONEDX, wharf_sbom::cyclonedx(&inputs)),
        (IN_TOTO, wharf_sbom::provenance(&inputs, &provenance)),
    ];
    for (media_type, content) in documents {
        packing.layout.attach(index, &Artifact::new(media_type, content))?;
    }
    Ok(())
}
