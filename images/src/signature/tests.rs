//! Against what cosign 3.1.1 (bundle) and 2.5.0 (simple signing) wrote.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::*;
use crate::{Descriptor, MediaType};

const COSIGN_KEY: &str = include_str!("fixtures/cosign.key");
const COSIGN_PUB: &str = include_str!("fixtures/cosign.pub");
const OPENSSL_KEY: &str = include_str!("fixtures/openssl.pem");
const OPENSSL_PUB: &str = include_str!("fixtures/openssl.pub");
const ED25519_KEY: &str = include_str!("fixtures/ed25519.pem");
const BUNDLE_BY_COSIGN: &str = include_str!("fixtures/bundle.json");
const PAYLOAD_BY_COSIGN: &str = include_str!("fixtures/payload.json");
const SIGNATURE_BY_COSIGN: &str =
    "MEYCIQDwQRqbxnNuvrYhxsW/R9vd013i5Yh6ROjlZEqOiTW+KAIhALiQSSOHIqoxxlp9jLUzND8fg1OKJ4Sm+qxJUcdglOrz";
const SIGNED: &str = "sha256:c6a8f060637c4145529017b00c048dffcf26f4a35ccbc62a37526caa60ad8008";

fn secret() -> io::Result<Zeroizing<String>> {
    Ok(Zeroizing::new("secret".into()))
}

fn unasked() -> io::Result<Zeroizing<String>> {
    panic!("a key without encryption has no password")
}

fn private(pem: &str) -> PrivateKey {
    PrivateKey::from_pem(pem.as_bytes(), unasked).unwrap()
}

fn public(pem: &str) -> PublicKey {
    PublicKey::from_pem(pem.as_bytes()).unwrap()
}

fn signed() -> Digest {
    SIGNED.parse().unwrap()
}

/// The bundle by cosign, changed.
fn changed(from: &str, to: &str) -> Vec<u8> {
    assert!(BUNDLE_BY_COSIGN.contains(from));
    BUNDLE_BY_COSIGN.replace(from, to).into_bytes()
}

/// A bundle with this statement, rightly signed.
fn bundle_of(statement: &str, key: &PrivateKey) -> Vec<u8> {
    let envelope = dsse::Envelope::sign(statement.as_bytes(), key).unwrap();
    let envelope = serde_json::to_string(&envelope).unwrap();
    format!(r#"{{"mediaType":"{BUNDLE}","verificationMaterial":{{}},"dsseEnvelope":{envelope}}}"#)
        .into_bytes()
}

#[test]
fn a_bundle_by_cosign_verifies_with_its_key_and_image_alone() {
    let bundle = BUNDLE_BY_COSIGN.as_bytes();
    assert_eq!(verify(bundle, &signed(), &public(COSIGN_PUB)), Ok(Verified::default()));
    let hint = Some("MB81EUTTiiw8LOlrwYSt2MnoAOTAYDXt3QrHvqmQl2M=".to_owned());
    assert_eq!(verify(bundle, &signed(), &public(OPENSSL_PUB)), Err(Rejection::OtherKey { hint }));
    let other = Digest::of(b"other");
    let found = SIGNED.to_owned();
    assert_eq!(
        verify(bundle, &other, &public(COSIGN_PUB)),
        Err(Rejection::OtherImage { expected: other, found })
    );
}

#[test]
fn a_simple_signature_by_cosign_verifies_with_its_key_and_image_alone() {
    let payload = PAYLOAD_BY_COSIGN.as_bytes();
    let check = |payload: &[u8], signature: &str, image: &Digest, key: &str| {
        verify_simple(payload, signature, image, &public(key))
    };
    assert_eq!(check(payload, SIGNATURE_BY_COSIGN, &signed(), COSIGN_PUB), Ok(Verified::default()));
    let other_key = check(payload, SIGNATURE_BY_COSIGN, &signed(), OPENSSL_PUB);
    assert_eq!(other_key, Err(Rejection::OtherKey { hint: None }));
    let other_image = check(payload, SIGNATURE_BY_COSIGN, &Digest::of(b""), COSIGN_PUB);
    assert!(matches!(other_image, Err(Rejection::OtherImage { .. })), "{other_image:?}");
    let mut forged = payload.to_vec();
    forged[20] ^= 1;
    assert!(check(&forged, SIGNATURE_BY_COSIGN, &signed(), COSIGN_PUB).is_err());
    for signature in ["", "!", "AAAA"] {
        assert!(check(payload, signature, &signed(), COSIGN_PUB).is_err());
    }
}

#[test]
fn simple_signing_of_another_type_is_refused() {
    let key = private(OPENSSL_KEY);
    let payload = PAYLOAD_BY_COSIGN.replace("cosign container image signature", "atomic container signature");
    let signature = STANDARD.encode(key.sign(payload.as_bytes()).unwrap());
    let result = verify_simple(payload.as_bytes(), &signature, &signed(), &key.public_key());
    assert!(matches!(result, Err(Rejection::Malformed { .. })), "{result:?}");
}

#[test]
fn what_is_signed_verifies_with_each_kind_of_key() {
    let cosign = PrivateKey::from_pem(COSIGN_KEY.as_bytes(), secret).unwrap();
    assert_eq!(cosign.public_key(), public(COSIGN_PUB));
    assert_eq!(private(OPENSSL_KEY).public_key(), public(OPENSSL_PUB));
    for key in [cosign, private(OPENSSL_KEY), private(ED25519_KEY)] {
        let artifact = sign(&signed(), &key).unwrap();
        assert_eq!(artifact.artifact_type, BUNDLE);
        assert_eq!(verify(&artifact.content, &signed(), &key.public_key()), Ok(Verified::default()));
        assert!(verify(&artifact.content, &Digest::of(b""), &key.public_key()).is_err());
    }
}

#[test]
fn a_changed_bundle_is_refused() {
    let key = public(COSIGN_PUB);
    let refused = |bundle: &[u8]| verify(bundle, &signed(), &key).unwrap_err();
    assert!(matches!(refused(&changed("eyJfdHlw", "eyJfdHlx")), Rejection::Mismatch));
    assert!(matches!(refused(&changed("MEYCIQDw", "MEYCIQDx")), Rejection::Mismatch));
    for (from, to) in [
        ("bundle.v0.3+json", "bundle.v0.9+json"),
        ("application/vnd.in-toto+json", "text/plain"),
        ("dsseEnvelope", "messageSignature"),
        (r#""signatures":[{"#, r#""signatures":[{"sig":"AAAA"},{"#),
        ("MEYCIQDw", "MEYCIQD!"),
        ("eyJfdHlw", "eyJfdHl="),
    ] {
        let rejection = refused(&changed(from, to));
        assert!(matches!(rejection, Rejection::Malformed { .. }), "{from} {to}: {rejection}");
    }
    for bundle in ["", "{", "[]", "null", "{\"mediaType\":1}"] {
        assert!(matches!(refused(bundle.as_bytes()), Rejection::Malformed { .. }), "{bundle}");
    }
}

#[test]
fn a_signed_statement_that_is_no_signature_is_refused() {
    let key = private(OPENSSL_KEY);
    let statement = |predicate: &str, subjects: &str| {
        format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":{subjects},"predicateType":"{predicate}","predicate":{{}}}}"#
        )
    };
    let check = |statement: &str| verify(&bundle_of(statement, &key), &signed(), &key.public_key());
    let cosign = "https://sigstore.dev/cosign/sign/v1";
    let hex = &SIGNED["sha256:".len()..];
    let right = format!(r#"[{{"digest":{{"sha256":"{hex}"}},"annotations":{{"team":"web"}}}}]"#);
    let verified = check(&statement(cosign, &right)).unwrap();
    assert_eq!(verified.annotations["team"], "web");
    // An attestation says something about the image, not that it is vouched for.
    let attested = check(&statement("https://slsa.dev/provenance/v1", &right));
    assert!(matches!(attested, Err(Rejection::Malformed { .. })), "{attested:?}");
    for subjects in ["[]", r#"[{"digest":{}}]"#, &format!(r#"[{{"digest":{{"sha512":"{hex}"}}}}]"#)] {
        let result = check(&statement(cosign, subjects));
        assert!(matches!(result, Err(Rejection::OtherImage { .. })), "{subjects}: {result:?}");
    }
    assert!(check(&statement(cosign, &right).replace("Statement/v1", "Statement/v9")).is_err());
}

#[test]
fn a_wrong_password_is_said() {
    let password = || Ok(Zeroizing::new("wrong".into()));
    let error = PrivateKey::from_pem(COSIGN_KEY.as_bytes(), password).unwrap_err();
    assert!(matches!(error, KeyError::WrongPassword), "{error}");
    let none = || Err(io::Error::from(io::ErrorKind::NotFound));
    let error = PrivateKey::from_pem(COSIGN_KEY.as_bytes(), none).unwrap_err();
    assert!(matches!(error, KeyError::NoPassword { .. }), "{error}");
}

#[test]
fn what_is_no_key_is_refused_with_a_hint() {
    let refused = |text: &str| PrivateKey::from_pem(text.as_bytes(), unasked).unwrap_err();
    assert!(matches!(refused(""), KeyError::NotPem { .. }));
    assert!(matches!(refused("no key"), KeyError::NotPem { .. }));
    let public_for_private = refused(COSIGN_PUB);
    assert!(matches!(public_for_private, KeyError::OtherKind { .. }));
    assert!(public_for_private.hint().unwrap().contains("cosign.key"));
    let private_for_public = PublicKey::from_pem(OPENSSL_KEY.as_bytes()).unwrap_err();
    assert!(private_for_public.hint().unwrap().contains("cosign.pub"));
    let sec1 = refused(&OPENSSL_KEY.replace("PRIVATE KEY", "EC PRIVATE KEY"));
    assert!(sec1.hint().unwrap().contains("pkcs8"), "{sec1}");
    let pem = |tag: &str, content: &[u8]| pem::encode(&pem::Pem::new(tag, content));
    assert!(matches!(refused(&pem("PRIVATE KEY", b"\x30\x00")), KeyError::Unsupported));
    for content in [&b""[..], b"\x30\x59", &[0x30; 91], &[0; 44]] {
        let error = PublicKey::from_pem(pem("PUBLIC KEY", content).as_bytes()).unwrap_err();
        assert!(matches!(error, KeyError::Unsupported), "{error}");
    }
}

#[test]
fn an_encrypted_key_cannot_ask_for_unbearable_work() {
    let encrypted = String::from_utf8(pem::parse(COSIGN_KEY).unwrap().into_contents()).unwrap();
    let with = |from: &str, to: &str| {
        assert!(encrypted.contains(from), "{from}: {encrypted}");
        let changed = pem::Pem::new("ENCRYPTED SIGSTORE PRIVATE KEY", encrypted.replace(from, to));
        PrivateKey::from_pem(pem::encode(&changed).as_bytes(), secret).unwrap_err()
    };
    for (from, to) in [
        (r#""N":65536"#, r#""N":4294967296"#),
        (r#""N":65536"#, r#""N":0"#),
        (r#""N":65536"#, r#""N":65535"#),
        (r#""r":8"#, r#""r":4294967295"#),
        (r#""r":8"#, r#""r":0"#),
        (r#""p":1"#, r#""p":4294967295"#),
        (r#""p":1"#, r#""p":0"#),
        ("scrypt", "argon2"),
        ("nacl/secretbox", "none"),
        (r#""nonce":""#, r#""nonce":"AAAA"#),
    ] {
        let error = with(from, to);
        assert!(matches!(error, KeyError::Malformed { .. }), "{to}: {error}");
    }
}

#[test]
fn only_what_may_be_a_signature_is_fetched() {
    let of = |kind: Option<&str>| Descriptor {
        artifact_type: kind.map(Into::into),
        ..Descriptor::new(MediaType::Manifest, Digest::of(b""), 0)
    };
    for kind in [None, Some(BUNDLE), Some("application/vnd.oci.empty.v1+json")] {
        assert!(is_signature(&of(kind)), "{kind:?}");
    }
    assert!(!is_signature(&of(Some("application/vnd.cyclonedx+json"))));
}

#[test]
fn what_a_stranger_wrote_is_shown_in_one_line_without_control_characters() {
    let long = "x".repeat(10_000);
    for bundle in [
        format!(r#"{{"mediaType":"\u001b[2J{long}"}}"#),
        format!(r#"{{"mediaType":{{"{long}":1}}}}"#),
        format!(r#"{{"mediaType":"{BUNDLE}","verificationMaterial":"\u001b[2J{long}"}}"#),
    ] {
        let said = verify(bundle.as_bytes(), &signed(), &public(COSIGN_PUB)).unwrap_err().to_string();
        assert!(said.len() < 400 && !said.contains(char::is_control), "{said}");
    }
}
