//! Files for Ruby's file system, as WASI preview 1 shows them to wasi-vfs.
//!
//! ruby.wasm has its library in a file system inside its memory (wasi-vfs), and
//! a function that adds what it finds in the preopened folders. It asks for
//! them in the order that they are listed in: a real folder's order would make
//! the component differ between machines.

use std::collections::BTreeMap;

/// File type of preview 1.
const FOLDER: u8 = 3;
/// File type of preview 1.
const FILE: u8 = 4;

/// The first descriptor that is not stdin, stdout or stderr.
pub(crate) const FIRST: u32 = 3;

/// A tree of folders. The descriptor of a node is its index from [`FIRST`]
/// on; roots come first.
#[derive(Debug, Default)]
pub(crate) struct Files {
    roots: Vec<String>,
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Folder(BTreeMap<String, usize>),
    File(Vec<u8>),
}

/// A folder at the top: its path, and paths below it with their content.
pub(crate) type Root<'a> = (&'a str, Vec<(&'a str, &'a [u8])>);

impl Files {
    /// Each root's path, and the files below it.
    pub(crate) fn new(roots: &[Root<'_>]) -> Self {
        let mut files = Self::default();
        for (path, _) in roots {
            files.roots.push((*path).to_owned());
            files.nodes.push(Node::Folder(BTreeMap::new()));
        }
        for (root, (_, content)) in roots.iter().enumerate() {
            for (path, bytes) in content {
                files.add(root, path, bytes);
            }
        }
        files
    }

    fn add(&mut self, mut at: usize, path: &str, bytes: &[u8]) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            let next = self.nodes.len();
            // A file where a folder should be: the later one is left out.
            let Node::Folder(entries) = &mut self.nodes[at] else { return };
            at = *entries.entry(part.to_owned()).or_insert(next);
            if at == next {
                self.nodes.push(Node::Folder(BTreeMap::new()));
            }
        }
        let next = self.nodes.len();
        if let Node::Folder(entries) = &mut self.nodes[at] {
            entries.insert(name.to_owned(), next);
            self.nodes.push(Node::File(bytes.to_owned()));
        }
    }

    /// The path of the root with the descriptor `fd`.
    pub(crate) fn root(&self, fd: u32) -> Option<&str> {
        self.roots.get(index(fd)?).map(String::as_str)
    }

    /// The descriptor of what is called `name` in the folder `fd`.
    pub(crate) fn open(&self, fd: u32, name: &[u8]) -> Option<u32> {
        let Node::Folder(entries) = self.nodes.get(index(fd)?)? else { return None };
        let node = *entries.get(std::str::from_utf8(name).ok()?)?;
        u32::try_from(node).ok()?.checked_add(FIRST)
    }

    /// The content of the file `fd`.
    pub(crate) fn content(&self, fd: u32) -> Option<&[u8]> {
        match self.nodes.get(index(fd)?)? {
            Node::File(content) => Some(content),
            Node::Folder(_) => None,
        }
    }

    /// The `filestat` of `fd`.
    pub(crate) fn stat(&self, fd: u32) -> Option<[u8; 64]> {
        let node = self.nodes.get(index(fd)?)?;
        let mut stat = [0; 64];
        stat[8..12].copy_from_slice(&fd.to_le_bytes());
        stat[16] = node.kind();
        if let Node::File(content) = node {
            stat[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
        }
        Some(stat)
    }

    /// The `dirent`s of the folder `fd` from the entry `from` on, as many as
    /// fit into `room` bytes and the beginning of the next one.
    pub(crate) fn list(&self, fd: u32, from: u64, room: usize) -> Option<Vec<u8>> {
        let Node::Folder(entries) = self.nodes.get(index(fd)?)? else { return None };
        let mut listed = Vec::new();
        let from = usize::try_from(from).ok()?;
        for (at, (name, node)) in entries.iter().enumerate().skip(from) {
            if listed.len() >= room {
                break;
            }
            listed.extend((at as u64 + 1).to_le_bytes());
            listed.extend((*node as u64).to_le_bytes());
            listed.extend(u32::try_from(name.len()).ok()?.to_le_bytes());
            listed.extend([self.nodes[*node].kind(), 0, 0, 0]);
            listed.extend(name.as_bytes());
        }
        listed.truncate(room);
        Some(listed)
    }
}

impl Node {
    const fn kind(&self) -> u8 {
        match self {
            Self::Folder(_) => FOLDER,
            Self::File(_) => FILE,
        }
    }
}

fn index(fd: u32) -> Option<usize> {
    usize::try_from(fd.checked_sub(FIRST)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        let content = vec![("b/c.rb", b"c".as_slice()), ("a.rb", b"aa"), ("b/d/e", b"")];
        Files::new(&[("/one", content), ("/two", Vec::new())])
    }

    #[test]
    fn files_are_found_by_folder_and_name() {
        let files = files();
        assert_eq!((files.root(3), files.root(4), files.root(5)), (Some("/one"), Some("/two"), None));
        let folder = files.open(3, b"b").unwrap();
        let file = files.open(folder, b"c.rb").unwrap();
        assert_eq!(files.content(file), Some(b"c".as_slice()));
        assert_eq!((files.content(folder), files.open(4, b"b"), files.open(file, b"x")), (None, None, None));
        assert_eq!((files.stat(file).unwrap()[16], files.stat(folder).unwrap()[16]), (FILE, FOLDER));
        assert_eq!(files.stat(files.open(3, b"a.rb").unwrap()).unwrap()[32], 2);
    }

    #[test]
    fn a_folder_is_listed_by_name_in_pieces() {
        let files = files();
        let all = files.list(3, 0, 1000).unwrap();
        assert_eq!(all.len(), 24 + 4 + 24 + 1);
        assert_eq!((&all[24..28], &all[52..]), (b"a.rb".as_slice(), b"b".as_slice()));
        assert_eq!(files.list(3, 1, 1000).unwrap(), all[28..]);
        assert_eq!(files.list(3, 0, 30).unwrap(), all[..30]);
        assert_eq!(files.list(3, 2, 30).unwrap(), b"");
    }
}
