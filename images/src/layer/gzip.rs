//! One gzip member, made on all cores, the same on any number of them.
//!
//! The input is cut into blocks of a fixed length. Each is deflated on its own,
//! with the end of the block before it as its dictionary, and ends on a byte
//! (`Z_SYNC_FLUSH`), so that the pieces can be joined: what `pigz` does.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress, Status};

use super::LayerError;

/// Input bytes a block: long enough that the cut costs below 0.1% of size,
/// short enough that small layers still use all cores.
const BLOCK: usize = 1 << 20;
/// How far back deflate can refer: the length of a dictionary.
const WINDOW: usize = 32 << 10;
/// Method deflate, no flags, no time, no extra flags, unknown system: nothing
/// that differs between machines (RFC 1952, 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// gzip's own default: past it the size hardly falls.
const LEVEL: u32 = 6;

/// Each has a block and its deflated form in memory, and a state of 270 KB.
const MOST_WORKERS: usize = 12;
/// Blocks that wait for a worker, or deflated ones for those before them: with
/// [`BLOCK`] and [`MOST_WORKERS`], what bounds the memory.
const WAITING: usize = 2;

struct Job {
    block: Arc<Vec<u8>>,
    before: Arc<Vec<u8>>,
    flush: FlushCompress,
    done: SyncSender<io::Result<Piece>>,
}

struct Piece {
    deflated: Vec<u8>,
    checksum: Hasher,
    /// Input bytes, modulo 2³² as the trailer counts them.
    length: u32,
}

/// Calls `write` with a writer whose bytes are compressed into `sink`; gives
/// the sink back, and what `write` returned.
pub(super) fn compress<S: Write + Send, T>(
    sink: S,
    write: impl FnOnce(&mut dyn Write) -> Result<T, LayerError>,
) -> Result<(S, T), LayerError> {
    let workers = thread::available_parallelism().map_or(1, |count| count.get().min(MOST_WORKERS));
    compress_on(workers, sink, write)
}

fn compress_on<S: Write + Send, T>(
    workers: usize,
    sink: S,
    write: impl FnOnce(&mut dyn Write) -> Result<T, LayerError>,
) -> Result<(S, T), LayerError> {
    let (jobs, waiting) = sync_channel::<Job>(WAITING);
    // In the order of the input; each carries one piece when it is done.
    let (pieces, ordered) = sync_channel(workers + WAITING);
    let waiting = Mutex::new(waiting);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| deflate_blocks(&waiting));
        }
        let joined = scope.spawn(move || join_pieces(sink, ordered));
        let mut writer =
            GzipWriter { block: Vec::with_capacity(BLOCK), before: Arc::default(), jobs, pieces };
        // On an error of `write` the last block is missing, and `sink` is dropped.
        let written = write(&mut writer);
        let finished = match written.is_ok() {
            true => writer.send(FlushCompress::Finish),
            false => Ok(()),
        };
        drop(writer);
        let sink =
            joined.join().unwrap_or_else(|_| Err(io::Error::other("a compressing thread ended early")));
        // First, since an error of the sink is the cause of any other.
        let sink = sink.map_err(LayerError::Write)?;
        let written = written?;
        finished.map_err(LayerError::Write)?;
        Ok((sink, written))
    })
}

/// Cuts what is written into blocks and hands them to the workers.
pub(super) struct GzipWriter {
    block: Vec<u8>,
    before: Arc<Vec<u8>>,
    jobs: SyncSender<Job>,
    pieces: SyncSender<Receiver<io::Result<Piece>>>,
}

impl GzipWriter {
    fn send(&mut self, flush: FlushCompress) -> io::Result<()> {
        let block = Arc::new(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK)));
        let before = std::mem::replace(&mut self.before, Arc::clone(&block));
        let (done, piece) = sync_channel(1);
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.pieces.send(piece).map_err(|_| gone())?;
        self.jobs.send(Job { block, before, flush, done }).map_err(|_| gone())
    }
}

impl Write for GzipWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        // A full block waits for the next byte, since the last one ends differently.
        if self.block.len() == BLOCK {
            self.send(FlushCompress::Sync)?;
        }
        let taken = buffer.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&buffer[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn deflate_blocks(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { block, before, flush, done }) = job else { return };
        let deflated = deflate(&block, &before, flush);
        let piece = deflated.map(|deflated| {
            let mut checksum = Hasher::new();
            checksum.update(&block);
            Piece { deflated, checksum, length: block.len() as u32 }
        });
        // Whoever waited has met an error of its own.
        drop(done.send(piece));
    }
}

fn deflate(block: &[u8], before: &[u8], flush: FlushCompress) -> io::Result<Vec<u8>> {
    // A new one each time: after `reset` zlib-rs 0.6.8 still hashes bytes that the
    // block before left in its window, so the output would depend on which thread
    // compressed what.
    let mut deflater = Compress::new(Compression::new(LEVEL), false);
    if !before.is_empty() {
        let dictionary = &before[before.len().saturating_sub(WINDOW)..];
        deflater.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    let mut deflated = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let consumed = usize::try_from(deflater.total_in()).unwrap_or(usize::MAX);
        let rest = block.get(consumed..).unwrap_or_default();
        let status = deflater.compress_vec(rest, &mut deflated, flush).map_err(io::Error::other)?;
        // Room that is left over says that a sync flush is complete (zlib's manual, deflate).
        let complete = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            _ => deflated.len() < deflated.capacity(),
        };
        if complete {
            return Ok(deflated);
        }
        deflated.reserve(block.len() / 2 + 1024);
    }
}

fn join_pieces<S: Write>(mut sink: S, ordered: Receiver<Receiver<io::Result<Piece>>>) -> io::Result<S> {
    sink.write_all(&HEADER)?;
    let mut checksum = Hasher::new();
    let mut size: u32 = 0;
    for piece in ordered {
        let piece = piece.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
        sink.write_all(&piece.deflated)?;
        checksum.combine(&piece.checksum);
        size = size.wrapping_add(piece.length);
    }
    sink.write_all(&checksum.finalize().to_le_bytes())?;
    sink.write_all(&size.to_le_bytes())?;
    Ok(sink)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::sample::text as sample;

    fn gzip(workers: usize, content: &[u8], step: usize) -> Vec<u8> {
        let (sink, ()) = compress_on(workers, Vec::new(), |writer| {
            content.chunks(step).try_for_each(|chunk| writer.write_all(chunk)).map_err(LayerError::Write)
        })
        .unwrap();
        sink
    }

    #[test]
    fn any_gunzip_reads_one_member_of_any_length() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
            let content = sample(length);
            let compressed = gzip(2, &content, 65_536);
            let mut read = Vec::new();
            // Not the decoder for several members: there is one only.
            let mut decoder = flate2::bufread::GzDecoder::new(compressed.as_slice());
            decoder.read_to_end(&mut read).unwrap();
            assert!(read == content, "{length}");
            assert!(decoder.into_inner().is_empty(), "{length}");
        }
    }

    #[test]
    fn bytes_that_cannot_be_compressed_survive() {
        let mut state = 7_u64;
        let content: Vec<u8> = (0..2 * BLOCK + 5)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(gzip(2, &content, 4096).as_slice()).read_to_end(&mut read).unwrap();
        assert!(read == content);
    }

    #[test]
    fn the_output_depends_neither_on_threads_nor_on_the_size_of_writes() {
        let content = sample(5 * BLOCK + 100);
        let first = gzip(1, &content, content.len());
        for (workers, step) in [(1, 1000), (2, 4096), (7, 1 << 20), (16, 3)] {
            assert!(gzip(workers, &content, step) == first, "{workers} workers, {step}");
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
        let content = sample(40 * BLOCK);
        let result = compress_on(2, Full, |writer| writer.write_all(&content).map_err(LayerError::Write));
        assert!(
            matches!(result, Err(LayerError::Write(error)) if error.kind() == io::ErrorKind::StorageFull)
        );
    }
}
