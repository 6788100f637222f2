use http_body_util::{Full, StreamBody};

use super::*;

fn written(stdout: &mut Stdout, bytes: &[u8]) {
    OutputStream::write(stdout, Bytes::copy_from_slice(bytes)).unwrap();
}

#[tokio::test]
async fn a_full_pipe_takes_nothing_until_it_is_read() {
    let (mut stdout, ending, mut output) = pipe(10);
    assert_eq!(stdout.check_write().unwrap(), 10);
    written(&mut stdout, b"0123456789");
    assert_eq!(stdout.check_write().unwrap(), 0);
    let too_much = OutputStream::write(&mut stdout, Bytes::from_static(b"x"));
    assert!(matches!(too_much, Err(StreamError::Trap(_))));
    let waiting = tokio::spawn(async move {
        stdout.ready().await;
        written(&mut stdout, b"abc");
        ending.tell(End::Complete);
    });
    let first = output.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "0123456789");
    waiting.await.unwrap();
    assert_eq!(output.size_hint().exact(), Some(3));
    assert_eq!(output.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
    assert!(output.frame().await.is_none() && output.is_end_stream());
}

#[tokio::test]
async fn what_was_written_before_a_failure_comes_before_the_error() {
    let (mut stdout, ending, mut output) = pipe(10);
    written(&mut stdout, b"abc");
    drop(ending);
    assert!(!output.is_end_stream());
    assert_eq!(output.size_hint().exact(), None, "it is not whole");
    assert_eq!(output.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
    assert!(output.frame().await.unwrap().is_err());
}

#[tokio::test]
async fn a_guest_learns_that_nobody_reads() {
    let (mut stdout, _ending, output) = pipe(3);
    written(&mut stdout, b"abc");
    let mut second = stdout.clone();
    let waiting = tokio::spawn(async move {
        second.ready().await;
        second.check_write()
    });
    drop(output);
    assert!(matches!(waiting.await.unwrap(), Err(StreamError::Closed)));
    assert!(matches!(stdout.flush(), Err(StreamError::Closed)));
}

#[tokio::test]
async fn stdin_ends_where_the_body_does_and_all_handles_read_the_same() {
    let mut first = Stdin::new(limited(Full::new(Bytes::from_static(b"0123456789")), 10));
    let mut second = first.clone();
    first.ready().await;
    assert_eq!(InputStream::read(&mut first, 4).unwrap(), "0123");
    assert_eq!(InputStream::read(&mut second, 100).unwrap(), "456789");
    assert!(matches!(InputStream::read(&mut first, 1), Err(StreamError::Closed)));
    assert!(!first.is_too_large());
}

#[tokio::test]
async fn stdin_fails_past_the_limit_and_says_so() {
    let chunks = ["0123", "4567"].map(|chunk| Ok::<_, io::Error>(Frame::data(Bytes::from(chunk))));
    let body = StreamBody::new(futures_util::stream::iter(chunks));
    let mut stdin = Stdin::new(limited(body, 5));
    stdin.ready().await;
    assert_eq!(InputStream::read(&mut stdin, 100).unwrap(), "0123");
    assert!(!stdin.is_too_large());
    stdin.ready().await;
    assert!(matches!(InputStream::read(&mut stdin, 100), Err(StreamError::LastOperationFailed(_))));
    assert!(stdin.is_too_large());
    assert!(matches!(InputStream::read(&mut stdin, 100), Err(StreamError::Closed)));
}
