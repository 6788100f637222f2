use super::*;

/// 24 MB of small files and their forms, twice asked for: those that are in
/// memory are counted, each once, and no more than there is room for.
#[test]
fn forms_share_one_budget_and_each_counts_by_its_own_size() {
    let folder = tempfile::tempdir().unwrap();
    let content = vec![b'a'; 60_000];
    let codings = wharf_app::Coding::ALL;
    let assets: Vec<Asset> = (0..100)
        .map(|n| {
            let path = format!("{n}.js");
            let size = content.len() as u64;
            fs_err::write(folder.path().join(&path), &content).unwrap();
            let forms = codings.iter().zip(1..).map(|(&coding, less)| {
                let size = size - less;
                let sibling = folder.path().join(coding.sibling(&path));
                fs_err::write(sibling, &content[..crate::contents::to_usize(size)]).unwrap();
                wharf_app::Encoding { coding, size, sha256: Sha256::of(b"") }
            });
            let encodings = forms.collect();
            Asset { path, size, sha256: Sha256::of(b""), media_type: "text/javascript".into(), encodings }
        })
        .collect();
    let site = Site::open(SiteRoot::Sealed(folder.path().to_owned()), &assets).unwrap();
    for _ in 0..2 {
        for (index, asset) in assets.iter().enumerate() {
            for accept in ["identity", "br", "zstd", "gzip"] {
                let request = http::Request::builder().header("accept-encoding", accept).body(()).unwrap();
                let outcome = site.answer(index, asset, &Method::GET, request.headers());
                assert!(matches!(outcome, Outcome::File(_)));
            }
        }
    }
    let kept = site.files.iter().flat_map(|file| &file.cached).filter_map(OnceLock::get);
    let kept: u64 = kept.map(|cached| cached.bytes.len() as u64).sum();
    assert_eq!(site.cached_bytes.load(Ordering::Relaxed), kept);
    assert!(kept <= CACHE && kept > CACHE - 60_000, "{kept}");
}

#[test]
fn a_tag_is_half_of_the_hash_in_quotes() {
    let sha256 = Sha256::of(b"abc");
    assert_eq!(etag_of(&sha256), format!("\"{}\"", &sha256.to_string()[..32]));
}

#[test]
fn without_openat2_no_link_is_followed_either() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(folder.path().join("a/b")).unwrap();
    fs_err::write(folder.path().join("a/b/c"), "c").unwrap();
    fs_err::write(folder.path().join("d"), "d").unwrap();
    fs_err::write(outside.path().join("c"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("c"), folder.path().join("a/link")).unwrap();
    let dir = OwnedFd::from(std::fs::File::open(folder.path()).unwrap());
    for (path, opens) in [("a/b/c", true), ("d", true), ("link/c", false), ("a/link", false), ("x/y", false)]
    {
        assert_eq!(open_beneath(&dir, path).is_ok(), opens, "{path}");
    }
}
