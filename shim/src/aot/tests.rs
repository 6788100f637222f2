//! The cache with a shell script for a compiler.

use super::*;

/// A compiler that counts its runs, and an app with one component.
struct Node {
    folder: tempfile::TempDir,
    component: Component,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Self {
            component: Component {
                file: "workers/a.wasm".into(),
                size: 4,
                sha256: Sha256::of(b"wasm"),
                wasi: Default::default(),
            },
            folder,
        };
        node.write_compiler("engine-1", "sleep 0.1; { echo code; cat \"$2\"; } > \"$4\"");
        std::fs::create_dir_all(node.path("root/app/workers")).unwrap();
        std::fs::write(node.path("root/app/workers/a.wasm"), "wasm").unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_compiler(&self, engine: &str, compile: &str) {
        let runs = self.path("runs");
        let script = format!(
            "#!/bin/sh\necho run >> {}\n[ \"$2\" = --engine-id ] && exec echo {engine}\n{compile}\n",
            runs.display()
        );
        // A new file each time, as an upgrade makes.
        let path = self.path("wharf");
        std::fs::write(self.path("wharf.new"), script).unwrap();
        std::fs::set_permissions(self.path("wharf.new"), Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(self.path("wharf.new"), path).unwrap();
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count()
    }

    fn cache(&self) -> Result<Cache, AotError> {
        Cache::open_at(&self.path("cache"), self.path("wharf"))
    }

    fn get(&self) -> Result<String, AotError> {
        let rootfs = Rootfs::open(&self.path("root")).unwrap();
        let code = self.cache()?.get(&self.component, &rootfs)?;
        let mut text = String::new();
        File::from(code).read_to_string(&mut text).unwrap();
        Ok(text)
    }

    fn code(&self) -> PathBuf {
        self.path(&format!("cache/engine-1/{}.cwasm", self.component.sha256))
    }
}

#[test]
fn a_component_is_compiled_once() {
    let node = Node::new();
    for _ in 0..3 {
        assert_eq!(node.get().unwrap(), "code\nwasm");
    }
    assert_eq!(node.runs(), 2, "once for the engine, once to compile");
    let mode = std::fs::metadata(node.code()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn those_who_ask_at_once_share_one_compilation() {
    let node = Node::new();
    node.cache().unwrap();
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(|| node.get().unwrap())).collect();
        for answer in asked {
            assert_eq!(answer.join().unwrap(), "code\nwasm");
        }
    });
    assert_eq!(node.runs(), 2);
}

#[test]
fn another_engine_has_its_own_entries() {
    let node = Node::new();
    node.get().unwrap();
    node.write_compiler("engine-2", "echo other > \"$4\"");
    assert_eq!(node.get().unwrap(), "other\n");
    assert!(node.code().exists());
}

#[test]
fn an_entry_of_another_length_is_made_anew() {
    let node = Node::new();
    node.get().unwrap();
    std::fs::write(node.code(), "torn").unwrap();
    assert_eq!(node.get().unwrap(), "code\nwasm");
}

#[test]
fn an_entry_that_others_may_write_is_made_anew() {
    let node = Node::new();
    node.get().unwrap();
    std::fs::set_permissions(node.code(), Permissions::from_mode(0o666)).unwrap();
    node.get().unwrap();
    assert_eq!(node.runs(), 3);
}

#[test]
fn a_component_that_differs_from_the_manifest_is_refused() {
    let node = Node::new();
    std::fs::write(node.path("root/app/workers/a.wasm"), "evil").unwrap();
    let error = node.get().unwrap_err();
    assert!(matches!(error, AotError::Digest { .. }), "{error}");
    std::fs::write(node.path("root/app/workers/a.wasm"), "wasm and more").unwrap();
    assert!(matches!(node.get().unwrap_err(), AotError::Digest { .. }));
    std::fs::remove_file(node.path("root/app/workers/a.wasm")).unwrap();
    assert!(matches!(node.get().unwrap_err(), AotError::Read { .. }));
    assert!(!node.code().exists());
}

#[test]
fn a_failed_compilation_is_quoted_and_leaves_no_entry() {
    let node = Node::new();
    node.write_compiler("engine-1", "echo half > \"$4\"; echo 'no such thing' >&2; exit 1");
    let error = node.get().unwrap_err().to_string();
    assert_eq!(error, "cannot compile component \"workers/a.wasm\": no such thing");
    let left: Vec<_> = std::fs::read_dir(node.path("cache/engine-1")).unwrap().collect();
    assert_eq!(left.len(), 1, "the lock alone: {left:?}");
}

#[test]
fn a_folder_that_others_may_write_is_not_used() {
    let node = Node::new();
    std::fs::create_dir(node.path("cache")).unwrap();
    std::fs::set_permissions(node.path("cache"), Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(node.get().unwrap_err(), AotError::Untrusted { .. }));
}

#[test]
fn an_engine_that_is_not_a_plain_name_is_refused() {
    for text in ["", ".", "../up", "a/b", "engines", "a b", &"x".repeat(129)] {
        assert!(!is_engine_id(text), "{text:?}");
    }
    assert!(is_engine_id("wharf-0.1.0_wasmtime-48.2-x86_64"));
}
