//! `wharf inspect`: what an image is made of.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use wharf_app::{Abi, Grants, Limits, MANIFEST_FILE, Manifest, RouteLine, Value};
use wharf_images::{Descriptor, InspectedImage, Inspection, Layout};

use crate::arguments::Global;
use crate::component::Interfaces;
use crate::output::{self, plain};
use crate::places::Places;
use crate::progress::Progress;
use crate::target::{LARGEST_IMAGE, Target, unpacked};

/// Show what an image is made of: platforms, layers, routes, workers, and what
/// refers to it.
///
/// --json prints one object. Its members: digest, mediaType, size, annotations,
/// platforms (each: platform, digest, size, created, entrypoint, cmd, user,
/// labels, annotations, and layers with digest, mediaType, size,
/// uncompressedSize, createdBy), referrers (each: digest, subject, artifactType,
/// size, annotations), and app, which is null unless wharf made the image and its
/// app can be read (name, routes with pattern, kind, source; workers with name,
/// pattern, source, file, abi, env, grants, limits, imports, exports; limits with
/// timeout_ms, memory, body). Sizes are in bytes; members may be added.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharf inspect registry.example/app:1\n  wharf inspect app.tar --json")]
pub(crate) struct Inspect {
    /// An image of the local store, an OCI layout or a saved archive.
    #[arg(value_name = "REF|LAYOUT|ARCHIVE")]
    target: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    image: Inspection,
    app: Option<App>,
}

#[derive(Serialize)]
struct App {
    name: String,
    routes: Vec<RouteLine>,
    workers: Vec<Worker>,
}

#[derive(Serialize)]
struct Worker {
    name: String,
    pattern: String,
    source: String,
    /// The component, below `/app`.
    file: String,
    abi: Abi,
    env: BTreeMap<String, Value>,
    grants: Grants,
    limits: Limits,
    #[serde(flatten)]
    interfaces: Interfaces,
}

pub(crate) fn run(args: &Inspect, global: &Global) -> Result<ExitCode> {
    let places = Places::from_env()?;
    let target = Target::find(&args.target, &places)?;
    let (layout, image) = match &target {
        Target::Image(layout, image) | Target::Archive(layout, image, _) => (layout, image),
        Target::Project(_) | Target::Cloned(..) => {
            bail!("{} is a project folder: expected an image, an OCI layout or an archive", args.target)
        }
    };
    let progress = Progress::new(global);
    let report = report(layout, image, &places, &progress)?;
    drop(progress);
    if args.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(layout: &Layout, image: &Descriptor, places: &Places, progress: &Progress) -> Result<Report> {
    layout.use_blobs()?;
    progress.step("reading layers");
    let inspected = wharf_images::inspect(layout, image, LARGEST_IMAGE)?;
    let app = app(layout, image, &inspected, places, progress).unwrap_or_else(|error| {
        // Anyone may have made it, and the rest is still worth showing.
        let error = plain(&format!("{error:#}"));
        tracing::warn!(error, "cannot read the image's app");
        None
    });
    Ok(Report { image: inspected, app })
}

/// The app of an image; none if it is no image of wharf's.
fn app(
    layout: &Layout,
    image: &Descriptor,
    inspected: &Inspection,
    places: &Places,
    progress: &Progress,
) -> Result<Option<App>> {
    // By what the shim knows them, too.
    let is_app = |image: &InspectedImage| {
        let program = image.entrypoint.first().map(String::as_str);
        matches!(program, Some("/wharf-host" | "/app/wharf.json"))
    };
    if !inspected.platforms.iter().any(is_app) {
        return Ok(None);
    }
    let _caches = places.use_caches();
    let folder = unpacked(layout, image, places, progress)?;
    let manifest = Manifest::read(&folder.join(MANIFEST_FILE))?;
    let components = manifest.components.iter().map(|component| {
        let interfaces = Interfaces::read(&folder.join(&component.file))?;
        Ok((component.file.clone(), interfaces))
    });
    let components = components.collect::<Result<Vec<_>>>()?;
    let workers = manifest.workers.iter().map(|worker| {
        let (file, interfaces) = components.get(worker.component).cloned().unwrap_or_default();
        Worker {
            name: worker.name.clone(),
            pattern: worker.pattern.clone(),
            source: worker.source.clone(),
            file,
            abi: worker.abi,
            env: worker.env.clone(),
            grants: worker.grants.clone(),
            limits: worker.limits.clone(),
            interfaces,
        }
    });
    Ok(Some(App {
        name: manifest.name.clone(),
        routes: wharf_app::Routes::new(&manifest)?.lines(&manifest),
        workers: workers.collect(),
    }))
}

fn print(report: &Report) -> Result<()> {
    let image = &report.image;
    output::table(&[
        ["Digest:".to_owned(), image.digest.to_string()],
        ["Type:".to_owned(), plain(image.media_type.as_str())],
    ])?;
    print_pairs("Annotations", &image.annotations)?;
    for platform in &image.platforms {
        print_platform(platform)?;
    }
    if let Some(app) = &report.app {
        print_app(app)?;
    }
    if !image.referrers.is_empty() {
        output::line("\nReferrers:")?;
        let rows = image.referrers.iter().map(|referrer| {
            [
                format!("  {}", plain(&referrer.artifact_type)),
                output::size(referrer.size),
                referrer.digest.to_string(),
            ]
        });
        output::table(&rows.collect::<Vec<_>>())?;
    }
    Ok(())
}

fn print_platform(image: &InspectedImage) -> Result<()> {
    let name = image.platform.as_deref().unwrap_or("unknown platform");
    output::line(format!("\nPlatform {}:", plain(name)))?;
    let mut facts = vec![
        ["  Manifest:".to_owned(), image.digest.to_string()],
        ["  Size:".to_owned(), output::size(image.size)],
    ];
    let command: Vec<&str> = image.entrypoint.iter().chain(&image.cmd).map(String::as_str).collect();
    for (fact, value) in [
        ("Command", (!command.is_empty()).then(|| command.join(" "))),
        ("User", image.user.clone()),
        ("Created", image.created.clone()),
    ] {
        facts.extend(value.map(|value| [format!("  {fact}:"), plain(&value)]));
    }
    output::table(&facts)?;
    print_pairs("  Labels", &image.labels)?;
    output::line("  Layers:")?;
    let mut rows = vec![["    SIZE", "UNPACKED", "TYPE", "DIGEST", "MADE BY"].map(str::to_owned)];
    rows.extend(image.layers.iter().map(|layer| {
        [
            format!("    {}", output::size(layer.size)),
            layer.uncompressed_size.map_or_else(|| "-".to_owned(), output::size),
            // The part that differs.
            plain(layer.media_type.as_str().rsplit('.').next().unwrap_or_default()),
            layer.digest.to_string(),
            plain(layer.created_by.as_deref().unwrap_or_default()),
        ]
    }));
    output::table(&rows)
}

fn print_app(app: &App) -> Result<()> {
    output::line(format!("\nApp {}:", plain(&app.name)))?;
    output::line("  Routes:")?;
    let rows = app
        .routes
        .iter()
        .map(|route| [format!("    {}", plain(&route.pattern)), route.kind.to_owned(), plain(&route.source)]);
    output::table(&rows.collect::<Vec<_>>())?;
    for worker in &app.workers {
        output::line(format!("  Worker {}:", plain(&worker.name)))?;
        let limits = &worker.limits;
        output::table(&[
            ["    Route:".to_owned(), plain(&worker.pattern)],
            ["    Source:".to_owned(), plain(&worker.source)],
            ["    Component:".to_owned(), plain(&worker.file)],
            ["    ABI:".to_owned(), worker.abi.to_string()],
            [
                "    Limits:".to_owned(),
                format!(
                    "{:?}, {} of memory, bodies of {}",
                    limits.timeout(),
                    output::size(limits.memory),
                    output::size(limits.body)
                ),
            ],
            ["    Imports:".to_owned(), plain(&worker.interfaces.imports.join(" "))],
            ["    Exports:".to_owned(), plain(&worker.interfaces.exports.join(" "))],
        ])?;
    }
    Ok(())
}

fn print_pairs(title: &str, pairs: &BTreeMap<String, String>) -> Result<()> {
    if pairs.is_empty() {
        return Ok(());
    }
    output::line(format!("{title}:"))?;
    let indent = title.len() - title.trim_start().len() + 2;
    let rows = pairs.iter().map(|(key, value)| [format!("{:indent$}{}", "", plain(key)), plain(value)]);
    output::table(&rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use wharf_images::{ContainerConfig, FileMode, ImageBuilder, LayerBuilder, Timestamp};

    use super::*;

    #[test]
    fn an_image_whose_app_cannot_be_read_is_described_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let layout = Layout::create(root.join("store")).unwrap();
        let mut layer = LayerBuilder::new(Timestamp::EPOCH);
        layer.add_bytes("app/wharf.json", "{\"version\": 99}", FileMode::Regular).unwrap();
        let entrypoint = vec!["/app/wharf.json".to_owned()];
        let config = ContainerConfig { entrypoint, ..ContainerConfig::default() };
        let image = ImageBuilder::new(wharf_images::Platform::wasi_wasm(), config)
            .layer(layer.write(&layout).unwrap(), "app")
            .write(&layout)
            .unwrap();
        let places = Places::new(root.join("store"), root.join("cache"), root.join("runtimes"));
        let progress = Progress::new(&Global { verbose: 0, quiet: true });
        let report = report(&layout, &image, &places, &progress).unwrap();
        assert_eq!(report.image.platforms[0].platform.as_deref(), Some("wasi/wasm"));
        assert!(report.app.is_none());
    }
}
