use super::*;
use crate::Timestamp;
use crate::tarball::TarWriter;

fn entry(path: &[u8], kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn names(bytes: &[u8]) -> Result<Vec<String>, InvalidTar> {
    let mut reader = TarReader::new(bytes);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        names.push(entry.path);
    }
    Ok(names)
}

#[test]
fn what_the_writer_writes_is_read_back() {
    let mut writer = TarWriter::new(Vec::new(), Timestamp::EPOCH);
    let long = format!("d/{}", "ü".repeat(200));
    writer.directory("d", 0o755).unwrap();
    writer.file("d/a", 0o755, 3, &mut b"abc".as_slice()).unwrap();
    writer.file(&long, 0o644, 600, &mut [7; 600].as_slice()).unwrap();
    let bytes = writer.finish().unwrap();

    let mut reader = TarReader::new(bytes.as_slice());
    let directory = reader.next_entry().unwrap().unwrap();
    assert_eq!((directory.path.as_str(), directory.kind), ("d", EntryKind::Directory));
    let file = reader.next_entry().unwrap().unwrap();
    assert_eq!((file.path.as_str(), file.mode, file.size), ("d/a", 0o755, 3));
    let mut content = String::new();
    reader.read_to_string(&mut content).unwrap();
    assert_eq!(content, "abc");
    let file = reader.next_entry().unwrap().unwrap();
    assert_eq!((file.path, file.size), (long, 600));
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn long_names_by_gnu_tar_are_read() {
    let long = format!("d/{}", "x".repeat(300));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    builder.append_data(&mut header, &long, io::empty()).unwrap();
    assert_eq!(names(&builder.into_inner().unwrap()).unwrap(), [long]);
}

#[test]
fn names_that_leave_the_archive_are_refused() {
    for name in ["/etc/passwd", "../x", "a/../../x", "a/..", "\u{fffd}"] {
        let mut bytes = entry(name.as_bytes(), EntryType::Regular, 0);
        if name == "\u{fffd}" {
            bytes = entry(b"\xff\xfe", EntryType::Regular, 0);
        }
        assert!(matches!(names(&bytes), Err(InvalidTar::Path { .. })), "{name}");
    }
    let mut bytes = entry(b"x", EntryType::XHeader, 22);
    bytes.extend_from_slice(b"22 path=../../etc/abc\n");
    bytes.resize(1024, 0);
    bytes.extend(entry(b"harmless", EntryType::Regular, 0));
    assert!(matches!(names(&bytes), Err(InvalidTar::Path { .. })));
}

#[test]
fn names_are_brought_into_one_form() {
    assert_eq!(names(&entry(b"./a//b/./c/", EntryType::Directory, 0)).unwrap(), ["a/b/c"]);
    assert_eq!(names(&entry(b"./", EntryType::Directory, 0)).unwrap(), [""]);
}

#[test]
fn a_huge_extension_record_is_refused_before_it_is_read() {
    for kind in [EntryType::XHeader, EntryType::GNULongName, EntryType::XGlobalHeader] {
        let bytes = entry(b"x", kind, 8 << 30);
        assert!(matches!(names(&bytes[..512]), Err(InvalidTar::Extension { .. })));
    }
}

#[test]
fn malformed_extension_records_are_refused() {
    for records in [
        "x",
        "5 a=b\n",
        "99999999999999999999 a=b\n",
        "3 a=b\n",
        "0 a=b\n",
        "6 a=b ",
        "9 size=x\n",
        "24 GNU.sparse.major=1.0\n",
    ] {
        let mut bytes = entry(b"x", EntryType::XHeader, records.len() as u64);
        bytes.extend_from_slice(records.as_bytes());
        bytes.resize(1024, 0);
        bytes.extend(entry(b"a", EntryType::Regular, 0));
        assert!(matches!(names(&bytes), Err(InvalidTar::Header { .. })), "{records:?}");
    }
}

#[test]
fn truncation_anywhere_is_an_error_and_never_a_panic() {
    let mut writer = TarWriter::new(Vec::new(), Timestamp::EPOCH);
    writer.file(&"ü".repeat(100), 0o644, 700, &mut [1; 700].as_slice()).unwrap();
    let bytes = writer.finish().unwrap();
    let content_end = bytes.len() - 1024;
    for end in 1..content_end {
        assert!(names(&bytes[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_damaged_header_is_an_error() {
    let good = entry(b"abc", EntryType::Regular, 0);
    for at in 0..512 {
        let mut bytes = good.clone();
        bytes[at] ^= 0x41;
        let _ = names(&bytes);
    }
    let mut bytes = good;
    bytes[1] = b'x';
    assert!(matches!(names(&bytes), Err(InvalidTar::Header { .. })));
}

#[test]
fn a_size_that_no_stream_has_ends_as_truncated() {
    let mut bytes = entry(b"huge", EntryType::Regular, 0);
    // Base 256, as GNU tar writes what eleven octal digits can't hold.
    bytes[124..136].copy_from_slice(&[0x80, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    let mut header = Header::from_byte_slice(&bytes).clone();
    header.set_cksum();
    bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(&entry(b"hidden", EntryType::Regular, 0));
    assert!(matches!(names(&bytes), Err(InvalidTar::Truncated { .. })), "{:?}", names(&bytes));
}
