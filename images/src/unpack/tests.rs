use std::os::unix::fs::PermissionsExt;

use tar::{EntryType, Header};

use super::*;
use crate::sample::{HTML, files, universal};
use crate::{ContainerConfig, ImageBuilder, Layer, Platform};

const LIMIT: u64 = 64 << 20;

fn options<'a>(limit: u64, filter: &'a dyn Fn(&Path) -> bool) -> UnpackOptions<'a> {
    UnpackOptions { limit, filter }
}

fn everything(_: &Path) -> bool {
    true
}

/// A tar of entries that no honest tool writes.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4644);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str) -> Self {
        self.entry(EntryType::Regular, name, "", name.as_bytes())
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, b"")
    }
}

/// Unpacks an image of these layers, as plain tar, into a fresh folder.
fn unpacked(layers: &[Tar]) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("layout")).unwrap();
    let mut image = ImageBuilder::new(Platform::wasi_wasm(), ContainerConfig::default());
    for Tar(tar) in layers {
        let descriptor = layout.write_blob(MediaType::LayerTar, tar).unwrap();
        let uncompressed_size = tar.len() as u64;
        image = image.layer(Layer { diff_id: Digest::of(tar), descriptor, uncompressed_size }, "x");
    }
    let manifest = layout.read_manifest(&image.write(&layout).unwrap()).unwrap();
    let result = unpack(&layout, &manifest, &folder.path().join("out"), &options(LIMIT, &everything));
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1 + usize::from(result.is_ok()), "nothing is left but what was asked for");
    (folder, result)
}

fn names(folder: &tempfile::TempDir) -> Vec<String> {
    files(&folder.path().join("out")).into_keys().collect()
}

fn refused(tar: Tar) -> UnpackError {
    unpacked(&[tar]).1.expect_err("hostile layer")
}

#[test]
fn the_filter_says_what_is_unpacked() {
    let sample = universal();
    let (_, manifest) = sample.layout.select(&sample.index, &[Platform::linux_amd64()]).unwrap();
    let out = sample.folder.path().join("out");
    let filter = |path: &Path| path.starts_with("app");
    let unpacked = unpack(&sample.layout, &manifest, &out, &options(LIMIT, &filter)).unwrap();
    assert_eq!(unpacked, Unpacked { files: 2, bytes: (3 << 19) + HTML.len() as u64 });
    let found = files(&out);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["app/site/data.bin", "app/site/index.html"]);
    assert_eq!(found["app/site/index.html"], HTML.as_bytes());
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn an_empty_folder_is_filled_and_another_is_left_alone() {
    let sample = universal();
    let (_, manifest) = sample.layout.select(&sample.index, &[Platform::wasi_wasm()]).unwrap();
    let out = tempfile::tempdir().unwrap();
    unpack(&sample.layout, &manifest, out.path(), &options(LIMIT, &everything)).unwrap();
    assert_eq!(files(out.path()).len(), 2);
    let again = unpack(&sample.layout, &manifest, out.path(), &options(LIMIT, &everything));
    assert!(matches!(again, Err(UnpackError::Occupied { .. })));
}

#[test]
fn a_truncated_layer_is_named_with_its_digest() {
    let sample = universal();
    let (_, manifest) = sample.layout.select(&sample.index, &[Platform::wasi_wasm()]).unwrap();
    let layer = &sample.site.descriptor;
    let path = sample.layout.blob_path(&layer.digest);
    let content = std::fs::read(&path).unwrap();
    let out = sample.folder.path().join("out");
    std::fs::write(&path, &content[..content.len() / 2]).unwrap();
    let error = unpack(&sample.layout, &manifest, &out, &options(LIMIT, &everything)).unwrap_err();
    assert!(error.to_string().contains(&layer.digest.to_string()), "{error}");
    assert!(matches!(error, UnpackError::Layout(LayoutError::SizeDiffers { .. })));

    // With the right size and a broken stream the digest is still what is said.
    let mut broken = content.clone();
    broken[1000..].fill(0);
    std::fs::write(&path, &broken).unwrap();
    let error = unpack(&sample.layout, &manifest, &out, &options(LIMIT, &everything)).unwrap_err();
    assert!(matches!(error, UnpackError::Layout(LayoutError::DigestDiffers { .. })), "{error}");
    assert!(!out.exists());
}

#[test]
fn a_layer_whose_content_is_not_what_the_configuration_says_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("layout")).unwrap();
    let descriptor = layout.write_blob(MediaType::LayerTar, &Tar::default().file("a").0).unwrap();
    let layer = Layer { descriptor, diff_id: Digest::of(b"other"), uncompressed_size: 1024 };
    let image = ImageBuilder::new(Platform::wasi_wasm(), ContainerConfig::default()).layer(layer, "x");
    let manifest = layout.read_manifest(&image.write(&layout).unwrap()).unwrap();
    let out = folder.path().join("out");
    let error = unpack(&layout, &manifest, &out, &options(LIMIT, &everything)).unwrap_err();
    assert!(matches!(error, UnpackError::DiffIdDiffers { .. }));
    assert!(!out.exists());
    let error =
        unpack(&layout, &Manifest { layers: Vec::new(), ..manifest }, &out, &options(LIMIT, &everything));
    assert!(matches!(error, Err(UnpackError::LayersDiffer { layers: 0, diff_ids: 1 })));
}

#[test]
fn layers_that_unpack_to_more_than_allowed_are_refused() {
    let sample = universal();
    let (_, manifest) = sample.layout.select(&sample.index, &[Platform::wasi_wasm()]).unwrap();
    let out = sample.folder.path().join("out");
    let limit = sample.site.uncompressed_size;
    let error = unpack(&sample.layout, &manifest, &out, &options(limit - 1, &everything)).unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge { .. }), "{error}");
    assert!(!out.exists());
    unpack(&sample.layout, &manifest, &out, &options(limit, &everything)).unwrap();
}

#[test]
fn a_layer_that_is_no_tar_is_refused() {
    let sample = universal();
    let (_, mut manifest) = sample.layout.select(&sample.index, &[Platform::wasi_wasm()]).unwrap();
    manifest.layers[0].media_type = MediaType::Other("application/wasm".into());
    let out = sample.folder.path().join("out");
    let error = unpack(&sample.layout, &manifest, &out, &options(LIMIT, &everything)).unwrap_err();
    assert!(matches!(error, UnpackError::Unsupported { .. }));
    manifest.layers[0].media_type = MediaType::LayerTarZstd;
    let error = unpack(&sample.layout, &manifest, &out, &options(LIMIT, &everything)).unwrap_err();
    assert!(matches!(error, UnpackError::Damaged { .. }), "gzip under zstd's name: {error}");
    assert!(!out.exists());
}

/// An image whose one layer is `blob`, of which `tar` is the content, and the
/// outcome of unpacking it.
fn unpacked_zstd(media_type: MediaType, tar: &[u8], blob: &[u8]) -> Result<Unpacked, UnpackError> {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("layout")).unwrap();
    let descriptor = layout.write_blob(media_type, blob).unwrap();
    let layer = Layer { diff_id: Digest::of(tar), descriptor, uncompressed_size: tar.len() as u64 };
    let image = ImageBuilder::new(Platform::wasi_wasm(), ContainerConfig::default()).layer(layer, "x");
    let manifest = layout.read_manifest(&image.write(&layout).unwrap()).unwrap();
    let out = folder.path().join("out");
    let result = unpack(&layout, &manifest, &out, &options(LIMIT, &everything));
    assert_eq!(out.exists(), result.is_ok());
    result
}

fn zstd_frame(content: &[u8]) -> Vec<u8> {
    ::zstd::stream::encode_all(content, 3).unwrap()
}

#[test]
fn a_zstd_layer_of_several_frames_by_another_tool_is_unpacked() {
    let Tar(tar) = Tar::default().file("a").file("b/c");
    // As zstd:chunked writes it: data that is to be skipped, and a frame for each file.
    let skippable = [&0x184d_2a50_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"toc"].concat();
    let blob =
        [zstd_frame(&tar[..700]), skippable.clone(), zstd_frame(b""), zstd_frame(&tar[700..]), skippable];
    for name in
        ["application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.docker.image.rootfs.diff.tar.zstd"]
    {
        let found = unpacked_zstd(MediaType::from(name.to_owned()), &tar, &blob.concat()).unwrap();
        assert_eq!(found.files, 2);
    }
}

#[test]
fn a_damaged_or_truncated_zstd_layer_is_refused() {
    let Tar(tar) = Tar::default().file("a");
    let whole = zstd_frame(&tar);
    let cut = &whole[..whole.len() - 3];
    let followed = [whole.as_slice(), b"more"].concat();
    for blob in [cut, &followed] {
        let error = unpacked_zstd(MediaType::LayerTarZstd, &tar, blob).unwrap_err();
        assert!(matches!(error, UnpackError::Damaged { .. }), "{error}");
    }
    unpacked_zstd(MediaType::LayerTarZstd, &tar, &whole).unwrap();
}

#[test]
fn a_zstd_layer_with_a_window_past_128_mib_is_refused() {
    let Tar(tar) = Tar::default().file("a");
    for (log, fits) in [(27, true), (28, false)] {
        let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        io::Write::write_all(&mut encoder, &tar).unwrap();
        let blob = encoder.finish().unwrap();
        match unpacked_zstd(MediaType::LayerTarZstd, &tar, &blob) {
            Ok(_) => assert!(fits, "{log}"),
            Err(error) => {
                let mut chain = vec![error.to_string()];
                let mut next = std::error::Error::source(&error);
                while let Some(cause) = next {
                    chain.push(cause.to_string());
                    next = cause.source();
                }
                assert!(!fits && chain.concat().contains("at most 128 MiB"), "{log}: {chain:?}");
            }
        }
    }
}

/// 128 MiB of nothing are a few KiB of zstd.
#[test]
fn a_zstd_layer_that_unpacks_to_more_than_allowed_is_refused() {
    let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    io::copy(&mut io::repeat(0).take(1 << 27), &mut encoder).unwrap();
    let blob = encoder.finish().unwrap();
    assert!(blob.len() < 1 << 14, "{}", blob.len());
    let error = unpacked_zstd(MediaType::LayerTarZstd, b"", &blob).unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge { .. }), "{error}");
}

#[test]
fn entries_that_lead_out_are_refused() {
    let long = Tar::default().symlink("a/b/l", ".").symlink("m", "a/b/l/../../..");
    for tar in [
        Tar::default().file("../x"),
        Tar::default().file("a/../../x"),
        Tar::default().file("/x"),
        Tar::default().symlink("a", "/etc"),
        Tar::default().symlink("a", ".."),
        Tar::default().symlink("a/b", "../../x"),
        Tar::default().symlink("a", "b/../../x"),
        Tar::default().symlink("a", ""),
        long,
        Tar::default().entry(EntryType::Link, "a", "/etc/passwd", b""),
        Tar::default().entry(EntryType::Link, "a", "../../etc/passwd", b""),
        Tar::default().entry(EntryType::Link, "a", "missing", b""),
        Tar::default().entry(EntryType::Link, "a", "a", b""),
        Tar::default().entry(EntryType::Char, "null", "", b""),
        Tar::default().entry(EntryType::Block, "disk", "", b""),
        Tar::default().entry(EntryType::Fifo, "pipe", "", b""),
    ] {
        let error = refused(tar);
        assert!(matches!(error, UnpackError::Refused { .. } | UnpackError::Damaged { .. }), "{error}");
    }
}

#[test]
fn nothing_is_written_through_a_link() {
    let through = Tar::default().file("real/x").symlink("d", "real").file("d/y");
    assert!(matches!(refused(through), UnpackError::Refused { .. }));
    let lower = Tar::default().file("real/x").symlink("d", "real");
    let result = unpacked(&[lower, Tar::default().file("d/y")]).1;
    assert!(matches!(result, Err(UnpackError::Refused { .. })));
    // A link in the place of a file is replaced, not followed.
    let (folder, result) = unpacked(&[Tar::default().file("x").symlink("l", "x").file("l")]);
    result.unwrap();
    assert_eq!(files(&folder.path().join("out"))["x"], b"x");
    assert_eq!(files(&folder.path().join("out"))["l"], b"l");
    // Nor does a hard link reach through one.
    let hard = Tar::default().file("real/x").symlink("d", "real").entry(EntryType::Link, "h", "d/x", b"");
    assert!(matches!(refused(hard), UnpackError::Refused { .. }));
}

#[test]
fn links_inside_and_plain_modes_are_kept() {
    let tar =
        Tar::default().file("a/b/x").symlink("a/c/up", "../b/x").entry(EntryType::Link, "hard", "a/b/x", b"");
    let (folder, result) = unpacked(&[tar]);
    result.unwrap();
    let out = folder.path().join("out");
    assert_eq!(std::fs::read(out.join("a/c/up")).unwrap(), b"a/b/x");
    assert_eq!(std::fs::read(out.join("hard")).unwrap(), b"a/b/x");
    let mode = std::fs::metadata(out.join("a/b/x")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644, "without the setuid bit");
}

#[test]
fn whiteouts_hide_what_lower_layers_have() {
    let lower = Tar::default().file("d/a").file("d/b").file("e/x/y").file("e/z").file("top");
    let upper = Tar::default()
        .file("d/.wh.a")
        .file("e/x/new")
        .file("e/.wh..wh..opq")
        .file(".wh.top")
        .file(".wh.never")
        .file("missing/.wh.x")
        .file("d/.wh...")
        .file("d/.wh..")
        .file("d/.wh.");
    let (folder, result) = unpacked(&[lower, upper]);
    result.unwrap();
    assert_eq!(names(&folder), ["d/b", "e/x/new"]);
}

#[test]
fn a_whiteout_does_not_touch_its_own_layer() {
    let lower = Tar::default().file("d/a");
    let upper = Tar::default().file("d/a").file("d/.wh.a").file("d/.wh..wh..opq");
    let (folder, result) = unpacked(&[lower, upper]);
    result.unwrap();
    assert_eq!(names(&folder), ["d/a"]);
}

#[test]
fn a_whiteout_does_not_reach_through_a_link() {
    let lower = Tar::default().file("real/x").symlink("d", "real");
    let (folder, result) = unpacked(&[lower, Tar::default().file("d/.wh.x").file("d/.wh..wh..opq")]);
    result.unwrap();
    assert_eq!(names(&folder), ["d", "real/x"]);
}

#[test]
fn files_and_directories_replace_each_other() {
    let lower = Tar::default().file("a/x").file("b");
    let upper = Tar::default().file("a").entry(EntryType::Directory, "b/", "", b"").file("b/y");
    let (folder, result) = unpacked(&[lower, upper]);
    result.unwrap();
    assert_eq!(names(&folder), ["a", "b/y"]);
}
