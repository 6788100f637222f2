use super::*;

struct Files {
    folder: tempfile::TempDir,
}

/// A certificate and its key, in PEM.
fn pair() -> (String, String) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

impl Files {
    fn with(certificate: &str, key: &str) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.write(certificate, key);
        files
    }

    fn write(&self, certificate: &str, key: &str) {
        std::fs::write(self.path("tls.crt"), certificate).unwrap();
        std::fs::write(self.path("tls.key"), key).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self) -> Result<Tls, TlsError> {
        Tls::load(&self.path("tls.crt"), &self.path("tls.key"))
    }
}

#[test]
fn a_certificate_with_its_key_is_taken_and_offers_both_protocols() {
    let (certificate, key) = pair();
    let tls = Files::with(&certificate, &key).load().unwrap();
    let current = tls.current.read().unwrap();
    assert_eq!(current.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
}

#[test]
fn a_key_of_another_certificate_is_called_that() {
    let error = Files::with(&pair().0, &pair().1).load().unwrap_err();
    assert!(matches!(error, TlsError::Mismatch { .. }), "{error}");
    assert!(error.to_string().contains("does not belong to"), "{error}");
}

#[test]
fn what_is_no_pem_is_named_and_no_key_is_repeated() {
    let (certificate, key) = pair();
    let cut = &key[..key.len() / 2];
    for (one, two, what) in
        [("", key.as_str(), "certificate"), (&certificate, "", "key"), (&certificate, cut, "key")]
    {
        let error = Files::with(one, two).load().unwrap_err();
        assert!(matches!(&error, TlsError::Pem { what: found, .. } if *found == what), "{error}");
        assert!(error.hint().is_some());
        assert!(!error.to_string().contains(&key[60..70]), "{error}");
    }
    // The two files confused.
    let error = Files::with(&key, &certificate).load().unwrap_err();
    assert!(matches!(error, TlsError::Pem { what: "certificate", .. }), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let files = Files::with(&pair().0, "");
    std::fs::remove_file(files.path("tls.key")).unwrap();
    let TlsError::Read { what, source } = files.load().unwrap_err() else { panic!("not a read error") };
    assert!(what == "key" && source.to_string().contains("tls.key"), "{source}");
}

#[test]
fn a_bad_new_certificate_keeps_the_old_one() {
    let (certificate, key) = pair();
    let files = Files::with(&certificate, &key);
    let tls = files.load().unwrap();
    let current = || Arc::clone(&tls.current.read().unwrap());
    let first = current();
    files.write(&certificate, &pair().1);
    assert!(tls.reload().is_err());
    assert!(Arc::ptr_eq(&first, &current()));
    let (certificate, key) = pair();
    files.write(&certificate, &key);
    tls.reload().unwrap();
    assert!(!Arc::ptr_eq(&first, &current()));
}

#[test]
fn a_file_without_authorities_is_refused() {
    let files = Files::with("", "");
    let file = files.path("tls.crt");
    assert!(client(file.to_str()).is_err());
    std::fs::write(&file, pair().0).unwrap();
    assert!(client(file.to_str()).is_ok());
}
