use super::*;

const SHIM: &str = "/opt/wharf/bin/containerd-shim-wasm-v1";

/// A node with files, and a socket that nobody listens at.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let path = node.root().at(Path::new(path));
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        node
    }

    fn root(&self) -> Root {
        Root::new(self.0.path())
    }

    fn read(&self, path: &str) -> Option<String> {
        self.root().read(Path::new(path)).unwrap()
    }

    fn plan(&self, distribution: Distribution, wish: Wish) -> Result<Vec<Change>> {
        let place = Place::find(&self.root(), Some(distribution)).unwrap();
        plan::changes(&place, &self.root(), Path::new(SHIM), wish)
    }

    /// Applies the plan: the paths that change.
    #[track_caller]
    fn make(&self, distribution: Distribution, wish: Wish) -> Vec<String> {
        let changes = self.plan(distribution, wish).unwrap();
        for change in &changes {
            change.apply(&self.root()).unwrap();
            change.forget(&self.root()).unwrap();
        }
        changes.iter().map(|change| shown(change.path())).collect()
    }

    /// Installs, installs again and uninstalls: the files that `install` changes
    /// and what is in them, once all is known to be as it was in the end.
    #[track_caller]
    fn there_and_back(&self, distribution: Distribution) -> Vec<(String, String)> {
        let all = || {
            let files = walk(self.0.path());
            files
                .into_iter()
                .map(|file| (file.clone(), fs_err::read_to_string(file).unwrap()))
                .collect::<Vec<_>>()
        };
        let before = all();
        let paths = self.make(distribution, Wish::Installed);
        let texts = paths.iter().map(|path| (path.clone(), self.read(path).unwrap_or_default())).collect();
        assert_eq!(self.plan(distribution, Wish::Installed).unwrap(), [], "installed twice");
        let _ = self.make(distribution, Wish::Removed);
        assert_eq!(all(), before, "removed again");
        assert_eq!(self.plan(distribution, Wish::Removed).unwrap(), [], "removed twice");
        texts
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

const CONFIG: &str = "/etc/containerd/config.toml";
const DROP_IN: &str = "/etc/containerd/conf.d/wharf.toml";

/// A version 2 file as clouds have it, with comments at all places.
const V2: &str = "# mine\nversion = 2\n# a list\nimports = [\n  \"/etc/containerd/own/a.toml\", # one\n]\n\n\
    [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"pause:3.9\" # fixed\n\
    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\
    # the end\n";

#[test]
fn a_node_without_configuration_gets_one_that_both_versions_read() {
    let made = Files::new(&[]).there_and_back(Distribution::Containerd);
    let [(drop_in, text), (config, main)] = &made[..] else { panic!("{made:?}") };
    assert_eq!((drop_in.as_str(), config.as_str()), (DROP_IN, CONFIG));
    assert!(text.contains("version = 2") && text.contains("runtimes.runc]"), "{text}");
    assert!(text.contains(&format!("runtime_path = \"{SHIM}\"")), "{text}");
    assert!(main.ends_with(&format!("imports = [\"{DROP_IN}\"]\n")), "{main}");
}

#[test]
fn a_file_of_version_3_imports_ours_and_keeps_its_text() {
    let config =
        "# mine\nversion = 3\n\n# what\n[plugins.'io.containerd.cri.v1.runtime']\n  enable_cdi = true\n";
    let made = Files::new(&[(CONFIG, config)]).there_and_back(Distribution::Containerd);
    let [(_, text), (_, main)] = &made[..] else { panic!("{made:?}") };
    assert!(text.contains("version = 3") && !text.contains("runc"), "{text}");
    let added = format!("# By `wharf node install`.\nimports = [\"{DROP_IN}\"]\n");
    assert_eq!(main.replace(&added, ""), config);
}

#[test]
fn a_folder_that_is_imported_already_is_used() {
    let config = "version = 3\nimports = [\"/etc/containerd/certs.toml\", \"/run/conf.d/*.toml\"]\n";
    let node = Files::new(&[(CONFIG, config), ("/etc/containerd/certs.toml", "version = 3\n")]);
    let made = node.there_and_back(Distribution::Containerd);
    assert_eq!(made.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["/run/conf.d/wharf.toml"]);
}

#[test]
fn a_section_of_version_2_is_edited_where_it_is_for_an_import_would_replace_it() {
    let node = Files::new(&[
        (CONFIG, V2),
        ("/etc/containerd/own/a.toml", "version = 2\n[debug]\nlevel = \"info\"\n"),
    ]);
    let made = node.there_and_back(Distribution::Containerd);
    let [(path, text)] = &made[..] else { panic!("{made:?}") };
    assert_eq!(path, CONFIG);
    for kept in ["# mine\n", "# one\n", "# fixed\n", "# the end\n", "runtimes.runc]"] {
        assert_eq!(text.matches(kept).count(), 1, "{kept} in {text}");
    }
    assert!(text.contains("runtimes.wasm]\nruntime_type = \"io.containerd.wasm.v1\""), "{text}");
}

#[test]
fn the_last_file_with_the_section_is_the_one_that_counts() {
    let import =
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/certs.d\"\n";
    let node = Files::new(&[(CONFIG, V2), ("/etc/containerd/own/a.toml", import)]);
    let made = node.there_and_back(Distribution::Containerd);
    let [(path, text)] = &made[..] else { panic!("{made:?}") };
    assert_eq!(path, "/etc/containerd/own/a.toml");
    // With it runc, which containerd 1.7 forgets where another is listed.
    assert!(text.starts_with(import) && text.contains("runtimes.runc]"), "{text}");
}

#[test]
fn k3s_gets_a_template_or_a_line_in_the_one_that_is_there() {
    let folder = "/var/lib/rancher/k3s/agent/etc/containerd";
    let generated = format!("{folder}/config.toml");
    for (version, template) in [(2, "config.toml.tmpl"), (3, "config-v3.toml.tmpl")] {
        let template = format!("{folder}/{template}");
        let config = format!("version = {version}\n");
        let made = Files::new(&[(&generated, &config)]).there_and_back(Distribution::K3s);
        let [(path, text)] = &made[..] else { panic!("{made:?}") };
        assert_eq!(*path, template);
        assert!(text.starts_with("{{ template \"base\" . }}\n\n# BEGIN"), "{text}");
        let own =
            "{{ template \"base\" . }}\n{{ if .IsRunningInUserNS }}{{ end }}\n[debug]\n  level = \"info\"";
        let node = Files::new(&[(&generated, &config), (&template, own)]);
        let _ = node.make(Distribution::K3s, Wish::Installed);
        assert!(node.read(&template).unwrap().starts_with(own));
        assert_eq!(node.plan(Distribution::K3s, Wish::Installed).unwrap(), []);
        let _ = node.make(Distribution::K3s, Wish::Removed);
        assert_eq!(node.read(&template).unwrap().trim_end(), own);
    }
    let imports = format!("version = 3\nimports = [\"{folder}/config-v3.toml.d/*.toml\"]\n");
    let made = Files::new(&[(&generated, &imports)]).there_and_back(Distribution::K3s);
    assert_eq!(made[0].0, format!("{folder}/config-v3.toml.d/wharf.toml"));
    assert!(Files::new(&[]).plan(Distribution::Rke2, Wish::Installed).is_err());
}

#[test]
fn k0s_merges_what_lies_in_its_folder() {
    let config = "# k0s_managed=true\nversion = 3\nimports = [\"/run/k0s/containerd-cri.toml\"]\n";
    let made = Files::new(&[("/etc/k0s/containerd.toml", config)]).there_and_back(Distribution::K0s);
    let [(path, text)] = &made[..] else { panic!("{made:?}") };
    assert!(path == "/etc/k0s/containerd.d/wharf.toml" && text.contains("version = 3"), "{made:?}");
    // One that is not k0s' own is a configuration as any other.
    let made = Files::new(&[("/etc/k0s/containerd.toml", "version = 3\n")]).there_and_back(Distribution::K0s);
    assert_eq!(made.len(), 2, "{made:?}");
}

#[test]
fn microk8s_has_a_template_that_is_edited() {
    let path = "/var/snap/microk8s/current/args/containerd-template.toml";
    let template = V2.replace("pause:3.9", "${PAUSE}");
    let made = Files::new(&[(path, &template)]).there_and_back(Distribution::Microk8s);
    assert!(made[0].1.contains("\"${PAUSE}\"") && made[0].1.contains("runtimes.wasm]"), "{made:?}");
}

#[test]
fn what_is_not_ours_to_change_is_named() {
    let error = |files: &[(&str, &str)]| {
        let error = Files::new(files).plan(Distribution::Containerd, Wish::Installed).unwrap_err();
        format!("{error:#}")
    };
    let found = error(&[(CONFIG, "root = \"/a\"\n")]);
    assert!(found.contains(CONFIG) && found.contains("found none: `containerd config migrate`"), "{found}");
    assert!(error(&[(CONFIG, "version = \n")]).contains("expected TOML"));
    let taken = format!(
        "{V2}[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.wasm]\nruntime_type = \"a\"\n"
    );
    assert!(error(&[(CONFIG, &taken)]).contains("a runtime \"wasm\" is there, of type \"a\""));
    let found = error(&[(CONFIG, "version = 3\n"), (DROP_IN, "version = 3\n")]);
    assert!(found.contains("not by wharf"), "{found}");
    // By hand, as the documentation has it: all is well.
    let by_hand = taken.replace("\"a\"", "\"io.containerd.wasm.v1\"");
    assert_eq!(
        Files::new(&[(CONFIG, &by_hand)]).plan(Distribution::Containerd, Wish::Installed).unwrap(),
        []
    );
}

#[test]
fn the_distribution_is_the_one_whose_socket_is_there() {
    let found =
        |files: &[(&str, &str)]| Place::find(&Files::new(files).root(), None).map(|place| place.distribution);
    let own = ("/run/containerd/containerd.sock", "");
    let k3s = ("/run/k3s/containerd/containerd.sock", "");
    let rke2 = ("/var/lib/rancher/rke2/agent/etc/containerd/config.toml", "");
    assert_eq!(found(&[own]).unwrap(), Distribution::Containerd);
    assert_eq!(found(&[own, k3s, rke2]).unwrap(), Distribution::Rke2);
    assert_eq!(
        found(&[own, k3s, ("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "")]).unwrap(),
        Distribution::K3s
    );
    assert!(matches!(found(&[]), Err(NodeError::NoContainerd { .. })));
}

#[test]
fn a_file_is_replaced_whole_and_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    let node = Files::new(&[(CONFIG, "version = 3\n")]);
    let path = node.root().at(Path::new(CONFIG));
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let _ = node.make(Distribution::Containerd, Wish::Installed);
    assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(walk(node.0.path()).len(), 2, "no copies are left");
}
