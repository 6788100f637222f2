//! The client against a server that speaks the same bytes as containerd.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::net::UnixListener;

use super::*;

/// Serves `calls` calls on a socket in a new folder.
fn serve(calls: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let address = folder.path().join("containerd.sock");
    let (ready, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = UnixListener::bind(address).unwrap();
            ready.send(()).unwrap();
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            for _ in 0..calls {
                let (request, respond) = connection.accept().await.unwrap().unwrap();
                tokio::spawn(answer(request, respond));
            }
            // Until the client has gone.
            while connection.accept().await.is_some() {}
        });
    });
    wait.recv().unwrap();
    folder
}

fn connect(folder: &Path) -> Client {
    Client::connect(folder.join("containerd.sock").to_str().unwrap(), "k8s.io").unwrap()
}

async fn answer(mut request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    assert_eq!(request.headers()["containerd-namespace"], "k8s.io");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let asked = request.body_mut().data().await.unwrap().unwrap();
    let name = std::str::from_utf8(&asked[7..]).unwrap();
    let mut status = HeaderMap::new();
    status.insert("grpc-status", "0".parse().unwrap());
    let messages = match (request.uri().path(), name) {
        ("/containerd.services.images.v1.Images/Get", "app:1") => vec![field(1, &image())],
        ("/containerd.services.containers.v1.Containers/Get", "c1") => vec![field(1, &container())],
        ("/containerd.services.content.v1.Content/Read", "sha256:1") => {
            // As containerd cuts it; the first has its offset too.
            let first = [&[1 << 3, 7][..], &field(2, &[b'a'; 40_000])].concat();
            vec![first, field(2, b"end")]
        }
        _ => {
            status.insert("grpc-status", "5".parse().unwrap());
            status.insert("grpc-message", "no such thing".parse().unwrap());
            vec![]
        }
    };
    let mut response = Response::new(());
    if messages.is_empty() {
        *response.headers_mut() = status;
        respond.send_response(response, true).unwrap();
        return;
    }
    let mut stream = respond.send_response(response, false).unwrap();
    for message in messages {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let framed = [&[0][..], &length, &message].concat();
        // In pieces that agree with nothing.
        for piece in framed.chunks(7_777) {
            stream.send_data(Bytes::copy_from_slice(piece), false).unwrap();
        }
    }
    stream.send_trailers(status).unwrap();
}

fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut length = value.len();
    let mut bytes = vec![number << 3 | 2];
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes.extend_from_slice(value);
    bytes
}

fn image() -> Vec<u8> {
    let label = [field(1, b"key"), field(2, b"value")].concat();
    let size = vec![3 << 3, 0xac, 0x02];
    let target = [field(1, b"application/json"), field(2, b"sha256:0"), size].concat();
    [field(1, b"app:1"), field(2, &label), field(3, &target), field(7, b"")].concat()
}

fn container() -> Vec<u8> {
    [field(1, b"c1"), field(3, b"app:1"), field(6, b"overlayfs"), field(7, b"c1-key")].concat()
}

#[test]
fn an_image_and_a_container_are_read() {
    let folder = serve(2);
    let client = connect(folder.path());
    let target = Descriptor { media_type: "application/json".into(), digest: "sha256:0".into(), size: 300 };
    assert_eq!(client.image("app:1").unwrap(), Image { name: "app:1".into(), target });
    let expected =
        Container { image: "app:1".into(), snapshotter: "overlayfs".into(), snapshot_key: "c1-key".into() };
    assert_eq!(client.container("c1").unwrap(), expected);
}

#[test]
fn a_blob_is_read_to_its_end() {
    let folder = serve(1);
    let client = connect(folder.path());
    let mut content = Vec::new();
    let mut blob = client.blob("sha256:1").unwrap();
    blob.read_to_end(&mut content).unwrap();
    assert_eq!(blob.read(&mut [0; 8]).unwrap(), 0, "the end stays the end");
    assert_eq!(content.len(), 40_003);
    assert!(content.ends_with(b"aend"));
}

#[test]
fn what_is_not_there_is_told_from_other_failures() {
    let folder = serve(2);
    let client = connect(folder.path());
    let error = client.image("other").unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert_eq!(error.to_string(), "cannot get image \"other\" from containerd");
    assert!(client.blob("sha256:2").err().unwrap().is_not_found());
    let error = Client::connect("/no/such/socket", "default").err().unwrap();
    assert!(!error.is_not_found());
    assert_eq!(error.to_string(), "cannot connect to containerd at /no/such/socket");
}
