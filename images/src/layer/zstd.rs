//! One zstd frame, made on all cores, the same on any number of them.
//!
//! The library's own threads do it: it cuts the input into jobs of a fixed
//! length, each with the end of the one before it as its dictionary, so that its
//! output depends on neither their number nor the size of writes (zstd's manual,
//! `ZSTD_c_nbWorkers`). Frames of their own, of the same length, would be 1.7%
//! larger.

use std::cell::RefCell;
use std::io::{self, Write};
use std::thread;

use ::zstd::stream::write::Encoder;
use ::zstd::zstd_safe::CParameter;

use super::LayerError;

/// Slower levels gain 1% and less on sites; faster ones lose to `gzip -6` in size.
const LEVEL: i32 = 9;
/// Input bytes a job. Past this the size hardly falls, while layers of a few MiB
/// would not use all cores.
const JOB: u32 = 4 << 20;
/// Each has some three jobs in memory.
const MOST_WORKERS: usize = 16;

/// Calls `write` with a writer whose bytes are compressed into `sink`; gives
/// the sink back, and what `write` returned.
pub(super) fn compress<S: Write, T>(
    sink: S,
    write: impl FnOnce(&mut dyn Write) -> Result<T, LayerError>,
) -> Result<(S, T), LayerError> {
    let workers = thread::available_parallelism().map_or(1, |count| count.get().min(MOST_WORKERS));
    compress_on(workers as u32, sink, write)
}

/// `workers` is at least 1: without any the library makes other bytes.
fn compress_on<S: Write, T>(
    workers: u32,
    sink: S,
    write: impl FnOnce(&mut dyn Write) -> Result<T, LayerError>,
) -> Result<(S, T), LayerError> {
    let failed = RefCell::new(None);
    let encode = || {
        let mut encoder =
            Encoder::new(Sink { inner: sink, failed: &failed }, LEVEL).map_err(LayerError::Write)?;
        encoder.multithread(workers).map_err(LayerError::Write)?;
        encoder.set_parameter(CParameter::JobSize(JOB)).map_err(LayerError::Write)?;
        let written = write(&mut encoder)?;
        let sink = encoder.finish().map_err(LayerError::Write)?;
        Ok((sink.inner, written))
    };
    let result = encode();
    // First, since an error of the sink is the cause of any other.
    match failed.take() {
        Some(error) => Err(LayerError::Write(error)),
        None => result,
    }
}

/// Keeps an error of the inner writer, which whoever writes through the encoder
/// would take for one of its source.
struct Sink<'a, S> {
    inner: S,
    failed: &'a RefCell<Option<io::Error>>,
}

impl<S> Sink<'_, S> {
    fn keep(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::Interrupted {
            return error;
        }
        *self.failed.borrow_mut() = Some(error);
        io::ErrorKind::BrokenPipe.into()
    }
}

impl<S: Write> Write for Sink<'_, S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.inner.write(buffer).map_err(|error| self.keep(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush().map_err(|error| self.keep(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::text as sample;

    fn zstd(workers: u32, content: &[u8], step: usize) -> Vec<u8> {
        let (sink, ()) = compress_on(workers, Vec::new(), |writer| {
            content.chunks(step).try_for_each(|chunk| writer.write_all(chunk)).map_err(LayerError::Write)
        })
        .unwrap();
        sink
    }

    #[test]
    fn any_decoder_reads_one_frame_of_any_length() {
        let job = JOB as usize;
        for length in [0, 1, job - 1, job, job + 1] {
            let content = sample(length);
            let compressed = zstd(2, &content, 65_536);
            let mut read = Vec::new();
            let mut decoder =
                ::zstd::stream::read::Decoder::with_buffer(compressed.as_slice()).unwrap().single_frame();
            io::Read::read_to_end(&mut decoder, &mut read).unwrap();
            assert!(read == content, "{length}");
            assert!(decoder.finish().is_empty(), "{length}");
        }
    }

    #[test]
    fn the_output_depends_neither_on_threads_nor_on_the_size_of_writes() {
        let content = sample(2 * JOB as usize + 100);
        let first = zstd(1, &content, content.len());
        for (workers, step) in [(2, 4096), (7, 70_001)] {
            assert!(zstd(workers, &content, step) == first, "{workers} workers, {step}");
        }
    }

    #[test]
    fn an_error_of_the_sink_is_returned() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let content = sample(8 * JOB as usize);
        let result = compress_on(2, Full, |writer| {
            writer.write_all(&content).map_err(|source| LayerError::Read { path: "x".into(), source })
        });
        assert!(
            matches!(result, Err(LayerError::Write(error)) if error.kind() == io::ErrorKind::StorageFull)
        );
    }
}
