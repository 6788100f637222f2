//! What is refused when an app is loaded, and what the user is told.

use std::collections::BTreeMap;
use std::path::Path;

use wharf_app::{Grants as Description, HostVariable, Limits, Value};

use super::*;

fn worker(grants: &str, env: &[(&str, Value)]) -> Worker {
    let grants: Description = toml::from_str(grants).unwrap();
    let env: BTreeMap<_, _> = env.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Worker {
        name: "api".into(),
        pattern: "/api".into(),
        source: "api.wasm".into(),
        component: 0,
        abi: Default::default(),
        reuse: 1,
        env,
        grants,
        limits: Limits::default(),
    }
}

fn granted(grants: &str, env: &[(&str, Value)], site: &SiteRoot) -> Result<Arc<Grants>, GrantError> {
    let variable = |name: &str| (name == "SET").then(|| "from the host".to_owned());
    Granter::with_environment((site, Path::new("/none")), variable).grants(&worker(grants, env))
}

fn no_site() -> SiteRoot {
    SiteRoot::Live(Vec::new())
}

fn mount(host: &Path, write: &str) -> String {
    format!("mounts = [{{ host = {:?}, guest = '/data'{write} }}]", host.display().to_string())
}

fn refused(grants: &str, site: &SiteRoot) -> (String, Option<String>) {
    let error = granted(grants, &[], site).err().expect("it is refused");
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    (text, error.hint())
}

fn variable(from: &str, optional: bool) -> Value {
    Value::Host(HostVariable { from: from.into(), optional, default: None })
}

#[test]
fn a_worker_has_the_variables_that_it_was_granted_and_no_others() {
    let env = [("A", "1".into()), ("B", variable("SET", false)), ("C", variable("UNSET", true))];
    let grants = granted("", &env, &no_site()).unwrap();
    assert_eq!(grants.env, [("A".into(), "1".into()), ("B".into(), "from the host".to_owned())]);
    assert!(grants.filesystem.is_none() && grants.egress.is_none());
}

#[test]
fn a_missing_variable_is_named_with_its_worker() {
    let error = granted("", &[("DATABASE", variable("UNSET", false))], &no_site()).err().unwrap();
    assert_eq!(error.to_string(), "worker \"api\" can't have env \"DATABASE\"");
    assert!(error.hint().unwrap().contains("docker run -e UNSET="), "{:?}", error.hint());
    for setting in ["config = { k = { from = 'UNSET' } }", "kv = { k = { from = 'UNSET' } }"] {
        let (text, _) = refused(setting, &no_site());
        assert!(text.ends_with("\"k\": environment variable UNSET is not set"), "{text}");
    }
}

#[test]
fn a_mounted_folder_must_exist_and_be_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    assert!(granted(&mount(folder.path(), ""), &[], &no_site()).unwrap().filesystem.is_some());
    let (text, hint) = refused(&mount(&folder.path().join("none"), ""), &no_site());
    assert!(text.contains("/none\": cannot open it: ") && text.contains("worker \"api\""), "{text}");
    assert!(hint.unwrap().contains("docker run -v"));
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(refused(&mount(&file, ""), &no_site()).0.contains("expected a folder, found something else"));
}

#[test]
fn a_worker_never_writes_to_static_files() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    let inner = site.join("uploads");
    std::fs::create_dir_all(&inner).unwrap();
    let page = site.join("index.html");
    std::fs::write(&page, "").unwrap();
    for writable in [folder.path(), &site, &inner] {
        let (text, _) = refused(&mount(writable, ", write = true"), &SiteRoot::Sealed(site.clone()));
        assert!(text.contains("the site's files"), "{text}");
    }
    let (text, _) = refused(&mount(&site, ", write = true"), &SiteRoot::Live(vec![page.clone()]));
    assert!(text.contains("the site's files"), "{text}");
    assert!(granted(&mount(&site, ""), &[], &SiteRoot::Sealed(site)).is_ok(), "reading is harmless");
    let beside = mount(&inner, ", write = true");
    assert!(granted(&beside, &[], &SiteRoot::Live(vec![page])).is_ok());
}

#[test]
fn a_store_is_opened_at_start_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let kv = |place: &Path| format!("kv = {{ default = {:?} }}", place.display().to_string());
    assert!(granted(&kv(&folder.path().join("a/b")), &[], &no_site()).is_ok(), "folders are made");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (text, hint) = refused(&kv(&file), &no_site());
    assert!(text.contains("store \"default\": cannot make its folder"), "{text}");
    assert!(hint.unwrap().contains("65532"));
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("kv.sqlite"), "this is no database, and long enough to show that").unwrap();
    assert!(refused(&kv(&other), &no_site()).0.contains("kv.sqlite: file is not a database"));
}

#[test]
fn a_url_of_a_store_comes_from_the_host_and_is_not_repeated() {
    let kv = "kv = { default = { from = 'KV' } }";
    let given = |variable: fn(&str) -> Option<String>| {
        Granter::with_environment((&no_site(), Path::new("/none")), variable)
            .grants(&worker(kv, &[]))
            .map(drop)
    };
    assert!(given(|_| Some("redis://:hunter2@127.0.0.1:1/3".into())).is_ok(), "it starts without the server");
    for (variable, expected) in [
        ((|_| Some("redis://:hunter2@cache:x".into())) as fn(&str) -> Option<String>, "a port from 1"),
        (|_| Some("mysql://:hunter2@cache".into()), "unknown kind of store \"mysql\""),
        (|name| Some(if name == "KV" { "rediss://:hunter2@cache" } else { "/none" }.into()), "/none"),
    ] {
        let error = given(variable).unwrap_err();
        let mut text = format!("{error} {error:?} {:?}", error.hint());
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text += &format!(" {error}");
            cause = error.source();
        }
        assert!(text.contains("store \"default\"") && text.contains(expected), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_worker_never_writes_to_the_folder_of_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(place("kv/inner")).unwrap();
    std::fs::create_dir_all(place("files/sub")).unwrap();
    std::os::unix::fs::symlink(place("kv"), place("files/link")).unwrap();
    std::os::unix::fs::symlink(place("kv"), place("elsewhere")).unwrap();
    std::os::unix::fs::symlink("files/link", place("chain")).unwrap();
    let kv = |name: &str| format!("kv = {{ default = {:?} }}", place(name).display().to_string());
    let write = |name: &str| mount(&place(name), ", write = true");
    for (grants, store) in [
        (write(""), "kv"),
        (write("kv"), "kv"),
        (write("kv/inner"), "kv"),
        (write("elsewhere"), "kv"),
        (write("kv"), "elsewhere"),
        // What leads to the store could be made to lead elsewhere.
        (write("files"), "files/link"),
        (write("files"), "files/link/inner"),
        (write("files"), "chain"),
    ] {
        // By one worker, and by two in either order.
        let (both, mount, kv) =
            (format!("{grants}\n{}", kv(store)), worker(&grants, &[]), worker(&kv(store), &[]));
        for workers in [vec![worker(&both, &[])], vec![mount.clone(), kv.clone()], vec![kv, mount]] {
            let site = no_site();
            let mut granter = Granter::with_environment((&site, Path::new("/none")), |_| None);
            let granted: Result<Vec<_>, _> = workers.iter().map(|worker| granter.grants(worker)).collect();
            let error = granted.err().unwrap_or_else(|| panic!("{grants} with {store}"));
            let GrantError::Mount { source, .. } = &error else { panic!("{error}") };
            let real = place("kv").canonicalize().unwrap();
            assert!(
                source.to_string().contains(&format!("key-value store, found {}", real.display())),
                "{source}"
            );
            assert!(error.hint().unwrap().contains("/data/files"));
        }
    }
    let beside = format!("{}\n{}", write("files/sub"), kv("kv"));
    assert!(granted(&beside, &[], &no_site()).is_ok());
    let reading = format!("{}\n{}", mount(&place("kv"), ""), kv("kv"));
    assert!(granted(&reading, &[], &no_site()).is_ok(), "reading is harmless");
}
