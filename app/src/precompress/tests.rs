use std::cell::Cell;
use std::io::Read as _;

use tempfile::TempDir;

use super::*;
use crate::project::Project;

/// A project with a site of these files, and a cache.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        for (path, content) in files {
            site.write(path, content);
        }
        site
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("project/public").join(path)
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.path(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }

    fn workshop(&self) -> Workshop {
        Workshop::new(self.folder.path().join("cache"), self.folder.path().join("runtimes"))
    }

    fn described(&self) -> BuiltApp {
        let project = Project::open(&self.folder.path().join("project")).unwrap();
        BuiltApp::build(&project, &self.workshop(), &|_| {}).unwrap()
    }

    /// The app with its encoded forms, and of how many files they were made now.
    fn built(&self) -> (BuiltApp, usize) {
        let mut app = self.described();
        let made = self.precompress(&mut app).unwrap();
        (app, made)
    }

    fn precompress(&self, app: &mut BuiltApp) -> Result<usize, PrecompressError> {
        let made = Cell::new(0);
        app.precompress(&self.workshop(), &|files| made.set(files))?;
        Ok(made.get())
    }

    /// Paths of the cache below it, sorted.
    fn kept(&self) -> Vec<PathBuf> {
        let kept = walkdir::WalkDir::new(self.workshop().cache).sort_by_file_name();
        kept.into_iter().filter_map(|entry| entry.ok().map(walkdir::DirEntry::into_path)).collect()
    }
}

/// The codings of the file at `path`.
fn codings(app: &BuiltApp, path: &str) -> Vec<Coding> {
    let asset = app.manifest.site.files.iter().find(|asset| asset.path == path).unwrap();
    asset.encodings.iter().map(|form| form.coding).collect()
}

fn decode(coding: Coding, encoded: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut encoded = encoded;
    match coding {
        Coding::Br => brotli::BrotliDecompress(&mut encoded, &mut decoded).unwrap(),
        Coding::Zstd => zstd::stream::copy_decode(encoded, &mut decoded).unwrap(),
        Coding::Gzip => {
            flate2::read::GzDecoder::new(encoded).read_to_end(&mut decoded).map(drop).unwrap();
        }
    }
    decoded
}

/// Text as long as asked for, of words in no order, the same each time.
fn text(length: usize, seed: u32) -> Vec<u8> {
    let words = ["function ", "return ", "const ", "value", "index", "(", ");\n", " = ", "0x", "wharf"];
    let mut state = seed | 1;
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(words[(state >> 24) as usize % words.len()].as_bytes());
    }
    text.truncate(length);
    text
}

/// Bytes that no encoder makes shorter.
fn noise(length: usize) -> Vec<u8> {
    (0_u32..).flat_map(|n| *Sha256::of(&n.to_le_bytes()).as_bytes()).take(length).collect()
}

#[test]
fn each_form_is_the_files_content_and_described_as_it_lies_in_the_cache() {
    let content = text(20_000, 7);
    let site = Site::new(&[("a.js", &content), ("b/c.html", &text(5_000, 9))]);
    let (app, made) = site.built();
    assert_eq!(made, 2);
    assert_eq!(codings(&app, "a.js"), Coding::ALL);
    let described = app.manifest.site.files.iter().flat_map(|asset| &asset.encodings);
    assert_eq!(app.encodings.len(), 6);
    for (form, file) in described.clone().zip(&app.encodings) {
        assert_eq!(Sha256::of_reader(fs_err::File::open(file).unwrap()).unwrap(), (form.sha256, form.size));
    }
    for (form, file) in described.zip(&app.encodings).take(3) {
        assert!(form.size < 19_000);
        assert!(decode(form.coding, &fs_err::read(file).unwrap()) == content, "{}", form.coding.name());
    }
}

/// What was made by an older version must not be taken for what this one
/// makes: when this fails, raise `FORM`. It fails on a machine, too, where the
/// encoders decide otherwise: then images differ with the builder's machine.
#[test]
fn the_bytes_of_each_coding_are_those_of_the_form() {
    let hash = |coding, length| {
        let content = text(length, 3);
        let mut encoded = Vec::new();
        encode(coding, length as u64, &mut content.as_slice(), &mut encoded).unwrap();
        assert!(decode(coding, &encoded) == content);
        Sha256::of(&encoded).to_string()[..8].to_owned()
    };
    let found = Coding::ALL.map(|coding| hash(coding, 100_000));
    assert_eq!(found, ["edc10819", "49bfa5b8", "3224d747"], "the encoders write other bytes");
    // Of another quality.
    assert_eq!(hash(Coding::Br, 530_000), "a976f7df");
}

#[test]
fn what_saves_less_than_a_twentieth_is_left_out() {
    // 3% of it is zeros, then 8%.
    for (zeros, expected) in [(300, 0), (800, 3)] {
        let mut content = noise(10_000 - zeros);
        content.resize(10_000, 0);
        let site = Site::new(&[("a.bin", &content)]);
        let (app, _) = site.built();
        assert_eq!(codings(&app, "a.bin").len(), expected, "{zeros} zeros");
    }
}

#[test]
fn small_files_and_compressed_types_are_left_alone() {
    let content = text(5_000, 1);
    let left =
        ["a.png", "a.WOFF2", "a.whl", "a.js.gz", "a.br", "a.mp4", "a.zip", "a.conda", "a.ogg", "a.woff"];
    let taken = ["a.svg", "a.wasm", "a.ttf", "a.ico", "a.ipynb", "LICENSE", "a.wav", "a.mjs"];
    let files: Vec<(&str, &[u8])> =
        left.iter().chain(&taken).map(|path| (*path, content.as_slice())).collect();
    let site = Site::new(&files);
    site.write("small.txt", &content[..255]);
    site.write("enough.txt", &[b' '; 256]);
    let (app, _) = site.built();
    for path in left.into_iter().chain(["small.txt"]) {
        assert_eq!(codings(&app, path), [], "{path}");
    }
    for path in taken.into_iter().chain(["enough.txt"]) {
        assert_eq!(codings(&app, path), Coding::ALL, "{path}");
    }
}

#[test]
fn a_file_of_the_users_own_stands_in_place_of_a_sibling() {
    let content = text(5_000, 1);
    let site = Site::new(&[
        ("a.js", &content),
        ("a.js.gz", b"mine"),
        ("b.js", &content),
        ("b.js.br/c.txt", b"a folder of that name"),
        ("c.js", &content),
        ("c.js.brief", b"no sibling"),
    ]);
    let (app, _) = site.built();
    assert_eq!(codings(&app, "a.js"), [Coding::Br, Coding::Zstd]);
    assert_eq!(codings(&app, "b.js"), [Coding::Zstd, Coding::Gzip]);
    assert_eq!(codings(&app, "c.js"), Coding::ALL);
    // One content, three files: the list is by file all the same.
    assert_eq!(app.encodings.len(), 7);
}

#[test]
fn a_sibling_whose_name_no_folder_could_hold_is_left_out() {
    let name = format!("{}.js", "a".repeat(249));
    let site = Site::new(&[(&name, &text(5_000, 1))]);
    assert_eq!(codings(&site.built().0, &name), [Coding::Br, Coding::Gzip]);
}

/// Proved by taking the files away: who would compress one can't read it.
#[test]
fn nothing_is_made_again_for_an_unchanged_site_not_even_what_does_not_pay() {
    let site = Site::new(&[("a.js", &text(5_000, 1)), ("noise.bin", &noise(5_000))]);
    let (first, made) = site.built();
    assert_eq!((made, first.encodings.len()), (2, 3));
    let kept = site.kept();
    let mut again = site.described();
    fs_err::remove_dir_all(site.path("")).unwrap();
    assert_eq!(site.precompress(&mut again).unwrap(), 0);
    assert_eq!(again.manifest, first.manifest);
    assert_eq!(again.encodings, first.encodings);
    assert_eq!(site.kept(), kept);
}

#[test]
fn only_the_changed_file_is_made_again() {
    let site = Site::new(&[("a.js", &text(5_000, 1)), ("b.js", &text(5_000, 2)), ("c.js", &text(5_000, 3))]);
    let (first, _) = site.built();
    site.write("b.js", &text(6_000, 4));
    let mut changed = site.described();
    for unchanged in ["a.js", "c.js"] {
        fs_err::remove_file(site.path(unchanged)).unwrap();
    }
    assert_eq!(site.precompress(&mut changed).unwrap(), 1);
    let forms = |app: &BuiltApp, at: usize| app.manifest.site.files[at].encodings.clone();
    assert_eq!((forms(&changed, 0), forms(&changed, 2)), (forms(&first, 0), forms(&first, 2)));
    assert_ne!(forms(&changed, 1), forms(&first, 1));
}

#[test]
fn what_is_missing_or_broken_in_the_cache_is_made_again() {
    let site = Site::new(&[("a.js", &text(5_000, 1))]);
    let (first, _) = site.built();
    let record = site.kept().into_iter().find(|path| path.extension().is_some_and(|e| e == "json")).unwrap();
    let whole = fs_err::read(&first.encodings[0]).unwrap();
    fs_err::remove_file(&first.encodings[1]).unwrap();
    fs_err::write(&first.encodings[0], &whole[1..]).unwrap();
    let (again, made) = site.built();
    assert_eq!((made, &again.manifest), (1, &first.manifest));
    assert_eq!(fs_err::read(&first.encodings[0]).unwrap(), whole);
    assert!(first.encodings[1].is_file());
    fs_err::write(record, b"{").unwrap();
    let (again, made) = site.built();
    assert_eq!((made, again.manifest), (1, first.manifest));
}

#[test]
fn a_file_that_changes_while_the_app_is_built_is_named_and_nothing_is_kept_of_it() {
    let content = text(5_000, 1);
    for other in [&text(5_000, 2)[..], &content[..4_999], &text(9_000, 1), b""] {
        let site = Site::new(&[("a.js", &content)]);
        let mut app = site.described();
        site.write("a.js", other);
        let error = site.precompress(&mut app).unwrap_err();
        assert!(matches!(&error, PrecompressError::Changed { path, .. } if path == "a.js"), "{error}");
        assert!(error.hint().is_some());
        assert!(site.kept().iter().all(|path| path.is_dir()), "{:?}", site.kept());
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_an_error_that_names_it() {
    let site = Site::new(&[("a.js", &text(5_000, 1))]);
    fs_err::write(site.workshop().cache, b"a file").unwrap();
    let mut app = site.described();
    let error = site.precompress(&mut app).unwrap_err();
    let PrecompressError::Keep(source) = error else { panic!("{error}") };
    assert!(source.to_string().contains("encodings"), "{source}");
}
