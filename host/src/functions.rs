//! Machine code of single functions, kept from one compilation to the next.
//!
//! An interpreter's functions are the same whatever scripts are frozen beside it: with
//! those of the last time at hand, an edited worker is compiled in the time that it takes
//! to read it. Cranelift keys each function by all that its code depends on
//! (`cranelift_codegen::incremental_cache`), and this only keeps what it is given.
//!
//! One file, which is replaced as a whole. It is trusted like the code that it becomes,
//! and lies beside that: see [`crate::CodeDir::new`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use wasmtime::CacheStore;
use wharf_app::Sha256;

/// Most bytes of the file: three interpreters of 40 MB each.
const LARGEST: usize = 128 << 20;

/// What the file begins with: its form, and then the SHA-256 of all that follows.
const MAGIC: &[u8; 16] = b"wharf functions1";

/// Where the entries begin.
const HEAD: usize = MAGIC.len() + 32;

/// Bytes of a key, and of the length after it.
const KEY: usize = 32;
const LENGTH: usize = 4;

type Key = [u8; KEY];

/// The functions in a file.
#[derive(Debug)]
pub(crate) struct Functions {
    path: PathBuf,
    /// Read when first asked.
    known: OnceLock<Known>,
    /// What was compiled since.
    fresh: Mutex<HashMap<Key, Vec<u8>>>,
}

#[derive(Debug, Default)]
struct Known {
    bytes: Vec<u8>,
    index: HashMap<Key, Entry>,
}

#[derive(Debug)]
struct Entry {
    start: usize,
    end: usize,
    was_used: AtomicBool,
}

impl Functions {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, known: OnceLock::new(), fresh: Mutex::default() }
    }

    /// Where they lie in a folder of machine code, by a name that says whose file it is.
    pub(crate) fn path(folder: &Path) -> PathBuf {
        folder.join(format!("{}.functions", Sha256::of(MAGIC)))
    }

    /// Keeps what was compiled, and of what was there before as much as there is room
    /// for. Nothing to keep is nothing to do.
    ///
    /// # Errors
    /// The file can't be written; the old one stays.
    pub(crate) fn save(&self) -> io::Result<()> {
        let fresh = std::mem::take(&mut *self.fresh.lock().unwrap_or_else(PoisonError::into_inner));
        if fresh.is_empty() {
            return Ok(());
        }
        let empty = Known::default();
        let known = self.known.get().unwrap_or(&empty);
        let old = |was_used: bool| {
            let entries = known.index.iter();
            let entries =
                entries.filter(move |(_, entry)| entry.was_used.load(Ordering::Relaxed) == was_used);
            entries.map(|(key, entry)| (key, &known.bytes[entry.start..entry.end]))
        };
        let fresh = fresh.iter().map(|(key, value)| (key, value.as_slice()));
        let mut content = Vec::new();
        for (key, value) in fresh.chain(old(true)).chain(old(false)) {
            let Ok(length) = u32::try_from(value.len()) else { continue };
            if HEAD + content.len() + KEY + LENGTH + value.len() > LARGEST {
                break;
            }
            content.extend_from_slice(key);
            content.extend_from_slice(&length.to_le_bytes());
            content.extend_from_slice(value);
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(MAGIC)?;
        file.write_all(Sha256::of(&content).as_bytes())?;
        file.write_all(&content)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        Ok(())
    }

    fn known(&self) -> &Known {
        // Without it all is compiled, which is slow and nothing worse.
        self.known.get_or_init(|| fs_err::read(&self.path).ok().and_then(Known::parse).unwrap_or_default())
    }
}

impl Known {
    /// None: damaged, of another form, or somebody else's.
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let hash = bytes.strip_prefix(MAGIC)?.get(..HEAD - MAGIC.len())?;
        if Sha256::of(bytes.get(HEAD..)?).as_bytes() != hash {
            return None;
        }
        let mut index = HashMap::new();
        let mut at = HEAD;
        while at < bytes.len() {
            let key: Key = bytes.get(at..at + KEY)?.try_into().ok()?;
            let start = at + KEY + LENGTH;
            let length: [u8; LENGTH] = bytes.get(at + KEY..start)?.try_into().ok()?;
            let end = start.checked_add(u32::from_le_bytes(length) as usize)?;
            bytes.get(start..end)?;
            index.insert(key, Entry { start, end, was_used: AtomicBool::new(false) });
            at = end;
        }
        Some(Self { bytes, index })
    }
}

impl CacheStore for Functions {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let known = self.known();
        let entry = known.index.get(key)?;
        entry.was_used.store(true, Ordering::Relaxed);
        Some(Cow::Borrowed(&known.bytes[entry.start..entry.end]))
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> bool {
        let Ok(key) = Key::try_from(key) else { return false };
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compiled_is_there_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = Functions::path(&folder.path().join("made/when/needed"));
        let first = Functions::new(path.clone());
        assert_eq!(first.get(&[1; KEY]), None);
        assert!(first.insert(&[1; KEY], b"one".to_vec()) && first.insert(&[2; KEY], Vec::new()));
        assert!(!first.insert(b"short", Vec::new()));
        first.save().unwrap();
        let second = Functions::new(path.clone());
        assert_eq!(second.get(&[1; KEY]).as_deref(), Some(&b"one"[..]));
        assert_eq!(second.get(&[2; KEY]).as_deref(), Some(&b""[..]));
        assert!(second.insert(&[3; KEY], b"three".to_vec()));
        second.save().unwrap();
        let third = Functions::new(path);
        assert_eq!(third.get(&[1; KEY]).as_deref(), Some(&b"one"[..]));
        assert_eq!(third.get(&[3; KEY]).as_deref(), Some(&b"three"[..]));
    }

    #[test]
    fn where_there_is_no_room_what_was_not_used_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let half = vec![7; LARGEST / 2 - HEAD - KEY - LENGTH];
        let first = Functions::new(path.clone());
        assert!(first.insert(&[1; KEY], half.clone()) && first.insert(&[2; KEY], half.clone()));
        first.save().unwrap();
        let second = Functions::new(path.clone());
        assert!(second.get(&[1; KEY]).is_some());
        assert!(second.insert(&[3; KEY], vec![3; 1000]));
        second.save().unwrap();
        let third = Functions::new(path.clone());
        let has = |n: u8| third.get(&[n; KEY]).is_some();
        assert_eq!([has(1), has(2), has(3)], [true, false, true]);
        assert!(fs_err::metadata(path).unwrap().len() <= LARGEST as u64);
    }

    #[test]
    fn a_damaged_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let functions = Functions::new(path.clone());
        assert!(functions.insert(&[1; KEY], b"one".to_vec()));
        functions.save().unwrap();
        let whole = fs_err::read(&path).unwrap();
        assert_eq!(Known::parse(whole.clone()).unwrap().index.len(), 1);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(Known::parse(damaged).is_none(), "byte {at}");
            assert!(
                Known::parse(whole[..at].to_vec()).is_none_or(|known| known.index.is_empty()),
                "{at} bytes"
            );
        }
    }

    #[test]
    fn a_component_is_compiled_to_the_same_code_with_and_without_what_is_kept() {
        use crate::engine::{Compiler, CompilerTarget};

        let folder = tempfile::tempdir().unwrap();
        let module = |text: &str| {
            let path = folder.path().join("x.wasm");
            let functions = "(func (export \"a\") (param i32) (result i32)
                (loop $l (br_if $l (i32.eqz (local.get 0)))) (i32.load (local.get 0)))
                (func (export \"b\") (param i32) (result i32) (call 0 (i32.const 7)))";
            let wat = format!("(module (memory 1) {functions} (data (i32.const 0) \"{text}\"))");
            fs_err::write(&path, wat::parse_str(wat).unwrap()).unwrap();
            path
        };
        for target in [CompilerTarget::Native, CompilerTarget::Portable(crate::Architecture::Arm64)] {
            let kept = folder.path().join(format!("{target:?}"));
            let plain = |text: &str| Compiler::new(target).unwrap().compile(&module(text)).unwrap();
            let keeping = || Compiler::keeping(target, &kept).unwrap();
            assert_eq!(keeping().compile(&module("one")).unwrap(), plain("one"));
            let again = keeping();
            assert_eq!(again.compile(&module("two")).unwrap(), plain("two"));
            assert_ne!(plain("one"), plain("two"));
            assert_eq!(again.id(), Compiler::new(target).unwrap().id());
        }
    }
}
